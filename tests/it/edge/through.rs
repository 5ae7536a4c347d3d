//! Calls that only look deferred, and deadlines in the path.

use serde_json::json;

use super::{CHAT, SIX_HOURS, chat, response};
use crate::app::TestApp;

#[tokio::test]
async fn what_no_batch_takes_passes_through() {
    let app = TestApp::start().await;
    let mut caller = app.caller().await;
    for (line, headers) in [
        ("GET /v1/models", &[SIX_HOURS][..]),
        ("GET /v1/models", &["x-deadline: 6h"]),
        ("GET /within/6h/v1/models", &[]),
        ("GET /within/1day%202h/v1/models?limit=2", &[]),
    ] {
        let answer = caller.call(line, headers, "").await;
        assert_eq!(answer.status(), 200, "{line}");
        assert_eq!(answer.json()["object"], "list");
        assert_eq!(answer.head.value("offpeak-reason"), "not-deferrable");
    }
    let answer = caller.call("GET /v1/models", &[], "").await;
    assert_eq!(answer.head.get("offpeak-reason"), None);
    // Nobody reads the headers of what passes through.
    let misspelt = "offpeak-onlate: wait";
    let answer = caller.call(CHAT, &[misspelt], chat("misspelt", "")).await;
    assert_eq!(answer.status(), 200);
    let headers = &[SIX_HOURS, misspelt];
    let answer = caller.call("GET /v1/models", headers, "").await;
    assert_eq!(answer.status(), 200);
    app.finish().await;
}

#[tokio::test]
async fn a_name_that_only_begins_like_one_of_our_ids_is_the_providers() {
    let app = TestApp::start().await;
    let mut caller = app.caller().await;
    let answer = caller.call("GET /v1/models/op_timist", &[], "").await;
    assert_eq!(answer.error_code(), "model_not_found");
    let line = "GET /v1/models?metadata[kind]=op_erations";
    let answer = caller.call(line, &[], "").await;
    assert_eq!(
        (answer.status(), &answer.json()["object"]),
        (200, &json!("list"))
    );
    app.finish().await;
}

#[tokio::test]
async fn a_deadline_may_stand_in_the_path() {
    let app = TestApp::start().await;
    let mut caller = app.caller().await;
    let line = "POST /within/6h/v1/chat/completions";
    let answer = caller.call(line, &[], chat("prefixed", "")).await;
    assert_eq!(
        (answer.status(), answer.head.value("offpeak-lane")),
        (200, "batch")
    );
    let header = &["offpeak-deadline: 1s"];
    let answer = caller.call(line, header, chat("header wins", "")).await;
    assert_eq!(
        (answer.status(), answer.head.value("offpeak-lane")),
        (200, "standard")
    );
    app.finish().await;
}

#[tokio::test]
async fn a_full_queue_lets_calls_through_or_says_when_to_come_again() {
    let full = ("OFFPEAK_ADMISSION__MAX_OPEN", "1");
    let app = TestApp::with(&[full, ("OFFPEAK_ADMISSION__ON_FULL", "live")]).await;
    let mut caller = app.caller().await;
    let headers = &[SIX_HOURS, "prefer: respond-async"];
    assert_eq!(
        caller
            .call(CHAT, headers, chat("a", "never"))
            .await
            .status(),
        202
    );
    let answer = caller.call(CHAT, &[SIX_HOURS], chat("passed", "")).await;
    assert_eq!(
        (answer.status(), answer.head.value("offpeak-reason")),
        (200, "queue-full")
    );
    assert_eq!(answer.json()["object"], "chat.completion");
    app.finish().await;

    let app = TestApp::with(&[full]).await;
    let mut caller = app.caller().await;
    assert_eq!(
        caller
            .call(CHAT, headers, chat("a", "never"))
            .await
            .status(),
        202
    );
    let answer = caller.call(CHAT, headers, chat("refused", "")).await;
    assert_eq!(
        (answer.status(), answer.error_code().as_str()),
        (429, "queue_full")
    );
    assert!(answer.head.get("retry-after").is_some());
    app.finish().await;
}

