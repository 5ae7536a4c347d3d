//! Ordinary calls at the ordinary price: what was too close for a batch, what
//! was rescued, and what a batch cannot do. Earliest deadline first.

mod attempts;
mod backoffs;
mod reply;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{
    ledger,
    model::{
        attempt::{Attempt, AttemptEvent, Lane},
        body,
        id::RequestKey,
        request::{Entry, Framing, OnLate, Outcome, Place, Request, Shape, Source, State},
    },
    policy::retry,
    ports::{Content, LiveCall, ProviderError, Settled, StoreError},
};

pub(super) use self::backoffs::Backoffs;
use self::{
    attempts::{number, transition},
    reply::{Reply, read_reply},
};
use super::{
    Engine, TapEvent,
    drive::Next,
    settling::{error_body, error_code},
    taps::Spout,
    turnaround::{ScopeKey, Takes},
};

/// Entries a read of the live queue.
const PAGE: usize = 256;

impl Engine {
    pub(super) async fn live_turn(self: &Arc<Self>) -> Result<Next, StoreError> {
        let mut next = Next::OnSignal;
        let mut after = None;
        loop {
            let page = self.store.live(after, PAGE).await?;
            let Some(last) = page.last() else {
                return Ok(next);
            };
            after = Some(*last);
            for entry in page {
                if self.inflight.live.len() >= self.settings.live.max_concurrent as usize {
                    // Whoever finishes signals.
                    return Ok(next);
                }
                let until = self.backoffs.until(&entry.key);
                if until > self.now() {
                    next = next.sooner(Next::At(until));
                    continue;
                }
                self.run_in_background(entry);
            }
        }
    }

    fn run_in_background(self: &Arc<Self>, entry: Entry) {
        let Some(in_hand) = self.inflight.live.begin(entry.key) else {
            return;
        };
        let engine = self.clone();
        self.tasks.spawn(async move {
            if let Err(error) = engine.run(entry.key).await {
                tracing::error!(id = %entry.key.id, %error, "a live call");
                engine.backoffs.put_off(&engine, entry.key, None, None);
            }
            drop(in_hand);
            engine.signals.live.notify_one();
        });
    }

    async fn run(self: &Arc<Self>, key: RequestKey) -> Result<(), StoreError> {
        let Some(stored) = self.store.load(key).await? else {
            return Ok(());
        };
        let Content::Open { body } = stored.content else {
            return Ok(());
        };
        let request = stored.request;
        if fails_late(&request) && request.deadline <= self.now() {
            return self.fail_late(&[request.entry()]).await;
        }
        let mut attempt = self.open_attempt(&request).await?;
        let tap = self.taps.take(key);
        let reply = self.call(&request, &body, tap.as_ref()).await;
        match reply {
            Reply::Answered {
                status,
                request: provider_request,
                framing,
                asked,
                last_word,
                body,
            } => {
                let again = !last_word && self.should_retry(&request, status, &body);
                let note = format!("answered {status}");
                let attempt = if retry::may_have_run(status) {
                    let lost = number(&attempt);
                    self.lose(&request, attempt, &note).await?;
                    if again && lost < self.settings.live.attempts {
                        return self.try_again(&request, asked).await;
                    }
                    None
                } else if again {
                    self.close(&request, attempt, note).await?;
                    return self.try_again(&request, asked).await;
                } else {
                    attempt.state = transition(&attempt, AttemptEvent::Answer)?;
                    Some(attempt)
                };
                let outcome = self.live_outcome(&request, status, provider_request, framing, &body);
                self.finish(&request, outcome, body, attempt, tap).await
            }
            Reply::Failed(error) => self.failed(&request, attempt, error, tap).await,
        }
    }

    async fn call(&self, request: &Request, body: &Bytes, tap: Option<&Spout>) -> Reply {
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
        let timeout = match fails_late(request) {
            // Nobody wants what comes later.
            true => self
                .now()
                .until(request.deadline)
                .min(self.settings.live.timeout),
            false => self.settings.live.timeout,
        };
        let call = LiveCall {
            endpoint: request.endpoint,
            lane: Lane::Standard,
            body,
            timeout,
        };
        match self.provider.run(&credential, call).await {
            Ok(reply) => read_reply(reply, tap.filter(|_| streams)).await,
            Err(error) => Reply::Failed(error),
        }
    }

    /// Errors that say nothing about the call, and are not billed, are tried again
    /// until the deadline; after it, only up to so many tries in all.
    fn should_retry(&self, request: &Request, status: u16, body: &[u8]) -> bool {
        let spent = error_code(body).is_some_and(|code| retry::is_spent(&code));
        if spent || !retry::is_retryable(status) {
            return false;
        }
        let number = self.backoffs.answered(request.key);
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
            return self.try_again(request, error.retry_after()).await;
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

    /// Puts the next try off, and keeps nothing of a request that has ended
    /// meanwhile. What fails when it is late has its next turn, and its end, no
    /// later than the deadline.
    async fn try_again(
        &self,
        request: &Request,
        asked: Option<Duration>,
    ) -> Result<(), StoreError> {
        let key = request.key;
        let latest = fails_late(request).then_some(request.deadline);
        self.backoffs.put_off(self, key, asked, latest);
        if self.store.place(key, &[]).await? != Some(Place::Live) {
            self.backoffs.forget(&key);
        }
        Ok(())
    }

    fn live_outcome(
        &self,
        request: &Request,
        status: u16,
        provider_request: Option<String>,
        framing: Framing,
        body: &[u8],
    ) -> Outcome {
        let metered = match framing {
            Framing::Json => ledger::meter(body),
            Framing::EventStream => ledger::meter_stream(body),
        };
        let lane = metered.lane(Lane::Standard);
        let bill = self.prices.bill(&request.model, lane, &metered.usage);
        let reason = match (request.lane, request.cohort.on_late) {
            (Lane::Batch, OnLate::Rescue) => format!(
                "rescued: the batch would not have answered in time ({})",
                request.reason
            ),
            // Only a batch that is refused for good sends these here.
            (Lane::Batch, OnLate::Wait | OnLate::Fail) => format!(
                "at the ordinary price: the provider refused the batch ({})",
                request.reason
            ),
            _ => request.reason.clone(),
        };
        Outcome {
            state: if status < 400 {
                State::Succeeded
            } else {
                State::Failed
            },
            status,
            finished: self.now(),
            source: Source::Live(lane),
            framing,
            reason,
            provider_request,
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
            let scope = ScopeKey {
                credential: request.credential,
                model: request.model.clone(),
            };
            let takes = Takes::Answer(Lane::Standard);
            let age = attempt.started.until(outcome.finished);
            self.saw(&scope, takes, age, 1.0);
        }
        let attempt = attempt.map(|attempt| Attempt {
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
