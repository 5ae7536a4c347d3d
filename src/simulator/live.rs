//! Calls answered at once: chat, responses, embeddings, completions, moderations.

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
    background,
    bill::Lane,
    draw::Draw,
    error::ApiError,
    faults::{self, Kind},
    front::Caller,
    log::Note,
    order::Order,
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
    let mut order = Order::read(sim, caller, &answer)?;
    let (number, run) = admit(sim, caller, &answer, text, limits)?;
    let mut draw = Draw::new(sim.settings.seed, "live", &number.to_le_bytes());
    if order.lane == Lane::Flex {
        find_capacity(sim, endpoint, &mut order, &mut draw)?;
    }
    let latency = &sim.settings.latency;
    let took = match order.lane {
        Lane::Flex => draw.lognormal(latency.flex_median, latency.flex_sigma),
        _ => draw.lognormal(latency.live_median, latency.live_sigma),
    } + answer.directive.slow;
    let failure = refusal(sim, &answer);
    let is_queued = order.background && !order.stream;
    if let Some(error) = &failure
        && !(is_queued && error.status.is_server_error())
    {
        sim.clock.sleep(took).await;
        return Err(error.clone());
    }
    let frame = Frame {
        run: &run,
        seed: sim.settings.seed,
        created: sim.now().as_secs(),
        tier: order.tier,
    };
    if is_queued {
        let queued = background::queue(sim, caller, &answer, &frame, order, failure, &mut draw);
        return Ok(Json(queued).into_response());
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

/// Refuses a flex call that there is no capacity for, or serves it on the default
/// tier, where chance or a fault says so.
fn find_capacity(
    sim: &Simulator,
    endpoint: Endpoint,
    order: &mut Order,
    draw: &mut Draw,
) -> Result<(), ApiError> {
    let strikes = |kind: &Kind| matches!(kind, Kind::FlexShortage | Kind::FlexAsDefault);
    let struck = sim.faults.lock().strike_lane(endpoint.operation(), strikes);
    let is_short = draw.unit() < sim.settings.limits.flex_shortage;
    match struck {
        Some(Kind::FlexAsDefault) => {
            order.lane = Lane::Standard;
            order.tier = "default";
            Ok(())
        }
        None if !is_short => Ok(()),
        _ => {
            let message = "Flex capacity is not available at the moment. Please try again later.";
            let status = StatusCode::TOO_MANY_REQUESTS;
            Err(ApiError::new(status, Some("resource_unavailable"), message))
        }
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
