//! Slow, idle and too many callers. Times are short here; what must not happen within
//! them is shown by what outlives several of them.

use crate::edge::testing::{HANG, start_with};

use super::*;

const SHORT: Duration = Duration::from_millis(300);

/// An upstream, and a proxy in front of it with these settings.
async fn before(change: impl FnOnce(&mut Settings)) -> (TcpListener, Proxy) {
    let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}/v1", upstream.local_addr().unwrap());
    let mut settings = testing::settings(HANG);
    change(&mut settings);
    let proxy = start_with(&base, Router::new(), settings);
    (upstream, proxy)
}

/// A call that has reached the upstream.
async fn call(upstream: &TcpListener, proxy: &Proxy) -> (Wire, Wire) {
    let mut caller = proxy.connect().await;
    caller.write(GET).await;
    let mut wire = Wire::accept(upstream).await;
    wire.read_head().await;
    (caller, wire)
}

async fn answered(caller: &mut Wire, wire: &mut Wire) {
    wire.write(OK).await;
    assert!(caller.read_head().await.starts_with("HTTP/1.1 200"));
    assert_eq!(caller.read(2).await, b"ok");
}

#[tokio::test]
async fn a_head_that_does_not_end_is_cut_with_408() {
    let (upstream, proxy) = before(|settings| settings.timeouts.head = SHORT).await;
    let mut silent = proxy.connect().await;
    silent.write("GET /v1/models HTTP/1.1\r\nhost:").await;
    let head = silent.read_head().await;
    assert!(head.starts_with("HTTP/1.1 408 "), "{head}");
    assert!(head.contains("connection: close\r\n"), "{head}");
    // A byte now and then buys no time, and it counts from the first one.
    let mut dripping = proxy.connect().await;
    for byte in b"GET /v1/models HTTP/1.1\r\nhost: us\r\nx-more: and"
        .iter()
        .cycle()
    {
        if dripping.try_write(&[*byte]).is_err() || dripping.has_more(SHORT / 10).await {
            break;
        }
    }
    assert!(dripping.read_head().await.starts_with("HTTP/1.1 408 "));
    // A second one on a connection that was used.
    let (mut caller, mut wire) = call(&upstream, &proxy).await;
    answered(&mut caller, &mut wire).await;
    caller.write("GET /v1/mo").await;
    assert!(caller.read_head().await.starts_with("HTTP/1.1 408 "));
}

#[tokio::test]
async fn idle_connections_are_closed_and_quiet_answers_are_not() {
    let short = |settings: &mut Settings| {
        settings.timeouts.idle = SHORT;
        settings.timeouts.head = SHORT;
        settings.timeouts.write = SHORT;
    };
    let (upstream, proxy) = before(short).await;
    let (mut quiet, mut stream) = call(&upstream, &proxy).await;
    stream
        .write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        .await;
    quiet.read_head().await;
    let (mut held, mut pending) = call(&upstream, &proxy).await;
    for _ in 0..3 {
        let mut fresh = proxy.connect().await;
        fresh.assert_closed().await;
        let (mut used, mut wire) = call(&upstream, &proxy).await;
        answered(&mut used, &mut wire).await;
        used.assert_closed().await;
        drop(wire);
    }
    stream.write_chunk(b"late").await;
    assert_eq!(quiet.read_chunk().await, b"late");
    answered(&mut held, &mut pending).await;
}

#[tokio::test]
async fn a_body_may_be_slow_but_not_silent() {
    let idle = Duration::from_secs(1);
    let (upstream, proxy) = before(|settings| settings.timeouts.body_idle = idle).await;
    let mut caller = proxy.connect().await;
    let head = "POST /v1/files HTTP/1.1\r\nhost: us\r\ncontent-length: 20\r\n\r\n";
    caller.write(head).await;
    let mut wire = Wire::accept(&upstream).await;
    wire.read_head().await;
    for _ in 0..20 {
        assert!(!caller.has_more(idle / 10).await, "cut while it sent");
        caller.write("x").await;
    }
    assert_eq!(wire.read(20).await, b"xxxxxxxxxxxxxxxxxxxx");
    answered(&mut caller, &mut wire).await;

    caller.write(head).await;
    caller.write("half").await;
    wire.read_head().await;
    assert_eq!(wire.read(4).await, b"half");
    let answer = caller.read_head().await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    wire.assert_closed().await;
}

