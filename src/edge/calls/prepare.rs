//! What the engine is asked to take in: the call, checked, and its body as the
//! provider would have it.

use bytes::Bytes;
use http::{StatusCode, request::Parts};

use super::tier;
use crate::{
    edge::{
        Edge,
        ask::{self, Ask},
        errors::ApiError,
        kept::KeptAnswer,
        memory::SMALL,
        models, outcome,
        prefer::Preference,
        trace,
    },
    engine::{Call, Caller},
    model::{
        body::{self, Edit, Scan, Strip},
        endpoint::Endpoint,
        id::{RequestId, RequestKey},
        line::line_length,
        request::{Framing, Shape, State},
        time::Timestamp,
    },
};

/// How the caller wants to be answered.
pub struct Reply {
    pub held: bool,
    pub shape: Shape,
    pub prefer: Preference,
}

/// Reads the head, scans the body and puts the provider's id in the place of one
/// of ours.
///
/// # Errors
/// Whatever the provider would refuse, or we cannot keep.
pub async fn prepare(
    edge: &Edge,
    (caller, live_only): (Caller, Option<String>),
    parts: &Parts,
    body: &Bytes,
    endpoint: Endpoint,
    deadline: Timestamp,
) -> Result<(Call, Reply), ApiError> {
    let ask = Ask::read(&parts.headers, edge.settings.hold.max_wait)?;
    let scan = body::scan(body, endpoint)?;
    tier::check(scan.service_tier.as_deref())?;
    let held = ask.held(&scan, endpoint)?;
    if let Some(target) = &ask.webhook {
        let checked = edge.engine.check_webhook(target);
        checked.map_err(|reason| ask::bad_webhook(&reason))?;
    }
    models::check(&caller, body)?;
    let unnamed = || (!scan.names_model).then(|| "a batch line must name its model".to_owned());
    let live_only = live_only.or_else(unnamed);
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
        store: scan.store,
        deadline,
        on_late: ask.on_late,
        tag: ask.tag,
        webhook: ask.webhook,
        idempotency_key: ask.idempotency_key,
        held,
        retry: ask.retry,
        live_only,
        strict: edge.settings.deadline.strict,
        trace: trace::parent(&parts.headers),
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
    let outline = edge.engine.outline(key, SMALL).await?.ok_or_else(unknown)?;
    if outline.request.endpoint != Endpoint::Responses {
        return Err(unknown());
    }
    let Some((outcome, kept)) = outline.ending else {
        let why = "has no answer yet. Accepted: the id of a response that is completed.";
        return Err(refuse("previous_response_not_ready", why));
    };
    let kept = KeptAnswer::new(edge.engine.clone(), key, kept);
    let (answer, _portion) = kept.whole(&edge.memory).await?;
    let answer = match outcome.framing {
        _ if outcome.state != State::Succeeded => None,
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
