//! What the provider said beside what the simulator says to the same calls.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

use super::{
    calls::Ending,
    shape::{Differs, Shape, told},
    transcript::{Body, Event, Exchange},
};

/// One way in which the simulator is not like the provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The call, or the state of a batch.
    pub of: String,
    pub kind: &'static str,
    /// A path in the body, or a header; empty for the whole.
    pub at: String,
    /// A sentence.
    pub says: String,
}

/// A batch whose line was not answered: in the simulator it was.
pub fn unanswered(ending: &Ending) -> Option<Difference> {
    let Ending::Ended(Some(wrong)) = ending else {
        return None;
    };
    Some(Difference {
        of: "batch".into(),
        kind: "unanswered",
        at: String::new(),
        says: format!("batch: {wrong}"),
    })
}

/// What both said to is compared; a call that one of them was not asked is not.
pub fn compare(provider: &[Exchange], simulator: &[Exchange]) -> Vec<Difference> {
    let (theirs, ours) = (subjects(provider), subjects(simulator));
    let both = theirs
        .iter()
        .filter_map(|(of, there)| Some((of, there, ours.get(of)?)));
    both.flat_map(|(of, there, here)| there.differences(of, here))
        .collect()
}

/// All answers to one kind of call, or all that was told of batches in one state.
#[derive(Default)]
struct Subject {
    statuses: BTreeSet<u16>,
    /// Without `; charset=…`.
    content_types: BTreeSet<String>,
    headers: BTreeSet<String>,
    events: Option<Vec<String>>,
    shape: Shape,
}

fn subjects(exchanges: &[Exchange]) -> BTreeMap<String, Subject> {
    let mut subjects: BTreeMap<String, Subject> = BTreeMap::new();
    for exchange in exchanges {
        let response = &exchange.response;
        let subject = subjects.entry(exchange.name.to_owned()).or_default();
        subject.statuses.insert(response.status);
        for (name, value) in &response.headers {
            subject.headers.insert(name.clone());
            if name == "content-type" {
                let essence = value.split(';').next().unwrap_or_default().trim();
                subject.content_types.insert(essence.to_owned());
            }
        }
        match &response.body {
            Body::Json(value) => {
                let (rest, batches) = apart(value);
                subject.shape.add(&rest);
                for batch in batches {
                    let status = batch["status"].as_str().unwrap_or("without a status");
                    let of = format!("a batch that is {status}");
                    subjects.entry(of).or_default().shape.add(batch);
                }
            }
            Body::Lines(lines) => lines.iter().for_each(|line| subject.shape.add(line)),
            Body::Events(events) => {
                let data = events.iter().map(|event| &event.data);
                data.filter(|data| data.is_object())
                    .for_each(|data| subject.shape.add(data));
                subject.events = Some(sequence(events));
            }
            Body::Text(_) => {}
        }
    }
    subjects
}

/// Batches, each by itself, because what they hold depends on how far they are; and what
/// is around them.
fn apart(value: &Value) -> (Value, Vec<&Value>) {
    let is_batch = |value: &Value| value["object"] == "batch";
    if is_batch(value) {
        return (Value::Object(serde_json::Map::new()), vec![value]);
    }
    let items = value["data"].as_array();
    match items.filter(|items| !items.is_empty() && items.iter().all(is_batch)) {
        Some(items) => {
            let mut rest = value.clone();
            rest["data"] = Value::Array(Vec::new());
            (rest, items.iter().collect())
        }
        None => (value.clone(), Vec::new()),
    }
}

/// The kinds of a stream's events in their order, repetitions as one.
fn sequence(events: &[Event]) -> Vec<String> {
    let mut kinds: Vec<String> = events.iter().map(kind).collect();
    kinds.dedup();
    kinds
}

