//! A caller's body on its way in, which may be long but not silent.

use std::{
    error::Error,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Sleep, sleep};

use super::BoxError;

/// A body as it comes from a caller. It fails with [`Stalled`] where nothing comes for
/// `idle` while somebody waits for more of it; a slow upstream is not the caller's
/// silence.
pub struct Upload {
    incoming: Incoming,
    idle: Duration,
    /// While nothing comes.
    silence: Option<Pin<Box<Sleep>>>,
}

/// A caller's body has stopped coming.
#[derive(Debug, thiserror::Error)]
#[error("nothing more of the request's body came for {}", humantime::format_duration(*.0))]
pub struct Stalled(Duration);

impl Upload {
    pub fn new(incoming: Incoming, idle: Duration) -> Upload {
        Upload {
            incoming,
            idle,
            silence: None,
        }
    }
}

impl Stalled {
    /// Whether `error` comes of one.
    pub fn is_in(error: &(dyn Error + 'static)) -> bool {
        std::iter::successors(Some(error), |error: &&(dyn Error + 'static)| {
            (*error).source()
        })
        .any(|error| error.is::<Stalled>())
    }
}

impl http_body::Body for Upload {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        if let Poll::Ready(frame) = Pin::new(&mut this.incoming).poll_frame(cx) {
            this.silence = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let idle = this.idle;
        let silence = this.silence.get_or_insert_with(|| Box::pin(sleep(idle)));
        silence
            .as_mut()
            .poll(cx)
            .map(|()| Some(Err(Stalled(idle).into())))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
