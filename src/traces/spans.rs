//! What a span holds: OpenTelemetry's names where it has one (semantic conventions,
//! "Generative AI" and "HTTP"), and `offpeak.…` for what only Offpeak knows. No body, no
//! key, no tag.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{Method, StatusCode};
use opentelemetry::{
    InstrumentationScope, Key, KeyValue, Value,
    trace::{
        Event as SpanEvent, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
    },
};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use crate::{
    model::{
        endpoint::Endpoint,
        money::Usd,
        request::{Outcome, State, Usage},
        time::Timestamp,
        timeline::Event,
        trace::Sampled,
    },
    ports::{CallSpan, RequestSpan},
};

/// The longest text that is taken over, in characters: a model's name, a reason.
const LONGEST: usize = 256;

/// The API's format, which is what the conventions ask for, whoever answers on it.
const PROVIDER: &str = "openai";

/// From the request's admission to its end.
pub fn request(id: SpanId, span: RequestSpan) -> SpanData {
    let RequestSpan {
        sampled,
        request,
        outcome,
        events,
    } = span;
    let lane = outcome.source.lane().unwrap_or(request.lane);
    let mut attributes = endpoint(request.endpoint);
    attributes.extend([
        KeyValue::new("gen_ai.request.model", bounded(&request.model)),
        KeyValue::new("http.request.method", "POST"),
        status_code(outcome.status),
        KeyValue::new("offpeak.request_id", request.key.id.to_string()),
        KeyValue::new("offpeak.tenant", request.key.tenant.to_string()),
        KeyValue::new("offpeak.lane", lane.as_str()),
        KeyValue::new("offpeak.guarantee", request.cohort.guarantee.as_str()),
        KeyValue::new("offpeak.deadline", request.deadline.to_string()),
        KeyValue::new("offpeak.late", outcome.finished > request.deadline),
    ]);
    attributes.extend(usage(&outcome.usage));
    if let Some(bill) = outcome.bill {
        attributes.push(dollars("offpeak.cost_usd", bill.paid));
        attributes.push(dollars("offpeak.saved_usd", bill.standard - bill.paid));
    }
    let (status, kind) = ended(&outcome);
    attributes.extend(kind.map(|kind| KeyValue::new("error.type", kind)));
    let mut told = SpanEvents::default();
    told.events = events.iter().filter_map(event).collect();
    SpanData {
        name: "offpeak.request".into(),
        start_time: instant(request.admitted),
        end_time: instant(outcome.finished),
        attributes,
        events: told,
        status,
        ..blank(id, sampled)
    }
}

/// As OpenTelemetry has it: what callers make up is one word, however long it is.
fn method(method: &Method) -> &'static str {
    const KNOWN: [&str; 9] = [
        "GET", "POST", "DELETE", "PUT", "PATCH", "HEAD", "OPTIONS", "TRACE", "CONNECT",
    ];
    let known = KNOWN.into_iter().find(|known| *known == method.as_str());
    known.unwrap_or("_OTHER")
}

/// A call that was over at `end`.
pub fn call(id: SpanId, span: CallSpan, end: Timestamp) -> SpanData {
    let end = instant(end);
    let mut attributes = span.endpoint.map(endpoint).unwrap_or_default();
    attributes.push(KeyValue::new("http.request.method", method(&span.method)));
    attributes.extend(span.status.map(|status| status_code(status.as_u16())));
    let broken = |why: &'static str| Some((Value::from(why), why));
    let error = match span.status {
        None => broken("no_answer"),
        Some(_) if !span.whole => broken("broken_off"),
        Some(status) if status.is_server_error() => {
            Some((status.as_str().to_owned().into(), "the upstream's error"))
        }
        Some(_) => None,
    };
    let status = match error {
        None => Status::Unset,
        Some((kind, why)) => {
            attributes.push(KeyValue::new("error.type", kind));
            Status::error(why)
        }
    };
    SpanData {
        name: "offpeak.passthrough".into(),
        start_time: end.checked_sub(span.took).unwrap_or(end),
        end_time: end,
        attributes,
        status,
        ..blank(id, span.sampled)
    }
}

