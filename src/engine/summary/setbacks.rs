//! Cohorts whose batches came to nothing, and how often: what the next batch waits
//! for, and how patient it is left for.

use std::{collections::HashMap, time::Duration};

use crate::model::{batch::Batch, id::BatchId, request::Cohort, time::Timestamp};

use super::Summary;

#[derive(Default)]
pub(super) struct Setbacks {
    /// Whose lines came back from their batch without an answer.
    returned: HashMap<Cohort, Returned>,
    /// How many of its batches were left for a fresh one.
    left: HashMap<Cohort, u32>,
    /// Batches that were made of the halves of one that failed, and of their halves.
    parts: HashMap<BatchId, u32>,
}

#[derive(Clone, Copy, Default)]
struct Returned {
    until: Timestamp,
    times: u32,
}

/// A cohort that has been quiet for so long begins anew.
const FORGIVEN_AFTER: Duration = Duration::from_secs(600);
/// Longer than any batch takes to fail.
const HALVED_WITHIN: Duration = Duration::from_secs(48 * 3600);

impl Setbacks {
    /// Before then no batch of the cohort is created.
    pub fn held_back(&self, cohort: &Cohort) -> Timestamp {
        let returned = self.returned.get(cohort);
        returned.map_or(Timestamp::ZERO, |returned| returned.until)
    }
}

impl Summary {
    /// Lines of the cohort came back: the next batch of it waits for `pause`, which
    /// is told how often this has happened in a row.
    pub fn hold_back(
        &mut self,
        cohort: Cohort,
        now: Timestamp,
        pause: impl FnOnce(u32) -> Duration,
    ) {
        let returned = &mut self.setbacks.returned;
        returned.retain(|_, returned| returned.until + FORGIVEN_AFTER > now);
        let returned = returned.entry(cohort).or_default();
        returned.times += 1;
        returned.until = now + pause(returned.times);
    }

    /// A batch of the cohort came back whole.
    pub fn forgive(&mut self, cohort: &Cohort) {
        self.setbacks.returned.remove(cohort);
    }

    /// One more of its cohort's batches is left for a fresh one; cohorts whose time
    /// is over are forgotten.
    pub fn leave(&mut self, batch: &Batch, now: Timestamp) {
        if let Some(tracked) = self.batches.get_mut(&batch.id) {
            tracked.afresh = true;
        }
        let left = &mut self.setbacks.left;
        left.retain(|cohort, _| cohort.bucket.start + FORGIVEN_AFTER > now);
        *left.entry(batch.cohort).or_default() += 1;
    }

    /// Counts two more parts of the `whole`, unless they would be more than `most`.
    /// Old ones are forgotten.
    pub fn may_halve(&mut self, whole: BatchId, most: u32, now: Timestamp) -> bool {
        let parts = &mut self.setbacks.parts;
        parts.retain(|whole, _| whole.born() + HALVED_WITHIN > now);
        let made = parts.get(&whole).copied().unwrap_or(0);
        if made + 2 > most {
            return false;
        }
        parts.insert(whole, made + 2);
        true
    }

    /// A part that was found when we started.
    pub fn count_part(&mut self, whole: BatchId) {
        *self.setbacks.parts.entry(whole).or_default() += 1;
    }

    /// How many batches of the cohort were left for a fresh one.
    pub fn left_before(&self, cohort: &Cohort) -> u32 {
        self.setbacks.left.get(cohort).copied().unwrap_or(0)
    }
}
