//! `/offpeak/admin/status` and `/offpeak/admin/batches`: how everything stands.

use std::sync::Arc;

use axum::{
    extract::{RawQuery, State},
    response::Response,
};
use serde::Serialize;

use super::{
    super::{
        json,
        query::{BatchesQuery, MAX_BATCHES},
        view::Shown,
    },
    Operator,
};
use crate::{
    edge::{Edge, errors::ApiError},
    engine::{Engine, LiveScope, Progress},
    model::{
        batch::{BatchState, Left},
        id::{BatchId, CredentialId, TenantId},
        time::Timestamp,
    },
    ports::StoreError,
};

/// Batches that are looked through for those that have ended.
const MAX_LOOKED_AT: usize = 2_000;

pub async fn show(State(edge): State<Arc<Edge>>, _: Operator) -> Result<Response, ApiError> {
    tell(&edge).await
}

pub async fn tell(edge: &Edge) -> Result<Response, ApiError> {
    json(&status(edge).await?)
}

/// Those that have not ended, earliest deadline first; then those that have, the newest
/// first.
pub async fn batches(
    State(edge): State<Arc<Edge>>,
    _: Operator,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    struct Batches {
        object: &'static str,
        data: Vec<BatchView>,
    }
    let asked = BatchesQuery::parse(query.as_deref())?;
    let now = edge.engine.now();
    let mut all = edge.engine.batches_in_flight();
    if all.len() < asked.limit {
        let ended = edge.engine.ended_batches(MAX_LOOKED_AT).await?;
        all.extend(ended.into_iter().map(|batch| Progress {
            batch,
            finished: None,
        }));
    }
    all.truncate(asked.limit);
    json(&Batches {
        object: "list",
        data: all.into_iter().map(|it| BatchView::new(it, now)).collect(),
    })
}

#[derive(Serialize)]
pub(super) struct Status {
    object: &'static str,
    now: Shown<Timestamp>,
    /// `server.public_url`, where it is set: callers' base URLs begin with it.
    base_url: Option<String>,
    /// Callers are not served where this is.
    operators_apart: bool,
    paused: bool,
    requests: Requests,
    /// Since this process started.
    ended_since_start: u64,
    /// When the oldest request was admitted that waits to be packed.
    oldest_queued_at: Option<Shown<Timestamp>>,
    /// Of all that is open.
    earliest_deadline: Option<Shown<Timestamp>>,
    delivery: Deliveries,
    open_batches: usize,
    live: Vec<ScopeView>,
    /// Tenants whose rescues do not fit into their budget any more.
    rescue_budgets_spent: usize,
    /// Keys that the provider refuses with 401: their work waits.
    refused_keys: Vec<RefusedView>,
    /// Why the upstream may be the wrong one.
    upstream_warning: Option<String>,
    /// Earliest deadline first.
    batches: Vec<BatchView>,
}

#[derive(Serialize)]
struct Requests {
    open: u64,
    queued: u64,
    in_batches: u64,
    live: u64,
}

/// Webhooks.
#[derive(Serialize)]
struct Deliveries {
    pending: usize,
    dead: usize,
}

#[derive(Serialize)]
struct RefusedView {
    tenant: Shown<TenantId>,
    credential: Shown<CredentialId>,
    since: Shown<Timestamp>,
    tried_again_at: Shown<Timestamp>,
    open_requests: u64,
}

fn refused_keys(engine: &Engine) -> Vec<RefusedView> {
    let refused = engine.refusals_of(None).into_iter();
    refused
        .map(|(destination, refusal)| RefusedView {
            tenant: Shown(destination.tenant),
            credential: Shown(destination.credential),
            since: Shown(refusal.since),
            tried_again_at: Shown(refusal.look),
            open_requests: engine.open_requests(destination.tenant),
        })
        .collect()
}

/// What the provider limits together.
#[derive(Serialize)]
struct ScopeView {
    organization: Option<String>,
    credential: Option<Shown<CredentialId>>,
    model: String,
    limit: u32,
    in_flight: u32,
    paused_until: Option<Shown<Timestamp>>,
    latency_seconds: f64,
    calls_per_second: f64,
}

