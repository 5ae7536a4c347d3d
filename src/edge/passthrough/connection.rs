//! Connections to the upstream and the idle ones among them.
//!
//! hyper's client is a connection future and a sender that talk over channels;
//! the usual way is to spawn the future as a task. Here whoever uses the
//! connection polls the future itself, so that a call is one task from the
//! caller's socket to the upstream's: no wake-ups between tasks, backpressure
//! from one socket to the other, and a dropped call closes its connection.
//!
//! The price: while the caller takes no more of an answer, its upload does not
//! go on either. An upstream that answers at length before it has read the
//! call, to a caller that reads nothing until it has written all, would wait
//! for ever; no API of the kind served here does.

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

use super::body::Sent;

type Io = MaybeHttpsStream<TokioIo<TcpStream>>;

/// For futures that only a connection which we poll ourselves can complete:
/// they need not wake anybody.
pub(super) fn polled_by_us() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

/// One HTTP/1.1 connection. It moves only while somebody drives it.
pub(super) struct Connection {
    sender: http1::SendRequest<Sent>,
    driver: http1::Connection<Io, Sent>,
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
        request: Request<Sent>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Sent>>> {
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
fn drive(driver: &mut http1::Connection<Io, Sent>, ended: &mut bool, cx: &mut Context<'_>) {
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

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncReadExt, net::TcpListener, time::advance};

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(50);

    async fn connected() -> (Box<Connection>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (theirs, _) = listener.accept().await.unwrap();
        let io = MaybeHttpsStream::Http(TokioIo::new(ours));
        (Connection::open(io).await.unwrap(), theirs)
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_may_be_used_until_it_is_old() {
        let pool = Pool::new(2, TIMEOUT);
        assert!(pool.take().is_none());
        let (connection, _theirs) = connected().await;
        pool.put(connection);
        advance(TIMEOUT).await;
        let connection = pool.take().expect("not older than the limit");
        assert!(pool.take().is_none(), "it is taken");
        pool.put(connection);
        advance(TIMEOUT + Duration::from_millis(1)).await;
        assert!(pool.take().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn old_connections_are_closed_and_young_ones_kept() {
        let pool = Pool::new(2, TIMEOUT);
        let (old, mut theirs) = connected().await;
        let (young, _theirs) = connected().await;
        pool.put(old);
        advance(TIMEOUT).await;
        pool.put(young);
        advance(Duration::from_millis(1)).await;
        pool.sweep();
        assert_eq!(theirs.read(&mut [0]).await.unwrap(), 0);
        assert!(pool.take().is_some());
        assert!(pool.take().is_none());
    }

    #[tokio::test]
    async fn no_more_than_the_most_are_kept() {
        let pool = Pool::new(1, TIMEOUT);
        let (kept, _theirs) = connected().await;
        let (closed, mut theirs) = connected().await;
        pool.put(kept);
        pool.put(closed);
        assert_eq!(theirs.read(&mut [0]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn bytes_that_nobody_asked_for_end_a_connection() {
        let pool = Pool::new(1, TIMEOUT);
        let (connection, theirs) = connected().await;
        pool.put(connection);
        let late = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(theirs.try_write(late).unwrap(), late.len());
        // Lets the runtime hear of it, as any wait between two calls does.
        tokio::task::yield_now().await;
        assert!(pool.take().is_none());
    }
}
