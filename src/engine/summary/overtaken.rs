//! Lines that run live although their batch runs on, and may yet go back into it.

use std::collections::HashMap;

use crate::model::{
    id::{BatchId, RequestKey},
    request::{Entry, Place},
};

use super::Summary;

#[derive(Default)]
pub(super) struct Overtaken {
    /// The batch that each was taken out of.
    lines: HashMap<RequestKey, BatchId>,
    /// How many of each batch; none is kept without any.
    batches: HashMap<BatchId, usize>,
}

impl Overtaken {
    fn insert(&mut self, key: RequestKey, batch: BatchId) {
        self.remove(&key);
        self.lines.insert(key, batch);
        *self.batches.entry(batch).or_default() += 1;
    }

    pub fn remove(&mut self, key: &RequestKey) -> Option<BatchId> {
        let batch = self.lines.remove(key)?;
        if let Some(count) = self.batches.get_mut(&batch) {
            *count -= 1;
            if *count == 0 {
                self.batches.remove(&batch);
            }
        }
        Some(batch)
    }

    /// A line that ended while it was overtaken is known only by its batch's end.
    fn keep(&mut self, is_open: impl Fn(&BatchId) -> bool) {
        if !self.batches.keys().all(&is_open) {
            self.lines.retain(|_, batch| is_open(batch));
            self.batches.retain(|batch, _| is_open(batch));
        }
    }
}

impl Summary {
    /// Lines go live although their batch runs on.
    pub fn overtake(&mut self, batch: BatchId, lines: &[Entry]) {
        let batches = &self.batches;
        self.overtaken.keep(|id| batches.is_open(id));
        for line in lines {
            self.overtaken.insert(line.key, batch);
        }
    }

    /// One that was found live when we started, and was a line of this batch before.
    pub fn was_overtaken(&mut self, batch: BatchId, key: RequestKey) {
        if self.batches.is_open(&batch) {
            self.overtaken.insert(key, batch);
        }
    }

    /// It does not run live: it was answered before it could.
    pub fn not_overtaken(&mut self, key: &RequestKey) {
        self.overtaken.remove(key);
    }

    /// Whether a line that went live although this batch runs on has no answer yet:
    /// it may come back.
    pub fn is_awaited(&self, batch: BatchId) -> bool {
        self.overtaken.batches.contains_key(&batch)
    }

    /// The batch that a request which runs live was taken out of, while that runs.
    pub fn taken_out_of(&self, key: &RequestKey) -> Option<BatchId> {
        let batch = self.overtaken.lines.get(key).copied();
        batch.filter(|id| self.batches.is_open(id))
    }

    /// Where a request goes that could not run live: to the batch that it was taken
    /// out of, while that runs, so that it never stands in two.
    pub fn back_from_live(&mut self, entry: &Entry) -> Place {
        let running = self.taken_out_of(&entry.key);
        self.overtaken.remove(&entry.key);
        running.map_or(Place::Queue(entry.cohort), Place::Line)
    }
}
