//! Pass-through on real sockets: a caller and an upstream that speak raw bytes,
//! and the whole server between them.

use std::net::SocketAddr;

use futures_util::FutureExt;
use tokio::net::TcpListener;

use crate::edge::testing::{Proxy, Wire, proxy, proxy_to};

/// An upstream, a server in front of it, and a caller's connection to that.
async fn start() -> (TcpListener, Proxy, Wire) {
    let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = proxy(upstream.local_addr().unwrap());
    let caller = proxy.connect().await;
    (upstream, proxy, caller)
}

/// A call in progress: the upstream has read its head.
async fn start_call(request: &str) -> (Wire, Proxy, Wire, String) {
    let (upstream, proxy, mut caller) = start().await;
    caller.write(request).await;
    let mut wire = Wire::accept(&upstream).await;
    let head = wire.read_head().await;
    (wire, proxy, caller, head)
}

const GET: &str = "GET /v1/models HTTP/1.1\r\nhost: us\r\n\r\n";
const POST: &str = "POST /v1/chat/completions HTTP/1.1\r\nhost: us\r\ncontent-length: 2\r\n\r\n{}";
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

fn sorted_lines(head: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = head.trim_end().split("\r\n").collect();
    lines.sort_unstable();
    lines
}

#[tokio::test]
async fn request_heads_keep_everything_end_to_end() {
    let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = upstream.local_addr().unwrap();
    let proxy = proxy(address);
    let mut caller = proxy.connect().await;
    caller
        .write(
            "POST /v1/chat/completions?a=%20+b&&c={}|'%zz HTTP/1.1\r\nhost: us\r\n\
             authorization: Bearer k\r\nopenai-organization: org\r\nx-dup: 1\r\nx-dup: 2\r\n\
             idempotency-key:  spaces  \r\nx-empty:\r\naccept-encoding: gzip\r\n\
             x-stainless-retry-count: 0\r\ncontent-length: 5\r\n\r\nhello",
        )
        .await;
    let mut wire = Wire::accept(&upstream).await;
    let head = wire.read_head().await;
    assert_eq!(
        head,
        format!(
            "POST /v1/chat/completions?a=%20+b&&c={{}}|'%zz HTTP/1.1\r\nhost: {address}\r\n\
             authorization: Bearer k\r\nopenai-organization: org\r\nx-dup: 1\r\nx-dup: 2\r\n\
             idempotency-key: spaces\r\nx-empty: \r\naccept-encoding: gzip\r\n\
             x-stainless-retry-count: 0\r\ncontent-length: 5\r\n\r\n"
        )
    );
    assert_eq!(wire.read(5).await, b"hello");
}

#[tokio::test]
async fn request_heads_lose_what_is_of_one_hop() {
    let (_wire, _proxy, _caller, head) = start_call(
        "GET /v1/models HTTP/1.1\r\nhost: us\r\nconnection: keep-alive, X-Local\r\n\
         x-local: 1\r\nte: trailers\r\nupgrade: websocket\r\nkeep-alive: timeout=5\r\n\
         proxy-connection: keep-alive\r\nx-kept: 1\r\nx-kept-too: 2\r\n\r\n",
    )
    .await;
    let lines = sorted_lines(&head);
    assert_eq!(lines[0], "GET /v1/models HTTP/1.1");
    assert!(lines[1].starts_with("host: 127.0.0.1:"), "{lines:?}");
    assert_eq!(lines[2..], ["x-kept-too: 2", "x-kept: 1"]);
}

#[tokio::test]
async fn answers_come_back_as_they_are() {
    let (mut wire, _proxy, mut caller, _) = start_call(GET).await;
    wire.write(
        b"HTTP/1.1 429 Slow Down\r\nDate: Sun, 22 Nov 2026 17:00:00 GMT\r\n\
          x-request-id: req_1\r\nset-cookie: a=1\r\nset-cookie: b=2\r\n\
          x-ratelimit-reset-requests: 6m0s\r\nretry-after-ms: 10\r\nx-latin: \xe9\r\n\
          content-type: application/json\r\ncontent-length: 12\r\n\r\n{\"error\":{}}",
    )
    .await;
    let head = caller.read_head_bytes().await;
    let expected: &[u8] = b"HTTP/1.1 429 Slow Down\r\ndate: Sun, 22 Nov 2026 17:00:00 GMT\r\n\
          x-request-id: req_1\r\nset-cookie: a=1\r\nset-cookie: b=2\r\n\
          x-ratelimit-reset-requests: 6m0s\r\nretry-after-ms: 10\r\nx-latin: \xe9\r\n\
          content-type: application/json\r\ncontent-length: 12\r\n\r\n";
    assert_eq!(
        String::from_utf8_lossy(&head),
        String::from_utf8_lossy(expected)
    );
    assert_eq!(head, expected);
    assert_eq!(caller.read(12).await, b"{\"error\":{}}");
}