fn kind(event: &Event) -> String {
    let data = &event.data;
    if let Some(text) = data.as_str() {
        return text.to_owned();
    }
    if let Some(kind) = data["type"].as_str() {
        return kind.to_owned();
    }
    match data["choices"].as_array().map(Vec::as_slice) {
        Some([choice, ..]) => {
            let delta = choice["delta"].as_object();
            let keys: BTreeSet<&str> = delta.into_iter().flatten().map(|(k, _)| &**k).collect();
            let keys: Vec<&str> = keys.into_iter().collect();
            let end = match choice["finish_reason"].is_null() {
                true => "",
                false => " and the end",
            };
            format!("delta({}){end}", keys.join(", "))
        }
        Some([]) if data["usage"].is_object() => "usage".into(),
        _ => event
            .event
            .clone()
            .unwrap_or_else(|| "something else".into()),
    }
}

impl Subject {
    /// `self` is the provider's.
    fn differences(&self, of: &str, here: &Subject) -> Vec<Difference> {
        let mut found = Vec::new();
        let mut differ = |kind, at: &str, says: String| {
            found.push(Difference {
                of: of.to_owned(),
                kind,
                at: at.to_owned(),
                says: format!("{of}: {says}"),
            });
        };
        let listed = |numbers: &BTreeSet<u16>| {
            let numbers: Vec<String> = numbers.iter().map(u16::to_string).collect();
            numbers.join(", ")
        };
        if self.statuses != here.statuses {
            let (there, here) = (listed(&self.statuses), listed(&here.statuses));
            let says = format!("the provider answers {there}, the simulator {here}");
            // Of an error and an answer nothing else is comparable.
            differ("status", "", says);
            return found;
        }
        if self.content_types != here.content_types {
            let listed = |types: &BTreeSet<String>| Vec::from_iter(types.clone()).join(", ");
            let (there, here) = (listed(&self.content_types), listed(&here.content_types));
            let says = format!("the provider sends {there}, the simulator {here}");
            differ("content_type", "content-type", says);
        }
        for name in self.headers.difference(&here.headers) {
            let says = format!("the provider sends the header {name}, the simulator does not");
            differ("missing_here", name, says);
        }
        for name in here.headers.difference(&self.headers) {
            let says = format!("the simulator sends the header {name}, the provider does not");
            differ("missing_there", name, says);
        }
        if self.events != here.events {
            let shown = |events: &Option<Vec<String>>| match events {
                Some(events) => events.join(" → "),
                None => "no stream".into(),
            };
            let (there, here) = (shown(&self.events), shown(&here.events));
            let says = format!("the provider's stream is {there}; the simulator's is {here}");
            differ("events", "", says);
        }
        for (path, differs) in self.shape.differences(&here.shape) {
            let at = match path.as_str() {
                "" => "the whole".to_owned(),
                path => format!("`{path}`"),
            };
            match differs {
                Differs::OnlyFirst(kinds) => {
                    let kinds = told(&kinds);
                    let says = format!("the provider has {at} ({kinds}), the simulator does not");
                    differ("missing_here", &path, says);
                }
                Differs::OnlySecond(kinds) => {
                    let kinds = told(&kinds);
                    let says = format!("the simulator has {at} ({kinds}), the provider does not");
                    differ("missing_there", &path, says);
                }
                Differs::Kinds(there, here) => {
                    let (there, here) = (told(&there), told(&here));
                    let says = format!("{at} is {there} at the provider, {here} in the simulator");
                    differ("other_type", &path, says);
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::doctor::canary::transcript::{Request, Response};

    fn exchange(name: &'static str, status: u16, headers: &[&str], body: Body) -> Exchange {
        let pair = |header: &&str| {
            let (name, value) = header.split_once(": ").unwrap();
            (name.to_owned(), value.to_owned())
        };
        Exchange {
            name,
            request: Request {
                method: "GET".into(),
                path: "/".into(),
                body: Value::Null,
            },
            response: Response {
                status,
                headers: headers.iter().map(pair).collect(),
                other_headers: Vec::new(),
                took_ms: 1,
                body,
            },
        }
    }

    fn says(provider: &[Exchange], simulator: &[Exchange]) -> Vec<String> {
        let found = compare(provider, simulator);
        found.into_iter().map(|it| it.says).collect()
    }

    #[test]
    fn statuses_and_headers() {
        let json = || Body::Json(json!({"a": 1}));
        let there = [
            exchange(
                "chat",
                200,
                &["x-request-id: 1", "content-type: a/b; c=d"],
                json(),
            ),
            exchange("refused", 404, &[], Body::Json(json!({"error": {}}))),
        ];
        assert_eq!(says(&there, &there), [""; 0]);
        let here = [
            exchange(
                "chat",
                200,
                &["retry-after: 1", "content-type: a/x"],
                json(),
            ),
            exchange("refused", 400, &[], json()),
        ];
        let expected = [
            "chat: the provider sends a/b, the simulator a/x",
            "chat: the provider sends the header x-request-id, the simulator does not",
            "chat: the simulator sends the header retry-after, the provider does not",
            "refused: the provider answers 404, the simulator 400",
        ];
        assert_eq!(says(&there, &here), expected);
        // What only one of them was asked is not compared.
        assert_eq!(says(&there, &here[..0]), [""; 0]);
    }

    #[test]
    fn bodies_are_told_in_words() {
        let one = |body| [exchange("chat", 200, &[], Body::Json(body))];
        let found = says(
            &one(json!({"a": {"b": []}, "c": null, "e": 1})),
            &one(json!({"a": {}, "c": "x", "d": 1, "e": 2})),
        );
        let expected = [
            "chat: the provider has `a.b` (a list), the simulator does not",
            "chat: `c` is null at the provider, text in the simulator",
            "chat: the simulator has `d` (a number), the provider does not",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn batches_are_compared_in_the_same_state() {
        let batch = |status: &str, ended: Value| json!({"object": "batch", "status": status, "completed_at": ended});
        let body = |value| exchange("batch", 200, &[], Body::Json(value));
        let there = [
            body(batch("validating", Value::Null)),
            body(batch("completed", json!(1))),
        ];
        let list = json!({"object": "list", "data": [batch("completed", json!(2))]});
        let here = [exchange("batch list", 200, &[], Body::Json(list))];
        assert_eq!(says(&there, &here), [""; 0]);
        let here = [body(batch("completed", Value::Null))];
        let expected = [
            "a batch that is completed: `completed_at` is a number at the provider, null in the simulator",
        ];
        assert_eq!(says(&there, &here), expected);
    }

    #[test]
    fn streams_are_compared_by_the_order_of_their_events() {
        let chunk =
            |delta: Value, end: Value| json!({"choices": [{"delta": delta, "finish_reason": end}]});
        let stream = |data: &[Value]| {
            let events = data.iter().map(|data| Event {
                event: None,
                data: data.clone(),
            });
            [exchange(
                "chat stream",
                200,
                &[],
                Body::Events(events.collect()),
            )]
        };
        let (role, text) = (json!({"role": "assistant"}), json!({"content": "a"}));
        let (null, stop) = (Value::Null, json!("stop"));
        let usage = json!({"choices": [], "usage": {}});
        let usual = [
            chunk(role.clone(), null.clone()),
            chunk(text.clone(), null.clone()),
            chunk(text.clone(), null.clone()),
            chunk(json!({}), stop.clone()),
            usage,
            json!("[DONE]"),
        ];
        let mut shorter = usual.to_vec();
        shorter.remove(1);
        assert_eq!(says(&stream(&usual), &stream(&shorter)), [""; 0]);
        let odd = [chunk(role, null), chunk(text, stop), json!("[DONE]")];
        let found = compare(&stream(&odd), &stream(&usual));
        assert_eq!(found[0].kind, "events");
        let expected = "chat stream: the provider's stream is delta(role) → delta(content) and the \
                        end → [DONE]; the simulator's is delta(role) → delta(content) → delta() \
                        and the end → usage → [DONE]";
        assert_eq!(found[0].says, expected);
    }
}
