//! `/v1/batches`: get, cancel and list (WIRE.md §1).

use std::time::Duration;

use axum::{
    Extension, Json,
    extract::{Path, Query, State},
    response::{IntoResponse, Response},
};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json, value::to_raw_value};

use crate::model::time::Timestamp;

use super::{
    Sim, Simulator,
    error::ApiError,
    faults::Kind,
    files,
    front::{Caller, Struck},
    job::{Cancel, Job, Status},
};

pub(super) fn too_many(sim: &Simulator, wait: Duration, what: &str) -> ApiError {
    let message = format!("Rate limit reached for {what}. Please try again later.");
    let code = Some("rate_limit_exceeded");
    let millis = u64::try_from(sim.clock.real(wait).as_millis()).unwrap_or(u64::MAX);
    ApiError::new(StatusCode::TOO_MANY_REQUESTS, code, message).after_ms(millis.max(1))
}

pub(super) fn reply(job: &Job, now: Timestamp) -> Response {
    Json(job.object(now)).into_response()
}

fn no_such_batch(id: &str) -> ApiError {
    ApiError::not_found("batch", id)
}

pub(super) async fn get(
    State(sim): State<Sim>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let (world, now) = sim.world();
    let index = world.job_ids.get(&id).ok_or_else(|| no_such_batch(&id))?;
    let job = &world.jobs[*index];
    if job.key != caller.key || job.quirks.hidden_until > now {
        return Err(no_such_batch(&id));
    }
    Ok(reply(job, now))
}

pub(super) async fn cancel(
    State(sim): State<Sim>,
    Extension(caller): Extension<Caller>,
    Extension(struck): Extension<Struck>,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let (mut world, now) = sim.world();
    let index = *world.job_ids.get(&id).ok_or_else(|| no_such_batch(&id))?;
    let job = &mut world.jobs[index];
    if job.key != caller.key || job.quirks.hidden_until > now {
        return Err(no_such_batch(&id));
    }
    let status = job.status(now);
    let in_flight = match status {
        Status::Cancelling | Status::Cancelled => return Ok(reply(job, now)),
        Status::Validating => Duration::ZERO,
        Status::InProgress => sim.settings.latency.cancel_in_flight,
        _ => {
            let message = format!("Cannot cancel a batch with status '{}'.", status.name());
            return Err(ApiError::new(StatusCode::CONFLICT, None, message));
        }
    };
    let slower = match struck.0 {
        Some(Kind::SlowCancel { by }) => by,
        _ => Duration::ZERO,
    };
    let before = job.terminal_at();
    let done = now + sim.settings.latency.cancel + slower;
    job.cancel = Some(Cancel {
        at: now,
        done,
        cutoff: done.min(now + in_flight),
    });
    let reply = reply(job, now);
    world.open.remove(&(before, index));
    world.open.insert((done, index));
    sim.changed.notify_one();
    Ok(reply)
}

#[derive(Deserialize)]
pub(super) struct ListBatches {
    after: Option<String>,
    limit: Option<usize>,
}

/// Newest first.
pub(super) async fn list(
    State(sim): State<Sim>,
    Extension(caller): Extension<Caller>,
    Extension(struck): Extension<Struck>,
    Query(query): Query<ListBatches>,
) -> Result<Json<Value>, ApiError> {
    let limit = query.limit.unwrap_or(20);
    if !(1..=100).contains(&limit) {
        let message = "'limit' must be between 1 and 100.";
        return Err(ApiError::invalid("limit", Some("invalid_value"), message));
    }
    let (world, now) = sim.world();
    let before = struck.visible_until(now);
    let end = match &query.after {
        None => world.jobs.len(),
        Some(after) => match world.job_ids.get(after) {
            Some(index) if world.jobs[*index].key == caller.key => *index,
            _ => return Err(no_such_batch(after)),
        },
    };
    let mut visible = world.jobs[..end].iter().rev().filter(|job| {
        job.key == caller.key && job.created_at <= before && job.quirks.unlisted_until <= now
    });
    let page: Vec<&Job> = visible.by_ref().take(limit).collect();
    let data: Result<Vec<_>, _> = page
        .iter()
        .map(|job| to_raw_value(&job.object(now)))
        .collect();
    let data = data.map_err(|error| files::broken(error.into()))?;
    Ok(Json(json!({
        "object": "list",
        "first_id": page.first().map(|job| &job.id),
        "last_id": page.last().map(|job| &job.id),
        "has_more": visible.next().is_some(),
        "data": data,
    })))
}
