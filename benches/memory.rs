//! Memory of the real server process, read from /proc.
//!
//! ```text
//! cargo bench --bench memory -- held [CALLS]   RSS per held call (7,000; one key's may take
//!                                              four of five connections)
//! cargo bench --bench memory -- idle [COUNT]   RSS per idle connection (9,000): the
//!                                              server takes half as many as it may open files
//! cargo bench --bench memory -- upload [MB]    peak RSS over idle while an input
//!                                              file is assembled and uploaded (200)
//! ```
//!
//! The server is started with the release binary and its default settings but for
//! those in [`Server::start`]; the simulated provider runs in this process.

use std::{env, fs, net::SocketAddr, path::Path, process::Stdio, sync::Arc, time::Duration};

use offpeak::{
    app::SystemClock,
    simulator::{self, Simulator},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpSocket, TcpStream},
    process::{Child, Command},
    task::JoinSet,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = env::args()
        .skip(1)
        .filter(|a| !a.starts_with("--"))
        .collect();
    let number = |default| {
        arguments
            .get(1)
            .and_then(|n| n.parse().ok())
            .unwrap_or(default)
    };
    match arguments.first().map(String::as_str) {
        Some("held") => held(number(7_000)).await,
        Some("idle") => idle(number(9_000)).await,
        Some("upload") => upload(number(200)).await,
        _ => println!("say what to measure: held [CALLS] | idle [COUNT] | upload [MB]"),
    }
}

/// RSS per call that waits on the line.
async fn held(calls: usize) {
    let server = Server::start(&[("OFFPEAK_PACKING__LINGER", "12h")]).await;
    // Buffers and pools that every server has once it has been used.
    let warm = server.hold(64).await;
    let before = server.rss_kb();
    let held = server.hold(calls).await;
    let after = server.rss_kb();
    println!(
        "{calls} held calls: {:.1} KB each ({before} KB before, {after} KB with them)",
        (after - before) as f64 / calls as f64
    );
    drop((warm, held));
}

/// RSS per connection that waits for a request: one that never made any, and one that did.
async fn idle(count: usize) {
    let server = Server::start(&[("OFFPEAK_SERVER__IDLE_TIMEOUT", "1h")]).await;
    let warm = server.connect(64, true).await;
    let before = server.rss_kb();
    let fresh = server.connect(count / 2, false).await;
    let between = server.rss_kb();
    let used = server.connect(count / 2, true).await;
    let after = server.rss_kb();
    let each = |from, to| (to - from) as f64 / (count / 2) as f64;
    println!(
        "{count} idle connections: {:.2} KB each that never made a request, {:.2} KB each that \
         made one ({before} KB before, {after} KB with all)",
        each(before, between),
        each(between, after),
    );
    drop((warm, fresh, used));
}

/// Peak RSS while a batch's file is read from the store and sent.
async fn upload(megabytes: usize) {
    const BODY: usize = 8 * 1024;
    let lines = megabytes * 1_000_000 / (BODY + 150);
    let server = Server::start(&[
        ("OFFPEAK_PACKING__LINGER", "12h"),
        ("OFFPEAK_PACKING__MAX_BYTES", "209000000"),
    ])
    .await;
    let idle = server.rss_kb();
    server.fill(lines, BODY).await;
    // What the calls themselves took goes back to the system.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let filled = server.rss_kb();
    // From here on the kernel counts the peak anew.
    fs::write(format!("/proc/{}/clear_refs", server.pid()), "5").expect("the peak can be reset");
    server.flush().await;
    let uploaded = server.simulator_has_batch().await;
    println!(
        "{lines} lines, a file of {uploaded} lines uploaded: idle {idle} KB, filled {filled} KB, \
         peak while assembling and uploading {} KB: {:.1} MB over idle, {:.1} MB over filled",
        server.peak_kb(),
        (server.peak_kb() as f64 - idle as f64) / 1024.0,
        (server.peak_kb() as f64 - filled as f64) / 1024.0,
    );
}

struct Server {
    child: Child,
    address: SocketAddr,
    simulator: Arc<Simulator>,
    stop: CancellationToken,
    _data: tempfile::TempDir,
}

impl Server {
    async fn start(environment: &[(&str, &str)]) -> Server {
        let data = tempfile::tempdir_in(env::var("BENCH_DIR").unwrap_or("/var/tmp".into()))
            .expect("a directory for the data");
        let settings = simulator::Settings {
            log_requests: true,
            ..Default::default()
        };
        let simulator = Simulator::new(settings, SystemClock::new().now());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let upstream = format!("http://{}/v1", listener.local_addr().expect("bound"));
        let stop = CancellationToken::new();
        TaskTracker::new().spawn(simulator::serve(listener, simulator.clone(), stop.clone()));
        let mut child = Command::new(env!("CARGO_BIN_EXE_offpeak"))
            .args([
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--upstream",
                &upstream,
                "--data-dir",
            ])
            .arg(data.path())
            .env("OFFPEAK_LOG", "warn")
            .env("OFFPEAK_STORE__RESERVE_BYTES", "0")
            .env("OFFPEAK_HOLD__DRIP_AFTER", "1h")
            .env("OFFPEAK_ADMIN_TOKEN", "bench")
            .envs(environment.iter().copied())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the server starts");
        let stdout = child.stdout.take().expect("piped");
        let line = BufReader::new(stdout)
            .lines()
            .next_line()
            .await
            .expect("a line")
            .expect("a line");
        let address = line
            .split("http://")
            .nth(1)
            .and_then(|rest| rest.split(' ').next());
        let address = address
            .and_then(|address| address.parse().ok())
            .expect("its address");
        Server {
            child,
            address,
            simulator,
            stop,
            _data: data,
        }
    }

