//! The log: a line an event, and nothing in it that callers or the upstream wrote.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use http::StatusCode;
use offpeak::simulator::{Fault, Kind, Operation};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{
    process::Setup,
    provider::{Provider, quick},
    soon,
};
use crate::wire::Caller;

const CHAT: &str = "POST /v1/chat/completions";

/// As a line of the log begins, for who can write one.
const FORGED: &str = "2026-01-01T00:00:00.000000Z  WARN offpeak: forged";

#[tokio::test]
async fn nobody_writes_a_line_of_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}/v1", upstream.local_addr().unwrap());
    let message = format!("no\n{FORGED}\u{1b}[2K\r{FORGED}");
    let error =
        json!({"error": {"message": message, "type": message, "code": message, "param": message}});
    let refuse = axum::Router::new()
        .fallback(async move || (http::StatusCode::BAD_REQUEST, axum::Json(error.clone())));
    let mut serving = tokio::task::JoinSet::new();
    serving.spawn(async move { axum::serve(upstream, refuse).await.unwrap() });

    let setup = Setup::new(&base, &dir.path().join("data"))
        .with("OFFPEAK_LOG", "offpeak=trace,info")
        .with("OFFPEAK_HOLD__DRIP_AFTER", "10s");
    let stderr = dir.path().join("stderr");
    let server = setup.start(&stderr).await;
    let address = server.base.strip_prefix("http://").unwrap();
    let mut caller = Caller::connect(address.parse().unwrap()).await;
    let tag = r"offpeak-tag: ${jndi:x} \n\x1b";
    let fit = json!({"model": "m\u{2028}x", "messages": [{"role": "user", "content": message}]});
    for more in [
        &["offpeak-deadline: 1s"][..],
        &["offpeak-deadline: 1h", "prefer: respond-async"],
        &["offpeak-deadline: 1h", "openai-beta: x"],
    ] {
        let headers = [more, &[tag]].concat();
        caller.call(CHAT, &headers, fit.to_string()).await;
    }
    caller.call("GET /v1/%0a%1b[2K", &[], "").await;
    for field in ["model", "service_tier", "previous_response_id", "stream"] {
        let mut body = fit.clone();
        body[field] = message.clone().into();
        let headers = ["offpeak-deadline: 1h", tag];
        caller.call(CHAT, &headers, body.to_string()).await;
    }
    let told = || fs::read_to_string(&stderr).unwrap();
    soon("the batch is refused", async {
        while !told().contains("the provider refuses the batch") {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    let told = told();
    assert!(!told.contains("forged"), "{told}");
    for line in told.lines() {
        assert!(!line.contains(['\u{1b}', '\r', '\u{85}']), "{line:?}");
        assert!(line.starts_with("20"), "not a whole event: {line:?}");
    }
}

/// For machines: each line is JSON, and names the request that it comes of.
#[tokio::test]
async fn a_life_can_be_followed_by_its_id() {
    let dir = tempfile::tempdir().unwrap();
    let provider = Provider::start(quick()).await;
    let sick = Kind::Status {
        status: 500,
        retry_after_seconds: None,
        code: None,
    };
    let receiver = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", receiver.local_addr().unwrap());
    // It is tried again, as the live call is.
    let heard = Arc::new(AtomicU32::new(0));
    let router = axum::Router::new().fallback(async move || match heard.fetch_add(1, Relaxed) {
        0 => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::NO_CONTENT,
    });
    let mut serving = tokio::task::JoinSet::new();
    serving.spawn(async move { axum::serve(receiver, router).await.unwrap() });

    let setup = Setup::new(&provider.upstream(), &dir.path().join("data"))
        .with("OFFPEAK_LOG", "debug")
        .with("OFFPEAK_LOG__FORMAT", "json")
        .with("OFFPEAK_WEBHOOK__ALLOW", &origin);
    let stderr = dir.path().join("stderr");
    let server = setup.start(&stderr).await;
    let address = server.base.strip_prefix("http://").unwrap();
    let mut caller = Caller::connect(address.parse().unwrap()).await;
    provider
        .simulator
        .inject(Fault::once(Operation::Chat, sick));
    let hook = format!("offpeak-webhook: {origin}/");
    let headers = [
        "offpeak-deadline: 1h",
        "openai-beta: live=v1",
        "x-client-request-id: job-7",
        &hook,
    ];
    let body = json!({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}]});
    let taken = caller.call(CHAT, &headers, body.to_string()).await;
    assert_eq!(taken.status(), 202);
    let id = taken.head.get("offpeak-request-id").unwrap();

    let told = || fs::read_to_string(&stderr).unwrap();
    soon("the webhook is delivered", async {
        while !told().contains("a webhook is delivered") {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    let lines: Vec<Value> = told()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    for step in [
        "admitted",
        "a live call is tried again",
        "ended",
        "a webhook is tried again",
        "a webhook is delivered",
    ] {
        let line = lines.iter().find(|line| line["fields"]["message"] == step);
        let line = line.unwrap_or_else(|| panic!("`{step}` is not in the log"));
        assert_eq!(line["fields"]["id"], *id, "{line}");
    }
    let spans = |line: &Value| line["spans"].as_array().cloned().unwrap_or_default();
    let within = |name: &str| {
        let lines = lines.iter();
        let within = lines.filter(|line| spans(line).iter().any(|span| span["name"] == name));
        within.collect::<Vec<_>>()
    };
    let tells = |line: &Value, field: &str, value: &str| {
        let told = spans(line).into_iter().chain([line["fields"].clone()]);
        told.into_iter().any(|it| it[field] == value)
    };
    // What the crates below say of it can be found, too.
    for (work, below) in [("live", "hyper_util"), ("webhook", "reqwest")] {
        let lines = within(work);
        let target = |line: &&&Value| line["target"].as_str().unwrap().starts_with(below);
        assert!(
            lines.iter().any(|line| target(&line)),
            "{below} says nothing: {lines:?}"
        );
        assert!(lines.iter().all(|line| tells(line, "id", id)), "{lines:?}");
    }
    let calls = within("call");
    assert!(!calls.is_empty() && calls.iter().all(|line| tells(line, "call", "job-7")));
    drop(server);
}
