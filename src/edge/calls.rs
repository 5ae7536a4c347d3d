//! Calls with a deadline, and the few others that [`super::route`] cannot tell
//! from them: read, checked, and taken in; or passed through.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, StatusCode, Uri, header, request::Parts, uri::PathAndQuery,
};

use super::{
    Edge,
    ask::{self, Ask},
    auth,
    errors::{self, ApiError},
    hold::{self, Held},
    outcome,
    passthrough::Passthrough,
    poll, read,
    route::{DEADLINE, DEADLINE_ALIAS},
    stream,
    stub::{self, Facts},
};
use crate::{
    engine::{AdmitError, Admitted, Call, Caller, Refused},
    model::{
        body::{self, Edit, Scan, Strip},
        deadline,
        endpoint::Endpoint,
        id::{RequestId, RequestKey},
        line::line_length,
        request::{Framing, Shape, State as RequestState},
        time::Timestamp,
    },
    ports::{Content, StoreError},
};

/// Every path that is not Offpeak's own.
pub async fn handle(State(edge): State<Arc<Edge>>, request: Request) -> Response {
    let (mut parts, body) = request.into_parts();
    let most = edge.engine.settings().admission.max_body_bytes;
    let way = match way(&edge, &mut parts) {
        Ok(way) => way,
        Err(error) => {
            read::discard(body, most).await;
            return error.into_response();
        }
    };
    match way {
        Way::Through(reason) => Box::pin(through(&edge, parts, body, reason)).await,
        Way::Ours(target) => {
            let (headers, uri) = (parts.headers, parts.uri);
            read::discard(body, most).await;
            let answered = Box::pin(poll::answer(edge, target, headers, uri)).await;
            answered.unwrap_or_else(IntoResponse::into_response)
        }
        Way::Defer(endpoint, deadline) => defer(edge, parts, body, endpoint, deadline).await,
    }
}

