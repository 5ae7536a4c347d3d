//! An answer on its way from the store to a caller. A large one is read as it is taken;
//! what has to be told in another form is read whole, within the bound of [`Memory`].

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};
use http_body::{Frame, SizeHint};

use super::memory::{Busy, Memory, Portion};
use crate::{
    engine::Engine,
    model::id::RequestKey,
    ports::{Kept, StoreError},
};

/// The answer of a request that has ended.
pub struct KeptAnswer {
    engine: Arc<Engine>,
    key: RequestKey,
    kept: Kept,
}

/// Why an answer cannot be told, although it was there.
#[derive(Debug, thiserror::Error)]
pub enum Unread {
    #[error(transparent)]
    Busy(#[from] Busy),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("it was erased")]
    Erased,
}

impl KeptAnswer {
    pub fn new(engine: Arc<Engine>, key: RequestKey, kept: Kept) -> KeptAnswer {
        KeptAnswer { engine, key, kept }
    }

    /// As it is, byte for byte.
    pub fn handed_on(self) -> Rest {
        let KeptAnswer { engine, key, kept } = self;
        match kept {
            Kept::Short(bytes) => bytes.into(),
            Kept::Long(length) => Rest {
                left: length,
                source: Source::Store(parts(engine, key, length)),
            },
        }
    }

    /// All of it, counted for as long as the portion is held.
    ///
    /// # Errors
    /// Where there is no memory for it, or it is not there any more.
    pub async fn whole(self, memory: &Arc<Memory>) -> Result<(Bytes, Option<Portion>), Unread> {
        let length = match self.kept {
            Kept::Short(bytes) => return Ok((bytes, None)),
            Kept::Long(length) => length,
        };
        let portion = memory.take(self.key.tenant, length)?;
        let mut whole = Vec::with_capacity(usize::try_from(length).unwrap_or_default());
        let mut parts = parts(self.engine, self.key, length);
        while let Some(part) = parts.next().await {
            whole.extend_from_slice(&part?);
        }
        Ok((whole.into(), Some(portion)))
    }
}

/// The most handed out at once, in bytes: how much of an answer may be lost with a
/// connection although it counts as written.
const PIECE: usize = 64 * 1024;

/// All of a long answer; an error where it ends before that.
fn parts(
    engine: Arc<Engine>,
    key: RequestKey,
    length: u64,
) -> BoxStream<'static, Result<Bytes, Unread>> {
    stream::try_unfold(0, move |from| {
        let engine = engine.clone();
        async move {
            if from >= length {
                return Ok(None);
            }
            let part = engine.answer_part(key, from, PIECE).await;
            let part = part.map_err(Unread::from).and_then(|part| {
                let some = part.filter(|part| !part.is_empty());
                some.ok_or(Unread::Erased)
            });
            let part = part.inspect_err(|error| {
                tracing::warn!(id = %key.id, %error, "an answer breaks off while it is told");
            })?;
            let next = from + part.len() as u64;
            Ok(Some((part, next)))
        }
    })
    .boxed()
}

/// What is left of a body, in pieces. It has as many bytes as it says, or an error.
pub struct Rest {
    left: u64,
    source: Source,
}

enum Source {
    Memory(Bytes),
    Store(BoxStream<'static, Result<Bytes, Unread>>),
}

impl Rest {
    /// The next piece; none when it has all been handed out.
    pub fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let piece = match &mut self.source {
            Source::Memory(bytes) => Ok(bytes.split_to(bytes.len().min(PIECE))),
            Source::Store(parts) => match ready!(parts.poll_next_unpin(cx)) {
                Some(part) => part.map_err(io::Error::other),
                None => Err(io::ErrorKind::UnexpectedEof.into()),
            },
        };
        let length = piece.as_ref().map_or(0, Bytes::len) as u64;
        self.left = self.left.saturating_sub(length);
        Poll::Ready(Some(piece))
    }
}

impl From<Bytes> for Rest {
    fn from(bytes: Bytes) -> Rest {
        Rest {
            left: bytes.len() as u64,
            source: Source::Memory(bytes),
        }
    }
}

impl http_body::Body for Rest {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let piece = self.get_mut().poll_piece(cx);
        piece.map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
