//! What the store holds open, counted: small, rebuilt at start, and equal to a
//! rescan at any moment of rest. Here is who enters, moves and leaves; what is told
//! of it has a file each.

mod batches;
mod demand;
mod destinations;
mod index;
mod live_queues;
mod open;
mod overtaken;
mod rates;
mod setbacks;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use crate::{
    model::{
        attempt::Lane,
        batch::BatchState,
        id::{BatchId, CredentialId, DestinationId, RequestKey, TenantId},
        request::{Cohort, Entry, LiveQueue, Place},
        time::Timestamp,
    },
    policy::{
        pack::{self, Waiting},
        poll,
    },
};

use super::{
    Settings,
    inflight::{Mention, Mentions},
    limits::Limits,
    reserves::Reserves,
    scope::Organizations,
    settings::AdmissionSettings,
};

pub use self::open::Full;
pub(super) use self::{
    batches::{Batches, Stayed, Tracked, Watched},
    demand::Asked,
};
use self::{
    demand::Demands, destinations::Destinations, live_queues::Lines, open::Open,
    overtaken::Overtaken, rates::Rates, setbacks::Setbacks,
};

pub(super) struct Summary {
    pub organizations: Arc<Organizations>,
    pub queue: BTreeMap<Cohort, Waiting>,
    pub destinations: Destinations,
    pub batches: Batches,
    pub limits: Limits,
    /// Cohorts that were empty, and are not: who has just come.
    pub arrivals: u64,
    open: Open,
    reserves: Reserves,
    /// A request's moves can be told in another order than they were made, so
    /// that a count is below zero for a moment: these are signed.
    queued: i64,
    lines: i64,
    live: i64,
    /// The same by queue; those without any are not kept.
    live_queues: HashMap<LiveQueue, Lines>,
    demands: Demands,
    /// Background responses that the provider is still asked about, by whom they are
    /// for: one of a request that has ended is to be cancelled.
    remotes: Mentions<DestinationId>,
    overtaken: Overtaken,
    setbacks: Setbacks,
    rates: Rates,
}

/// How much is open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub queued: u64,
    pub in_batches: u64,
    pub live: u64,
    pub batches: u64,
}

impl Counts {
    pub fn open(&self) -> u64 {
        self.queued + self.in_batches + self.live
    }
}

impl Summary {
    pub fn new(settings: &Settings, organizations: Arc<Organizations>, reserves: Reserves) -> Self {
        let budgets = settings.rescue.budget().is_bound();
        Summary {
            reserves,
            demands: Demands::new(budgets),
            ..Summary::with(&settings.packing, &settings.watch, organizations)
        }
    }

    fn with(
        packing: &pack::Settings,
        watch: &poll::Settings,
        organizations: Arc<Organizations>,
    ) -> Self {
        Summary {
            organizations,
            queue: BTreeMap::new(),
            destinations: Destinations::default(),
            batches: Batches::default(),
            limits: Limits::new(packing.enqueued_tokens.clone()),
            arrivals: 0,
            open: Open::default(),
            reserves: Reserves::default(),
            queued: 0,
            lines: 0,
            live: 0,
            live_queues: HashMap::new(),
            demands: Demands::default(),
            remotes: Mentions::default(),
            overtaken: Overtaken::default(),
            setbacks: Setbacks::default(),
            rates: Rates::new(packing, watch),
        }
    }

    /// What was counted for the credential alone goes to its organization.
    pub fn regroup(&mut self, credential: CredentialId, now: Timestamp) {
        let organizations = self.organizations.clone();
        self.demands.regroup(credential, &organizations);
        self.batches.regroup(credential, &organizations);
        self.limits.regroup(credential, &organizations, now);
        self.rates.regroup(credential, &organizations, now);
    }

    /// Counts a request in whose promise was given before.
    pub fn enter(&mut self, place: &Place, entry: &Entry) {
        self.count_firm(entry, 1);
        self.admit(place, entry);
    }

    /// Counts a new request in, after its promise.
    /// True where its cohort was empty before.
    fn admit(&mut self, place: &Place, entry: &Entry) -> bool {
        self.open.enter(entry);
        self.arrive(place, entry)
    }

    pub fn shift(&mut self, entry: &Entry, from: &Place, to: &Place) {
        self.leave_batch(from, entry);
        if let (Place::Live, Place::Line(batch)) = (from, to)
            && self.may_run(batch)
        {
            self.reserves.come_back(&entry.key, *batch);
        }
        self.depart(from, entry);
        self.arrive(to, entry);
    }

    /// It moves because another lane was chosen for it. True where its cohort was
    /// empty before.
    pub fn replan(&mut self, entry: &Entry, lane: Lane, from: &Place, to: &Place) -> bool {
        self.depart(from, entry);
        self.arrive(to, &Entry { lane, ..*entry })
    }

    /// Counts a request out.
    pub fn exit(&mut self, place: &Place, entry: &Entry) {
        self.count_firm(entry, -1);
        self.overtaken.remove(&entry.key);
        self.depart(place, entry);
        self.open.exit(entry);
        self.leave_batch(place, entry);
        self.reserves.close(entry.key);
    }

