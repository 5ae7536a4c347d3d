//! Takes work out of its lane so that it still meets its deadline, by the plan
//! that admission went by. Live capacity is shared: work leaves early enough for
//! all of its scope. Usually a batch is cancelled, what it finished is harvested
//! and the rest goes on from there; at the last moment its lines run live even
//! though the cancelled batch has not ended.

mod failing;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use crate::{
    model::{
        attempt::Lane,
        batch::{Batch, BatchState},
        endpoint::Endpoint,
        id::BatchId,
        request::{Cohort, Entry, Guarantee, OnLate, Place},
        time::Timestamp,
    },
    policy::{
        budget::Window,
        demand::Demand,
        plan::{Leave, Plan, Rung, Stay},
    },
    ports::StoreError,
};

use super::{
    Engine,
    budgets::Commitments,
    drive::Next,
    scope::ScopeKey,
    summary::{Stayed, Summary, Tracked},
};

/// Entries a read.
const PAGE: usize = 96;

/// Work of one cohort, in one place, that could have to run live.
struct Work {
    endpoint: Endpoint,
    due: Timestamp,
    lines: f64,
    guarantee: Guarantee,
    place: Waits,
}

enum Waits {
    Queue(Cohort),
    Batch(Box<Tracked>),
}

impl Engine {
    pub(super) async fn rescue_turn(self: &Arc<Self>) -> Result<Next, StoreError> {
        let mut next = self.fail_turn().await;
        let mut money = self.plan_rescues();
        let work = rescuable(&self.summary.lock());
        for (scope, work) in work {
            let rescued = self.rescue_scope(&scope, work, &mut money).await;
            next = next.sooner(self.or_soon("rescuing", rescued));
        }
        Ok(next)
    }

