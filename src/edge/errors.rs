//! Errors of our own, in the shape that OpenAI's have (WIRE.md §3): all four
//! keys present, and `x-should-retry: false` wherever a retry would only buy
//! the same call again.

use std::time::Duration;

use axum::{body::Body, response::IntoResponse};
use http::{HeaderName, HeaderValue, Response, StatusCode, header};

use super::{Edge, deadline, kept::Unread, memory::Busy, outcome::Answer};
use crate::{
    engine::{AdmitError, FeedError, Full, KeyRefused, Refused, error_body},
    model::{body::Refusal, deadline::BadDeadline},
    ports::StoreError,
};

/// Read by both SDKs before they send a call again.
pub const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// An error that we answer with.
#[derive(Debug, Clone)]
pub struct ApiError {
    status: StatusCode,
    message: String,
    kind: &'static str,
    param: Option<&'static str>,
    code: Option<&'static str>,
    retry: Retry,
}

/// Whether the same call may be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Retry {
    Never,
    /// Nothing was taken in, or what was taken in is found again.
    After(Duration),
}

impl ApiError {
    /// The caller's mistake: 4xx, `invalid_request_error`, never retried.
    pub fn invalid(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        ApiError {
            status,
            message: message.into(),
            kind: "invalid_request_error",
            param: None,
            code: Some(code),
            retry: Retry::Never,
        }
    }

    /// 400.
    pub fn bad(code: &'static str, message: impl Into<String>) -> Self {
        ApiError::invalid(StatusCode::BAD_REQUEST, code, message)
    }

    /// 404.
    pub fn not_found(message: impl Into<String>) -> Self {
        ApiError::invalid(StatusCode::NOT_FOUND, "not_found", message)
    }

    /// 401.
    pub fn unauthorized(message: impl Into<String>) -> Self {
        ApiError {
            kind: "authentication_error",
            ..ApiError::invalid(StatusCode::UNAUTHORIZED, "invalid_api_key", message)
        }
    }

    /// 403: the key may not do that.
    pub fn forbidden(code: &'static str, message: impl Into<String>) -> Self {
        ApiError::invalid(StatusCode::FORBIDDEN, code, message)
    }

    /// 429: never retried, unless [`retry_after`](ApiError::retry_after) says so.
    pub fn limited(code: &'static str, message: impl Into<String>) -> Self {
        ApiError {
            kind: "rate_limit_error",
            ..ApiError::invalid(StatusCode::TOO_MANY_REQUESTS, code, message)
        }
    }

    /// Our own failure or the provider's: never retried, unless
    /// [`retry_after`](ApiError::retry_after) says so.
    pub fn server(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        ApiError {
            kind: "api_error",
            ..ApiError::invalid(status, code, message)
        }
    }

    /// 429: nothing was taken in.
    pub fn too_many_waiting() -> Self {
        let message = "As many connections of this key wait for answers as one key may have \
                       (four of five of server.max_connections). Send the call later, or with \
                       `Prefer: respond-async`.";
        ApiError::limited("too_many_waiting", message).retry_after(STORE_PAUSE)
    }

    /// 500: an answer of ours that cannot be made.
    pub fn internal() -> Self {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        ApiError::server(status, "internal_error", "The answer cannot be written.")
    }

    /// 503: sent again, the call is taken in or found.
    pub fn shutting_down() -> Self {
        let message = "Offpeak is shutting down. Send the call again.";
        ApiError::server(StatusCode::SERVICE_UNAVAILABLE, "shutting_down", message)
            .retry_after(STORE_PAUSE)
    }

    /// 503: sent again, the call is taken in.
    pub fn starting() -> Self {
        let message = "Offpeak is starting: it reads what it had stored. Send the call again. \
                       Calls without a deadline pass already, unless their key is one that \
                       this server issued.";
        ApiError::server(StatusCode::SERVICE_UNAVAILABLE, "starting", message)
            .retry_after(STORE_PAUSE)
    }

    /// The header or field at fault.
    pub fn param(self, param: &'static str) -> Self {
        ApiError {
            param: Some(param),
            ..self
        }
    }

