//! What stands in front of every path: authentication, faults, and the headers
//! that every answer carries.

use std::time::Duration;

use axum::{
    body::Body,
    extract::{Request, State},
    middleware::Next,
    response::{Html, IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::BodyExt;

use crate::model::time::Timestamp;

use super::{
    Sim, Simulator,
    answers::id,
    draw::{digest, hex},
    error::ApiError,
    faults::{self, Kind, Operation},
};

/// Who calls. Files, batches and stored answers belong to the key, or to its project; rate limits to
/// the organization.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub key: String,
    pub org: String,
}

/// The fault that strikes this call, for handlers that play it themselves.
#[derive(Debug, Clone)]
pub(super) struct Struck(pub Option<Kind>);

impl Struck {
    /// What was made later than this is not on the list yet.
    pub fn visible_until(&self, now: Timestamp) -> Timestamp {
        match &self.0 {
            Some(Kind::Lag { by }) => now - *by,
            _ => now,
        }
    }
}

/// Marks a response that must not be sent: the connection is cut.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cut;

/// How a key is called in bills and logs.
pub fn key_id(key: &str) -> String {
    format!("key_{}", hex(&digest(0, "key", key.as_bytes()), 12))
}

pub(super) async fn front(State(sim): State<Sim>, mut request: Request, next: Next) -> Response {
    let began = sim.now();
    let operation = Operation::of(request.method(), request.uri().path());
    let number = {
        let mut world = sim.world.lock();
        *world.journal.operations.entry(operation).or_default() += 1;
        world.next_number()
    };
    let kind = sim.faults.lock().strike(operation);
    let mut org = None;
    let response = match before(&sim, kind.as_ref()).await {
        Some(response) => response,
        None => match authenticate(&sim, request.headers()) {
            Err(error) => error.into_response(),
            Ok(caller) => {
                org = Some(caller.org.clone());
                request.extensions_mut().insert(caller);
                request.extensions_mut().insert(Struck(kind.clone()));
                match kind {
                    Some(Kind::Late { by }) => later(sim.clone(), request, next, by),
                    Some(Kind::Twice) => twice(request, next).await,
                    kind => {
                        let response = next.run(request).await;
                        after(&sim, kind, response).await
                    }
                }
            }
        },
    };
    sign(response, &sim, number, org, began)
}

fn authenticate(sim: &Simulator, headers: &HeaderMap) -> Result<Caller, ApiError> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let bearer = text("authorization").and_then(|value| value.strip_prefix("Bearer "));
    let key = bearer
        .or(text("api-key"))
        .map(str::trim)
        .unwrap_or_default();
    if key.is_empty() {
        let message = "You didn't provide an API key. You need to provide your API key in an \
                       Authorization header using Bearer auth (i.e. Authorization: Bearer YOUR_KEY).";
        return Err(ApiError::new(StatusCode::UNAUTHORIZED, None, message));
    }
    if key.starts_with("sk-bad") || sim.revoked.lock().contains(key) {
        let message = "Incorrect API key provided: sk-bad***.";
        return Err(ApiError::new(
            StatusCode::UNAUTHORIZED,
            Some("invalid_api_key"),
            message,
        ));
    }
    // Keys of one project, which own what they make together: `sk-acme.web.one`,
    // `sk-acme.web.two`.
    let project = key.rsplit_once('.').map(|(project, _)| project);
    let id = key_id(
        project
            .filter(|project| project.contains('.'))
            .unwrap_or(key),
    );
    // Keys of one organization: `sk-acme.one`, `sk-acme.two`.
    let shared = key
        .strip_prefix("sk-")
        .and_then(|rest| rest.split_once('.'));
    let org = match (text("openai-organization"), shared) {
        (Some(org), _) => org.to_owned(),
        (None, Some((org, _))) => format!("org-{org}"),
        (None, None) => id.replace("key_", "org-"),
    };
    Ok(Caller { key: id, org })
}

/// Plays the faults that strike before the call has any effect.
async fn before(sim: &Simulator, kind: Option<&Kind>) -> Option<Response> {
    match kind? {
        Kind::Status {
            status,
            retry_after_seconds,
            code,
        } => Some(refused(*status, *retry_after_seconds, code.as_deref())),
        Kind::Reset => Some(cut()),
        Kind::Hang => std::future::pending().await,
        Kind::Delay { by } => {
            sim.clock.sleep(*by).await;
            None
        }
        _ => None,
    }
}

