//! The log: a line an event, and nothing in it that callers or the upstream wrote.

use std::{fs, time::Duration};

use serde_json::json;
use tokio::net::TcpListener;

use super::{process::Setup, soon};
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
