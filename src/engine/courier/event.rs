//! What webhooks carry.

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::{
    engine::settings::HookSettings,
    model::{
        id::RequestId,
        request::{Framing, Outcome, Request, State},
        time::Timestamp,
    },
};

/// The event that a webhook carries (DESIGN.md §1).
pub fn event_body(
    request: &Request,
    outcome: &Outcome,
    answer: &[u8],
    settings: &HookSettings,
) -> Bytes {
    #[derive(Serialize)]
    struct Event<'a> {
        object: &'static str,
        id: String,
        r#type: &'static str,
        created_at: u64,
        data: Data<'a>,
    }
    #[derive(Serialize)]
    struct Data<'a> {
        id: String,
        endpoint: &'static str,
        tag: Option<&'a str>,
        status_code: u16,
        /// Decimal dollars; null where the price is not known.
        cost_usd: Option<String>,
        saved_usd: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        response: Option<&'a RawValue>,
        #[serde(skip_serializing_if = "Option::is_none")]
        result_url: Option<String>,
    }
    let raw = (answer.len() as u64 <= settings.max_inline_bytes
        && outcome.framing == Framing::Json)
        .then(|| serde_json::from_slice::<&RawValue>(answer).ok())
        .flatten();
    let result_url = raw.is_none().then(|| {
        format!(
            "{}{}/{}",
            settings.public_url,
            request.endpoint.path(),
            request.key.id
        )
    });
    let event = Event {
        object: "event",
        id: request.key.id.event(),
        r#type: match outcome.state {
            State::Succeeded => "offpeak.request.succeeded",
            State::Cancelled => "offpeak.request.cancelled",
            _ => "offpeak.request.failed",
        },
        created_at: outcome.finished.as_secs(),
        data: Data {
            id: request.key.id.to_string(),
            endpoint: request.endpoint.path(),
            tag: request.tag.as_deref(),
            status_code: outcome.status,
            cost_usd: outcome.bill.map(|bill| bill.paid.to_string()),
            saved_usd: outcome
                .bill
                .map(|bill| (bill.standard - bill.paid).to_string()),
            response: raw,
            result_url,
        },
    };
    // Plain strings and valid JSON always serialise.
    serde_json::to_vec(&event).unwrap_or_default().into()
}

/// An event that says nothing, to try a receiver with.
pub(in crate::engine) fn test_body(id: RequestId, now: Timestamp) -> Bytes {
    let event = serde_json::json!({
        "object": "event",
        "id": id.event(),
        "type": "offpeak.webhook.test",
        "created_at": now.as_secs(),
        "data": {},
    });
    event.to_string().into()
}
