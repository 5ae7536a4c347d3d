//! Looks at submitted batches: less often as they age, never more often in all
//! than the control-call budget allows.

use std::{sync::Arc, time::Duration};

use tracing::Instrument;

use crate::{
    model::{
        attempt::Lane,
        batch::{Batch, BatchEvent, BatchState, Left},
        id::{BatchId, CredentialId},
        time::Timestamp,
    },
    policy::poll,
    ports::{Credential, ProviderError, RemoteStatus, StoreError},
};

use super::{Engine, drive::Next, scope::Account, summary::Tracked, turnaround::Takes};

/// For clocks, and for a provider that is late itself.
const OVER: Duration = Duration::from_secs(2 * 3600);

impl Engine {
    pub(super) async fn watch_turn(self: &Arc<Self>) -> Result<Next, StoreError> {
        let now = self.now();
        let mut next = Next::OnSignal;
        for (id, credential, due) in self.batches_to_watch() {
            if due > now {
                next = next.sooner(Next::At(due));
                continue;
            }
            let ready = self.summary.lock().polls(credential).ready_at();
            if ready > now {
                next = next.sooner(Next::At(ready));
                continue;
            }
            let Some(in_hand) = self.inflight.batches.begin(id) else {
                continue;
            };
            // Read once it is in hand: nobody else takes its next step now.
            let watched = [BatchState::Submitted, BatchState::Cancelling];
            let Some(batch) = self.batch_in(id, &watched) else {
                continue;
            };
            {
                let mut summary = self.summary.lock();
                summary.polls(credential).take(now);
                if let Some(tracked) = summary.batches.get_mut(&id) {
                    tracked.hinted = false;
                }
            }
            let engine = self.clone();
            let span = tracing::info_span!("watch", batch = %id);
            self.tasks.spawn(
                async move {
                    if let Err(error) = engine.look(batch).await {
                        tracing::error!(batch = %id, %error, "watching");
                        engine.put_off(id, engine.settings.watch.poll_interval);
                    }
                    drop(in_hand);
                    engine.signals.watcher.notify_one();
                }
                .instrument(span),
            );
        }
        Ok(next)
    }

    fn batches_to_watch(&self) -> Vec<(BatchId, CredentialId, Timestamp)> {
        let summary = self.summary.lock();
        let mut batches: Vec<_> = summary
            .batches
            .values()
            .filter(|tracked| {
                matches!(
                    tracked.batch.state,
                    BatchState::Submitted | BatchState::Cancelling
                )
            })
            .map(|tracked| {
                let batch = &tracked.batch;
                (
                    // A rescue has no time to wait behind the polls of others.
                    !tracked.is_wanted(),
                    tracked.due,
                    batch.earliest_deadline,
                    batch.id,
                    batch.credential,
                )
            })
            .collect();
        drop(summary);
        batches.sort();
        let batches = batches.into_iter();
        batches
            .map(|(_, due, _, id, credential)| (id, credential, due))
            .collect()
    }

    async fn look(self: &Arc<Self>, mut batch: Batch) -> Result<(), StoreError> {
        let credential = match self.credential(batch.credential).await {
            Ok(credential) => credential,
            Err(error) => return self.look_later(batch, error).await,
        };
        let Some(id) = batch.provider_id.clone() else {
            return Err(StoreError::Corrupt(format!(
                "batch {} was submitted without an id",
                batch.id
            )));
        };
        let remote = match self.provider.batch(&credential, &id).await {
            Ok(remote) => remote,
            Err(error) if self.is_final(&batch, &error) => {
                let why = "the provider does not know the batch any more";
                return self.give_up(&mut batch, why).await;
            }
            Err(error) => return self.look_later(batch, error).await,
        };
        self.key_works(batch.credential);
        batch.tries = 0;
        batch.provider_status = Some(remote.status_text.clone());
        if remote.status.is_terminal() {
            let ran = matches!(
                remote.status,
                RemoteStatus::Completed | RemoteStatus::Expired
            );
            let now = self.now();
            self.summary.lock().release(&batch, ran, now);
            self.signals.packer.notify_one();
            // The semaphore is never closed.
            let _turn = self.harvests.acquire().await;
            return match self.harvest(&mut batch, &remote, &credential).await? {
                Ok(()) => Ok(()),
                Err(error) if self.is_final(&batch, &error) => {
                    let why = "the provider does not have the batch's files any more";
                    self.give_up(&mut batch, why).await
                }
                Err(error) => self.look_later(batch, error).await,
            };
        }
        self.hear(&batch, remote.finished);
        if self.is_older(&batch, 2 * self.longest_life()) {
            let why = "the provider never ended the batch";
            return self.give_up(&mut batch, why).await;
        }
        let overdue = self.is_older(&batch, self.longest_life());
        let left = self.wanted(batch.id).or(overdue.then_some(Left::Overdue));
        if left.is_some() && batch.state == BatchState::Submitted {
            return self.ask_to_cancel(batch, left, &id, &credential).await;
        }
        self.touch(batch);
        Ok(())
    }

