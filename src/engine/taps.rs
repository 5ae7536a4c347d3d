//! Callers who get a live answer as it streams in.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::model::id::RequestKey;

/// Chunks that may wait for a slow caller before the provider is slowed down.
const DEPTH: usize = 16;
/// How long a caller may take for one chunk. A slower one would keep a live call
/// open that others wait for; it is cut off, and may ask for the whole answer.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Default)]
pub(super) struct Taps {
    senders: Mutex<HashMap<RequestKey, mpsc::Sender<TapEvent>>>,
}

pub enum TapEvent {
    /// A success begins; its bytes follow.
    Begin {
        headers: http::HeaderMap,
    },
    Chunk(Bytes),
    /// All of it was sent, and it is durable.
    End,
    /// The stream broke; the request goes on.
    Broken,
}

/// The caller's end. It ends without `End` where the call was not streamed: the
/// outcome then tells.
pub struct Tap(mpsc::Receiver<TapEvent>);

impl Tap {
    pub async fn next(&mut self) -> Option<TapEvent> {
        self.0.recv().await
    }
}

impl Taps {
    pub fn open(&self, key: RequestKey) -> Tap {
        let (sender, receiver) = mpsc::channel(DEPTH);
        self.senders.lock().insert(key, sender);
        Tap(receiver)
    }

    pub fn len(&self) -> usize {
        self.senders.lock().len()
    }

    pub fn take(&self, key: RequestKey) -> Option<Spout> {
        let sender = self.senders.lock().remove(&key)?;
        Some(Spout {
            sender,
            cut: AtomicBool::new(false),
        })
    }
}

/// The engine's end.
pub(super) struct Spout {
    sender: mpsc::Sender<TapEvent>,
    /// Something was not sent: what came after it would be a lie.
    cut: AtomicBool,
}

impl Spout {
    /// False, from then on, where the caller has left or is too slow.
    pub async fn send(&self, event: TapEvent) -> bool {
        if self.cut.load(Ordering::Relaxed) {
            return false;
        }
        let sent = self.sender.send_timeout(event, PATIENCE).await.is_ok();
        self.cut.store(!sent, Ordering::Relaxed);
        sent
    }
}
