//! Calls answered at once: chat, responses, embeddings, completions, moderations.

use std::time::Duration;

use axum::{
    Extension, Json,
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use serde_json::{Value, json};

use super::{
    Sim, Simulator,
    answers::{Answer, Endpoint},
    bill::Lane,
    draw::Draw,
    error::ApiError,
    faults,
    front::Caller,
    log::Note,
    rates::Bucket,
    shapes::{self, Frame},
    sse,
    stored::StoredResponse,
};

pub(super) async fn answer(
    State(sim): State<Sim>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
    body: Bytes,
) -> Response {
    let Some(endpoint) = Endpoint::of_path(uri.path()) else {
        return ApiError::not_found("endpoint", uri.path()).into_response();
    };
    let mut limits = HeaderMap::new();
    let mut response = match respond(&sim, &caller, endpoint, &body, &mut limits).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    };
    response.headers_mut().extend(limits);
    response
}

async fn respond(
    sim: &Sim,
    caller: &Caller,
    endpoint: Endpoint,
    body: &[u8],
    limits: &mut HeaderMap,
) -> Result<Response, ApiError> {
    let text = std::str::from_utf8(body).map_err(|_| {
        let message = "We could not parse the JSON body of your request.";
        ApiError::new(StatusCode::BAD_REQUEST, None, message)
    })?;
    let answer = Answer::to(endpoint, text, &sim.settings)?;
    let order = Order::read(sim, caller, &answer)?;
    let (number, run) = admit(sim, caller, &answer, text, limits)?;
    let mut draw = Draw::new(sim.settings.seed, "live", &number.to_le_bytes());
    if order.lane == Lane::Flex && draw.unit() < sim.settings.limits.flex_shortage {
        let message = "Flex capacity is not available at the moment. Please try again later.";
        let status = StatusCode::TOO_MANY_REQUESTS;
        return Err(ApiError::new(status, Some("resource_unavailable"), message));
    }
    let latency = &sim.settings.latency;
    let took = draw.lognormal(latency.live_median, latency.live_sigma) + answer.directive.slow;
    if let Some(error) = refusal(sim, &answer) {
        sim.clock.sleep(took).await;
        return Err(error);
    }
    let frame = Frame {
        run: &run,
        seed: sim.settings.seed,
        created: sim.now().as_secs(),
        tier: order.tier,
    };
    if order.background && !order.stream {
        return Ok(background(sim, caller, &answer, &frame, order, &mut draw));
    }
    let whole = shapes::whole(&answer, &frame);
    {
        let (mut world, _) = sim.world();
        world.charge(
            &caller.key,
            &answer.model,
            order.lane,
            &answer.usage,
            answer.fingerprint,
        );
    }
    if order.stream {
        let frames = sse::frames(&answer, &frame);
        sim.clock.sleep(took).await;
        keep(sim, caller, &answer, &whole);
        return Ok(streamed(sim.clone(), frames));
    }
    sim.clock.sleep(took).await;
    keep(sim, caller, &answer, &whole);
    Ok(Json(whole).into_response())
}

/// How the call wants to be run.
#[derive(Clone, Copy)]
struct Order {
    lane: Lane,
    tier: &'static str,
    stream: bool,
    background: bool,
    /// The completion window of a background call.
    window: Option<Duration>,
}

impl Order {
    fn read(sim: &Simulator, caller: &Caller, answer: &Answer) -> Result<Self, ApiError> {
        let body = &answer.body;
        let (mut lane, tier) = match body.text("service_tier").as_deref() {
            None | Some("auto" | "default") => (Lane::Standard, "default"),
            Some("priority") => (Lane::Priority, "priority"),
            Some("flex") if sim.settings.models[&answer.model].flex => (Lane::Flex, "flex"),
            Some(tier) => {
                let message = format!("Invalid service_tier argument: '{tier}' for this model.");
                return Err(ApiError::invalid(
                    "service_tier",
                    Some("invalid_value"),
                    message,
                ));
            }
        };
        let takes_background = answer.endpoint == Endpoint::Responses;
        let background = takes_background && body.is_true("background");
        let options: Value = body.get("background_options").unwrap_or_default();
        let window = options["completion_window"].as_str();
        let stream = body.is_true("stream")
            && !matches!(
                answer.endpoint,
                Endpoint::Embeddings | Endpoint::Moderations
            );
        let refuse = |param: &str, message: &str| {
            Err(ApiError::invalid(param, Some("invalid_value"), message))
        };
        if background {
            if body.get("store") == Some(false) {
                return refuse("background", "Background mode requires store=true.");
            }
            if window.is_some() && stream {
                return refuse("stream", "A completion window cannot be streamed.");
            }
            lane = match (window, lane) {
                (None, Lane::Standard) => Lane::Background,
                (None, lane) => lane,
                (Some("8h"), Lane::Standard) => Lane::Background8h,
                (Some("2h"), Lane::Standard) => Lane::Background2h,
                _ => {
                    let param = "background_options.completion_window";
                    return refuse(param, "Takes '8h' or '2h' on the standard tier.");
                }
            };
        }
        if takes_background
            && let Some(previous) = body.text("previous_response_id")
            && !sim.world().0.responses.contains(&caller.key, &previous)
        {
            let message = format!("Previous response with id '{previous}' not found.");
            let code = Some("previous_response_not_found");
            return Err(ApiError::invalid("previous_response_id", code, message));
        }
        let hours = match lane {
            Lane::Background8h => Some(8),
            Lane::Background2h => Some(2),
            _ => None,
        };
        Ok(Order {
            lane,
            tier,
            stream,
            background,
            window: hours.map(|hours| Duration::from_secs(hours * 3600)),
        })
    }
}

