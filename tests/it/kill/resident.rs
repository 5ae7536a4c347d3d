//! What callers who send and take slowly make the process hold.

use std::{fs, path::Path, sync::Arc, time::Duration};

use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{
    process::{Process, Setup},
    provider::{Provider, quick},
    soon,
};

const CALLERS: usize = 40;
const MIB: u64 = 1 << 20;

/// A server whose bodies may take so much memory.
const BOUND: u64 = 64 * MIB;

async fn start(dir: &Path) -> (Arc<Provider>, Process) {
    let mut provider = quick();
    provider.latency.turnaround_median = Duration::from_millis(1);
    let provider = Provider::start(provider).await;
    let setup = Setup::new(&provider.upstream(), &dir.join("data"))
        .with("OFFPEAK_SERVER__MAX_BODY_MEMORY", &BOUND.to_string());
    let server = setup.start(&dir.join("stderr")).await;
    (provider, server)
}

async fn connect(server: &Process) -> TcpStream {
    let address = server.base.strip_prefix("http://").unwrap();
    TcpStream::connect(address).await.unwrap()
}

#[tokio::test]
async fn bodies_that_never_end_do_not_fill_the_memory() {
    let dir = tempfile::tempdir().unwrap();
    let (_provider, server) = start(dir.path()).await;
    let before = resident(&server);
    let mut senders = Vec::new();
    for number in 0..CALLERS {
        let mut caller = connect(&server).await;
        let length = 16 * MIB;
        let head = format!(
            "POST /v1/embeddings HTTP/1.1\r\nhost: a\r\nauthorization: Bearer sk-{number}\r\n\
             offpeak-deadline: 6h\r\ncontent-length: {length}\r\n\r\n"
        );
        caller.write_all(head.as_bytes()).await.unwrap();
        // All but the last byte, which the server reads whether it keeps them or not.
        let most = vec![b'x'; length as usize - 1];
        let sent = soon("a body is taken", caller.write_all(&most)).await;
        sent.unwrap();
        senders.push(caller);
    }
    let grown = resident(&server).saturating_sub(before);
    // Of 640 MiB.
    assert!(grown < 2 * BOUND, "{} MiB", grown / MIB);
}

#[tokio::test]
async fn answers_that_nobody_takes_do_not_fill_the_memory() {
    let dir = tempfile::tempdir().unwrap();
    let (_provider, server) = start(dir.path()).await;
    let body = json!({
        "model": "gpt-4o-mini",
        "n": 4,
        "messages": [{"role": "user", "content": "large"}],
        "metadata": {"sim": "tokens=1000000"},
    })
    .to_string();
    let call = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nauthorization: Bearer sk-a\r\n\
         offpeak-deadline: 6h\r\nprefer: wait=3600\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut caller = connect(&server).await;
    caller.write_all(call.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let read = soon("the answer", caller.read_to_end(&mut answer)).await;
    assert!(read.unwrap() as u64 > 15 * MIB, "{}", answer.len());
    let head = String::from_utf8_lossy(&answer[..1000]).into_owned();
    let id = head.split("offpeak-request-id: ").nth(1).unwrap();
    let id = id.split("\r\n").next().unwrap();

    let before = resident(&server);
    let mut takers = Vec::new();
    for _ in 0..CALLERS {
        let mut caller = connect(&server).await;
        let ask = format!(
            "GET /v1/chat/completions/{id} HTTP/1.1\r\nhost: a\r\n\
             authorization: Bearer sk-a\r\n\r\n"
        );
        caller.write_all(ask.as_bytes()).await.unwrap();
        let mut first = [0; 12];
        soon("a head", caller.read_exact(&mut first)).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1 200");
        takers.push(caller);
    }
    let grown = resident(&server).saturating_sub(before);
    assert!(grown < 2 * BOUND, "{} MiB", grown / MIB);
}

/// Bytes.
fn resident(server: &Process) -> u64 {
    let path = format!("/proc/{}/status", server.pid().as_raw_nonzero());
    let status = fs::read_to_string(Path::new(&path)).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kib.unwrap() * 1024
}
