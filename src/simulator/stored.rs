//! Stored answers: chat completions kept by `store:true`, and responses, whose
//! background ones pass through `queued` and `in_progress` on their way.

use std::collections::{BTreeSet, HashMap};

use axum::{
    Extension, Json,
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use http::StatusCode;
use serde_json::{Value, json};

use crate::model::time::Timestamp;

use super::{Sim, answers::Usage, bill::Lane, error::ApiError, front::Caller};

type Id = (String, String);

#[derive(Default)]
pub(super) struct Responses {
    by_id: HashMap<Id, StoredResponse>,
    due: BTreeSet<(Timestamp, Id)>,
}

pub(super) struct StoredResponse {
    /// As it is when completed.
    pub done: Value,
    /// As it is before, and when cancelled.
    pub waiting: Value,
    /// When it leaves the queue, and when it completes.
    pub starts_at: Timestamp,
    pub ends_at: Timestamp,
    /// What to charge on completion: model, lane, usage, fingerprint.
    pub charge: Option<(String, Lane, Usage, u128)>,
    pub cancelled: bool,
}

impl StoredResponse {
    pub fn object(&self, now: Timestamp) -> Value {
        if !self.cancelled && now >= self.ends_at {
            return self.done.clone();
        }
        let mut object = self.waiting.clone();
        object["status"] = match () {
            () if self.cancelled => "cancelled",
            () if now >= self.starts_at => "in_progress",
            () => "queued",
        }
        .into();
        object
    }
}

impl Responses {
    pub fn add(&mut self, key: &str, id: &str, response: StoredResponse) {
        let id = (key.to_owned(), id.to_owned());
        if response.charge.is_some() {
            self.due.insert((response.ends_at, id.clone()));
        }
        self.by_id.insert(id, response);
    }

    pub fn contains(&self, key: &str, id: &str) -> bool {
        self.by_id.contains_key(&(key.to_owned(), id.to_owned()))
    }

    /// The charges of those that completed by `now`.
    pub fn complete(&mut self, now: Timestamp) -> Vec<(String, String, Lane, Usage, u128)> {
        let mut charges = Vec::new();
        while self.due.first().is_some_and(|(at, _)| *at <= now) {
            let Some((_, id)) = self.due.pop_first() else {
                break;
            };
            let charge = self
                .by_id
                .get_mut(&id)
                .and_then(|stored| stored.charge.take());
            if let Some((model, lane, usage, fingerprint)) = charge {
                charges.push((id.0, model, lane, usage, fingerprint));
            }
        }
        charges
    }
}

pub(super) async fn get_response(
    State(sim): State<Sim>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let (world, now) = sim.world();
    let stored = world.responses.by_id.get(&(caller.key, id.clone()));
    let stored = stored.ok_or_else(|| response_not_found(&id))?;
    Ok(Json(stored.object(now)))
}

/// Idempotent: a finished or cancelled response answers as it is (WIRE.md §2).
pub(super) async fn cancel_response(
    State(sim): State<Sim>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let (mut world, now) = sim.world();
    let stored = world.responses.by_id.get_mut(&(caller.key, id.clone()));
    let stored = stored.ok_or_else(|| response_not_found(&id))?;
    if stored.done["background"] != true {
        let message = "Only background responses can be cancelled.";
        return Err(ApiError::new(StatusCode::BAD_REQUEST, None, message));
    }
    if now < stored.ends_at {
        stored.cancelled = true;
        stored.charge = None;
    }
    Ok(Json(stored.object(now)))
}

pub(super) async fn delete_response(
    State(sim): State<Sim>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let (mut world, _) = sim.world();
    match world.responses.by_id.remove(&(caller.key, id.clone())) {
        Some(_) => Ok(Json(
            json!({"id": id, "object": "response", "deleted": true}),
        )),
        None => Err(response_not_found(&id)),
    }
}

pub(super) async fn get_chat(
    State(sim): State<Sim>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Response {
    let (world, _) = sim.world();
    match world.chats.get(&(caller.key, id.clone())) {
        Some(chat) => Json(chat).into_response(),
        None => ApiError::not_found("chat completion", &id).into_response(),
    }
}

pub(super) async fn delete_chat(
    State(sim): State<Sim>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let (mut world, _) = sim.world();
    match world.chats.remove(&(caller.key, id.clone())) {
        Some(_) => {
            let object = "chat.completion.deleted";
            Ok(Json(json!({"id": id, "object": object, "deleted": true})))
        }
        None => Err(ApiError::not_found("chat completion", &id)),
    }
}

fn response_not_found(id: &str) -> ApiError {
    let message = format!("Response with id '{id}' not found.");
    ApiError::new(StatusCode::NOT_FOUND, None, message)
}
