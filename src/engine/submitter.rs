//! Sealed batch → provider batch, once. Intent, then act, then record: the
//! create is noted before it is sent; when its reply is lost, the provider's
//! list tells whether it happened (DESIGN.md §4.2).

mod search;
mod strays;

use std::{sync::Arc, time::Duration};

use tracing::Instrument;

use crate::{
    metrics::BatchEnd,
    model::{
        batch::{Batch, BatchEvent, BatchState, Left},
        id::{BatchId, TenantId},
        request::Place,
        time::Timestamp,
    },
    policy::{pack::Round, retry},
    ports::{Credential, ProviderError, RemoteBatch, StoreError},
};

use super::{Engine, drive::Next, settling::error_code, summary::Summary, upload::Spoiled};

/// What is not at the provider, as far as we know.
const HERE: [BatchState; 3] = [BatchState::Sealed, BatchState::Uploaded, BatchState::Lost];

/// The key itself is tried first.
const REFUSED_AGAIN: Duration = Duration::from_secs(60);

/// Those wanted back first, then the earliest deadline.
type Item = (bool, Timestamp, BatchId);

impl Engine {
    pub(super) async fn submit_turn(self: &Arc<Self>) -> Result<Next, StoreError> {
        let (mut round, next) = self.batches_to_submit();
        // Whoever finishes signals: the turn goes on with the rest then.
        while self.inflight.submits.len() < self.settings.submit.max_concurrent as usize {
            let turn = self.summary.lock().limits.submitting.next(&mut round);
            let Some((tenant, (_, _, id))) = turn else {
                break;
            };
            let Some(in_hand) = self.inflight.batches.begin(id) else {
                continue;
            };
            // Read once it is in hand: nobody else takes its next step now.
            let Some(batch) = self.batch_in(id, &HERE) else {
                continue;
            };
            self.had_its_turn(&mut round, tenant);
            let submitting = self.inflight.submits.begin(id);
            let engine = self.clone();
            let span = tracing::info_span!("submit", batch = %id);
            self.tasks.spawn(
                async move {
                    if let Err(error) = engine.submit_step(batch).await {
                        tracing::error!(batch = %id, %error, "submitting");
                        engine.put_off(id, Duration::from_secs(1));
                    }
                    drop((in_hand, submitting));
                    engine.signals.submitter.notify_one();
                    engine.signals.watcher.notify_one();
                }
                .instrument(span),
            );
        }
        Ok(next)
    }

    /// Sealed and uploaded batches that are due, and when the next one is. A pause
    /// holds back all but those whose create may have happened and those wanted back.
    fn batches_to_submit(&self) -> (Round<Item>, Next) {
        let (now, paused) = (self.now(), self.is_paused());
        let mut summary = self.summary.lock();
        let Summary {
            batches, limits, ..
        } = &mut *summary;
        let mut next = Next::OnSignal;
        let mut due: Vec<(TenantId, Item)> = Vec::new();
        for tracked in batches.values() {
            let batch = &tracked.batch;
            let is_next = HERE.contains(&batch.state);
            let goes_on = !paused || tracked.is_wanted() || batch.create_sent.is_some();
            if !is_next || !goes_on {
                continue;
            }
            if tracked.due > now {
                next = next.sooner(Next::At(tracked.due));
                continue;
            }
            let item = (!tracked.is_wanted(), batch.earliest_deadline, batch.id);
            due.push((batch.tenant, item));
        }
        (limits.submitting.round(due), next)
    }

    fn had_its_turn(&self, round: &mut Round<Item>, tenant: TenantId) {
        let mut summary = self.summary.lock();
        summary.limits.submitting.served(round, tenant, None);
    }

    /// The batch as it is, where it is in one of these states.
    pub(super) fn batch_in(&self, id: BatchId, states: &[BatchState]) -> Option<Batch> {
        let summary = self.summary.lock();
        let batch = &summary.batches.get(&id)?.batch;
        states.contains(&batch.state).then(|| batch.clone())
    }

