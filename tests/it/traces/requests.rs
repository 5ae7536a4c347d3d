//! Calls with a deadline.

use offpeak::model::id::RequestId;
use opentelemetry_proto::tonic::trace::v1::{span::SpanKind, status::StatusCode};
use tokio::net::TcpListener;

use super::{
    CHAT, SIX_HOURS, SPAN, TRACE, chat,
    collector::{Collector, attributes, hex, names},
    traceparent,
};
use crate::{
    app::TestApp,
    metrics::{scrape, until},
};

fn watched(collector: &Collector) -> [(&'static str, &str); 1] {
    [("OFFPEAK_TRACES__ENDPOINT", &collector.url)]
}

#[tokio::test]
async fn a_deferred_call_is_one_span_of_its_callers_trace() {
    let collector = Collector::start().await;
    let app = TestApp::with(&watched(&collector)).await;
    let mut caller = app.caller().await;
    let parent = traceparent("01");
    let headers = [SIX_HOURS, &parent, "offpeak-tag: a-tag-of-mine"];
    let answer = caller
        .call(CHAT, &headers, chat("a question of mine"))
        .await;
    assert_eq!(answer.status(), 200);
    let (id, usage) = (answer.head.id(), &answer.json()["usage"]);

    let spans = collector.spans(1).await;
    let span = &spans[0];
    assert_eq!(span.name, "offpeak.request");
    assert_eq!(span.kind(), SpanKind::Server);
    assert_eq!(hex(&span.trace_id), TRACE);
    assert_eq!(hex(&span.parent_span_id), SPAN);
    assert_eq!(span.span_id.len(), 8);
    let found = attributes(&span.attributes);
    for (name, value) in [
        ("gen_ai.operation.name", "chat".into()),
        ("gen_ai.provider.name", "openai".into()),
        ("gen_ai.request.model", "gpt-4o-mini".into()),
        ("gen_ai.usage.input_tokens", usage["prompt_tokens"].clone()),
        (
            "gen_ai.usage.output_tokens",
            usage["completion_tokens"].clone(),
        ),
        ("http.route", "/v1/chat/completions".into()),
        ("http.response.status_code", 200.into()),
        ("offpeak.request_id", id.as_str().into()),
        ("offpeak.lane", "batch".into()),
        (
            "offpeak.guarantee",
            answer.head.value("offpeak-guarantee").into(),
        ),
        (
            "offpeak.deadline",
            answer.head.value("offpeak-deadline").into(),
        ),
        ("offpeak.late", false.into()),
    ] {
        assert_eq!(found.get(name), Some(&value), "{name} in {found:?}");
    }
    for (name, header) in [
        ("offpeak.cost_usd", "offpeak-cost-usd"),
        ("offpeak.saved_usd", "offpeak-saved-usd"),
    ] {
        let told: f64 = answer.head.value(header).parse().unwrap();
        assert!(told > 0.0 && found[name] == told, "{name}: {found:?}");
    }
    assert!(!found.contains_key("error.type"));

    let listed = caller
        .call(&format!("GET /offpeak/v1/requests/{id}"), &[], "")
        .await
        .json();
    let instant = |millis: u64| offpeak::model::time::Timestamp::from_millis(millis).to_string();
    let shown = |nanos: u64| instant(nanos / 1_000_000);
    let timeline = listed["timeline"].as_array().unwrap();
    let timeline: Vec<_> = timeline
        .iter()
        .map(|event| {
            let text = |name: &str| event[name].as_str().unwrap().to_owned();
            (text("event"), text("at"), text("reason"))
        })
        .collect();
    let told: Vec<_> = span
        .events
        .iter()
        .map(|event| {
            let reason = attributes(&event.attributes)["offpeak.reason"].clone();
            let reason = reason.as_str().unwrap().to_owned();
            (event.name.clone(), shown(event.time_unix_nano), reason)
        })
        .collect();
    assert_eq!(told, timeline);
    let course = ["admitted", "packed", "submitted", "answered"];
    assert_eq!(names(&span.events), course);
    assert_eq!(shown(span.start_time_unix_nano), timeline[0].1);
    assert_eq!(shown(span.end_time_unix_nano), timeline[3].1);
    for secret in ["sk-test", "a question of mine", "a-tag-of-mine"] {
        assert!(!collector.knows(secret), "{secret}");
    }
    app.finish().await;
    assert_eq!(collector.so_far().len(), 1);
}

#[tokio::test]
async fn without_a_valid_parent_a_trace_begins_that_has_the_requests_id() {
    let collector = Collector::start().await;
    let app = TestApp::with(&watched(&collector)).await;
    let mut caller = app.caller().await;
    for (number, parent) in [
        "x-nothing: 1".to_owned(),
        traceparent("01").replace("00-", "ff-"),
        format!("traceparent: 00-{}-{SPAN}-01", TRACE.to_uppercase()),
    ]
    .iter()
    .enumerate()
    {
        let question = chat(&format!("question {number}"));
        let answer = caller.call(CHAT, &[SIX_HOURS, parent], question).await;
        assert_eq!(answer.status(), 200);
        let id: RequestId = answer.head.id().parse().unwrap();
        let spans = collector.spans(number + 1).await;
        let span = &spans[number];
        assert_eq!(hex(&span.trace_id), hex(id.as_bytes()), "{parent}");
        assert!(span.parent_span_id.is_empty());
    }
    app.finish().await;
}

#[tokio::test]
async fn a_caller_that_keeps_no_trace_is_not_told_of() {
    let collector = Collector::start().await;
    let app = TestApp::with(&watched(&collector)).await;
    let mut caller = app.caller().await;
    let (not, kept) = (traceparent("00"), traceparent("01"));
    for (parent, question) in [(&not, "not kept"), (&kept, "kept")] {
        let answer = caller
            .call(CHAT, &[SIX_HOURS, parent], chat(question))
            .await;
        assert_eq!(answer.status(), 200);
    }
    collector.spans(1).await;
    app.finish().await;
    assert_eq!(collector.so_far().len(), 1);
}

#[tokio::test]
async fn what_the_provider_refuses_is_an_error() {
    let collector = Collector::start().await;
    let app = TestApp::with(&watched(&collector)).await;
    let mut caller = app.caller().await;
    let body = serde_json::json!({
        "model": "gpt-4o-mini",
        "messages": [{"role": "user", "content": "fails"}],
        "metadata": {"sim": "status=404"},
    });
    let answer = caller.call(CHAT, &[SIX_HOURS], body.to_string()).await;
    assert!(answer.status() >= 400, "{}", answer.text());
    let spans = collector.spans(1).await;
    let status = spans[0].status.clone().unwrap();
    assert_eq!(status.code(), StatusCode::Error);
    assert_eq!(status.message, answer.head.value("offpeak-reason"));
    let found = attributes(&spans[0].attributes);
    assert_eq!(found["error.type"], answer.status().to_string());
    assert_eq!(found["http.response.status_code"], answer.status());
    assert_eq!(*names(&spans[0].events).last().unwrap(), "failed");
    app.finish().await;
}

#[tokio::test]
async fn a_collector_that_hangs_loses_no_call_and_delays_no_stop() {
    let hung = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", hung.local_addr().unwrap());
    let settings = [
        ("OFFPEAK_TRACES__ENDPOINT", url.as_str()),
        ("OFFPEAK_TRACES__TIMEOUT", "1day"),
        ("OFFPEAK_SERVER__SHUTDOWN_GRACE", "2s"),
    ];
    let app = TestApp::with(&settings).await;
    let mut caller = app.caller().await;
    let answer = caller.call(CHAT, &[SIX_HOURS], chat("hung")).await;
    assert_eq!(answer.status(), 200);
    // It asks, and gets no answer.
    let (_asking, _) = hung.accept().await.unwrap();
    let answer = caller.call(CHAT, &[SIX_HOURS], chat("hung still")).await;
    assert_eq!(answer.status(), 200);
    app.finish().await;
}

#[tokio::test]
async fn what_a_dead_collector_does_not_take_is_counted() {
    let dead = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", dead.local_addr().unwrap());
    drop(dead);
    let settings = [
        ("OFFPEAK_TRACES__ENDPOINT", url.as_str()),
        ("OFFPEAK_TRACES__TIMEOUT", "100ms"),
    ];
    let app = TestApp::with(&settings).await;
    let mut caller = app.caller().await;
    let answer = caller.call(CHAT, &[SIX_HOURS], chat("unseen")).await;
    assert_eq!(answer.status(), 200);
    let failed = r#"offpeak_trace_spans_total{outcome="failed"}"#;
    until(&app, |scrape| scrape.value(failed) == 1.0).await;
    app.finish().await;
}

#[tokio::test]
async fn nothing_that_is_told_is_no_connection() {
    let unused = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", unused.local_addr().unwrap());
    let settings = [
        ("OFFPEAK_TRACES__ENDPOINT", url.as_str()),
        ("OFFPEAK_TRACES__SAMPLE_RATIO", "0.0"),
        ("OFFPEAK_TRACES__PASSTHROUGH_RATIO", "0.0"),
    ];
    let app = TestApp::with(&settings).await;
    let mut caller = app.caller().await;
    for headers in [&[SIX_HOURS][..], &[]] {
        let answer = caller.call(CHAT, headers, chat("untold")).await;
        assert_eq!(answer.status(), 200);
    }
    let scrape = scrape(&app).await;
    assert_eq!(scrape.sum("offpeak_trace_spans_total"), 0.0);
    app.finish().await;
    let came = futures_util::FutureExt::now_or_never(unused.accept());
    assert!(came.is_none());
}