    /// The same call may be sent again, after this long (whole seconds, at
    /// least one).
    pub fn retry_after(self, after: Duration) -> Self {
        ApiError {
            retry: Retry::After(after),
            ..self
        }
    }

    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// `{"error":{…}}`.
    pub fn body(&self) -> bytes::Bytes {
        error_body(&self.message, self.kind, self.param, self.code)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> axum::response::Response {
        let mut response = json(self.status, self.body());
        response
            .extensions_mut()
            .insert(Code(self.code.unwrap_or(self.kind)));
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        match self.retry {
            Retry::Never => {
                headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
            }
            Retry::After(after) => {
                headers.insert(header::RETRY_AFTER, seconds(after));
            }
        }
        response
    }
}

/// An error's code, beside the response that says it.
#[derive(Clone, Copy)]
struct Code(&'static str);

/// Counts the refusal of a call, if the response is one.
pub fn count(edge: &Edge, response: &axum::response::Response) {
    if let Some(Code(code)) = response.extensions().get() {
        edge.engine.metrics().requests.refused(code);
    }
}

/// A response that says nothing more of itself than that it is JSON.
pub fn json(status: StatusCode, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, JSON);
    response
}

pub const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Whole seconds, rounded up, at least one: `Retry-After` holds no fractions.
pub fn seconds(duration: Duration) -> HeaderValue {
    let whole = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    HeaderValue::from(whole.max(1))
}

impl From<BadDeadline> for ApiError {
    fn from(bad: BadDeadline) -> Self {
        let message = match deadline::hint(&bad.why) {
            Some(hint) => format!("{bad} {hint}"),
            None => bad.to_string(),
        };
        ApiError::bad("invalid_deadline", message).param("Offpeak-Deadline")
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        ApiError {
            status: StatusCode::BAD_REQUEST,
            message: refusal.message(),
            kind: "invalid_request_error",
            param: refusal.param(),
            code: refusal.code(),
            retry: Retry::Never,
        }
    }
}

/// How long to wait before the store is asked again.
const STORE_PAUSE: Duration = Duration::from_secs(5);

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let (status, code) = match &error {
            StoreError::Full => (StatusCode::INSUFFICIENT_STORAGE, "storage_full"),
            StoreError::Io(_) | StoreError::Corrupt(_) | StoreError::Closed => {
                (StatusCode::SERVICE_UNAVAILABLE, "storage_failed")
            }
        };
        tracing::error!(%error, code, "a call could not be served");
        // The store's own words may name paths: they are for the log.
        let message = match error {
            StoreError::Full => {
                "Offpeak's disk is full: no call with a deadline can be taken in. \
                 Calls without a deadline work."
            }
            StoreError::Io(_) | StoreError::Corrupt(_) | StoreError::Closed => {
                "Offpeak's store failed: no call with a deadline can be served. \
                 Calls without a deadline work."
            }
        };
        ApiError::server(status, code, message).retry_after(STORE_PAUSE)
    }
}

/// How long to wait before memory is asked for again.
const BUSY_PAUSE: Duration = Duration::from_secs(1);

/// Nothing was taken in, or what is asked for is kept.
impl From<Busy> for ApiError {
    fn from(_: Busy) -> Self {
        ApiError::server(
            StatusCode::SERVICE_UNAVAILABLE,
            "busy",
            "So many large bodies of calls and answers are on their way that there is no \
             memory for this one (server.max_body_memory). Send the call again.",
        )
        .retry_after(BUSY_PAUSE)
    }
}

impl From<Unread> for ApiError {
    fn from(unread: Unread) -> Self {
        match unread {
            Unread::Busy(busy) => busy.into(),
            Unread::Store(error) => error.into(),
            Unread::Erased => Answer::gone(),
        }
    }
}

impl From<FeedError> for ApiError {
    fn from(error: FeedError) -> Self {
        match error {
            FeedError::Expired { .. } => {
                ApiError::invalid(StatusCode::GONE, "cursor_expired", error.to_string())
                    .param("after")
            }
            FeedError::Foreign => ApiError::bad(
                "invalid_cursor",
                "This cursor was not given by this server: its data directory is another one. \
                 Begin again without one.",
            )
            .param("after"),
            FeedError::Store(error) => error.into(),
        }
    }
}

