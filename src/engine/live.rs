//! Ordinary calls at the ordinary price: what was too close for a batch, what
//! was rescued, and what a batch cannot do. Earliest deadline first.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use parking_lot::Mutex;

use crate::{
    ledger,
    model::{
        attempt::{Attempt, AttemptEvent, AttemptId, AttemptState, Lane},
        body,
        id::RequestKey,
        request::{Entry, Framing, OnLate, Outcome, Place, Request, Shape, Source, State, Usage},
        time::Timestamp,
    },
    policy::retry,
    ports::{Content, LiveCall, LiveReply, ProviderError, StoreError},
};

use super::{
    Engine, TapEvent,
    drive::{AFTER_FAILURE, Next},
    settling::{error_body, error_code},
    taps::Spout,
};

/// Entries a read of the live queue.
const PAGE: usize = 256;
/// The most that an answer may hold.
const MAX_ANSWER: usize = 256 << 20;

/// Calls that wait before their next try, and how often they have tried.
#[derive(Default)]
pub(super) struct Backoffs(Mutex<HashMap<RequestKey, Backoff>>);

#[derive(Clone, Copy, Default)]
struct Backoff {
    until: Timestamp,
    tries: u32,
    /// Tries that the provider answered with an error. Not durable: nothing was
    /// paid for them.
    answered: u32,
}

/// What came of one live call.
enum Reply {
    Answered {
        status: u16,
        request: Option<String>,
        framing: Framing,
        asked: Option<Duration>,
        /// The provider's own word that another try would not help.
        last_word: bool,
        body: Bytes,
    },
    Failed(ProviderError),
}

impl Engine {
    pub(super) async fn live_turn(self: &Arc<Self>) -> Result<Next, StoreError> {
        let mut next = Next::OnSignal;
        let mut after = None;
        loop {
            let page = self.store.live(after, PAGE).await?;
            let Some(last) = page.last() else {
                return Ok(next);
            };
            after = Some((last.deadline, last.key));
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
                if !last_word && self.should_retry(&request, status, &body) {
                    self.close(&request, attempt, format!("answered {status}"))
                        .await?;
                    return self.try_again(&request, asked).await;
                }
                attempt.state = transition(&attempt, AttemptEvent::Answer)?;
                let outcome = self.live_outcome(&request, status, provider_request, framing, &body);
                self.finish(&request, outcome, body, attempt, tap).await
            }
            Reply::Failed(error) => self.failed(&request, attempt, error, tap).await,
        }
    }

    /// Durable before the call is sent: after a crash it counts as unaccounted.
    /// A try that ended and cost nothing gives its number to the next.
    async fn open_attempt(&self, request: &Request) -> Result<Attempt, StoreError> {
        let earlier = self.store.attempts(request.key).await?;
        let number = earlier
            .iter()
            .filter(|a| a.id.lane() == Lane::Standard && a.state != AttemptState::Ended)
            .count() as u32
            + 1;
        let attempt = Attempt {
            id: AttemptId::Live(number),
            started: self.now(),
            state: AttemptState::Open,
            ended: None,
            note: String::new(),
            usage: Usage::default(),
            bill: None,
        };
        self.store.put_attempt(request.key, attempt.clone()).await?;
        Ok(attempt)
    }

    async fn close(
        &self,
        request: &Request,
        mut attempt: Attempt,
        note: String,
    ) -> Result<(), StoreError> {
        attempt.state = transition(&attempt, AttemptEvent::End)?;
        attempt.ended = Some(self.now());
        attempt.note = note;
        self.store.put_attempt(request.key, attempt).await
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
            let lost = match attempt.id {
                AttemptId::Live(number) => number,
                AttemptId::Batch(_) => 0,
            };
            self.lose_sight(request, attempt, &note).await?;
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
        let bill = self
            .prices
            .bill(&request.model, Lane::Standard, &metered.usage);
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
            (Lane::Standard, _) => request.reason.clone(),
        };
        Outcome {
            state: if status < 400 {
                State::Succeeded
            } else {
                State::Failed
            },
            status,
            finished: self.now(),
            source: Source::Live,
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
        mut attempt: Attempt,
        tap: Option<Spout>,
    ) -> Result<(), StoreError> {
        attempt.ended = Some(outcome.finished);
        attempt.usage = outcome.usage;
        attempt.bill = outcome.bill;
        // It is paid for: while the store cannot take it, it is kept here, and the
        // call is not made again.
        let settled = loop {
            let places = self.places_of(request);
            let (outcome, attempt) = (outcome.clone(), Some(attempt.clone()));
            let ending = self.ending(request, places, outcome, body.clone(), attempt);
            match self.settle(vec![ending]).await {
                Err(error @ (StoreError::Full | StoreError::Io(_)))
                    if !self.stop.is_cancelled() =>
                {
                    tracing::error!(id = %request.key.id, %error, "an answer is not durable yet; trying again");
                    tokio::time::sleep(AFTER_FAILURE).await;
                }
                settled => break settled?,
            }
        };
        if let Some((_, crate::ports::Settled::Before(earlier))) = settled.into_iter().next()
            // Or it was this one, written by a try that was told as a failure.
            && earlier != outcome
        {
            self.account_late_live(request, &outcome, &earlier, attempt)
                .await?;
        }
        if let Some(tap) = tap {
            tap.send(TapEvent::End).await;
        }
        Ok(())
    }

    /// The batch was faster, or the caller cancelled: this answer was paid all
    /// the same.
    async fn account_late_live(
        &self,
        request: &Request,
        outcome: &Outcome,
        earlier: &Outcome,
        mut attempt: Attempt,
    ) -> Result<(), StoreError> {
        if outcome.state != State::Succeeded {
            // Errors are not billed.
            attempt.state = AttemptState::Ended;
            return self.store.put_attempt(request.key, attempt).await;
        }
        attempt.state = AttemptState::Late;
        attempt.note = format!("answered after the request had {}", earlier.state.as_str());
        let row = ledger::late_answer(outcome, earlier.source != Source::Offpeak);
        let key = ledger::key(request, outcome);
        let ledger = crate::ports::LedgerEntry { key, row };
        self.store.account(request.key, attempt, ledger).await?;
        Ok(())
    }
}

