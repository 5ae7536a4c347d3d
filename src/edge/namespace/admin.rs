//! `/offpeak/admin/`: what an operator sees and does, with the admin token.

mod events;
mod requests;
mod status;
mod webhooks;

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
use tokio_stream::wrappers::ReceiverStream;

pub use self::events::Bulletins;
use super::{json, shadow::ShadowView, turnaround::TurnaroundView};
use crate::{
    edge::{Edge, errors::ApiError},
    model::secret::Secret,
    ports::StoreError,
};

pub fn routes() -> Router<Arc<Edge>> {
    Router::new()
        .route("/offpeak/admin/status", get(status::show))
        .route("/offpeak/admin/events", get(events::follow))
        .route("/offpeak/admin/savings", get(super::savings::of_operator))
        .route("/offpeak/admin/ledger", get(super::ledger::of_operator))
        .route("/offpeak/admin/requests", get(requests::list))
        .route("/offpeak/admin/requests/{id}", get(requests::show))
        .route(
            "/offpeak/admin/requests/{id}/cancel",
            post(requests::cancel),
        )
        .route(
            "/offpeak/admin/requests/{id}/redeliver",
            post(requests::redeliver),
        )
        .route("/offpeak/admin/batches", get(status::batches))
        .route("/offpeak/admin/webhooks", get(webhooks::list))
        .route("/offpeak/admin/backup", get(backup))
        .merge(super::keys::routes())
        .route("/offpeak/admin/shadow", get(shadow))
        .route("/offpeak/admin/turnaround", get(turnaround))
        .route("/offpeak/admin/pause", post(pause))
        .route("/offpeak/admin/resume", post(resume))
        .route("/offpeak/admin/flush", post(flush))
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
    status::tell(&edge).await
}

async fn resume(State(edge): State<Arc<Edge>>, _: Operator) -> Result<Response, ApiError> {
    edge.engine.resume();
    tracing::info!("an operator resumed packing and submitting");
    status::tell(&edge).await
}

async fn flush(State(edge): State<Arc<Edge>>, _: Operator) -> Result<Response, ApiError> {
    edge.engine.flush();
    tracing::info!("an operator had everything packed that waits");
    status::tell(&edge).await
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
