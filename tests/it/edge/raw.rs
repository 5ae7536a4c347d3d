//! A server in front of an upstream that writes down what it is sent, byte for byte.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::timeout,
};

use crate::app::{HANG, TestApp};

/// What the upstream answers to everything. It goes on reading, to see what else comes.
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\
    content-length: 2\r\nconnection: close\r\n\r\n{}";

/// An upstream that reads HTTP/1.1 strictly by its framing.
pub struct Recorder {
    address: SocketAddr,
    /// Every request, and what was no request, as it came.
    seen: Arc<Mutex<Vec<Vec<u8>>>>,
    open: watch::Receiver<usize>,
    _serving: JoinSet<()>,
}

impl Recorder {
    async fn start() -> Recorder {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (count, open) = watch::channel(0);
        let mut serving = JoinSet::new();
        let log = seen.clone();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                count.send_modify(|open| *open += 1);
                let (log, count) = (log.clone(), count.clone());
                connections.spawn(async move {
                    record(stream, &log).await;
                    count.send_modify(|open| *open -= 1);
                });
            }
        });
        Recorder {
            address,
            seen,
            open,
            _serving: serving,
        }
    }

    /// As `Host` says it.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// What came since the last time, once no connection is open any more.
    pub async fn take(&mut self) -> Vec<Vec<u8>> {
        // Whatever was connected before the probe is accepted before it.
        let mut probe = TcpStream::connect(self.address).await.unwrap();
        probe.write_all(PROBE).await.unwrap();
        drop(probe);
        let is_probe = |bytes: &Vec<u8>| bytes == PROBE;
        let seen = self.seen.clone();
        let probed = move || seen.lock().unwrap().iter().any(is_probe);
        let closed = self.open.wait_for(|open| *open == 0 && probed());
        timeout(HANG, closed).await.expect("a hang").unwrap();
        let mut seen = std::mem::take(&mut *self.seen.lock().unwrap());
        seen.retain(|bytes| !is_probe(bytes));
        seen
    }
}

/// Sent by the test itself.
const PROBE: &[u8] = b"PROBE";

/// A server in front of a recorder, which has every call on a connection of its own.
pub async fn recorded(settings: &[(&str, &str)]) -> (TestApp, Recorder) {
    let recorder = Recorder::start().await;
    let base = format!("http://{}/v1", recorder.address);
    let mut all = vec![
        ("OFFPEAK_UPSTREAM__BASE_URL", base.as_str()),
        ("OFFPEAK_SERVER__HEAD_TIMEOUT", "500ms"),
        ("OFFPEAK_SERVER__BODY_IDLE_TIMEOUT", "500ms"),
    ];
    all.extend_from_slice(settings);
    (TestApp::with(&all).await, recorder)
}

/// Sends `bytes` as they are and reads until the server closes.
pub async fn told(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // It may be refused before all of it is sent, and then reset.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = timeout(HANG, stream.read_to_end(&mut answer))
        .await
        .expect("a hang");
    answer
}

/// The status of every answer in `answer`.
pub fn statuses(answer: &[u8]) -> Vec<u16> {
    let text = String::from_utf8_lossy(answer);
    let answers = text.split("HTTP/1.").skip(1);
    answers.map(|one| one[2..5].parse().unwrap()).collect()
}

async fn record(mut stream: TcpStream, log: &Mutex<Vec<Vec<u8>>>) {
    let mut buffer = Vec::new();
    loop {
        let Some(length) = request(&mut stream, &mut buffer).await else {
            if !buffer.is_empty() {
                log.lock().unwrap().push(buffer);
            }
            return;
        };
        let rest = buffer.split_off(length);
        log.lock()
            .unwrap()
            .push(std::mem::replace(&mut buffer, rest));
        if stream.write_all(ANSWER).await.is_err() {
            return;
        }
    }
}

/// The length of the next request in `buffer`; none where the connection ends first.
async fn request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<usize> {
    let head = fill(stream, buffer, 0, b"\r\n\r\n").await?;
    let fields = String::from_utf8_lossy(&buffer[..head]).to_ascii_lowercase();
    if fields.contains("\r\ntransfer-encoding:") {
        let mut at = head;
        loop {
            let line = fill(stream, buffer, at, b"\r\n").await?;
            let size = std::str::from_utf8(&buffer[at..line - 2]).unwrap();
            let size = usize::from_str_radix(size, 16).unwrap();
            at = match size {
                // Trailers end at an empty line.
                0 => return fill(stream, buffer, line - 2, b"\r\n\r\n").await,
                size => line + size + 2,
            };
        }
    }
    let length = fields.split("\r\ncontent-length: ").nth(1);
    let length = length.map_or(0, |rest| {
        rest.split("\r\n").next().unwrap().parse().unwrap()
    });
    while buffer.len() < head + length {
        more(stream, buffer).await?;
    }
    Some(head + length)
}

/// Where `mark` ends at or after `from`.
async fn fill(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
    from: usize,
    mark: &[u8],
) -> Option<usize> {
    loop {
        let rest = buffer.get(from..).unwrap_or_default();
        let found = rest.windows(mark.len()).position(|bytes| bytes == mark);
        if let Some(at) = found {
            return Some(from + at + mark.len());
        }
        more(stream, buffer).await?;
    }
}

async fn more(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<()> {
    match stream.read_buf(buffer).await {
        Ok(count) if count > 0 => Some(()),
        _ => None,
    }
}
