//! What the end of a batch tells of its lane.

use std::time::Duration;

use crate::{
    engine::{
        Engine,
        scope::ScopeKey,
        turnaround::{Happens, Takes},
    },
    model::{attempt::Lane, batch::Batch},
};

impl Engine {
    /// What the end of the batch tells of the lane: how many lines had been run by
    /// now, beyond those that were heard of before, and that the rest takes longer.
    pub(super) fn learn_from(&self, batch: &Batch, answered: u32) {
        let scope = ScopeKey::from(batch);
        let heard = {
            let summary = self.summary.lock();
            let tracked = summary.batches.get(&batch.id);
            tracked.and_then(|tracked| tracked.heard)
        };
        let now = self.now();
        let age = batch.created.until(now);
        let done = f64::from(answered) / f64::from(batch.lines.max(1));
        let takes = Takes::Answer(Lane::Batch);
        let Some(asked) = batch.cancel_sent else {
            let before = heard.unwrap_or(0.0);
            self.saw(&scope, takes, age, (done - before).max(0.0));
            self.cut_off(&scope, takes, age, (1.0 - done.max(before)).max(0.0));
            self.saw(&scope, Takes::Batch, age, 1.0);
            return;
        };
        let ran = batch.created.until(asked);
        self.cut_off(&scope, Takes::Batch, ran, 1.0);
        self.saw(&scope, Takes::Cancel, asked.until(now), 1.0);
        match heard {
            // What a cancel lets end is learned apart: how long lines take is not to
            // be had of it.
            Some(before) => {
                self.learn_from_cancel(&scope, (ran, age), (before, done));
                self.cut_off(&scope, takes, ran, (1.0 - before).max(0.0));
            }
            // Nobody knows which ended before it.
            None => {
                self.saw(&scope, takes, age, done);
                self.cut_off(&scope, takes, age, (1.0 - done).max(0.0));
            }
        }
    }

    /// What share of the lines ended between two ages, from the cancel to its effect,
    /// beside the share that would have without one.
    fn learn_from_cancel(
        &self,
        scope: &ScopeKey,
        (asked, over): (Duration, Duration),
        (before, done): (f64, f64),
    ) {
        let curve = self.curve(scope, Takes::Answer(Lane::Batch));
        let runs = |age: Duration| curve.survival(age.as_secs_f64());
        let would_end = 1.0 - runs(over) / runs(asked).max(1e-9);
        let expected = (1.0 - before) * would_end;
        self.happened(scope, Happens::Finished, done - before, expected);
    }
}