impl Backoffs {
    pub fn len(&self) -> usize {
        self.0.lock().len()
    }

    fn until(&self, key: &RequestKey) -> Timestamp {
        self.0
            .lock()
            .get(key)
            .map_or(Timestamp::ZERO, |backoff| backoff.until)
    }

    /// Counts one more answer that was an error, and says how many there were.
    fn answered(&self, key: RequestKey) -> u32 {
        let mut backoffs = self.0.lock();
        let backoff = backoffs.entry(key).or_default();
        backoff.answered += 1;
        backoff.answered
    }

    fn put_off(
        &self,
        engine: &Engine,
        key: RequestKey,
        asked: Option<Duration>,
        latest: Option<Timestamp>,
    ) {
        let settings = &engine.settings.live;
        let mut backoffs = self.0.lock();
        let backoff = backoffs.entry(key).or_default();
        backoff.tries += 1;
        let (base, max) = (settings.retry_base, settings.retry_max);
        let pause = retry::backoff(backoff.tries, base, max, asked, engine.clock.random());
        let until = engine.now() + pause;
        backoff.until = latest.map_or(until, |latest| until.min(latest));
    }

    pub(super) fn forget(&self, key: &RequestKey) {
        self.0.lock().remove(key);
    }
}

/// `Offpeak-On-Late: fail`.
fn fails_late(request: &Request) -> bool {
    request.cohort.on_late == OnLate::Fail
}

fn transition(attempt: &Attempt, event: AttemptEvent) -> Result<AttemptState, StoreError> {
    attempt
        .state
        .next(event)
        .map_err(|illegal| StoreError::Corrupt(illegal.to_string()))
}

/// Reads the whole reply, passing a success on to a caller who streams.
async fn read_reply(mut reply: LiveReply, tap: Option<&Spout>) -> Reply {
    let header = |name: &str| {
        reply
            .headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned)
    };
    let request = header("x-request-id");
    let asked = retry::asked(&reply.headers);
    let last_word = header("x-should-retry").is_some_and(|word| word.trim() == "false");
    let is_stream =
        header("content-type").is_some_and(|kind| kind.starts_with("text/event-stream"));
    let framing = if is_stream {
        Framing::EventStream
    } else {
        Framing::Json
    };
    let mut tap = tap.filter(|_| is_stream && reply.status < 400);
    if let Some(tap) = tap {
        tap.send(TapEvent::Begin {
            headers: reply.headers.clone(),
        })
        .await;
    }
    let mut body = BytesMut::new();
    while let Some(chunk) = reply.body.next().await {
        let chunk = match chunk {
            Ok(chunk) => chunk,
            Err(error) => return Reply::Failed(error),
        };
        if body.len() + chunk.len() > MAX_ANSWER {
            return Reply::Failed(ProviderError::Malformed("the answer is too large".into()));
        }
        body.extend_from_slice(&chunk);
        if let Some(spout) = tap
            && !spout.send(TapEvent::Chunk(chunk)).await
        {
            tap = None;
        }
    }
    Reply::Answered {
        status: reply.status,
        request,
        framing,
        asked,
        last_word,
        body: body.freeze(),
    }
}

/// What the caller sent, less what would answer it in another way.
fn stripped(body: &[u8], strip: body::Strip) -> Result<Bytes, body::Refusal> {
    let mut out = Vec::with_capacity(body.len());
    let edit = body::Edit::strip(strip);
    body::line_body(body, &edit, &mut out)?;
    Ok(out.into())
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    #[tokio::test]
    async fn the_provider_says_whether_another_try_helps() {
        for (word, last) in [(None, false), (Some("true"), false), (Some("false"), true)] {
            let mut headers = http::HeaderMap::new();
            if let Some(word) = word {
                headers.insert("x-should-retry", http::HeaderValue::from_static(word));
            }
            let reply = LiveReply {
                status: 503,
                headers,
                body: stream::empty().boxed(),
            };
            let Reply::Answered { last_word, .. } = read_reply(reply, None).await else {
                panic!("it was answered");
            };
            assert_eq!(last_word, last, "{word:?}");
        }
    }
}