    /// The batch's answer for an open request: it bills that one once.
    pub fn billed(&self, key: &RequestKey, batch: BatchId) {
        if self.may_run(&batch) {
            self.reserves.billed(key, batch);
        }
    }

    fn leave_batch(&self, place: &Place, entry: &Entry) {
        if let Place::Line(batch) = place
            && self.may_run(batch)
        {
            self.reserves.leave(&entry.key, *batch);
        }
    }

    /// Whether the provider may run lines of the batch that are in it no more.
    fn may_run(&self, batch: &BatchId) -> bool {
        let tracked = self.batches.get(batch);
        tracked.is_some_and(|it| it.batch.state.is_open() && it.batch.state != BatchState::Filling)
    }

    fn arrive(&mut self, place: &Place, entry: &Entry) -> bool {
        match place {
            Place::Queue(cohort) => {
                self.queued += 1;
                let waiting = self.queue.entry(*cohort).or_default();
                waiting.add(entry);
                let first = waiting.lines == 1;
                self.arrivals += u64::from(first);
                self.drop_empty(cohort);
                return first;
            }
            Place::Line(_) => self.lines += 1,
            Place::Live => self.count_live(entry, 1),
        }
        false
    }

    fn depart(&mut self, place: &Place, entry: &Entry) {
        match place {
            Place::Queue(cohort) => {
                self.queued -= 1;
                self.queue.entry(*cohort).or_default().subtract(entry);
                self.drop_empty(cohort);
            }
            Place::Line(_) => self.lines -= 1,
            Place::Live => self.count_live(entry, -1),
        }
    }

    /// At no lines and some bytes, a line waits whose neighbour's leaving was told
    /// before its coming.
    fn drop_empty(&mut self, cohort: &Cohort) {
        let waiting = self.queue.get(cohort);
        let left = waiting.map(|waiting| (waiting.lines, waiting.bytes, waiting.inputs));
        if left == Some((0, 0, 0)) {
            self.queue.remove(cohort);
        }
    }

    pub fn is_full(&self, cohort: &Cohort, settings: &pack::Settings) -> bool {
        self.queue
            .get(cohort)
            .is_some_and(|waiting| waiting.is_full(settings))
    }

    /// Whether one more of the tenant's has room, of so many bytes, with so many to spare
    /// on the disk.
    ///
    /// # Errors
    /// As `admission` bounds it.
    pub fn has_room_for(
        &mut self,
        tenant: TenantId,
        bytes: u64,
        spare: u64,
        admission: &AdmissionSettings,
        now: Timestamp,
    ) -> Result<(), Full> {
        self.open.room(tenant, bytes, spare, admission, now)
    }

    /// Counts a new request in, after its promise, if it still has room; else its
    /// promise is taken back. True where its cohort was empty before.
    ///
    /// # Errors
    /// As [`Summary::has_room_for`].
    pub fn admit_within(
        &mut self,
        place: &Place,
        entry: &Entry,
        spare: u64,
        admission: &AdmissionSettings,
        now: Timestamp,
    ) -> Result<bool, Full> {
        let (tenant, bytes) = (entry.key.tenant, entry.line_bytes.into());
        match self.has_room_for(tenant, bytes, spare, admission, now) {
            Ok(()) => Ok(self.admit(place, entry)),
            Err(full) => {
                self.count_firm(entry, -1);
                Err(full)
            }
        }
    }

    pub fn counts(&self) -> Counts {
        Counts {
            queued: self.queued.max(0) as u64,
            in_batches: self.lines.max(0) as u64,
            live: self.live.max(0) as u64,
            batches: self
                .batches
                .values()
                .filter(|tracked| tracked.batch.state.is_open())
                .count() as u64,
        }
    }

    /// There is work for the destination until this is dropped.
    pub fn mention_remote(&self, destination: DestinationId) -> Mention<DestinationId> {
        self.remotes.mention(destination)
    }

    pub fn open_of(&self, tenant: TenantId) -> u64 {
        self.open.of(tenant)
    }

    pub fn has_work(&self, tenant: TenantId) -> bool {
        let mut destinations = self.destinations.values();
        self.open.has_any(tenant)
            || destinations.any(|it| it.tenant == tenant && self.remotes.contains(&it.id))
            || self.batches.of_tenant(&tenant).any(is_unfinished)
    }

    /// Whether there is work for the credential.
    pub fn needs(&self, credential: CredentialId) -> bool {
        let mut destinations = self.destinations.of(credential);
        destinations.any(|it| self.open.goes_to(it.id) || self.remotes.contains(&it.id))
            || self.batches.of_credential(&credential).any(is_unfinished)
    }
}

/// It runs, or something of it is to be deleted at the provider.
fn is_unfinished(tracked: &Tracked) -> bool {
    tracked.batch.state.is_open() || !tracked.batch.litter.is_empty()
}

#[cfg(test)]
mod tests;
