//! Callers who wait on the line.

use super::{CHAT, SIX_HOURS, chat};
use crate::app::TestApp;

const SOON: (&str, &str) = ("OFFPEAK_HOLD__DRIP_AFTER", "50ms");

#[tokio::test]
async fn an_early_answer_is_the_providers_with_our_headers() {
    let app = TestApp::start().await;
    let mut caller = app.caller().await;
    let answer = caller.call(CHAT, &[SIX_HOURS], chat("plain", "")).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.json()["object"], "chat.completion");
    let head = &answer.head;
    assert_eq!(head.value("offpeak-status"), "succeeded");
    assert_eq!(head.value("offpeak-lane"), "batch");
    assert_eq!(head.value("offpeak-guarantee"), "firm");
    assert!(head.value("offpeak-deadline").ends_with('Z'), "{head:?}");
    assert_eq!(
        head.value("offpeak-cost-usd"),
        head.value("offpeak-saved-usd")
    );
    let again = caller.call(CHAT, &[SIX_HOURS], chat("plain", "")).await;
    assert_ne!(
        head.id(),
        again.head.id(),
        "equal calls on purpose stay separate"
    );
    assert_eq!(app.runs_of("plain"), 2);
    let patient = [SIX_HOURS, "prefer: wait=60"];
    let waited = caller.call(CHAT, &patient, chat("waited", "")).await;
    assert_eq!(waited.status(), 200, "a wait ends with the answer");
    app.finish().await;
}

#[tokio::test]
async fn an_early_failure_keeps_its_status_and_is_not_bought_again() {
    let app = TestApp::start().await;
    let mut caller = app.caller().await;
    let answer = caller
        .call(CHAT, &[SIX_HOURS], chat("bad", "status=400"))
        .await;
    assert_eq!(answer.status(), 400);
    answer.error_code();
    assert_eq!(answer.head.value("x-should-retry"), "false");
    assert_eq!(answer.head.value("offpeak-status"), "failed");
    let again = caller
        .call(CHAT, &[SIX_HOURS], chat("bad", "status=400"))
        .await;
    assert_ne!(
        answer.head.id(),
        again.head.id(),
        "a delivered failure is never joined"
    );
    app.finish().await;
}

#[tokio::test]
async fn a_late_answer_comes_after_white_space() {
    let app = TestApp::with(&[SOON]).await;
    let mut caller = app.caller().await;
    caller
        .send(CHAT, &[SIX_HOURS], chat("drip", "slow=700ms"))
        .await;
    let head = caller.head().await;
    assert_eq!(head.status, 200);
    assert_eq!(caller.chunk().await.unwrap(), b" ");
    let body = caller.rest(&head).await.expect("a whole body");
    let answer: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(answer["object"], "chat.completion");
    // The connection goes on.
    let next = caller.call("GET /v1/models", &[SIX_HOURS], "").await;
    assert_eq!(next.status(), 200);
    assert_eq!(app.runs_of("drip"), 1);
    app.finish().await;
}

#[tokio::test]
async fn a_late_failure_cuts_and_the_resend_gets_the_true_status() {
    let app = TestApp::with(&[SOON]).await;
    let body = chat("late failure", "status=400 slow=700ms");
    let mut caller = app.caller().await;
    caller.send(CHAT, &[SIX_HOURS], &body).await;
    let head = caller.head().await;
    assert_eq!(head.status, 200);
    assert_eq!(caller.rest(&head).await, None, "never a 200 for a failure");

    let mut caller = app.caller().await;
    let resend = [SIX_HOURS, "x-stainless-retry-count: 1"];
    let answer = caller.call(CHAT, &resend, &body).await;
    assert_eq!(answer.status(), 400);
    assert_eq!(answer.head.id(), head.id());
    assert_eq!(answer.head.value("x-should-retry"), "false");
    caller.send(CHAT, &[SIX_HOURS], &body).await;
    assert_ne!(caller.head().await.id(), head.id(), "it was told");
    app.finish().await;
}

#[tokio::test]
async fn a_resend_takes_over_what_its_caller_left() {
    let app = TestApp::with(&[SOON]).await;
    let body = chat("left", "slow=1s");
    let mut first = app.caller().await;
    first.send(CHAT, &[SIX_HOURS], &body).await;
    let id = first.head().await.id();
    drop(first);
    // A wrapper's own retry counts from nought; the server sees the hang-up at its
    // next drip at the latest, so the SDK's own count is what tells at once.
    let mut second = app.caller().await;
    let resend = [SIX_HOURS, "x-stainless-retry-count: 1"];
    let answer = second.call(CHAT, &resend, &body).await;
    assert_eq!((answer.status(), answer.head.id()), (200, id));
    assert_eq!(app.runs_of("left"), 1, "bought once");
    app.finish().await;
}

