//! A response as its typed events. There is no `[DONE]`; the terminal event
//! carries the whole response. Only events that openai-node's accumulator
//! knows are sent: it throws on others.

use super::{
    NotReplayable,
    json::{Object, Writer, inner, pieces},
    sse,
};

const EMPTY: &str = "\"\"";
const IN_PROGRESS: (&str, &str) = ("status", "\"in_progress\"");

pub(super) fn replay(answer: &str) -> Result<Vec<u8>, NotReplayable> {
    let response = Object::read(answer, "body")?;
    let terminal = match response.get("status") {
        Some("\"completed\"") => "response.completed",
        Some("\"incomplete\"") => "response.incomplete",
        // There is no event for a cancelled one.
        Some("\"failed\"" | "\"cancelled\"") => "response.failed",
        _ => return Err(NotReplayable::Unexpected("status")),
    };
    let begun = begun(&response);
    let mut events = Events::default();
    events.emit("response.created", &[("response", &begun)]);
    events.emit("response.in_progress", &[("response", &begun)]);
    for (index, item) in response.list("output")?.into_iter().enumerate() {
        events.output_index = index.to_string();
        item_events(item, &mut events)?;
    }
    events.emit(terminal, &[("response", answer)]);
    Ok(events.out.finish())
}

/// The response as it stood before the first item.
fn begun(response: &Object<'_>) -> String {
    let mut begun = Writer::new();
    begun.field(IN_PROGRESS.0, IN_PROGRESS.1);
    begun.field("output", "[]");
    for field in &response.0 {
        match &*field.name {
            "status" | "output" | "output_text" => {}
            "usage" | "error" | "incomplete_details" | "completed_at" => {
                begun.raw(field.key, "null");
            }
            _ => begun.raw(field.key, field.value),
        }
    }
    begun.finish()
}

fn item_events(raw: &str, events: &mut Events) -> Result<(), NotReplayable> {
    let item = Object::read(raw, "output")?;
    events.item_id = item.get("id").unwrap_or(EMPTY).to_owned();
    match item.get("type") {
        Some("\"message\"") => {
            events.added(&item.with(&[IN_PROGRESS, ("content", "[]")]));
            for (index, part) in item.list("content")?.into_iter().enumerate() {
                events.part_index = ("content_index", index.to_string());
                content_part(part, events)?;
            }
        }
        Some("\"reasoning\"") => reasoning(&item, events)?,
        Some("\"function_call\"") => {
            events.added(&item.with(&[IN_PROGRESS, ("arguments", EMPTY)]));
            events.input("response.function_call_arguments", &item, "arguments");
        }
        Some("\"custom_tool_call\"") => {
            events.added(&item.with(&[("status", IN_PROGRESS.1), ("input", EMPTY)]));
            events.input("response.custom_tool_call_input", &item, "input");
        }
        _ => events.added(raw),
    }
    let index = events.output_index.clone();
    events.emit(
        "response.output_item.done",
        &[("output_index", &index), ("item", raw)],
    );
    Ok(())
}

fn content_part(raw: &str, events: &mut Events) -> Result<(), NotReplayable> {
    let part = Object::read(raw, "content")?;
    let text = |name| part.get(name).and_then(inner);
    match (part.get("type"), text("text"), text("refusal")) {
        (Some("\"output_text\""), Some(text), _) => output_text(&part, text, events)?,
        (Some("\"refusal\""), _, Some(refusal)) => {
            events.part(
                "response.content_part.added",
                &part.with(&[("refusal", EMPTY)]),
            );
            events.text("response.refusal", "refusal", refusal);
        }
        (Some("\"reasoning_text\""), Some(text), _) => {
            events.part(
                "response.content_part.added",
                &part.with(&[("text", EMPTY)]),
            );
            events.text("response.reasoning_text", "text", text);
        }
        _ => events.part("response.content_part.added", raw),
    }
    events.part("response.content_part.done", raw);
    Ok(())
}

