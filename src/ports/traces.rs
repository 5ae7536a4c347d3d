//! Spans, for whoever watches.

use std::time::Duration;

use http::{Method, StatusCode};

use crate::model::{
    endpoint::Endpoint,
    id::RequestId,
    request::{Outcome, Request},
    timeline::Event,
    trace::{Sampled, TraceParent},
};

/// Where spans are told. Nothing here waits, and nothing fails: a span that cannot be
/// kept is counted.
pub trait Traces: Send + Sync + 'static {
    /// Whether a request's span is to be told: as its parent was, or else by chance. Of one
    /// request always the same is said.
    fn request(&self, id: RequestId, parent: Option<TraceParent>) -> Option<Sampled>;

    /// The same of a call that passes through.
    fn call(&self, parent: Option<TraceParent>) -> Option<Sampled>;

    fn tell_request(&self, span: RequestSpan);

    /// A call that is just over.
    fn tell_call(&self, span: CallSpan);

    /// A span that was to be told, and could not be made.
    fn lost(&self);

    fn counts(&self) -> SpanCounts;
}

/// One deferred call, from admission to its answer.
#[derive(Clone, Debug)]
pub struct RequestSpan {
    pub sampled: Sampled,
    pub request: Request,
    pub outcome: Outcome,
    /// In order. What nobody wrote down the time of comes last.
    pub events: Vec<Event>,
}

/// A call that passed through.
#[derive(Clone, Debug)]
pub struct CallSpan {
    pub sampled: Sampled,
    pub method: Method,
    /// Where its path is one that is known.
    pub endpoint: Option<Endpoint>,
    /// None where nothing came of the upstream.
    pub status: Option<StatusCode>,
    /// Whether the answer was passed on to its end.
    pub whole: bool,
    pub took: Duration,
}

/// Spans since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpanCounts {
    /// The collector took them.
    pub sent: u64,
    /// It was asked, and did not.
    pub failed: u64,
    /// There was no room for them.
    pub dropped: u64,
}
