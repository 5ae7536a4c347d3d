//! A legacy completion as chunks, which have the shape of the whole.

use super::{
    NotReplayable,
    chat::{Chunks, extras, sorted_choices},
    json::{Object, inner, pieces},
};

pub(super) fn replay(answer: &str, include_usage: bool) -> Result<Vec<u8>, NotReplayable> {
    let answer = Object::read(answer, "body")?;
    let mut chunks = Chunks::new(&answer, "text_completion", include_usage);
    for (index, choice) in sorted_choices(&answer)? {
        let text = choice
            .get("text")
            .and_then(inner)
            .ok_or(NotReplayable::Unexpected("text"))?;
        let mut logprobs = choice.get("logprobs");
        let mut extras = extras(&choice, "text");
        let mut part = |text: &str, finish: &str| {
            let logprobs = logprobs.take().unwrap_or("null");
            let extras = std::mem::take(&mut extras);
            chunks.chunk(&format!(
                "{{\"text\":\"{text}\",\"index\":{index},\"logprobs\":{logprobs},\"finish_reason\":{finish}{extras}}}"
            ));
        };
        for piece in pieces(text) {
            part(piece, "null");
        }
        part("", choice.get("finish_reason").unwrap_or("null"));
    }
    Ok(chunks.finish(&answer))
}
