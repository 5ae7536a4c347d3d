//! The end of a background response: it has answered, is given up for the next
//! rung, or is not wanted any more.

use std::{sync::Arc, time::Duration};

use super::{Remote, look::Look};
use crate::{
    engine::{
        Engine,
        live::{Payer, attempts::transition, reply::Answer},
        scope::Account,
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
    ports::{Credential, ProviderError, RemoteResponse, ResponseStatus, StoreError, Unbooked},
};

/// A background response whose answer comes too late for its request.
struct Unwanted<'a> {
    payer: Payer<'a>,
    deadline: Timestamp,
    attempt: Attempt,
    /// How the request has ended. None where it is erased.
    earlier: Option<&'a Outcome>,
}

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
        self.cut_off(&Account::from(request), Takes::Answer(lane), age, 1.0);
        match unseen {
            true => self.lose(request.into(), attempt, &why).await?,
            false => self.close(request.key, attempt, why.clone()).await?,
        }
        self.step_down(request, known.has_left(lane, why)).await
    }

    /// The request has ended otherwise.
    pub(super) async fn not_wanted(
        &self,
        look: Look<'_>,
        earlier: &Outcome,
    ) -> Result<(), StoreError> {
        let request = look.request;
        let unwanted = Unwanted {
            payer: request.into(),
            deadline: request.deadline,
            attempt: look.attempt,
            earlier: Some(earlier),
        };
        self.stop_remote(unwanted, Some(request.credential), look.remote)
            .await
    }

    /// Nothing is left of the request here but what it may cost yet.
    pub(super) async fn erased(&self, entry: Entry, remote: &Remote) -> Result<(), StoreError> {
        let calls = self.store.unbooked(Some(entry.key)).await?;
        let is_it = |call: &&Unbooked| call.attempt.remote.as_deref() == Some(&remote.id);
        let Some(call) = calls.iter().find(is_it) else {
            // It was booked, and the rest not done.
            self.backoffs.forget(&entry.key);
            return Ok(());
        };
        let credential = {
            let summary = self.summary.lock();
            let destination = summary.destinations.get(&entry.cohort.destination);
            destination.map(|destination| destination.credential)
        };
        let unwanted = Unwanted {
            payer: call.into(),
            deadline: entry.deadline,
            attempt: call.attempt.clone(),
            earlier: None,
        };
        self.stop_remote(unwanted, credential, remote).await
    }

    /// What is still open is cancelled, and what is done was paid.
    async fn stop_remote(
        &self,
        unwanted: Unwanted<'_>,
        credential: Option<CredentialId>,
        remote: &Remote,
    ) -> Result<(), StoreError> {
        let Unwanted {
            payer,
            deadline,
            attempt,
            earlier,
        } = unwanted;
        match self.cancel_remote(credential, remote).await {
            Ok(found) => match found.status {
                ResponseStatus::Completed | ResponseStatus::Incomplete => {
                    let (lane, answer) = (attempt.lane, answer(found));
                    let outcome = self.outcome_of(payer.model, String::new(), lane, &answer);
                    let attempt = Attempt {
                        ended: Some(outcome.finished),
                        usage: outcome.usage,
                        bill: outcome.bill,
                        ..attempt
                    };
                    let late = (&outcome, &answer.body[..]);
                    self.account_late_live(payer, late, earlier, attempt)
                        .await?;
                }
                ResponseStatus::Failed | ResponseStatus::Cancelled => {
                    let ended = earlier.map_or("been erased", |earlier| earlier.state.as_str());
                    let note = format!("cancelled: the request had {ended}");
                    self.close(payer.key, attempt, note).await?;
                }
                // The cancel takes its time.
                ResponseStatus::Running if !self.is_past(deadline) => {
                    self.look_again(&payer.key, &attempt, Duration::MAX);
                    return Ok(());
                }
                ResponseStatus::Running => {
                    let note = "it was cancelled, and ran on";
                    self.lose(payer, attempt, note).await?;
                }
            },
            Err(error) if error.is_transient() && !self.is_past(deadline) => {
                self.look_again(&payer.key, &attempt, Duration::MAX);
                return Ok(());
            }
            Err(error) => {
                tracing::warn!(id = %payer.key.id, %error,
                    "a background response that nobody wants was not cancelled");
                let note = format!("its cancel was not heard: {error}");
                self.lose(payer, attempt, &note).await?;
            }
        }
        self.backoffs.forget(&payer.key);
        Ok(())
    }

    /// Nobody will hear what came of it any more.
    fn is_past(&self, deadline: Timestamp) -> bool {
        self.now() > deadline + self.settings.live.give_up_after
    }

    async fn cancel_remote(
        &self,
        credential: Option<CredentialId>,
        remote: &Remote,
    ) -> Result<RemoteResponse, ProviderError> {
        let known =
            credential.ok_or_else(|| ProviderError::Local("its destination is gone".into()));
        let credential = self.credential(known?).await?;
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
