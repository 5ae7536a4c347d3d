//! The end of a background response: it has answered, is given up for the next
//! rung, or is not wanted any more.

use std::{sync::Arc, time::Duration};

use super::{Remote, look::Look};
use crate::{
    engine::{
        Engine,
        live::{attempts::transition, reply::Answer},
        scope::ScopeKey,
        turnaround::Takes,
    },
    ledger,
    model::{
        attempt::{Attempt, AttemptEvent},
        id::CredentialId,
        request::{Entry, Framing, Outcome},
        time::Timestamp,
    },
    policy::lane::words,
    ports::{Credential, ProviderError, RemoteResponse, ResponseStatus, StoreError},
};

impl Engine {
    /// An answer that stopped at a limit of tokens is one too: an ordinary call
    /// would have ended there as well.
    pub(super) async fn background_answered(
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

    /// It will not be in time, or has not kept to its window. What the cancel comes
    /// too late for is the answer.
    pub(super) async fn give_up_background(
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
    pub(super) async fn leave(
        &self,
        look: Look<'_>,
        why: String,
        unseen: bool,
    ) -> Result<(), StoreError> {
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

    /// The request has ended otherwise: what is still open is cancelled, and what is
    /// done was paid.
    pub(super) async fn not_wanted(
        self: &Arc<Self>,
        look: Look<'_>,
        earlier: &Outcome,
    ) -> Result<(), StoreError> {
        let request = look.request;
        let cancelled = self.cancel_remote(request.credential, look.remote).await;
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
                ResponseStatus::Running if !self.is_past(request.deadline) => {
                    self.look_again(&look, Duration::MAX);
                    return Ok(());
                }
                ResponseStatus::Running => {
                    let note = "it was cancelled, and ran on";
                    self.lose(request, attempt, note).await?;
                }
            },
            Err(error) if error.is_transient() && !self.is_past(request.deadline) => {
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
    fn is_past(&self, deadline: Timestamp) -> bool {
        self.now() > deadline + self.settings.live.give_up_after
    }

    /// Nothing is left of the request here; the provider is told to stop.
    pub(super) async fn erased(&self, entry: Entry, remote: &Remote) -> Result<(), StoreError> {
        let destination = {
            let summary = self.summary.lock();
            summary.destinations.get(&entry.cohort.destination).cloned()
        };
        if let Some(destination) = destination
            && let Err(error) = self.cancel_remote(destination.credential, remote).await
        {
            tracing::warn!(id = %entry.key.id, %error,
                "the background response of an erased request was not cancelled");
            if error.is_transient() && !self.is_past(entry.deadline) {
                let again = self.now() + self.settings.watch.poll_interval;
                self.backoffs.look_at(&entry.key, again, false);
                return Ok(());
            }
        }
        self.backoffs.forget(&entry.key);
        Ok(())
    }

    async fn cancel_remote(
        &self,
        credential: CredentialId,
        remote: &Remote,
    ) -> Result<RemoteResponse, ProviderError> {
        let credential = self.credential(credential).await?;
        self.provider.cancel_response(&credential, &remote.id).await
    }
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
