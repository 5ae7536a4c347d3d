//! What the provider gets is what the caller sent.

use super::{CHAT, SIX_HOURS};
use crate::app::TestApp;

/// Each is sent as it stands; the batch line is it without white space outside
/// of strings, less the fields that a batch does not take.
const NASTY: &[(&str, &str)] = &[
    (
        r#"{ "temperature": 1e400, "model": "gpt-4o-mini", "messages": [{"role":"user","content":"n01"}] }"#,
        r#"{"temperature":1e400,"model":"gpt-4o-mini","messages":[{"role":"user","content":"n01"}]}"#,
    ),
    (
        r#"{"model":"gpt-4o-mini","top_p":0.100000000000000000000000000001,"messages":[{"content":"n02 \u0000 \ud800 \/","role":"user"}]}"#,
        r#"{"model":"gpt-4o-mini","top_p":0.100000000000000000000000000001,"messages":[{"content":"n02 \u0000 \ud800 \/","role":"user"}]}"#,
    ),
    (
        "{\r\n\t\"messages\" : [ {\n  \"role\" : \"user\", \"content\" : \"n03  two  spaces\" } ],\n \"model\":\"gpt-4o-mini\" , \"stop\": [ ] }\n",
        r#"{"messages":[{"role":"user","content":"n03  two  spaces"}],"model":"gpt-4o-mini","stop":[]}"#,
    ),
    (
        r#"{"model":"gpt-4o-mini","service_tier":"flex","messages":[{"role":"user","content":"n04"}],"logit_bias":{"z":-0,"a":1E+2},"stream":false}"#,
        r#"{"model":"gpt-4o-mini","messages":[{"role":"user","content":"n04"}],"logit_bias":{"z":-0,"a":1E+2}}"#,
    ),
];

#[tokio::test]
async fn nasty_bodies_arrive_as_they_were() {
    let app = TestApp::start().await;
    let mut caller = app.caller().await;
    for (body, line) in NASTY {
        let answer = caller.call(CHAT, &[SIX_HOURS], body).await;
        assert!([200, 400].contains(&answer.status()), "{}", answer.text());
        let log = app.simulator.log();
        let seen: Vec<_> = log
            .requests
            .iter()
            .filter_map(|r| r.body.as_deref())
            .collect();
        assert!(seen.contains(line), "{line}\nis not among\n{seen:#?}");
    }
    app.finish().await;
}

#[tokio::test]
async fn eight_megabytes_go_there_and_back() {
    let app = TestApp::start().await;
    let mut caller = app.caller().await;
    let body = format!(
        r#"{{"model":"gpt-4o-mini","messages":[{{"role":"user","content":"{}"}}]}}"#,
        "0123456789abcdef".repeat(1 << 19)
    );
    let answer = caller.call(CHAT, &[SIX_HOURS], &body).await;
    assert_eq!(answer.status(), 200);
    let log = app.simulator.log();
    assert!(
        log.requests
            .iter()
            .any(|request| request.body.as_deref() == Some(&body))
    );
    app.finish().await;
}
