//! What Prometheus reads: `/metrics`. No credentials, and nothing here names a tenant.

use std::{sync::Arc, time::Duration};

use axum::{
    Router, extract,
    response::{IntoResponse, Response},
    routing::get,
};
use http::{HeaderMap, header};
use tokio::{task::spawn_blocking, time::Instant};

use crate::{
    edge::{Edge, errors::ApiError, waiting::Wait},
    engine::Engine,
    metrics::{Format, State},
    model::batch::BatchState,
};

pub fn routes() -> Router<Arc<Edge>> {
    let started = Instant::now();
    let told = async move |edge: extract::State<Arc<Edge>>, headers: HeaderMap| {
        tell(&edge, started, &headers).await
    };
    Router::new().route("/metrics", get(told))
}

async fn tell(edge: &Edge, started: Instant, headers: &HeaderMap) -> Result<Response, ApiError> {
    let accept = headers.get(header::ACCEPT).map(|it| it.to_str());
    let format = Format::accepted(accept.and_then(Result::ok).unwrap_or_default());
    let state = state(edge, started).await;
    let metrics = edge.engine.metrics().clone();
    // Open files are counted one by one: not on a thread that serves callers.
    let told = spawn_blocking(move || metrics.tell(state, format)).await;
    let told = told.map_err(|error| {
        tracing::error!(%error, "the metrics cannot be told");
        ApiError::internal()
    })?;
    let kind = [(header::CONTENT_TYPE, format.content_type())];
    Ok((kind, told).into_response())
}

async fn state(edge: &Edge, started: Instant) -> State {
    let engine: &Engine = &edge.engine;
    let (counts, gauges) = (engine.counts(), engine.gauges());
    let states = engine.open_batches_by_state();
    let webhooks = engine.delivery_counts();
    let oldest = engine.oldest_queued();
    let spans = engine.spans();
    State {
        places: [
            ("queue", counts.queued),
            ("batch", counts.in_batches),
            ("live", counts.live),
        ],
        oldest_queued: oldest.map_or(Duration::ZERO, |oldest| oldest.until(engine.now())),
        batches: OPEN.map(|(state, name)| (name, states.get(&state).copied().unwrap_or_default())),
        paused: engine.is_paused(),
        rescue_budgets_spent: engine.rescue_budgets_spent() as u64,
        refused_keys: engine.refusals_of(None).len() as u64,
        live_calls: engine.live_calls(),
        webhooks: [
            ("pending", webhooks.pending as u64),
            ("dead", webhooks.dead as u64),
        ],
        receivers: gauges.receivers as u64,
        waiting: Wait::ALL.map(|wait| (wait.as_str(), edge.waiting.count(wait))),
        held: gauges.held as u64,
        tasks: engine.tasks(),
        disk_bytes: engine.disk_bytes(),
        spare_bytes: engine.disk_spare().await,
        commits: engine.commits(),
        spans: [
            ("sent", spans.sent),
            ("failed", spans.failed),
            ("dropped", spans.dropped),
        ],
        uptime: started.elapsed(),
        version: env!("CARGO_PKG_VERSION"),
    }
}

const OPEN: [(BatchState, &str); 6] = [
    (BatchState::Filling, "filling"),
    (BatchState::Sealed, "sealed"),
    (BatchState::Uploaded, "uploaded"),
    (BatchState::Lost, "lost"),
    (BatchState::Submitted, "submitted"),
    (BatchState::Cancelling, "cancelling"),
];
