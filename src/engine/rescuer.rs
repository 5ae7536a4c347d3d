//! Takes work out of its lane so that it still meets its deadline, by the plan
//! that admission went by. Live capacity is shared: work leaves early enough for
//! all of its scope. Usually a batch is cancelled, what it finished is harvested
//! and the rest goes on from there; at the last moment its lines run live even
//! though the cancelled batch has not ended.

mod batches;
mod failing;
mod last_call;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use crate::{
    model::{
        attempt::Lane,
        batch::BatchState,
        endpoint::Endpoint,
        request::{Cohort, Guarantee, OnLate, Place},
        time::Timestamp,
    },
    policy::{demand::Demand, plan::Plan},
    ports::StoreError,
};

use super::{Engine, budgets::Commitments, drive::Next, scope::ScopeKey, summary::Tracked};

/// Entries a read.
const PAGE: usize = 96;

/// Work of one cohort, in one place, that could have to run live.
struct Work {
    endpoint: Endpoint,
    due: Timestamp,
    lines: f64,
    bytes: f64,
    guarantee: Guarantee,
    place: Waits,
}

enum Waits {
    Queue(Cohort),
    Batch(Box<Tracked>),
}

/// By when a call is due.
type Leads = BTreeMap<Timestamp, Duration>;

impl Engine {
    pub(super) async fn rescue_turn(self: &Arc<Self>) -> Result<Next, StoreError> {
        let mut next = self.fail_turn().await;
        let mut money = self.plan_rescues();
        let whole = self.whole_leads();
        for (scope, work) in self.rescuable() {
            let rescued = self.rescue_scope(&scope, work, &whole, &mut money).await;
            next = next.sooner(self.or_soon("rescuing", rescued));
        }
        Ok(next)
    }

    async fn rescue_scope(
        self: &Arc<Self>,
        scope: &ScopeKey,
        mut work: Vec<Work>,
        whole: &Leads,
        money: &mut Commitments,
    ) -> Result<Next, StoreError> {
        work.sort_by_key(|work| work.due);
        let endpoints: BTreeSet<Endpoint> = work.iter().map(|work| work.endpoint).collect();
        let plans = endpoints.into_iter();
        let plans: BTreeMap<_, _> = plans
            .map(|endpoint| (endpoint, self.plan_of_batches(scope, endpoint)))
            .collect();
        // What is thought out anew then may be wanted back sooner.
        let mut next = Next::At(self.replans_at(scope));
        let starts = self.latest_starts(scope, &work, whole, &plans);
        for (work, start) in work.into_iter().zip(starts) {
            let plan = &plans[&work.endpoint];
            let rescued = match work.place {
                Waits::Queue(cohort) => {
                    let plan = self.plan_of_queues(scope, work.endpoint);
                    self.rescue_cohort(scope, cohort, start, &plan, money).await
                }
                Waits::Batch(tracked) => {
                    self.rescue_batch(scope, *tracked, start, plan, money).await
                }
            };
            next = next.sooner(self.or_soon("rescuing", rescued));
        }
        Ok(next)
    }

    /// The latest instant at which each piece of work must begin to run live. What
    /// is firm makes room for all that is firm; the rest goes by its own deadline,
    /// and only while there is room ([`Engine::room_live`]).
    fn latest_starts(
        &self,
        scope: &ScopeKey,
        work: &[Work],
        whole: &Leads,
        plans: &BTreeMap<Endpoint, Arc<Plan>>,
    ) -> Vec<Timestamp> {
        let live = plans.values().map(|plan| plan.live()).max();
        let live = live.unwrap_or_default();
        let mut starts: Vec<Timestamp> = work.iter().map(|work| work.due - live).collect();
        let firm = work.iter().enumerate();
        let firm = firm.filter(|(_, work)| work.guarantee == Guarantee::Firm);
        let mut demands: Vec<(Option<usize>, Demand)> = firm
            .map(|(index, work)| {
                let (due, calls, bytes) = (work.due, work.lines, work.bytes);
                (Some(index), Demand { due, calls, bytes })
            })
            .collect();
        let calling = self.summary.lock().calling(scope, Guarantee::Firm);
        demands.extend(calling.into_iter().map(|demand| (None, demand)));
        demands.sort_by_key(|(_, demand)| demand.due);
        let all: Vec<Demand> = demands.iter().map(|(_, demand)| *demand).collect();
        let all = self.capacity(scope, live).sure().latest_starts(&all);
        for ((index, _), start) in demands.iter().zip(all) {
            if let Some(index) = *index {
                let work = &work[index];
                // Of what is due a little before it.
                let lead = whole.range(..=work.due).next_back();
                starts[index] = lead.map_or(start, |(_, lead)| start.min(work.due - *lead));
            }
        }
        starts
    }

