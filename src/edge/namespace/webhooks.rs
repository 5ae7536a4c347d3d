//! `/offpeak/v1/webhooks` and `/offpeak/v1/webhook-secret`: how deliveries stand,
//! send them again, try a receiver, rotate the secret.

use std::sync::Arc;

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{FromRequestParts, RawQuery, State},
    response::Response,
    routing::{get, post},
};
use http::{StatusCode, request::Parts};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    Tenant,
    cursor::HookCursor,
    json,
    query::{self, HooksQuery},
    requests::{Page, raw},
    view::{Shown, WebhookView},
};
use crate::{
    edge::{Edge, errors::ApiError},
    engine::{Engine, Tested},
    model::{
        hook::Secrets,
        id::{RequestId, RequestKey, TenantId},
        time::Timestamp,
    },
    ports::{DeliveryStatus, HookOutcome},
};

/// Deliveries looked at for one answer, whatever the filter.
const MAX_LOOKED_AT: usize = 1000;
/// Deliveries read together.
const PAGE: usize = 100;
/// Receivers that are off in one answer.
const MAX_ENDPOINTS: usize = 1000;
/// Dead letters that one call sends again.
const MAX_REDELIVERED: usize = 1000;
/// The bodies of these calls hold a URL at most.
const MAX_BODY: usize = 16 * 1024;

/// A tenant that a call was taken in of. Any text will do for a key until the provider
/// has seen it, and who only says that it is a tenant must not make this server call
/// others, or write.
struct Caller(TenantId);

impl FromRequestParts<Arc<Edge>> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, edge: &Arc<Edge>) -> Result<Self, ApiError> {
        let Tenant(tenant) = Tenant::from_request_parts(parts, edge).await?;
        if edge.engine.list(tenant, None, 1).await?.is_empty() {
            let message = "No call with a deadline has been taken with this key, or none is \
                           kept any more. Send one first.";
            let status = StatusCode::FORBIDDEN;
            return Err(ApiError::invalid(status, "no_calls_yet", message));
        }
        Ok(Caller(tenant))
    }
}

pub fn routes() -> Router<Arc<Edge>> {
    Router::new()
        .route("/offpeak/v1/webhooks", get(list))
        .route("/offpeak/v1/webhooks/endpoints", get(endpoints))
        .route("/offpeak/v1/webhooks/redeliver", post(redeliver))
        .route("/offpeak/v1/webhooks/test", post(test))
        .route("/offpeak/v1/webhook-secret", get(secret))
        .route("/offpeak/v1/webhook-secret/rotate", post(rotate))
}

/// A request's delivery.
#[derive(Serialize)]
pub(super) struct Delivery<'a> {
    object: &'static str,
    request_id: Shown<RequestId>,
    #[serde(flatten)]
    webhook: WebhookView<'a>,
}

impl<'a> Delivery<'a> {
    pub fn of(id: RequestId, target: &'a str, status: &'a DeliveryStatus) -> Delivery<'a> {
        Delivery {
            object: "offpeak.webhook",
            request_id: Shown(id),
            webhook: WebhookView::new(id, target, Some(status)),
        }
    }
}

async fn list(
    State(edge): State<Arc<Edge>>,
    Tenant(tenant): Tenant,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let asked = HooksQuery::parse(query.as_deref())?;
    let engine = &edge.engine;
    let mark = |cursor: &[u8]| engine.cursor_mark(tenant, cursor);
    let after = match &asked.after {
        Some(text) => Some(HookCursor::decode(text, mark).ok_or_else(query::bad_cursor)?),
        None => None,
    };
    let (found, next) = match (asked.status, after) {
        (Some("dead"), None) => dead(engine, tenant, None, asked.limit()).await?,
        (Some("dead"), Some(HookCursor::Dead(receiver, id))) => {
            dead(engine, tenant, Some((receiver, id)), asked.limit()).await?
        }
        (_, None) => newest(engine, tenant, None, &asked).await?,
        (status, Some(HookCursor::Newest(id))) if status != Some("dead") => {
            newest(engine, tenant, Some(id), &asked).await?
        }
        // Of a listing with another filter.
        _ => return Err(query::bad_cursor().into()),
    };
    let mut data = Vec::with_capacity(found.len());
    for id in found {
        // It may have been erased since.
        if let Some((target, status)) = engine.delivery(RequestKey { tenant, id }).await? {
            data.push(raw(&Delivery::of(id, &target, &status))?);
        }
    }
    json(&Page {
        object: "list",
        data,
        has_more: next.is_some(),
        next: next.map(|cursor| cursor.encode(mark)),
    })
}

