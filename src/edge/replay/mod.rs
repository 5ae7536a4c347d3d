//! Streams of a finished answer, and answers of a live stream.
//!
//! A caller with `stream:true` whose call went through a batch gets the
//! finished JSON as the events that a live call would have sent, in the form
//! that the official SDKs accumulate (tried with openai-python 3.54 and
//! openai-node 6.49). Text is cut between raw JSON characters, never decoded,
//! so that every number and escape arrives as the provider wrote it.

mod assemble;
mod chat;
mod completions;
mod json;
mod responses;
mod sse;

pub use assemble::{Assembler, Broken};

use crate::model::{
    body::walk::{Fault, Walker, compact},
    endpoint::Endpoint,
};

/// A comment that keeps a silent stream alive: SDKs skip it and restart their
/// read timeout (WIRE.md §3).
pub const HEARTBEAT: &[u8] = b": waiting for the answer\n\n";

/// An answer that cannot be told as events.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotReplayable {
    #[error("the answer is not JSON: {0}")]
    NotJson(#[from] Fault),
    #[error("the answer is not UTF-8")]
    NotUtf8,
    #[error("the answer's `{0}` is missing or of another type than expected")]
    Unexpected(&'static str),
    #[error("{} does not stream", .0.path())]
    NoStream(Endpoint),
}

/// The whole stream of a successful answer: `text/event-stream` bytes, up to
/// `[DONE]` where the endpoint sends one. `include_usage` is the caller's
/// `stream_options.include_usage`; Responses carry their usage always.
///
/// # Errors
/// An answer without the endpoint's shape.
pub fn replay(
    endpoint: Endpoint,
    answer: &[u8],
    include_usage: bool,
) -> Result<Vec<u8>, NotReplayable> {
    let answer = one_line(answer)?;
    match endpoint {
        Endpoint::ChatCompletions => chat::replay(&answer, include_usage),
        Endpoint::Completions => completions::replay(&answer, include_usage),
        Endpoint::Responses => responses::replay(&answer),
        Endpoint::Embeddings | Endpoint::Moderations => Err(NotReplayable::NoStream(endpoint)),
    }
}

/// The event that tells of a failure once a stream has begun: `error` is an
/// error body, `{"error":{…}}`. Both SDKs raise `APIError` on it.
///
/// # Errors
/// A body that is not JSON.
pub fn failure(error: &[u8]) -> Result<Vec<u8>, NotReplayable> {
    let mut events = sse::Writer::default();
    events.named("error", &one_line(error)?);
    Ok(events.finish())
}

/// Checked, and without the raw newlines that would end an event.
fn one_line(body: &[u8]) -> Result<String, NotReplayable> {
    let text = std::str::from_utf8(body).map_err(|_| NotReplayable::NotUtf8)?;
    let mut walker = Walker::new(text);
    let value = walker.value()?;
    walker.end()?;
    let mut line = Vec::with_capacity(value.len());
    compact(value, &mut line);
    String::from_utf8(line).map_err(|_| NotReplayable::NotUtf8)
}

#[cfg(test)]
mod tests;
