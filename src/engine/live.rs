//! Calls outside of batches: what was too close for one, what was rescued, and what
//! a batch cannot do. Earliest deadline first, each in the cheapest lane that is
//! still in time: flex, a background response, or an ordinary call.
//!
//! A `turn` says who goes now, and `rungs` in which lane. `call` makes the ordinary
//! ones, `flex` and `background` the others; `retries` says what comes of them, and
//! `endings` ends the request, and `repack` sends it into a batch after all. What limits them is in `scopes`, who waits in
//! `backlog` and `backoffs`, and what may have been billed in `attempts`.

mod attempts;
mod background;
mod backlog;
mod backoffs;
mod call;
mod endings;
mod flex;
mod keep;
mod repack;
mod reply;
mod retries;
mod rungs;
mod schedule;
mod scopes;
mod turn;
mod view;

use std::sync::Arc;

use crate::{
    model::{
        attempt::{Attempt, AttemptState, Lane},
        id::RequestKey,
        request::{OnLate, Request},
    },
    policy::budget::Verdict,
    ports::{Content, StoreError},
};

pub use self::view::LiveScope;
pub(super) use self::{
    attempts::Payer, backlog::Backlog, backoffs::Backoffs, keep::Kept, scopes::Scopes,
};
use self::{
    backoffs::Why,
    reply::Reply,
    rungs::{Known, Step},
    turn::Way,
};
use super::Engine;

impl Engine {
    /// A request's step on the way that it was given leave to go.
    async fn run(
        self: &Arc<Self>,
        key: RequestKey,
        step: Step,
        mut known: Known,
        way: Way,
    ) -> Result<(), StoreError> {
        let Some(stored) = self.store.load(key).await? else {
            return Ok(());
        };
        let Content::Open { body } = stored.content else {
            return Ok(());
        };
        let request = stored.request;
        if self.learn_store(&request, &body, &mut known) {
            way.unsent(self.now());
            return self.step_down(&request, known).await;
        }
        let earlier = self.store.attempts(key).await?;
        let lane = step.lane;
        let lost =
            |attempt: &Attempt| attempt.lane == lane && attempt.state == AttemptState::Unaccounted;
        if lane != Lane::Standard && earlier.iter().any(lost) {
            way.unsent(self.now());
            let why = format!("an answer in the lane {lane} was lost before");
            return self.step_down(&request, known.has_left(lane, why)).await;
        }
        let reserved = match self.reserve(&request, &body, lane) {
            Ok(reserved) => reserved,
            Err(verdict) => {
                way.unsent(self.now());
                return self.not_paid_for(&request, known, verdict).await;
            }
        };
        let calling = self.calling(&request, &body);
        let keeps = attempts::Keeps {
            reserved: reserved.as_ref().map(|reserved| reserved.amount),
            most: calling.as_ref().map(|calling| calling.amount),
        };
        let opened = self.open_attempt(&request, &step, &earlier, keeps).await?;
        let Some(attempt) = opened else {
            way.unsent(self.now());
            return Ok(());
        };
        let dealt_with = match way {
            Way::Background(slot) => {
                let opening = background::Opening {
                    attempt,
                    known,
                    slot,
                    reserved,
                    calling,
                };
                return self.open_in_background(&request, body, opening).await;
            }
            Way::Flex(permit) => {
                let call = flex::Call {
                    attempt,
                    known,
                    patience: step.patience,
                };
                self.run_flex(&request, &body, call, permit).await
            }
            Way::Ordinary(mut permit) => {
                let tap = self.taps.take(key);
                let timeout = self.timeout(&request);
                let reply = self
                    .call(&request, &body, (lane, timeout), tap.as_ref(), &mut permit)
                    .await;
                permit.ended(self.now(), reply.ended());
                match reply {
                    Reply::Answered(answer) => {
                        self.answered(&request, attempt, answer, tap, &known).await
                    }
                    Reply::Failed(error) => self.failed(&request, attempt, error, tap).await,
                }
            }
        };
        // Not before what was paid is counted.
        drop((reserved, calling));
        dealt_with
    }

    /// A rescue that does not fit into the budget: it waits for those on their way
    /// where they may leave room for it, else it goes back to its cheap lane.
    async fn not_paid_for(
        &self,
        request: &Request,
        known: Known,
        verdict: Verdict,
    ) -> Result<(), StoreError> {
        match verdict {
            Verdict::Granted | Verdict::AfterOthers => self.wait_for_money(request, known).await,
            Verdict::Spent(window) => {
                tracing::debug!(id = %request.key.id, ?window, "its rescue is not paid for");
                match self.back_to_its_lane(request.entry()).await? {
                    true => Ok(()),
                    false => self.wait_for_its_batch(request, known).await,
                }
            }
        }
    }
}

/// `Offpeak-On-Late: fail`.
fn fails_late(request: &Request) -> bool {
    request.cohort.on_late == OnLate::Fail
}
