//! What the store holds open, counted: small, rebuilt at start, and equal to a
//! rescan at any moment of rest.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
    time::Duration,
};

use crate::{
    model::{
        batch::{Batch, BatchState},
        id::{BatchId, CredentialId, DestinationId, RequestKey, TenantId},
        request::{Cohort, Destination, Entry, Guarantee, LiveQueue, OnLate, Place},
        time::Timestamp,
    },
    policy::{
        demand::{Capacity, Demand},
        limits::Rate,
        pack::Waiting,
        plan::Stay,
    },
};

use super::{Settings, limits::Limits, live::Account, scope::ScopeKey};

pub(super) struct Summary {
    pub queue: BTreeMap<Cohort, Waiting>,
    pub destinations: HashMap<DestinationId, Destination>,
    pub batches: BTreeMap<BatchId, Tracked>,
    /// Firm requests by scope and deadline, wherever they are.
    firm: HashMap<ScopeKey, BTreeMap<Timestamp, i64>>,
    /// The same of requests that wait for an ordinary call, or are in one.
    calling: HashMap<(ScopeKey, Guarantee), BTreeMap<Timestamp, i64>>,
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
    pub limits: Limits,
    /// Lines that were taken out of batches that run on, and which.
    overtaken: HashMap<RequestKey, BatchId>,
    /// How many batches of a cohort were left for a fresh one.
    left: HashMap<Cohort, u32>,
    /// Cohorts that were empty, and are not: who has just come.
    pub arrivals: u64,
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
    /// The share of its lines that had finished when it was last looked at before a
    /// cancel; none where nothing was told.
    pub heard: Option<f64>,
    /// When it is to be left, as last thought out.
    pub stay: Option<Stayed>,
    /// The provider holds its tokens no more.
    pub released: bool,
    /// All that the rescuer wanted back has gone already.
    pub emptied: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Stayed {
    pub stay: Stay,
    /// The latest instant at which its lines must begin to run live.
    pub start: Timestamp,
    pub thought: Timestamp,
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
            firm: HashMap::new(),
            calling: HashMap::new(),
            open: HashMap::new(),
            queued: 0,
            lines: 0,
            live: 0,
            live_queues: HashMap::new(),
            returned: HashMap::new(),
            limits: Limits::new(packing.enqueued_tokens.clone()),
            arrivals: 0,
            overtaken: HashMap::new(),
            left: HashMap::new(),
            creates: HashMap::new(),
            polls: HashMap::new(),
            create_rate: Rate::of(creates, hour),
            poll_rate: Rate::new(Duration::from_secs_f64(1.0 / polls), polls.ceil() as u32),
        }
    }

    /// Counts a request in whose promise was given before.
    pub fn enter(&mut self, place: &Place, entry: &Entry) {
        self.count_firm(entry, 1);
        *self.open.entry(entry.key.tenant).or_default() += 1;
        self.arrive(place, entry);
    }

    /// What can be promised of one more call, where a promise is asked for with the
    /// `capacity` to keep it; a firm one is counted at once. The destination is
    /// known from here on.
    pub fn promise(
        &mut self,
        destination: &Destination,
        cohort: &Cohort,
        deadline: Timestamp,
        now: Timestamp,
        capacity: Option<&Capacity>,
    ) -> Guarantee {
        let known = self.destinations.entry(destination.id);
        known.or_insert_with(|| destination.clone());
        if !capacity.is_some_and(|capacity| self.has_room(destination, deadline, now, capacity)) {
            return Guarantee::BestEffort;
        }
        let book = self.firm.entry(ScopeKey::from(destination)).or_default();
        *book.entry(cohort.bucket.start).or_default() += 1;
        Guarantee::Firm
    }

    /// Whether one more call can be promised to be in time.
    pub fn has_room(
        &self,
        destination: &Destination,
        deadline: Timestamp,
        now: Timestamp,
        capacity: &Capacity,
    ) -> bool {
        let empty = BTreeMap::new();
        let book = self
            .firm
            .get(&ScopeKey::from(destination))
            .unwrap_or(&empty);
        // Nearly always all of it would fit even before this deadline.
        let all = book.values().sum::<i64>() as f64;
        let due = deadline;
        capacity.has_room(now, due, [Demand { due, calls: all }])
            || capacity.has_room(now, due, demands(book))
    }

    /// Counts a new request in, after its promise.
    /// True where its cohort was empty before.
    pub fn admit(&mut self, place: &Place, entry: &Entry) -> bool {
        *self.open.entry(entry.key.tenant).or_default() += 1;
        self.arrive(place, entry)
    }

    fn scope_of(&self, entry: &Entry) -> Option<ScopeKey> {
        let destination = self.destinations.get(&entry.cohort.destination);
        destination.map(ScopeKey::from)
    }

    fn count_firm(&mut self, entry: &Entry, by: i64) {
        if entry.cohort.guarantee == Guarantee::Firm
            && let Some(scope) = self.scope_of(entry)
        {
            count(&mut self.firm, scope, entry.cohort.bucket.start, by);
        }
    }

    fn count_calling(&mut self, entry: &Entry, by: i64) {
        if let Some(scope) = self.scope_of(entry) {
            let whose = (scope, entry.cohort.guarantee);
            count(&mut self.calling, whose, entry.cohort.bucket.start, by);
        }
    }

    /// Calls of the scope that wait for an ordinary call, or are in one.
    pub fn calling(&self, scope: &ScopeKey, guarantee: Guarantee) -> Vec<Demand> {
        let whose = (scope.clone(), guarantee);
        let book = self.calling.get(&whose);
        book.into_iter().flat_map(demands).collect()
    }

    /// The same of both kinds, in order of deadlines.
    pub fn all_calling(&self, scope: &ScopeKey) -> Vec<Demand> {
        let kinds = [Guarantee::Firm, Guarantee::BestEffort];
        let mut all: Vec<Demand> = kinds
            .into_iter()
            .flat_map(|kind| self.calling(scope, kind))
            .collect();
        all.sort_by_key(|demand| demand.due);
        all
    }

    /// The scope's batches that run, by age, with the share that has not ended.
    pub fn running(&self, scope: &ScopeKey, now: Timestamp) -> Vec<(Duration, f64)> {
        let batches = self.batches.values().filter(|tracked| {
            let batch = &tracked.batch;
            batch.state == BatchState::Submitted
                && batch.credential == scope.credential
                && batch.model == scope.model
        });
        let ages = batches.map(|tracked| {
            let age = tracked.batch.created.until(now);
            (age, 1.0 - tracked.heard.unwrap_or(0.0))
        });
        ages.collect()
    }

    pub fn is_full(&self, cohort: &Cohort, settings: &crate::policy::pack::Settings) -> bool {
        self.queue
            .get(cohort)
            .is_some_and(|waiting| waiting.is_full(settings))
    }

    /// Counts a request out.
    pub fn exit(&mut self, place: &Place, entry: &Entry) {
        self.count_firm(entry, -1);
        self.overtaken.remove(&entry.key);
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

    fn count_live(&mut self, entry: &Entry, by: i64) {
        self.live += by;
        self.count_calling(entry, by);
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
                        heard: None,
                        stay: None,
                        released: false,
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

    /// Lines go live although their batch runs on.
    pub fn overtake(&mut self, batch: BatchId, lines: &[Entry]) {
        let lines = lines.iter().map(|line| (line.key, batch));
        self.overtaken.extend(lines);
    }

    /// Whether a line that went live although this batch runs on has no answer yet:
    /// it may come back.
    pub fn is_awaited(&self, batch: BatchId) -> bool {
        self.overtaken.values().any(|from| *from == batch)
    }

    /// Where a request goes that could not run live: to the batch that it was taken
    /// out of, while that runs, so that it never stands in two.
    pub fn back_from_live(&mut self, entry: &Entry) -> Place {
        let batch = self.overtaken.remove(&entry.key);
        let running = batch.filter(|id| {
            let tracked = self.batches.get(id);
            tracked.is_some_and(|tracked| tracked.batch.state.is_open())
        });
        running.map_or(Place::Queue(entry.cohort), Place::Line)
    }

    /// How many batches of the cohort were left for a fresh one.
    pub fn left_before(&self, cohort: &Cohort) -> u32 {
        self.left.get(cohort).copied().unwrap_or(0)
    }

    /// One more is left; those whose time is over are forgotten.
    pub fn leave(&mut self, cohort: Cohort, now: Timestamp) {
        self.left
            .retain(|cohort, _| cohort.bucket.start + FORGIVEN_AFTER > now);
        *self.left.entry(cohort).or_default() += 1;
    }

    /// A batch of the cohort came back whole.
    pub fn forgive(&mut self, cohort: &Cohort) {
        self.returned.remove(cohort);
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

fn demands(book: &BTreeMap<Timestamp, i64>) -> impl Iterator<Item = Demand> {
    book.iter().map(|(&due, &calls)| Demand {
        due,
        calls: calls.max(0) as f64,
    })
}

/// Counts that are below zero for a moment, because moves can be told in another
/// order than they were made, stay until they are zero.
fn count<K: Clone + Eq + Hash>(
    books: &mut HashMap<K, BTreeMap<Timestamp, i64>>,
    scope: K,
    due: Timestamp,
    by: i64,
) {
    let book = books.entry(scope.clone()).or_default();
    let calls = book.entry(due).or_default();
    *calls += by;
    if *calls == 0 {
        book.remove(&due);
    }
    if book.is_empty() {
        books.remove(&scope);
    }
}
