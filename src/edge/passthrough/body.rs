//! Bodies on their way through, handed on as they come.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;

use super::{
    connection::{Connection, Pool, polled_by_us},
    traced::Traced,
    upload::Upload,
    watch::Observer,
};
use crate::metrics::{Passing, Sending};

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A body in one of its two forms. Without `Raw` named, that of an answer to a
/// caller.
pub enum Body<Raw = UpstreamBody> {
    /// As it comes from the other side's connection.
    Raw(Raw),
    /// From a router: an answer of its own, or a call that it passes on, perhaps
    /// having read it.
    Router(axum::body::Body),
}

/// The body of a call on its way to the upstream.
pub type RequestBody = Body<Upload>;

impl From<Upload> for RequestBody {
    fn from(body: Upload) -> Self {
        Body::Raw(body)
    }
}

impl<Raw> From<axum::body::Body> for Body<Raw> {
    fn from(body: axum::body::Body) -> Self {
        Body::Router(body)
    }
}

impl<Raw> http_body::Body for Body<Raw>
where
    Raw: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Body::Raw(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            Body::Router(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Body::Raw(body) => body.is_end_stream(),
            Body::Router(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Raw(body) => body.size_hint(),
            Body::Router(body) => body.size_hint(),
        }
    }
}

/// A caller's body as it goes to the upstream, counted.
pub struct Sent {
    body: RequestBody,
    sending: Sending,
}

impl Sent {
    pub(super) fn new(body: RequestBody, sending: Sending) -> Sent {
        Sent { body, sending }
    }
}

impl http_body::Body for Sent {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let frame = Pin::new(&mut this.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &frame
            && let Some(piece) = frame.data_ref()
        {
            this.sending.sent(piece.len());
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
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
    /// Until the end of the body; shadow mode's.
    observer: Option<Box<Observer>>,
    /// The same, for the call's span.
    traced: Option<Box<Traced>>,
    /// The same, for the metrics.
    passing: Option<Passing>,
}

impl UpstreamBody {
    pub(super) fn new(
        incoming: Incoming,
        connection: Box<Connection>,
        pool: Arc<Pool>,
        observer: Option<Box<Observer>>,
        traced: Option<Box<Traced>>,
        passing: Passing,
    ) -> Self {
        let mut body = UpstreamBody {
            incoming,
            connection: Some(connection),
            pool,
            observer,
            traced,
            passing: Some(passing),
        };
        body.release_at_end();
        body
    }

    /// A body of known length is over with its last byte: nobody asks again.
    fn release_at_end(&mut self) {
        if self.incoming.is_end_stream() {
            self.release();
        }
    }

    fn release(&mut self) {
        self.passing = None;
        if let Some(observer) = self.observer.take() {
            observer.end();
        }
        if let Some(traced) = self.traced.take() {
            traced.end();
        }
        if let Some(connection) = self.connection.take() {
            self.pool.put(connection);
        }
    }
}

impl http_body::Body for UpstreamBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let Some(connection) = &mut this.connection else {
            return Poll::Ready(None);
        };
        let mut frame = Pin::new(&mut this.incoming).poll_frame(&mut polled_by_us());
        if frame.is_pending() {
            connection.drive(cx);
            frame = Pin::new(&mut this.incoming).poll_frame(&mut polled_by_us());
        }
        match frame {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(piece) = frame.data_ref() {
                    if let Some(passing) = &mut this.passing {
                        passing.received(piece.len());
                    }
                    if let Some(observer) = &mut this.observer {
                        observer.see(piece);
                    }
                }
                this.release_at_end();
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                this.connection = None;
                Poll::Ready(Some(Err(error.into())))
            }
            Poll::Ready(None) => {
                this.release();
                Poll::Ready(None)
            }
            Poll::Pending if connection.has_ended() => {
                this.connection = None;
                Poll::Ready(Some(Err("the upstream's connection ended".into())))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