/// Where a call goes.
enum Way {
    /// Upstream; with a deadline, and why it does not count.
    Through(Option<&'static str>),
    /// It asks about one of our ids.
    Ours(poll::Target),
    Defer(Endpoint, Timestamp),
}

/// Takes `/within/…` off the path.
fn way(edge: &Edge, parts: &mut Parts) -> Result<Way, ApiError> {
    let within = take_prefix(&mut parts.uri)?;
    if let Some(target) = poll::target(&parts.method, parts.uri.path()) {
        return target.map(Way::Ours);
    }
    let names_ours = |pair: &str| {
        pair.split_once('=')
            .is_some_and(|(_, id)| id.parse::<RequestId>().is_ok())
    };
    if parts
        .uri
        .query()
        .is_some_and(|query| query.split('&').any(names_ours))
    {
        return Err(ApiError::not_found(
            "Offpeak's own ids (`op_…`) are unknown to the provider, and cannot stand in a query.",
        ));
    }
    let settings = &edge.settings.deadline;
    let lines = [DEADLINE, DEADLINE_ALIAS]
        .into_iter()
        .flat_map(|name| parts.headers.get_all(name))
        .map(|value| value.as_bytes());
    let now = edge.engine.now();
    let Some(deadline) = deadline::resolve(lines, within.as_deref(), now, settings.max)? else {
        return Ok(Way::Through(None));
    };
    match deferrable(edge, parts) {
        Some(endpoint) => Ok(Way::Defer(endpoint, deadline)),
        None if settings.strict => Err(ApiError::bad(
            "not_deferrable",
            format!(
                "{} {} cannot have a deadline: no batch takes it. Accepted: POST to {}, \
                 or the call without a deadline.",
                parts.method,
                parts.uri.path(),
                edge.engine.settings().admission.endpoints.join(", "),
            ),
        )
        .param("Offpeak-Deadline")),
        None => Ok(Way::Through(Some("not-deferrable"))),
    }
}

/// What a batch line can say of a call: an endpoint that is on the list, and no
/// query but the credential's.
fn deferrable(edge: &Edge, parts: &Parts) -> Option<Endpoint> {
    let endpoint =
        Endpoint::from_path(parts.uri.path()).filter(|_| parts.method == Method::POST)?;
    let listed = &edge.engine.settings().admission.endpoints;
    let query = parts.uri.query().unwrap_or_default();
    let plain = query.is_empty() || query.split('&').all(auth::is_api_version);
    let found = listed.iter().any(|one| one == endpoint.path());
    (found && plain).then_some(endpoint)
}

/// `/within/6h/v1/x` becomes `/v1/x` and `6h`.
fn take_prefix(uri: &mut Uri) -> Result<Option<String>, ApiError> {
    let Some(rest) = uri.path().strip_prefix("/within/") else {
        return Ok(None);
    };
    let not_found = || {
        ApiError::not_found(
            "Accepted below /within/: a deadline and then the API's path, as in /within/6h/v1.",
        )
    };
    let (segment, path) = rest
        .find('/')
        .map(|at| rest.split_at(at))
        .ok_or_else(not_found)?;
    if path != "/v1" && !path.starts_with("/v1/") {
        return Err(not_found());
    }
    let segment = segment.to_owned();
    let path = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    *uri = PathAndQuery::from_maybe_shared(Bytes::from(path))
        .map_err(|_| not_found())?
        .into();
    Ok(Some(segment))
}

/// Passes a call on as if it had no deadline.
async fn through(
    edge: &Edge,
    mut parts: Parts,
    body: Body,
    reason: Option<&'static str>,
) -> Response {
    strip_ours(&mut parts.headers);
    // The server's own, for its thread's connections.
    let own = parts.extensions.remove::<Arc<Passthrough>>();
    let passthrough = own.as_deref().unwrap_or(&edge.passthrough);
    let response = passthrough.forward(Request::from_parts(parts, body)).await;
    let mut response = response.map(Body::new);
    if let Some(reason) = reason {
        response
            .headers_mut()
            .insert("offpeak-reason", stub::safe(reason));
    }
    response
}

fn strip_ours(headers: &mut HeaderMap) {
    let ours: Vec<_> = headers
        .keys()
        .filter(|name| name.as_str().starts_with("offpeak-") || **name == DEADLINE_ALIAS)
        .cloned()
        .collect();
    for name in ours {
        headers.remove(name);
    }
}

/// Takes the call in and answers it. Whatever is over before the caller waits is
/// boxed, here and in [`hold`], so that a held call does not carry its room along.
async fn defer(
    edge: Arc<Edge>,
    parts: Parts,
    body: Body,
    endpoint: Endpoint,
    deadline: Timestamp,
) -> Response {
    let admission = Box::pin(admit(&edge, parts, body, endpoint, deadline)).await;
    let (admitted, reply) = match admission {
        Ok(admitted) => admitted,
        Err(response) => return *response,
    };
    let Admitted {
        request,
        hold,
        joined,
        guarantee,
    } = admitted;
    let engine = edge.engine.clone();
    match reply.held {
        false => {
            let held = Held::new(engine, request, hold, joined, guarantee);
            match joined {
                true => Box::pin(held.accepted(&edge, reply.prefer)).await,
                false => at_once(&edge, held, reply.prefer),
            }
        }
        true => {
            let held = Held::new(engine, request, hold, joined, guarantee);
            match reply.shape {
                Shape::Stream { include_usage } => {
                    stream::hold(edge, held, reply.prefer, include_usage).await
                }
                Shape::Plain | Shape::Background => hold::hold(edge, held, reply.prefer).await,
            }
        }
    }
}

/// 202 for what was admitted just now.
fn at_once(edge: &Edge, held: Held, prefer: super::prefer::Preference) -> Response {
    let facts = Facts::admitted(&held.request, held.guarantee);
    let bytes = stub::body(&facts);
    let response = stub::accepted_with(edge, &facts, prefer, Body::empty());
    response.map(|_| held.deliver(bytes))
}

/// How the caller wants to be answered.
struct Reply {
    held: bool,
    shape: Shape,
    prefer: super::prefer::Preference,
}

/// The error is a whole response: a refusal, or the call passed through.
async fn admit(
    edge: &Arc<Edge>,
    mut parts: Parts,
    body: Body,
    endpoint: Endpoint,
    deadline: Timestamp,
) -> Result<(Admitted, Reply), Box<Response>> {
    let refuse = |error: ApiError| Box::new(error.into_response());
    let most = edge.engine.settings().admission.max_body_bytes;
    if let Err(error) = ask::plain_body(&parts.headers) {
        read::discard(body, most).await;
        return Err(refuse(error));
    }
    let body = read::read(body, most).await.map_err(refuse)?;
    let (call, reply) = prepare(edge, &parts, &body, endpoint, deadline)
        .await
        .map_err(refuse)?;
    // The provider knows none of our ids: passed on is what it would have been sent.
    let body = call.body.clone();
    let leaves = call.webhook.is_some() || !reply.held || reply.prefer.respond_async;
    match edge.engine.admit(call).await {
        Ok(admitted) => Ok((admitted, reply)),
        Err(AdmitError::Refused(Refused::PassThrough)) if leaves => {
            Err(refuse(queue_full(edge).into()))
        }
        Err(AdmitError::Refused(Refused::PassThrough)) => {
            if parts.headers.contains_key(header::CONTENT_LENGTH) {
                let length = HeaderValue::from(body.len());
                parts.headers.insert(header::CONTENT_LENGTH, length);
            }
            let body = Body::from(body);
            Err(Box::new(
                through(edge, parts, body, Some("queue-full")).await,
            ))
        }
        Err(AdmitError::Store(StoreError::Closed)) if edge.stopping.is_cancelled() => {
            Err(refuse(ApiError::shutting_down()))
        }
        Err(error) => Err(Box::new(errors::not_admitted(error))),
    }
}

/// For who does not wait on the line: a call that is passed on could not answer
/// it the way it asked for.
fn queue_full(edge: &Edge) -> Refused {
    let linger = edge.engine.settings().packing.linger;
    Refused::QueueFull {
        open: edge.engine.counts().open(),
        retry_after: linger.max(Duration::from_secs(1)),
    }
}

async fn prepare(
    edge: &Edge,
    parts: &Parts,
    body: &Bytes,
    endpoint: Endpoint,
    deadline: Timestamp,
) -> Result<(Call, Reply), ApiError> {
    let ask = Ask::read(&parts.headers, edge.settings.hold.max_wait)?;
    let scan = body::scan(body, endpoint)?;
    let held = ask.held(&scan, endpoint)?;
    if let Some(target) = &ask.webhook {
        let checked = edge.engine.check_webhook(target);
        checked.map_err(|reason| ask::bad_webhook(&reason))?;
    }
    let mut credential = auth::credential(&parts.headers, &parts.uri)?;
    let unnamed = || (!scan.names_model).then(|| "a batch line must name its model".to_owned());
    let live_only = auth::live_only(&parts.headers, &mut credential)?.or_else(unnamed);
    let caller = edge.engine.caller(credential);
    let body = resolved(edge, &caller, &scan, body).await?;
    let shape = shape(&scan, endpoint);
    let reply = Reply {
        held,
        shape,
        prefer: ask.prefer,
    };
    let call = Call {
        line_bytes: line_bytes(&body, endpoint)?,
        caller,
        endpoint,
        model: scan.model,
        body,
        inputs: scan.inputs,
        shape,
        deadline,
        on_late: ask.on_late,
        tag: ask.tag,
        webhook: ask.webhook,
        idempotency_key: ask.idempotency_key,
        held,
        retry: ask.retry,
        live_only,
        strict: edge.settings.deadline.strict,
    };
    Ok((call, reply))
}

fn shape(scan: &Scan, endpoint: Endpoint) -> Shape {
    match () {
        () if scan.stream => Shape::Stream {
            include_usage: scan.include_usage,
        },
        () if scan.background && endpoint == Endpoint::Responses => Shape::Background,
        () => Shape::Plain,
    }
}

/// Bytes of the line that the body makes.
fn line_bytes(body: &[u8], endpoint: Endpoint) -> Result<u32, ApiError> {
    let mut line = Vec::new();
    body::batch_body(body, &mut line)?;
    u32::try_from(line_length(endpoint, line.len())).map_err(|_| {
        let message = "The body is too large for a batch line.";
        ApiError::invalid(StatusCode::PAYLOAD_TOO_LARGE, "request_too_large", message)
    })
}

/// The body with the provider's id in the place of an `op_…` one, which the
/// provider does not know.
async fn resolved(
    edge: &Edge,
    caller: &Caller,
    scan: &Scan,
    body: &Bytes,
) -> Result<Bytes, ApiError> {
    let ours = scan.previous_response_id.as_deref();
    let Some(text) = ours.filter(|id| id.starts_with(RequestId::PREFIX)) else {
        return Ok(body.clone());
    };
    let refuse = |code, why: &str| {
        ApiError::bad(code, format!("previous_response_id `{text}` {why}"))
            .param("previous_response_id")
    };
    let unknown = || refuse("previous_response_not_found", "is no response of this key.");
    let key = RequestKey {
        tenant: caller.tenant,
        id: text.parse().map_err(|_| unknown())?,
    };
    let stored = edge.engine.load(key).await?.ok_or_else(unknown)?;
    if stored.request.endpoint != Endpoint::Responses {
        return Err(unknown());
    }
    let Content::Done { outcome, answer } = stored.content else {
        let why = "has no answer yet. Accepted: the id of a response that is completed.";
        return Err(refuse("previous_response_not_ready", why));
    };
    let answer = match outcome.framing {
        _ if outcome.state != RequestState::Succeeded => None,
        Framing::Json => Some(answer),
        Framing::EventStream => outcome::assembled(Endpoint::Responses, &answer).ok(),
    };
    let Some(provider_id) = answer.and_then(|answer| response_id(&answer)) else {
        let why = "ended without a response to go on from.";
        return Err(refuse("previous_response_failed", why));
    };
    let edit = Edit {
        previous_response_id: Some(&provider_id),
        ..Edit::strip(Strip::NOTHING)
    };
    let mut edited = Vec::new();
    body::line_body(body, &edit, &mut edited)?;
    Ok(edited.into())
}

fn response_id(answer: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Response {
        id: String,
    }
    let response: Response = serde_json::from_slice(answer).ok()?;
    Some(response.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefix_comes_off_and_the_query_stays() {
        for (uri, segment, left) in [
            ("/within/6h/v1/models", Some("6h"), "/v1/models"),
            (
                "/within/1day%202h/v1/a?b=%20c",
                Some("1day%202h"),
                "/v1/a?b=%20c",
            ),
            ("/within/6h/v1", Some("6h"), "/v1"),
            ("/v1/within/6h", None, "/v1/within/6h"),
        ] {
            let mut uri: Uri = uri.parse().unwrap();
            let taken = take_prefix(&mut uri).unwrap();
            assert_eq!(
                (taken.as_deref(), uri.to_string().as_str()),
                (segment, left)
            );
        }
        for uri in [
            "/within/6h",
            "/within/6h/",
            "/within/6h/metrics",
            "/within/6h/v10",
        ] {
            assert!(take_prefix(&mut uri.parse().unwrap()).is_err(), "{uri}");
        }
    }

    #[test]
    fn what_is_ours_does_not_go_upstream() {
        let mut headers = HeaderMap::new();
        for name in [
            "offpeak-deadline",
            "x-deadline",
            "offpeak-tag",
            "prefer",
            "authorization",
        ] {
            headers.insert(name, http::HeaderValue::from_static("x"));
        }
        strip_ours(&mut headers);
        let mut left: Vec<_> = headers.keys().map(|name| name.as_str()).collect();
        left.sort_unstable();
        assert_eq!(left, ["authorization", "prefer"]);
    }
}
