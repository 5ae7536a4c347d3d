//! What somebody else says of a batch. It is never believed, only looked after.

use std::time::Duration;

use parking_lot::Mutex;

use super::Engine;
use crate::{
    model::{batch::BatchState, time::Timestamp},
    policy::limits::Rate,
};

/// A night's batches can end together; beyond that, polls find out as ever.
const BURST: u32 = 500;
const EVERY: Duration = Duration::from_millis(20);

/// How many hints have been followed of late.
pub(super) struct Hints(Mutex<Rate>);

impl Default for Hints {
    fn default() -> Self {
        Hints(Mutex::new(Rate::new(EVERY, BURST)))
    }
}

impl Hints {
    fn take(&self, now: Timestamp) -> bool {
        self.0.lock().take(now)
    }
}

impl Engine {
    /// Somebody says that the provider's batch `id` has ended: it is looked at next,
    /// within the budget of polls. False where no batch is watched by that name, or
    /// there were too many hints.
    pub fn hear_of_batch(&self, id: &str) -> bool {
        let now = self.now();
        let mut summary = self.summary.lock();
        let mut watched = summary.batches.values().filter(|tracked| {
            let state = tracked.batch.state;
            matches!(state, BatchState::Submitted | BatchState::Cancelling)
        });
        let named = watched.find(|it| it.batch.provider_id.as_deref() == Some(id));
        let named = named.map(|tracked| tracked.batch.id);
        let Some(tracked) = named.and_then(|named| summary.batches.get_mut(&named)) else {
            return false;
        };
        if !self.hints.take(now) {
            return false;
        }
        tracked.due = tracked.due.min(now);
        // A look that is under way may have come too early.
        tracked.hinted = true;
        drop(summary);
        self.signals.watcher.notify_one();
        true
    }
}
