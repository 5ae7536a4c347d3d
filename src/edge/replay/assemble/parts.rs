//! Objects that come in deltas.

use std::collections::BTreeMap;

use super::{Broken, read};
use crate::{
    edge::replay::json::{Object, Writer, inner},
    model::body::walk::elements,
};

/// An object that grows by deltas, keys raw.
#[derive(Default)]
pub struct Parts(Vec<(String, Part)>);

impl Parts {
    /// Takes in every field of `delta`, an object.
    pub fn merge(&mut self, delta: &str) -> Result<(), Broken> {
        for field in read(delta, "a delta that is not an object")?.0 {
            self.add(field.key, &field.name, field.value)?;
        }
        Ok(())
    }

    /// Strings and arrays grow, objects merge, everything else is replaced.
    pub fn add(&mut self, key: &str, name: &str, delta: &str) -> Result<(), Broken> {
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

    /// Sets what no delta has set.
    pub fn or_set(&mut self, key: &str, value: &str) {
        if !self.0.iter().any(|(known, _)| known == key) {
            self.0.push((key.to_owned(), Part::Raw(value.to_owned())));
        }
    }

    pub fn finish(self) -> String {
        let mut object = Writer::new();
        self.write(&mut object);
        object.finish()
    }

    /// Adds its fields to `object`.
    pub fn write(self, object: &mut Writer) {
        for (key, part) in self.0 {
            object.raw(&key, &part.finish());
        }
    }
}

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

/// The `index` of an entry; its place, where it names none.
pub fn index_of(entry: &Object<'_>, place: usize) -> u64 {
    let index = entry.get("index").and_then(|index| index.parse().ok());
    index.unwrap_or(place as u64)
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
        let call = calls.entry(index_of(&entry, place)).or_default();
        for field in &entry.0 {
            if field.name != "index" {
                call.add(field.key, &field.name, field.value)?;
            }
        }
    }
    Ok(())
}
