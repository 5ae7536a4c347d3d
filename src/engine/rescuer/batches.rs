//! When a batch at the provider is left, and for what: a fresh batch while there is
//! time for one, else ordinary calls. Its cancel has to be paid for.

use std::{sync::Arc, time::Duration};

use crate::{
    engine::{
        Engine,
        budgets::Commitments,
        drive::Next,
        scope::ScopeKey,
        summary::{Stayed, Tracked},
    },
    model::{
        attempt::Lane,
        batch::{Batch, BatchState, Left},
        id::BatchId,
        request::Entry,
        time::Timestamp,
    },
    policy::{
        budget::Window,
        plan::{Leave, Plan, Rung, Stay},
    },
    ports::StoreError,
};

impl Engine {
    pub(super) async fn rescue_batch(
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
            if !tracked.is_wanted() && now + cancel < last && fits() {
                let renewed = self.want_back_if_paid_for(batch, money).await?;
                return Ok(Next::At(last).sooner(renewed.map_or(Next::OnSignal, Next::At)));
            }
            return self.overtake(scope, &tracked, start, money).await;
        }
        let due = start + plan.live();
        if tracked.is_wanted() || batch.state == BatchState::Cancelling {
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
                let plan = self.plan_of_queues(scope, batch.endpoint);
                match plan.choose(slack).lane {
                    Lane::Batch => now + plan.changes_in(slack),
                    _ => now,
                }
            }
        };
        if leave > now {
            return Ok(Next::At(leave.min(start)));
        }
        // Into a fresh batch they can go unpaid for; live, where that is paid for.
        if let Some(rung) = plan.rung(Lane::Batch) {
            let slack = (now + rung.cancel_takes()).until(due);
            if plan.choose(slack).lane == Lane::Batch {
                let changes = now + plan.changes_in(slack);
                return Ok(self.leave_for_a_fresh_one(batch, rung, start.min(changes)));
            }
        }
        let room = self.room_live(scope, &batch.cohort, batch.earliest_deadline);
        if room < batch.lines as usize {
            return Ok(Next::At(start));
        }
        let renewed = self.want_back_if_paid_for(batch, money).await?;
        Ok(Next::At(start).sooner(renewed.map_or(Next::OnSignal, Next::At)))
    }

    /// Where none could be created, the batch stays, until that is thought out again.
    fn leave_for_a_fresh_one(&self, batch: &Batch, rung: &Rung, again: Timestamp) -> Next {
        let now = self.now();
        if self.is_paused() {
            return Next::At(again);
        }
        let mut summary = self.summary.lock();
        let patient = batch.created + rung.patience(summary.left_before(&batch.cohort));
        let leave = patient.max(summary.replaceable_at(batch, now));
        if leave > now {
            return Next::At(leave.min(again));
        }
        summary.leave(batch, now);
        drop(summary);
        tracing::info!(batch = %batch.id, "a batch that hangs is left for a fresh one");
        self.want_back(batch.id, Left::Fresh);
        Next::At(again)
    }

    /// A batch is cancelled for its rescue where the budget covers all that it
    /// holds: what runs live in part would have to be paid for, and the rest begun
    /// anew. Else says when the budget is renewed.
    pub(super) async fn want_back_if_paid_for(
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
        self.want_back(batch.id, Left::Rescue);
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
    pub(in crate::engine) fn want_back(&self, id: BatchId, why: Left) {
        let now = self.now();
        if let Some(tracked) = self.summary.lock().batches.get_mut(&id) {
            tracked.wanted.get_or_insert(why);
            tracked.due = now;
        }
        self.signals.submitter.notify_one();
        self.signals.watcher.notify_one();
    }
}