fn output_text(part: &Object<'_>, text: &str, events: &mut Events) -> Result<(), NotReplayable> {
    let annotations = part.list("annotations")?;
    let mut changes = vec![("text", EMPTY), ("logprobs", "[]")];
    if !annotations.is_empty() {
        changes.push(("annotations", "[]"));
    }
    events.part("response.content_part.added", &part.with(&changes));
    let logprobs = part.get("logprobs").unwrap_or("[]");
    let mut first = Some(logprobs);
    for piece in pieces(text) {
        let logprobs = first.take().unwrap_or("[]");
        let delta = format!("\"{piece}\"");
        events.of_part(
            "response.output_text.delta",
            &[("delta", &delta), ("logprobs", logprobs)],
        );
    }
    for (index, annotation) in annotations.into_iter().enumerate() {
        events.of_part(
            "response.output_text.annotation.added",
            &[
                ("annotation_index", &index.to_string()),
                ("annotation", annotation),
            ],
        );
    }
    let whole = format!("\"{text}\"");
    events.of_part(
        "response.output_text.done",
        &[("text", &whole), ("logprobs", logprobs)],
    );
    Ok(())
}

fn reasoning(item: &Object<'_>, events: &mut Events) -> Result<(), NotReplayable> {
    let content = item.list("content")?;
    let mut changes = vec![IN_PROGRESS, ("summary", "[]")];
    if !content.is_empty() {
        changes.push(("content", "[]"));
    }
    events.added(&item.with(&changes));
    for (index, raw) in item.list("summary")?.into_iter().enumerate() {
        events.part_index = ("summary_index", index.to_string());
        let part = Object::read(raw, "summary")?;
        let added = part.with(&[("text", EMPTY)]);
        events.part("response.reasoning_summary_part.added", &added);
        let text = part.get("text").and_then(inner).unwrap_or_default();
        events.text("response.reasoning_summary_text", "text", text);
        events.part("response.reasoning_summary_part.done", raw);
    }
    for (index, part) in content.into_iter().enumerate() {
        events.part_index = ("content_index", index.to_string());
        content_part(part, events)?;
    }
    Ok(())
}

/// Numbers events and says which item and part they are of.
struct Events {
    out: sse::Writer,
    sequence: u64,
    output_index: String,
    /// Raw.
    item_id: String,
    part_index: (&'static str, String),
}

impl Default for Events {
    fn default() -> Self {
        Events {
            out: sse::Writer::default(),
            sequence: 0,
            output_index: String::new(),
            item_id: String::new(),
            part_index: ("content_index", String::new()),
        }
    }
}

impl Events {
    fn emit(&mut self, kind: &str, fields: &[(&str, &str)]) {
        let mut event = Writer::new();
        event.text("type", kind);
        event.number("sequence_number", self.sequence);
        for (name, value) in fields {
            event.field(name, value);
        }
        self.out.named(kind, &event.finish());
        self.sequence += 1;
    }

    fn added(&mut self, item: &str) {
        let index = self.output_index.clone();
        self.emit(
            "response.output_item.added",
            &[("output_index", &index), ("item", item)],
        );
    }

    fn of_item(&mut self, kind: &str, fields: &[(&str, &str)]) {
        let (index, id) = (self.output_index.clone(), self.item_id.clone());
        let mut all = vec![("item_id", &*id), ("output_index", &*index)];
        all.extend_from_slice(fields);
        self.emit(kind, &all);
    }

    fn of_part(&mut self, kind: &str, fields: &[(&str, &str)]) {
        let (name, index) = self.part_index.clone();
        let mut all = vec![(name, &*index)];
        all.extend_from_slice(fields);
        self.of_item(kind, &all);
    }

    fn part(&mut self, kind: &str, part: &str) {
        self.of_part(kind, &[("part", part)]);
    }

    /// Deltas of a part's text and its end.
    fn text(&mut self, kind: &str, name: &str, text: &str) {
        for piece in pieces(text) {
            let delta = format!("\"{piece}\"");
            self.of_part(&format!("{kind}.delta"), &[("delta", &delta)]);
        }
        let whole = format!("\"{text}\"");
        self.of_part(&format!("{kind}.done"), &[(name, &whole)]);
    }

    /// Deltas of what a tool is called with, and their end.
    fn input(&mut self, kind: &str, item: &Object<'_>, name: &str) {
        let Some(input) = item.get(name).and_then(inner) else {
            return;
        };
        for piece in pieces(input) {
            let delta = format!("\"{piece}\"");
            self.of_item(&format!("{kind}.delta"), &[("delta", &delta)]);
        }
        let whole = format!("\"{input}\"");
        let called = item.get("name").filter(|_| name == "arguments");
        let mut fields = vec![(name, &*whole)];
        fields.extend(called.map(|called| ("name", called)));
        self.of_item(&format!("{kind}.done"), &fields);
    }
}