/// Passes the rate limits, enters the log; returns the call's number and unique name.
fn admit(
    sim: &Simulator,
    caller: &Caller,
    answer: &Answer,
    text: &str,
    headers: &mut HeaderMap,
) -> Result<(u64, String), ApiError> {
    let limits = &sim.settings.limits;
    let (mut world, now) = sim.world();
    let scope = (caller.org.clone(), answer.model.clone());
    let bucket = world
        .buckets
        .entry(scope)
        .or_insert_with(|| Bucket::full(limits, now));
    let tokens = answer.usage.prompt + answer.usage.completion;
    let (told, taken) = bucket.take(tokens, limits, &sim.clock);
    *headers = told;
    taken?;
    if sim.settings.log_requests {
        let body = sim.settings.keep_bodies.then_some(text);
        world
            .journal
            .saw(Note::of(answer.fingerprint, &answer.questions, body));
    }
    world.live_calls += 1;
    let number = world.live_calls;
    Ok((number, world.id("live ", number)))
}

/// The error that the request itself asked for.
fn refusal(sim: &Simulator, answer: &Answer) -> Option<ApiError> {
    let (mut world, _) = sim.world();
    let flaky = world.still_flaky(answer.fingerprint, answer.directive.flaky);
    let status = match answer.directive.status {
        _ if flaky => 500,
        Some(200) | None => return None,
        Some(status) => status,
    };
    world.journal.failed(answer.fingerprint);
    Some(ApiError::scripted(faults::status(status)))
}

/// Stores what the caller asked to be stored; responses are unless they say no.
fn keep(sim: &Simulator, caller: &Caller, answer: &Answer, whole: &Value) {
    let store: Option<bool> = answer.body.get("store");
    let Some(id) = whole["id"].as_str() else {
        return;
    };
    let (mut world, now) = sim.world();
    match answer.endpoint {
        Endpoint::Chat if store == Some(true) => {
            let mut stored = whole.clone();
            stored["metadata"] = answer.body.get("metadata").unwrap_or(json!({}));
            world
                .chats
                .insert((caller.key.clone(), id.to_owned()), stored);
        }
        Endpoint::Responses if store != Some(false) => {
            let stored = StoredResponse {
                done: whole.clone(),
                waiting: whole.clone(),
                starts_at: now,
                ends_at: now,
                charge: None,
                cancelled: false,
            };
            world.responses.add(&caller.key, id, stored);
        }
        _ => {}
    }
}

/// Queues a background response. One with a completion window always meets it.
fn background(
    sim: &Simulator,
    caller: &Caller,
    answer: &Answer,
    frame: &Frame,
    order: Order,
    draw: &mut Draw,
) -> Response {
    let latency = &sim.settings.latency;
    let took = match order.window {
        None => draw.lognormal(latency.background_median, latency.live_sigma),
        Some(window) => draw
            .lognormal(latency.turnaround_median, latency.turnaround_sigma)
            .min(window),
    } + answer.directive.slow;
    let now = sim.now();
    let stored = StoredResponse {
        done: shapes::whole(answer, frame),
        waiting: shapes::response(answer, frame, "queued"),
        starts_at: now + took / 4,
        ends_at: now + took,
        charge: Some((
            answer.model.clone(),
            order.lane,
            answer.usage,
            answer.fingerprint,
        )),
        cancelled: false,
    };
    let object = stored.object(now);
    let (mut world, _) = sim.world();
    world.responses.add(&caller.key, &frame.id("resp_"), stored);
    Json(object).into_response()
}

fn streamed(sim: Sim, frames: Vec<Bytes>) -> Response {
    let frames = stream::unfold(
        (sim, frames.into_iter(), false),
        |(sim, mut frames, begun)| async move {
            let frame = frames.next()?;
            if begun {
                sim.clock.sleep(sim.settings.latency.live_chunk).await;
            }
            Some((
                Ok::<_, std::convert::Infallible>(frame),
                (sim, frames, true),
            ))
        },
    );
    let mut response = Body::from_stream(frames).into_response();
    let headers = response.headers_mut();
    let kind = HeaderValue::from_static("text/event-stream; charset=utf-8");
    headers.insert(header::CONTENT_TYPE, kind);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}
