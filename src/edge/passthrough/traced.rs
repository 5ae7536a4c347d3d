//! The span of a call that passes through, made when the call is over.

use std::sync::Arc;

use http::{Request, StatusCode};
use tokio::time::Instant;

use crate::{
    edge::trace,
    model::endpoint::Endpoint,
    ports::{CallSpan, Traces},
};

/// A call that is to be told of, until it is over; told when this is dropped.
pub(super) struct Traced {
    traces: Arc<dyn Traces>,
    began: Instant,
    span: CallSpan,
}

impl Traced {
    /// None for a call of which nothing is told.
    pub fn begin<B>(traces: &Arc<dyn Traces>, request: &Request<B>) -> Option<Box<Traced>> {
        let sampled = traces.call(trace::parent(request.headers()))?;
        let began = Instant::now();
        Some(Box::new(Traced {
            traces: traces.clone(),
            began,
            span: CallSpan {
                sampled,
                method: request.method().clone(),
                endpoint: Endpoint::from_path(request.uri().path()),
                status: None,
                whole: false,
                took: began.elapsed(),
            },
        }))
    }

    /// The head of the upstream's answer is there.
    pub fn answered(&mut self, status: StatusCode) {
        self.span.status = Some(status);
    }

    /// The answer has passed, all of it.
    pub fn end(mut self) {
        self.span.whole = true;
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        self.span.took = self.began.elapsed();
        self.traces.tell_call(self.span.clone());
    }
}
