//! What is said of a request besides its answer: the `Offpeak-*` headers, and
//! the object of the endpoint's own shape that stands in for an answer to come.

use axum::{body::Body, response::Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde_json::json;

use super::{Edge, errors, prefer::Preference};
use crate::{
    engine::View,
    model::{
        attempt::Lane,
        endpoint::Endpoint,
        request::{Bill, Outcome, Request, State},
    },
};

/// What the headers tell of a request.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    pub request: &'a Request,
    pub state: State,
    pub lane: Lane,
    pub reason: &'a str,
    pub bill: Option<Bill>,
}

impl<'a> Facts<'a> {
    /// As it was admitted.
    pub fn admitted(request: &'a Request) -> Self {
        let state = match request.lane {
            Lane::Batch => State::Queued,
            Lane::Flex | Lane::Background8h | Lane::Background2h | Lane::Standard => State::Placed,
        };
        Facts {
            request,
            state,
            lane: request.lane,
            reason: &request.reason,
            bill: None,
        }
    }

    pub fn ended(request: &'a Request, outcome: &'a Outcome) -> Self {
        Facts {
            request,
            state: outcome.state,
            lane: outcome.source.lane().unwrap_or(request.lane),
            reason: &outcome.reason,
            bill: outcome.bill,
        }
    }

    /// As it stands while it is open.
    pub fn open(view: &'a View) -> Self {
        let request = &view.request;
        Facts {
            request,
            state: view.state,
            lane: view.lane(),
            reason: &view.reason,
            bill: None,
        }
    }

    /// Adds the `Offpeak-*` headers (DESIGN.md §1).
    pub fn describe(&self, headers: &mut HeaderMap) {
        let mut set = |name, text: &str| {
            headers.insert(HeaderName::from_static(name), safe(text));
        };
        set("offpeak-request-id", &self.request.key.id.to_string());
        set("offpeak-status", self.state.as_str());
        set("offpeak-lane", self.lane.as_str());
        set("offpeak-reason", self.reason);
        set("offpeak-deadline", &self.request.deadline.to_string());
        let guarantee = self.request.cohort.guarantee;
        set("offpeak-guarantee", guarantee.as_str());
        if let Some(bill) = self.bill {
            set("offpeak-cost-usd", &bill.paid.to_string());
            set(
                "offpeak-saved-usd",
                &(bill.standard - bill.paid).to_string(),
            );
        }
    }
}

/// Printable ASCII: a reason may quote what a caller or a provider wrote.
pub fn safe(text: &str) -> HeaderValue {
    let printable = |c: char| {
        if c == ' ' || c.is_ascii_graphic() {
            c
        } else {
            '?'
        }
    };
    let text: String = text.chars().map(printable).collect();
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("?"))
}

/// 202: the request is durable, its answer is to come.
pub fn accepted(edge: &Edge, facts: &Facts<'_>, applied: Preference) -> Response<Body> {
    accepted_with(edge, facts, applied, Body::from(body(facts)))
}

/// [`accepted`] with a body that carries more than its bytes.
pub fn accepted_with(
    edge: &Edge,
    facts: &Facts<'_>,
    applied: Preference,
    body: Body,
) -> Response<Body> {
    let mut response = errors::json(StatusCode::ACCEPTED, body);
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let request = facts.request;
    let location = format!("{}/{}", request.endpoint.path(), request.key.id);
    headers.insert(header::LOCATION, safe(&location));
    let again = edge.engine.retry_after(edge.engine.now(), request.deadline);
    headers.insert(header::RETRY_AFTER, errors::seconds(again));
    if !applied.is_empty() {
        let name = HeaderName::from_static("preference-applied");
        headers.insert(name, safe(&applied.to_string()));
    }
    facts.describe(headers);
    response
}

/// An object that the SDKs parse as the endpoint's own (WIRE.md §3).
pub fn body(facts: &Facts<'_>) -> Bytes {
    let request = facts.request;
    let (id, created) = (request.key.id, request.admitted.as_secs());
    let (model, object) = (&request.model, request.endpoint.object());
    let status = status(facts.state);
    let stub = match request.endpoint {
        Endpoint::ChatCompletions | Endpoint::Completions => json!({
            "id": id, "object": object, "created": created, "model": model,
            "status": status, "choices": [],
        }),
        Endpoint::Responses => json!({
            "id": id, "object": object, "created_at": created, "status": status,
            "background": true, "error": null, "incomplete_details": null,
            "instructions": null, "max_output_tokens": null, "metadata": {},
            "model": model, "output": [], "parallel_tool_calls": true,
            "previous_response_id": null, "temperature": null, "text": {"format": {"type": "text"}},
            "tool_choice": "auto", "tools": [], "top_p": null, "usage": null,
        }),
        Endpoint::Embeddings => json!({
            "id": id, "object": object, "created": created, "model": model,
            "status": status, "data": [],
            "usage": {"prompt_tokens": 0, "total_tokens": 0},
        }),
        Endpoint::Moderations => json!({
            "id": id, "created": created, "model": model, "status": status, "results": [],
        }),
    };
    stub.to_string().into()
}

/// In the words of the Responses API, which the other stubs share.
fn status(state: State) -> &'static str {
    match state {
        State::Succeeded => "completed",
        state => state.as_str(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_made_fit_for_a_header() {
        assert_eq!(safe("a\r\nb: é"), "a??b: ?");
    }
}
