//! `/offpeak/v1/credential`: whether the provider takes the key, and moving to another.

use std::sync::Arc;

use axum::{
    extract::{RawQuery, State},
    http::request::Parts,
    response::Response,
};
use http::{HeaderName, StatusCode};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{Tenant, json, query, view::Shown};
use crate::{
    edge::{
        Edge, auth,
        errors::{ApiError, forwarded},
    },
    engine::{MoveError, Refusal},
    model::time::Timestamp,
    ports::Credential,
};

/// The key that the tenant moves away from, as `Authorization` (or `api-key`) had it.
const PREVIOUS: HeaderName = HeaderName::from_static("offpeak-previous-authorization");

#[derive(Serialize)]
struct CredentialView {
    object: &'static str,
    /// `ok` or `refused`.
    status: &'static str,
    /// Requests that have not ended; while the key is refused, they wait.
    open_requests: u64,
    refusals: Vec<RefusalView>,
}

#[derive(Serialize)]
struct RefusalView {
    model: String,
    since: Shown<Timestamp>,
    /// When the key is tried again.
    tried_again_at: Shown<Timestamp>,
    /// The provider's 401; null where it was not JSON.
    answer: Option<Box<RawValue>>,
}

pub async fn show(
    State(edge): State<Arc<Edge>>,
    Tenant(tenant): Tenant,
) -> Result<Response, ApiError> {
    let refusals = edge.engine.refusals_of(Some(tenant));
    let refusals = refusals.into_iter();
    let refusals: Vec<RefusalView> = refusals
        .map(|(destination, refusal)| RefusalView::of(destination.model, &refusal))
        .collect();
    json(&CredentialView {
        object: "offpeak.credential",
        status: match refusals.is_empty() {
            true => "ok",
            false => "refused",
        },
        open_requests: edge.engine.open_requests(tenant),
        refusals,
    })
}

impl RefusalView {
    fn of(model: String, refusal: &Refusal) -> RefusalView {
        RefusalView {
            model,
            since: Shown(refusal.since),
            tried_again_at: Shown(refusal.look),
            answer: serde_json::from_slice(&refusal.body).ok(),
        }
    }
}

#[derive(Serialize)]
struct MovedView {
    object: &'static str,
    moved: bool,
    open_requests: u64,
}

/// The new key authenticates; the previous one is known by its fingerprint.
pub async fn move_here(
    State(edge): State<Arc<Edge>>,
    RawQuery(query): RawQuery,
    parts: Parts,
) -> Result<Response, ApiError> {
    let asked = query::moving(query.as_deref())?;
    let caller = auth::caller(&edge, &parts.headers, &parts.uri)?;
    if edge.engine.issues_keys() {
        let message = "This server issues the keys that it is called with, and its operator \
                       keeps the provider's. For another key: `offpeak keys create --tenant` \
                       with the name of this one's tenant, then `offpeak keys revoke`.";
        let status = StatusCode::CONFLICT;
        return Err(ApiError::invalid(status, "keys_are_issued", message));
    }
    if !auth::names_key(&caller.presented) {
        let message = "Send the key to move to: `Authorization: Bearer NEW_KEY`.";
        return Err(ApiError::unauthorized(message));
    }
    let Some(previous) = auth::single(&parts.headers, &PREVIOUS)? else {
        let message =
            "Send the key to move from: `Offpeak-Previous-Authorization: Bearer OLD_KEY`.";
        return Err(ApiError::bad("missing_header", message).param(PREVIOUS_SHOWN));
    };
    let previous = Credential {
        headers: vec![("authorization".to_owned(), previous.to_owned())],
        query: None,
    };
    if !auth::names_key(&previous) {
        let message = "The previous key is blank.";
        return Err(ApiError::bad("invalid_header", message).param(PREVIOUS_SHOWN));
    }
    let moved = edge.engine.move_tenant(&caller, &previous, asked).await;
    match moved {
        Ok(moved) => json(&MovedView {
            object: "offpeak.credential",
            moved: true,
            open_requests: moved.open_requests,
        }),
        Err(MoveError::Refused { body }) => Ok(forwarded(401, body)),
        Err(error) => Err(refused(error)),
    }
}

const PREVIOUS_SHOWN: &str = "Offpeak-Previous-Authorization";

fn refused(error: MoveError) -> ApiError {
    let conflict = |code, message| ApiError::invalid(StatusCode::CONFLICT, code, message);
    match error {
        MoveError::SameKey => conflict(
            "same_key",
            "Both keys are the same: there is nothing to move.",
        ),
        MoveError::UnknownPrevious => ApiError::invalid(
            StatusCode::NOT_FOUND,
            "unknown_previous_key",
            "Nothing was asked with the previous key, or it has moved already.",
        )
        .param(PREVIOUS_SHOWN),
        MoveError::InUse => conflict(
            "key_in_use",
            "The new key has requests of its own. Move before it is called with.",
        ),
        MoveError::OtherProject => conflict(
            "other_project",
            "The new key does not see the batches that run at the provider. Use one of the \
             same project, or wait until they have ended, or say ?force=true: then their \
             lines are asked again, and paid twice.",
        ),
        MoveError::Kept => conflict(
            "previous_key_kept",
            "The previous key is kept beside another. Move from that one.",
        ),
        MoveError::TooMany => ApiError::invalid(
            StatusCode::TOO_MANY_REQUESTS,
            "too_many_moves",
            "There were ten moves in a day.",
        ),
        MoveError::TooFast { wait } => ApiError::limited(
            "too_many_tries",
            "Six keys a minute may be tried. The last one was not.",
        )
        .retry_after(wait),
        MoveError::Unopened => ApiError::server(
            StatusCode::INTERNAL_SERVER_ERROR,
            "credential_unreadable",
            "What is kept of the previous key cannot be opened with this master key.",
        ),
        MoveError::Store(error) => error.into(),
        MoveError::Refused { .. } => ApiError::unauthorized("The provider refuses the new key."),
    }
}
