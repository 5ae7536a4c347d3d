//! Queue → batch. Lines are claimed in small commits and then sealed by one
//! small write; a batch that a crash left half filled is sealed as it is.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use crate::{
    model::{
        batch::{Batch, BatchEvent, BatchState},
        id::BatchId,
        request::{Cohort, Entry, Place},
        time::Timestamp,
    },
    policy::pack::{self, Decision, Load},
    ports::{Relocation, StoreError},
};

use super::{Engine, drive::Next};

/// Lines claimed in one commit: two writes each, within what sled takes without
/// growing (DESIGN.md §6).
const CLAIM: usize = 96;
/// The pause where a cohort is counted but its requests are not visible yet; it
/// doubles while they stay so, as they do where the store failed to take them.
const COMMIT_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_COMMIT_PAUSE: Duration = Duration::from_secs(10);

impl Engine {
    pub(super) async fn pack_turn(self: &Arc<Self>) -> Result<Next, StoreError> {
        let mut next = Next::OnSignal;
        for batch in self.tracked(|batch| batch.state == BatchState::Filling) {
            let sealed = self.seal(batch).await.map(|()| Next::OnSignal);
            next = next.sooner(self.or_soon("sealing", sealed));
        }
        if self.is_paused() {
            return Ok(next);
        }
        let flush = self.flushing.swap(false, Ordering::Relaxed);
        let cohorts: Vec<Cohort> = self.summary.lock().queue.keys().copied().collect();
        for cohort in cohorts {
            let packed = self.pack_cohort(cohort, flush).await;
            next = next.sooner(self.or_soon("packing", packed));
        }
        Ok(next)
    }

    /// Packs a cohort until nothing of it is due.
    async fn pack_cohort(
        self: &Arc<Self>,
        cohort: Cohort,
        flush: bool,
    ) -> Result<Next, StoreError> {
        loop {
            let now = self.now();
            let (decision, max_bytes) = {
                let mut summary = self.summary.lock();
                let Some(waiting) = summary.queue.get(&cohort).copied() else {
                    return Ok(Next::OnSignal);
                };
                let Some(destination) = summary.destinations.get(&cohort.destination) else {
                    tracing::error!(?cohort, "a cohort without a destination");
                    return Ok(Next::OnSignal);
                };
                let credential = destination.credential;
                let max_bytes = self.settings.packing.max_bytes;
                let Some(max_bytes) = summary.room(cohort.destination, max_bytes) else {
                    // The one on its way signals when it is settled.
                    return Ok(Next::OnSignal);
                };
                let create_at = summary.create_at(&cohort, credential);
                let packing = &self.settings.packing;
                let decision = pack::decide(&waiting, now, create_at, flush, packing);
                (decision, max_bytes)
            };
            match decision {
                Decision::Wait { until } => return Ok(Next::At(until)),
                Decision::Pack { reason } => {
                    if !self.fill(cohort, max_bytes, now, reason).await? {
                        return Ok(Next::At(now + self.commit_pause(cohort)));
                    }
                }
            }
        }
    }

    fn commit_pause(&self, cohort: Cohort) -> Duration {
        let mut summary = self.summary.lock();
        let Some(waiting) = summary.queue.get_mut(&cohort) else {
            return COMMIT_PAUSE;
        };
        waiting.unseen = (waiting.unseen + 1).min(16);
        (COMMIT_PAUSE * (1 << (waiting.unseen - 1))).min(LONGEST_COMMIT_PAUSE)
    }

    /// Fills and seals one batch. False where there was nothing to claim.
    async fn fill(
        self: &Arc<Self>,
        cohort: Cohort,
        max_bytes: u64,
        now: Timestamp,
        reason: String,
    ) -> Result<bool, StoreError> {
        if self.store.queued(cohort, 1).await?.is_empty() {
            return Ok(false);
        }
        let Some(batch) = self.new_batch(cohort, now, reason) else {
            return Ok(false);
        };
        self.store.put_batch(&batch).await?;
        self.summary.lock().track(batch.clone(), now);
        let mut load = Load::default();
        let limits = pack::Settings {
            max_bytes,
            ..self.settings.packing.clone()
        };
        loop {
            let entries = self.store.queued(cohort, CLAIM).await?;
            let fitting: Vec<Entry> = entries
                .iter()
                .take_while(|entry| load.take(entry, &limits))
                .copied()
                .collect();
            if fitting.is_empty() {
                self.refresh_oldest(cohort, entries.first());
                break;
            }
            let (from, to) = (Place::Queue(cohort), Place::Line(batch.id));
            self.relocate_all(&fitting, from, to).await?;
        }
        self.seal(batch).await?;
        Ok(true)
    }

