//! Queue → batches: which cohorts are due, and in whose turn.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use crate::{
    model::{
        batch::{Batch, BatchEvent, BatchState},
        id::BatchId,
        request::{Cohort, Entry, OnLate, Place},
        time::Timestamp,
    },
    policy::pack::{self, Bounds, Decision, Pressure, Room, Round, Urgency, Waiting},
    ports::{Relocation, StoreError},
};

use super::{Engine, drive::Next, fill::Filled, scope::Owner, summary::Summary};

/// Lines claimed in one commit: two writes each, within what sled takes without
/// growing (DESIGN.md §6).
pub(super) const CLAIM: usize = 96;
/// The pause where a cohort is counted but its requests are not visible yet; it
/// doubles while they stay so, as they do where the store failed to take them.
const COMMIT_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_COMMIT_PAUSE: Duration = Duration::from_secs(10);

/// What came of a cohort's turn.
enum Turn {
    Packed,
    Waits(Next),
    /// There is no room for its tokens; what is on its way signals when it ends.
    Blocked,
}

/// The most urgent first, then whichever.
type Item = (Urgency, Cohort);

fn item(cohort: &Cohort, waiting: &Waiting, now: Timestamp) -> Item {
    (waiting.urgency(cohort.bucket.start, now), *cohort)
}

impl Engine {
    pub(super) async fn pack_turn(self: &Arc<Self>) -> Result<Next, StoreError> {
        let mut next = Next::OnSignal;
        let is_left = |batch: &Batch| {
            batch.state == BatchState::Filling && !self.inflight.batches.contains(&batch.id)
        };
        for batch in self.tracked(is_left) {
            let sealed = self.seal(batch).await.map(|()| Next::OnSignal);
            next = next.sooner(self.or_soon("sealing", sealed));
        }
        if self.is_paused() {
            return Ok(next);
        }
        let flush = self.flushing.swap(false, Ordering::Relaxed);
        let (mut round, arrivals) = self.waiting();
        let pressures = self.pressures();
        let mut blocked = false;
        loop {
            let turn = self.summary.lock().limits.packing.next(&mut round);
            let Some((tenant, (_, cohort))) = turn else {
                return Ok(next);
            };
            let packed = self.pack_cohort(cohort, flush, &pressures).await;
            let waits = match packed {
                Ok(Turn::Packed) => {
                    let mut summary = self.summary.lock();
                    let waiting = summary.queue.get(&cohort);
                    let rest = waiting.map(|waiting| item(&cohort, waiting, self.now()));
                    summary.limits.packing.served(&mut round, tenant, rest);
                    let unchanged = summary.arrivals == arrivals && !blocked;
                    if unchanged && next.is_after(self.now()) {
                        continue;
                    }
                    // Somebody else may be due, or have room: whose turn it is has
                    // to be seen anew.
                    drop(summary);
                    if flush {
                        self.flush();
                    }
                    return Ok(Next::At(self.now()));
                }
                Ok(Turn::Waits(next)) => Ok(next),
                Ok(Turn::Blocked) => {
                    blocked = true;
                    continue;
                }
                Err(error) => Err(error),
            };
            next = next.sooner(self.or_soon("packing", waits));
        }
    }

    /// What waits in all queues, and what tells whether more has come since.
    fn waiting(&self) -> (Round<Item>, u64) {
        let now = self.now();
        let mut summary = self.summary.lock();
        let Summary {
            queue,
            destinations,
            limits,
            arrivals,
            ..
        } = &mut *summary;
        let items = queue.iter().filter_map(|(cohort, waiting)| {
            let Some(destination) = destinations.get(&cohort.destination) else {
                tracing::error!(?cohort, "a cohort without a destination");
                return None;
            };
            // What it was to pay for waits.
            let refused = self.is_refused(destination.credential);
            (!refused).then(|| (destination.tenant, item(cohort, waiting, now)))
        });
        (limits.packing.round(items), *arrivals)
    }

    fn pressures(&self) -> HashMap<Owner, Pressure> {
        let now = self.now();
        self.summary.lock().pressures(now, &self.settings.watch)
    }

    /// Packs one batch of a cohort, where one is due.
    async fn pack_cohort(
        self: &Arc<Self>,
        cohort: Cohort,
        flush: bool,
        pressures: &HashMap<Owner, Pressure>,
    ) -> Result<Turn, StoreError> {
        let now = self.now();
        let (to, decision, room) = {
            let mut summary = self.summary.lock();
            let (Some(waiting), Some(to)) = (
                summary.queue.get(&cohort).copied(),
                summary.destinations.get(&cohort.destination).cloned(),
            ) else {
                return Ok(Turn::Waits(Next::OnSignal));
            };
            let owner = self.organizations.owner(to.credential);
            let bounds = Bounds {
                create_at: summary.create_at(&cohort, to.credential),
                pressure: pressures.get(&owner).copied().unwrap_or_default(),
                patience: self.patience(&cohort, waiting.oldest),
                flush,
            };
            let decision = pack::decide(&waiting, now, &bounds, &self.settings.packing);
            let room = match &decision {
                Decision::Pack { .. } => summary.room(&cohort, &to, now),
                Decision::Wait { .. } => Room::Open,
            };
            (to, decision, room)
        };
        let reason = match decision {
            Decision::Wait { until } => return Ok(Turn::Waits(Next::At(until))),
            Decision::Pack { reason } => reason,
        };
        let tokens = match room {
            Room::Open => None,
            Room::Tokens(tokens) => Some(tokens),
            Room::Closed(Some(until)) => return Ok(Turn::Waits(Next::At(until))),
            Room::Closed(None) => return Ok(Turn::Blocked),
        };
        match self.fill(cohort, &to, tokens, reason).await? {
            Filled::Sealed => Ok(Turn::Packed),
            Filled::Nothing => Ok(Turn::Waits(Next::At(now + self.commit_pause(cohort)))),
            Filled::TooLarge => {
                self.summary.lock().keep_room(cohort, &to);
                Ok(Turn::Blocked)
            }
        }
    }

    /// How long a cohort may gather at most: as long as its deadlines lie apart,
    /// which is a share of the slack, and never for most of what is left before its
    /// rescue.
    fn patience(&self, cohort: &Cohort, since: Timestamp) -> Duration {
        let width = cohort.bucket.start.until(cohort.bucket.end());
        match cohort.on_late {
            OnLate::Wait => width,
            OnLate::Rescue | OnLate::Fail => {
                let due = cohort.bucket.start - self.settings.rescue.reserve;
                width.min(since.until(due) / 4)
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
                    // It has its answer.
                    Ok(false) => summary.not_overtaken(&entry.key),
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
            summary.forget_batch(&batch.id);
        }
        Ok(())
    }

    pub(super) fn tracked(&self, wanted: impl Fn(&Batch) -> bool) -> Vec<Batch> {
        let summary = self.summary.lock();
        let batches = summary.batches.values().map(|tracked| &tracked.batch);
        batches.filter(|batch| wanted(batch)).cloned().collect()
    }
}
