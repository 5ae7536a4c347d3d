//! Calls outside of batches: what was too close for one, what was rescued, and what
//! a batch cannot do. Earliest deadline first, each in the cheapest lane that is
//! still in time: flex, a background response, or an ordinary call.

mod attempts;
mod background;
mod backlog;
mod backoffs;
mod flex;
mod reply;
mod rungs;
mod scopes;
mod turn;
mod view;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{
    model::{
        attempt::{Attempt, AttemptEvent, AttemptState, Lane},
        body,
        id::RequestKey,
        request::{OnLate, Outcome, Request, Shape, Source, State},
    },
    policy::{budget::Verdict, retry, throttle::RateLimits},
    ports::{Content, LiveCall, ProviderError, Settled, StoreError},
};

pub use self::view::LiveScope;
use self::{
    attempts::{number, transition},
    backoffs::Why,
    reply::{Answer, Reply, read_reply},
    rungs::{Known, Step},
    scopes::Permit,
    turn::Way,
};
pub(super) use self::{
    backlog::Backlog,
    backoffs::Backoffs,
    scopes::{Account, Scopes},
};
use super::{
    Engine, TapEvent, scope::ScopeKey, settling::error_body, taps::Spout, turnaround::Takes,
};

impl Engine {
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
                return self.not_paid_for(&request, verdict).await;
            }
        };
        let reserved_usd = reserved.as_ref().map(|reserved| reserved.amount);
        let attempt = self
            .open_attempt(&request, &step, &earlier, reserved_usd)
            .await?;
        let dealt_with = match way {
            Way::Background(slot) => {
                let opening = background::Opening {
                    attempt,
                    known,
                    slot,
                    reserved,
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
        drop(reserved);
        dealt_with
    }

    /// A rescue that does not fit into the budget: it waits for those on their way
    /// where they may leave room for it, else it goes back to its cheap lane.
    async fn not_paid_for(&self, request: &Request, verdict: Verdict) -> Result<(), StoreError> {
        match verdict {
            Verdict::Granted | Verdict::AfterOthers => {
                self.backlog.arrived(&request.entry());
                Ok(())
            }
            Verdict::Spent(window) => {
                tracing::debug!(id = %request.key.id, ?window, "its rescue is not paid for");
                self.back_to_its_lane(request.entry()).await
            }
        }
    }

    async fn answered(
        self: &Arc<Self>,
        request: &Request,
        mut attempt: Attempt,
        answer: Answer,
        tap: Option<Spout>,
        known: &Known,
    ) -> Result<(), StoreError> {
        let status = answer.status;
        let again = self.should_retry(request, &answer);
        let why = match status {
            429 => Why::Throttled(answer.asked),
            _ => Why::Answered(answer.asked),
        };
        let note = format!("answered {status}");
        let outcome = self.live_outcome(request, &attempt, known, &answer);
        let attempt = if retry::may_have_run(status) {
            let lost = number(&attempt);
            self.lose(request, attempt, &note).await?;
            if again && lost < self.settings.live.attempts {
                return self.try_again(request, why).await;
            }
            None
        } else if again {
            self.close(request, attempt, note).await?;
            return self.try_again(request, why).await;
        } else {
            attempt.state = transition(&attempt, AttemptEvent::Answer)?;
            Some(attempt)
        };
        self.finish(request, outcome, answer.body, attempt, tap)
            .await
    }

    async fn call(
        &self,
        request: &Request,
        body: &Bytes,
        (lane, timeout): (Lane, Duration),
        tap: Option<&Spout>,
        permit: &mut Permit,
    ) -> Reply {
        let credential = match self.credential(request.credential).await {
            Ok(credential) => credential,
            Err(error) => return Reply::Failed(error),
        };
        let streams = tap.is_some() && matches!(request.shape, Shape::Stream { .. });
        let strip = match streams {
            true => body::Strip::STREAMED,
            false => body::Strip::STANDARD,
        };
        let body = match stripped(body, strip) {
            Ok(body) => body,
            Err(refusal) => return Reply::Failed(ProviderError::Local(refusal.message())),
        };
        let call = LiveCall {
            endpoint: request.endpoint,
            lane,
            body,
            timeout,
        };
        match self.provider.run(&credential, call).await {
            Ok(reply) => {
                let organization = reply.headers.get("openai-organization");
                let organization = organization.and_then(|value| value.to_str().ok());
                let limits = RateLimits::read(&reply.headers);
                permit.told(self.now(), &limits, organization);
                read_reply(reply, tap.filter(|_| streams)).await
            }
            Err(error) => Reply::Failed(error),
        }
    }

    fn timeout(&self, request: &Request) -> Duration {
        let timeout = self.settings.live.timeout;
        match fails_late(request) {
            // Nobody wants what comes later.
            true => self.now().until(request.deadline).min(timeout),
            false => timeout,
        }
    }

    /// Errors that say nothing about the call, and are not billed, are tried again
    /// until the deadline; after it, only up to so many tries in all.
    fn should_retry(&self, request: &Request, answer: &Answer) -> bool {
        let status = answer.status;
        if answer.last_word || answer.spent || !retry::is_retryable(status) {
            return false;
        }
        let number = self.backoffs.answered(&request.key) + 1;
        let retry = self.now() < request.deadline || number < self.settings.live.attempts;
        if retry {
            tracing::warn!(id = %request.key.id, status, number, "a live call is tried again");
        }
        retry
    }

    async fn failed(
        self: &Arc<Self>,
        request: &Request,
        attempt: Attempt,
        error: ProviderError,
        tap: Option<Spout>,
    ) -> Result<(), StoreError> {
        if let Some(tap) = tap {
            tap.send(TapEvent::Broken).await;
        }
        let note = error.to_string();
        tracing::warn!(id = %request.key.id, %error, "a live call failed");
        // A call that was lost may have been billed: however far the deadline is,
        // only so many of them are bought.
        if error.may_have_happened() {
            let lost = number(&attempt);
            self.lose(request, attempt, &note).await?;
            if lost >= self.settings.live.attempts {
                let message = format!(
                    "The answers of {lost} calls were lost on their way from the provider, which \
                     may have billed them; the call is not made again. Last: {note}"
                );
                let reason = format!("gave up after {lost} lost answers: {note}");
                return self
                    .end_failed(request, "upstream_lost", &message, reason)
                    .await;
            }
        } else {
            self.close(request, attempt, format!("not sent: {note}"))
                .await?;
        }
        if self.now() < request.deadline + self.settings.live.give_up_after {
            let why = Why::Unanswered(error.retry_after());
            return self.try_again(request, why).await;
        }
        let message = format!("The provider could not be reached: {note}");
        let reason = format!("gave up after the deadline: {note}");
        self.end_failed(request, "upstream_unreachable", &message, reason)
            .await
    }

    async fn end_failed(
        self: &Arc<Self>,
        request: &Request,
        code: &str,
        message: &str,
        reason: String,
    ) -> Result<(), StoreError> {
        let body = error_body(message, "api_error", None, Some(code));
        let places = self.places_of(request);
        let ending = self.own_ending(request, places, State::Failed, 502, reason, body);
        self.settle(vec![ending]).await?;
        Ok(())
    }

    fn live_outcome(
        &self,
        request: &Request,
        attempt: &Attempt,
        known: &Known,
        answer: &Answer,
    ) -> Outcome {
        let metered = &answer.metered;
        let lane = metered.lane(attempt.lane);
        let bill = self.prices.bill(&request.model, lane, &metered.usage);
        let mut reason = reason(request, attempt);
        if let Some(why) = &known.why {
            reason = format!("{reason}; {why}");
        }
        if lane != attempt.lane {
            reason = format!("{reason}; billed as {lane}, which is the tier of the answer");
        }
        Outcome {
            state: if answer.status < 400 {
                State::Succeeded
            } else {
                State::Failed
            },
            status: answer.status,
            finished: self.now(),
            source: Source::Live(lane),
            framing: answer.framing,
            reason,
            provider_request: answer.request.clone(),
            usage: metered.usage,
            bill: bill.filter(|_| metered.known),
        }
    }

    async fn finish(
        self: &Arc<Self>,
        request: &Request,
        outcome: Outcome,
        body: Bytes,
        attempt: Option<Attempt>,
        tap: Option<Spout>,
    ) -> Result<(), StoreError> {
        if let (Some(attempt), State::Succeeded) = (&attempt, outcome.state) {
            let scope = ScopeKey::from(request);
            let takes = Takes::Answer(attempt.lane);
            let age = attempt.started.until(outcome.finished);
            self.saw(&scope, takes, age, 1.0);
        }
        let attempt = attempt.map(|attempt| Attempt {
            note: String::new(),
            ended: Some(outcome.finished),
            usage: outcome.usage,
            bill: outcome.bill,
            ..attempt
        });
        let settle = || {
            let places = self.places_of(request);
            let (outcome, attempt) = (outcome.clone(), attempt.clone());
            self.settle(vec![self.ending(
                request,
                places,
                outcome,
                body.clone(),
                attempt,
            )])
        };
        let settled = self.persist(request.key.id, settle).await?;
        if let Some((_, Settled::Before(earlier))) = settled.into_iter().next()
            // Or it was this one, written by a try that was told as a failure.
            && earlier != outcome
            && let Some(attempt) = attempt
        {
            self.account_late_live(request, &outcome, &earlier, attempt)
                .await?;
        }
        if let Some(tap) = tap {
            tap.send(TapEvent::End).await;
        }
        Ok(())
    }
}

/// Why it was answered where it was. The attempt's note names its lane and the
/// numbers.
fn reason(request: &Request, attempt: &Attempt) -> String {
    let planned = &request.reason;
    let why = match (request.lane, request.cohort.on_late) {
        (Lane::Batch, OnLate::Rescue) => "rescued: the batch would not have answered in time",
        // Only a batch that is refused for good sends these here.
        (Lane::Batch, OnLate::Wait | OnLate::Fail) if attempt.lane == Lane::Standard => {
            "at the ordinary price: the provider refused the batch"
        }
        (Lane::Batch, OnLate::Wait | OnLate::Fail) => "the provider refused the batch",
        (lane, _) if lane == attempt.lane => return planned.clone(),
        (Lane::Standard | Lane::Flex | Lane::Background8h | Lane::Background2h, _) => {
            return format!("{} (planned: {planned})", attempt.note);
        }
    };
    match attempt.note.as_str() {
        "" => format!("{why} ({planned})"),
        now => format!("{why}; {now} (planned: {planned})"),
    }
}

/// `Offpeak-On-Late: fail`.
fn fails_late(request: &Request) -> bool {
    request.cohort.on_late == OnLate::Fail
}

/// What the caller sent, less what would answer it in another way.
fn stripped(body: &[u8], strip: body::Strip) -> Result<Bytes, body::Refusal> {
    let mut out = Vec::with_capacity(body.len());
    let edit = body::Edit::strip(strip);
    body::line_body(body, &edit, &mut out)?;
    Ok(out.into())
}
