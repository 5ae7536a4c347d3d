//! Calls that pass through.

use std::{sync::Arc, time::Duration};

use axum::Router;
use http::HeaderMap;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use parking_lot::Mutex;
use tokio::{net::TcpListener, task::JoinSet};

use super::{
    CHAT, SPAN, TRACE, chat,
    collector::{Collector, attributes, hex},
    traceparent,
};
use crate::app::TestApp;

#[tokio::test]
async fn a_call_that_passes_is_a_span_and_its_headers_stay_as_they_were() {
    let collector = Collector::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = format!("http://{}/v1", listener.local_addr().unwrap());
    let seen = Arc::<Mutex<Vec<HeaderMap>>>::default();
    let router = Router::new().fallback({
        let seen = seen.clone();
        async move |headers: HeaderMap| {
            seen.lock().push(headers);
            "an answer"
        }
    });
    let mut serving = JoinSet::new();
    serving.spawn(async move { axum::serve(listener, router).await });
    let settings = [
        ("OFFPEAK_TRACES__ENDPOINT", collector.url.as_str()),
        ("OFFPEAK_TRACES__PASSTHROUGH_RATIO", "0.0"),
        ("OFFPEAK_UPSTREAM__BASE_URL", &upstream),
    ];
    let app = TestApp::with(&settings).await;
    let mut caller = app.caller().await;
    let valid = traceparent("01");
    // Nothing that Offpeak makes of them is what the upstream gets.
    let given = [
        (valid.as_str(), "tracestate: a=1, b=2"),
        ("traceparent: 00-NOT-one", "tracestate:"),
    ];
    for headers in given {
        let headers = [headers.0, headers.1];
        let answer = caller.call(CHAT, &headers, chat("through")).await;
        assert_eq!(
            (answer.status(), answer.text().as_str()),
            (200, "an answer")
        );
    }
    let spans = collector.spans(1).await;
    let span = &spans[0];
    assert_eq!(span.name, "offpeak.passthrough");
    assert_eq!(
        (hex(&span.trace_id), hex(&span.parent_span_id)),
        (TRACE.to_owned(), SPAN.to_owned())
    );
    assert!(span.start_time_unix_nano < span.end_time_unix_nano);
    let took = span.end_time_unix_nano - span.start_time_unix_nano;
    assert!(Duration::from_nanos(took) < crate::app::HANG);
    let found = attributes(&span.attributes);
    for (name, value) in [
        ("gen_ai.operation.name", "chat".into()),
        ("http.route", "/v1/chat/completions".into()),
        ("http.request.method", "POST".into()),
        ("http.response.status_code", serde_json::Value::from(200)),
    ] {
        assert_eq!(found.get(name), Some(&value), "{name} in {found:?}");
    }
    app.finish().await;
    assert_eq!(collector.so_far().len(), 1, "the other has no valid parent");

    let seen = seen.lock();
    let value = |at: usize, name: &str| {
        let value: &http::HeaderValue = &seen[at][name];
        value.to_str().unwrap().to_owned()
    };
    for (at, (parent, state)) in given.iter().enumerate() {
        let sent = |line: &str| line.split_once(':').unwrap().1.trim().to_owned();
        assert_eq!(value(at, "traceparent"), sent(parent));
        assert_eq!(value(at, "tracestate"), sent(state));
    }
}

#[tokio::test]
async fn calls_without_a_parent_are_told_of_by_their_share() {
    let collector = Collector::start().await;
    let settings = [
        ("OFFPEAK_TRACES__ENDPOINT", collector.url.as_str()),
        ("OFFPEAK_TRACES__PASSTHROUGH_RATIO", "1.0"),
    ];
    let app = TestApp::with(&settings).await;
    let mut caller = app.caller().await;
    let missing = "GET /v1/models/no-such-model";
    for (line, status) in [("GET /v1/models", 200), (missing, 404)] {
        assert_eq!(caller.call(line, &[], "").await.status(), status);
    }
    let spans = collector.spans(2).await;
    assert_ne!(spans[0].trace_id, spans[1].trace_id);
    for (span, status) in spans.iter().zip([200, 404]) {
        let found = attributes(&span.attributes);
        assert_eq!(found["http.response.status_code"], status);
        assert!(span.parent_span_id.is_empty());
        // The caller's own mistake is none of the server's.
        assert_eq!(span.status.clone().unwrap().code(), StatusCode::Unset);
    }
    assert!(!collector.knows("no-such-model"));
    app.finish().await;
}

#[tokio::test]
async fn an_upstream_that_is_away_is_an_error() {
    let collector = Collector::start().await;
    let away = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = format!("http://{}/v1", away.local_addr().unwrap());
    drop(away);
    let settings = [
        ("OFFPEAK_TRACES__ENDPOINT", collector.url.as_str()),
        ("OFFPEAK_TRACES__PASSTHROUGH_RATIO", "1.0"),
        ("OFFPEAK_UPSTREAM__BASE_URL", &upstream),
    ];
    let app = TestApp::with(&settings).await;
    let mut caller = app.caller().await;
    assert_eq!(caller.call(CHAT, &[], chat("away")).await.status(), 502);
    let spans = collector.spans(1).await;
    assert_eq!(spans[0].status.clone().unwrap().code(), StatusCode::Error);
    let found = attributes(&spans[0].attributes);
    assert_eq!(found["error.type"], "no_answer");
    app.finish().await;
}
