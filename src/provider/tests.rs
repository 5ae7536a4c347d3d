//! The adapter against servers that misbehave: on loopback where the kernel's
//! part in a failure matters, in memory on a paused clock where time does.

mod background;

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use axum::extract::{DefaultBodyLimit, FromRequest, Multipart};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf},
    net::TcpListener,
    sync::mpsc,
    task::JoinSet,
    time::Instant,
};

use super::{
    OpenAi,
    connect::{BoxError, Dial, Tcp},
    settings::tests::example,
};
use crate::{
    model::{attempt::Lane, endpoint::Endpoint, id::BatchId, time::Timestamp},
    ports::{
        Credential, LineAnswer, LiveCall, Provider, ProviderError, RemoteStatus, ResultLine, Upload,
    },
};

const READ_TIMEOUT: Duration = Duration::from_secs(30);
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(60);

// ------------------------------------------------------------------ harness

/// A server that treats each connection alike, for as long as this lives.
struct Server {
    provider: OpenAi<Tcp>,
    requests: mpsc::Receiver<Seen>,
    _tasks: JoinSet<()>,
}

struct Seen {
    head: String,
    body: Vec<u8>,
}

/// Answers every request with `answer` as it stands, then closes.
async fn answering(answer: impl Into<Vec<u8>>) -> Server {
    let answer = answer.into();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}/v1", listener.local_addr().unwrap());
    let (seen, requests) = mpsc::channel(8);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let Some(request) = request(&mut stream).await else {
                continue;
            };
            stream.write_all(&answer).await.unwrap();
            stream.shutdown().await.unwrap();
            if seen.send(request).await.is_err() {
                return;
            }
        }
    });
    Server {
        provider: OpenAi::over_tcp(&example(&base)).unwrap(),
        requests,
        _tasks: tasks,
    }
}

impl Server {
    async fn seen(&mut self) -> Seen {
        self.requests.recv().await.unwrap()
    }
}

/// A whole request; `None` where it breaks off.
async fn request(stream: &mut (impl AsyncRead + Unpin)) -> Option<Seen> {
    let head = head(stream).await?;
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(Seen { head, body })
}

async fn head(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8(head).unwrap())
}

fn ok(body: &str) -> String {
    status("200 OK", body)
}

fn status(line: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {line}\r\ncontent-length: {length}\r\n\r\n{body}")
}

/// A provider whose connections arrive at the receiver.
fn in_memory() -> (OpenAi<impl Dial>, mpsc::Receiver<DuplexStream>) {
    let (accept, accepted) = mpsc::channel(8);
    let provider = OpenAi::new(&example("http://provider/v1"), move |_| {
        let accept = accept.clone();
        async move {
            let (ours, theirs) = tokio::io::duplex(64 * 1024);
            accept.send(theirs).await?;
            Ok::<_, BoxError>(ours)
        }
    });
    (provider.unwrap(), accepted)
}

fn key() -> Credential {
    Credential {
        headers: vec![("authorization".to_owned(), "Bearer sk-secret".to_owned())],
        query: None,
    }
}

