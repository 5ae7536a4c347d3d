//! Lines that run live although their batch runs on, and may yet go back into it.

use std::collections::HashMap;

use crate::model::{
    id::{BatchId, RequestKey},
    request::{Entry, Place},
};

use super::Summary;

/// The batch that each was taken out of.
pub(super) type Overtaken = HashMap<RequestKey, BatchId>;

impl Summary {
    /// Lines go live although their batch runs on.
    pub fn overtake(&mut self, batch: BatchId, lines: &[Entry]) {
        let lines = lines.iter().map(|line| (line.key, batch));
        self.overtaken.extend(lines);
    }

    /// Whether a line that went live although this batch runs on has no answer yet:
    /// it may come back.
    pub fn is_awaited(&self, batch: BatchId) -> bool {
        self.overtaken.values().any(|from| *from == batch)
    }

    /// Where a request goes that could not run live: to the batch that it was taken
    /// out of, while that runs, so that it never stands in two.
    pub fn back_from_live(&mut self, entry: &Entry) -> Place {
        let batch = self.overtaken.remove(&entry.key);
        let running = batch.filter(|id| {
            let tracked = self.batches.get(id);
            tracked.is_some_and(|tracked| tracked.batch.state.is_open())
        });
        running.map_or(Place::Queue(entry.cohort), Place::Line)
    }
}
