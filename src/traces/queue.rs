//! Spans on their way to the collector.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use tokio::{
    sync::mpsc,
    task::AbortHandle,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::ports::SpanCounts;

/// Spans that wait; more are dropped. One is some 2 KB.
pub(super) const QUEUE: usize = 4_096;
/// Spans that are sent together, and how long the first of them waits for the others.
const BATCH: usize = 512;
const LINGER: Duration = Duration::from_secs(1);

pub(super) struct Queue {
    spans: mpsc::Sender<SpanData>,
    counts: Arc<Counts>,
    closing: CancellationToken,
    task: TaskTracker,
    abort: AbortHandle,
}

#[derive(Default)]
struct Counts {
    taken: AtomicU64,
    sent: AtomicU64,
    failed: AtomicU64,
    dropped: AtomicU64,
}

impl Queue {
    /// Sends what comes, on the runtime that this is called on.
    pub fn new(exporter: SpanExporter) -> Queue {
        let (spans, inbox) = mpsc::channel(QUEUE);
        let counts = Arc::<Counts>::default();
        let (closing, task) = (CancellationToken::new(), TaskTracker::new());
        let sending = Sending {
            exporter,
            inbox,
            counts: counts.clone(),
            closing: closing.clone(),
            is_deaf: false,
        };
        let abort = task.spawn(sending.run()).abort_handle();
        Queue {
            spans,
            counts,
            closing,
            task,
            abort,
        }
    }

    pub fn push(&self, span: SpanData) {
        match self.spans.try_send(span) {
            Ok(()) => self.counts.taken.fetch_add(1, Relaxed),
            Err(_full) => self.counts.dropped.fetch_add(1, Relaxed),
        };
    }

    /// A span that was never made.
    pub fn lost(&self) {
        self.counts.dropped.fetch_add(1, Relaxed);
    }

    pub fn counts(&self) -> SpanCounts {
        SpanCounts {
            sent: self.counts.sent.load(Relaxed),
            failed: self.counts.failed.load(Relaxed),
            dropped: self.counts.dropped.load(Relaxed),
        }
    }

    /// Takes no more, and sends what it has, at most until `patience` ends.
    pub async fn finish(&self, patience: Duration) {
        self.closing.cancel();
        self.task.close();
        if timeout(patience, self.task.wait()).await.is_ok() {
            return;
        }
        self.abort.abort();
        self.task.wait().await;
        let counts = &self.counts;
        let done = counts.sent.load(Relaxed) + counts.failed.load(Relaxed);
        let unsent = counts.taken.load(Relaxed).saturating_sub(done);
        tracing::warn!(unsent, "the collector did not take the last spans in time");
    }
}

struct Sending {
    exporter: SpanExporter,
    inbox: mpsc::Receiver<SpanData>,
    counts: Arc<Counts>,
    closing: CancellationToken,
    /// The collector did not take what was sent last.
    is_deaf: bool,
}

impl Sending {
    async fn run(mut self) {
        loop {
            let batch = self.batch().await;
            if batch.is_empty() {
                return;
            }
            self.send(batch).await;
        }
    }

    /// The next that go together; none when no more come.
    async fn batch(&mut self) -> Vec<SpanData> {
        let mut batch = Vec::new();
        tokio::select! {
            _ = self.inbox.recv_many(&mut batch, BATCH) => {}
            () = self.closing.cancelled() => {}
        }
        tokio::select! {
            () = fill(&mut self.inbox, &mut batch) => {}
            () = sleep(LINGER) => {}
            () = self.closing.cancelled() => {}
        }
        if self.closing.is_cancelled() {
            self.inbox.close();
            fill(&mut self.inbox, &mut batch).await;
        }
        batch
    }

    async fn send(&mut self, batch: Vec<SpanData>) {
        let count = batch.len() as u64;
        match self.exporter.export(batch).await {
            Ok(()) => {
                self.counts.sent.fetch_add(count, Relaxed);
                if std::mem::take(&mut self.is_deaf) {
                    tracing::info!("the collector takes spans again");
                }
            }
            Err(error) => {
                self.counts.failed.fetch_add(count, Relaxed);
                if !std::mem::replace(&mut self.is_deaf, true) {
                    tracing::warn!(%error, "the collector takes no spans; they are lost until it does");
                }
            }
        }
    }
}

/// Returns when the batch is full, or no more come.
async fn fill(inbox: &mut mpsc::Receiver<SpanData>, batch: &mut Vec<SpanData>) {
    while batch.len() < BATCH {
        if inbox.recv_many(batch, BATCH - batch.len()).await == 0 {
            return;
        }
    }
}
