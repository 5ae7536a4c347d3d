//! Bodies on their way through, handed on as they come.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;

use super::connection::{Connection, Pool, polled_by_us};

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of an answer to a caller.
pub enum Body {
    /// The upstream's, as it comes.
    Upstream(UpstreamBody),
    /// A router's.
    Router(axum::body::Body),
}

impl Body {
    pub fn empty() -> Body {
        Body::Router(axum::body::Body::empty())
    }
}

impl From<axum::body::Body> for Body {
    fn from(body: axum::body::Body) -> Self {
        Body::Router(body)
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Body::Upstream(body) => body.poll_frame(cx),
            Body::Router(body) => Pin::new(body).poll_frame(cx).map_err(BoxError::from),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Body::Upstream(body) => body.incoming.is_end_stream(),
            Body::Router(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Upstream(body) => body.incoming.size_hint(),
            Body::Router(body) => body.size_hint(),
        }
    }
}

/// An answer being read. It holds its connection: read to the end, the
/// connection goes back to the pool; dropped before, it is closed, which is how
/// the upstream learns that the caller left.
pub struct UpstreamBody {
    incoming: Incoming,
    /// `None` once the body is over.
    connection: Option<Box<Connection>>,
    pool: Arc<Pool>,
}

impl UpstreamBody {
    pub(super) fn new(incoming: Incoming, connection: Box<Connection>, pool: Arc<Pool>) -> Self {
        let mut body = UpstreamBody {
            incoming,
            connection: Some(connection),
            pool,
        };
        body.release_at_end();
        body
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(connection) = &mut self.connection else {
            return Poll::Ready(None);
        };
        let mut frame = Pin::new(&mut self.incoming).poll_frame(&mut polled_by_us());
        if frame.is_pending() {
            connection.drive(cx);
            frame = Pin::new(&mut self.incoming).poll_frame(&mut polled_by_us());
        }
        match frame {
            Poll::Ready(Some(Ok(frame))) => {
                self.release_at_end();
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                self.connection = None;
                Poll::Ready(Some(Err(error.into())))
            }
            Poll::Ready(None) => {
                self.release();
                Poll::Ready(None)
            }
            Poll::Pending if connection.has_ended() => {
                self.connection = None;
                Poll::Ready(Some(Err("the upstream's connection ended".into())))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    /// A body of known length is over with its last byte: nobody asks again.
    fn release_at_end(&mut self) {
        if self.incoming.is_end_stream() {
            self.release();
        }
    }

    fn release(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.pool.put(connection);
        }
    }
}

/// The body of a call on its way to the upstream.
pub enum RequestBody {
    /// As it comes from the caller's connection.
    Incoming(Incoming),
    /// From a router that passes a call on, perhaps having read it.
    Router(axum::body::Body),
}

impl From<Incoming> for RequestBody {
    fn from(body: Incoming) -> Self {
        RequestBody::Incoming(body)
    }
}

impl From<axum::body::Body> for RequestBody {
    fn from(body: axum::body::Body) -> Self {
        RequestBody::Router(body)
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            RequestBody::Incoming(body) => Pin::new(body).poll_frame(cx).map_err(BoxError::from),
            RequestBody::Router(body) => Pin::new(body).poll_frame(cx).map_err(BoxError::from),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            RequestBody::Incoming(body) => body.is_end_stream(),
            RequestBody::Router(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            RequestBody::Incoming(body) => body.size_hint(),
            RequestBody::Router(body) => body.size_hint(),
        }
    }
}
