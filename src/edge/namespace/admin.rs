//! `/offpeak/admin/`: what an operator sees and does, with the admin token.

use std::{io, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::{FromRequestParts, State},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use futures_util::{StreamExt as _, stream};
use http::{HeaderMap, StatusCode, header, request::Parts};
use serde::Serialize;
use tokio_stream::wrappers::ReceiverStream;

use super::{json, shadow::ShadowView, turnaround::TurnaroundView, view::Shown};
use crate::{
    edge::{Edge, errors::ApiError},
    engine::{Engine, LiveScope},
    model::{
        batch::{Batch, BatchState},
        id::{BatchId, CredentialId, TenantId},
        secret::Secret,
        time::Timestamp,
    },
    ports::StoreError,
};

pub fn routes() -> Router<Arc<Edge>> {
    Router::new()
        .route("/offpeak/admin/status", get(status))
        .route("/offpeak/admin/backup", get(backup))
        .merge(super::keys::routes())
        .route("/offpeak/admin/shadow", get(shadow))
        .route("/offpeak/admin/turnaround", get(turnaround))
        .route("/offpeak/admin/pause", post(pause))
        .route("/offpeak/admin/resume", post(resume))
        .route("/offpeak/admin/flush", post(flush))
}

/// The most batches that are listed; the counts count all.
const MAX_BATCHES: usize = 500;

async fn status(State(edge): State<Arc<Edge>>, _: Operator) -> Result<Response, ApiError> {
    tell(&edge.engine)
}

/// Ends without its last bytes where it fails on the way; whoever takes it sees that.
async fn backup(State(edge): State<Arc<Edge>>, _: Operator) -> Result<Response, ApiError> {
    let mut parts = edge.engine.backup();
    let first = match parts.recv().await {
        Some(Ok(first)) => first,
        Some(Err(error)) if error.kind() == io::ErrorKind::ResourceBusy => {
            let status = StatusCode::CONFLICT;
            return Err(ApiError::invalid(
                status,
                "backup_under_way",
                error.to_string(),
            ));
        }
        Some(Err(error)) => return Err(StoreError::Io(error).into()),
        None => return Err(ApiError::shutting_down()),
    };
    tracing::info!("an operator takes a backup");
    let rest = ReceiverStream::new(parts);
    let body = Body::from_stream(stream::iter([Ok(first)]).chain(rest));
    let kind = [(header::CONTENT_TYPE, "application/octet-stream")];
    Ok((kind, body).into_response())
}

async fn shadow(State(edge): State<Arc<Edge>>, _: Operator) -> Result<Response, ApiError> {
    json(&ShadowView::of(edge.engine.shadow(None).await, true))
}

async fn turnaround(State(edge): State<Arc<Edge>>, _: Operator) -> Result<Response, ApiError> {
    json(&TurnaroundView::of(edge.engine.turnaround(None)))
}

async fn pause(State(edge): State<Arc<Edge>>, _: Operator) -> Result<Response, ApiError> {
    edge.engine.pause();
    tracing::warn!("an operator paused packing and submitting");
    tell(&edge.engine)
}

async fn resume(State(edge): State<Arc<Edge>>, _: Operator) -> Result<Response, ApiError> {
    edge.engine.resume();
    tracing::info!("an operator resumed packing and submitting");
    tell(&edge.engine)
}

async fn flush(State(edge): State<Arc<Edge>>, _: Operator) -> Result<Response, ApiError> {
    edge.engine.flush();
    tracing::info!("an operator had everything packed that waits");
    tell(&edge.engine)
}

/// A caller with the admin token.
pub(super) struct Operator;

impl FromRequestParts<Arc<Edge>> for Operator {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, edge: &Arc<Edge>) -> Result<Self, ApiError> {
        match is_operator(&parts.headers, &edge.admin_token) {
            true => Ok(Operator),
            false => Err(ApiError::unauthorized(
                "This path takes the admin token: `Authorization: Bearer TOKEN`.",
            )),
        }
    }
}

fn is_operator(headers: &HeaderMap, token: &Secret) -> bool {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return false;
    };
    let Some((scheme, presented)) = value.as_bytes().split_at_checked(b"Bearer ".len()) else {
        return false;
    };
    // Digests of equal length, compared in constant time (blake3's `Hash: Eq`):
    // nothing is told of the token by how long it takes. No token opens nothing.
    scheme.eq_ignore_ascii_case(b"Bearer ")
        && !token.expose().is_empty()
        && blake3::hash(presented) == blake3::hash(token.expose().as_bytes())
}

#[derive(Serialize)]
struct Status {
    object: &'static str,
    now: Shown<Timestamp>,
    paused: bool,
    requests: Requests,
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
    tenant: Shown<TenantId>,
    endpoint: &'static str,
    model: String,
    lines: u32,
    bytes: u64,
    /// None while it has no line.
    earliest_deadline: Option<Shown<Timestamp>>,
    submitted_at: Option<Shown<Timestamp>>,
    provider_id: Option<String>,
    provider_status: Option<String>,
    /// Failed tries of the step it is at.
    tries: u32,
    last_error: Option<String>,
}

fn tell(engine: &Engine) -> Result<Response, ApiError> {
    let now = engine.now();
    let counts = engine.counts();
    let mut batches = engine.open_batches();
    batches.sort_by_key(|batch| (batch.earliest_deadline, batch.id));
    json(&Status {
        object: "offpeak.status",
        now: Shown(now),
        paused: engine.is_paused(),
        requests: Requests {
            open: counts.open(),
            queued: counts.queued,
            in_batches: counts.in_batches,
            live: counts.live,
        },
        open_batches: batches.len(),
        rescue_budgets_spent: engine.rescue_budgets_spent(),
        refused_keys: refused_keys(engine),
        upstream_warning: engine.upstream_doubt(),
        live: engine.live_scopes().into_iter().map(scope_view).collect(),
        batches: batches
            .into_iter()
            .take(MAX_BATCHES)
            .map(|batch| BatchView::new(batch, now))
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
        latency_seconds: scope.latency.as_secs_f64(),
        calls_per_second: scope.capacity,
    }
}

impl BatchView {
    fn new(batch: Batch, now: Timestamp) -> BatchView {
        BatchView {
            id: Shown(batch.id),
            state: batch.state,
            created_at: Shown(batch.created),
            age_seconds: now.since(batch.created).as_secs(),
            reason: batch.reason,
            tenant: Shown(batch.tenant),
            endpoint: batch.endpoint.path(),
            model: batch.model,
            lines: batch.lines,
            bytes: batch.bytes,
            earliest_deadline: (batch.lines > 0).then_some(Shown(batch.earliest_deadline)),
            submitted_at: batch.submitted.map(Shown),
            provider_id: batch.provider_id,
            provider_status: batch.provider_status,
            tries: batch.tries,
            last_error: batch.last_error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_opens() {
        let token = Secret::new("adm_secret");
        let asks = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::AUTHORIZATION, value.parse().unwrap());
            }
            headers
        };
        for good in ["Bearer adm_secret", "bearer adm_secret"] {
            assert!(is_operator(&asks(&[good]), &token));
        }
        for bad in [
            &[][..],
            &["Bearer adm_secre"],
            &["Bearer adm_secret2"],
            &["Bearer "],
            &["Bearer"],
            &["adm_secret"],
            &["Basic adm_secret"],
            &["Bearer adm_secret", "Bearer adm_secret"],
        ] {
            assert!(!is_operator(&asks(bad), &token), "{bad:?}");
        }
        assert!(!is_operator(&asks(&["Bearer "]), &Secret::new("")));
    }
}