#[tokio::test]
async fn who_is_replaced_while_still_there_is_cut() {
    let app = TestApp::with(&[SOON]).await;
    let body = chat("replaced", "slow=1s");
    let mut first = app.caller().await;
    first.send(CHAT, &[SIX_HOURS], &body).await;
    let head = first.head().await;
    let mut second = app.caller().await;
    let resend = [SIX_HOURS, "x-stainless-retry-count: 1"];
    second.send(CHAT, &resend, &body).await;
    assert_eq!(first.rest(&head).await, None);
    let answer = second.answer().await;
    assert_eq!((answer.status(), answer.head.id()), (200, head.id()));
    assert_eq!(app.runs_of("replaced"), 1);
    app.finish().await;
}

#[tokio::test]
async fn a_stop_leaves_a_request_that_the_resend_finds() {
    let mut app = TestApp::with(&[SOON]).await;
    let body = chat("stopped", "slow=1s");
    let mut caller = app.caller().await;
    caller.send(CHAT, &[SIX_HOURS], &body).await;
    let head = caller.head().await;
    app.restart().await;
    assert_eq!(caller.rest(&head).await, None);
    let mut caller = app.caller().await;
    let answer = caller.call(CHAT, &[SIX_HOURS], &body).await;
    assert_eq!((answer.status(), answer.head.id()), (200, head.id()));
    assert_eq!(app.runs_of("stopped"), 1);
    app.finish().await;
}

#[tokio::test]
async fn a_wait_ends_with_202() {
    let app = TestApp::with(&[SOON, ("OFFPEAK_HOLD__MAX_WAIT", "1s")]).await;
    let mut caller = app.caller().await;
    let headers = &[SIX_HOURS, "prefer: wait=600"];
    let answer = caller.call(CHAT, headers, chat("waited", "never")).await;
    assert_eq!(answer.status(), 202);
    let head = &answer.head;
    assert_eq!(head.value("preference-applied"), "wait=1");
    assert_eq!(head.value("cache-control"), "no-store");
    assert!(head.get("retry-after").is_some());
    let location = format!("/v1/chat/completions/{}", head.id());
    assert_eq!(head.value("location"), location);
    let fetched = caller.call(&format!("GET {location}"), &[], "").await;
    assert_eq!(fetched.status(), 202);
    let other = caller
        .call(
            CHAT,
            &[SIX_HOURS, "prefer: wait=0"],
            chat("waited", "never"),
        )
        .await;
    assert_ne!(
        other.head.id(),
        head.id(),
        "a 202 is an answer: nothing to take over"
    );
    app.finish().await;
}

#[tokio::test]
async fn a_stop_answers_who_asked_for_a_202_after_a_while() {
    // Longer than any test: what a stop does not answer by itself is a hang.
    let grace = ("OFFPEAK_SERVER__SHUTDOWN_GRACE", "10m");
    let mut app = TestApp::with(&[grace]).await;
    let wait = [SIX_HOURS, "prefer: wait=600"];
    let mut held = app.caller().await;
    held.call(CHAT, &wait, chat("warm", "")).await;
    held.send(CHAT, &wait, chat("held", "never")).await;
    let mut poll = app.caller().await;
    let queued = [SIX_HOURS, "prefer: respond-async"];
    let id = poll
        .call(CHAT, &queued, chat("polled", "never"))
        .await
        .head
        .id();
    let get = format!("GET /v1/chat/completions/{id}");
    poll.send(&get, &["prefer: wait=600"], "").await;
    // Taken in before the stop: its question is at the provider.
    while !app
        .simulator
        .log()
        .requests
        .iter()
        .any(|request| request.prompt == "held")
    {
        tokio::task::yield_now().await;
    }
    app.restart().await;
    assert_eq!(held.answer().await.status(), 202);
    assert_eq!(poll.answer().await.status(), 202);
    app.finish().await;
}

#[tokio::test]
async fn many_wait_and_each_gets_its_own() {
    let app = TestApp::with(&[SOON]).await;
    let mut callers = Vec::new();
    for number in 0..50 {
        let mut caller = app.caller().await;
        let question = format!("number {number:03}.");
        caller
            .send(CHAT, &[SIX_HOURS], chat(&question, "slow=300ms"))
            .await;
        callers.push((question, caller));
    }
    for (question, mut caller) in callers {
        let answer = caller.answer().await;
        assert!(
            answer.text().contains(&question),
            "{question}: {}",
            answer.text()
        );
        assert_eq!(app.runs_of(&question), 1);
    }
    app.finish().await;
}
