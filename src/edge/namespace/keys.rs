//! `/offpeak/admin/keys`: the keys that this server issues.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Path, State},
    response::{IntoResponse, Response},
    routing::{delete, get},
};
use bytes::Bytes;
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::{admin::Operator, json, view::Shown};
use crate::{
    edge::{Edge, errors::ApiError},
    engine::{Engine, IssueError, Key, NewKey},
    model::{deadline, id::KeyId, issued::Standing, money::Usd, time::Timestamp},
};

pub fn routes() -> Router<Arc<Edge>> {
    Router::new()
        .route("/offpeak/admin/keys", get(list).post(create))
        .route("/offpeak/admin/keys/{id}", delete(revoke))
}

/// What a key is asked for with. Amounts are decimal dollars in a string.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    name: String,
    tenant: Option<String>,
    upstream: Option<String>,
    /// A duration from now, or an instant.
    expires: Option<String>,
    #[serde(default)]
    models: Vec<String>,
    budget_usd_per_month: Option<String>,
    requests_per_minute: Option<u32>,
    passthrough: Option<bool>,
}

/// Everything that is known of a key, which is not the key.
#[derive(Serialize)]
struct KeyView<'a> {
    object: &'static str,
    id: Shown<KeyId>,
    name: &'a str,
    /// `active`, `expired` or `revoked`.
    status: &'static str,
    tenant: &'a str,
    upstream: &'a str,
    created_at: Shown<Timestamp>,
    expires_at: Option<Shown<Timestamp>>,
    revoked_at: Option<Shown<Timestamp>>,
    /// Empty for all.
    models: &'a [String],
    requests_per_minute: Option<u32>,
    passthrough: bool,
    budget_usd_per_month: Option<Shown<Usd>>,
    /// By the tenant, with all of its keys.
    paid_usd_this_month: Shown<Usd>,
    reckoned_usd_this_month: Shown<Usd>,
    reserved_usd: Shown<Usd>,
    /// The key itself, told once.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
}

impl<'a> KeyView<'a> {
    fn of(engine: &Engine, key: &'a Key) -> KeyView<'a> {
        let issued = &key.issued;
        let spent = engine.spent_this_month(key);
        KeyView {
            object: "offpeak.key",
            id: Shown(issued.id),
            name: &issued.name,
            status: match issued.standing(engine.now()) {
                Standing::Active => "active",
                Standing::Expired(_) => "expired",
                Standing::Revoked(_) => "revoked",
            },
            tenant: &issued.tenant,
            upstream: &issued.upstream,
            created_at: Shown(issued.created),
            expires_at: issued.expires.map(Shown),
            revoked_at: issued.revoked.map(Shown),
            models: &issued.models,
            requests_per_minute: issued.requests_per_minute,
            passthrough: issued.passthrough,
            budget_usd_per_month: issued.monthly_budget.map(Shown),
            paid_usd_this_month: Shown(spent.paid),
            reckoned_usd_this_month: Shown(spent.reckoned),
            reserved_usd: Shown(spent.reserved),
            key: None,
        }
    }
}

async fn create(
    State(edge): State<Arc<Edge>>,
    _: Operator,
    body: Bytes,
) -> Result<Response, ApiError> {
    let now = edge.engine.now();
    let wanted = wanted(&body, now)?;
    let (key, text) = edge.engine.issue(wanted, now).await?;
    let view = KeyView {
        key: Some(text.expose()),
        ..KeyView::of(&edge.engine, &key)
    };
    Ok((StatusCode::CREATED, json(&view)?).into_response())
}

async fn list(State(edge): State<Arc<Edge>>, _: Operator) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    struct List<'a> {
        object: &'static str,
        data: Vec<KeyView<'a>>,
    }
    issuing(&edge.engine)?;
    let keys = edge.engine.issued_keys();
    let rows = keys.iter().map(|key| KeyView::of(&edge.engine, key));
    json(&List {
        object: "list",
        data: rows.collect(),
    })
}

async fn revoke(
    State(edge): State<Arc<Edge>>,
    _: Operator,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    issuing(&edge.engine)?;
    let unknown = || ApiError::not_found(format!("No key `{id}` was issued here."));
    let known = id.parse().map_err(|_| unknown())?;
    let revoked = edge.engine.revoke(known).await?.ok_or_else(unknown)?;
    json(&KeyView::of(&edge.engine, &revoked))
}

fn issuing(engine: &Engine) -> Result<(), ApiError> {
    match engine.issues_keys() {
        true => Ok(()),
        false => Err(IssueError::NotIssuing.into()),
    }
}

fn wanted(body: &[u8], now: Timestamp) -> Result<NewKey, ApiError> {
    let wanted: Wanted = serde_json::from_slice(body).map_err(|error| {
        ApiError::bad(
            "invalid_key",
            format!(
                "The key that is asked for cannot be read: {error}. Accepted: a JSON object \
                 with `name`, and with `tenant`, `upstream`, `expires`, `models`, \
                 `budget_usd_per_month`, `requests_per_minute` and `passthrough` if wanted."
            ),
        )
    })?;
    let expires = wanted.expires.map(|text| {
        deadline::parse(&text, now, std::time::Duration::MAX).map_err(|_| {
            let message = format!(
                "`{text}` is no time at which a key expires. Accepted: a duration from now such \
                 as `90days`, or an RFC 3339 instant in the future such as \
                 `2030-01-31T06:00:00Z`."
            );
            ApiError::bad("invalid_key", message).param("expires")
        })
    });
    let budget = wanted.budget_usd_per_month.map(|text| {
        text.parse().map_err(|_| {
            let message = format!("`{text}` is no amount in dollars such as \"25\" or \"0.50\".");
            ApiError::bad("invalid_key", message).param("budget_usd_per_month")
        })
    });
    Ok(NewKey {
        name: wanted.name,
        tenant: wanted.tenant,
        upstream: wanted.upstream,
        expires: expires.transpose()?,
        models: wanted.models,
        monthly_budget: budget.transpose()?,
        requests_per_minute: wanted.requests_per_minute,
        passthrough: wanted.passthrough,
    })
}

impl From<IssueError> for ApiError {
    fn from(error: IssueError) -> Self {
        match error {
            IssueError::NotIssuing => ApiError::invalid(
                StatusCode::CONFLICT,
                "keys_not_issued",
                "This server issues no keys: callers present their own of the provider's. Set \
                 auth.mode = \"keys\" and [auth.upstream] to change that.",
            ),
            IssueError::Bad { field, message } => {
                ApiError::bad("invalid_key", message).param(field)
            }
            IssueError::Store(error) => error.into(),
        }
    }
}
