//! What the store holds open, counted: small, rebuilt at start, and equal to a
//! rescan at any moment of rest.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use crate::{
    model::{
        batch::Batch,
        id::{BatchId, CredentialId, DestinationId, TenantId},
        request::{Cohort, Destination, Entry, LiveQueue, OnLate, Place},
        time::Timestamp,
    },
    policy::{
        limits::Rate,
        pack::{Cap, Waiting},
    },
};

use super::{Settings, live::Account};

pub(super) struct Summary {
    pub queue: BTreeMap<Cohort, Waiting>,
    pub destinations: HashMap<DestinationId, Destination>,
    pub batches: BTreeMap<BatchId, Tracked>,
    /// Open requests by tenant, wherever they are.
    open: HashMap<TenantId, u64>,
    /// A request's moves can be told in another order than they were made, so
    /// that a count is below zero for a moment: these are signed.
    queued: i64,
    lines: i64,
    live: i64,
    /// The same by queue; those without any are not kept.
    live_queues: HashMap<LiveQueue, Lines>,
    /// Cohorts whose lines came back from their batch without an answer.
    returned: HashMap<Cohort, Returned>,
    /// Destinations that take fewer tokens than a full batch has.
    caps: HashMap<DestinationId, Cap>,
    creates: HashMap<CredentialId, Rate>,
    polls: HashMap<CredentialId, Rate>,
    create_rate: Rate,
    poll_rate: Rate,
}

/// A batch and what is only known while we run.
#[derive(Clone)]
pub(super) struct Tracked {
    pub batch: Batch,
    /// When its next step is due.
    pub due: Timestamp,
    /// The rescuer wants its lines back.
    pub wanted: bool,
    /// And has moved all of them already.
    pub emptied: bool,
}

/// So many lines; signed, as told in any order.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lines {
    pub count: i64,
    pub bytes: i64,
}

#[derive(Clone, Copy, Default)]
struct Returned {
    until: Timestamp,
    times: u32,
}