type Found = (Vec<RequestId>, Option<HookCursor>);

async fn dead(
    engine: &Engine,
    tenant: TenantId,
    after: Option<(crate::model::id::ReceiverId, RequestId)>,
    limit: usize,
) -> Result<Found, ApiError> {
    let mut found = engine.dead_letters(tenant, after, limit + 1).await?;
    let has_more = found.len() > limit;
    found.truncate(limit);
    let last = found.last().filter(|_| has_more);
    let next = last.map(|(receiver, id)| HookCursor::Dead(*receiver, *id));
    Ok((found.into_iter().map(|(_, id)| id).collect(), next))
}

/// Newest request first.
async fn newest(
    engine: &Engine,
    tenant: TenantId,
    mut before: Option<RequestId>,
    asked: &HooksQuery,
) -> Result<Found, ApiError> {
    let takes = |status: &DeliveryStatus| asked.status.is_none_or(|it| it == status.as_str());
    let mut found = Vec::new();
    let mut looked_at = 0;
    loop {
        let page = engine.deliveries(tenant, before, PAGE).await?;
        let is_last = page.len() < PAGE;
        for (id, status) in page {
            if found.len() == asked.limit() || looked_at == MAX_LOOKED_AT {
                return Ok((found, before.map(HookCursor::Newest)));
            }
            looked_at += 1;
            before = Some(id);
            if takes(&status) {
                found.push(id);
            }
        }
        if is_last {
            return Ok((found, None));
        }
    }
}

