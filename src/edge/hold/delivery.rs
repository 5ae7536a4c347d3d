//! The bytes of an answer on their way to the caller, and how it is known that
//! they went.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::Frame;

use crate::{
    edge::kept::Rest,
    engine::{Engine, Hold},
};

/// Bytes that are handed out to their end before the hold is let go.
///
/// Its length is not told beforehand: hyper asks a body of known length only for
/// its bytes, never for its end, and drops it the same way whether they were
/// written or not.
pub struct Delivery {
    rest: Rest,
    engine: Arc<Engine>,
    hold: Option<Hold>,
    flushing: bool,
}

impl Delivery {
    pub fn new(rest: Rest, engine: Arc<Engine>, hold: Hold) -> Self {
        Delivery {
            rest,
            engine,
            hold: Some(hold),
            flushing: false,
        }
    }

    /// The next piece; `None` once all of it was handed out, which is noted.
    pub async fn next(&mut self) -> Option<Result<Bytes, Cut>> {
        std::future::poll_fn(|cx| self.poll_piece(cx)).await
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Cut>>> {
        if let Some(piece) = ready!(self.rest.poll_piece(cx)) {
            return Poll::Ready(Some(piece.map_err(|_| Cut)));
        }
        if !self.flushing {
            // hyper writes what it has before it asks again. A connection that
            // is gone then takes the hold with it, and leaves an orphan.
            self.flushing = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if let Some(hold) = self.hold.take() {
            hold.delivered(&self.engine);
        }
        Poll::Ready(None)
    }
}

impl http_body::Body for Delivery {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let piece = self.get_mut().poll_piece(cx);
        piece.map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}

/// The connection is closed on this; it is the caller who is told, by the cut.
#[derive(Debug, thiserror::Error)]
#[error("the answer cannot be given on this connection")]
pub struct Cut;
