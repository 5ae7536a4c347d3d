//! A live stream folded into the answer that the call would have had without
//! `stream`. Text is joined as raw JSON characters: nothing is decoded.

use std::collections::BTreeMap;

use super::{
    json::{Object, Writer, inner, object},
    one_line,
    sse::Reader,
};
use crate::model::{body::walk::elements, endpoint::Endpoint};

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

struct Chunks {
    chat: bool,
    /// Raw keys and values of the answer, but for choices and usage.
    top: Vec<(String, String)>,
    usage: Option<String>,
    choices: BTreeMap<u64, Choice>,
    done: bool,
}

#[derive(Default)]
struct Choice {
    /// Of chat the message, of completions the text.
    content: Parts,
    logprobs: Option<Parts>,
    finish_reason: Option<String>,
    rest: Vec<(String, String)>,
}

impl Chunks {
    fn new(endpoint: Endpoint) -> Self {
        let kind = format!("\"{}\"", endpoint.object());
        Chunks {
            chat: endpoint == Endpoint::ChatCompletions,
            top: vec![("\"object\"".to_owned(), kind)],
            usage: None,
            choices: BTreeMap::new(),
            done: false,
        }
    }

    fn chunk(&mut self, chunk: &Object<'_>) -> Result<(), Broken> {
        for field in &chunk.0 {
            match &*field.name {
                "object" | "choices" | "obfuscation" => {}
                "usage" if field.value == "null" => {}
                "usage" => self.usage = Some(field.value.to_owned()),
                _ => replace(&mut self.top, field.key, field.value),
            }
        }
        let choices = chunk.get("choices").unwrap_or("[]");
        let choices =
            elements(choices).map_err(|_| Broken::Malformed("choices that are no array"))?;
        for (place, choice) in choices.into_iter().enumerate() {
            let choice = read(choice, "a choice that is not an object")?;
            let index = choice.get("index").and_then(|index| index.parse().ok());
            self.choices
                .entry(index.unwrap_or(place as u64))
                .or_default()
                .merge(&choice, self.chat)?;
        }
        Ok(())
    }

    fn finish(self) -> Result<Vec<u8>, Broken> {
        // Some servers leave `[DONE]` out; their finish reasons say the same.
        let ended = |choice: &Choice| choice.finish_reason.is_some();
        if self.choices.is_empty() || !(self.done || self.choices.values().all(ended)) {
            return Err(Broken::Truncated);
        }
        let mut answer = Writer::new();
        for (key, value) in &self.top {
            answer.raw(key, value);
        }
        let choices: Vec<String> = self
            .choices
            .into_iter()
            .map(|(index, choice)| choice.finish(index, self.chat))
            .collect();
        answer.field("choices", &format!("[{}]", choices.join(",")));
        if let Some(usage) = &self.usage {
            answer.field("usage", usage);
        }
        Ok(answer.finish().into_bytes())
    }
}

impl Choice {
    fn merge(&mut self, choice: &Object<'_>, chat: bool) -> Result<(), Broken> {
        for field in &choice.0 {
            match &*field.name {
                "index" => {}
                "delta" if chat && field.value == "null" => {}
                "delta" if chat => self.content.merge(field.value)?,
                "text" if !chat => self.content.add(field.key, "text", field.value)?,
                "logprobs" if field.value == "null" => {}
                "logprobs" => self.logprobs.get_or_insert_default().merge(field.value)?,
                "finish_reason" if field.value == "null" => {}
                "finish_reason" => self.finish_reason = Some(field.value.to_owned()),
                _ => replace(&mut self.rest, field.key, field.value),
            }
        }
        Ok(())
    }

    fn finish(mut self, index: u64, chat: bool) -> String {
        let mut choice = Writer::new();
        choice.number("index", index);
        if chat {
            self.content.or_set("\"role\"", "\"assistant\"");
            self.content.or_set("\"content\"", "null");
            choice.field("message", &self.content.finish());
        } else {
            self.content.or_set("\"text\"", "\"\"");
            for (key, part) in self.content.0 {
                choice.raw(&key, &part.finish());
            }
        }
        let logprobs = self.logprobs.map(Parts::finish);
        choice.field("logprobs", logprobs.as_deref().unwrap_or("null"));
        choice.field(
            "finish_reason",
            self.finish_reason.as_deref().unwrap_or("null"),
        );
        for (key, value) in &self.rest {
            choice.raw(key, value);
        }
        choice.finish()
    }
}