#[tokio::test]
async fn a_full_queue_passes_on_what_the_provider_knows_and_nobody_who_leaves() {
    let full = ("OFFPEAK_ADMISSION__MAX_OPEN", "1");
    let app = TestApp::with(&[full, ("OFFPEAK_ADMISSION__ON_FULL", "live")]).await;
    let mut caller = app.caller().await;
    let line = "POST /v1/responses";
    let first = caller
        .call(
            line,
            &["offpeak-deadline: 1s"],
            response("first", json!({})),
        )
        .await;
    assert_eq!(first.status(), 200, "{}", first.text());
    let provider_id = first.json()["id"].as_str().unwrap().to_owned();
    let fill = [SIX_HOURS, "prefer: respond-async"];
    let filled = caller.call(CHAT, &fill, chat("fill", "never")).await;
    assert_eq!(filled.status(), 202);

    let next = response("second", json!({"previous_response_id": first.head.id()}));
    let passed = caller.call(line, &[SIX_HOURS], next).await;
    assert_eq!(
        (passed.status(), passed.head.value("offpeak-reason")),
        (200, "queue-full"),
        "{}",
        passed.text()
    );
    let log = app.simulator.log();
    let mut seen = log.requests.iter();
    let seen = seen.find(|request| request.prompt.contains("second"));
    let body = seen.unwrap().body.as_deref().unwrap();
    assert!(
        body.contains(&provider_id) && !body.contains("op_"),
        "{body}"
    );

    for (headers, body) in [
        (&fill[..], response("leaves", json!({}))),
        (
            &[SIX_HOURS, "prefer: respond-async, wait=60"],
            response("leaves", json!({})),
        ),
        (
            &[SIX_HOURS],
            response("leaves", json!({"background": true})),
        ),
        (
            &[
                SIX_HOURS,
                "offpeak-webhook: https://example.com/hook",
                "prefer: wait=60",
            ],
            response("leaves", json!({})),
        ),
    ] {
        let answer = caller.call(line, headers, body).await;
        assert_eq!(
            (answer.status(), answer.error_code().as_str()),
            (429, "queue_full"),
            "{headers:?}"
        );
        assert!(answer.head.get("retry-after").is_some());
    }
    assert_eq!(app.runs_of("leaves"), 0);
    app.finish().await;
}

#[tokio::test]
async fn a_beta_header_goes_live_and_along() {
    let app = TestApp::start().await;
    let mut caller = app.caller().await;
    let headers = &[SIX_HOURS, "openai-beta: new-thing=v1"];
    let answer = caller.call(CHAT, headers, chat("beta", "")).await;
    assert_eq!(
        (answer.status(), answer.head.value("offpeak-lane")),
        (200, "standard")
    );
    let reason = answer.head.value("offpeak-reason");
    assert!(
        reason.contains("OpenAI-Beta new-thing=v1 is not batchable"),
        "{reason}"
    );
    assert!(app.simulator.log().batches.is_empty());
    app.finish().await;
}

#[tokio::test]
async fn one_tenant_does_not_fill_the_queue() {
    let bound = ("OFFPEAK_ADMISSION__MAX_OPEN_PER_TENANT", "2");
    let app = TestApp::with(&[bound]).await;
    let mut caller = app.caller().await;
    let headers = &[SIX_HOURS, "prefer: respond-async"];
    for n in ["a", "b"] {
        let answer = caller.call(CHAT, headers, chat(n, "never")).await;
        assert_eq!(answer.status(), 202);
    }
    let refused = caller.call(CHAT, headers, chat("c", "")).await;
    assert_eq!(
        (refused.status(), refused.error_code().as_str()),
        (429, "tenant_queue_full")
    );
    let seconds: u64 = refused.head.value("retry-after").parse().unwrap();
    assert!((1..=3_600).contains(&seconds));
    let other = &[SIX_HOURS, "authorization: Bearer sk-other"];
    let answer = caller.call(CHAT, other, chat("another's", "")).await;
    assert_eq!(answer.status(), 200);
    app.finish().await;

    // By bytes, and live.
    let bytes = ("OFFPEAK_ADMISSION__MAX_OPEN_BYTES_PER_TENANT", "300");
    let app = TestApp::with(&[bytes, ("OFFPEAK_ADMISSION__ON_FULL", "live")]).await;
    let mut caller = app.caller().await;
    let answer = caller.call(CHAT, headers, chat("a", "never")).await;
    assert_eq!(answer.status(), 202);
    let passed = caller.call(CHAT, &[SIX_HOURS], chat("b", "")).await;
    assert_eq!(
        (passed.status(), passed.head.value("offpeak-reason")),
        (200, "tenant-queue-full")
    );
    app.finish().await;
}