#[derive(Serialize)]
struct BatchView {
    id: Shown<BatchId>,
    state: BatchState,
    created_at: Shown<Timestamp>,
    age_seconds: u64,
    reason: String,
    /// Why it was left before it had ended.
    left: Option<&'static str>,
    tenant: Shown<TenantId>,
    endpoint: &'static str,
    model: String,
    lines: u32,
    /// As the provider said at the last look; null where it has not.
    finished_lines: Option<u32>,
    /// Of the lines of one that has ended, those whose answers came from it.
    answered_lines: Option<u32>,
    bytes: u64,
    /// None while it has no line.
    earliest_deadline: Option<Shown<Timestamp>>,
    submitted_at: Option<Shown<Timestamp>>,
    ended_at: Option<Shown<Timestamp>>,
    provider_id: Option<String>,
    provider_status: Option<String>,
    /// Failed tries of the step it is at.
    tries: u32,
    last_error: Option<String>,
}

/// How everything stands. The instant is told by `now` alone, and by the age of batches.
pub(super) async fn status(edge: &Edge) -> Result<Status, StoreError> {
    let engine = &edge.engine;
    let now = engine.now();
    let counts = engine.counts();
    let batches = engine.batches_in_flight();
    let edges = engine.edges().await?;
    let deliveries = engine.delivery_counts();
    Ok(Status {
        object: "offpeak.status",
        now: Shown(now),
        base_url: edge.settings.base_url.clone(),
        operators_apart: edge.settings.operators_apart,
        paused: engine.is_paused(),
        requests: Requests {
            open: counts.open(),
            queued: counts.queued,
            in_batches: counts.in_batches,
            live: counts.live,
        },
        ended_since_start: engine.endings(),
        oldest_queued_at: edges.oldest_queued.map(Shown),
        earliest_deadline: edges.earliest_deadline.map(Shown),
        delivery: Deliveries {
            pending: deliveries.pending,
            dead: deliveries.dead,
        },
        open_batches: batches.len(),
        rescue_budgets_spent: engine.rescue_budgets_spent(),
        refused_keys: refused_keys(engine),
        upstream_warning: engine.upstream_doubt(),
        live: engine.live_scopes().into_iter().map(scope_view).collect(),
        batches: batches
            .into_iter()
            .take(MAX_BATCHES)
            .map(|progress| BatchView::new(progress, now))
            .collect(),
    })
}

fn scope_view(scope: LiveScope) -> ScopeView {
    ScopeView {
        organization: scope.organization,
        credential: scope.credential.map(Shown),
        model: scope.model,
        limit: scope.limit,
        in_flight: scope.in_flight,
        paused_until: scope.paused_until.map(Shown),
        latency_seconds: rounded(scope.latency.as_secs_f64()),
        calls_per_second: rounded(scope.capacity),
    }
}

/// To three significant digits: more are not known.
fn rounded(number: f64) -> f64 {
    let text = format!("{number:.2e}");
    text.parse().unwrap_or(number)
}

impl BatchView {
    fn new(progress: Progress, now: Timestamp) -> BatchView {
        let Progress { batch, finished } = progress;
        let ended = !batch.state.is_open();
        BatchView {
            id: Shown(batch.id),
            state: batch.state,
            created_at: Shown(batch.created),
            age_seconds: batch.settled.unwrap_or(now).since(batch.created).as_secs(),
            reason: batch.reason,
            left: batch.left.map(Left::reason),
            tenant: Shown(batch.tenant),
            endpoint: batch.endpoint.path(),
            model: batch.model,
            lines: batch.lines,
            finished_lines: finished,
            answered_lines: ended.then_some(batch.answered),
            bytes: batch.bytes,
            earliest_deadline: (batch.earliest_deadline < Timestamp::MAX)
                .then_some(Shown(batch.earliest_deadline)),
            submitted_at: batch.submitted.map(Shown),
            ended_at: batch.settled.map(Shown),
            provider_id: batch.provider_id,
            provider_status: batch.provider_status,
            tries: batch.tries,
            last_error: batch.last_error,
        }
    }
}
