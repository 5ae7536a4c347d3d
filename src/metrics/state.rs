//! What is so at the moment of a scrape.

use std::time::Duration;

use prometheus_client::{
    metrics::{
        counter::Counter,
        family::Family,
        gauge::{ConstGauge, Gauge},
        info::Info,
    },
    registry::{Registry, Unit},
};

use super::{Model, timing::Told};
use crate::model::durations::Counted;

/// What costs little to know.
#[derive(Debug)]
pub struct State {
    /// Deferred requests without an answer, by where they are.
    pub places: [(&'static str, u64); 3],
    /// Since the admission of the one that has waited for longest to be packed.
    pub oldest_queued: Duration,
    /// Batches that have not ended, by state.
    pub batches: [(&'static str, u64); 6],
    pub paused: bool,
    pub rescue_budgets_spent: u64,
    pub refused_keys: u64,
    /// Calls outside of batches that are on their way, by model.
    pub live_calls: Vec<(Model, u64)>,
    /// Webhooks that wait and dead letters that are kept.
    pub webhooks: [(&'static str, u64); 2],
    /// Receivers of webhooks that are called, waited for, or failed last.
    pub receivers: u64,
    /// Connections that wait, by what for.
    pub waiting: [(&'static str, u64); 3],
    /// Requests whose callers hold, or are gone without their answer.
    pub held: u64,
    /// Tasks of the engine's runtime.
    pub tasks: u64,
    pub disk_bytes: u64,
    /// None where the disk cannot be asked.
    pub spare_bytes: Option<u64>,
    pub commits: Counted,
    /// By what became of them.
    pub spans: [(&'static str, u64); 3],
    pub uptime: Duration,
    pub version: &'static str,
}

impl State {
    pub fn register(self, registry: &mut Registry) {
        let mut gauge = |name: &str, help: &str, value: u64| {
            registry.register(name, help, ConstGauge::new(value));
        };
        gauge(
            "offpeak_paused",
            "1 while packing and submitting are paused",
            self.paused.into(),
        );
        gauge(
            "offpeak_rescue_budgets_spent",
            "Tenants whose rescues do not fit into their budget any more",
            self.rescue_budgets_spent,
        );
        gauge(
            "offpeak_refused_keys",
            "Keys that the provider refuses with 401, and for which work waits",
            self.refused_keys,
        );
        gauge(
            "offpeak_webhook_receivers",
            "Receivers of webhooks that are called, waited for, or failed last",
            self.receivers,
        );
        gauge(
            "offpeak_held_requests",
            "Requests whose callers hold, and those whose callers are gone without their answer",
            self.held,
        );
        gauge(
            "offpeak_engine_tasks",
            "Tasks that the engine's runtime has",
            self.tasks,
        );
        registry.register(
            "offpeak_open_requests",
            "Deferred requests without an answer, by where they are",
            labelled("place", self.places),
        );
        registry.register(
            "offpeak_open_batches",
            "Batches that have not ended, by state",
            labelled("state", self.batches),
        );
        registry.register(
            "offpeak_waiting_connections",
            "Callers' connections that wait for an answer, by what for",
            labelled("for", self.waiting),
        );
        let spans = Family::<Labels<&'static str>, Counter>::default();
        for (outcome, count) in self.spans {
            let counter = spans.get_or_create(&[("outcome", outcome)]);
            counter.inc_by(count);
        }
        registry.register(
            "offpeak_trace_spans",
            "Spans for the collector of traces, by what became of them",
            spans,
        );
        registry.register(
            "offpeak_webhooks",
            "Webhooks that are pending, and dead letters that are kept",
            labelled("state", self.webhooks),
        );
        registry.register(
            "offpeak_live_calls_in_flight",
            "Calls outside of batches that are on their way, by model",
            labelled("model", self.live_calls),
        );
        registry.register_with_unit(
            "offpeak_oldest_queued_age",
            "Since the admission of the request that has waited for longest to be packed; 0 \
             where none waits",
            Unit::Seconds,
            seconds(self.oldest_queued),
        );
        registry.register_with_unit(
            "offpeak_uptime",
            "Since this process began to serve",
            Unit::Seconds,
            seconds(self.uptime),
        );
        registry.register_with_unit(
            "offpeak_disk",
            "Bytes that the store takes on disk, as last measured",
            Unit::Bytes,
            ConstGauge::new(self.disk_bytes),
        );
        if let Some(spare) = self.spare_bytes {
            registry.register_with_unit(
                "offpeak_disk_spare",
                "Bytes that the data directory's disk has for admissions, beyond \
                 store.reserve_bytes",
                Unit::Bytes,
                ConstGauge::new(spare),
            );
        }
        registry.register_with_unit(
            "offpeak_store_commit_duration",
            "From a change being asked of the store until it was on disk",
            Unit::Seconds,
            Told(self.commits),
        );
        registry.register(
            "offpeak_build",
            "Always 1; the version is in the label",
            Info::new([("version", self.version)]),
        );
    }
}

fn seconds(duration: Duration) -> ConstGauge<f64> {
    ConstGauge::new(duration.as_secs_f64())
}

type Labels<V> = [(&'static str, V); 1];

fn labelled<V>(
    name: &'static str,
    values: impl IntoIterator<Item = (V, u64)>,
) -> Family<Labels<V>, Gauge>
where
    Labels<V>: Clone + std::hash::Hash + Eq,
{
    let family = Family::<Labels<V>, Gauge>::default();
    for (label, value) in values {
        let gauge = family.get_or_create(&[(name, label)]).clone();
        gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
    }
    family
}