#[tokio::test]
async fn answers_lose_what_is_of_one_hop() {
    let (mut wire, _proxy, mut caller, _) = start_call(GET).await;
    wire.write(
        "HTTP/1.1 200 OK\r\ndate: x\r\nconnection: x-hop\r\nx-hop: 1\r\nkeep-alive: timeout=5\r\n\
         proxy-authenticate: Basic\r\ncontent-length: 0\r\n\r\n",
    )
    .await;
    let head = caller.read_head().await;
    assert_eq!(
        sorted_lines(&head),
        ["HTTP/1.1 200 OK", "content-length: 0", "date: x"]
    );
}

#[tokio::test]
async fn chunked_bodies_stay_chunked_on_any_method() {
    for method in ["POST", "GET", "DELETE"] {
        let (mut wire, _proxy, mut caller, head) = start_call(&format!(
            "{method} /v1/x HTTP/1.1\r\nhost: us\r\ntransfer-encoding: chunked\r\n\r\n"
        ))
        .await;
        assert!(
            head.contains("\r\ntransfer-encoding: chunked\r\n"),
            "{head}"
        );
        caller.write("3\r\nabc\r\n").await;
        assert_eq!(wire.read_chunk().await, b"abc");
        caller.write("1\r\nd\r\n0\r\n\r\n").await;
        assert_eq!(wire.read_chunk().await, b"d");
        assert_eq!(wire.read_chunk().await, b"");
        wire.write(OK).await;
        assert!(caller.read_head().await.starts_with("HTTP/1.1 200"));
        assert_eq!(caller.read(2).await, b"ok");
    }
}

#[tokio::test]
async fn methods_pass() {
    let (upstream, _proxy, mut caller) = start().await;
    let mut wire = None;
    for method in [
        "OPTIONS", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND", "Odd~1",
    ] {
        caller
            .write(format!("{method} /v1/x HTTP/1.1\r\nhost: us\r\n\r\n"))
            .await;
        if wire.is_none() {
            wire = Some(Wire::accept(&upstream).await);
        }
        let wire: &mut Wire = wire.as_mut().unwrap();
        let head = wire.read_head().await;
        assert!(
            head.starts_with(&format!("{method} /v1/x HTTP/1.1\r\n")),
            "{head}"
        );
        wire.write(OK).await;
        assert!(caller.read_head().await.starts_with("HTTP/1.1 200"));
        assert_eq!(caller.read(2).await, b"ok");
    }
}

#[tokio::test]
async fn head_keeps_the_length_and_has_no_body() {
    let (mut wire, _proxy, mut caller, _) =
        start_call("HEAD /v1/files/f/content HTTP/1.1\r\nhost: us\r\n\r\n").await;
    wire.write("HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n")
        .await;
    assert!(caller.read_head().await.contains("content-length: 500\r\n"));
    caller.write(GET).await;
    wire.read_head().await;
    wire.write(OK).await;
    assert!(caller.read_head().await.contains("content-length: 2\r\n"));
}

#[tokio::test]
async fn connect_is_refused_in_openais_shape() {
    let (_upstream, _proxy, mut caller) = start().await;
    caller
        .write("CONNECT api.openai.com:443 HTTP/1.1\r\nhost: api.openai.com\r\n\r\n")
        .await;
    assert!(caller.read_head().await.starts_with("HTTP/1.1 405"));
}

#[tokio::test]
async fn paths_go_under_the_base_path() {
    let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = upstream.local_addr().unwrap();
    let proxy = proxy_to(&format!("http://{address}/openai/v1/"));
    let mut caller = proxy.connect().await;
    caller
        .write("GET /v1/a%2Fb?q=%41 HTTP/1.1\r\nhost: us\r\n\r\n")
        .await;
    let mut wire = Wire::accept(&upstream).await;
    let head = wire.read_head().await;
    assert!(
        head.starts_with("GET /openai/v1/a%2Fb?q=%41 HTTP/1.1\r\n"),
        "{head}"
    );
}

