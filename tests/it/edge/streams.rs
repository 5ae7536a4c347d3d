//! `stream: true` with a deadline.

use offpeak::simulator::{Fault, Kind, Operation};
use serde_json::{Value, json};

use super::{CHAT, SIX_HOURS, chat, response};
use crate::{app::TestApp, wire::Head};

const SOON: (&str, &str) = ("OFFPEAK_HOLD__STREAM_SILENCE", "50ms");

fn streamed(question: &str, sim: &str) -> String {
    let mut body: Value = serde_json::from_str(&chat(question, sim)).unwrap();
    body["stream"] = json!(true);
    body["stream_options"] = json!({"include_usage": true});
    body.to_string()
}

fn is_stream(head: &Head) {
    assert_eq!(head.status, 200);
    assert!(
        head.value("content-type").starts_with("text/event-stream"),
        "{head:?}"
    );
    assert_eq!(head.value("cache-control"), "no-cache");
    assert_eq!(head.value("x-accel-buffering"), "no");
}

/// The text that the events' deltas make, and whether usage came.
fn folded(events: &str) -> (String, bool) {
    let mut text = String::new();
    let mut usage = false;
    for data in events
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
    {
        if data == "[DONE]" {
            continue;
        }
        let chunk: Value = serde_json::from_str(data).unwrap();
        text += chunk["choices"][0]["delta"]["content"]
            .as_str()
            .unwrap_or_default();
        usage |= chunk["usage"].is_object();
    }
    (text, usage)
}

#[tokio::test]
async fn an_early_answer_is_replayed() {
    let app = TestApp::start().await;
    let mut caller = app.caller().await;
    let answer = caller
        .call(CHAT, &[SIX_HOURS], streamed("replayed", ""))
        .await;
    is_stream(&answer.head);
    assert_eq!(answer.head.value("offpeak-lane"), "batch");
    let (text, usage) = folded(&answer.text());
    assert!(text.contains("replayed") && usage, "{}", answer.text());
    assert!(answer.text().ends_with("data: [DONE]\n\n"));
    // Fetched by its id it is an ordinary answer.
    let get = format!("GET /v1/chat/completions/{}", answer.head.id());
    let fetched = caller.call(&get, &[], "").await;
    assert_eq!(
        fetched.json()["choices"][0]["message"]["content"],
        json!(text)
    );
    app.finish().await;
}

#[tokio::test]
async fn a_late_answer_follows_heartbeats() {
    let app = TestApp::with(&[SOON]).await;
    let mut caller = app.caller().await;
    caller
        .send(CHAT, &[SIX_HOURS], streamed("beats", "slow=700ms"))
        .await;
    let head = caller.head().await;
    is_stream(&head);
    let first = caller.chunk().await.unwrap();
    assert!(first.starts_with(b": "), "{first:?}");
    let rest = caller.rest(&head).await.expect("a whole stream");
    let (text, _) = folded(std::str::from_utf8(&rest).unwrap());
    assert!(text.contains("beats"), "{text}");
    app.finish().await;
}

#[tokio::test]
async fn failures_keep_their_status_or_are_told_inside() {
    let app = TestApp::with(&[SOON]).await;
    let mut caller = app.caller().await;
    let body = streamed("late", "status=400 slow=700ms");
    let answer = caller.call(CHAT, &[SIX_HOURS], &body).await;
    is_stream(&answer.head);
    let text = answer.text();
    assert!(
        text.contains("event: error") && text.contains(r#""error":{"#),
        "{text}"
    );
    let again = caller.call(CHAT, &[SIX_HOURS], &body).await;
    assert_ne!(
        again.head.id(),
        answer.head.id(),
        "a failure that was told is not joined"
    );
    app.finish().await;

    let app = TestApp::start().await;
    let mut caller = app.caller().await;
    let answer = caller
        .call(CHAT, &[SIX_HOURS], streamed("early", "status=400"))
        .await;
    assert_eq!(answer.status(), 400);
    answer.error_code();
    assert_eq!(answer.head.value("x-should-retry"), "false");
    app.finish().await;
}

#[tokio::test]
async fn what_goes_live_at_once_streams_for_real() {
    let app = TestApp::start().await;
    let mut caller = app.caller().await;
    let body = streamed("live", "");
    let direct = caller.call(CHAT, &[], &body).await;
    let answer = caller.call(CHAT, &["offpeak-deadline: 1s"], &body).await;
    is_stream(&answer.head);
    assert_eq!(answer.head.value("offpeak-lane"), "standard");
    assert!(
        answer.head.get("x-request-id").is_some(),
        "{:?}",
        answer.head
    );
    assert_eq!(folded(&answer.text()), folded(&direct.text()));
    assert!(answer.text().ends_with("data: [DONE]\n\n"));
    assert_eq!(app.runs_of("live"), 2, "once each");
    // What was kept is a stream, and is given as JSON where that is wanted.
    let get = format!("GET /v1/chat/completions/{}", answer.head.id());
    let fetched = caller.call(&get, &[], "").await;
    assert_eq!(fetched.json()["object"], "chat.completion");
    let content = fetched.json()["choices"][0]["message"]["content"].clone();
    assert_eq!(content, json!(folded(&answer.text()).0));
    app.finish().await;
}

#[tokio::test]
async fn a_live_stream_that_breaks_off_is_cut_and_found_again() {
    let app = TestApp::start().await;
    let truncated = Fault::once(Operation::Chat, Kind::Truncated);
    app.simulator.inject(truncated);
    let body = streamed("broken", "");
    let mut caller = app.caller().await;
    caller.send(CHAT, &["offpeak-deadline: 2s"], &body).await;
    let head = caller.head().await;
    is_stream(&head);
    assert_eq!(caller.rest(&head).await, None);
    let mut caller = app.caller().await;
    let resend = ["offpeak-deadline: 2s", "x-stainless-retry-count: 1"];
    let answer = caller.call(CHAT, &resend, &body).await;
    is_stream(&answer.head);
    assert_eq!(answer.head.id(), head.id());
    assert!(folded(&answer.text()).0.contains("broken"));
    app.finish().await;
}

#[tokio::test]
async fn a_resend_of_a_stream_takes_it_over() {
    let app = TestApp::with(&[SOON]).await;
    let body = streamed("again", "slow=1s");
    let mut first = app.caller().await;
    first.send(CHAT, &[SIX_HOURS], &body).await;
    let head = first.head().await;
    drop(first);
    let mut second = app.caller().await;
    let resend = [SIX_HOURS, "x-stainless-retry-count: 1"];
    let answer = second.call(CHAT, &resend, &body).await;
    is_stream(&answer.head);
    assert_eq!(answer.head.id(), head.id());
    assert!(folded(&answer.text()).0.contains("again"));
    assert_eq!(app.runs_of("again"), 1);
    app.finish().await;
}

#[tokio::test]
async fn responses_replay_their_typed_events() {
    let app = TestApp::start().await;
    let mut caller = app.caller().await;
    let body = response("typed", json!({"stream": true}));
    let answer = caller.call("POST /v1/responses", &[SIX_HOURS], body).await;
    is_stream(&answer.head);
    let text = answer.text();
    let numbers: Vec<u64> = text
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|data| {
            serde_json::from_str::<Value>(data).unwrap()["sequence_number"]
                .as_u64()
                .unwrap()
        })
        .collect();
    assert!(
        numbers.len() > 4 && numbers.windows(2).all(|two| two[0] + 1 == two[1]),
        "{numbers:?}"
    );
    assert!(text.contains("event: response.completed"));
    app.finish().await;
}
