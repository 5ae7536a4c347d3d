//! Background responses (WIRE.md §2): created with a completion window, looked at
//! now and then, and cancelled where they will not be in time. Between two looks
//! there is an entry in [`super::backoffs`] and the open attempt with the
//! provider's id, and no task: after a crash the looks go on.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use super::{
    attempts::transition,
    reply::Answer,
    rungs::{Known, store_of},
};
use crate::{
    engine::{Engine, budgets::Reservation, drive::Next, scope::ScopeKey, turnaround::Takes},
    ledger,
    model::{
        attempt::{Attempt, AttemptEvent, AttemptState},
        request::{Entry, Framing, Outcome, Request},
        time::Timestamp,
    },
    policy::{lane::words, poll},
    ports::{
        BackgroundCall, Credential, ProviderError, RemoteResponse, ResponseStatus, StoreError,
    },
};

/// The pause after a look that our own store broke off.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// A background response that is open at the provider.
pub struct Remote {
    pub id: String,
    /// What it holds while it is open: a place among those that are, and money.
    _slot: Option<OwnedSemaphorePermit>,
    _reserved: Option<Reservation>,
}

/// What is there before one is created.
pub struct Opening {
    /// Durable.
    pub attempt: Attempt,
    pub known: Known,
    pub slot: OwnedSemaphorePermit,
    pub reserved: Option<Reservation>,
}

impl Engine {
    pub(super) async fn open_in_background(
        self: &Arc<Self>,
        request: &Request,
        body: Bytes,
        opening: Opening,
    ) -> Result<(), StoreError> {
        let Opening {
            mut attempt,
            known,
            slot,
            reserved,
        } = opening;
        let lane = attempt.lane;
        let call = BackgroundCall {
            lane,
            store: store_of(request.endpoint, &body).is_none(),
            body,
        };
        let created = match self.credential(request.credential).await {
            Ok(credential) => self.provider.create_response(&credential, call).await,
            Err(error) => Err(error),
        };
        let error = match created {
            Ok(remote) => {
                attempt.remote = Some(remote.id.clone());
                let write = || self.store.put_attempt(request.key, attempt.clone());
                self.persist(request.key.id, write).await?;
                let remote = Remote {
                    id: remote.id,
                    _slot: Some(slot),
                    _reserved: reserved,
                };
                let first = self.now() + self.settings.watch.poll_interval;
                self.backoffs.watch(request.entry(), remote, known, first);
                return Ok(());
            }
            Err(error) => error,
        };
        let why = format!("{lane} was not taken: {error}");
        if error.may_have_happened() {
            self.lose(request, attempt, &why).await?;
            return self.step_down(request, known.has_left(lane, why)).await;
        }
        if error.is_transient() {
            self.backoffs.step_down(request.entry(), known);
            return self.failed(request, attempt, error, None).await;
        }
        self.close(request, attempt, why.clone()).await?;
        self.step_down(request, known.has_left(lane, why)).await
    }

    /// After a crash: whether the attempt is a background response to be looked at.
    pub(in crate::engine) fn watch_again(&self, request: &Request, attempt: &Attempt) -> bool {
        let Some(id) = attempt.remote.clone() else {
            return false;
        };
        let reserved = attempt.reserved;
        let remote = Remote {
            id,
            _slot: self.background.clone().try_acquire_owned().ok(),
            _reserved: reserved.and_then(|amount| self.reserve_again(request.key, amount)),
        };
        let known = Known::default();
        self.backoffs
            .watch(request.entry(), remote, known, self.now());
        true
    }

    /// Begins a look that is due, unless too many have had theirs of late.
    pub(super) fn begin_look(
        self: &Arc<Self>,
        entry: Entry,
        remote: Arc<Remote>,
        urgent: bool,
        now: Timestamp,
    ) -> Next {
        {
            let mut summary = self.summary.lock();
            let destination = summary.destinations.get(&entry.cohort.destination);
            if let Some(credential) = destination.map(|destination| destination.credential) {
                let ready = summary.polls(credential).ready_at();
                if ready > now && !urgent {
                    return Next::At(ready);
                }
                summary.polls(credential).take(now);
            }
        }
        let Some(in_hand) = self.inflight.live.begin(entry.key) else {
            return Next::OnSignal;
        };
        let engine = self.clone();
        self.tasks.spawn(async move {
            if let Err(error) = engine.look_at(entry, &remote).await {
                tracing::error!(id = %entry.key.id, %error, "looking at a background response");
                let again = engine.now() + AFTER_FAILURE;
                engine.backoffs.look_at(&entry.key, again, false);
            }
            drop(in_hand);
            engine.signals.live.notify_one();
        });
        Next::OnSignal
    }

