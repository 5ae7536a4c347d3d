//! What was said, in a form that can be shown to others.

use std::collections::BTreeMap;

use http::HeaderMap;
use serde::Serialize;
use serde_json::Value;

use super::mask::{MASKED, Mask};

/// One call and its answer, without secrets.
#[derive(Clone, Debug, Serialize)]
pub struct Exchange {
    /// Which of the calls it is.
    pub name: &'static str,
    pub request: Request,
    pub response: Response,
}

#[derive(Clone, Debug, Serialize)]
pub struct Request {
    pub method: String,
    /// Below the base URL.
    pub path: String,
    /// Of a form the fields; null for none.
    pub body: Value,
}

#[derive(Clone, Debug, Serialize)]
pub struct Response {
    pub status: u16,
    /// Those that clients read; who is named in them is masked.
    pub headers: BTreeMap<String, String>,
    /// The names of the others.
    pub other_headers: Vec<String>,
    pub took_ms: u64,
    pub body: Body,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Body {
    Json(Value),
    /// Of a stream.
    Events(Vec<Event>),
    /// Of a file of JSON lines.
    Lines(Vec<Value>),
    Text(String),
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Event {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
    /// Text where it is no JSON.
    pub data: Value,
}

/// What clients read (WIRE.md §3).
const HEADERS: [&str; 8] = [
    "content-type",
    "openai-processing-ms",
    "openai-version",
    "retry-after",
    "retry-after-ms",
    "x-request-id",
    "x-should-retry",
    "cache-control",
];
/// Who called; only that they are there is told.
const IDENTITIES: [&str; 2] = ["openai-organization", "openai-project"];
const RATES: &str = "x-ratelimit-";

/// The headers that are told, and the names of the rest.
pub fn headers(headers: &HeaderMap, mask: &Mask) -> (BTreeMap<String, String>, Vec<String>) {
    let (mut told, mut others) = (BTreeMap::new(), Vec::new());
    for name in headers.keys() {
        let name = name.as_str();
        let value = headers.get(name).and_then(|value| value.to_str().ok());
        if IDENTITIES.contains(&name) {
            told.insert(name.to_owned(), MASKED.to_owned());
        } else if HEADERS.contains(&name) || name.starts_with(RATES) {
            told.insert(name.to_owned(), mask.text(value.unwrap_or_default()));
        } else {
            others.push(name.to_owned());
        }
    }
    others.sort_unstable();
    (told, others)
}

/// Whose names are to be left out from here on.
pub fn identities(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let named = IDENTITIES.iter().filter_map(|name| headers.get(*name));
    named.filter_map(|value| value.to_str().ok())
}

/// A body as what it is: a stream by its type, JSON, lines of JSON, or text.
pub fn body(content_type: &str, text: &str, mask: &Mask) -> Body {
    if content_type.starts_with("text/event-stream") {
        let events = events(text).into_iter().map(|it| Event {
            event: it.event,
            data: mask.json(&it.data),
        });
        return Body::Events(events.collect());
    }
    if let Ok(mut value) = serde_json::from_str::<Value>(text) {
        shorten(&mut value);
        return match content_type.starts_with("application/json") {
            true => Body::Json(mask.json(&value)),
            // A file of one line.
            false => Body::Lines(vec![mask.json(&value)]),
        };
    }
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    let lines: Result<Vec<Value>, _> = lines.map(serde_json::from_str).collect();
    match lines {
        Ok(lines) if !lines.is_empty() => {
            Body::Lines(lines.iter().map(|line| mask.json(line)).collect())
        }
        _ => Body::Text(mask.text(text)),
    }
}

/// Of a vector the first numbers say all there is to say.
fn shorten(value: &mut Value) {
    const ENOUGH: usize = 3;
    match value {
        Value::Array(items) if items.iter().all(Value::is_number) => items.truncate(ENOUGH),
        Value::Array(items) => items.iter_mut().for_each(shorten),
        Value::Object(fields) => fields.values_mut().for_each(shorten),
        _ => {}
    }
}

/// Comments and unknown fields are passed over, as clients do.
fn events(text: &str) -> Vec<Event> {
    let blocks = text.replace("\r\n", "\n");
    let blocks = blocks.split("\n\n");
    let event = |block: &str| {
        let field = |line: &str, name: &str| {
            let value = line.strip_prefix(name)?.strip_prefix(':')?;
            Some(value.strip_prefix(' ').unwrap_or(value).to_owned())
        };
        let event = block.lines().find_map(|line| field(line, "event"));
        let data: Vec<String> = block
            .lines()
            .filter_map(|line| field(line, "data"))
            .collect();
        let data = (!data.is_empty()).then(|| data.join("\n"))?;
        let data = serde_json::from_str(&data).unwrap_or(Value::String(data));
        Some(Event { event, data })
    };
    blocks.filter_map(event).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_stream_is_read_as_clients_read_it() {
        let text = ": hello\n\nevent: a\r\ndata: {\"x\":1}\r\n\r\ndata:[DONE]\n\n";
        let event = |event: Option<&str>, data| Event {
            event: event.map(str::to_owned),
            data,
        };
        let expected = [
            event(Some("a"), json!({"x": 1})),
            event(None, json!("[DONE]")),
        ];
        assert_eq!(events(text), expected);
    }

    #[test]
    fn headers_that_name_somebody_are_there_and_say_nothing() {
        let mut given = HeaderMap::new();
        for (name, value) in [
            ("openai-organization", "acme-corp"),
            ("x-ratelimit-remaining-tokens", "10"),
            ("x-request-id", "req_1"),
            ("set-cookie", "session=secret"),
            ("cf-ray", "8c9-FRA"),
        ] {
            given.insert(name, value.parse().unwrap());
        }
        assert_eq!(identities(&given).collect::<Vec<_>>(), ["acme-corp"]);
        let (told, others) = headers(&given, &Mask::new(&[]));
        let told: Vec<_> = told.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let expected = [
            ("openai-organization", "[masked]"),
            ("x-ratelimit-remaining-tokens", "10"),
            ("x-request-id", "req_1"),
        ];
        assert_eq!(told, expected);
        assert_eq!(others, ["cf-ray", "set-cookie"]);
    }

    #[test]
    fn bodies_are_told_apart() {
        let mask = Mask::new(&[]);
        let body = |kind, text| body(kind, text, &mask);
        assert!(matches!(body("application/json", "{}"), Body::Json(_)));
        let octets = "application/octet-stream";
        assert!(matches!(body(octets, "{}\n"), Body::Lines(lines) if lines.len() == 1));
        assert!(matches!(body(octets, "{}\n{}\n"), Body::Lines(lines) if lines.len() == 2));
        assert!(matches!(body("text/html", "<html>"), Body::Text(_)));
        let vectors = json!({"data": [{"embedding": vec![0.5; 1536]}]}).to_string();
        let short = json!({"data": [{"embedding": [0.5, 0.5, 0.5]}]});
        assert!(matches!(body("application/json", &vectors), Body::Json(body) if body == short));
        assert!(matches!(body("application/json", ""), Body::Text(_)));
    }
}