#[tokio::test]
async fn events_arrive_one_by_one_with_characters_split() {
    let (mut wire, _proxy, mut caller, _) = start_call(POST).await;
    wire.write(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\n\
         transfer-encoding: chunked\r\n\r\n",
    )
    .await;
    // The head first, though no byte of the body exists yet.
    let head = caller.read_head().await;
    assert!(
        head.contains("content-type: text/event-stream\r\n"),
        "{head}"
    );
    let pieces: [&[u8]; 4] = [
        b": heartbeat\n\n",
        b"data: {\"delta\":\"\xe2",
        b"\x82",
        b"\xac\"}\n\ndata: [DONE]\n\n",
    ];
    for piece in pieces {
        wire.write_chunk(piece).await;
        // Before the next one is sent.
        assert_eq!(caller.read_chunk().await, piece);
    }
    wire.write_chunk(b"").await;
    assert_eq!(caller.read_chunk().await, b"");
}

#[tokio::test]
async fn answers_that_end_with_the_connection_pass() {
    let (mut wire, _proxy, mut caller, _) = start_call(GET).await;
    wire.write("HTTP/1.0 200 OK\r\n\r\nold").await;
    drop(wire);
    let head = caller.read_head().await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert_eq!(caller.read_chunk().await, b"old");
    assert_eq!(caller.read_chunk().await, b"");
}

#[tokio::test]
async fn an_answer_may_come_before_the_body_is_read() {
    let (mut wire, _proxy, mut caller, _) =
        start_call("POST /v1/files HTTP/1.1\r\nhost: us\r\ncontent-length: 1000000\r\n\r\nstart")
            .await;
    wire.write("HTTP/1.1 413 Payload Too Large\r\ncontent-length: 3\r\n\r\nbig")
        .await;
    assert!(caller.read_head().await.starts_with("HTTP/1.1 413"));
    assert_eq!(caller.read(3).await, b"big");
}

