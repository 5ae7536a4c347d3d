//! Takes work out of the batch lane so that it still meets its deadline: what is
//! not answered by `deadline − reserve` is cancelled, harvested and run live; at
//! last call it runs live even if the cancelled batch has not ended.

use std::sync::Arc;

use crate::{
    model::{
        batch::Batch,
        id::BatchId,
        request::{Cohort, Entry, OnLate, Place, State},
        time::Timestamp,
    },
    policy::budget::Window,
    ports::StoreError,
};

use super::{Engine, budgets::Plan, drive::Next, settling::error_body, summary::Tracked};

/// Entries a read.
const PAGE: usize = 96;

impl Engine {
    pub(super) async fn rescue_turn(self: &Arc<Self>) -> Result<Next, StoreError> {
        let mut next = Next::OnSignal;
        let mut plan = self.plan_rescues();
        let cohorts: Vec<Cohort> = self.summary.lock().queue.keys().copied().collect();
        for cohort in cohorts {
            let rescued = self.rescue_cohort(cohort, &mut plan).await;
            next = next.sooner(self.or_soon("rescuing from a queue", rescued));
        }
        let batches: Vec<Tracked> = self.summary.lock().batches.values().cloned().collect();
        for tracked in batches
            .into_iter()
            .filter(|tracked| tracked.batch.state.is_open())
        {
            let rescued = self.rescue_batch(tracked, &mut plan).await;
            next = next.sooner(self.or_soon("rescuing from a batch", rescued));
        }
        Ok(next)
    }

    /// What still waits to be packed. The whole bucket moves with its earliest
    /// instant: it is narrow, and nothing of it could be packed any more.
    async fn rescue_cohort(
        self: &Arc<Self>,
        cohort: Cohort,
        plan: &mut Plan,
    ) -> Result<Next, StoreError> {
        let now = self.now();
        let due = match cohort.on_late {
            OnLate::Wait => return Ok(Next::OnSignal),
            OnLate::Rescue => self.settings.rescue.due(cohort.bucket.start),
            // Each has its own deadline; none is before the bucket.
            OnLate::Fail => cohort.bucket.start,
        };
        if due > now {
            return Ok(Next::At(due));
        }
        if cohort.on_late == OnLate::Fail {
            return self.fail_queued(cohort).await;
        }
        loop {
            let entries = self.store.queued(cohort, PAGE).await?;
            if entries.is_empty() {
                return Ok(Next::OnSignal);
            }
            let (covered, _, renewed) = self.affordable(plan, entries);
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
        tracked: Tracked,
        plan: &mut Plan,
    ) -> Result<Next, StoreError> {
        let now = self.now();
        let batch = &tracked.batch;
        let deadline = batch.earliest_deadline;
        match batch.cohort.on_late {
            OnLate::Wait => Ok(Next::OnSignal),
            OnLate::Fail if deadline > now => Ok(Next::At(deadline)),
            OnLate::Fail => self.fail_lines(&tracked).await,
            OnLate::Rescue => {
                let due = self.settings.rescue.due(deadline);
                let last_call = self.settings.rescue.last_call(deadline);
                if due > now {
                    return Ok(Next::At(due));
                }
                let renewed = match tracked.wanted {
                    true => None,
                    false => self.want_back_if_paid_for(batch, plan).await?,
                };
                let later = renewed.map_or(Next::OnSignal, Next::At);
                if last_call > now {
                    return Ok(later.sooner(Next::At(last_call)));
                }
                // Not read line by line for nothing at every turn.
                let one = self.price_of_a_line(batch);
                if renewed.is_some() && self.could_afford(plan, batch.tenant, one).is_err() {
                    return Ok(later);
                }
                let called = self.last_call(batch.id, renewed.is_none(), plan).await?;
                Ok(later.sooner(called))
            }
        }
    }

    /// A batch is cancelled for its rescue where the budget covers all that it
    /// holds: what runs live in part would have to be paid for, and the rest begun
    /// anew. Else says when the budget is renewed.
    async fn want_back_if_paid_for(
        self: &Arc<Self>,
        batch: &Batch,
        plan: &mut Plan,
    ) -> Result<Option<Timestamp>, StoreError> {
        let now = self.now();
        if self.budgets.has_refused_any(batch.tenant, now) {
            let lines = self.lines_of(batch.id).await?;
            if lines
                .iter()
                .any(|line| self.budgets.has_refused(&line.key, now))
            {
                return Ok(Some(Window::Hour.ends(now)));
            }
        }
        let cost = self.price_of_batch(batch);
        if let Err(renewed) = self.afford(plan, batch.tenant, cost) {
            return Ok(Some(renewed));
        }
        tracing::info!(batch = %batch.id, state = ?batch.state, "rescue: its lines are wanted back");
        self.want_back(batch.id);
        Ok(None)
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

    /// Lines whose last call has come run live; the others have their turn. Of a
    /// batch that is not `paid_for` as a whole, those that the budget covers.
    async fn last_call(
        self: &Arc<Self>,
        batch: BatchId,
        paid_for: bool,
        plan: &mut Plan,
    ) -> Result<Next, StoreError> {
        let (mut lines, mut next) = self
            .due_lines(batch, |line| self.settings.rescue.last_call(line.deadline))
            .await?;
        if paid_for && next == Next::OnSignal {
            self.emptied(batch);
        } else if !paid_for {
            lines.sort_unstable_by_key(|line| (line.deadline, line.key));
            let (covered, _, renewed) = self.affordable(plan, lines);
            next = next.sooner(renewed.map_or(Next::OnSignal, Next::At));
            lines = covered;
        }
        if !lines.is_empty() {
            tracing::warn!(%batch, lines = lines.len(), "last call: live before the cancel has ended");
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

    async fn fail_queued(self: &Arc<Self>, cohort: Cohort) -> Result<Next, StoreError> {
        let now = self.now();
        // At most one bucket of them, which is narrow.
        let entries = self.store.queued(cohort, usize::MAX).await?;
        let (due, rest): (Vec<Entry>, Vec<Entry>) =
            entries.into_iter().partition(|entry| entry.deadline <= now);
        self.fail_late(&due).await?;
        Ok(rest
            .iter()
            .map(|entry| entry.deadline)
            .min()
            .map_or(Next::OnSignal, Next::At))
    }

    async fn fail_lines(self: &Arc<Self>, tracked: &Tracked) -> Result<Next, StoreError> {
        let batch = &tracked.batch;
        let (due, next) = self.due_lines(batch.id, |line| line.deadline).await?;
        self.fail_late(&due).await?;
        if next == Next::OnSignal && !tracked.wanted {
            self.want_back(batch.id);
        }
        Ok(next)
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

    /// `Offpeak-On-Late: fail` at the deadline.
    pub(super) async fn fail_late(self: &Arc<Self>, entries: &[Entry]) -> Result<(), StoreError> {
        for chunk in entries.chunks(PAGE / 2) {
            let mut endings = Vec::with_capacity(chunk.len());
            for entry in chunk {
                let Some(head) = self.store.head(entry.key).await? else {
                    continue;
                };
                let message = "The deadline passed before the provider answered, and the \
                    call asked to fail rather than to be late (Offpeak-On-Late: fail).";
                let body = error_body(message, "timeout_error", None, Some("deadline_exceeded"));
                endings.push(self.own_ending(
                    &head.request,
                    self.places_of(&head.request),
                    State::Failed,
                    504,
                    "the deadline passed (Offpeak-On-Late: fail)".into(),
                    body,
                ));
            }
            self.settle(endings).await?;
        }
        Ok(())
    }
}
