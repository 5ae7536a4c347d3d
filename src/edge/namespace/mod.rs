//! Offpeak's own paths: what a caller asks about its requests (`/offpeak/v1/`),
//! what an operator does (`/offpeak/admin/`) and looks at, and what a supervisor reads
//! (`/healthz`, `/readyz`, `/metrics`). docs/http-api.md tells it to users.

mod admin;
mod credential;
mod cross_site;
mod cursor;
mod health;
mod keys;
mod ledger;
mod metrics;
mod query;
mod requests;
mod results;
mod savings;
mod shadow;
mod sums;
mod timeline;
mod turnaround;
mod upstream_events;
mod view;
mod webhooks;

use std::sync::Arc;

use axum::{
    Router,
    extract::{FromRequestParts, State},
    middleware,
    response::{IntoResponse, Response},
    routing::{any, get, post},
};
use http::{StatusCode, header, request::Parts};
use serde::Serialize;

pub use self::admin::Bulletins;
use self::query::BadQuery;
pub use self::upstream_events::{BadUpstreamSecret, UpstreamEvents};
use super::{Edge, auth, errors::ApiError};
use crate::{dashboard, engine::Engine, model::id::TenantId, ports::StoreError};

/// Everything below `/offpeak/`, and the supervisor's three. Nothing that
/// stands there falls through to the upstream.
pub fn everybody(edge: &Arc<Edge>) -> Router<Arc<Edge>> {
    let operators = admin::routes().merge(metrics::routes());
    own(edge, tenants().merge(operators).merge(health::routes())).merge(page())
}

/// What is left of it where operators are served apart.
pub fn callers(edge: &Arc<Edge>) -> Router<Arc<Edge>> {
    let none = ["/metrics", "/offpeak", "/offpeak/"].into_iter();
    let none = none.fold(Router::new(), |router, path| {
        router.route(path, any(unknown_path))
    });
    own(edge, tenants().merge(none).merge(health::routes()))
}

/// What is served apart, and nothing else.
pub fn operators(edge: &Arc<Edge>) -> Router<Arc<Edge>> {
    let operators = admin::routes().merge(metrics::routes());
    own(edge, operators.merge(health::routes()))
        .merge(page())
        .fallback(unknown_path)
}

/// The page may be led to from anywhere: it is the same for everybody.
fn page() -> Router<Arc<Edge>> {
    dashboard::routes().method_not_allowed_fallback(wrong_method)
}

fn own(edge: &Arc<Edge>, routes: Router<Arc<Edge>>) -> Router<Arc<Edge>> {
    routes
        .method_not_allowed_fallback(wrong_method)
        .route("/offpeak/{*rest}", any(unknown_path))
        .layer(middleware::from_fn_with_state(
            edge.clone(),
            cross_site::guard,
        ))
}

fn tenants() -> Router<Arc<Edge>> {
    Router::new()
        .route("/offpeak/v1/requests", get(requests::list))
        .route("/offpeak/v1/requests/{id}", get(requests::show))
        .route("/offpeak/v1/requests/{id}/cancel", post(requests::cancel))
        .route(
            "/offpeak/v1/requests/{id}/redeliver",
            post(requests::redeliver),
        )
        .route("/offpeak/v1/results", get(results::feed))
        .route("/offpeak/v1/savings", get(savings::of_tenant))
        .route("/offpeak/v1/ledger", get(ledger::of_tenant))
        .route("/offpeak/v1/shadow", get(shadow))
        .route("/offpeak/v1/turnaround", get(turnaround))
        .merge(webhooks::routes())
        .merge(upstream_events::routes())
        .route(
            "/offpeak/v1/credential",
            get(credential::show).post(credential::move_here),
        )
}

/// Who asks: the same credential as the calls themselves. Without a key it is
/// refused, unless calls came without one, as they do for upstreams that want none.
struct Tenant(TenantId);

impl FromRequestParts<Arc<Edge>> for Tenant {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, edge: &Arc<Edge>) -> Result<Self, ApiError> {
        let caller = auth::caller(edge, &parts.headers, &parts.uri)?;
        let tenant = caller.tenant;
        let has_key = caller.key.is_some() || auth::names_key(&caller.presented);
        if has_key {
            return Ok(Tenant(tenant));
        }
        cross_site::check_host(&parts.headers, edge)?;
        if has_called(&edge.engine, tenant).await? {
            return Ok(Tenant(tenant));
        }
        Err(ApiError::unauthorized(
            "Whose calls? Send the key that you call with: `Authorization: Bearer KEY`. \
             (Without a key those calls are told that came without one, and none has.)",
        ))
    }
}

/// Whether anything is known of the tenant: a request, what one cost, or in shadow
/// mode a call that passed through.
async fn has_called(engine: &Engine, tenant: TenantId) -> Result<bool, StoreError> {
    if !engine.list(tenant, None, 1).await?.is_empty() || engine.has_ledger(tenant, 0).await? {
        return Ok(true);
    }
    let passed = engine.shadow(Some(tenant)).await;
    Ok(passed.is_some_and(|(_, rows)| !rows.is_empty()))
}

async fn shadow(
    State(edge): State<Arc<Edge>>,
    Tenant(tenant): Tenant,
) -> Result<Response, ApiError> {
    let counted = edge.engine.shadow(Some(tenant)).await;
    json(&shadow::ShadowView::of(counted, false))
}

async fn turnaround(
    State(edge): State<Arc<Edge>>,
    Tenant(tenant): Tenant,
) -> Result<Response, ApiError> {
    // An upstream's key is many tenants', and so is what is learned with it.
    if edge.engine.issues_keys() {
        let message = "How long answers take is learned of all keys that this server issues. \
                       Its operator is told: GET /offpeak/admin/turnaround.";
        return Err(ApiError::forbidden("operators_only", message));
    }
    let known = edge.engine.turnaround(Some(tenant));
    json(&turnaround::TurnaroundView::of(known))
}

async fn unknown_path() -> ApiError {
    ApiError::not_found("There is no such path. docs/http-api.md lists Offpeak's own.")
}

async fn wrong_method() -> ApiError {
    let message = "This path takes another method. docs/http-api.md lists Offpeak's own paths.";
    ApiError::invalid(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        message,
    )
}

/// What is told here changes from one moment to the next and is the caller's
/// alone: no cache may keep it.
fn json(answer: &impl Serialize) -> Result<Response, ApiError> {
    let body = serde_json::to_vec(answer).map_err(|error| {
        tracing::error!(%error, "an answer cannot be written as JSON");
        ApiError::internal()
    })?;
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    Ok((headers, body).into_response())
}

impl From<BadQuery> for ApiError {
    fn from(bad: BadQuery) -> Self {
        let error = ApiError::bad(bad.code, bad.message);
        match bad.param {
            Some(param) => error.param(param),
            None => error,
        }
    }
}