#[tokio::test]
async fn who_does_not_read_its_answer_is_cut() {
    let (upstream, proxy) = before(|settings| settings.timeouts.write = SHORT).await;
    let (caller, mut wire) = call(&upstream, &proxy).await;
    wire.write("HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n")
        .await;
    let piece = vec![b'x'; 1 << 16];
    // All that the sockets on the way take is far less than what is promised.
    let mut written = 0;
    while wire.try_write_all(&piece).await.is_ok() {
        written += piece.len();
        assert!(written < 1_000_000_000, "all of it was taken");
    }
    drop(caller);
}

/// In one frame, and far more than the sockets on the way hold.
const LARGE: usize = 32 << 20;

/// A proxy that has given a large answer, its caller's connection, and what of it the
/// caller has not read.
async fn large_answer(change: impl FnOnce(&mut Settings)) -> (Proxy, Wire, usize) {
    let router = Router::new().fallback(any(async || vec![b'x'; LARGE]));
    let mut settings = testing::settings(HANG);
    change(&mut settings);
    let proxy = start_with("http://127.0.0.1:1/v1", router, settings);
    let mut caller = proxy.connect().await;
    caller
        .write("GET /offpeak HTTP/1.1\r\nhost: us\r\n\r\n")
        .await;
    assert!(caller.read_head().await.starts_with("HTTP/1.1 200"));
    (proxy, caller, LARGE)
}

#[tokio::test]
async fn who_reads_slowly_gets_all_of_its_answer() {
    let (proxy, mut caller, mut left) =
        large_answer(|settings| settings.timeouts.idle = SHORT).await;
    for _ in 0..5 {
        proxy.connect().await.assert_closed().await;
        left -= caller.read(1 << 20).await.len();
    }
    caller.read(left).await;
    caller.assert_closed().await;
}

#[tokio::test]
async fn no_408_gets_into_an_answer_that_is_still_read() {
    let (proxy, mut caller, mut left) =
        large_answer(|settings| settings.timeouts.head = SHORT).await;
    caller.write("GET /v1/mo").await;
    for _ in 0..5 {
        let mut slow = proxy.connect().await;
        slow.write("GET").await;
        assert!(slow.read_head().await.starts_with("HTTP/1.1 408 "));
        left -= caller.read(1 << 20).await.len();
    }
    let rest = caller.read(left).await;
    assert!(rest.iter().all(|byte| *byte == b'x'), "something is in it");
    assert!(caller.read_head().await.starts_with("HTTP/1.1 408 "));
}

#[tokio::test]
async fn when_all_places_are_taken_the_idle_make_room_and_then_nobody() {
    let (upstream, proxy) = before(|settings| settings.max_connections = 2).await;
    let (mut first, mut wire) = call(&upstream, &proxy).await;
    answered(&mut first, &mut wire).await;
    drop(wire);
    let (mut second, mut pending) = call(&upstream, &proxy).await;
    let (mut third, mut other) = call(&upstream, &proxy).await;
    first.assert_closed().await;

    let mut fourth = proxy.connect().await;
    fourth.write(GET).await;
    let head = fourth.read_head().await;
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    assert!(head.contains("retry-after: 1\r\n"), "{head}");
    let length = head.split("content-length: ").nth(1).unwrap();
    let length = length.split("\r\n").next().unwrap().parse().unwrap();
    let body: serde_json::Value = serde_json::from_slice(&fourth.read(length).await).unwrap();
    assert_eq!(body["error"]["code"], "too_many_connections");

    let mut supervisor = proxy.connect().await;
    supervisor
        .write("GET /healthz HTTP/1.1\r\nhost: us\r\n\r\n")
        .await;
    let head = supervisor.read_head().await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert_eq!(supervisor.read(3).await, b"ok\n");
    supervisor.assert_closed().await;

    answered(&mut second, &mut pending).await;
    answered(&mut third, &mut other).await;
    let mut fifth = proxy.connect().await;
    fifth
        .write("GET /offpeak HTTP/1.1\r\nhost: us\r\n\r\n")
        .await;
    assert!(fifth.read_head().await.starts_with("HTTP/1.1 404 "));
}

#[tokio::test]
async fn a_head_is_bounded_in_fields_and_in_bytes() {
    let (_upstream, proxy) = before(|_| ()).await;
    let many = "x: y\r\n".repeat(101);
    let long = format!("x: {}\r\n", "y".repeat(70_000));
    for fields in [long, many] {
        eprintln!("{}", fields.len());
        let mut caller = proxy.connect().await;
        // It may be refused before it has sent everything.
        let _ = caller
            .try_write_all(format!("GET /v1/models HTTP/1.1\r\n{fields}\r\n").as_bytes())
            .await;
        let head = caller.read_head().await;
        assert!(head.starts_with("HTTP/1.1 431 "), "{head}");
    }
}