    /// Opens this many calls and waits until the server has taken all of them.
    async fn hold(&self, calls: usize) -> Vec<TcpStream> {
        let open = self.open().await;
        let mut streams = Vec::with_capacity(calls);
        for _ in 0..calls {
            let mut stream = TcpStream::connect(self.address)
                .await
                .expect("a connection");
            stream
                .write_all(&call(2048, ""))
                .await
                .expect("the call is sent");
            streams.push(stream);
        }
        while self.open().await < open + calls {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        streams
    }

    /// Opens this many connections and waits until the server has all of them.
    async fn connect(&self, count: usize, used: bool) -> Vec<TcpStream> {
        const PER_SOURCE: usize = 20_000;
        let mut streams = Vec::with_capacity(count);
        for number in 0..count {
            // A source address has so many ports and no more.
            let source = [127, 0, 1, 1 + (number / PER_SOURCE) as u8];
            let socket = TcpSocket::new_v4().expect("a socket");
            socket.bind((source, 0).into()).expect("a source address");
            let mut stream = socket.connect(self.address).await.expect("a connection");
            if used {
                stream
                    .write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
                    .await
                    .expect("sent");
                let mut answer = [0; 512];
                let read = stream.read(&mut answer).await.expect("an answer");
                assert!(answer[..read].starts_with(b"HTTP/1.1 200"));
            }
            streams.push(stream);
        }
        // Connections are dealt out in turn: these are behind all others.
        for _ in 0..4 {
            self.own("GET", "/healthz").await;
        }
        streams
    }

    /// Has this many calls accepted.
    async fn fill(&self, calls: usize, body: usize) {
        const CONNECTIONS: usize = 64;
        let mut workers = JoinSet::new();
        for worker in 0..CONNECTIONS {
            let share = calls / CONNECTIONS + usize::from(worker < calls % CONNECTIONS);
            let address = self.address;
            workers.spawn(async move {
                let mut stream = TcpStream::connect(address).await.expect("a connection");
                for _ in 0..share {
                    stream
                        .write_all(&call(body, "Prefer: respond-async\r\n"))
                        .await
                        .expect("sent");
                    let head = read_answer(&mut stream).await;
                    assert!(head.starts_with("HTTP/1.1 202"), "{head}");
                }
            });
        }
        while let Some(done) = workers.join_next().await {
            done.expect("a worker");
        }
    }

    async fn open(&self) -> usize {
        let metrics = self.own("GET", "/metrics").await;
        let lines = metrics
            .lines()
            .filter(|line| line.starts_with("offpeak_open_requests{"));
        lines
            .filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok())
            .sum()
    }

    async fn flush(&self) {
        self.own("POST", "/offpeak/admin/flush").await;
    }

    async fn own(&self, method: &str, path: &str) -> String {
        let mut stream = TcpStream::connect(self.address)
            .await
            .expect("a connection");
        let call = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer bench\r\n\
             content-length: 0\r\nconnection: close\r\n\r\n"
        );
        stream.write_all(call.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        answer
    }

    async fn simulator_has_batch(&self) -> usize {
        loop {
            if let Some(batch) = self.simulator.log().batches.first() {
                return batch.lines;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn pid(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    fn rss_kb(&self) -> u64 {
        status(self.pid(), "VmRSS:")
    }

    fn peak_kb(&self) -> u64 {
        status(self.pid(), "VmHWM:")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn status(pid: u32, field: &str) -> u64 {
    let status = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status"))
        .expect("it runs");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .expect("the field");
    line.trim()
        .trim_end_matches(" kB")
        .parse()
        .expect("a number")
}

fn call(body: usize, headers: &str) -> Vec<u8> {
    let text = "x".repeat(body - 80);
    let body =
        format!(r#"{{"model":"gpt-4o-mini","messages":[{{"role":"user","content":"{text}"}}]}}"#);
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer sk-bench\r\n\
         content-type: application/json\r\noffpeak-deadline: 24h\r\n{headers}content-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Reads one chunked answer to its end and returns its head.
async fn read_answer(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    while !bytes.ends_with(b"0\r\n\r\n") {
        let read = stream.read(&mut piece).await.expect("an answer");
        assert!(
            read > 0,
            "the connection was cut: {}",
            String::from_utf8_lossy(&bytes)
        );
        bytes.extend_from_slice(&piece[..read]);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