/// A cohort that has been quiet for so long begins anew.
const FORGIVEN_AFTER: Duration = Duration::from_secs(600);

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
    pub fn new(settings: &Settings) -> Self {
        let hour = Duration::from_secs(3600);
        let packing = &settings.packing;
        let kept = 1.0 - packing.creates_reserve.clamp(0.0, 1.0);
        let creates = (f64::from(packing.creates_per_hour) * kept) as u32;
        let polls = settings.watch.polls_per_second.max(0.001);
        Summary {
            queue: BTreeMap::new(),
            destinations: HashMap::new(),
            batches: BTreeMap::new(),
            open: HashMap::new(),
            queued: 0,
            lines: 0,
            live: 0,
            live_queues: HashMap::new(),
            returned: HashMap::new(),
            caps: HashMap::new(),
            creates: HashMap::new(),
            polls: HashMap::new(),
            create_rate: Rate::of(creates, hour),
            poll_rate: Rate::new(Duration::from_secs_f64(1.0 / polls), polls.ceil() as u32),
        }
    }

    /// Counts a request in. True where its cohort was empty before.
    pub fn enter(&mut self, place: &Place, entry: &Entry) -> bool {
        *self.open.entry(entry.key.tenant).or_default() += 1;
        self.arrive(place, entry)
    }

    /// Counts a new request in, and its destination.
    pub fn admit(&mut self, destination: Destination, place: &Place, entry: &Entry) -> bool {
        self.destinations
            .entry(destination.id)
            .or_insert(destination);
        self.enter(place, entry)
    }

    pub fn is_full(&self, cohort: &Cohort, settings: &crate::policy::pack::Settings) -> bool {
        self.queue
            .get(cohort)
            .is_some_and(|waiting| waiting.is_full(settings))
    }

    /// Counts a request out.
    pub fn exit(&mut self, place: &Place, entry: &Entry) {
        self.depart(place, entry);
        if let Some(open) = self.open.get_mut(&entry.key.tenant) {
            *open -= 1;
            if *open == 0 {
                self.open.remove(&entry.key.tenant);
            }
        }
    }

    pub fn shift(&mut self, entry: &Entry, from: &Place, to: &Place) -> bool {
        self.depart(from, entry);
        self.arrive(to, entry)
    }

    fn arrive(&mut self, place: &Place, entry: &Entry) -> bool {
        match place {
            Place::Queue(cohort) => {
                self.queued += 1;
                let waiting = self.queue.entry(*cohort).or_default();
                waiting.add(entry);
                let first = waiting.lines == 1;
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

    fn count_live(&mut self, entry: &Entry, by: i64) {
        self.live += by;
        let queue = entry.live_queue();
        let lines = self.live_queues.entry(queue).or_default();
        lines.count += by;
        lines.bytes += by * i64::from(entry.line_bytes);
        if lines.count == 0 {
            self.live_queues.remove(&queue);
        }
    }

    /// Live work that was to be answered in a cheaper lane, and can go back there.
    pub fn live_rescues(&self) -> Vec<(Destination, Lines)> {
        let rescues = self.live_queues.iter();
        let rescues = rescues.filter(|(queue, _)| queue.rescued && queue.on_late == OnLate::Rescue);
        let with_destination = |(queue, lines): (&LiveQueue, &Lines)| {
            let destination = self.destinations.get(&queue.destination)?;
            Some((destination.clone(), *lines))
        };
        rescues.filter_map(with_destination).collect()
    }

    /// Batches whose lines are wanted back to run live, and have not come yet.
    pub fn wanted_back(&self) -> Vec<Batch> {
        let batches = self.batches.values();
        let wanted = batches.filter(|tracked| {
            let batch = &tracked.batch;
            tracked.wanted
                && !tracked.emptied
                && batch.state.is_open()
                && batch.cohort.on_late == OnLate::Rescue
        });
        wanted.map(|tracked| tracked.batch.clone()).collect()
    }

    /// The queues of live work, and on whose account it runs.
    pub fn live_queues(&self) -> HashMap<LiveQueue, Account> {
        let account = |queue: &LiveQueue| {
            let destination = self.destinations.get(&queue.destination);
            if destination.is_none() {
                tracing::error!(?queue, "live work without a destination");
            }
            let destination = destination?;
            let account = Account {
                credential: destination.credential,
                model: destination.model.as_str().into(),
            };
            Some((*queue, account))
        };
        self.live_queues.keys().filter_map(account).collect()
    }

    fn drop_empty(&mut self, cohort: &Cohort) {
        if self
            .queue
            .get(cohort)
            .is_some_and(|waiting| waiting.lines == 0)
        {
            self.queue.remove(cohort);
        }
    }

    /// All open requests. Asked at every admission.
    pub fn open(&self) -> u64 {
        (self.queued + self.lines + self.live).max(0) as u64
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

    pub fn has_work(&self, tenant: TenantId) -> bool {
        self.open.contains_key(&tenant)
            || self.batches.values().any(|tracked| {
                let batch = &tracked.batch;
                batch.tenant == tenant && (batch.state.is_open() || !batch.litter.is_empty())
            })
    }

    /// Writes a batch's new version; due at once unless it was only touched.
    pub fn track(&mut self, batch: Batch, due: Timestamp) {
        match self.batches.get_mut(&batch.id) {
            Some(tracked) => {
                tracked.batch = batch;
                tracked.due = due;
            }
            None => {
                let id = batch.id;
                self.batches.insert(
                    id,
                    Tracked {
                        batch,
                        due,
                        wanted: false,
                        emptied: false,
                    },
                );
            }
        }
    }

    /// Open batches that a request of this cohort may be a line of.
    pub fn batches_of(&self, cohort: &Cohort) -> Vec<BatchId> {
        self.batches
            .values()
            .filter(|tracked| tracked.batch.cohort == *cohort && tracked.batch.state.is_open())
            .map(|tracked| tracked.batch.id)
            .collect()
    }

    /// Lines of the cohort came back: the next batch of it waits for `pause`, which
    /// is told how often this has happened in a row.
    pub fn hold_back(
        &mut self,
        cohort: Cohort,
        now: Timestamp,
        pause: impl FnOnce(u32) -> Duration,
    ) {
        self.returned
            .retain(|_, returned| returned.until + FORGIVEN_AFTER > now);
        let returned = self.returned.entry(cohort).or_default();
        returned.times += 1;
        returned.until = now + pause(returned.times);
    }

    /// A batch of the cohort came back whole.
    pub fn forgive(&mut self, cohort: &Cohort) {
        self.returned.remove(cohort);
    }

    /// The most bytes of a destination's next batch. None while another one is on
    /// its way where the provider's room is known to be short.
    pub fn room(&self, destination: DestinationId, max_bytes: u64) -> Option<u64> {
        match self.caps.get(&destination) {
            None => Some(max_bytes),
            Some(_) if self.is_busy(destination, None) => None,
            Some(cap) => Some(cap.bytes.min(max_bytes)),
        }
    }

    /// The provider refused the batch for its tokens: the next is smaller, unless
    /// another one stood in its way. True where it will never fit.
    pub fn refused(&mut self, batch: &Batch) -> bool {
        let destination = batch.cohort.destination;
        if self.is_busy(destination, Some(batch.id)) {
            return false;
        }
        let before = self.caps.get(&destination).copied();
        let cap = Cap::refused(before, batch.bytes);
        self.caps.insert(destination, cap);
        cap.is_hopeless(batch.lines)
    }

    /// The provider took a batch of the destination.
    pub fn taken(&mut self, destination: DestinationId, max_bytes: u64) {
        if let Some(cap) = self.caps.remove(&destination)
            && let Some(cap) = cap.taken(max_bytes)
        {
            self.caps.insert(destination, cap);
        }
    }

    fn is_busy(&self, destination: DestinationId, but: Option<BatchId>) -> bool {
        self.batches.values().any(|tracked| {
            let batch = &tracked.batch;
            batch.cohort.destination == destination
                && batch.state.is_open()
                && Some(batch.id) != but
        })
    }

    /// When the next batch of the cohort may be created.
    pub fn create_at(&mut self, cohort: &Cohort, credential: CredentialId) -> Timestamp {
        let held_back = self
            .returned
            .get(cohort)
            .map_or(Timestamp::ZERO, |held| held.until);
        self.creates(credential).ready_at().max(held_back)
    }

    pub fn creates(&mut self, credential: CredentialId) -> &mut Rate {
        self.creates
            .entry(credential)
            .or_insert_with(|| self.create_rate.clone())
    }

    pub fn polls(&mut self, credential: CredentialId) -> &mut Rate {
        self.polls
            .entry(credential)
            .or_insert_with(|| self.poll_rate.clone())
    }
}