    async fn submit_step(self: &Arc<Self>, mut batch: Batch) -> Result<(), StoreError> {
        let sent = batch.create_sent.is_some();
        if let Err(error) = self.find_strays(&mut batch).await {
            return self.try_later(batch, error).await;
        }
        if !sent && (self.is_wanted(batch.id) || self.lines_of(batch.id).await?.is_empty()) {
            return self.dissolve(batch).await;
        }
        let credential = match self.credential(batch.credential).await {
            Ok(credential) => credential,
            Err(error) => return self.try_later(batch, error).await,
        };
        if batch.state == BatchState::Lost {
            return self.look_out(batch, &credential).await;
        }
        if sent {
            return self.find_created(batch, &credential).await;
        }
        if batch.state == BatchState::Sealed {
            let lines = self.lines_of(batch.id).await?;
            let spoiled = Spoiled::default();
            let upload = self.upload_of(&batch, lines.clone(), spoiled.clone());
            let uploaded = self.provider.upload(&credential, upload).await;
            let spoiled = std::mem::take(&mut *spoiled.lock());
            self.give_up_lines(Place::Line(batch.id), &lines, spoiled)
                .await?;
            match uploaded {
                Ok(file) => {
                    batch.input_file = Some(file);
                    self.keep(&mut batch, BatchEvent::Upload, self.now())
                        .await?;
                }
                Err(error) if is_about_its_lines(&error) => {
                    return self.part_refused(batch, error).await;
                }
                Err(error) => {
                    self.may_be_stray(batch.id, error.may_have_happened());
                    return self.try_later(batch, error).await;
                }
            }
        }
        if self.is_wanted(batch.id) {
            return self.dissolve(batch).await;
        }
        self.create(batch, &credential).await
    }

    async fn create(
        self: &Arc<Self>,
        mut batch: Batch,
        credential: &Credential,
    ) -> Result<(), StoreError> {
        let Some(file) = batch.input_file.clone() else {
            return Err(StoreError::Corrupt(format!(
                "batch {} is uploaded without a file",
                batch.id
            )));
        };
        batch.create_sent = Some(self.now());
        self.save(&batch, self.now()).await?;
        self.audit_later(batch.credential, self.now());
        match self
            .provider
            .create_batch(credential, &file, batch.endpoint, batch.id)
            .await
        {
            Ok(remote) => self.adopt(batch, remote).await,
            Err(error) if error.may_have_happened() => {
                tracing::warn!(batch = %batch.id, %error, "a create's reply was lost; looking for it");
                batch.last_error = Some(error.to_string());
                let due = self.now() + self.settings.submit.retry_base;
                self.save(&batch, due).await
            }
            Err(error) => {
                batch.create_sent = None;
                self.save(&batch, self.now()).await?;
                if is_too_much(&error) {
                    return self.unpack(batch).await;
                }
                if is_throttled(&error) {
                    let now = self.now();
                    let asked = error.retry_after().unwrap_or_default();
                    self.summary.lock().throttled(batch.credential, asked, now);
                }
                self.try_later(batch, error).await
            }
        }
    }

    async fn adopt(
        self: &Arc<Self>,
        mut batch: Batch,
        remote: RemoteBatch,
    ) -> Result<(), StoreError> {
        batch.provider_id = Some(remote.id.clone());
        batch.provider_status = Some(remote.status_text);
        batch.submitted = Some(self.now());
        let due = self.now() + self.settings.watch.poll_interval;
        self.keep(&mut batch, BatchEvent::Submit, due).await?;
        self.metrics.batches.created(batch.lines);
        self.hear_what_came_early(&remote.id);
        Ok(())
    }

    /// As [`Engine::advance`], for what the provider has done already.
    async fn keep(
        &self,
        batch: &mut Batch,
        event: BatchEvent,
        due: Timestamp,
    ) -> Result<(), StoreError> {
        self.transition(batch, event)?;
        self.persist(batch.id, || self.save(batch, due)).await
    }

    /// A step that failed: again after a pause, or, where the provider will never
    /// take this batch, each line by itself.
    async fn try_later(
        self: &Arc<Self>,
        mut batch: Batch,
        error: ProviderError,
    ) -> Result<(), StoreError> {
        let waits = self.heard(batch.credential, &error).await;
        let hopeless = !waits
            && matches!(
                error,
                ProviderError::Refused {
                    status: 400 | 401 | 403 | 404 | 413 | 415 | 422,
                    ..
                }
            );
        if hopeless && batch.create_sent.is_none() {
            tracing::warn!(batch = %batch.id, %error, on_late = ?batch.cohort.on_late, "the provider refuses the batch; its lines go live, at the ordinary price");
            return self.dissolve(batch).await;
        }
        let settings = &self.settings.submit;
        let pause = self.count_failure(&mut batch, &error, settings.retry_base, settings.retry_max);
        let due = self.due_after_failure(&batch, self.now() + pause);
        self.save(&batch, due).await
    }