    async fn rescue_scope(
        self: &Arc<Self>,
        scope: &ScopeKey,
        mut work: Vec<Work>,
        money: &mut Commitments,
    ) -> Result<Next, StoreError> {
        work.sort_by_key(|work| work.due);
        let endpoints: BTreeSet<Endpoint> = work.iter().map(|work| work.endpoint).collect();
        let plans = endpoints.into_iter();
        let plans: BTreeMap<_, _> = plans
            .map(|endpoint| (endpoint, self.plan(scope, endpoint, None)))
            .collect();
        // What is thought out anew then may be wanted back sooner.
        let mut next = Next::At(self.replans_at(scope));
        let starts = self.latest_starts(scope, &work, &plans);
        for (work, start) in work.into_iter().zip(starts) {
            let plan = &plans[&work.endpoint];
            let rescued = match work.place {
                Waits::Queue(cohort) => self.rescue_cohort(scope, cohort, start, plan, money).await,
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
        plans: &BTreeMap<Endpoint, Arc<Plan>>,
    ) -> Vec<Timestamp> {
        let live = plans.values().map(|plan| plan.live()).max();
        let live = live.unwrap_or_default();
        let mut starts: Vec<Timestamp> = work.iter().map(|work| work.due - live).collect();
        let firm = work.iter().enumerate();
        let firm = firm.filter(|(_, work)| work.guarantee == Guarantee::Firm);
        let mut demands: Vec<(Option<usize>, Demand)> = firm
            .map(|(index, work)| {
                let (due, calls) = (work.due, work.lines);
                (Some(index), Demand { due, calls })
            })
            .collect();
        let calling = self.summary.lock().calling(scope, Guarantee::Firm);
        demands.extend(calling.into_iter().map(|demand| (None, demand)));
        demands.sort_by_key(|(_, demand)| demand.due);
        let all: Vec<Demand> = demands.iter().map(|(_, demand)| *demand).collect();
        let all = self.capacity(scope, live).latest_starts(&all);
        for ((index, _), start) in demands.iter().zip(all) {
            if let Some(index) = index {
                starts[*index] = start;
            }
        }
        starts
    }

    /// How many more calls of this kind can run live and be in time, behind those
    /// that wait already. What is firm has its room. What is late already goes when
    /// hardly anything waits.
    fn room_live(&self, scope: &ScopeKey, cohort: &Cohort, due: Timestamp) -> usize {
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

    async fn rescue_batch(
        self: &Arc<Self>,
        scope: &ScopeKey,
        tracked: Tracked,
        start: Timestamp,
        plan: &Plan,
        money: &mut Commitments,
    ) -> Result<Next, StoreError> {
        let now = self.now();
        let batch = &tracked.batch;
        if start <= now {
            // Where capacity has fallen all of a sudden, there may be time for a
            // cancel all the same, and nothing is paid twice.
            let last = batch.earliest_deadline - plan.live();
            let cancel = plan
                .rung(Lane::Batch)
                .map_or(Duration::ZERO, Rung::cancel_takes);
            let fits = || self.room_live(scope, &batch.cohort, last) >= batch.lines as usize;
            if !tracked.wanted && now + cancel < last && fits() {
                let renewed = self.want_back_if_paid_for(batch, money).await?;
                return Ok(Next::At(last).sooner(renewed.map_or(Next::OnSignal, Next::At)));
            }
            return self.overtake(scope, &tracked, start, money).await;
        }
        let due = start + plan.live();
        if tracked.wanted || batch.state == BatchState::Cancelling {
            return Ok(Next::At(start));
        }
        let leave = match batch.state {
            BatchState::Submitted => match self.stay(&tracked, start, plan) {
                Some(stay) => batch.created + Duration::from_secs_f64(stay.until.max(0.0)),
                None => return Ok(Next::At(start)),
            },
            // Not at the provider yet: as if it were still in the queue.
            _ => {
                let slack = now.until(due);
                match plan.choose(slack).lane {
                    Lane::Batch => now + plan.changes_in(slack),
                    _ => now,
                }
            }
        };
        if leave > now {
            return Ok(Next::At(leave.min(start)));
        }
        // Into a fresh batch they can always go; live, where that is paid for.
        if let Some(rung) = plan.rung(Lane::Batch)
            && plan.choose((now + rung.cancel_takes()).until(due)).lane == Lane::Batch
        {
            return Ok(self.leave_for_a_fresh_one(batch, rung, start));
        }
        let room = self.room_live(scope, &batch.cohort, batch.earliest_deadline);
        if room < batch.lines as usize {
            return Ok(Next::At(start));
        }
        let renewed = self.want_back_if_paid_for(batch, money).await?;
        Ok(Next::At(start).sooner(renewed.map_or(Next::OnSignal, Next::At)))
    }

    fn leave_for_a_fresh_one(&self, batch: &Batch, rung: &Rung, start: Timestamp) -> Next {
        let now = self.now();
        let mut summary = self.summary.lock();
        let patient = batch.created + rung.patience(summary.left_before(&batch.cohort));
        if patient > now {
            return Next::At(patient.min(start));
        }
        summary.leave(batch.cohort, now);
        drop(summary);
        tracing::info!(batch = %batch.id, "a batch that hangs is left for a fresh one");
        self.want_back(batch.id);
        Next::At(start)
    }

    /// The last moment: lines run live whatever their batch does.
    async fn overtake(
        self: &Arc<Self>,
        scope: &ScopeKey,
        tracked: &Tracked,
        start: Timestamp,
        money: &mut Commitments,
    ) -> Result<Next, StoreError> {
        let batch = &tracked.batch;
        let room = self.room_live(scope, &batch.cohort, batch.earliest_deadline);
        let fits = room >= batch.lines as usize;
        let again = Next::At(self.now() + self.settings.rescue.replan);
        if room == 0 {
            return Ok(again);
        }
        let renewed = match tracked.wanted {
            true => None,
            // Cancelled, those that do not fit would lose their last chance.
            false if !fits => None,
            false => self.want_back_if_paid_for(batch, money).await?,
        };
        let later = renewed.map_or(Next::OnSignal, Next::At);
        // Not read line by line for nothing at every turn.
        let one = self.price_of_a_line(batch);
        if renewed.is_some() && self.could_afford(money, batch.tenant, one).is_err() {
            return Ok(later);
        }
        let paid_for = renewed.is_none() && fits;
        let called = self
            .last_call(tracked, start, paid_for, room, money)
            .await?;
        Ok(match fits {
            true => later.sooner(called),
            false => later.sooner(called).sooner(again),
        })
    }

    /// A batch is cancelled for its rescue where the budget covers all that it
    /// holds: what runs live in part would have to be paid for, and the rest begun
    /// anew. Else says when the budget is renewed.
    async fn want_back_if_paid_for(
        self: &Arc<Self>,
        batch: &Batch,
        money: &mut Commitments,
    ) -> Result<Option<Timestamp>, StoreError> {
        let now = self.now();
        if self.budgets.has_refused_any(batch.tenant, now) {
            let lines = self.lines_of(batch.id).await?;
            let refused = |line: &Entry| self.budgets.has_refused(&line.key, now);
            if lines.iter().any(refused) {
                return Ok(Some(Window::Hour.ends(now)));
            }
        }
        let cost = self.price_of_batch(batch);
        if let Err(renewed) = self.afford(money, batch.tenant, cost) {
            return Ok(Some(renewed));
        }
        tracing::info!(batch = %batch.id, state = ?batch.state, "rescue: its lines are wanted back");
        self.want_back(batch.id);
        Ok(None)
    }

    /// When the batch is left, thought out again now and then. None where it
    /// stays until the last moment.
    fn stay(&self, tracked: &Tracked, start: Timestamp, plan: &Plan) -> Option<Stay> {
        let now = self.now();
        let rung = plan.rung(Lane::Batch)?;
        let fresh = |stayed: &Stayed| {
            stayed.thought + self.settings.rescue.replan > now && stayed.start == start
        };
        let stay = match tracked.stay.filter(fresh) {
            Some(stayed) => stayed.stay,
            None => {
                let age = tracked.batch.created.until(now).as_secs_f64();
                let slack = now.until(start + plan.live()).as_secs_f64();
                let stay = plan.stay(rung, age, slack);
                if let Some(tracked) = self.summary.lock().batches.get_mut(&tracked.batch.id) {
                    tracked.stay = Some(Stayed {
                        stay,
                        start,
                        thought: now,
                    });
                }
                stay
            }
        };
        (stay.leave == Leave::Cancel).then_some(stay)
    }

    /// The next step of the batch, whoever does it, cancels or dissolves it.
    pub(super) fn want_back(&self, id: BatchId) {
        let now = self.now();
        if let Some(tracked) = self.summary.lock().batches.get_mut(&id) {
            tracked.wanted = true;
            tracked.due = now;
        }
        self.signals.submitter.notify_one();
        self.signals.watcher.notify_one();
    }

    /// Lines whose last moment has come run live; the others have their turn. Of a
    /// batch that is not `paid_for` as a whole, those that the budget covers.
    async fn last_call(
        self: &Arc<Self>,
        tracked: &Tracked,
        start: Timestamp,
        paid_for: bool,
        room: usize,
        money: &mut Commitments,
    ) -> Result<Next, StoreError> {
        let batch = tracked.batch.id;
        let before = start.until(tracked.batch.earliest_deadline);
        let (mut lines, mut next) = self.due_lines(batch, |line| line.deadline - before).await?;
        let none_waits = lines.is_empty() && next == Next::OnSignal;
        if none_waits && !tracked.wanted && !self.summary.lock().is_awaited(batch) {
            // They went a few at a time: what it still answers is paid twice.
            tracing::info!(%batch, "overtaken by all of its lines: cancelled");
            self.emptied(batch);
            self.want_back(batch);
            return Ok(Next::OnSignal);
        }
        if paid_for && next == Next::OnSignal {
            self.emptied(batch);
        } else if !paid_for {
            lines.sort_unstable_by_key(|line| (line.deadline, line.key));
            // Nothing is left behind, and what ran on would be billed for nobody.
            let mut last = next == Next::OnSignal && lines.len() <= room;
            lines.truncate(room);
            let (covered, _, renewed) = self.affordable(money, lines);
            last &= renewed.is_none();
            next = next.sooner(renewed.map_or(Next::OnSignal, Next::At));
            lines = covered;
            if last && !tracked.wanted {
                self.want_back(batch);
            }
        }
        if !lines.is_empty() {
            tracing::warn!(%batch, lines = lines.len(), "last call: live before the cancel has ended");
            if !paid_for {
                self.summary.lock().overtake(batch, &lines);
            }
            self.relocate_all(&lines, Place::Line(batch), Place::Live)
                .await?;
        }
        Ok(next)
    }

    fn emptied(&self, id: BatchId) {
        if let Some(tracked) = self.summary.lock().batches.get_mut(&id) {
            tracked.emptied = true;
        }
    }

    async fn due_lines(
        &self,
        batch: BatchId,
        due: impl Fn(&Entry) -> Timestamp,
    ) -> Result<(Vec<Entry>, Next), StoreError> {
        let now = self.now();
        let lines = self.lines_of(batch).await?;
        let (ready, rest): (Vec<Entry>, Vec<Entry>) =
            lines.into_iter().partition(|line| due(line) <= now);
        let next = rest.iter().map(due).min().map_or(Next::OnSignal, Next::At);
        Ok((ready, next))
    }

    /// Where requests go whose attempt ended without an answer.
    pub(super) fn after_return(
        &self,
        cohort: Cohort,
        scope: &ScopeKey,
        endpoint: Endpoint,
    ) -> Place {
        let slack = self.now().until(cohort.bucket.start);
        let choice = || self.plan(scope, endpoint, None).choose(slack).lane;
        // What nothing was promised to goes live from the queue, while there is room.
        match (cohort.on_late, cohort.guarantee) {
            (OnLate::Rescue, Guarantee::Firm) if choice() != Lane::Batch => Place::Live,
            _ => Place::Queue(cohort),
        }
    }
}

/// Everything that pays more rather than being late, by scope.
fn rescuable(summary: &Summary) -> BTreeMap<ScopeKey, Vec<Work>> {
    let mut found: BTreeMap<ScopeKey, Vec<Work>> = BTreeMap::new();
    for (cohort, waiting) in &summary.queue {
        let Some(destination) = summary.destinations.get(&cohort.destination) else {
            continue;
        };
        if cohort.on_late == OnLate::Rescue && waiting.lines > 0 {
            found.entry(destination.into()).or_default().push(Work {
                endpoint: destination.endpoint,
                due: cohort.bucket.start,
                lines: waiting.lines as f64,
                guarantee: cohort.guarantee,
                place: Waits::Queue(*cohort),
            });
        }
    }
    for tracked in summary.batches.values() {
        let batch = &tracked.batch;
        let on_late = batch.cohort.on_late;
        let is_fixed = batch.state.is_open() && batch.state != BatchState::Filling;
        if on_late == OnLate::Rescue && is_fixed {
            found.entry(batch.into()).or_default().push(Work {
                endpoint: batch.endpoint,
                due: batch.earliest_deadline,
                lines: f64::from(batch.lines),
                guarantee: batch.cohort.guarantee,
                place: Waits::Batch(Box::new(tracked.clone())),
            });
        }
    }
    found
}
