//! An input file as a multipart body: streamed, of exact length, and never
//! complete unless the file is.

use std::{
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::connect::BoxError;
use crate::ports::Upload;

/// A delimiter starts with a line break and two dashes. A line break inside a
/// JSON value stands between tokens, where two dashes cannot follow, so no
/// boundary can collide with JSONL.
const BOUNDARY: &str = "offpeak-6mXvK3bTqRz8";
pub(super) const CONTENT_TYPE: &str = "multipart/form-data; boundary=offpeak-6mXvK3bTqRz8";

/// Lines are gathered into pieces of about this many bytes.
const PIECE: usize = 64 * 1024;

/// The body of `POST /files` (WIRE.md §1), and what its sender can see of it.
pub(super) fn multipart(upload: Upload, expires_after: Duration) -> (Multipart, Arc<Sending>) {
    let head = head(&upload.name, expires_after);
    let tail = Bytes::from(format!("\r\n--{BOUNDARY}--\r\n"));
    let sending = Arc::new(Sending(Mutex::new(State {
        progress: Instant::now(),
        end: None,
    })));
    let body = Multipart {
        left: head.len() as u64 + upload.length + tail.len() as u64,
        lines_left: upload.length,
        head: Some(head),
        upload,
        gathered: BytesMut::new(),
        tail: Some(tail),
        rest: false,
        sending: Arc::downgrade(&sending),
    };
    (body, sending)
}

fn head(name: &str, expires_after: Duration) -> Bytes {
    // As browsers escape file names.
    let name = name
        .replace('"', "%22")
        .replace('\r', "%0D")
        .replace('\n', "%0A");
    let mut head = String::new();
    for (field, value) in [
        ("purpose", "batch"),
        ("expires_after[anchor]", "created_at"),
        (
            "expires_after[seconds]",
            &expires_after.as_secs().to_string(),
        ),
    ] {
        head += &format!(
            "--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"{field}\"\r\n\r\n{value}\r\n"
        );
    }
    head += &format!(
        "--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\
         content-type: application/jsonl\r\n\r\n"
    );
    Bytes::from(head)
}

/// The sender's end. The body stops with an error once this is dropped: nobody
/// waits for the upload any more.
pub(super) struct Sending(Mutex<State>);

struct State {
    progress: Instant,
    end: Option<Result<(), String>>,
}

impl Sending {
    /// When the connection last took a piece.
    pub fn progress(&self) -> Instant {
        self.0.lock().progress
    }

    /// Whether the whole file was handed over, or why it never will be.
    pub fn end(&self) -> Option<Result<(), String>> {
        self.0.lock().end.clone()
    }
}

pub(super) struct Multipart {
    /// Bytes of the body that are still to come.
    left: u64,
    /// Bytes of the file that are still to come.
    lines_left: u64,
    head: Option<Bytes>,
    upload: Upload,
    gathered: BytesMut,
    tail: Option<Bytes>,
    /// The connection reads only when the body has nothing for it; without a
    /// rest between pieces an early answer is heard after everything is sent.
    rest: bool,
    sending: Weak<Sending>,
}

impl Multipart {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, String>> {
        if let Some(head) = self.head.take() {
            return Poll::Ready(Ok(Some(head)));
        }
        if self.tail.is_none() {
            return Poll::Ready(Ok(None));
        }
        while self.gathered.len() < PIECE {
            match self.upload.lines.as_mut().poll_next(cx) {
                Poll::Pending if self.gathered.is_empty() => return Poll::Pending,
                Poll::Pending => break,
                Poll::Ready(None) => return Poll::Ready(self.close().map(Some)),
                Poll::Ready(Some(Err(error))) => {
                    return Poll::Ready(Err(format!("reading the lines: {error}")));
                }
                Poll::Ready(Some(Ok(lines))) => {
                    self.lines_left = self
                        .lines_left
                        .checked_sub(lines.len() as u64)
                        .ok_or_else(|| self.mismatch("more"))?;
                    if self.gathered.is_empty() && lines.len() >= PIECE {
                        return Poll::Ready(Ok(Some(lines)));
                    }
                    self.gathered.extend_from_slice(&lines);
                }
            }
        }
        Poll::Ready(Ok(Some(self.gathered.split().freeze())))
    }

    /// The last piece, which alone makes the body complete.
    fn close(&mut self) -> Result<Bytes, String> {
        if self.lines_left > 0 {
            return Err(self.mismatch("fewer"));
        }
        if let Some(tail) = self.tail.take() {
            self.gathered.extend_from_slice(&tail);
        }
        Ok(self.gathered.split().freeze())
    }

    fn mismatch(&self, than: &str) -> String {
        format!(
            "the lines have {than} bytes than the announced {}",
            self.upload.length
        )
    }
}

impl Body for Multipart {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let Some(sending) = this.sending.upgrade() else {
            return Poll::Ready(Some(Err("nobody waits for this upload".into())));
        };
        if std::mem::replace(&mut this.rest, false) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let piece = ready!(this.poll_piece(cx));
        let mut state = sending.0.lock();
        state.progress = Instant::now();
        match piece {
            Ok(None) => Poll::Ready(None),
            Ok(Some(piece)) => {
                this.rest = true;
                this.left -= piece.len() as u64;
                if this.tail.is_none() {
                    state.end = Some(Ok(()));
                }
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
            Err(reason) => {
                state.end = Some(Err(reason.clone()));
                Poll::Ready(Some(Err(reason.into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.head.is_none() && self.tail.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