    /// Lines of a running batch that are through since the last look. What ends in a
    /// cancel is looked at when all of it is there.
    fn hear(&self, batch: &Batch, finished: Option<u32>) {
        let finished = finished.filter(|_| batch.state == BatchState::Submitted);
        let share = |lines: u32| f64::from(lines.min(batch.lines)) / f64::from(batch.lines.max(1));
        let news = {
            let mut summary = self.summary.lock();
            let tracked = summary.batches.get_mut(&batch.id);
            tracked.and_then(|tracked| tracked.hear(finished.map(share)))
        };
        if let Some(new) = news {
            let age = batch.created.until(self.now());
            self.saw(&Account::from(batch), Takes::Answer(Lane::Batch), age, new);
        }
    }

    /// Nothing is to be had of the batch any more: the provider says so of an old
    /// one, or keeps refusing a very old one.
    fn is_final(&self, batch: &Batch, error: &ProviderError) -> bool {
        is_gone(error) && self.is_older(batch, self.longest_life())
            || !error.is_transient() && self.is_older(batch, 2 * self.longest_life())
    }

    /// By then the provider has ended a batch, or is late itself. One that has not
    /// ended in twice the time, although it was told to, never will.
    pub(super) fn longest_life(&self) -> Duration {
        self.settings.ladder.batch.guarantee + OVER
    }

    fn is_older(&self, batch: &Batch, age: Duration) -> bool {
        batch.submitted.unwrap_or(batch.created) + age < self.now()
    }

    async fn ask_to_cancel(
        self: &Arc<Self>,
        mut batch: Batch,
        why: Option<Left>,
        id: &str,
        credential: &Credential,
    ) -> Result<(), StoreError> {
        match self.provider.cancel_batch(credential, id).await {
            Ok(()) => {
                batch.cancel_sent = Some(self.now());
                batch.left = why;
                let due = self.now() + self.settings.watch.poll_interval;
                self.advance(&mut batch, BatchEvent::Cancel, due).await
            }
            Err(error) => self.look_later(batch, error).await,
        }
    }

    /// Not worth a write: what changed is the provider's to tell again.
    fn touch(&self, batch: Batch) {
        let now = self.now();
        let mut summary = self.summary.lock();
        let Some(tracked) = summary.batches.get(&batch.id) else {
            return;
        };
        // Wanted back since it was looked at: its cancel is not put off.
        let wanted = tracked.is_wanted() && batch.state == BatchState::Submitted;
        let due = match wanted || tracked.hinted {
            true => now,
            false => now + poll::interval(looked_for(tracked, now), &self.settings.watch),
        };
        summary.track(batch, due);
    }

    async fn look_later(&self, mut batch: Batch, error: ProviderError) -> Result<(), StoreError> {
        let settings = &self.settings.watch;
        let pause = self.count_failure(
            &mut batch,
            &error,
            settings.poll_interval,
            settings.poll_max,
        );
        self.heard(batch.credential, &error).await;
        let due = self.due_after_failure(&batch, self.now() + pause);
        self.summary.lock().track(batch, due);
        Ok(())
    }
}

/// How long its end has been looked out for: that of its cancel once it was sent.
pub(super) fn looked_for(tracked: &Tracked, now: Timestamp) -> Duration {
    let batch = &tracked.batch;
    match batch.cancel_sent {
        Some(asked) => asked.until(now),
        None if tracked.is_wanted() => Duration::ZERO,
        None => batch.submitted.unwrap_or(batch.created).until(now),
    }
}

/// The provider says that there is nothing, or nothing for us.
fn is_gone(error: &ProviderError) -> bool {
    matches!(
        error,
        ProviderError::Refused {
            status: 401 | 403 | 404 | 410,
            ..
        }
    )
}
