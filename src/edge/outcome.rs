//! The answer that an ending gives, in the form that this caller asked for.

use std::sync::Arc;

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, StatusCode, header};

use super::{
    errors::{self, ApiError, SHOULD_RETRY},
    kept::{KeptAnswer, Rest, Unread},
    memory::{Memory, Portion},
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
    pub body: Rest,
}

impl Answer {
    /// The provider's status and body byte for byte, as JSON.
    ///
    /// # Errors
    /// Where a body that was streamed cannot be read whole.
    pub async fn json(
        request: &Request,
        outcome: &Outcome,
        kept: KeptAnswer,
        memory: &Arc<Memory>,
    ) -> Result<Answer, Unread> {
        let facts = Facts::ended(request, outcome);
        let (status, body) = json_of(request, outcome, kept, memory, &facts).await?;
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
        Ok(Answer {
            status,
            headers,
            body,
        })
    }

    /// The request and its answer were erased while somebody waited.
    pub fn gone() -> ApiError {
        let message = "The request and its answer were erased.";
        ApiError::invalid(StatusCode::GONE, "request_erased", message)
    }

    /// With the body that `body` makes of what is to be sent.
    pub fn with_body(self, body: impl FnOnce(Rest) -> Body) -> Response {
        let mut response = Response::new(body(self.body));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        self.with_body(Body::new)
    }
}

async fn json_of(
    request: &Request,
    outcome: &Outcome,
    kept: KeptAnswer,
    memory: &Arc<Memory>,
    facts: &Facts<'_>,
) -> Result<(StatusCode, Rest), Unread> {
    if outcome.state == State::Cancelled && request.endpoint == Endpoint::Responses {
        return Ok((StatusCode::OK, stub::body(facts).into()));
    }
    let status = StatusCode::from_u16(outcome.status).unwrap_or(StatusCode::BAD_GATEWAY);
    if outcome.framing == Framing::Json || !status.is_success() {
        return Ok((status, kept.handed_on()));
    }
    let (stream, portion) = kept.whole(memory).await?;
    let (status, body) = match assembled(request.endpoint, &stream) {
        Ok(whole) => (status, whole),
        Err(Broken::Failed(error)) => (StatusCode::BAD_GATEWAY, error.into()),
        Err(broken) => {
            let message = format!("The provider's stream is no answer: {broken}.");
            let error = ApiError::server(StatusCode::BAD_GATEWAY, "stream_unreadable", message);
            (error.status(), error.body())
        }
    };
    Ok((status, counted(body, portion)))
}

/// What was made of an answer counts as it did.
fn counted(bytes: Bytes, portion: Option<Portion>) -> Rest {
    match portion {
        Some(portion) => portion.of(bytes).into(),
        None => bytes.into(),
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
///
/// # Errors
/// Where an answer that was not streamed cannot be read whole.
pub async fn events(
    request: &Request,
    outcome: &Outcome,
    kept: KeptAnswer,
    include_usage: bool,
    memory: &Arc<Memory>,
) -> Result<Rest, Unread> {
    let succeeded = outcome.state == State::Succeeded && outcome.status < 300;
    if succeeded && outcome.framing == Framing::EventStream {
        return Ok(kept.handed_on());
    }
    let (body, portion) = kept.whole(memory).await?;
    let events = match succeeded {
        true => replayed(request, &body, include_usage),
        false => failure(&body),
    };
    Ok(counted(events, portion))
}

fn replayed(request: &Request, body: &[u8], include_usage: bool) -> Bytes {
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
