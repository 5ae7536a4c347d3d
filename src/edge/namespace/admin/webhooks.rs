//! `GET /offpeak/admin/webhooks`: the dead letters of all tenants.

use std::sync::Arc;

use axum::{
    extract::{RawQuery, State},
    response::Response,
};
use serde::Serialize;

use super::{
    super::{
        cursor::AcrossCursor,
        json,
        query::{Dead, bad_cursor},
        requests::{Page, raw},
        view::Shown,
        webhooks::Delivery,
    },
    Operator,
};
use crate::{
    edge::{Edge, errors::ApiError},
    engine::Engine,
    model::id::{ReceiverId, RequestKey, TenantId},
};

#[derive(Serialize)]
struct Theirs<'a> {
    tenant: Shown<TenantId>,
    /// Where keys are issued.
    tenant_name: Option<&'a str>,
    #[serde(flatten)]
    delivery: Delivery<'a>,
}

pub async fn list(
    State(edge): State<Arc<Edge>>,
    _: Operator,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let engine = &edge.engine;
    let asked = Dead::parse(query.as_deref())?;
    let mut found = dead(engine, &asked).await?;
    let has_more = found.len() > asked.limit();
    found.truncate(asked.limit());
    let last = found.last().filter(|_| has_more);
    let next = last.map(|(receiver, key)| AcrossCursor::Dead(*receiver, *key).encode());
    let names = engine.tenant_names();
    let mut data = Vec::with_capacity(found.len());
    for (_, key) in found {
        // It may have been erased since.
        if let Some((target, status)) = engine.delivery(key).await? {
            data.push(raw(&Theirs {
                tenant: Shown(key.tenant),
                tenant_name: names.get(&key.tenant).map(String::as_str),
                delivery: Delivery::of(key.id, &target, &status),
            })?);
        }
    }
    json(&Page {
        object: "list",
        data,
        has_more,
        next,
    })
}

/// One more than there is room for tells whether there are more.
async fn dead(engine: &Engine, asked: &Dead) -> Result<Vec<(ReceiverId, RequestKey)>, ApiError> {
    let limit = asked.limit() + 1;
    let after = match asked.after {
        Some(AcrossCursor::Dead(receiver, key)) => Some((receiver, key)),
        Some(AcrossCursor::Ended(_)) => return Err(bad_cursor().into()),
        None => None,
    };
    let Some(whose) = &asked.whose else {
        return Ok(engine.all_dead_letters(after, limit).await?);
    };
    let tenant = whose.find(engine)?;
    let after = after.map(|(receiver, key)| match key.tenant == tenant {
        true => Ok((receiver, key.id)),
        false => Err(bad_cursor()),
    });
    let dead = engine
        .dead_letters(tenant, after.transpose()?, limit)
        .await?;
    let dead = dead.into_iter();
    Ok(dead
        .map(|(receiver, id)| (receiver, RequestKey { tenant, id }))
        .collect())
}
