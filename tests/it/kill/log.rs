//! The log: a line an event, whatever callers and the upstream say.

use std::fs;

use serde_json::json;
use tokio::net::TcpListener;

use super::process::Setup;

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
    let client = reqwest::Client::new();
    let call = |body: serde_json::Value, deadline: &str| {
        client
            .post(format!("{}/v1/chat/completions", server.base))
            .header("authorization", "Bearer sk")
            .header("offpeak-deadline", deadline)
            .header("offpeak-tag", "${jndi:x} \\n\\x1b")
            .json(&body)
    };
    let fit = json!({"model": "m\u{2028}x", "messages": [{"role": "user", "content": message}]});
    let mut calls = vec![
        call(fit.clone(), "1s"),
        call(fit.clone(), "1h").header("prefer", "respond-async"),
        call(fit.clone(), "1h").header("openai-beta", "x"),
        client.get(format!("{}/v1/%0a{}", server.base, "%1b[2K")),
    ];
    for field in ["model", "service_tier", "previous_response_id", "stream"] {
        let mut body = fit.clone();
        body[field] = message.clone().into();
        calls.push(call(body, "1h"));
    }
    for call in calls {
        let answer = call.send().await.unwrap();
        answer.bytes().await.unwrap();
    }
    let wanted = || fs::read_to_string(&stderr).unwrap();
    super::soon("the batch's failure is told", async {
        while !wanted().contains("forged") {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
    let told = wanted();
    for line in told.lines() {
        assert!(!line.starts_with(FORGED), "{told}");
        assert!(!line.contains(['\u{1b}', '\r', '\u{85}']), "{line:?}");
        assert!(line.starts_with("20"), "not a whole event: {line:?}");
    }
}
