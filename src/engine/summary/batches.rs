//! The batches that we still do something about, and what is only known of them
//! while we run.

use std::time::Duration;

use crate::{
    engine::turnaround::ScopeKey,
    model::{
        batch::{Batch, BatchState},
        id::BatchId,
        request::{Cohort, OnLate},
        time::Timestamp,
    },
    policy::plan::Stay,
};

use super::Summary;

/// A batch and what is only known while we run.
#[derive(Clone)]
pub(in crate::engine) struct Tracked {
    pub batch: Batch,
    /// When its next step is due.
    pub due: Timestamp,
    /// The rescuer wants its lines back.
    pub wanted: bool,
    /// The share of its lines that it was heard to have finished.
    pub heard: f64,
    /// When it is to be left, as last thought out.
    pub stay: Option<Stayed>,
    /// The provider holds its tokens no more.
    pub released: bool,
    /// All that the rescuer wanted back has gone already.
    pub emptied: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::engine) struct Stayed {
    pub stay: Stay,
    /// The latest instant at which its lines must begin to run live.
    pub start: Timestamp,
    pub thought: Timestamp,
}

impl Tracked {
    fn new(batch: Batch, due: Timestamp) -> Tracked {
        Tracked {
            batch,
            due,
            wanted: false,
            heard: 0.0,
            stay: None,
            released: false,
            emptied: false,
        }
    }
}

impl Summary {
    /// Writes a batch's new version, and when its next step is due.
    pub fn track(&mut self, batch: Batch, due: Timestamp) {
        match self.batches.get_mut(&batch.id) {
            Some(tracked) => {
                tracked.batch = batch;
                tracked.due = due;
            }
            None => {
                self.batches.insert(batch.id, Tracked::new(batch, due));
            }
        }
    }

    /// Open batches that a request of this cohort may be a line of.
    pub fn batches_of(&self, cohort: &Cohort) -> Vec<BatchId> {
        self.batches
            .values()
            .filter(|tracked| tracked.batch.cohort == *cohort && tracked.batch.state.is_open())
            .map(|tracked| tracked.batch.id)
            .collect()
    }

    /// The scope's batches that run, by age, with the share that has not ended.
    pub fn running(&self, scope: &ScopeKey, now: Timestamp) -> Vec<(Duration, f64)> {
        let batches = self.batches.values().filter(|tracked| {
            let batch = &tracked.batch;
            batch.state == BatchState::Submitted
                && batch.credential == scope.credential
                && batch.model == scope.model
        });
        let ages = batches.map(|tracked| {
            let age = tracked.batch.created.until(now);
            (age, 1.0 - tracked.heard)
        });
        ages.collect()
    }

    /// Batches whose lines are wanted back to run live, and have not come yet.
    pub fn wanted_back(&self) -> Vec<Batch> {
        let batches = self.batches.values();
        let wanted = batches.filter(|tracked| {
            let batch = &tracked.batch;
            tracked.wanted
                && !tracked.emptied
                && batch.state.is_open()
                && batch.cohort.on_late == OnLate::Rescue
        });
        wanted.map(|tracked| tracked.batch.clone()).collect()
    }
}
