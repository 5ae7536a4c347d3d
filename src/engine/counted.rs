//! What the engine tells the metrics, and what they ask of it at a scrape.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::Engine;
use crate::{
    metrics::{Ended, Metrics, Model},
    model::{
        batch::BatchState,
        durations::Counted,
        request::{Entry, Outcome, Request, Source, State, Usage},
        time::Timestamp,
    },
    ports::LedgerEntry,
};

/// What is counted of an outcome.
#[derive(Clone, Copy)]
pub(super) struct Brief {
    state: State,
    source: Source,
    finished: Timestamp,
    usage: Usage,
}

impl Brief {
    pub fn of(outcome: &Outcome) -> Brief {
        Brief {
            state: outcome.state,
            source: outcome.source,
            finished: outcome.finished,
            usage: outcome.usage,
        }
    }
}

impl Engine {
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// How many batches have not ended, by state.
    pub fn open_batches_by_state(&self) -> BTreeMap<BatchState, u64> {
        let summary = self.summary.lock();
        let mut states = BTreeMap::new();
        for tracked in summary.batches.values() {
            if tracked.batch.state.is_open() {
                *states.entry(tracked.batch.state).or_default() += 1;
            }
        }
        states
    }

    /// When the request was admitted that has waited for longest to be packed, or before.
    pub fn oldest_queued(&self) -> Option<Timestamp> {
        let summary = self.summary.lock();
        let waiting = summary.queue.values().filter(|waiting| waiting.lines > 0);
        waiting.map(|waiting| waiting.oldest).min()
    }

    /// Calls outside of batches that are on their way, by model.
    pub fn live_calls(&self) -> Vec<(Model, u64)> {
        let mut calls: BTreeMap<Model, u64> = BTreeMap::new();
        for scopes in [&self.scopes, &self.flex_scopes] {
            for (key, scope) in scopes.all() {
                *calls.entry(self.model_label(&key.model)).or_default() +=
                    u64::from(scope.in_flight());
            }
        }
        calls.into_iter().collect()
    }

    /// Tasks of the engine's runtime.
    pub fn tasks(&self) -> u64 {
        self.runtime.metrics().num_alive_tasks() as u64
    }

    /// How long the store's commits took.
    pub fn commits(&self) -> Counted {
        self.store.commits()
    }

    /// Bytes that the disk has for admissions. None where it cannot be asked.
    pub async fn disk_spare(&self) -> Option<u64> {
        self.store.spare_bytes().await.ok()
    }

    /// An ending that is durable, and the first of its request.
    pub(super) fn count_ending(&self, entry: &Entry, brief: &Brief, ledger: &LedgerEntry) {
        let late = brief.finished > entry.deadline;
        let (id, state) = (entry.key.id, brief.state.as_str());
        tracing::debug!(%id, state, lane = ?brief.source.lane(), late, "ended");
        self.metrics.requests.ended(Ended {
            state: brief.state,
            lane: brief.source.lane(),
            admitted: entry.key.id.born(),
            finished: brief.finished,
            deadline: entry.deadline,
            on_late: entry.cohort.on_late,
        });
        if brief.usage == Usage::default() {
            return;
        }
        let destination = entry.cohort.destination;
        let endpoint = {
            let summary = self.summary.lock();
            summary.destinations.get(&destination).map(|it| it.endpoint)
        };
        if let Some(endpoint) = endpoint {
            let model = self.model_label(&ledger.key.model);
            let gen_ai = &self.metrics.gen_ai;
            gen_ai.answered(endpoint, &model, &brief.usage);
        }
    }

    /// A call outside of batches is over, and what kind of error came of it, if one did.
    pub(super) fn count_call(
        &self,
        request: &Request,
        error: Option<&'static str>,
        took: Duration,
    ) {
        let model = self.model_label(&request.model);
        let gen_ai = &self.metrics.gen_ai;
        gen_ai.called(request.endpoint, &model, error, took);
    }

    fn model_label(&self, model: &str) -> Model {
        self.metrics.models.label(self.prices.name_of(model))
    }
}
