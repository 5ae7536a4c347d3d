//! `POST /v1/batches`: what is refused at once, and what becomes of the rest.

use std::{sync::Arc, time::Duration};

use axum::{Extension, extract::State, response::Response};
use bytes::Bytes;
use http::StatusCode;
use serde::Deserialize;
use serde_json::Value;

use crate::model::time::Timestamp;

use super::{
    Sim, Simulator,
    batches::{reply, too_many},
    blob::Blob,
    course::{Course, Quirks, draw_ends},
    draw::Draw,
    error::ApiError,
    files,
    front::{Caller, Struck},
    job::{Fate, Job},
    output::{Content, Run},
    validate::{ENDPOINTS, LineError, Scan, scan},
    world::{World, expiry},
};

/// Inputs up to this size are validated on the spot, larger ones on a thread for
/// blocking work. The reply waits for it either way, so that a batch's course never
/// depends on how fast this machine reads.
const QUICK: u64 = 256 * 1024;

#[derive(Deserialize)]
struct Create {
    input_file_id: Option<Value>,
    endpoint: Option<Value>,
    completion_window: Option<Value>,
    metadata: Option<Value>,
    output_expires_after: Option<Value>,
}

struct Wish {
    input_file_id: String,
    endpoint: String,
    metadata: Option<Value>,
    output_expires_after: Option<Duration>,
}

pub(super) async fn create(
    State(sim): State<Sim>,
    Extension(caller): Extension<Caller>,
    Extension(struck): Extension<Struck>,
    body: Bytes,
) -> Result<Response, ApiError> {
    let wish = Wish::read(&body)?;
    let input = {
        let (mut world, _) = sim.world();
        let limit = sim.settings.limits.batch_creates_per_hour;
        let window = world.creates.entry(caller.org.clone()).or_default();
        window
            .take(sim.now(), limit, Duration::from_secs(3600))
            .map_err(|wait| too_many(&sim, wait, "batch creates per hour"))?;
        let file = world.file(&caller.key, &wish.input_file_id);
        match file.map(|file| (&file.content, file.purpose.as_str())) {
            Some((Content::Stored(blob), "batch")) => Some(blob.clone()),
            _ => None,
        }
    };
    let scanned = match &input {
        Some(input) => Some(validate(&sim, input.clone(), &wish.endpoint).await?),
        None => None,
    };
    let (mut world, now) = sim.world();
    let quirks = Quirks::of(struck.0.as_ref(), now);
    let index = world.jobs.len();
    let number = index as u64;
    let id = world.id("batch_", number);
    let (scan, fate) = match (input, scanned) {
        (Some(input), Some(Ok(scan))) => {
            let draft = Draft {
                id: &id,
                number,
                org: &caller.org,
                endpoint: &wish.endpoint,
                quirks: &quirks,
                now,
            };
            draft.plan(&sim, &mut world, input, scan)
        }
        (_, Some(Err(mut errors))) => {
            if !sim.settings.names_lines {
                errors.iter_mut().for_each(|error| error.line = None);
            }
            (Scan::default(), invalid(&sim, number, now, errors))
        }
        _ => {
            let message = format!("The file '{}' was not found.", wish.input_file_id);
            let error = whole("invalid_request", message, Some("file_id"));
            (Scan::default(), invalid(&sim, number, now, vec![error]))
        }
    };
    for (custom_id, note) in scan.notes {
        world.journal.submitted(note, custom_id, index as u32);
    }
    let job = Job {
        id: id.clone(),
        key: caller.key,
        org: caller.org,
        endpoint: wish.endpoint,
        input_file_id: wish.input_file_id,
        metadata: wish.metadata.filter(|_| sim.settings.keeps_metadata),
        output_expires_after: wish.output_expires_after,
        model: scan.model,
        enqueued: scan.prompt_tokens,
        created_at: now,
        expires_at: now + quirks.window(),
        fate,
        cancel: None,
        quirks,
        settled: None,
    };
    world.open.insert((job.terminal_at(), index));
    world.job_ids.insert(id, index);
    let reply = reply(&job, now);
    world.jobs.push(job);
    sim.changed.notify_one();
    Ok(reply)
}

impl Wish {
    fn read(body: &[u8]) -> Result<Self, ApiError> {
        let create: Create = serde_json::from_slice(body).map_err(|_| {
            let message = "We could not parse the JSON body of your request.";
            ApiError::new(StatusCode::BAD_REQUEST, None, message)
        })?;
        let endpoint = text(create.endpoint, "endpoint")?;
        if !ENDPOINTS.contains(&endpoint.as_str()) {
            let message =
                format!("Invalid value: '{endpoint}'. Supported values are {ENDPOINTS:?}.");
            return Err(ApiError::invalid(
                "endpoint",
                Some("invalid_value"),
                message,
            ));
        }
        let window = text(create.completion_window, "completion_window")?;
        if window != "24h" {
            let message = format!("Invalid value: '{window}'. Supported values are: '24h'.");
            return Err(ApiError::invalid(
                "completion_window",
                Some("invalid_value"),
                message,
            ));
        }
        let expires = create.output_expires_after;
        Ok(Wish {
            input_file_id: text(create.input_file_id, "input_file_id")?,
            endpoint,
            metadata: create.metadata.map(check_metadata).transpose()?,
            output_expires_after: expires.map(|wish| output_expiry(&wish)).transpose()?,
        })
    }
}