    /// A file that is not taken as it is: its halves may be (WIRE.md §1).
    async fn part_refused(
        self: &Arc<Self>,
        batch: Batch,
        error: ProviderError,
    ) -> Result<(), StoreError> {
        let lines = self.lines_of(batch.id).await?;
        match self.halve(&batch, &lines).await? {
            true => self.dissolve(batch).await,
            false => self.try_later(batch, error).await,
        }
    }

    /// Where its key is refused, when that is tried again, and a little later.
    pub(super) fn due_after_failure(&self, batch: &Batch, due: Timestamp) -> Timestamp {
        match self.refusal(batch.credential) {
            Some(refusal) if !self.is_wanted(batch.id) => due.max(refusal.look + REFUSED_AGAIN),
            _ => due,
        }
    }

    /// Notes that a step of the batch failed; returns the pause before the next try.
    pub(super) fn count_failure(
        &self,
        batch: &mut Batch,
        error: &ProviderError,
        base: Duration,
        max: Duration,
    ) -> Duration {
        batch.tries += 1;
        batch.last_error = Some(error.to_string());
        let asked = error.retry_after();
        let pause = retry::backoff(batch.tries, base, max, asked, self.clock.random());
        tracing::warn!(batch = %batch.id, state = ?batch.state, tries = batch.tries, %error, ?pause, "trying the batch later");
        pause
    }

    /// A batch that will not reach the provider: its lines run live. That holds for
    /// `Offpeak-On-Late: wait` too, for no later batch would be taken either, and
    /// for `fail` until the deadline.
    async fn dissolve(self: &Arc<Self>, mut batch: Batch) -> Result<(), StoreError> {
        batch.left = self.wanted(batch.id);
        self.abandon(batch, Place::Live).await
    }

    /// A batch that the provider has no room for: its lines wait for another one, as
    /// large as it may be by then.
    async fn unpack(self: &Arc<Self>, mut batch: Batch) -> Result<(), StoreError> {
        let place = match self.learn_from_refusal(&batch).await? {
            true => Place::Live,
            false => self.after_return(batch.cohort, &self.scope_of(&batch), batch.endpoint),
        };
        batch.left = Some(Left::NoRoom);
        self.abandon(batch, place).await
    }

    async fn abandon(self: &Arc<Self>, mut batch: Batch, to: Place) -> Result<(), StoreError> {
        let lines = self.lines_of(batch.id).await?;
        self.relocate_all(&lines, Place::Line(batch.id), to).await?;
        batch.litter.extend(batch.input_file.take());
        self.advance(&mut batch, BatchEvent::Abandon, self.now())
            .await?;
        self.metrics.batches.ended(BatchEnd::Abandoned, None);
        self.signals.packer.notify_one();
        self.signals.janitor.notify_one();
        Ok(())
    }

    pub(super) fn is_wanted(&self, id: BatchId) -> bool {
        self.wanted(id).is_some()
    }

    /// Why its lines are wanted back, if they are.
    pub(super) fn wanted(&self, id: BatchId) -> Option<Left> {
        self.summary.lock().batches.get(&id)?.wanted
    }

    pub(super) fn put_off(&self, id: BatchId, pause: Duration) {
        let due = self.now() + pause;
        if let Some(tracked) = self.summary.lock().batches.get_mut(&id) {
            tracked.due = due;
        }
    }
}

fn is_about_its_lines(error: &ProviderError) -> bool {
    matches!(
        error,
        ProviderError::Refused {
            status: 400 | 413 | 422,
            ..
        }
    )
}

/// The provider holds as many tokens of ours as it allows (WIRE.md §1).
fn is_too_much(error: &ProviderError) -> bool {
    matches!(error, ProviderError::Refused { body, .. }
        if error_code(body).as_deref() == Some("token_limit_exceeded"))
}

/// Too many creates, and not a quota that is spent.
fn is_throttled(error: &ProviderError) -> bool {
    matches!(error, ProviderError::Refused { status: 429, body, .. }
        if !error_code(body).is_some_and(|code| retry::is_spent(&code)))
}
