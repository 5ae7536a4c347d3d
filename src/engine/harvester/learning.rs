//! What the end of a batch tells of its lane.

use std::time::Duration;

use crate::{
    engine::{
        Engine,
        scope::Account,
        summary::Watched,
        turnaround::{Happens, Takes},
    },
    model::{attempt::Lane, batch::Batch},
};

impl Engine {
    /// What the end of the batch tells of the lane: how many lines had been run by
    /// now, beyond those that were heard of before, and that the rest takes longer.
    /// What ended while nobody looked tells no time.
    pub(super) fn learn_from(&self, batch: &Batch, answered: u32) {
        let account = Account::from(batch);
        let tracked = self.summary.lock().batches.get(&batch.id).cloned();
        let Some(tracked) = tracked else {
            return;
        };
        let before = tracked.ended_before();
        let in_sight = tracked.watched != Watched::NotYet;
        let now = self.now();
        let age = batch.created.until(now);
        let done = f64::from(answered) / f64::from(batch.lines.max(1));
        let takes = Takes::Answer(Lane::Batch);
        let Some(asked) = batch.cancel_sent else {
            let through = done.max(before.unwrap_or(0.0));
            self.saw(
                &account,
                takes,
                age,
                before.map_or(0.0, |before| through - before),
            );
            self.cut_off(&account, takes, age, (1.0 - through).max(0.0));
            if in_sight {
                self.saw(&account, Takes::Batch, age, 1.0);
            }
            return;
        };
        let ran = batch.created.until(asked);
        self.cut_off(&account, Takes::Batch, ran, 1.0);
        if in_sight {
            self.saw(&account, Takes::Cancel, asked.until(now), 1.0);
        }
        match (tracked.heard, before) {
            // What a cancel lets end is learned apart: how long lines take is not to
            // be had of it.
            (Some(before), _) => {
                self.learn_from_cancel(&account, (ran, age), (before, done));
                self.cut_off(&account, takes, ran, (1.0 - before).max(0.0));
            }
            // Nobody knows which ended before it,
            (None, Some(_)) => {
                self.saw(&account, takes, age, done);
                self.cut_off(&account, takes, age, (1.0 - done).max(0.0));
            }
            // nor when.
            (None, None) => self.cut_off(&account, takes, ran, (1.0 - done).max(0.0)),
        }
    }

    /// It ran for so long, and nobody will see its end.
    pub(super) fn learn_from_giving_up(&self, batch: &Batch) {
        let account = Account::from(batch);
        let heard = {
            let summary = self.summary.lock();
            let tracked = summary.batches.get(&batch.id);
            tracked.and_then(|tracked| tracked.heard)
        };
        let now = self.now();
        let ran = batch.created.until(batch.cancel_sent.unwrap_or(now));
        let left = 1.0 - heard.unwrap_or(0.0);
        self.cut_off(&account, Takes::Answer(Lane::Batch), ran, left);
        self.cut_off(&account, Takes::Batch, ran, 1.0);
        if let Some(asked) = batch.cancel_sent {
            self.cut_off(&account, Takes::Cancel, asked.until(now), 1.0);
        }
    }

    /// What share of the lines ended between two ages, from the cancel to its effect,
    /// beside the share that would have without one.
    fn learn_from_cancel(
        &self,
        account: &Account,
        (asked, over): (Duration, Duration),
        (before, done): (f64, f64),
    ) {
        let curve = self.curve(
            &self.organizations.scope(account),
            Takes::Answer(Lane::Batch),
        );
        let expected = (1.0 - before) * curve.ended_between(asked, over);
        self.happened(account, Happens::Finished, done - before, expected);
    }
}
