//! Answers where there is no request to answer, written straight to the socket.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::engine::error_body;

/// Refuses who comes when no connection is free. A supervisor that asks whether the
/// process lives is told so: one that is not would end it, and all that others wait for.
pub async fn turn_away(stream: TcpStream) {
    let mut first = [0; PROBE.len()];
    match timeout(PATIENCE, stream.peek(&mut first)).await {
        Ok(Ok(count)) if first[..count] == *PROBE => refuse(stream, ALIVE).await,
        _ => refuse(stream, &crowded()).await,
    }
}

/// How the question begins.
const PROBE: &[u8] = b"GET /healthz ";

const ALIVE: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain; charset=utf-8\r\n\
    content-length: 3\r\nconnection: close\r\n\r\nok\n";

fn crowded() -> Vec<u8> {
    answer(
        "503 Service Unavailable",
        "Offpeak has as many connections open as server.max_connections allows, and none \
         of them is idle. Send the call again.",
        "api_error",
        "too_many_connections",
    )
}

/// Said to who began a head and does not end it.
pub fn slow_head() -> Vec<u8> {
    answer(
        "408 Request Timeout",
        "The head of the request did not come within server.head_timeout.",
        "invalid_request_error",
        "request_timeout",
    )
}

/// How long a refused caller is waited for, to take its answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// Writes an answer and reads what the caller sends until it closes: a connection
/// closed on unread bytes takes the answer with it.
pub async fn refuse(mut stream: TcpStream, answer: &[u8]) {
    let told = async {
        stream.write_all(answer).await?;
        stream.shutdown().await?;
        let mut forgotten = [0; 4096];
        while stream.read(&mut forgotten).await? > 0 {}
        std::io::Result::Ok(())
    };
    if let Ok(Err(error)) = timeout(PATIENCE, told).await {
        tracing::debug!(%error, "a refused caller left before its answer");
    }
}

fn answer(status: &str, message: &str, kind: &'static str, code: &'static str) -> Vec<u8> {
    let body = error_body(message, kind, None, Some(code));
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         retry-after: 1\r\nconnection: close\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), &body[..]].concat()
}