    async fn look_at(self: &Arc<Self>, entry: Entry, remote: &Remote) -> Result<(), StoreError> {
        let Some(head) = self.store.head(entry.key).await? else {
            return self.erased(entry, remote).await;
        };
        let request = &head.request;
        let attempts = self.store.attempts(entry.key).await?;
        let is_it = |attempt: &Attempt| {
            attempt.state == AttemptState::Open && attempt.remote.as_deref() == Some(&remote.id)
        };
        let Some(attempt) = attempts.into_iter().find(is_it) else {
            // It was closed, and the rest not done.
            return self
                .step_down(request, self.backoffs.known(&entry.key))
                .await;
        };
        let look = Look {
            request,
            attempt,
            known: self.backoffs.known(&entry.key),
            remote,
        };
        if let Some(earlier) = &head.outcome {
            return self.not_wanted(look, earlier).await;
        }
        let credential = match self.credential(request.credential).await {
            Ok(credential) => credential,
            Err(error) => return self.unseen(look, None, error).await,
        };
        match self.provider.response(&credential, &remote.id).await {
            Ok(found) => self.deal_with(look, &credential, found).await,
            Err(error) => self.unseen(look, Some(&credential), error).await,
        }
    }

    async fn deal_with(
        self: &Arc<Self>,
        look: Look<'_>,
        credential: &Credential,
        found: RemoteResponse,
    ) -> Result<(), StoreError> {
        match found.status {
            ResponseStatus::Completed | ResponseStatus::Incomplete => {
                self.background_answered(look, found).await
            }
            ResponseStatus::Failed | ResponseStatus::Cancelled => {
                let lane = look.attempt.lane;
                let why = format!("{lane} ended as {}", found.status_text);
                self.leave(look, why, false).await
            }
            ResponseStatus::Running => match self.patience_with(&look) {
                Some(patience) => {
                    self.look_again(&look, patience);
                    Ok(())
                }
                None => self.give_up_background(look, credential).await,
            },
        }
    }

    fn patience_with(&self, look: &Look<'_>) -> Option<Duration> {
        let attempt = &look.attempt;
        let age = attempt.started.until(self.now());
        self.background_patience(look.request, attempt.lane, age, &look.known)
    }

    fn look_again(&self, look: &Look<'_>, patience: Duration) {
        let now = self.now();
        let age = look.attempt.started.until(now);
        let pause = poll::interval(age, false, &self.settings.watch);
        let last = patience <= pause;
        let until = now + pause.min(patience);
        self.backoffs.look_at(&look.request.key, until, last);
    }

    /// The look failed. It waits for another, while there is time for that.
    async fn unseen(
        self: &Arc<Self>,
        look: Look<'_>,
        credential: Option<&Credential>,
        error: ProviderError,
    ) -> Result<(), StoreError> {
        tracing::warn!(id = %look.request.key.id, %error, "a background response was not seen");
        let is_gone = matches!(
            error,
            ProviderError::Refused {
                status: 404 | 410,
                ..
            }
        );
        match (self.patience_with(&look), credential) {
            (Some(patience), _) if !is_gone => {
                self.look_again(&look, patience);
                Ok(())
            }
            (None, Some(credential)) if !is_gone => self.give_up_background(look, credential).await,
            _ => {
                let why = format!("{} was lost: {error}", look.attempt.lane);
                self.leave(look, why, true).await
            }
        }
    }

    /// It will not be in time, or has not kept to its window. What the cancel comes
    /// too late for is the answer.
    async fn give_up_background(
        self: &Arc<Self>,
        look: Look<'_>,
        credential: &Credential,
    ) -> Result<(), StoreError> {
        let age = words(look.attempt.started.until(self.now()));
        let lane = look.attempt.lane;
        let why = format!("{lane} was given up after {age}");
        tracing::info!(id = %look.request.key.id, why, "a background response");
        let cancelled = self.provider.cancel_response(credential, &look.remote.id);
        match cancelled.await {
            Ok(found) => match found.status {
                ResponseStatus::Completed | ResponseStatus::Incomplete => {
                    self.background_answered(look, found).await
                }
                ResponseStatus::Failed | ResponseStatus::Cancelled => {
                    self.leave(look, why, false).await
                }
                ResponseStatus::Running => self.leave(look, why, true).await,
            },
            Err(error) => {
                let why = format!("{why}, and its cancel was not heard: {error}");
                self.leave(look, why, true).await
            }
        }
    }