fn upload(lines: &[&'static str], length: u64) -> Upload {
    let lines: Vec<_> = lines.iter().map(|&line| Ok(Bytes::from(line))).collect();
    Upload {
        name: "ob_1.jsonl".to_owned(),
        length,
        lines: stream::iter(lines).boxed(),
    }
}

/// `pieces` pieces of 64 KiB, and how many were asked for.
fn large(pieces: u64) -> (Upload, Arc<AtomicU64>) {
    const PIECE: Bytes = Bytes::from_static(&[b'x'; 65_536]);
    let produced = Arc::new(AtomicU64::new(0));
    let counter = produced.clone();
    let lines = stream::iter(0..pieces).map(move |_| {
        counter.fetch_add(1, Ordering::Relaxed);
        Ok(PIECE)
    });
    let upload = Upload {
        name: "large".to_owned(),
        length: pieces * PIECE.len() as u64,
        lines: lines.boxed(),
    };
    (upload, produced)
}

fn live(body: &'static str) -> LiveCall {
    LiveCall {
        endpoint: Endpoint::ChatCompletions,
        lane: Lane::Standard,
        body: Bytes::from(body),
        timeout: Duration::from_secs(600),
    }
}

fn lost<T>(result: Result<T, ProviderError>) -> bool {
    matches!(result, Err(ProviderError::Lost(_)))
}

fn unreachable<T>(result: Result<T, ProviderError>) -> bool {
    matches!(result, Err(ProviderError::Unreachable(_)))
}

fn local<T>(result: Result<T, ProviderError>) -> bool {
    matches!(result, Err(ProviderError::Local(_)))
}

fn malformed<T>(result: Result<T, ProviderError>) -> bool {
    matches!(result, Err(ProviderError::Malformed(_)))
}

// ----------------------------------------------------------- whose fault it is

#[tokio::test]
async fn nobody_listens() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}/v1", listener.local_addr().unwrap());
    drop(listener);
    let provider = OpenAi::over_tcp(&example(&base)).unwrap();
    assert!(unreachable(provider.batch(&key(), "b").await));
    assert!(unreachable(provider.run(&key(), live("{}")).await));
    assert!(unreachable(
        provider.upload(&key(), upload(&["a\n"], 2)).await
    ));
}

#[tokio::test]
async fn no_tls_on_the_other_side() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("https://{}/v1", listener.local_addr().unwrap());
    let provider = OpenAi::new(&example(&base), Tcp::new(false).unwrap()).unwrap();
    let by = key();
    let (answer, ()) = tokio::join!(provider.batch(&by, "b"), async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad\r\n\r\n").await.unwrap();
        stream.shutdown().await.unwrap();
    });
    assert!(unreachable(answer));
}

#[tokio::test(start_paused = true)]
async fn connecting_hangs() {
    let never = |_| std::future::pending::<Result<DuplexStream, BoxError>>();
    let provider = OpenAi::new(&example("http://provider/v1"), never).unwrap();
    let started = Instant::now();
    assert!(unreachable(provider.batch(&key(), "b").await));
    assert_eq!(started.elapsed().as_secs(), 5);

    let impatient = LiveCall {
        timeout: Duration::from_secs(2),
        ..live("{}")
    };
    let started = Instant::now();
    assert!(unreachable(provider.run(&key(), impatient).await));
    assert_eq!(started.elapsed().as_secs(), 2);
}