async fn endpoints(
    State(edge): State<Arc<Edge>>,
    Tenant(tenant): Tenant,
) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    struct Endpoint {
        target: String,
        /// `resting` or `off`.
        status: &'static str,
        next_try_at: Option<Shown<Timestamp>>,
        off_since: Option<Shown<Timestamp>>,
    }
    #[derive(Serialize)]
    struct Endpoints {
        object: &'static str,
        data: Vec<Endpoint>,
    }
    let resting = edge.engine.resting(tenant).into_iter();
    let resting = resting.map(|resting| Endpoint {
        target: resting.target.to_string(),
        status: "resting",
        next_try_at: Some(Shown(resting.until)),
        off_since: None,
    });
    let off = edge.engine.turned_off(tenant, MAX_ENDPOINTS).await?;
    let off = off.into_iter().map(|off| Endpoint {
        target: off.target,
        status: "off",
        next_try_at: None,
        off_since: Some(Shown(off.since)),
    });
    json(&Endpoints {
        object: "list",
        data: resting.take(MAX_ENDPOINTS).chain(off).collect(),
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Target {
    target: String,
}

const TARGET: &str = "`{\"target\": \"https://…\"}`, or the name of a configured endpoint";

/// 202: the courier sends them, not this call.
async fn redeliver(
    State(edge): State<Arc<Edge>>,
    Caller(tenant): Caller,
    body: Body,
) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    struct Again {
        object: &'static str,
        redelivered: usize,
        has_more: bool,
    }
    let Target { target } = read(body, TARGET).await?;
    let engine = &edge.engine;
    let again = engine
        .redeliver_dead(tenant, &target, MAX_REDELIVERED)
        .await?;
    let mut response = json(&Again {
        object: "offpeak.webhook_redelivery",
        redelivered: again.count,
        has_more: again.has_more,
    })?;
    *response.status_mut() = StatusCode::ACCEPTED;
    Ok(response)
}

async fn test(
    State(edge): State<Arc<Edge>>,
    Caller(tenant): Caller,
    body: Body,
) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    struct Answer {
        object: &'static str,
        delivered: bool,
        /// What the receiver answered, where it did.
        status_code: Option<u16>,
        error: Option<String>,
    }
    let Target { target } = read(body, TARGET).await?;
    let outcome = match edge.engine.test_webhook(tenant, &target).await? {
        Tested::Called(outcome) => outcome,
        Tested::Refused(reason) => {
            let message = format!("This target cannot be used: {reason}.");
            return Err(ApiError::bad("invalid_webhook", message).param("target"));
        }
        Tested::TooMany { retry_after } => {
            let status = StatusCode::TOO_MANY_REQUESTS;
            let message = "Too many test calls. Wait a moment.";
            let error = ApiError::invalid(status, "too_many_tests", message);
            return Err(error.retry_after(retry_after));
        }
    };
    let delivered = matches!(outcome, HookOutcome::Delivered { .. });
    let (status_code, error) = match outcome {
        HookOutcome::Delivered { status } => (Some(status), None),
        HookOutcome::Retry { status, reason, .. } => (status, Some(reason)),
        HookOutcome::Gone { reason } => (Some(StatusCode::GONE.as_u16()), Some(reason)),
        HookOutcome::GiveUp { reason } => (None, Some(reason)),
    };
    json(&Answer {
        object: "offpeak.webhook_test",
        delivered,
        status_code,
        error,
    })
}

async fn secret(
    State(edge): State<Arc<Edge>>,
    Tenant(tenant): Tenant,
) -> Result<Response, ApiError> {
    let secrets = edge.engine.hook_secrets(tenant).await?;
    shown(&edge.engine, tenant, &secrets)
}

async fn rotate(
    State(edge): State<Arc<Edge>>,
    Caller(tenant): Caller,
    body: Body,
) -> Result<Response, ApiError> {
    #[derive(Default, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Rotation {
        #[serde(default)]
        expire_previous: bool,
    }
    let body = bytes(body).await?;
    let Rotation { expire_previous } = match body.is_empty() {
        true => Rotation::default(),
        false => parsed(&body, "no body, or `{\"expire_previous\": true}`")?,
    };
    let engine = &edge.engine;
    let secrets = engine
        .rotate_webhook_secret(tenant, expire_previous)
        .await?;
    shown(engine, tenant, &secrets)
}

fn shown(engine: &Engine, tenant: TenantId, secrets: &Secrets) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    struct Secret {
        object: &'static str,
        secret: String,
        /// The last instant at which an earlier secret signs too.
        previous_until: Option<Shown<Timestamp>>,
    }
    let now = engine.now();
    let until = secrets.previous.iter().map(|(_, until)| *until).max();
    json(&Secret {
        object: "offpeak.webhook_secret",
        secret: engine.webhook_secret(tenant, secrets.current),
        previous_until: until.filter(|until| *until > now).map(Shown),
    })
}

async fn read<T: DeserializeOwned>(body: Body, accepted: &str) -> Result<T, ApiError> {
    parsed(&bytes(body).await?, accepted)
}

async fn bytes(body: Body) -> Result<bytes::Bytes, ApiError> {
    to_bytes(body, MAX_BODY).await.map_err(|_| {
        let message = format!("The body broke off, or is longer than {MAX_BODY} bytes.");
        ApiError::bad("unreadable_body", message)
    })
}

fn parsed<T: DeserializeOwned>(body: &[u8], accepted: &str) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|error| {
        let message = format!("The body cannot be read: {error}. Accepted: {accepted}.");
        ApiError::bad("invalid_body", message)
    })
}
