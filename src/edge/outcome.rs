//! The answer that an ending gives, in the form that this caller asked for.

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, StatusCode, header};

use super::{
    errors::{self, ApiError, SHOULD_RETRY},
    replay::{self, Assembler, Broken},
    stub::{self, Facts, safe},
};
use crate::model::{
    endpoint::Endpoint,
    request::{Framing, Outcome, Request, State},
};

/// What is sent, before anything has been.
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    /// The provider's status and body byte for byte, as JSON.
    pub fn json(request: &Request, outcome: &Outcome, body: Bytes) -> Answer {
        let facts = Facts::ended(request, outcome);
        let (status, body) = json_of(request, outcome, body, &facts);
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, errors::JSON);
        facts.describe(&mut headers);
        if let Some(provider_request) = &outcome.provider_request {
            let name = HeaderName::from_static("x-request-id");
            headers.insert(name, safe(provider_request));
        }
        if !status.is_success() {
            // An ending is final: sent again, the call would be bought again.
            headers.insert(SHOULD_RETRY, http::HeaderValue::from_static("false"));
        }
        Answer {
            status,
            headers,
            body,
        }
    }

    /// The request and its answer were erased while somebody waited.
    pub fn gone() -> Answer {
        let error = ApiError::invalid(
            StatusCode::GONE,
            "request_erased",
            "The request and its answer were erased.",
        );
        let body = error.body();
        let (parts, _) = error.into_response().into_parts();
        Answer {
            status: parts.status,
            headers: parts.headers,
            body,
        }
    }

    pub fn into_response(self) -> Response {
        let body = Body::from(self.body.clone());
        self.with_body(body)
    }

    pub fn with_body(self, body: Body) -> Response {
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response
    }
}

fn json_of(
    request: &Request,
    outcome: &Outcome,
    body: Bytes,
    facts: &Facts<'_>,
) -> (StatusCode, Bytes) {
    if outcome.state == State::Cancelled && request.endpoint == Endpoint::Responses {
        return (StatusCode::OK, stub::body(facts));
    }
    let status = StatusCode::from_u16(outcome.status).unwrap_or(StatusCode::BAD_GATEWAY);
    if outcome.framing == Framing::Json || !status.is_success() {
        return (status, body);
    }
    match assembled(request.endpoint, &body) {
        Ok(whole) => (status, whole),
        Err(Broken::Failed(error)) => (StatusCode::BAD_GATEWAY, error.into()),
        Err(broken) => {
            let message = format!("The provider's stream is no answer: {broken}.");
            let error = ApiError::server(StatusCode::BAD_GATEWAY, "stream_unreadable", message);
            (error.status(), error.body())
        }
    }
}

/// The answer of a call that was streamed live, as JSON.
pub fn assembled(endpoint: Endpoint, stream: &[u8]) -> Result<Bytes, Broken> {
    let mut assembler = Assembler::new(endpoint);
    assembler.push(stream);
    assembler.finish().map(Bytes::from)
}

/// An ending as events: the answer replayed, or an error event where it failed,
/// because the stream has begun or is about to.
pub fn events(request: &Request, outcome: &Outcome, body: &Bytes, include_usage: bool) -> Bytes {
    let succeeded = outcome.state == State::Succeeded && outcome.status < 300;
    if !succeeded {
        return failure(body);
    }
    if outcome.framing == Framing::EventStream {
        return body.clone();
    }
    match replay::replay(request.endpoint, body, include_usage) {
        Ok(events) => events.into(),
        Err(error) => {
            tracing::warn!(id = %request.key.id, %error, "an answer cannot be streamed");
            let message = format!(
                "The answer cannot be told as a stream: {error}. It is kept: \
                 GET {}/{}.",
                request.endpoint.path(),
                request.key.id
            );
            failure(&ApiError::server(StatusCode::OK, "not_replayable", message).body())
        }
    }
}

/// The event that tells of `error`, an error body; of one that is not JSON, that
/// the provider failed.
pub fn failure(error: &[u8]) -> Bytes {
    let unreadable = || {
        let message = "The provider failed, with an error that is not JSON.";
        ApiError::server(StatusCode::OK, "provider_error", message).body()
    };
    replay::failure(error)
        .or_else(|_| replay::failure(&unreadable()))
        .map(Bytes::from)
        .unwrap_or_default()
}