    /// How long before its deadline firm work must begin to run live so that all of every
    /// scope does in time, with no more than `live.max_total` calls at once.
    fn whole_leads(&self) -> Leads {
        let firm = self.summary.lock().all_firm();
        let live = self.whole_pace.takes(self);
        let starts = self.whole_capacity(live).sure().latest_starts(&firm);
        let leads = firm.iter().zip(starts);
        leads
            .map(|(demand, start)| (demand.due, start.until(demand.due)))
            .collect()
    }

    /// How many more calls of this kind can run live and be in time, behind those
    /// that wait already and those that are on their way back from a batch.
    fn room_live(&self, scope: &ScopeKey, cohort: &Cohort, due: Timestamp) -> usize {
        let coming_back = self.summary.lock().coming_back(scope);
        self.room_to_come_back(scope, cohort, due)
            .saturating_sub(coming_back)
    }

    /// The same for those that are on their way back themselves. What is firm has its
    /// room. What is late already goes when hardly anything waits.
    fn room_to_come_back(&self, scope: &ScopeKey, cohort: &Cohort, due: Timestamp) -> usize {
        if cohort.guarantee == Guarantee::Firm {
            return usize::MAX;
        }
        let live = self.live_takes(scope);
        let time = self.now().until(due).saturating_sub(live).max(live);
        let calls = self.capacity(scope, live).rate * time.as_secs_f64();
        let summary = self.summary.lock();
        let waiting = summary.all_calling(scope);
        let waiting: f64 = waiting.iter().map(|demand| demand.calls).sum();
        (calls - waiting).max(0.0) as usize
    }

    /// What still waits to be packed: admission's own question, asked again. The
    /// whole bucket moves with its earliest instant: it is narrow.
    async fn rescue_cohort(
        self: &Arc<Self>,
        scope: &ScopeKey,
        cohort: Cohort,
        start: Timestamp,
        plan: &Plan,
        money: &mut Commitments,
    ) -> Result<Next, StoreError> {
        let due = start + plan.live();
        let now = self.now();
        let slack = now.until(due);
        if plan.choose(slack).lane == Lane::Batch {
            return Ok(Next::At(now + plan.changes_in(slack)));
        }
        loop {
            let room = self.room_live(scope, &cohort, cohort.bucket.start);
            if room == 0 {
                // The others are packed, and may be late.
                return Ok(Next::At(self.now() + self.settings.rescue.replan));
            }
            let entries = self.store.queued(cohort, PAGE.min(room)).await?;
            if entries.is_empty() {
                return Ok(Next::OnSignal);
            }
            let (covered, _, renewed) = self.affordable(money, entries);
            if !covered.is_empty() {
                tracing::info!(requests = covered.len(), "rescued from the queue");
                self.relocate_all(&covered, Place::Queue(cohort), Place::Live)
                    .await?;
            }
            if let Some(renewed) = renewed {
                // The others are packed, as if there were no deadline.
                return Ok(Next::At(renewed));
            }
        }
    }

    /// Where requests go whose attempt ended without an answer.
    pub(super) fn after_return(
        &self,
        cohort: Cohort,
        scope: &ScopeKey,
        endpoint: Endpoint,
    ) -> Place {
        let slack = self.now().until(cohort.bucket.start);
        let choice = || self.plan_of_batches(scope, endpoint).choose(slack).lane;
        // What nothing was promised to goes live from the queue, while there is room.
        match (cohort.on_late, cohort.guarantee) {
            (OnLate::Rescue, Guarantee::Firm) if choice() != Lane::Batch => Place::Live,
            _ => Place::Queue(cohort),
        }
    }

    /// Everything that pays more rather than being late, by scope.
    fn rescuable(&self) -> BTreeMap<ScopeKey, Vec<Work>> {
        let summary = self.summary.lock();
        let mut found: BTreeMap<ScopeKey, Vec<Work>> = BTreeMap::new();
        for (cohort, waiting) in &summary.queue {
            let Some(destination) = summary.destinations.get(&cohort.destination) else {
                continue;
            };
            if cohort.on_late == OnLate::Rescue && waiting.lines > 0 {
                let scope = self.scope_of(destination);
                found.entry(scope).or_default().push(Work {
                    endpoint: destination.endpoint,
                    due: cohort.bucket.start,
                    lines: waiting.lines as f64,
                    bytes: waiting.bytes as f64,
                    guarantee: cohort.guarantee,
                    place: Waits::Queue(*cohort),
                });
            }
        }
        for tracked in summary.batches.values() {
            let batch = &tracked.batch;
            let on_late = batch.cohort.on_late;
            let is_fixed = batch.state.is_open() && batch.state != BatchState::Filling;
            if on_late == OnLate::Rescue && is_fixed && batch.twin_of.is_none() {
                let scope = self.scope_of(batch);
                found.entry(scope).or_default().push(Work {
                    endpoint: batch.endpoint,
                    due: batch.earliest_deadline,
                    lines: f64::from(batch.lines),
                    bytes: batch.bytes as f64,
                    guarantee: batch.cohort.guarantee,
                    place: Waits::Batch(Box::new(tracked.clone())),
                });
            }
        }
        found
    }
}
