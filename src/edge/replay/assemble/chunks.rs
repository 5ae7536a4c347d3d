//! Chunks of chat and completions, choice by choice.

use std::collections::BTreeMap;

use super::{
    Broken,
    parts::{Parts, index_of},
    read,
};
use crate::{
    edge::replay::json::{Object, Writer},
    model::{body::walk::elements, endpoint::Endpoint},
};

/// The chunks of chat and completions, folded into their answer.
pub struct Chunks {
    chat: bool,
    /// Raw keys and values of the answer, but for choices and usage.
    top: Vec<(String, String)>,
    usage: Option<String>,
    choices: BTreeMap<u64, Choice>,
    /// `[DONE]` was seen.
    pub done: bool,
}

impl Chunks {
    pub fn new(endpoint: Endpoint) -> Self {
        let kind = format!("\"{}\"", endpoint.object());
        Chunks {
            chat: endpoint == Endpoint::ChatCompletions,
            top: vec![("\"object\"".to_owned(), kind)],
            usage: None,
            choices: BTreeMap::new(),
            done: false,
        }
    }

    /// Takes one chunk in.
    pub fn chunk(&mut self, chunk: &Object<'_>) -> Result<(), Broken> {
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
            let merged = self.choices.entry(index_of(&choice, place)).or_default();
            merged.merge(&choice, self.chat)?;
        }
        Ok(())
    }

    /// The answer, where the stream came to its end.
    pub fn finish(self) -> Result<Vec<u8>, Broken> {
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

#[derive(Default)]
struct Choice {
    /// Of chat the message, of completions the text.
    content: Parts,
    logprobs: Option<Parts>,
    /// What stands in their place where that is no object, as some servers have it.
    other_logprobs: Option<String>,
    finish_reason: Option<String>,
    rest: Vec<(String, String)>,
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
                "logprobs" if !field.value.starts_with('{') => {
                    self.other_logprobs = Some(field.value.to_owned());
                }
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
            self.content.write(&mut choice);
        }
        let logprobs = self.logprobs.map(Parts::finish).or(self.other_logprobs);
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