#[tokio::test]
async fn a_caller_that_expects_to_be_asked_is_asked() {
    let (mut wire, _proxy, mut caller, head) = start_call(
        "POST /v1/files HTTP/1.1\r\nhost: us\r\nexpect: 100-continue\r\n\
         content-length: 5\r\n\r\n",
    )
    .await;
    assert!(!head.contains("expect"), "{head}");
    assert_eq!(caller.read_head().await, "HTTP/1.1 100 Continue\r\n\r\n");
    caller.write("hello").await;
    assert_eq!(wire.read(5).await, b"hello");
    wire.write(OK).await;
    assert!(caller.read_head().await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_large_upload_waits_for_the_upstream() {
    const SIZE: usize = 64 << 20;
    let (mut wire, _proxy, mut caller, _) = start_call(&format!(
        "POST /v1/files HTTP/1.1\r\nhost: us\r\ncontent-length: {SIZE}\r\n\r\n"
    ))
    .await;
    // The upstream does not read, so what the caller can write is what the
    // sockets hold (a few MB each) and a few of our buffers.
    let written = caller.write_until_stalled(SIZE).await;
    assert!(written < SIZE / 2, "{written} bytes were taken in");
    let (read, ()) = tokio::join!(wire.count(SIZE), caller.write(vec![b'x'; SIZE - written]));
    assert_eq!(read, SIZE);
    wire.write(OK).await;
    assert!(caller.read_head().await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_large_answer_waits_for_the_caller() {
    const SIZE: usize = 64 << 20;
    let (mut wire, _proxy, mut caller, _) = start_call(GET).await;
    wire.write(format!("HTTP/1.1 200 OK\r\ncontent-length: {SIZE}\r\n\r\n"))
        .await;
    let written = wire.write_until_stalled(SIZE).await;
    assert!(written < SIZE / 2, "{written} bytes were taken in");
    caller.read_head().await;
    let (read, ()) = tokio::join!(caller.count(SIZE), wire.write(vec![b'x'; SIZE - written]));
    assert_eq!(read, SIZE);
}

#[tokio::test]
async fn a_caller_that_leaves_cancels_the_call() {
    let (mut waiting, _proxy, caller, _) = start_call(GET).await;
    drop(caller);
    waiting.assert_closed().await;

    let (mut streaming, _proxy, mut caller, _) = start_call(POST).await;
    streaming.read(2).await;
    streaming
        .write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n")
        .await;
    caller.read_head().await;
    assert_eq!(caller.read_chunk().await, b"hi");
    drop(caller);
    streaming.assert_closed().await;
}

#[tokio::test]
async fn a_caller_that_breaks_off_an_upload_cancels_the_call() {
    let (mut wire, _proxy, caller, _) =
        start_call("POST /v1/files HTTP/1.1\r\nhost: us\r\ncontent-length: 100\r\n\r\nstart").await;
    assert_eq!(wire.read(5).await, b"start");
    drop(caller);
    wire.assert_closed().await;
}

#[tokio::test]
async fn a_malformed_body_is_never_completed() {
    let (mut wire, _proxy, mut caller, _) =
        start_call("POST /v1/x HTTP/1.1\r\nhost: us\r\ntransfer-encoding: chunked\r\n\r\n").await;
    caller.write("2\r\nhi\r\n").await;
    assert_eq!(wire.read_chunk().await, b"hi");
    caller.write("no size\r\n").await;
    // Closed without the last, empty chunk.
    wire.assert_closed().await;
    assert!(caller.read_head().await.starts_with("HTTP/1.1 400"));
}

#[tokio::test]
async fn an_upstream_that_breaks_off_is_no_clean_end() {
    let (mut wire, _proxy, mut caller, _) = start_call(GET).await;
    wire.write("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
        .await;
    caller.read_head().await;
    assert_eq!(caller.read(4).await, b"half");
    drop(wire);
    caller.assert_closed().await;

    let (mut wire, _proxy, mut caller, _) = start_call(GET).await;
    wire.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n")
        .await;
    caller.read_head().await;
    assert_eq!(caller.read_chunk().await, b"half");
    drop(wire);
    // Closed without the last, empty chunk.
    caller.assert_closed().await;
}

async fn assert_failure(caller: &mut Wire, status: &str, code: &str) {
    let head = caller.read_head().await;
    assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{head}");
    assert!(
        head.contains("content-type: application/json\r\n"),
        "{head}"
    );
    let length: usize = head
        .split("content-length: ")
        .nth(1)
        .and_then(|rest| rest.split("\r\n").next())
        .unwrap()
        .parse()
        .unwrap();
    let body: serde_json::Value = serde_json::from_slice(&caller.read(length).await).unwrap();
    let error = body["error"].as_object().unwrap();
    assert_eq!(error.len(), 4, "{body}");
    assert!(!error["message"].as_str().unwrap().is_empty());
    assert_eq!(error["type"], "api_error");
    assert_eq!(error["param"], serde_json::Value::Null);
    assert_eq!(error["code"], code);
}

/// An address that nobody listens on.
async fn nowhere() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

#[tokio::test]
async fn an_upstream_out_of_reach_is_502_in_openais_shape() {
    let proxy = proxy(nowhere().await);
    let mut caller = proxy.connect().await;
    for _ in 0..2 {
        caller.write(POST).await;
        assert_failure(&mut caller, "502", "upstream_unreachable").await;
    }
}

#[tokio::test]
async fn an_upstream_that_speaks_no_http_is_502() {
    let (mut wire, _proxy, mut caller, _) = start_call(GET).await;
    wire.write("SSH-2.0-OpenSSH_9.2\r\n\r\n").await;
    assert_failure(&mut caller, "502", "upstream_invalid_response").await;
}

#[tokio::test]
async fn connections_are_used_again() {
    let (upstream, _proxy, mut caller) = start().await;
    caller.write(POST).await;
    let mut wire = Wire::accept(&upstream).await;
    for _ in 0..3 {
        wire.read_head().await;
        assert_eq!(wire.read(2).await, b"{}");
        wire.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")
            .await;
        caller.read_head().await;
        assert_eq!(caller.read_chunk().await, b"ok");
        assert_eq!(caller.read_chunk().await, b"");
        caller.write(POST).await;
    }
    assert!(upstream.accept().now_or_never().is_none());
}

#[tokio::test]
async fn a_connection_that_went_stale_is_replaced() {
    let (upstream, _proxy, mut caller) = start().await;
    for _ in 0..3 {
        caller.write(POST).await;
        let mut wire = Wire::accept(&upstream).await;
        wire.read_head().await;
        assert_eq!(wire.read(2).await, b"{}");
        wire.write(OK).await;
        caller.read_head().await;
        assert_eq!(caller.read(2).await, b"ok");
    }
}

#[tokio::test]
async fn a_call_that_was_sent_is_never_sent_again() {
    let (upstream, _proxy, mut caller) = start().await;
    caller.write(POST).await;
    let mut wire = Wire::accept(&upstream).await;
    wire.read_head().await;
    wire.read(2).await;
    wire.write(OK).await;
    caller.read_head().await;
    caller.read(2).await;

    caller.write(POST).await;
    wire.read_head().await;
    wire.read(2).await;
    drop(wire);
    assert_failure(&mut caller, "502", "upstream_disconnected").await;
    assert!(upstream.accept().now_or_never().is_none());
}