fn blank(id: SpanId, sampled: Sampled) -> SpanData {
    let trace = TraceId::from_bytes(sampled.trace.0);
    let parent = sampled.parent.map(|parent| SpanId::from_bytes(parent.0));
    let scope = InstrumentationScope::builder("offpeak");
    SpanData {
        span_context: SpanContext::new(
            trace,
            id,
            TraceFlags::SAMPLED,
            false,
            TraceState::default(),
        ),
        parent_span_id: parent.unwrap_or(SpanId::INVALID),
        parent_span_is_remote: parent.is_some(),
        span_kind: SpanKind::Server,
        name: "".into(),
        start_time: UNIX_EPOCH,
        end_time: UNIX_EPOCH,
        attributes: Vec::new(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: Status::Unset,
        instrumentation_scope: scope.with_version(env!("CARGO_PKG_VERSION")).build(),
    }
}

fn endpoint(endpoint: Endpoint) -> Vec<KeyValue> {
    vec![
        KeyValue::new("gen_ai.operation.name", endpoint.operation()),
        KeyValue::new("gen_ai.provider.name", PROVIDER),
        KeyValue::new("http.route", endpoint.path()),
    ]
}

/// Nothing where the answer says nothing of it. Input that was cached is part of the input.
fn usage(usage: &Usage) -> impl Iterator<Item = KeyValue> {
    let tokens = [
        ("gen_ai.usage.input_tokens", usage.input),
        ("gen_ai.usage.output_tokens", usage.output),
        ("gen_ai.usage.cache_read.input_tokens", usage.cached),
        (
            "gen_ai.usage.cache_creation.input_tokens",
            usage.cache_write,
        ),
    ];
    let known = *usage != Usage::default();
    let tokens = tokens.into_iter().filter(move |_| known);
    tokens.map(|(name, count)| number(name, count))
}

fn ended(outcome: &Outcome) -> (Status, Option<Value>) {
    match outcome.state {
        State::Succeeded => (Status::Unset, None),
        State::Cancelled => (Status::Unset, Some("cancelled".into())),
        State::Failed | State::Queued | State::Placed => {
            let kind =
                StatusCode::from_u16(outcome.status).map(|status| status.as_str().to_owned());
            (
                Status::error(bounded(&outcome.reason)),
                Some(kind.unwrap_or_else(|_| "_OTHER".into()).into()),
            )
        }
    }
}

/// None for an event that nobody wrote down the time of.
fn event(event: &Event) -> Option<SpanEvent> {
    let text = |name, text: &str| KeyValue::new(name, bounded(text));
    let provider = event.provider.as_deref();
    let reason = event.reason.as_deref();
    let attributes = [
        event
            .lane
            .map(|lane| KeyValue::new("offpeak.lane", lane.as_str())),
        event
            .batch
            .map(|batch| KeyValue::new("offpeak.batch_id", batch.to_string())),
        provider.map(|id| text("offpeak.provider_id", id)),
        reason.map(|reason| text("offpeak.reason", reason)),
        event.cost.map(|cost| dollars("offpeak.cost_usd", cost)),
    ];
    let attributes = attributes.into_iter().flatten().collect();
    Some(SpanEvent::new(
        event.what.as_str(),
        instant(event.at?),
        attributes,
        0,
    ))
}

fn status_code(status: u16) -> KeyValue {
    KeyValue::new("http.response.status_code", i64::from(status))
}

fn number(name: &'static str, count: u64) -> KeyValue {
    KeyValue::new(name, i64::try_from(count).unwrap_or(i64::MAX))
}

/// A number that a backend can add up; what is exact is in the ledger.
fn dollars(name: impl Into<Key>, amount: Usd) -> KeyValue {
    KeyValue::new(name, amount.as_pico() as f64 / 1e12)
}

fn bounded(text: &str) -> String {
    text.chars().take(LONGEST).collect()
}

fn instant(at: Timestamp) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(at.as_millis())
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::model::trace::TraceId as Trace;

    #[test]
    fn how_a_call_went_that_passed() {
        let end = Timestamp::from_secs(1_800_000_000);
        for (status, whole, kind) in [
            (Some(200), true, None),
            (Some(429), true, None),
            (Some(503), true, Some("503")),
            (Some(200), false, Some("broken_off")),
            (None, false, Some("no_answer")),
        ] {
            let span = CallSpan {
                sampled: Sampled {
                    trace: Trace([1; 16]),
                    parent: None,
                },
                method: Method::POST,
                endpoint: Some(Endpoint::Embeddings),
                status: status.map(|status| StatusCode::from_u16(status).unwrap()),
                whole,
                took: Duration::from_micros(1_500),
            };
            let made = call(SpanId::from_bytes([2; 8]), span, end);
            let of = |name: &str| {
                let mut all = made.attributes.iter();
                let found = all.find(|it| it.key.as_str() == name);
                found.map(|it| it.value.as_str().into_owned())
            };
            assert_eq!(of("error.type").as_deref(), kind, "{status:?}");
            assert_eq!(of("gen_ai.operation.name").unwrap(), "embeddings");
            let failed = matches!(made.status, Status::Error { .. });
            assert_eq!(failed, kind.is_some(), "{status:?}");
            let took = made.end_time.duration_since(made.start_time).unwrap();
            assert_eq!(took, Duration::from_micros(1_500));
        }
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(bounded(&"ü".repeat(1_000)), "ü".repeat(LONGEST));
    }
}