impl From<KeyRefused> for ApiError {
    fn from(refused: KeyRefused) -> Self {
        let expired_or_revoked = |code, what: &str, at| ApiError {
            code: Some(code),
            ..ApiError::unauthorized(format!(
                "This API key {what} at {at}. Ask the operator of this server for another."
            ))
        };
        match refused {
            KeyRefused::Unknown => ApiError::unauthorized(
                "Incorrect API key provided. This server takes keys that its operator issued: \
                 `Authorization: Bearer ofp_…`.",
            ),
            KeyRefused::Expired(at) => expired_or_revoked("key_expired", "expired", at),
            KeyRefused::Revoked(at) => expired_or_revoked("key_revoked", "was revoked", at),
            KeyRefused::NoUpstream(name) => ApiError::server(
                StatusCode::SERVICE_UNAVAILABLE,
                "upstream_not_configured",
                format!(
                    "This API key calls with the upstream `{name}`, which this server has no \
                     key for any more. Its operator can name it in [auth.upstream]."
                ),
            ),
        }
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::IdempotencyReused => ApiError::invalid(
                StatusCode::UNPROCESSABLE_ENTITY,
                "idempotency_key_reused",
                "This Idempotency-Key was used with a different request body. \
                 Send the same body, or a new key.",
            )
            .param("Idempotency-Key"),
            Refused::QueueFull(full) => queue_full(full),
            Refused::Budget(exceeded) => ApiError::limited(
                "budget_exceeded",
                format!(
                    "This key's budget of ${} a month does not cover the call: ${} were paid \
                     this month, ${} may have been besides, and ${} are kept for calls that \
                     may still be billed. It is renewed at {}.",
                    exceeded.budget,
                    exceeded.paid,
                    exceeded.reckoned,
                    exceeded.reserved,
                    exceeded.renewed,
                ),
            ),
            Refused::NotFirm => ApiError {
                kind: "rate_limit_error",
                ..ApiError::invalid(
                    StatusCode::TOO_MANY_REQUESTS,
                    "deadline_not_firm",
                    "So many calls are waiting, or so little is left of the rescue budget, \
                     that this deadline could only be met with luck, and deadline.strict \
                     is set. Accepted: a later call, `Offpeak-On-Late: wait`, or no \
                     deadline.",
                )
                .param("Offpeak-Deadline")
            },
            Refused::TooShort { .. } => ApiError::bad(
                "deadline_too_short",
                format!(
                    "This deadline is {refused}: it could only be met with luck, and \
                     deadline.strict is set. Accepted: a later deadline, \
                     `Offpeak-On-Late: wait`, or no deadline."
                ),
            )
            .param("Offpeak-Deadline"),
            Refused::PassThrough(_) => ApiError::server(
                StatusCode::SERVICE_UNAVAILABLE,
                "queue_full",
                refused.to_string(),
            ),
        }
    }
}

fn queue_full(full: Full) -> ApiError {
    let whose = match full.of_tenant {
        true => "As many of this key's calls wait as it may have",
        false => "Offpeak's queue is full",
    };
    let (requests, bytes) = (full.requests, full.bytes);
    let code = match full.of_tenant {
        true => "tenant_queue_full",
        false => "queue_full",
    };
    let message = format!(
        "{whose}: {requests} calls of {bytes} bytes are waiting. \
         Send the call later, or without a deadline."
    );
    ApiError {
        kind: "rate_limit_error",
        ..ApiError::invalid(StatusCode::TOO_MANY_REQUESTS, code, message)
            .retry_after(full.retry_after)
    }
}

/// The provider's own refusal, byte for byte, as a final answer.
pub fn forwarded(status: u16, body: bytes::Bytes) -> axum::response::Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    let mut response = json(status, body);
    let headers = response.headers_mut();
    headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
    response
}

/// An answer to a call that was not taken in.
pub fn not_admitted(error: AdmitError) -> axum::response::Response {
    match error {
        AdmitError::Refused(refused) => ApiError::from(refused).into_response(),
        AdmitError::Provider { status, body } => {
            let mut response = forwarded(status, body);
            response.extensions_mut().insert(Code("provider_refused"));
            response
        }
        AdmitError::Store(error) => ApiError::from(error).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_ours_has_all_four_keys_and_is_not_bought_again() {
        let error = ApiError::bad("bad_thing", "It is bad.");
        let body: serde_json::Value = serde_json::from_slice(&error.body()).unwrap();
        assert_eq!(
            body,
            serde_json::json!({"error": {
                "message": "It is bad.", "type": "invalid_request_error",
                "param": null, "code": "bad_thing",
            }})
        );
        let response = error.into_response();
        assert_eq!(response.status(), 400);
        assert_eq!(response.headers()[SHOULD_RETRY], "false");
    }

    #[test]
    fn what_was_not_taken_in_may_be_sent_again() {
        let response = ApiError::from(StoreError::Full).into_response();
        assert_eq!(response.status(), 507);
        assert_eq!(response.headers()[header::RETRY_AFTER], "5");
        assert!(!response.headers().contains_key(SHOULD_RETRY));
        // A store that is closed while calls still come has lost its writer.
        let dead = ApiError::from(StoreError::Closed);
        assert_eq!(
            (dead.status.as_u16(), dead.code),
            (503, Some("storage_failed"))
        );
        let full = Refused::QueueFull(Full {
            of_tenant: false,
            of_bytes: false,
            requests: 3,
            bytes: 9,
            retry_after: Duration::from_millis(1200),
        });
        let response = ApiError::from(full).into_response();
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()[header::RETRY_AFTER], "2");
    }
}
