//! What somebody else says of a batch. It is never believed, only looked after.

use std::{collections::VecDeque, time::Duration};

use parking_lot::Mutex;

use super::Engine;
use crate::{
    model::{batch::BatchState, time::Timestamp},
    policy::limits::Rate,
};

/// A night's batches can end together; beyond that, polls find out as ever.
const BURST: u32 = 500;
const EVERY: Duration = Duration::from_millis(20);

/// Of batches that are not known yet; who remembers more keeps what others send.
const EARLY: usize = 64;
const LONGEST_NAME: usize = 256;

pub(super) struct Hints {
    /// How many have been followed of late.
    followed: Mutex<Rate>,
    /// Of what was unknown while a create was out: its batch may have ended before its
    /// answer was here.
    early: Mutex<VecDeque<String>>,
}

impl Default for Hints {
    fn default() -> Self {
        Hints {
            followed: Mutex::new(Rate::new(EVERY, BURST)),
            early: Mutex::default(),
        }
    }
}

impl Hints {
    fn take(&self, now: Timestamp) -> bool {
        self.followed.lock().take(now)
    }

    fn remember(&self, id: &str) {
        if id.len() > LONGEST_NAME {
            return;
        }
        let mut early = self.early.lock();
        if early.len() == EARLY {
            early.pop_front();
        }
        early.push_back(id.to_owned());
    }

    fn had_early(&self, id: &str) -> bool {
        let mut early = self.early.lock();
        let before = early.len();
        early.retain(|named| named != id);
        early.len() < before
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
            let mut all = summary.batches.values();
            if all.any(|it| it.batch.state == BatchState::Uploaded) {
                self.hints.remember(id);
            }
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

    /// The batch is watched from now on: at once, where its end was told already.
    pub(super) fn hear_what_came_early(&self, id: &str) {
        if self.hints.had_early(id) {
            self.hear_of_batch(id);
        }
    }
}
