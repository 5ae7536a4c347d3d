//! A look at a background response that is open, when it is due.

use std::{sync::Arc, time::Duration};

use super::Remote;
use crate::{
    engine::{Engine, drive::Next, live::rungs::Known},
    model::{
        attempt::{Attempt, AttemptState},
        id::RequestKey,
        request::{Entry, Request},
        time::Timestamp,
    },
    policy::poll,
    ports::{Credential, ProviderError, RemoteResponse, ResponseStatus, StoreError},
};

/// The pause after a look that our own store broke off.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// What is known when it begins.
pub(super) struct Look<'a> {
    pub request: &'a Request,
    pub attempt: Attempt,
    pub known: Known,
    pub remote: &'a Remote,
}

impl Engine {
    /// Begins a look that is due, unless too many have had theirs of late.
    pub(in crate::engine::live) fn begin_look(
        self: &Arc<Self>,
        entry: Entry,
        remote: Arc<Remote>,
        urgent: bool,
        now: Timestamp,
    ) -> Next {
        // Before a control call is taken for it: what is due stays so until it was
        // looked at.
        let Some(in_hand) = self.inflight.live.begin(entry.key) else {
            return Next::OnSignal;
        };
        {
            let mut summary = self.summary.lock();
            let destination = summary.destinations.get(&entry.cohort.destination);
            if let Some(credential) = destination.map(|destination| destination.credential) {
                let polls = summary.polls(credential);
                let ready = polls.ready_at();
                if ready > now && !urgent {
                    return Next::At(ready);
                }
                polls.take(now);
            }
        }
        self.backoffs.begin_look(&entry.key);
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
                    self.look_again(&look.request.key, &look.attempt, patience);
                    Ok(())
                }
                None => self.give_up_background(look, credential).await,
            },
        }
    }

    fn patience_with(&self, look: &Look<'_>) -> Option<Duration> {
        let attempt = &look.attempt;
        let age = attempt.started.until(self.now());
        self.stays_in(look.request, attempt.lane, age, &look.known)
    }

    pub(super) fn look_again(&self, key: &RequestKey, attempt: &Attempt, patience: Duration) {
        let now = self.now();
        let age = attempt.started.until(now);
        let pause = poll::interval(age, &self.settings.watch);
        let last = patience <= pause;
        let until = now + pause.min(patience);
        self.backoffs.look_at(key, until, last);
    }

    /// The look failed. It waits for another, while there is time for that.
    async fn unseen(
        self: &Arc<Self>,
        look: Look<'_>,
        credential: Option<&Credential>,
        error: ProviderError,
    ) -> Result<(), StoreError> {
        tracing::warn!(id = %look.request.key.id, %error, "a background response was not seen");
        self.heard(look.request.credential, &error).await;
        let is_gone = matches!(
            error,
            ProviderError::Refused {
                status: 404 | 410,
                ..
            }
        );
        match (self.patience_with(&look), credential) {
            (Some(patience), _) if !is_gone => {
                self.look_again(&look.request.key, &look.attempt, patience);
                Ok(())
            }
            (None, Some(credential)) if !is_gone => self.give_up_background(look, credential).await,
            _ => {
                let why = format!("{} was lost: {error}", look.attempt.lane);
                self.leave(look, why, true).await
            }
        }
    }
}
