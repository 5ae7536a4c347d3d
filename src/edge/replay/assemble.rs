//! A live stream folded into the answer that the call would have had without
//! `stream`: here what an event means, in [`chunks`] how chunks add up to choices,
//! in [`parts`] how deltas add up to objects. Text is joined as raw JSON
//! characters: nothing is decoded.

mod chunks;
mod parts;

use self::chunks::Chunks;
use super::{
    json::{Object, object},
    one_line,
    sse::Reader,
};
use crate::model::endpoint::Endpoint;

/// Why a stream gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// The stream ended before the answer did.
    #[error("the stream was cut short")]
    Truncated,
    /// The provider reported an error inside the stream; holds an error body,
    /// `{"error":{…}}`.
    #[error("the provider failed during the stream: {0}")]
    Failed(String),
    #[error("the stream holds {0}")]
    Malformed(&'static str),
}

/// Takes the bytes of a stream as they come. What it keeps is about as large
/// as the answer; the caller bounds that by what it pushes.
pub struct Assembler {
    reader: Reader,
    fold: Fold,
    broken: Option<Broken>,
}

enum Fold {
    Chunks(Box<Chunks>),
    /// The raw response of the terminal event.
    Response(Option<String>),
}

impl Assembler {
    /// For an endpoint that streams; any other's stream is malformed.
    pub fn new(endpoint: Endpoint) -> Self {
        let (fold, broken) = match endpoint {
            Endpoint::Responses => (Fold::Response(None), None),
            Endpoint::ChatCompletions | Endpoint::Completions => {
                (Fold::Chunks(Box::new(Chunks::new(endpoint))), None)
            }
            Endpoint::Embeddings | Endpoint::Moderations => {
                let broken = Broken::Malformed("what never streams");
                (Fold::Response(None), Some(broken))
            }
        };
        Assembler {
            reader: Reader::default(),
            fold,
            broken,
        }
    }

    pub fn push(&mut self, bytes: &[u8]) {
        let Assembler {
            reader,
            fold,
            broken,
        } = self;
        reader.push(bytes, |data| {
            if broken.is_none() {
                *broken = fold.event(&data).err();
            }
        });
    }

    /// The answer, compact JSON.
    ///
    /// # Errors
    /// A stream that was cut short, that told of an error, or that cannot be
    /// read.
    pub fn finish(mut self) -> Result<Vec<u8>, Broken> {
        let Assembler {
            reader,
            fold,
            broken,
        } = &mut self;
        reader.finish(|data| {
            if broken.is_none() {
                *broken = fold.event(&data).err();
            }
        });
        if let Some(broken) = self.broken {
            return Err(broken);
        }
        match self.fold {
            Fold::Response(response) => response.map(String::into_bytes).ok_or(Broken::Truncated),
            Fold::Chunks(chunks) => chunks.finish(),
        }
    }
}

impl Fold {
    fn event(&mut self, data: &[u8]) -> Result<(), Broken> {
        if data.trim_ascii().starts_with(b"[DONE]") {
            if let Fold::Chunks(chunks) = self {
                chunks.done = true;
            }
            return Ok(());
        }
        let data = one_line(data).map_err(|_| Broken::Malformed("an event that is not JSON"))?;
        let event = read(&data, "an event that is not an object")?;
        if let Some(error) = failure(&event) {
            return Err(Broken::Failed(error));
        }
        match self {
            Fold::Chunks(chunks) => chunks.chunk(&event),
            Fold::Response(response) => {
                let terminal = [
                    "\"response.completed\"",
                    "\"response.incomplete\"",
                    "\"response.failed\"",
                ];
                if event
                    .get("type")
                    .is_some_and(|kind| terminal.contains(&kind))
                {
                    *response = event.get("response").map(str::to_owned);
                }
                Ok(())
            }
        }
    }
}

/// The error body of an event that tells of one: `{"error":{…}}`, or the
/// Responses' `{"type":"error","code",…}`.
fn failure(event: &Object<'_>) -> Option<String> {
    if let Some(error) = event.get("error") {
        return Some(object(&[("error", error)]));
    }
    if event.get("type") != Some("\"error\"") {
        return None;
    }
    let field = |name| event.get(name).unwrap_or("null");
    let error = object(&[
        ("message", field("message")),
        ("type", "\"server_error\""),
        ("param", field("param")),
        ("code", field("code")),
    ]);
    Some(object(&[("error", &error)]))
}

fn read<'a>(raw: &'a str, otherwise: &'static str) -> Result<Object<'a>, Broken> {
    Object::read(raw, otherwise).map_err(|_| Broken::Malformed(otherwise))
}