fn text(value: Option<Value>, name: &str) -> Result<String, ApiError> {
    match value {
        Some(Value::String(text)) => Ok(text),
        None | Some(Value::Null) => Err(ApiError::missing(name)),
        Some(_) => {
            let message = format!("Invalid type for '{name}': expected a string.");
            Err(ApiError::invalid(name, Some("invalid_type"), message))
        }
    }
}

/// At most 16 pairs, keys of 64 and values of 512 characters.
fn check_metadata(metadata: Value) -> Result<Value, ApiError> {
    let refuse = |message: &str| ApiError::invalid("metadata", Some("invalid_value"), message);
    let pairs = metadata
        .as_object()
        .ok_or_else(|| refuse("'metadata' must be an object."))?;
    if pairs.len() > 16 {
        return Err(refuse("'metadata' may have at most 16 pairs."));
    }
    for (key, value) in pairs {
        let value = value
            .as_str()
            .ok_or_else(|| refuse("'metadata' values must be strings."))?;
        if key.chars().count() > 64 || value.chars().count() > 512 {
            return Err(refuse(
                "'metadata' keys have at most 64 characters, values 512.",
            ));
        }
    }
    Ok(metadata)
}

fn output_expiry(wish: &Value) -> Result<Duration, ApiError> {
    let seconds = wish["seconds"].as_u64().and_then(expiry);
    match seconds.filter(|_| wish["anchor"] == "created_at") {
        Some(after) => Ok(after),
        None => {
            let message =
                "'output_expires_after' takes anchor 'created_at' and 3600 to 2592000 seconds.";
            Err(ApiError::invalid(
                "output_expires_after",
                Some("invalid_value"),
                message,
            ))
        }
    }
}

async fn validate(
    sim: &Sim,
    input: Arc<Blob>,
    endpoint: &str,
) -> Result<Result<Scan, Vec<LineError>>, ApiError> {
    if input.len() <= QUICK {
        return scan(&input, endpoint, &sim.settings).map_err(files::broken);
    }
    let (settings, endpoint) = (sim.settings.clone(), endpoint.to_owned());
    let scanning = tokio::task::spawn_blocking(move || scan(&input, &endpoint, &settings));
    let scanned = scanning
        .await
        .map_err(|error| files::broken(error.into()))?;
    scanned.map_err(files::broken)
}

fn whole(code: &str, message: String, param: Option<&str>) -> LineError {
    LineError {
        code: code.to_owned(),
        line: None,
        message,
        param: param.map(str::to_owned),
    }
}

fn validation(sim: &Simulator, batch: u64) -> Duration {
    let mut draw = Draw::new(sim.settings.seed, "validation", &batch.to_le_bytes());
    draw.lognormal(sim.settings.latency.validation, 0.3)
}

fn invalid(sim: &Simulator, batch: u64, now: Timestamp, errors: Vec<LineError>) -> Fate {
    Fate::Invalid {
        at: now + validation(sim, batch),
        errors,
    }
}

/// A batch about to be made.
struct Draft<'a> {
    id: &'a str,
    number: u64,
    org: &'a str,
    endpoint: &'a str,
    quirks: &'a Quirks,
    now: Timestamp,
}

impl Draft<'_> {
    /// Draws a valid input's course, unless a fault or the enqueued-token limit fails it.
    fn plan(
        &self,
        sim: &Simulator,
        world: &mut World,
        input: Arc<Blob>,
        mut scan: Scan,
    ) -> (Scan, Fate) {
        if let Some(error) = self.failure(sim, world, &scan) {
            scan.prompt_tokens = 0;
            return (scan, invalid(sim, self.number, self.now, vec![error]));
        }
        for line in &mut scan.lines {
            let flaky = line.steer.as_ref().map_or(0, |steer| steer.flaky);
            if line.status == 200 && world.still_flaky(line.fingerprint, flaky) {
                line.status = 500;
            }
        }
        let lines = std::mem::take(&mut scan.lines);
        let run = Run {
            batch: self.id.to_owned(),
            endpoint: self.endpoint.to_owned(),
            input,
            began: self.now + validation(sim, self.number),
            ends: draw_ends(&lines, self.number, self.quirks, &sim.settings),
            lines,
        };
        let finalizing = sim.settings.latency.finalizing + self.quirks.finalizes_slower;
        (scan, Fate::Runs(Course::new(run, finalizing)))
    }

    fn failure(&self, sim: &Simulator, world: &World, scan: &Scan) -> Option<LineError> {
        if let Some(code) = &self.quirks.fails_with {
            let message = "The simulator was told to fail this batch.";
            return Some(whole(code, message.to_owned(), None));
        }
        let model = scan.model.as_deref().unwrap_or_default();
        let limit = sim.settings.limits.enqueued_tokens;
        if world.enqueued(self.org, model) + scan.prompt_tokens <= limit {
            return None;
        }
        let message = format!(
            "Enqueued token limit reached for {model}. Limit: {limit} enqueued tokens. \
             Please try again once some in_progress batches have been completed."
        );
        Some(whole("token_limit_exceeded", message, None))
    }
}
