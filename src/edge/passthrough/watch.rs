//! Shadow mode's eyes: what an answer that passes says of its cost is kept aside and
//! told to the engine when the answer is over. No byte is changed or waits.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Request, Response, header};

use crate::{
    edge::{auth, route},
    engine::{Caller, Coding, Engine, Passed, Whose},
    model::endpoint::Endpoint,
};

/// Looks at calls that could have had a deadline.
pub(super) struct Watch(Arc<Engine>);

/// A call that is looked at, until its answer's head is there.
pub(super) struct Call {
    engine: Arc<Engine>,
    whose: Whose,
    endpoint: Endpoint,
}

impl Watch {
    /// None where the engine counts nothing.
    pub fn new(engine: &Arc<Engine>) -> Option<Watch> {
        let deadline = engine.settings().shadow.deadline;
        deadline.map(|_| Watch(engine.clone()))
    }

    /// None for calls that no batch takes. `caller` presented a key that we issued.
    pub fn call<B>(&self, request: &Request<B>, caller: Option<Caller>) -> Option<Call> {
        let headers = request.headers();
        let listed = &self.0.settings().admission.endpoints;
        let endpoint = route::deferrable(request.method(), request.uri(), listed)?;
        if headers.contains_key(auth::OPENAI_BETA) {
            return None;
        }
        Some(Call {
            engine: self.0.clone(),
            whose: match caller {
                Some(caller) => Whose::Known(Box::new(caller)),
                None => Whose::Presents(auth::credential(headers, request.uri()).ok()?),
            },
            endpoint,
        })
    }
}

impl Call {
    /// None for errors, which are not billed.
    pub fn answered<B>(self, response: &Response<B>) -> Option<Box<Observer>> {
        if !response.status().is_success() {
            return None;
        }
        let headers = response.headers();
        let streamed = is_event_stream(headers);
        let coding = headers.get(header::CONTENT_ENCODING).map(coding);
        let answer = match coding {
            Some(None) => None,
            coding => self.engine.excerpt(streamed, coding.flatten()),
        };
        Some(Box::new(Observer {
            passed: Some(Passed {
                whose: self.whose,
                endpoint: self.endpoint,
                streamed,
                answer,
            }),
            engine: self.engine,
        }))
    }
}

fn is_event_stream(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"))
}

/// None where it cannot be read.
fn coding(value: &HeaderValue) -> Option<Coding> {
    value.to_str().ok().and_then(Coding::named)
}

/// An answer that passes. One that is dropped before its end was not seen whole, and
/// is told as that.
pub(super) struct Observer {
    engine: Arc<Engine>,
    /// None once it is told.
    passed: Option<Passed>,
}

impl Observer {
    pub fn see(&mut self, piece: &[u8]) {
        let answer = self.passed.as_mut().map(|passed| &mut passed.answer);
        if let Some(answer) = answer
            && answer.as_mut().is_some_and(|excerpt| !excerpt.push(piece))
        {
            *answer = None;
        }
    }

    /// The answer is over.
    pub fn end(mut self) {
        if let Some(passed) = self.passed.take() {
            self.engine.passed(passed);
        }
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        if let Some(passed) = self.passed.take() {
            let answer = None;
            self.engine.passed(Passed { answer, ..passed });
        }
    }
}
