//! A span for each request that ends, where somebody watches.
//!
//! What a span tells is read from the store when the request has ended, aside: who settles
//! it leaves a word in a bounded queue and never waits. The trace of a caller is kept in
//! memory only, and while there is room: a request whose trace is forgotten, as over a
//! restart, has a trace of its own.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use super::Engine;
use crate::{
    model::{
        id::{RequestId, RequestKey},
        timeline::Happened,
        trace::{Sampled, TraceParent},
    },
    ports::{RequestSpan, SpanCounts, StoreError, Traces},
};

/// Requests whose caller's trace is kept in mind: some 6 MB.
const PARENTS: usize = 100_000;
/// Endings of which nothing is told yet; of more nothing is.
const QUEUE: usize = 8_192;

pub(super) struct Tracing {
    traces: Arc<dyn Traces>,
    parents: Mutex<HashMap<RequestId, TraceParent>>,
    /// None when no request ends any more.
    ended: Mutex<Option<mpsc::Sender<Ended>>>,
    /// Who reads there.
    teller: TaskTracker,
}

/// A request that has ended and is to be told of.
pub(super) struct Ended {
    key: RequestKey,
    sampled: Sampled,
}

impl Tracing {
    pub fn new(traces: Arc<dyn Traces>) -> (Tracing, mpsc::Receiver<Ended>) {
        let (ended, inbox) = mpsc::channel(QUEUE);
        let tracing = Tracing {
            traces,
            parents: Mutex::default(),
            ended: Mutex::new(Some(ended)),
            teller: TaskTracker::new(),
        };
        (tracing, inbox)
    }
}

impl Engine {
    /// What became of the spans since the start.
    pub fn spans(&self) -> SpanCounts {
        let traces = self.tracing.as_ref().map(|it| &it.traces);
        traces.map_or_else(SpanCounts::default, |traces| traces.counts())
    }

    /// The request belongs to a trace of its caller's.
    pub(super) fn trace(&self, id: RequestId, parent: Option<TraceParent>) {
        if let (Some(tracing), Some(parent)) = (&self.tracing, parent) {
            let mut parents = tracing.parents.lock();
            if parents.len() < PARENTS {
                parents.insert(id, parent);
            }
        }
    }

    pub(super) fn untrace(&self, id: RequestId) -> Option<TraceParent> {
        self.tracing.as_ref()?.parents.lock().remove(&id)
    }

    /// The request has ended.
    pub(super) fn trace_ending(&self, key: RequestKey) {
        let Some(tracing) = &self.tracing else { return };
        let parent = self.untrace(key.id);
        let Some(sampled) = tracing.traces.request(key.id, parent) else {
            return;
        };
        let ended = tracing.ended.lock();
        let ended = ended.as_ref();
        if ended.is_none_or(|it| it.try_send(Ended { key, sampled }).is_err()) {
            tracing.traces.lost();
        }
    }

    /// Tells of what ends, from now on.
    pub(super) fn tell_endings(self: &Arc<Self>, mut inbox: mpsc::Receiver<Ended>) {
        let Some(tracing) = &self.tracing else { return };
        let engine = self.clone();
        tracing.teller.spawn(async move {
            while let Some(ended) = inbox.recv().await {
                engine.tell_ending(ended).await;
            }
        });
    }

    /// Returns when all is told of what has ended: nothing ends any more.
    pub(super) async fn endings_told(&self) {
        let Some(tracing) = &self.tracing else { return };
        tracing.ended.lock().take();
        tracing.teller.close();
        tracing.teller.wait().await;
    }

    async fn tell_ending(&self, ended: Ended) {
        let Some(tracing) = &self.tracing else { return };
        let id = ended.key.id;
        match self.span(ended).await {
            Ok(Some(span)) => tracing.traces.tell_request(span),
            // Its caller erased it.
            Ok(None) => {}
            Err(error) => {
                tracing.traces.lost();
                tracing::debug!(%id, %error, "its span cannot be made");
            }
        }
    }

    async fn span(&self, ended: Ended) -> Result<Option<RequestSpan>, StoreError> {
        let Some(view) = self.view(ended.key).await? else {
            return Ok(None);
        };
        let mut events = self.timeline(&view).await?;
        // How the answer is delivered is no part of the span, which ends with it.
        events.retain(|event| event.what < Happened::Delivered);
        let request = view.request;
        Ok(view.outcome.map(|outcome| RequestSpan {
            sampled: ended.sampled,
            request,
            outcome,
            events,
        }))
    }
}
