//! What a supervisor reads: `/healthz`, `/readyz`, `/metrics`. No credentials,
//! and nothing here names a tenant.

use std::{collections::BTreeMap, fmt::Write, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use http::{StatusCode, header};
use tokio::time::{Instant, timeout};

use crate::{
    edge::Edge,
    engine::{Counts, Engine},
    model::batch::BatchState,
};

pub fn routes() -> Router<Arc<Edge>> {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
}

pub fn metrics() -> Router<Arc<Edge>> {
    let started = Instant::now();
    let told = async move |State(edge): State<Arc<Edge>>| tell(&edge.engine, started);
    Router::new().route("/metrics", get(told))
}

/// A store that takes longer to change nothing is not answering.
const PATIENCE: Duration = Duration::from_secs(2);

/// Ready to take calls with a deadline. The others need only the process.
async fn ready(State(edge): State<Arc<Edge>>) -> Response {
    if edge.stopping.is_cancelled() {
        return not_ready("stopping\n");
    }
    match timeout(PATIENCE, edge.engine.check_store()).await {
        Ok(Ok(())) => "ready\n".into_response(),
        Ok(Err(error)) => {
            tracing::error!(%error, "not ready");
            not_ready("the store fails\n")
        }
        Err(_) => not_ready("the store does not answer\n"),
    }
}

fn not_ready(why: &'static str) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, why).into_response()
}

fn tell(engine: &Engine, started: Instant) -> Response {
    let mut states = BTreeMap::new();
    for batch in engine.open_batches() {
        *states.entry(batch.state).or_default() += 1;
    }
    let facts = Facts {
        counts: engine.counts(),
        states,
        paused: engine.is_paused(),
        rescue_budgets_spent: engine.rescue_budgets_spent() as u64,
        refused_keys: engine.refusals_of(None).len() as u64,
        disk_bytes: engine.disk_bytes(),
        uptime: started.elapsed(),
        version: env!("CARGO_PKG_VERSION"),
    };
    // Prometheus' text exposition format, version 0.0.4.
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
    (kind, facts.to_text()).into_response()
}

/// What costs nothing to know.
struct Facts {
    counts: Counts,
    states: BTreeMap<BatchState, u64>,
    paused: bool,
    rescue_budgets_spent: u64,
    refused_keys: u64,
    disk_bytes: u64,
    uptime: Duration,
    version: &'static str,
}

impl Facts {
    fn to_text(&self) -> String {
        const OPEN: [(BatchState, &str); 6] = [
            (BatchState::Filling, "filling"),
            (BatchState::Sealed, "sealed"),
            (BatchState::Uploaded, "uploaded"),
            (BatchState::Lost, "lost"),
            (BatchState::Submitted, "submitted"),
            (BatchState::Cancelling, "cancelling"),
        ];
        let places = [
            ("queue", self.counts.queued),
            ("batch", self.counts.in_batches),
            ("live", self.counts.live),
        ];
        let places = places.map(|(place, count)| (format!("{{place=\"{place}\"}}"), count));
        let batches = OPEN.map(|(state, name)| {
            let count = self.states.get(&state).copied().unwrap_or_default();
            (format!("{{state=\"{name}\"}}"), count)
        });
        let version = format!("{{version=\"{}\"}}", self.version);

        let mut text = String::new();
        let mut gauge = |name: &str, help: &str, samples: &[(String, u64)]| {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
            for (labels, value) in samples {
                let _ = writeln!(text, "{name}{labels} {value}");
            }
        };
        let one = |value: u64| [(String::new(), value)];
        gauge(
            "offpeak_open_requests",
            "Deferred requests without an answer, by where they are.",
            &places,
        );
        gauge(
            "offpeak_open_batches",
            "Batches that have not ended, by state.",
            &batches,
        );
        gauge(
            "offpeak_paused",
            "1 while packing and submitting are paused.",
            &one(self.paused.into()),
        );
        gauge(
            "offpeak_rescue_budgets_spent",
            "Tenants whose rescues do not fit into their budget any more.",
            &one(self.rescue_budgets_spent),
        );
        gauge(
            "offpeak_refused_keys",
            "Keys that the provider refuses with 401, and for which work waits.",
            &one(self.refused_keys),
        );
        gauge(
            "offpeak_disk_bytes",
            "Bytes that the store takes on disk, as last measured.",
            &one(self.disk_bytes),
        );
        gauge(
            "offpeak_uptime_seconds",
            "Seconds since this process began to serve.",
            &one(self.uptime.as_secs()),
        );
        gauge(
            "offpeak_build_info",
            "Always 1; the version is in the label.",
            &[(version, 1)],
        );
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sample_is_described_and_every_place_counted() {
        let facts = Facts {
            counts: Counts {
                queued: 3,
                in_batches: 2,
                live: 1,
                batches: 1,
            },
            states: [(BatchState::Submitted, 1)].into(),
            paused: true,
            rescue_budgets_spent: 2,
            refused_keys: 1,
            disk_bytes: 4096,
            uptime: Duration::from_millis(61_500),
            version: "1.2.3",
        };
        insta::assert_snapshot!(facts.to_text());
    }
}