/// The last value that says something: Azure's filter chunks have an empty
/// id and model.
fn replace(fields: &mut Vec<(String, String)>, key: &str, value: &str) {
    match fields.iter_mut().find(|(known, _)| known == key) {
        Some(_) if matches!(value, "null" | "\"\"" | "0") => {}
        Some((_, known)) => value.clone_into(known),
        None => fields.push((key.to_owned(), value.to_owned())),
    }
}

/// An object that grows by deltas, keys raw.
#[derive(Default)]
struct Parts(Vec<(String, Part)>);

enum Part {
    Raw(String),
    /// A string's inside.
    Text(String),
    /// An array's inside.
    List(String),
    Object(Parts),
    /// Tool calls by their index.
    Calls(BTreeMap<u64, Parts>),
}

impl Parts {
    fn merge(&mut self, delta: &str) -> Result<(), Broken> {
        for field in read(delta, "a delta that is not an object")?.0 {
            self.add(field.key, &field.name, field.value)?;
        }
        Ok(())
    }

    /// Strings and arrays grow, objects merge, everything else is replaced.
    fn add(&mut self, key: &str, name: &str, delta: &str) -> Result<(), Broken> {
        let place = self.0.iter().position(|(known, _)| known == key);
        let old = place.map(|place| &mut self.0[place].1);
        if delta == "null" && old.is_some() {
            return Ok(());
        }
        let new = match (delta.as_bytes().first(), old) {
            (Some(b'"'), Some(Part::Text(text))) => {
                let more = inner(delta).unwrap_or_default();
                if !says_it_whole(name) {
                    text.push_str(more);
                } else if !more.is_empty() {
                    more.clone_into(text);
                }
                return Ok(());
            }
            (Some(b'"'), _) => Part::Text(inner(delta).unwrap_or_default().to_owned()),
            (Some(b'{'), Some(Part::Object(parts))) => return parts.merge(delta),
            (Some(b'{'), _) => {
                let mut parts = Parts::default();
                parts.merge(delta)?;
                Part::Object(parts)
            }
            (Some(b'['), Some(Part::Calls(calls))) => return merge_calls(calls, delta),
            (Some(b'['), _) if name == "tool_calls" => {
                let mut calls = BTreeMap::new();
                merge_calls(&mut calls, delta)?;
                Part::Calls(calls)
            }
            (Some(b'['), Some(Part::List(list))) => {
                let more = &delta[1..delta.len() - 1];
                if !list.is_empty() && !more.is_empty() {
                    list.push(',');
                }
                list.push_str(more);
                return Ok(());
            }
            (Some(b'['), _) => Part::List(delta[1..delta.len() - 1].to_owned()),
            _ => Part::Raw(delta.to_owned()),
        };
        match place {
            Some(place) => self.0[place].1 = new,
            None => self.0.push((key.to_owned(), new)),
        }
        Ok(())
    }

    fn or_set(&mut self, key: &str, value: &str) {
        if !self.0.iter().any(|(known, _)| known == key) {
            self.0.push((key.to_owned(), Part::Raw(value.to_owned())));
        }
    }

    fn finish(self) -> String {
        let mut object = Writer::new();
        for (key, part) in self.0 {
            object.raw(&key, &part.finish());
        }
        object.finish()
    }
}

impl Part {
    fn finish(self) -> String {
        match self {
            Part::Raw(raw) => raw,
            Part::Text(text) => format!("\"{text}\""),
            Part::List(list) => format!("[{list}]"),
            Part::Object(parts) => parts.finish(),
            Part::Calls(calls) => {
                let calls: Vec<String> = calls.into_values().map(Parts::finish).collect();
                format!("[{}]", calls.join(","))
            }
        }
    }
}

/// Strings that come whole, and that some providers repeat in every chunk.
fn says_it_whole(name: &str) -> bool {
    matches!(name, "role" | "id" | "type" | "name")
}

fn merge_calls(calls: &mut BTreeMap<u64, Parts>, delta: &str) -> Result<(), Broken> {
    const NO_CALL: &str = "a tool call that is not an object";
    let entries = elements(delta).map_err(|_| Broken::Malformed(NO_CALL))?;
    for (place, entry) in entries.into_iter().enumerate() {
        let entry = read(entry, NO_CALL)?;
        let index = entry.get("index").and_then(|index| index.parse().ok());
        let call = calls.entry(index.unwrap_or(place as u64)).or_default();
        for field in &entry.0 {
            if field.name != "index" {
                call.add(field.key, &field.name, field.value)?;
            }
        }
    }
    Ok(())
}
