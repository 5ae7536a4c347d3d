//! `/offpeak/v1/requests`: list, look at, cancel, send the webhook again.

use std::sync::Arc;

use axum::{
    extract::{Path, RawQuery, State},
    response::Response,
};
use http::StatusCode;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::{
    Tenant,
    cursor::ListCursor,
    json,
    query::ListQuery,
    timeline::{Described, EventView},
    view::RequestView,
};
use crate::{
    edge::{Edge, errors::ApiError},
    engine::{Cancelled, Engine, View},
    model::id::{RequestId, RequestKey, TenantId},
    ports::StoreError,
};

/// Requests read together.
const PAGE: usize = 8;

/// The most requests looked at for one answer: a filter that matches nothing
/// gives an empty page with a cursor, not a scan of all there is.
pub(super) const MAX_LOOKED_AT: usize = 1000;

pub async fn list(
    State(edge): State<Arc<Edge>>,
    Tenant(tenant): Tenant,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let query = ListQuery::parse(query.as_deref())?;
    json(&page(&edge.engine, tenant, &query).await?)
}

pub async fn show(
    State(edge): State<Arc<Edge>>,
    Tenant(tenant): Tenant,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let key = key(tenant, &id)?;
    described(&edge.engine, key).await
}

/// Cancelling what is cancelled is a success.
pub async fn cancel(
    State(edge): State<Arc<Edge>>,
    Tenant(tenant): Tenant,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let key = key(tenant, &id)?;
    cancelled(key.id, edge.engine.cancel(key).await?)?;
    described(&edge.engine, key).await
}

/// Ended by this, or before it.
pub(super) fn cancelled(id: RequestId, cancelled: Cancelled) -> Result<(), ApiError> {
    match cancelled {
        Cancelled::Yes => Ok(()),
        Cancelled::Unknown => Err(no_such(&id.to_string())),
        Cancelled::TooLate(outcome) => {
            let state = outcome.state.as_str();
            let message = format!("The request {id} cannot be cancelled: it has {state}.");
            Err(conflict("request_finished", message))
        }
    }
}

/// 202: the courier sends it, not this call.
pub async fn redeliver(
    State(edge): State<Arc<Edge>>,
    Tenant(tenant): Tenant,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let key = key(tenant, &id)?;
    send_again(&edge.engine, key).await?;
    let mut response = described(&edge.engine, key).await?;
    *response.status_mut() = StatusCode::ACCEPTED;
    Ok(response)
}

/// Its webhook is due.
pub(super) async fn send_again(engine: &Arc<Engine>, key: RequestKey) -> Result<(), ApiError> {
    let id = key.id;
    let none = || no_such(&id.to_string());
    let head = engine.head(key).await?.ok_or_else(none)?;
    if head.request.webhook.is_none() {
        let message = format!("The request {id} has no webhook.");
        return Err(conflict("no_webhook", message));
    }
    if head.outcome.is_none() {
        let message = format!("The request {id} has not ended: there is nothing to deliver.");
        return Err(conflict("request_open", message));
    }
    match engine.redeliver(key).await? {
        true => Ok(()),
        // Erased in between.
        false => Err(none()),
    }
}

#[derive(Serialize)]
pub(super) struct Page {
    pub object: &'static str,
    pub data: Vec<Box<RawValue>>,
    /// There are older requests that were not looked at.
    pub has_more: bool,
    /// `after` of the next page.
    pub next: Option<String>,
}

async fn page(engine: &Arc<Engine>, tenant: TenantId, query: &ListQuery) -> Result<Page, ApiError> {
    let now = engine.now();
    let mut data = Vec::new();
    let mut last: Option<RequestId> = query.start();
    let mut looked_at = 0;
    let has_more = 'pages: loop {
        let views = engine.list(tenant, last, PAGE).await?;
        let is_last_page = views.len() < PAGE;
        for view in &views {
            if query.ends_at(&view.request) {
                break 'pages false;
            }
            if data.len() == query.limit() || looked_at == MAX_LOOKED_AT {
                break 'pages true;
            }
            looked_at += 1;
            last = Some(view.request.key.id);
            if query.takes(&view.request, view.state) {
                data.push(raw(&RequestView::new(view, now))?);
            }
        }
        if is_last_page {
            break false;
        }
    };
    let next = last.filter(|_| has_more);
    Ok(Page {
        object: "list",
        data,
        has_more,
        next: next.map(|id| ListCursor(id).encode()),
    })
}

pub(super) fn raw(view: &impl Serialize) -> Result<Box<RawValue>, ApiError> {
    to_raw_value(view).map_err(|error| {
        tracing::error!(%error, "a request cannot be written as JSON");
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        ApiError::server(status, "internal_error", "The answer cannot be written.")
    })
}

async fn described(engine: &Arc<Engine>, key: RequestKey) -> Result<Response, ApiError> {
    let view: Result<Option<View>, StoreError> = engine.view(key).await;
    let view = view?.ok_or_else(|| no_such(&key.id.to_string()))?;
    let events = engine.timeline(&view).await?;
    json(&Described {
        request: RequestView::new(&view, engine.now()),
        timeline: events.iter().map(EventView::from).collect(),
    })
}

/// An id that is no id, and one of another tenant, are told apart by nothing.
fn key(tenant: TenantId, id: &str) -> Result<RequestKey, ApiError> {
    let id = id.parse().map_err(|_| no_such(id))?;
    Ok(RequestKey { tenant, id })
}

pub(super) fn no_such(id: &str) -> ApiError {
    ApiError::not_found(format!("No request with id '{id}'.")).param("id")
}

fn conflict(code: &'static str, message: String) -> ApiError {
    ApiError::invalid(StatusCode::CONFLICT, code, message)
}
