//! Background responses: created, read, cancelled.

use super::*;
use crate::ports::{BackgroundCall, ResponseStatus};

fn background(body: &'static str) -> BackgroundCall {
    BackgroundCall {
        lane: Lane::Background8h,
        body: Bytes::from(body),
        store: true,
    }
}

#[tokio::test]
async fn a_background_response_is_created_read_and_cancelled() {
    let answer = |status: &str| format!(r#"{{"id": "resp_1", "status":"{status}", "n":1.0}}"#);
    let told = |status: &str| {
        let body = answer(status);
        let length = body.len();
        format!("HTTP/1.1 200 OK\r\nx-request-id: req_1\r\ncontent-length: {length}\r\n\r\n{body}")
    };
    let by = key();

    let mut server = answering(told("queued")).await;
    let call = background(r#"{"model":"o3","input":"x"}"#);
    let queued = server.provider.create_response(&by, call).await.unwrap();
    assert_eq!(queued.id, "resp_1");
    assert_eq!(queued.status, ResponseStatus::Running);
    assert_eq!(queued.status_text, "queued");
    let seen = server.seen().await;
    assert!(
        seen.head.starts_with("POST /v1/responses HTTP/1.1\r\n"),
        "{}",
        seen.head
    );
    assert_eq!(
        std::str::from_utf8(&seen.body).unwrap(),
        r#"{"model":"o3","input":"x","background":true,"background_options":{"completion_window":"8h"},"store":true}"#
    );

    let mut server = answering(told("completed")).await;
    let done = server.provider.response(&by, "resp/1").await.unwrap();
    assert_eq!(done.status, ResponseStatus::Completed);
    assert_eq!(done.body, answer("completed"));
    assert_eq!(done.request.as_deref(), Some("req_1"));
    let head = server.seen().await.head;
    assert!(head.starts_with("GET /v1/responses/resp%2F1 "), "{head}");

    let mut server = answering(told("cancelled")).await;
    let cancelled = server.provider.cancel_response(&by, "resp_1").await;
    assert_eq!(cancelled.unwrap().status, ResponseStatus::Cancelled);
    let head = server.seen().await.head;
    assert!(
        head.starts_with("POST /v1/responses/resp_1/cancel "),
        "{head}"
    );
}

#[tokio::test]
async fn what_fails_about_a_background_response_says_whether_it_may_run() {
    let create = async |answer: String| {
        let server = answering(answer).await;
        let by = key();
        let created = server.provider.create_response(&by, background("{}"));
        created.await.unwrap_err()
    };
    let refused = create(status("429 Slow", r#"{"error":{}}"#)).await;
    assert!(!refused.may_have_happened(), "{refused:?}");
    for answer in [
        status("502 Bad", ""),
        ok("{}"),
        "HTTP/1.1 200".to_owned(),
        "HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{\"id\"".to_owned(),
    ] {
        let lost = create(answer.clone()).await;
        assert!(lost.may_have_happened(), "{answer}: {lost:?}");
    }
    let server = answering(status("404 Not Found", "{}")).await;
    for gone in [
        server.provider.response(&key(), "resp_1").await,
        server.provider.cancel_response(&key(), "resp_1").await,
    ] {
        assert!(matches!(
            gone,
            Err(ProviderError::Refused { status: 404, .. })
        ));
    }
    assert!(local(server.provider.response(&key(), "..").await));
}

/// Answers are larger than control replies.
#[tokio::test]
async fn a_large_background_answer_is_read_whole() {
    let text = "x".repeat(20 * 1024 * 1024);
    let body = format!(r#"{{"id":"resp_1","status":"completed","text":"{text}"}}"#);
    let server = answering(ok(&body)).await;
    let read = server.provider.response(&key(), "resp_1").await.unwrap();
    assert_eq!(read.body.len(), body.len());
}
