//! Raw sockets and a running server, for the tests of this module.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    passthrough::{self, Passthrough},
    server::{self, Desk, Routers, Server, Timeouts},
};

/// A hang is a failure: nothing in these tests takes long.
pub const HANG: Duration = Duration::from_secs(30);

/// A running server, stopped when dropped.
pub struct Proxy {
    pub address: SocketAddr,
    pub stop: CancellationToken,
    pub running: JoinSet<io::Result<()>>,
}

impl Proxy {
    pub async fn connect(&self) -> Wire {
        Wire::new(TcpStream::connect(self.address).await.unwrap())
    }

    pub async fn ended(&mut self) {
        let ended = timeout(HANG, self.running.join_next()).await;
        ended.expect("a hang").unwrap().unwrap().unwrap();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// In front of `http://upstream/v1`.
pub fn proxy(upstream: SocketAddr) -> Proxy {
    proxy_to(&format!("http://{upstream}/v1"))
}

pub fn proxy_to(base: &str) -> Proxy {
    start(base, axum::Router::new(), HANG)
}

pub fn start(base: &str, deferred: axum::Router, drain_grace: Duration) -> Proxy {
    start_with(base, deferred, settings(drain_grace))
}

/// One worker, and patience for all that a test may take.
pub fn settings(drain_grace: Duration) -> server::Settings {
    server::Settings {
        listen: "127.0.0.1:0".parse().unwrap(),
        admin_listen: None,
        workers: 1,
        drain_grace,
        max_connections: 1_000,
        timeouts: Timeouts {
            head: HANG,
            idle: HANG,
            write: HANG,
            body_idle: HANG,
        },
    }
}

pub fn start_with(base: &str, deferred: axum::Router, settings: server::Settings) -> Proxy {
    let passing = passthrough::Settings {
        connect_timeout: HANG,
        idle_timeout: HANG,
        max_idle: 8,
    };
    let passthrough = Passthrough::new(passing, &base.parse().unwrap()).unwrap();
    let routers = Routers {
        callers: deferred,
        operators: axum::Router::new(),
    };
    let server = Server::new(settings, passthrough, Arc::new(Desk::new(routers))).unwrap();
    let address = server.address().unwrap();
    let stop = CancellationToken::new();
    let mut running = JoinSet::new();
    running.spawn(server.run(stop.clone()));
    Proxy {
        address,
        stop,
        running,
    }
}

/// One side of a connection, spoken byte by byte.
pub struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Wire {
    pub fn new(stream: TcpStream) -> Wire {
        Wire {
            stream,
            buffer: Vec::new(),
        }
    }

    pub async fn accept(listener: &TcpListener) -> Wire {
        let accepted = timeout(HANG, listener.accept()).await.expect("a hang");
        Wire::new(accepted.unwrap().0)
    }

    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        let written = timeout(HANG, self.stream.write_all(bytes.as_ref())).await;
        written.expect("a hang").unwrap();
    }

    /// Writes all of `bytes`, or hears that nobody takes them.
    pub async fn try_write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let written = timeout(HANG, self.stream.write_all(bytes)).await;
        written.expect("a hang")
    }

    pub fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.try_write(bytes)
    }

    /// Whether anything comes within `time`, the connection's end included.
    pub async fn has_more(&mut self, time: Duration) -> bool {
        timeout(time, self.stream.readable()).await.is_ok()
    }

    pub async fn write_chunk(&mut self, bytes: &[u8]) {
        let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
        chunk.extend_from_slice(bytes);
        chunk.extend_from_slice(b"\r\n");
        self.write(chunk).await;
    }

    /// Writes up to `size` bytes for as long as they are taken; returns how
    /// many were. Slowness can only make it return fewer.
    pub async fn write_until_stalled(&mut self, size: usize) -> usize {
        let block = vec![b'x'; 1 << 16];
        let mut written = 0;
        while written < size {
            let next = &block[..block.len().min(size - written)];
            match timeout(Duration::from_millis(300), self.stream.write(next)).await {
                Ok(count) => written += count.unwrap(),
                Err(_) => break,
            }
        }
        written
    }

    /// Up to and with the empty line.
    pub async fn read_head_bytes(&mut self) -> Vec<u8> {
        loop {
            if let Some(at) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                return self.buffer.drain(..at + 4).collect();
            }
            self.fill().await;
        }
    }

    pub async fn read_head(&mut self) -> String {
        String::from_utf8(self.read_head_bytes().await).unwrap()
    }

    pub async fn read(&mut self, count: usize) -> Vec<u8> {
        while self.buffer.len() < count {
            self.fill().await;
        }
        self.buffer.drain(..count).collect()
    }

    /// The next chunk of a chunked body; the last one is empty.
    pub async fn read_chunk(&mut self) -> Vec<u8> {
        let line = loop {
            match self.buffer.windows(2).position(|two| two == b"\r\n") {
                Some(at) => break self.read(at + 2).await,
                None => self.fill().await,
            }
        };
        let size = std::str::from_utf8(&line).unwrap().trim_end();
        let size = usize::from_str_radix(size, 16).unwrap();
        let mut chunk = self.read(size + 2).await;
        assert_eq!(chunk.split_off(size), b"\r\n");
        chunk
    }

    /// Reads and forgets `size` bytes.
    pub async fn count(&mut self, size: usize) -> usize {
        let mut total = self.buffer.len();
        self.buffer.clear();
        let mut block = vec![0; 1 << 16];
        while total < size {
            let read = timeout(HANG, self.stream.read(&mut block)).await;
            match read.expect("a hang").unwrap() {
                0 => break,
                count => total += count,
            }
        }
        total
    }

    /// How the connection ends, without another byte: in order, or how else.
    pub async fn end(&mut self) -> Option<io::ErrorKind> {
        let mut block = [0; 1];
        let read = timeout(HANG, self.stream.read(&mut block)).await;
        match read.expect("a hang") {
            Ok(count) => {
                assert_eq!(count, 0, "there is more");
                None
            }
            Err(error) => Some(error.kind()),
        }
    }

    /// The other side has closed, and sent nothing more before it did.
    pub async fn assert_closed(&mut self) {
        let mut block = [0; 1024];
        match timeout(HANG, self.stream.read(&mut block))
            .await
            .expect("a hang")
        {
            Ok(0) => {}
            Ok(count) => panic!("got {:?}", String::from_utf8_lossy(&block[..count])),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
        }
        assert!(self.buffer.is_empty(), "unread bytes");
    }

    async fn fill(&mut self) {
        let read = timeout(HANG, self.stream.read_buf(&mut self.buffer)).await;
        let count = read.expect("a hang").unwrap();
        let got = String::from_utf8_lossy(&self.buffer);
        assert_ne!(count, 0, "closed after {got:?}");
    }
}