    fn new_batch(&self, cohort: Cohort, now: Timestamp, reason: String) -> Option<Batch> {
        let mut summary = self.summary.lock();
        let destination = summary.destinations.get(&cohort.destination)?.clone();
        summary.creates(destination.credential).take(now);
        Some(Batch {
            id: BatchId::new(now, self.clock.random()),
            cohort,
            tenant: destination.tenant,
            credential: destination.credential,
            endpoint: destination.endpoint,
            model: destination.model,
            state: BatchState::Filling,
            created: now,
            reason,
            lines: 0,
            bytes: 0,
            inputs: 0,
            earliest_deadline: Timestamp::MAX,
            input_file: None,
            create_sent: None,
            provider_id: None,
            submitted: None,
            cancel_sent: None,
            provider_status: None,
            settled: None,
            answered: 0,
            litter: Vec::new(),
            tries: 0,
            last_error: None,
        })
    }

    /// Fixes a batch's lines; one without any is abandoned.
    async fn seal(self: &Arc<Self>, mut batch: Batch) -> Result<(), StoreError> {
        let lines = self.lines_of(batch.id).await?;
        batch.lines = lines.len() as u32;
        batch.bytes = lines.iter().map(|line| u64::from(line.line_bytes)).sum();
        batch.inputs = lines.iter().map(|line| u64::from(line.inputs)).sum();
        batch.earliest_deadline = lines
            .iter()
            .map(|line| line.deadline)
            .min()
            .unwrap_or(Timestamp::MAX);
        let event = if lines.is_empty() {
            BatchEvent::Abandon
        } else {
            BatchEvent::Seal
        };
        self.advance(&mut batch, event, self.now()).await?;
        self.signals.submitter.notify_one();
        self.signals.rescuer.notify_one();
        Ok(())
    }

    fn refresh_oldest(&self, cohort: Cohort, first: Option<&Entry>) {
        if let Some(waiting) = self.summary.lock().queue.get_mut(&cohort)
            && let Some(first) = first
        {
            waiting.oldest = first.key.id.born();
        }
    }

    /// Every line that is still in the batch, in the file's order.
    pub(super) async fn lines_of(&self, batch: BatchId) -> Result<Vec<Entry>, StoreError> {
        const PAGE: usize = 2048;
        let mut lines: Vec<Entry> = Vec::new();
        loop {
            let page = self
                .store
                .lines(batch, lines.last().map(|line| line.key.id), PAGE)
                .await?;
            if page.is_empty() {
                return Ok(lines);
            }
            lines.extend(page);
        }
    }

    /// Moves requests and counts those that were where they were thought to be.
    pub(super) async fn relocate_all(
        &self,
        entries: &[Entry],
        from: Place,
        to: Place,
    ) -> Result<usize, StoreError> {
        let mut moved = 0;
        for chunk in entries.chunks(CLAIM) {
            let moves = chunk
                .iter()
                .map(|&entry| Relocation { entry, from, to })
                .collect();
            let results = self.store.relocate(moves).await;
            let mut summary = self.summary.lock();
            let mut all = Ok(());
            for (entry, result) in chunk.iter().zip(results) {
                match result {
                    Ok(true) => {
                        summary.shift(entry, &from, &to);
                        if to == Place::Live {
                            self.backlog.arrived(entry);
                        }
                        moved += 1;
                    }
                    Ok(false) => {}
                    Err(error) => all = Err(error),
                }
            }
            if to == Place::Live {
                self.signals.live.notify_one();
            }
            all?;
        }
        Ok(moved)
    }

    /// Moves a batch's state machine: durable first, then known here.
    pub(super) async fn advance(
        &self,
        batch: &mut Batch,
        event: BatchEvent,
        due: Timestamp,
    ) -> Result<(), StoreError> {
        self.transition(batch, event)?;
        self.save(batch, due).await
    }

    pub(super) fn transition(
        &self,
        batch: &mut Batch,
        event: BatchEvent,
    ) -> Result<(), StoreError> {
        if let Err(illegal) = batch.apply(event) {
            return Err(StoreError::Corrupt(format!(
                "batch {}: {illegal}",
                batch.id
            )));
        }
        tracing::info!(batch = %batch.id, state = ?batch.state, lines = batch.lines, "batch");
        Ok(())
    }

    pub(super) async fn save(&self, batch: &Batch, due: Timestamp) -> Result<(), StoreError> {
        self.store.put_batch(batch).await?;
        let mut summary = self.summary.lock();
        if batch.state.is_open() || !batch.litter.is_empty() {
            summary.track(batch.clone(), due);
        } else {
            summary.batches.remove(&batch.id);
        }
        Ok(())
    }

    pub(super) fn tracked(&self, wanted: impl Fn(&Batch) -> bool) -> Vec<Batch> {
        let summary = self.summary.lock();
        let batches = summary.batches.values().map(|tracked| &tracked.batch);
        batches.filter(|batch| wanted(batch)).cloned().collect()
    }
}
