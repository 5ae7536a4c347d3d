//! Connections to the upstream and the idle ones among them.
//!
//! hyper's client is a connection future and a sender that talk over channels;
//! the usual way is to spawn the future as a task. Here whoever uses the
//! connection polls the future itself, so that a call is one task from the
//! caller's socket to the upstream's: no wake-ups between tasks, backpressure
//! from one socket to the other, and a dropped call closes its connection.

use std::{
    future::Future,
    pin::{Pin, pin},
    task::{Context, Waker},
    time::Duration,
};

use http::{Request, Response};
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http1},
};
use hyper_rustls::MaybeHttpsStream;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::{net::TcpStream, time::Instant};

use super::body::RequestBody;

type Io = MaybeHttpsStream<TokioIo<TcpStream>>;

/// For futures that only a connection which we poll ourselves can complete:
/// they need not wake anybody.
pub(super) fn polled_by_us() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

/// One HTTP/1.1 connection. It moves only while somebody drives it.
pub(super) struct Connection {
    sender: http1::SendRequest<RequestBody>,
    driver: http1::Connection<Io, RequestBody>,
    ended: bool,
}

impl Connection {
    pub async fn open(io: Io) -> hyper::Result<Box<Connection>> {
        let (sender, driver) = http1::Builder::new().handshake(io).await?;
        Ok(Box::new(Connection {
            sender,
            driver,
            ended: false,
        }))
    }

    /// Sends `request` and reads the head of its answer.
    ///
    /// # Errors
    /// With the request in it exactly when not a byte of it was written, so
    /// that it may be sent elsewhere without any chance that it runs twice.
    pub async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, TrySendError<Request<RequestBody>>> {
        // tokio's budget would postpone the answer with a wake-up that
        // `polled_by_us` swallows.
        let mut answer = pin!(tokio::task::unconstrained(
            self.sender.try_send_request(request)
        ));
        std::future::poll_fn(|cx| {
            drive(&mut self.driver, &mut self.ended, cx);
            answer.as_mut().poll(&mut polled_by_us())
        })
        .await
    }

    /// Reads and writes what it can; wakes `cx` when there is more.
    pub fn drive(&mut self, cx: &mut Context<'_>) {
        drive(&mut self.driver, &mut self.ended, cx);
    }

    pub fn has_ended(&self) -> bool {
        self.ended
    }

    fn is_idle(&self) -> bool {
        !self.ended && self.sender.is_ready()
    }
}

/// Its failures reach the user of the connection through the answer or its body.
fn drive(driver: &mut http1::Connection<Io, RequestBody>, ended: &mut bool, cx: &mut Context<'_>) {
    if !*ended {
        *ended = Pin::new(driver).poll(cx).is_ready();
    }
}

/// Idle connections, the last used first, so that few are kept warm and the
/// rest grow old.
pub(super) struct Pool {
    idle: Mutex<Vec<Idle>>,
    max_idle: usize,
    idle_timeout: Duration,
}

struct Idle {
    connection: Box<Connection>,
    since: Instant,
}

impl Pool {
    pub fn new(max_idle: usize, idle_timeout: Duration) -> Pool {
        Pool {
            idle: Mutex::new(Vec::new()),
            max_idle,
            idle_timeout,
        }
    }

    /// A connection that the upstream has not closed, as far as is known here.
    pub fn take(&self) -> Option<Box<Connection>> {
        loop {
            let Idle {
                mut connection,
                since,
            } = self.idle.lock().pop()?;
            if since.elapsed() > self.idle_timeout {
                self.idle.lock().clear();
                return None;
            }
            connection.drive(&mut polled_by_us());
            if connection.is_idle() {
                return Some(connection);
            }
        }
    }

    /// Keeps `connection` if it can carry another call; closes it otherwise.
    pub fn put(&self, mut connection: Box<Connection>) {
        if !connection.is_idle() {
            connection.drive(&mut polled_by_us());
        }
        if !connection.is_idle() {
            return;
        }
        let mut idle = self.idle.lock();
        if idle.len() < self.max_idle {
            idle.push(Idle {
                connection,
                since: Instant::now(),
            });
        }
    }

    /// Closes the connections that have been idle for too long.
    pub fn sweep(&self) {
        let mut idle = self.idle.lock();
        let old = idle.partition_point(|idle| idle.since.elapsed() > self.idle_timeout);
        idle.drain(..old);
    }
}
