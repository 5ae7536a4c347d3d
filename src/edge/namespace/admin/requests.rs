//! `/offpeak/admin/requests`: the requests of all tenants.

use std::{collections::HashMap, sync::Arc};

use axum::{
    extract::{Path, RawQuery, State},
    response::Response,
};
use http::StatusCode;
use serde::Serialize;

use super::{
    super::{
        cursor::{AcrossCursor, ListCursor},
        json,
        query::{Order, RequestsQuery, whose_alone},
        requests::{MAX_LOOKED_AT, Page, cancelled, no_such, raw, send_again},
        timeline::{Described, EventView},
        view::{RequestView, Shown},
    },
    Operator,
};
use crate::{
    edge::{Edge, errors::ApiError},
    engine::{Engine, View},
    model::{
        id::{RequestId, RequestKey, TenantId},
        time::Timestamp,
    },
};

/// Requests read together.
const PAGE: usize = 100;

/// A request, and whose it is.
#[derive(Serialize)]
struct Theirs<T> {
    tenant: Shown<TenantId>,
    /// Where keys are issued.
    tenant_name: Option<String>,
    #[serde(flatten)]
    request: T,
}

pub async fn list(
    State(edge): State<Arc<Edge>>,
    _: Operator,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let engine = &edge.engine;
    let query = RequestsQuery::parse(query.as_deref())?;
    let whose = query.whose.as_ref();
    let whose = whose.map(|whose| whose.find(engine)).transpose()?;
    let listing = Listing {
        names: engine.tenant_names(),
        now: engine.now(),
        query,
        whose,
        data: Vec::new(),
        looked_at: 0,
    };
    json(&match listing.query.order {
        Order::Admitted(after) => listing.admitted(engine, after).await?,
        Order::Ended(before) => listing.ended(engine, before).await?,
    })
}

pub async fn show(
    State(edge): State<Arc<Edge>>,
    _: Operator,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let key = key(&edge.engine, &id, query.as_deref()).await?;
    described(&edge.engine, key).await
}

pub async fn cancel(
    State(edge): State<Arc<Edge>>,
    _: Operator,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let key = key(&edge.engine, &id, query.as_deref()).await?;
    let done = edge.engine.cancel_because(key, "cancelled by the operator");
    cancelled(key.id, done.await?)?;
    tracing::warn!(id = %key.id, "an operator cancelled a request");
    described(&edge.engine, key).await
}

/// 202: the courier sends it, not this call.
pub async fn redeliver(
    State(edge): State<Arc<Edge>>,
    _: Operator,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let key = key(&edge.engine, &id, query.as_deref()).await?;
    send_again(&edge.engine, key).await?;
    tracing::info!(id = %key.id, "an operator has a webhook sent again");
    let mut response = described(&edge.engine, key).await?;
    *response.status_mut() = StatusCode::ACCEPTED;
    Ok(response)
}

/// Its tenant is looked for where it is not named.
async fn key(engine: &Engine, id: &str, query: Option<&str>) -> Result<RequestKey, ApiError> {
    let unknown = || no_such(id);
    let whose = whose_alone(query)?;
    let parsed: RequestId = id.parse().map_err(|_| unknown())?;
    match whose {
        Some(whose) => Ok(RequestKey {
            tenant: whose.find(engine)?,
            id: parsed,
        }),
        None => engine.find(parsed).await?.ok_or_else(unknown),
    }
}

async fn described(engine: &Engine, key: RequestKey) -> Result<Response, ApiError> {
    let view = engine.view(key).await?;
    let view = view.ok_or_else(|| no_such(&key.id.to_string()))?;
    let events = engine.timeline(&view).await?;
    let mut names = engine.tenant_names();
    json(&Theirs {
        tenant: Shown(key.tenant),
        tenant_name: names.remove(&key.tenant),
        request: Described {
            request: RequestView::new(&view, engine.now()),
            timeline: events.iter().map(EventView::from).collect(),
        },
    })
}

/// A page in the making.
struct Listing {
    names: HashMap<TenantId, String>,
    now: Timestamp,
    query: RequestsQuery,
    whose: Option<TenantId>,
    data: Vec<Box<serde_json::value::RawValue>>,
    looked_at: usize,
}

impl Listing {
    async fn admitted(
        mut self,
        engine: &Engine,
        after: Option<ListCursor>,
    ) -> Result<Page, ApiError> {
        let mut last = after.map(|cursor| cursor.0);
        let has_more = 'pages: loop {
            let views = match self.whose {
                Some(tenant) => engine.list(tenant, last, PAGE).await?,
                None => engine.newest(last, PAGE).await?,
            };
            for view in &views {
                if self.is_full() {
                    break 'pages true;
                }
                last = Some(view.request.key.id);
                self.look_at(view)?;
            }
            if views.len() < PAGE {
                break false;
            }
        };
        let next = last.filter(|_| has_more);
        Ok(self.page(next.map(|id| ListCursor(id).encode())))
    }

    async fn ended(mut self, engine: &Engine, mut before: Option<u64>) -> Result<Page, ApiError> {
        let has_more = 'pages: loop {
            let endings = engine.recent(self.whose, before, PAGE).await?;
            for (sequence, view) in &endings {
                if self.is_full() {
                    break 'pages true;
                }
                before = Some(*sequence);
                if let Some(view) = view {
                    self.look_at(view)?;
                }
            }
            if endings.len() < PAGE {
                break false;
            }
        };
        let next = before.filter(|_| has_more);
        Ok(self.page(next.map(|sequence| AcrossCursor::Ended(sequence).encode())))
    }

    fn is_full(&self) -> bool {
        self.data.len() == self.query.limit() || self.looked_at == MAX_LOOKED_AT
    }

    fn look_at(&mut self, view: &View) -> Result<(), ApiError> {
        self.looked_at += 1;
        if self.query.takes(view) {
            let tenant = view.request.key.tenant;
            self.data.push(raw(&Theirs {
                tenant: Shown(tenant),
                tenant_name: self.names.get(&tenant).cloned(),
                request: RequestView::new(view, self.now),
            })?);
        }
        Ok(())
    }

    fn page(self, next: Option<String>) -> Page {
        Page {
            object: "list",
            data: self.data,
            has_more: next.is_some(),
            next,
        }
    }
}
