//! The listeners, the worker threads that serve their connections, and the
//! graceful stop.
//!
//! Every worker is a thread with a single-threaded runtime and upstream
//! connections of its own; accepted connections are dealt out in turn. A call
//! that passes through therefore never leaves its thread, which made the
//! difference between 0.8 and 1.0 of nginx's requests/s against one runtime
//! for all (`benches/passthrough/`). Deferred calls are served on the same
//! threads and reach the engine's tasks over channels, which do not mind.
//!
//! HTTP/1.1 and 1.0 are spoken, nothing else: who asks for HTTP/2 by its preface
//! is refused as bad input. Callers who are slow or idle for too long are cut
//! (`activity`), and only so many are let in (`crowd`).

mod activity;
mod connection;
mod crowd;
mod descriptors;
mod refusal;
mod span;
mod watched;

use std::{
    io,
    net::SocketAddr,
    num::NonZero,
    sync::{Arc, OnceLock},
    thread,
    time::Duration,
};

use axum::Router;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::mpsc,
    task::spawn_blocking,
    time::sleep,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    activity::Patience,
    connection::{Accepted, Worker},
    crowd::{Crowd, Seat},
};
use super::passthrough::Passthrough;

#[derive(Debug, Clone)]
pub struct Settings {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where operators are served, and nowhere else; none serves them at `listen`.
    pub admin_listen: Option<SocketAddr>,
    /// Threads that serve connections; 0 is one a core.
    pub workers: usize,
    /// How long a stop waits for calls in flight before it cuts them.
    pub drain_grace: Duration,
    /// Callers' connections that may be open, if as many descriptors may.
    pub max_connections: usize,
    pub timeouts: Timeouts,
}

/// How long a caller may keep a connection without doing its part.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// From a request's first byte until its head is whole.
    pub head: Duration,
    /// Without a request.
    pub idle: Duration,
    /// While bytes of an answer wait and the caller takes none.
    pub write: Duration,
    /// Silence within a request's body.
    pub body_idle: Duration,
}

/// A bound listener and what answers on it.
pub struct Server {
    callers: TcpListener,
    operators: Option<TcpListener>,
    settings: Settings,
    passthrough: Passthrough,
    desk: Arc<Desk>,
}

/// Who answers where nothing passes straight through: the one until the store is open,
/// and the one from then on.
pub struct Desk {
    starting: Routers,
    open: OnceLock<Routers>,
}

/// What answers where nothing passes straight through.
pub struct Routers {
    /// What [`route()`](super::route::route) does not send straight through. To pass a
    /// call through after all it finds its thread's `Arc<Passthrough>` among the
    /// request's extensions.
    pub callers: Router,
    /// All that comes to [`Settings::admin_listen`].
    pub operators: Router,
}

