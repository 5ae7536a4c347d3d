//! A batch's input file, read from the store as it is sent.
//!
//! Lines whose prompts begin alike stand side by side, for the provider's prompt
//! cache. Each body is read once: lines are ordered within windows of some
//! megabytes, so that most batches are ordered whole and a large one in pieces. The
//! order follows from the lines alone; a file that is sent again has the same.

use std::{io, ops::Range, sync::Arc};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use parking_lot::Mutex;

use crate::{
    model::{
        batch::Batch,
        body::{self, Prompt},
        endpoint::Endpoint,
        id::RequestKey,
        line,
        request::Entry,
    },
    ports::{Content, Store, StoreError, Stored, Upload},
};

use super::Engine;

/// Bytes of lines that are held and ordered at a time.
const WINDOW: usize = 8 << 20;
/// Lines go out in pieces of about this size.
const PIECE: usize = 64 * 1024;

impl Engine {
    /// Lines that cannot be read end it, and are told to `spoiled`.
    pub(super) fn upload_of(&self, batch: &Batch, lines: Vec<Entry>, spoiled: Spoiled) -> Upload {
        let file = File {
            store: self.store.clone(),
            spoiled,
            endpoint: batch.endpoint,
            lines: lines.into_iter(),
            window: Window::default(),
        };
        Upload {
            name: file_name(batch),
            length: file
                .lines
                .as_slice()
                .iter()
                .map(|line| u64::from(line.line_bytes))
                .sum(),
            lines: stream::try_unfold(file, |mut file| async move {
                let piece = file.piece().await?;
                Ok((!piece.is_empty()).then_some((piece, file)))
            })
            .boxed(),
        }
    }
}

/// No other batch's, of whichever server.
pub(super) fn file_name(batch: &Batch) -> String {
    format!("offpeak-{}.jsonl", batch.id)
}

/// Lines that could not be read, and why.
pub(super) type Spoiled = Arc<Mutex<Vec<(RequestKey, String)>>>;

struct File {
    store: Arc<dyn Store>,
    spoiled: Spoiled,
    endpoint: Endpoint,
    lines: std::vec::IntoIter<Entry>,
    window: Window,
}

impl File {
    async fn piece(&mut self) -> io::Result<Bytes> {
        if self.window.is_out() {
            self.read_window().await?;
        }
        Ok(self.window.piece())
    }

    async fn open_body(&self, key: RequestKey) -> io::Result<Bytes> {
        match self.store.load(key).await {
            Ok(Some(Stored {
                content: Content::Open { body },
                ..
            })) => Ok(body),
            Ok(_) => Err(io::Error::other("a line ended while it was uploaded")),
            Err(error) => {
                if let StoreError::Corrupt(why) = &error {
                    self.spoiled.lock().push((key, why.clone()));
                }
                Err(io::Error::other(error))
            }
        }
    }

    async fn read_window(&mut self) -> io::Result<()> {
        let mut window = Window::default();
        let mut compact = Vec::new();
        while window.text.len() < WINDOW {
            let Some(entry) = self.lines.next() else {
                break;
            };
            let body = self.open_body(entry.key).await?;
            compact.clear();
            body::batch_body(&body, &mut compact).map_err(io::Error::other)?;
            window.push(entry, self.endpoint, &compact);
        }
        window.order();
        self.window = window;
        Ok(())
    }
}

/// Lines that are ordered together.
#[derive(Default)]
struct Window {
    text: Vec<u8>,
    lines: Vec<Line>,
    /// Lines that went out.
    out: usize,
}

struct Line {
    whole: Range<usize>,
    body: Range<usize>,
    prompt: Prompt,
}

impl Window {
    fn push(&mut self, entry: Entry, endpoint: Endpoint, body: &[u8]) {
        let start = self.text.len();
        line::write_line(&mut self.text, entry.key.id, endpoint, body);
        let body_start = start + line::body_start(endpoint);
        self.lines.push(Line {
            whole: start..self.text.len(),
            body: body_start..body_start + body.len(),
            prompt: std::str::from_utf8(body)
                .map(Prompt::of)
                .unwrap_or_default(),
        });
    }

    /// Stable: lines that begin alike stay in the order in which they came.
    fn order(&mut self) {
        let text = &self.text;
        let begins = |line: &Line| line.prompt.begins(&text[line.body.clone()]);
        self.lines.sort_by(|a, b| begins(a).cmp(&begins(b)));
    }

    fn is_out(&self) -> bool {
        self.out == self.lines.len()
    }

    fn piece(&mut self) -> Bytes {
        let mut piece = Vec::with_capacity(PIECE + PIECE / 4);
        while piece.len() < PIECE
            && let Some(line) = self.lines.get(self.out)
        {
            piece.extend_from_slice(&self.text[line.whole.clone()]);
            self.out += 1;
        }
        Bytes::from(piece)
    }
}
