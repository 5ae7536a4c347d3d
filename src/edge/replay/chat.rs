//! A chat completion as `chat.completion.chunk` events.
//!
//! What the SDKs' accumulators ask for: choices first appear in the order of
//! their index; a role, an id and a name come once (Python concatenates
//! strings); log probabilities never come in a choice's first chunk (both
//! would count them twice).

use super::{
    NotReplayable,
    json::{Object, Writer, inner, object, pieces},
    sse,
};

/// Fields of the answer that every chunk repeats.
const COMMON: [&str; 5] = [
    "id",
    "created",
    "model",
    "service_tier",
    "system_fingerprint",
];

pub(super) fn replay(answer: &str, include_usage: bool) -> Result<Vec<u8>, NotReplayable> {
    let answer = Object::read(answer, "body")?;
    let mut chunks = Chunks::new(&answer, "chat.completion.chunk", include_usage);
    for choice in sorted_choices(&answer)? {
        chunks.index = choice.0;
        choice_chunks(&choice.1, &mut chunks)?;
    }
    Ok(chunks.finish(&answer))
}

fn choice_chunks(choice: &Object<'_>, chunks: &mut Chunks) -> Result<(), NotReplayable> {
    let message = choice
        .get("message")
        .ok_or(NotReplayable::Unexpected("message"))?;
    let message = Object::read(message, "message")?;
    chunks.delta(&opening(&message), None, &extras(choice, "message"));
    let mut logprobs = choice.get("logprobs");
    for name in ["content", "refusal"] {
        for piece in message
            .get(name)
            .and_then(inner)
            .map(pieces)
            .unwrap_or_default()
        {
            let mut delta = Writer::new();
            delta.text(name, piece);
            chunks.delta(&delta.finish(), logprobs.take(), "");
        }
    }
    if let Some(logprobs) = logprobs {
        chunks.delta("{}", Some(logprobs), "");
    }
    if let Some(call) = message.get("function_call") {
        call_chunks(call, |part| {
            chunks.delta(&object(&[("function_call", part)]), None, "");
        })?;
    }
    for (index, call) in message.list("tool_calls")?.into_iter().enumerate() {
        tool_call_chunks(index, call, chunks)?;
    }
    chunks.choice("{}", None, choice.get("finish_reason"), "");
    Ok(())
}

/// The first delta: the role, what is null, and whole what does not stream.
fn opening(message: &Object<'_>) -> String {
    let mut delta = Writer::new();
    for field in &message.0 {
        match &*field.name {
            "tool_calls" | "function_call" => {}
            "content" if inner(field.value).is_some() => delta.raw(field.key, "\"\""),
            "refusal" if inner(field.value).is_some() => {}
            _ => delta.raw(field.key, field.value),
        }
    }
    delta.finish()
}

fn tool_call_chunks(index: usize, call: &str, chunks: &mut Chunks) -> Result<(), NotReplayable> {
    let call = Object::read(call, "tool_calls")?;
    let index = index.to_string();
    let mut head = Writer::new();
    head.field("index", &index);
    for field in &call.0 {
        if !matches!(&*field.name, "index" | "function") {
            head.raw(field.key, field.value);
        }
    }
    let Some(function) = call.get("function") else {
        chunks.tool_call(&head.finish());
        return Ok(());
    };
    let mut head = Some(head);
    call_chunks(function, |part| {
        let mut delta = head.take().unwrap_or_else(|| {
            let mut next = Writer::new();
            next.field("index", &index);
            next
        });
        delta.field("function", part);
        chunks.tool_call(&delta.finish());
    })
}

/// A function's name with empty arguments, then its arguments in parts.
fn call_chunks(call: &str, mut emit: impl FnMut(&str)) -> Result<(), NotReplayable> {
    let call = Object::read(call, "function")?;
    let Some(arguments) = call.get("arguments").and_then(inner) else {
        emit(&call.with(&[]));
        return Ok(());
    };
    emit(&call.with(&[("arguments", "\"\"")]));
    for piece in pieces(arguments) {
        let mut part = Writer::new();
        part.text("arguments", piece);
        emit(&part.finish());
    }
    Ok(())
}

/// The fields of a choice that chunks do not name, `,"name":value` each.
pub(super) fn extras(choice: &Object<'_>, content: &str) -> String {
    let mut extras = String::new();
    for field in &choice.0 {
        if !["index", "logprobs", "finish_reason", content].contains(&&*field.name) {
            for part in [",", field.key, ":", field.value] {
                extras.push_str(part);
            }
        }
    }
    extras
}

/// The choices by their index, which is their place where they name none.
pub(super) fn sorted_choices<'a>(
    answer: &Object<'a>,
) -> Result<Vec<(u64, Object<'a>)>, NotReplayable> {
    if answer.get("choices").is_none() {
        return Err(NotReplayable::Unexpected("choices"));
    }
    let mut choices = Vec::new();
    for (place, choice) in answer.list("choices")?.into_iter().enumerate() {
        let choice = Object::read(choice, "choices")?;
        let index = choice.get("index").and_then(|index| index.parse().ok());
        choices.push((index.unwrap_or(place as u64), choice));
    }
    choices.sort_by_key(|(index, _)| *index);
    Ok(choices)
}

/// Writes chunks: of this form also the legacy completions.
pub(super) struct Chunks {
    events: sse::Writer,
    /// Raw fields before `choices`; those that only the first chunk has.
    common: String,
    first: String,
    include_usage: bool,
    /// The choice that chunks are of.
    pub index: u64,
}

impl Chunks {
    pub fn new(answer: &Object<'_>, kind: &str, include_usage: bool) -> Self {
        let mut common = format!("{{\"object\":\"{kind}\"");
        let mut first = String::new();
        for field in &answer.0 {
            let to = match &*field.name {
                "object" | "choices" | "usage" => continue,
                name if COMMON.contains(&name) => &mut common,
                _ => &mut first,
            };
            for part in [",", field.key, ":", field.value] {
                to.push_str(part);
            }
        }
        Chunks {
            events: sse::Writer::default(),
            common,
            first,
            include_usage,
            index: 0,
        }
    }

    fn tool_call(&mut self, call: &str) {
        self.delta(&format!("{{\"tool_calls\":[{call}]}}"), None, "");
    }

    fn delta(&mut self, delta: &str, logprobs: Option<&str>, extras: &str) {
        self.choice(delta, logprobs, None, extras);
    }

    fn choice(&mut self, delta: &str, logprobs: Option<&str>, finish: Option<&str>, extras: &str) {
        self.chunk(&format!(
            "{{\"index\":{},\"delta\":{delta},\"logprobs\":{},\"finish_reason\":{}{extras}}}",
            self.index,
            logprobs.unwrap_or("null"),
            finish.unwrap_or("null"),
        ));
    }

    pub fn chunk(&mut self, choice: &str) {
        let usage = if self.include_usage {
            ",\"usage\":null"
        } else {
            ""
        };
        let first = std::mem::take(&mut self.first);
        self.events.data(&format!(
            "{}{first},\"choices\":[{choice}]{usage}}}",
            self.common
        ));
    }

    pub fn finish(mut self, answer: &Object<'_>) -> Vec<u8> {
        if self.include_usage {
            let usage = answer.get("usage").unwrap_or("null");
            self.events.data(&format!(
                "{}{},\"choices\":[],\"usage\":{usage}}}",
                self.common, self.first
            ));
        }
        self.events.data("[DONE]");
        self.events.finish()
    }
}