impl Server {
    /// Binds.
    ///
    /// # Errors
    /// When an address cannot be bound; which one.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new(
        settings: Settings,
        passthrough: Passthrough,
        desk: Arc<Desk>,
    ) -> Result<Self, (SocketAddr, io::Error)> {
        let bind = |address| listen(address).map_err(|error| (address, error));
        Ok(Server {
            callers: bind(settings.listen)?,
            operators: settings.admin_listen.map(bind).transpose()?,
            settings,
            passthrough,
            desk,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.callers.local_addr()
    }

    /// Where operators are served, where that is elsewhere.
    pub fn admin_address(&self) -> io::Result<Option<SocketAddr>> {
        self.operators
            .as_ref()
            .map(TcpListener::local_addr)
            .transpose()
    }

    /// Serves until `stop`; then accepts no more, lets calls in flight finish
    /// for the grace period, and cuts the rest.
    ///
    /// # Errors
    /// When a worker thread cannot be started.
    pub async fn run(self, stop: CancellationToken) -> io::Result<()> {
        let settings = self.settings;
        let mut queues = Vec::new();
        let mut threads = Vec::new();
        for number in 0..worker_count(settings.workers) {
            let (queue, accepted) = mpsc::channel(BACKLOG as usize);
            let worker = Worker {
                passthrough: Arc::new(self.passthrough.for_another_worker()),
                desk: self.desk.clone(),
                // A child's lock is not shared between the threads.
                stop: stop.child_token(),
                grace: settings.drain_grace,
                patience: settings.timeouts.patience(),
                body_idle: settings.timeouts.body_idle,
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
        let most = settings.connections();
        let callers = Entrance::new(self.callers, For::Callers, most);
        let operators = async {
            match self.operators {
                Some(listener) => {
                    let entrance = Entrance::new(listener, For::Operators, MAX_OPERATORS);
                    entrance.deal_out(&queues).await;
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = callers.deal_out(&queues) => {}
            () = operators => {}
            () = stop.cancelled() => {}
        }
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

impl Settings {
    /// Callers' connections that may be open: [`Settings::max_connections`], or as many
    /// as the process may have descriptors for.
    pub fn connections(&self) -> usize {
        descriptors::connections(self.max_connections, descriptors::raise_limit())
    }
}

impl Desk {
    pub fn new(starting: Routers) -> Desk {
        let open = OnceLock::new();
        Desk { starting, open }
    }

    /// From now on these answer. Once only.
    pub fn open(&self, routers: Routers) {
        let first = self.open.set(routers).is_ok();
        debug_assert!(first, "a server opens once");
    }

    fn routers(&self) -> &Routers {
        self.open.get().unwrap_or(&self.starting)
    }
}

impl Timeouts {
    fn patience(&self) -> Patience {
        Patience {
            head: self.head,
            idle: self.idle,
            write: self.write,
        }
    }
}

/// How many connections may wait to be accepted, and then for their worker.
const BACKLOG: u32 = 4096;

/// Operators' connections, which callers cannot use up.
const MAX_OPERATORS: usize = 1024;

/// Callers who are told at the same time that there is no room. More are cut without
/// a word.
const MAX_REFUSALS: usize = 256;

/// How long to let descriptors free up when `accept` fails for want of them.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

fn worker_count(setting: usize) -> usize {
    match setting {
        0 => thread::available_parallelism().map_or(1, NonZero::get),
        count => count,
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Whom a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum For {
    Callers,
    Operators,
}

/// A listener and those it let in.
struct Entrance {
    listener: TcpListener,
    whom: For,
    crowd: Arc<Crowd>,
    refusals: TaskTracker,
    /// Said once, until accepting works again.
    failing: bool,
}

impl Entrance {
    fn new(listener: TcpListener, whom: For, most: usize) -> Entrance {
        Entrance {
            listener,
            whom,
            crowd: Crowd::new(most),
            refusals: TaskTracker::new(),
            failing: false,
        }
    }

    /// Accepts, and hands the connections to the workers in turn. Returns when a
    /// worker is gone.
    async fn deal_out(mut self, queues: &[mpsc::Sender<Accepted>]) {
        for queue in queues.iter().cycle() {
            let (stream, seat) = self.let_in().await;
            let accepted = Accepted {
                stream,
                seat,
                whom: self.whom,
            };
            if queue.send(accepted).await.is_err() {
                return;
            }
        }
    }

    /// The next connection that there is room for, detached from this runtime.
    async fn let_in(&mut self) -> (std::net::TcpStream, Seat) {
        loop {
            let stream = self.accept().await;
            let Some(seat) = self.crowd.enter().await else {
                if self.refusals.len() < MAX_REFUSALS {
                    self.refusals.spawn(refusal::turn_away(stream));
                }
                continue;
            };
            match stream.into_std() {
                Ok(stream) => return (stream, seat),
                Err(error) => tracing::error!(%error, "cannot serve a connection"),
            }
        }
    }

    async fn accept(&mut self) -> TcpStream {
        loop {
            let accepted = self.listener.accept().await;
            match accepted.and_then(|(stream, _)| prepare(stream)) {
                Ok(stream) => {
                    self.failing = false;
                    return stream;
                }
                Err(error) if is_of_one_connection(&error) => {
                    tracing::debug!(%error, "a connection was gone before it was accepted");
                }
                // As a rule for want of descriptors: idle connections hold some.
                Err(error) => {
                    if !std::mem::replace(&mut self.failing, true) {
                        tracing::error!(%error, "cannot accept connections");
                    }
                    if !self.crowd.make_room().await {
                        sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        }
    }
}

/// A caller whose machine or network is gone says nothing, and a held call waits for
/// hours: it is noticed two minutes after its last word. Its call goes on, an orphan.
const ALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(60))
    .with_interval(Duration::from_secs(15))
    .with_retries(4);

fn prepare(stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    SockRef::from(&stream).set_tcp_keepalive(&ALIVE)?;
    Ok(stream)
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::*;
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | InvalidInput
    )
}

#[cfg(test)]
mod tests;