#[tokio::test]
async fn the_reply_is_lost() {
    for answer in [
        "",
        "HTTP/1.1 200",
        "garbage\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\n{\"id\":\"b\"}",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\na\r\n{\"id\":\"b\"}\r\n",
    ] {
        let server = answering(answer).await;
        let result = server.provider.batch(&key(), "b").await;
        assert!(
            matches!(result, Err(ProviderError::Lost(_))),
            "{answer}: {result:?}"
        );
    }
}

#[tokio::test]
async fn the_reply_cannot_be_read() {
    for body in ["", "<html>", "{}", "[", "{\"id\":7}"] {
        let server = answering(ok(body)).await;
        assert!(
            malformed(server.provider.batch(&key(), "b").await),
            "{body}"
        );
        assert!(
            malformed(server.provider.upload(&key(), upload(&[], 0)).await),
            "{body}"
        );
    }
    let server = answering(ok(&" ".repeat(9 * 1024 * 1024))).await;
    assert!(malformed(server.provider.batches(&key(), None).await));
}

#[tokio::test]
async fn refusals_say_what_the_provider_said() {
    let body = r#"{"error":{"message":"m","type":"t","param":null,"code":"c"}}"#;
    let answer = format!(
        "HTTP/1.1 429 Slow\r\nretry-after: 9\r\nx-should-retry: false\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let server = answering(answer).await;
    let Err(ProviderError::Refused {
        status: code,
        body: told,
        retry_after,
        should_retry,
    }) = server.provider.batch(&key(), "b").await
    else {
        panic!("not refused");
    };
    assert_eq!(code, 429);
    assert_eq!(told, body);
    assert_eq!(retry_after, Some(Duration::from_secs(9)));
    assert_eq!(should_retry, Some(false));

    for (answer, status, length) in [
        (status("500 Oh", &"x".repeat(100_000)), 500, 64 * 1024),
        (
            "HTTP/1.1 502 Bad\r\ncontent-length: 9\r\n\r\ncut".to_owned(),
            502,
            3,
        ),
        (status("302 Found", ""), 302, 0),
    ] {
        let server = answering(answer).await;
        let result = server.provider.model(&key(), "m").await;
        assert!(
            matches!(&result, Err(ProviderError::Refused { status: s, body, retry_after: None, should_retry: None })
                if *s == status && body.len() == length),
            "{result:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn silence_ends_a_call() {
    let (provider, mut accepted) = in_memory();
    let started = Instant::now();
    assert!(lost(provider.batch(&key(), "b").await));
    assert_eq!(started.elapsed(), READ_TIMEOUT);
    drop(accepted.recv().await);

    // In the middle of a body, counted from its last piece.
    let by = key();
    let (answer, ()) = tokio::join!(provider.batch(&by, "b"), async {
        let mut stream = accepted.recv().await.unwrap();
        request(&mut stream).await.unwrap();
        tokio::time::sleep(Duration::from_secs(20)).await;
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n")
            .await
            .unwrap();
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_secs(20)).await;
            stream.write_all(b" ").await.unwrap();
        }
        let written = Instant::now();
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
        assert_eq!(written.elapsed(), READ_TIMEOUT);
    });
    assert!(lost(answer));
}

#[tokio::test]
async fn a_credential_that_http_cannot_carry() {
    let server = answering(ok("{}")).await;
    for (name, value) in [("authorization", "Bearer sk\nsecret"), ("a b", "c")] {
        let by = Credential {
            headers: vec![(name.to_owned(), value.to_owned())],
            query: None,
        };
        let result = server.provider.batch(&by, "b").await;
        assert!(!format!("{result:?}").contains("secret"));
        assert!(local(result));
    }
}

// -------------------------------------------------------------- control calls

#[tokio::test]
async fn a_create_carries_our_tag() {
    let mut server = answering(ok(r#"{"id":"batch_1","status":"validating"}"#)).await;
    let tag = BatchId::new(Timestamp::from_secs(1), 2);
    let batch = server
        .provider
        .create_batch(&key(), "file-1", Endpoint::Embeddings, tag)
        .await
        .unwrap();
    assert_eq!(
        (batch.id.as_str(), batch.status),
        ("batch_1", RemoteStatus::Running)
    );

    let seen = server.seen().await;
    assert!(
        seen.head.starts_with("POST /v1/batches HTTP/1.1\r\n"),
        "{}",
        seen.head
    );
    assert!(
        seen.head.contains("authorization: Bearer sk-secret\r\n"),
        "{}",
        seen.head
    );
    assert!(
        seen.head.contains("content-type: application/json\r\n"),
        "{}",
        seen.head
    );
    let body: serde_json::Value = serde_json::from_slice(&seen.body).unwrap();
    assert_eq!(
        body,
        serde_json::json!({
            "input_file_id": "file-1",
            "endpoint": "/v1/embeddings",
            "completion_window": "24h",
            "metadata": { "offpeak_batch": tag.to_string() },
            "output_expires_after": { "anchor": "created_at", "seconds": 172_800 },
        })
    );
}

#[tokio::test]
async fn names_and_queries_are_escaped() {
    let mut server = answering(ok(r#"{"id":"b","data":[]}"#)).await;
    let by = Credential {
        headers: vec![("api-key".to_owned(), "k".to_owned())],
        query: Some("api-version=2024-10-21".to_owned()),
    };
    let provider = &server.provider;
    provider.model(&by, "org/model:1?x").await.unwrap();
    provider.batches(&by, Some("batch&1")).await.unwrap();
    provider.batches(&key(), None).await.unwrap();
    for name in ["", ".", ".."] {
        assert!(local(provider.delete_file(&by, name).await));
    }
    for expected in [
        "GET /v1/models/org%2Fmodel%3A1%3Fx?api-version=2024-10-21 ",
        "GET /v1/batches?limit=100&after=batch%261&api-version=2024-10-21 ",
        "GET /v1/batches?limit=100 ",
    ] {
        let head = server.seen().await.head;
        assert!(head.starts_with(expected), "{head}");
    }
}

#[tokio::test]
async fn what_is_gone_is_deleted_and_what_has_ended_is_cancelled() {
    for (line, deleted, cancelled) in [
        ("200 OK", true, true),
        ("404 Not Found", true, false),
        ("409 Conflict", false, true),
        ("500 Oh", false, false),
    ] {
        let server = answering(status(line, "{}")).await;
        let delete = server.provider.delete_file(&key(), "file-1").await;
        assert_eq!(delete.is_ok(), deleted, "{line}");
        let cancel = server.provider.cancel_batch(&key(), "batch_1").await;
        assert_eq!(cancel.is_ok(), cancelled, "{line}");
    }
}

// -------------------------------------------------------------------- uploads

#[tokio::test]
async fn a_file_arrives_as_multipart() {
    let mut server = answering(ok(r#"{"id":"file-9","object":"file"}"#)).await;
    let lines = ["{\"custom_id\":\"1\"}\n", "{\"custom_id\":", "\"2\"}\n"];
    let mut file = upload(&lines, 36);
    file.name = "a\"b\r\n.jsonl".to_owned();
    let id = server.provider.upload(&key(), file).await.unwrap();
    assert_eq!(id, "file-9");

    let seen = server.seen().await;
    assert!(
        seen.head.starts_with("POST /v1/files HTTP/1.1\r\n"),
        "{}",
        seen.head
    );
    assert!(!seen.head.contains("transfer-encoding"), "{}", seen.head);
    let content_type = seen
        .head
        .lines()
        .find_map(|line| line.strip_prefix("content-type: "))
        .unwrap();
    let parsed = http::Request::builder()
        .header("content-type", content_type)
        .extension(DefaultBodyLimit::disable())
        .body(axum::body::Body::from(seen.body))
        .unwrap();
    let mut form = Multipart::from_request(parsed, &()).await.unwrap();
    let mut fields = Vec::new();
    while let Some(field) = form.next_field().await.unwrap() {
        let name = field.name().unwrap().to_owned();
        let file = field.file_name().map(str::to_owned);
        let kind = field.content_type().map(str::to_owned);
        fields.push((name, file, kind, field.text().await.unwrap()));
    }
    let plain = |name: &str, value: &str| (name.to_owned(), None, None, value.to_owned());
    assert_eq!(
        fields,
        [
            plain("purpose", "batch"),
            plain("expires_after[anchor]", "created_at"),
            plain("expires_after[seconds]", "86400"),
            (
                "file".to_owned(),
                Some("a%22b%0D%0A.jsonl".to_owned()),
                Some("application/jsonl".to_owned()),
                lines.concat(),
            ),
        ]
    );
}

#[tokio::test]
async fn a_file_of_another_length_never_arrives_whole() {
    let failing = Upload {
        name: "f".to_owned(),
        length: 4,
        lines: stream::iter([Ok(Bytes::from("ab")), Err(io::Error::other("torn"))]).boxed(),
    };
    for upload in [upload(&["ab\n"], 4), upload(&["ab\n", "cd\n"], 4), failing] {
        let (provider, mut accepted) = in_memory();
        let by = key();
        let (result, received) = tokio::join!(provider.upload(&by, upload), async {
            request(&mut accepted.recv().await.unwrap()).await
        });
        assert!(local(result));
        assert!(received.is_none(), "the provider holds a file");
    }
}

#[tokio::test(start_paused = true)]
async fn a_page_tells_what_the_provider_s_clock_said() {
    const ANSWERED: Timestamp = Timestamp::from_secs(784_111_777);
    let date = "date: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
    let took = Duration::from_secs(7);
    for (date, expected) in [
        (date, Some(ANSWERED - took)),
        ("date: yesterday\r\n", None),
        ("", None),
    ] {
        let (provider, mut accepted) = in_memory();
        let by = key();
        let (page, ()) = tokio::join!(provider.batches(&by, None), async {
            let mut stream = accepted.recv().await.unwrap();
            request(&mut stream).await.unwrap();
            tokio::time::sleep(took).await;
            let answer =
                format!("HTTP/1.1 200 OK\r\n{date}content-length: 11\r\n\r\n{{\"data\":[]}}");
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        assert_eq!(page.unwrap().asked, expected, "{date}");
    }
}

/// The kernel resets the connection, because the server leaves bytes unread.
#[tokio::test]
async fn an_answer_before_the_end_of_the_file_is_heard() {
    for round in 0..20 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}/v1", listener.local_addr().unwrap());
        let provider = OpenAi::over_tcp(&example(&base)).unwrap();
        let by = key();
        let (file, produced) = large(4096);
        let (result, ()) = tokio::join!(provider.upload(&by, file), async {
            let (mut stream, _) = listener.accept().await.unwrap();
            head(&mut stream).await.unwrap();
            stream
                .write_all(status("413 Too Large", "too large").as_bytes())
                .await
                .unwrap();
        });
        assert!(
            matches!(&result, Err(ProviderError::Refused { status: 413, body, .. }) if body == "too large"),
            "round {round}: {result:?}"
        );
        assert!(produced.load(Ordering::Relaxed) < 4096);
    }
}

/// A provider that answers once it has taken `AT` bytes, and then either takes
/// whatever comes or resets the connection in the middle of our next write,
/// which is the moment between two reads that real sockets hit only sometimes.
struct Early {
    taken: usize,
    resets: bool,
    answer: Option<String>,
    reader: Option<Waker>,
}

impl Early {
    const AT: usize = 1024 * 1024;

    fn answers(&self) -> bool {
        self.taken >= Early::AT
    }
}

impl AsyncWrite for Early {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.taken += bytes.len();
        if self.answers() {
            self.reader.take().inspect(|reader| reader.wake_by_ref());
            if self.resets {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Early {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.answers() {
            self.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if let Some(answer) = self.answer.take() {
            into.put_slice(answer.as_bytes());
        }
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn an_early_answer_is_heard_between_two_writes() {
    for (resets, answer) in [(false, true), (true, true), (true, false)] {
        let provider = OpenAi::new(&example("http://provider/v1"), move |_| async move {
            Ok::<_, BoxError>(Early {
                taken: 0,
                resets,
                answer: answer.then(|| status("413 Too Large", "{}")),
                reader: None,
            })
        });
        let (file, produced) = large(4096);
        let result = provider.unwrap().upload(&key(), file).await;
        if answer {
            assert!(
                matches!(result, Err(ProviderError::Refused { status: 413, .. })),
                "{resets}: {result:?}"
            );
        } else {
            assert!(lost(result));
        }
        let sent = produced.load(Ordering::Relaxed) as usize * 65_536;
        assert!(sent < 2 * Early::AT, "{resets}: {sent} bytes");
    }
}

#[tokio::test(start_paused = true)]
async fn an_early_answer_stops_the_upload() {
    for (line, refused) in [("401 Unauthorized", true), ("200 OK", false)] {
        let (provider, mut accepted) = in_memory();
        let by = key();
        let (file, produced) = large(4096);
        let (result, ()) = tokio::join!(provider.upload(&by, file), async {
            let mut stream = accepted.recv().await.unwrap();
            head(&mut stream).await.unwrap();
            stream
                .write_all(status(line, "{\"id\":\"f\"}").as_bytes())
                .await
                .unwrap();
            // Reads on until we give up.
            tokio::io::copy(&mut stream, &mut tokio::io::sink())
                .await
                .unwrap();
        });
        if refused {
            assert!(matches!(
                result,
                Err(ProviderError::Refused { status: 401, .. })
            ));
        } else {
            assert!(malformed(result));
        }
        assert!(produced.load(Ordering::Relaxed) < 4096);
    }
}

#[tokio::test(start_paused = true)]
async fn an_upload_holds_little_and_waits_for_the_provider() {
    let (provider, mut accepted) = in_memory();
    let by = key();
    let (file, produced) = large(1024);
    let (result, ()) = tokio::join!(provider.upload(&by, file), async {
        let mut stream = accepted.recv().await.unwrap();
        // Just short of silence, again and again: each piece taken resets it.
        for taken in (0..3).map(|turn| turn * 512 * 1024) {
            tokio::time::sleep(UPLOAD_TIMEOUT - Duration::from_secs(1)).await;
            let held = produced.load(Ordering::Relaxed) * 65_536 - taken;
            assert!(held < 1024 * 1024, "{held} bytes are held");
            stream.read_exact(&mut vec![0; 512 * 1024]).await.unwrap();
        }
        let mut rest = [0; 65_536];
        let mut ended = Vec::new();
        while !ended.ends_with(b"--\r\n") {
            let length = stream.read(&mut rest).await.unwrap();
            ended = rest[..length].to_vec();
        }
        stream
            .write_all(ok("{\"id\":\"f\"}").as_bytes())
            .await
            .unwrap();
    });
    assert_eq!(result.unwrap(), "f");
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_nobody_takes_is_lost() {
    let (provider, accepted) = in_memory();
    let started = Instant::now();
    assert!(lost(provider.upload(&key(), large(1024).0).await));
    assert_eq!(started.elapsed(), UPLOAD_TIMEOUT);
    drop(accepted);
}

// -------------------------------------------------------------------- results

async fn harvest(answer: String) -> Vec<Result<ResultLine, ProviderError>> {
    let mut server = answering(answer).await;
    let lines = server.provider.results(&key(), "file/1").await.unwrap();
    let lines = lines.collect().await;
    let head = server.seen().await.head;
    assert!(
        head.starts_with("GET /v1/files/file%2F1/content "),
        "{head}"
    );
    lines
}

const TWO: &str =
    "{\"custom_id\":\"1\",\"response\":{\"status_code\":200,\"body\":{ }}}\n{\"custom_id\":\"2\"}";

#[tokio::test]
async fn a_result_file_is_read_to_its_end() {
    let chunked = format!(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{}\r\n{:x}\r\n{}\r\n0\r\n\r\n",
        &TWO[..5],
        TWO.len() - 5,
        &TWO[5..]
    );
    let closed = format!("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{TWO}");
    for answer in [ok(TWO), chunked, closed] {
        let lines: Vec<_> = harvest(answer)
            .await
            .into_iter()
            .map(Result::unwrap)
            .collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(
            lines[0].answer,
            LineAnswer::Answered {
                status: 200,
                request: None,
                body: Bytes::from("{ }"),
            }
        );
        assert!(matches!(lines[1].answer, LineAnswer::NotRun { .. }));
    }
    assert!(harvest(ok("")).await.is_empty());
}

#[tokio::test]
async fn a_cut_result_file_is_an_error() {
    let sized = format!("HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\n{TWO}\n");
    let chunked = format!(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{TWO}\n\r\n",
        TWO.len() + 1
    );
    for answer in [sized, chunked] {
        let lines = harvest(answer).await;
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(matches!(lines[2], Err(ProviderError::Lost(_))));
    }
    let unframed = format!("HTTP/1.1 200 OK\r\n\r\n{TWO}\n{{\"custom");
    let lines = harvest(unframed).await;
    assert!(matches!(lines.last(), Some(Err(ProviderError::Lost(_)))));
}

#[tokio::test(start_paused = true)]
async fn a_silent_result_file_is_an_error() {
    let (provider, mut accepted) = in_memory();
    let by = key();
    let mut held = None;
    let (lines, ()) = tokio::join!(provider.results(&by, "f"), async {
        let mut stream = accepted.recv().await.unwrap();
        request(&mut stream).await.unwrap();
        let part = format!("HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\n{TWO}\n");
        stream.write_all(part.as_bytes()).await.unwrap();
        held = Some(stream);
    });
    let started = Instant::now();
    let lines: Vec<_> = lines.unwrap().collect().await;
    assert_eq!(lines.len(), 3);
    assert!(matches!(lines[2], Err(ProviderError::Lost(_))));
    assert_eq!(started.elapsed(), READ_TIMEOUT);
    assert!(held.is_some());
}

#[tokio::test]
async fn an_input_file_names_its_lines() {
    let server = answering(ok(TWO)).await;
    let lines = server.provider.input_lines(&key(), "f").await.unwrap();
    let ids: Vec<String> = lines.try_collect().await.unwrap();
    assert_eq!(ids, ["1", "2"]);
}

// ----------------------------------------------------------------- live calls

#[tokio::test]
async fn a_live_call_hands_on_whatever_is_answered() {
    for (line, expected) in [("200 OK", 200), ("429 Slow", 429), ("500 Oh", 500)] {
        let answer = format!(
            "HTTP/1.1 {line}\r\nx-request-id: req_1\r\ncontent-length: 7\r\n\r\n{{\"a\":1}}"
        );
        let mut server = answering(answer).await;
        let reply = server
            .provider
            .run(&key(), live(r#"{"n": 1.0}"#))
            .await
            .unwrap();
        assert_eq!(reply.status, expected);
        assert_eq!(reply.headers["x-request-id"], "req_1");
        let body: Vec<Bytes> = reply.body.try_collect().await.unwrap();
        assert_eq!(body.concat(), b"{\"a\":1}");

        let seen = server.seen().await;
        assert!(
            seen.head
                .starts_with("POST /v1/chat/completions HTTP/1.1\r\n"),
            "{}",
            seen.head
        );
        assert!(
            seen.head.contains("content-type: application/json\r\n"),
            "{}",
            seen.head
        );
        assert_eq!(seen.body, br#"{"n": 1.0}"#);
    }
}

#[tokio::test(start_paused = true)]
async fn a_live_call_waits_for_its_head_and_then_for_each_piece() {
    let (provider, mut accepted) = in_memory();
    let started = Instant::now();
    assert!(lost(provider.run(&key(), live("{}")).await));
    assert_eq!(started.elapsed(), Duration::from_secs(600));
    drop(accepted.recv().await);

    let by = key();
    let (reply, mut stream) = tokio::join!(provider.run(&by, live("{}")), async {
        let mut stream = accepted.recv().await.unwrap();
        request(&mut stream).await.unwrap();
        tokio::time::sleep(Duration::from_secs(599)).await;
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n: \r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        stream
    });
    let mut body = reply.unwrap().body;
    assert_eq!(body.next().await.unwrap().unwrap(), ": ");
    let started = Instant::now();
    assert!(lost(body.next().await.unwrap()));
    assert_eq!(started.elapsed(), READ_TIMEOUT);
    assert!(body.next().await.is_none());
    // And the call upstream is given up.
    drop(body);
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_flex_call_asks_for_its_tier() {
    let mut server = answering(ok("{}")).await;
    let call = LiveCall {
        lane: Lane::Flex,
        ..live(r#"{"n": 1.0, "service_tier": "default"}"#)
    };
    let reply = server.provider.run(&key(), call).await.unwrap();
    assert_eq!(reply.status, 200);
    assert_eq!(
        server.seen().await.body,
        br#"{"n":1.0,"service_tier":"flex"}"#
    );
    let never = LiveCall {
        lane: Lane::Batch,
        ..live("{}")
    };
    assert!(local(server.provider.run(&key(), never).await));
}

#[tokio::test(start_paused = true)]
async fn calls_share_a_connection() {
    async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, calls: usize) {
        for _ in 0..calls {
            request(&mut stream).await.unwrap();
            stream
                .write_all(ok("{\"id\":\"b\"}").as_bytes())
                .await
                .unwrap();
        }
    }
    let (provider, mut accepted) = in_memory();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { serve(accepted.recv().await.unwrap(), 3).await });
    for _ in 0..3 {
        assert_eq!(provider.batch(&key(), "b").await.unwrap().id, "b");
    }
    tasks.join_next().await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_closed_while_idle_is_not_used_again() {
    let (provider, mut accepted) = in_memory();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        for _ in 0..2 {
            let mut stream = accepted.recv().await.unwrap();
            request(&mut stream).await.unwrap();
            stream
                .write_all(ok("{\"id\":\"b\"}").as_bytes())
                .await
                .unwrap();
        }
    });
    for _ in 0..2 {
        assert_eq!(provider.batch(&key(), "b").await.unwrap().id, "b");
        // The paused clock moves once nothing else is left to do.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tasks.join_next().await.unwrap().unwrap();
}