    /// The request goes on without it. `unseen` where it may yet be billed.
    async fn leave(&self, look: Look<'_>, why: String, unseen: bool) -> Result<(), StoreError> {
        let Look {
            request,
            attempt,
            known,
            ..
        } = look;
        let lane = attempt.lane;
        let age = attempt.started.until(self.now());
        self.cut_off(&ScopeKey::from(request), Takes::Answer(lane), age, 1.0);
        match unseen {
            true => self.lose(request, attempt, &why).await?,
            false => self.close(request, attempt, why.clone()).await?,
        }
        self.step_down(request, known.has_left(lane, why)).await
    }

    /// An answer that stopped at a limit of tokens is one too: an ordinary call
    /// would have ended there as well.
    async fn background_answered(
        self: &Arc<Self>,
        look: Look<'_>,
        found: RemoteResponse,
    ) -> Result<(), StoreError> {
        let answer = answer(found);
        let request = look.request;
        let mut attempt = look.attempt;
        let outcome = self.live_outcome(request, &attempt, &look.known, &answer);
        attempt.state = transition(&attempt, AttemptEvent::Answer)?;
        let finished = self.finish(request, outcome, answer.body, Some(attempt), None);
        finished.await?;
        // Not before what was paid is counted.
        self.backoffs.forget(&request.key);
        Ok(())
    }

    /// The request has ended otherwise: what is still open is cancelled, and what is
    /// done was paid.
    async fn not_wanted(
        self: &Arc<Self>,
        look: Look<'_>,
        earlier: &Outcome,
    ) -> Result<(), StoreError> {
        let request = look.request;
        let cancelled = match self.credential(request.credential).await {
            Ok(credential) => {
                let id = &look.remote.id;
                self.provider.cancel_response(&credential, id).await
            }
            Err(error) => Err(error),
        };
        let attempt = look.attempt.clone();
        match cancelled {
            Ok(found) => match found.status {
                ResponseStatus::Completed | ResponseStatus::Incomplete => {
                    let answer = answer(found);
                    let outcome = self.live_outcome(request, &attempt, &look.known, &answer);
                    let attempt = Attempt {
                        ended: Some(outcome.finished),
                        usage: outcome.usage,
                        bill: outcome.bill,
                        ..attempt
                    };
                    self.account_late_live(request, &outcome, earlier, attempt)
                        .await?;
                }
                ResponseStatus::Failed | ResponseStatus::Cancelled => {
                    let note = format!("cancelled: the request had {}", earlier.state.as_str());
                    self.close(request, attempt, note).await?;
                }
                // The cancel takes its time.
                ResponseStatus::Running => {
                    self.look_again(&look, Duration::MAX);
                    return Ok(());
                }
            },
            Err(error) if error.is_transient() && !self.is_past(&look) => {
                self.look_again(&look, Duration::MAX);
                return Ok(());
            }
            Err(error) => {
                let note = format!("its cancel was not heard: {error}");
                self.lose(request, attempt, &note).await?;
            }
        }
        self.backoffs.forget(&request.key);
        Ok(())
    }

    /// Nobody will hear what came of it any more.
    fn is_past(&self, look: &Look<'_>) -> bool {
        let deadline = look.request.deadline;
        self.now() > deadline + self.settings.live.give_up_after
    }

    /// Nothing is left of the request here; the provider is told to stop, once.
    async fn erased(&self, entry: Entry, remote: &Remote) -> Result<(), StoreError> {
        let credential = {
            let summary = self.summary.lock();
            let destination = summary.destinations.get(&entry.cohort.destination);
            destination.map(|destination| destination.credential)
        };
        if let Some(credential) = credential
            && let Ok(credential) = self.credential(credential).await
            && let Err(error) = self.provider.cancel_response(&credential, &remote.id).await
        {
            tracing::warn!(id = %entry.key.id, %error,
                "the background response of an erased request was not cancelled");
        }
        self.backoffs.forget(&entry.key);
        Ok(())
    }
}

struct Look<'a> {
    request: &'a Request,
    attempt: Attempt,
    known: Known,
    remote: &'a Remote,
}

fn answer(found: RemoteResponse) -> Answer {
    Answer {
        status: 200,
        request: found.request,
        framing: Framing::Json,
        asked: None,
        last_word: false,
        spent: false,
        metered: ledger::meter(&found.body),
        body: found.body,
    }
}
