//! The listener, the worker threads that serve its connections, and the
//! graceful stop.
//!
//! Every worker is a thread with a single-threaded runtime and upstream
//! connections of its own; accepted connections are dealt out in turn. A call
//! that passes through therefore never leaves its thread, which made the
//! difference between 0.8 and 1.0 of nginx's requests/s against one runtime
//! for all (`benches/passthrough/`). Deferred calls are served on the same
//! threads and reach the engine's tasks over channels, which do not mind.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    num::NonZero,
    pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use axum::Router;
use http::{Request, Response, Version};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::mpsc,
    task::spawn_blocking,
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

use super::{
    passthrough::{Body, Passthrough},
    route::{Route, route},
};

#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Threads that serve connections; 0 is one a core.
    pub workers: usize,
    /// How long a stop waits for calls in flight before it cuts them.
    #[serde(with = "crate::model::time::human")]
    pub drain_grace: Duration,
}

/// A bound listener and what answers on it.
pub struct Server {
    listener: TcpListener,
    settings: Settings,
    passthrough: Passthrough,
    deferred: Router,
}

impl Server {
    /// Binds. `deferred` answers what [`route()`] does not send straight through.
    /// To pass a call through after all it finds its thread's `Arc<Passthrough>`
    /// among the request's extensions.
    ///
    /// # Errors
    /// When the address cannot be bound.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new(settings: Settings, passthrough: Passthrough, deferred: Router) -> io::Result<Self> {
        let socket = match settings.listen {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        socket.set_reuseaddr(true)?;
        socket.bind(settings.listen)?;
        Ok(Server {
            listener: socket.listen(BACKLOG)?,
            settings,
            passthrough,
            deferred,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop`; then accepts no more, lets calls in flight finish
    /// for the grace period, and cuts the rest.
    ///
    /// # Errors
    /// When a worker thread cannot be started.
    pub async fn run(self, stop: CancellationToken) -> io::Result<()> {
        let mut queues = Vec::new();
        let mut threads = Vec::new();
        for number in 0..worker_count(self.settings.workers) {
            let (queue, accepted) = mpsc::channel(BACKLOG as usize);
            let worker = Worker {
                passthrough: Arc::new(self.passthrough.for_another_worker()),
                deferred: self.deferred.clone(),
                // A child's lock is not shared between the threads.
                stop: stop.child_token(),
                grace: self.settings.drain_grace,
            };
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            threads.push(
                thread::Builder::new()
                    .name(format!("edge-{number}"))
                    .spawn(move || runtime.block_on(worker.run(accepted)))?,
            );
            queues.push(queue);
        }
        tokio::select! {
            () = deal_out(&self.listener, &queues) => {}
            () = stop.cancelled() => {}
        }
        drop(self.listener);
        drop(queues);
        for thread in threads {
            let joined = spawn_blocking(move || thread.join()).await;
            if !matches!(joined, Ok(Ok(()))) {
                return Err(io::Error::other("a worker thread panicked"));
            }
        }
        Ok(())
    }
}

/// How many connections may wait to be accepted, and then for their worker.
const BACKLOG: u32 = 4096;

/// How long to let descriptors free up when `accept` fails for want of them.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The least time between two looks for old upstream connections.
const SWEEP_PAUSE: Duration = Duration::from_secs(1);

fn worker_count(setting: usize) -> usize {
    match setting {
        0 => thread::available_parallelism().map_or(1, NonZero::get),
        count => count,
    }
}

/// Accepts, and hands the connections to the workers in turn. Returns when a
/// worker is gone.
async fn deal_out(listener: &TcpListener, queues: &[mpsc::Sender<std::net::TcpStream>]) {
    for queue in queues.iter().cycle() {
        let stream = accept(listener).await;
        if queue.send(stream).await.is_err() {
            return;
        }
    }
}

/// The next connection, detached from this runtime.
async fn accept(listener: &TcpListener) -> std::net::TcpStream {
    loop {
        let accepted = match listener.accept().await {
            Ok((stream, _)) => stream.set_nodelay(true).and_then(|()| stream.into_std()),
            Err(error) => Err(error),
        };
        match accepted {
            Ok(stream) => return stream,
            Err(error) if is_of_one_connection(&error) => {
                tracing::debug!(%error, "a connection was gone before it was accepted");
            }
            Err(error) => {
                tracing::error!(%error, "cannot accept connections");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::*;
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | InvalidInput
    )
}

/// What one thread serves with.
struct Worker {
    passthrough: Arc<Passthrough>,
    deferred: Router,
    stop: CancellationToken,
    grace: Duration,
}

impl Worker {
    /// Returns when no more connections come and those there are have ended
    /// or had their grace. The runtime's end then cuts what is left.
    async fn run(self, mut accepted: mpsc::Receiver<std::net::TcpStream>) {
        let worker = Arc::new(self);
        let connections = TaskTracker::new();
        let mut sweep = interval(worker.passthrough.idle_timeout().max(SWEEP_PAUSE));
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                stream = accepted.recv() => match stream.map(TcpStream::from_std) {
                    Some(Ok(stream)) => {
                        connections.spawn(worker.clone().serve(stream));
                    }
                    Some(Err(error)) => tracing::error!(%error, "cannot serve a connection"),
                    None => break,
                },
                _ = sweep.tick() => worker.passthrough.sweep(),
            }
        }
        connections.close();
        if timeout(worker.grace, connections.wait()).await.is_err() {
            tracing::warn!(
                count = connections.len(),
                "cutting connections still in use"
            );
        }
    }

    async fn serve(self: Arc<Self>, stream: TcpStream) {
        let worker = self.clone();
        let unframed = Arc::new(AtomicBool::new(false));
        let service = service_fn({
            let unframed = unframed.clone();
            move |request: Request<Incoming>| {
                if request.version() == Version::HTTP_10 {
                    unframed.store(true, Ordering::Relaxed);
                }
                worker.clone().answer(request)
            }
        });
        let mut connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        let ended = tokio::select! {
            biased;
            ended = &mut connection => ended,
            () = self.stop.cancelled() => {
                pin::Pin::new(&mut connection).graceful_shutdown();
                (&mut connection).await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a caller's connection broke");
            if unframed.load(Ordering::Relaxed) {
                reset(connection.into_parts().io.into_inner());
            }
        }
    }

    async fn answer(
        self: Arc<Self>,
        mut request: Request<Incoming>,
    ) -> Result<Response<Body>, Infallible> {
        match route(&request) {
            Route::Passthrough => Ok(self.passthrough.forward(request).await),
            Route::Deferred => {
                request.extensions_mut().insert(self.passthrough.clone());
                let response = self.deferred.clone().oneshot(request).await?;
                Ok(response.map(Body::from))
            }
        }
    }
}

/// Ends a connection with a reset. To HTTP/1.0, which nginx speaks to what is
/// behind it unless told otherwise, an ordinary end is how a whole answer ends.
fn reset(stream: TcpStream) {
    if let Err(error) = stream.set_zero_linger() {
        tracing::debug!(%error, "a broken answer ends like a whole one");
    }
}

#[cfg(test)]
mod tests {
    use axum::{Extension, routing::any};

    use super::*;
    use crate::edge::testing::{Proxy, Wire, start};

    const GET: &str = "GET /v1/models HTTP/1.1\r\nhost: us\r\n\r\n";
    const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

    async fn call_in_flight(grace: Duration) -> (Wire, Proxy, Wire) {
        let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}/v1", upstream.local_addr().unwrap());
        let proxy = start(&base, Router::new(), grace);
        let mut caller = proxy.connect().await;
        caller.write(GET).await;
        let mut wire = Wire::accept(&upstream).await;
        wire.read_head().await;
        (wire, proxy, caller)
    }

    #[tokio::test]
    async fn our_calls_go_to_the_router() {
        let router = Router::new().fallback(any(async || "the router"));
        let proxy = start("http://127.0.0.1:1/v1", router, Duration::ZERO);
        let mut caller = proxy.connect().await;
        caller
            .write(
                "POST /v1/embeddings HTTP/1.1\r\nhost: us\r\nx-deadline: 6h\r\n\
                 content-length: 2\r\n\r\n{}",
            )
            .await;
        assert!(caller.read_head().await.starts_with("HTTP/1.1 200"));
        assert_eq!(caller.read(10).await, b"the router");
        caller.write(GET).await;
        assert!(caller.read_head().await.starts_with("HTTP/1.1 502"));
    }

    #[tokio::test]
    async fn the_router_can_pass_a_call_through() {
        let router = Router::new().fallback(any(
            async |Extension(passthrough): Extension<Arc<Passthrough>>,
                   mut request: Request<axum::body::Body>| {
                request.headers_mut().remove("x-deadline");
                passthrough
                    .forward(request)
                    .await
                    .map(axum::body::Body::new)
            },
        ));
        let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}/v1", upstream.local_addr().unwrap());
        let proxy = start(&base, router, Duration::ZERO);
        let mut caller = proxy.connect().await;
        caller
            .write(
                "POST /v1/files HTTP/1.1\r\nhost: us\r\nx-deadline: 6h\r\n\
                 content-length: 4\r\n\r\nfile",
            )
            .await;
        let mut wire = Wire::accept(&upstream).await;
        let head = wire.read_head().await;
        assert!(head.starts_with("POST /v1/files HTTP/1.1\r\n"), "{head}");
        assert!(head.contains("content-length: 4\r\n"), "{head}");
        assert_eq!(wire.read(4).await, b"file");
        wire.write(OK).await;
        assert!(caller.read_head().await.starts_with("HTTP/1.1 200"));
        assert_eq!(caller.read(2).await, b"ok");
    }

    #[tokio::test]
    async fn a_broken_answer_does_not_look_whole_to_http_1_0() {
        let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}/v1", upstream.local_addr().unwrap());
        let proxy = start(&base, Router::new(), Duration::ZERO);
        for (whole, ends) in [(true, None), (false, Some(io::ErrorKind::ConnectionReset))] {
            let mut caller = proxy.connect().await;
            caller
                .write("GET /v1/models HTTP/1.0\r\nhost: us\r\n\r\n")
                .await;
            let mut wire = Wire::accept(&upstream).await;
            wire.read_head().await;
            wire.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
                .await;
            wire.write_chunk(b"half").await;
            assert!(caller.read_head().await.starts_with("HTTP/1.0 200"));
            assert_eq!(caller.read(4).await, b"half");
            if whole {
                wire.write("0\r\n\r\n").await;
            }
            drop(wire);
            assert_eq!(caller.end().await, ends);
        }
    }

    #[tokio::test]
    async fn a_stop_lets_calls_in_flight_finish() {
        let (mut wire, mut proxy, mut caller) = call_in_flight(Duration::from_secs(30)).await;
        let mut idle = proxy.connect().await;
        proxy.stop.cancel();
        idle.assert_closed().await;
        wire.write(OK).await;
        assert!(caller.read_head().await.starts_with("HTTP/1.1 200"));
        assert_eq!(caller.read(2).await, b"ok");
        caller.assert_closed().await;
        proxy.ended().await;
        assert!(TcpStream::connect(proxy.address).await.is_err());
    }

    #[tokio::test]
    async fn a_stop_cuts_calls_after_the_grace_period() {
        let (mut wire, mut proxy, mut caller) = call_in_flight(Duration::from_millis(1)).await;
        proxy.stop.cancel();
        caller.assert_closed().await;
        wire.assert_closed().await;
        proxy.ended().await;
    }

    #[tokio::test]
    async fn an_address_in_use_is_an_error() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap();
        let settings = Settings {
            listen: address,
            workers: 1,
            drain_grace: Duration::ZERO,
        };
        let passthrough = Passthrough::new(
            crate::edge::passthrough::Settings {
                connect_timeout: Duration::ZERO,
                idle_timeout: Duration::ZERO,
                max_idle: 0,
            },
            &"http://127.0.0.1:1/v1".parse().unwrap(),
        )
        .unwrap();
        let server = Server::new(settings, passthrough, Router::new());
        assert_eq!(
            server.err().map(|error| error.kind()),
            Some(io::ErrorKind::AddrInUse)
        );
    }
}