/// The caller hears nothing of it.
#[expect(
    clippy::disallowed_methods,
    reason = "it happens at its own time, or never where the simulator ends before"
)]
fn later(sim: Sim, request: Request, next: Next, by: Duration) -> Response {
    tokio::spawn(async move {
        sim.clock.sleep(by).await;
        next.run(request).await
    });
    cut()
}

async fn twice(request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = body.collect().await.map(|body| body.to_bytes()) else {
        return cut();
    };
    let request = || Request::from_parts(parts.clone(), Body::from(body.clone()));
    next.clone().run(request()).await;
    next.run(request()).await
}

/// Plays the faults that spoil the reply to a call that had its effect.
async fn after(sim: &Sim, kind: Option<Kind>, response: Response) -> Response {
    match kind {
        Some(Kind::ReplyLost) => cut(),
        Some(Kind::HangAfter) => std::future::pending().await,
        Some(Kind::StatusAfter { status }) => refused(status, None, None),
        Some(Kind::SlowBody { over }) => in_pieces(sim.clone(), response, over, 20, 20).await,
        Some(Kind::Truncated) => in_pieces(sim.clone(), response, Duration::ZERO, 2, 1).await,
        _ => response,
    }
}

fn refused(status: u16, retry_after_seconds: Option<u64>, code: Option<&str>) -> Response {
    let status = faults::status(status);
    if status == StatusCode::BAD_GATEWAY {
        let page =
            "<html><head><title>502 Bad Gateway</title></head><body>502 Bad Gateway</body></html>";
        return (status, Html(page)).into_response();
    }
    let mut error = ApiError::scripted(status);
    if let Some(seconds) = retry_after_seconds {
        error = error.after_ms(seconds * 1000);
    }
    if let Some(code) = code {
        error.code = Some(code.to_owned());
    }
    error.into_response()
}

/// Sends `sent` of `pieces` equal pieces of the body, then cuts if some are left.
async fn in_pieces(
    sim: Sim,
    response: Response,
    over: Duration,
    pieces: usize,
    sent: usize,
) -> Response {
    let (mut parts, body) = response.into_parts();
    parts.headers.remove(header::CONTENT_LENGTH);
    let Ok(bytes) = body.collect().await.map(|body| body.to_bytes()) else {
        return cut();
    };
    let size = bytes.len().div_ceil(pieces).max(1);
    let pause = over / u32::try_from(pieces).unwrap_or(u32::MAX);
    let body = stream::unfold((sim, bytes, 0), move |(sim, mut rest, at)| async move {
        if rest.is_empty() {
            return None;
        }
        sim.clock.sleep(pause).await;
        if at == sent {
            // Lets what was sent leave before the connection is cut.
            tokio::time::sleep(Duration::from_millis(5)).await;
            return Some((Err(broken_off()), (sim, Bytes::new(), at)));
        }
        let piece = rest.split_to(size.min(rest.len()));
        Some((Ok(piece), (sim, rest, at + 1)))
    });
    Response::from_parts(parts, Body::from_stream(body))
}

fn broken_off() -> std::io::Error {
    std::io::Error::new(
        std::io::ErrorKind::ConnectionReset,
        "cut by a scripted fault",
    )
}

/// On a connection (`serve`) nothing is sent at all; a caller of the bare router
/// sees a body that fails.
fn cut() -> Response {
    let body = stream::once(async { Err::<Bytes, _>(broken_off()) });
    let mut response = Body::from_stream(body).into_response();
    response.extensions_mut().insert(Cut);
    response
}

/// The headers of every answer (WIRE.md §3).
fn sign(
    mut response: Response,
    sim: &Sim,
    number: u64,
    org: Option<String>,
    began: Timestamp,
) -> Response {
    let processing = began.until(sim.now()).as_millis().to_string();
    let request = id("req_", sim.settings.seed, number);
    for (name, value) in [
        ("date", http_date(sim.now())),
        ("x-request-id", Some(request)),
        ("openai-organization", org),
        ("openai-processing-ms", Some(processing)),
        ("openai-version", Some("2020-10-01".to_owned())),
    ] {
        if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// By the clock that dates what is made here.
fn http_date(at: Timestamp) -> Option<String> {
    let at = jiff::Timestamp::from_second(i64::try_from(at.as_secs()).ok()?).ok()?;
    let printer = jiff::fmt::rfc2822::DateTimePrinter::new();
    printer.timestamp_to_rfc9110_string(&at).ok()
}
