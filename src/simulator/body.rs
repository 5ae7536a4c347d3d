//! Reading a request body without changing it: top-level fields as raw JSON, so
//! that `1e400`, lone surrogates and odd spacing are taken as they come.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Visitor},
};
use serde_json::value::RawValue;

/// Fields that say how to run a call, not what it asks. They are no part of its
/// fingerprint, so one question has one fingerprint in every lane.
const LANE_FIELDS: [&str; 5] = [
    "stream",
    "stream_options",
    "background",
    "background_options",
    "service_tier",
];

#[derive(Clone)]
pub(super) struct Body<'a> {
    fields: BTreeMap<String, &'a RawValue>,
}

impl<'a> Body<'a> {
    pub fn parse(text: &'a str) -> Result<Self, serde_json::Error> {
        Ok(Body {
            fields: serde_json::from_str(text)?,
        })
    }

    /// A field that is there and not null.
    pub fn raw(&self, name: &str) -> Option<&'a RawValue> {
        let raw = self.fields.get(name).copied();
        raw.filter(|raw| raw.get() != "null")
    }

    pub fn get<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        serde_json::from_str(self.raw(name)?.get()).ok()
    }

    pub fn text(&self, name: &str) -> Option<String> {
        text_of(self.raw(name)?)
    }

    pub fn is_true(&self, name: &str) -> bool {
        self.get(name) == Some(true)
    }

    /// Identifies what is asked: every field but the lane's, number for number,
    /// whatever the white space and the order of the top-level fields.
    pub fn fingerprint(&self) -> u128 {
        let mut hasher = blake3::Hasher::new();
        for (name, raw) in &self.fields {
            if LANE_FIELDS.contains(&name.as_str()) {
                continue;
            }
            hasher.update(name.as_bytes());
            hasher.update(&[0]);
            without_white_space(raw.get(), |piece| {
                hasher.update(piece);
            });
            hasher.update(&[0]);
        }
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        u128::from_be_bytes(bytes)
    }

    /// How the request steers the simulator, from `metadata.sim`, or from `user`
    /// when it starts with `sim:` (embeddings and moderations have no metadata).
    pub fn directive(&self) -> Directive {
        #[derive(Deserialize)]
        struct Metadata {
            sim: String,
        }
        if let Some(Metadata { sim }) = self.get("metadata") {
            return Directive::parse(&sim);
        }
        match self.text("user") {
            Some(user) => user.strip_prefix("sim:").map(Directive::parse),
            None => None,
        }
        .unwrap_or_default()
    }

    /// The texts that the request puts in, in order: the last user message of a
    /// conversation, each input of an embedding, each prompt of a completion.
    pub fn questions(&self) -> Vec<String> {
        if let Some(messages) = self.raw("messages") {
            return vec![last_user_text(messages)];
        }
        let Some(raw) = self.raw("input").or_else(|| self.raw("prompt")) else {
            return Vec::new();
        };
        let Ok(items) = serde_json::from_str::<Vec<&RawValue>>(raw.get()) else {
            return vec![text_of(raw).unwrap_or_default()];
        };
        match items.first().map(|item| item.get().as_bytes()[0]) {
            Some(b'{') => vec![last_user_text(raw)],
            // One input given as token ids.
            Some(b'0'..=b'9') => vec![raw.get().to_owned()],
            _ => items
                .iter()
                .map(|item| text_of(item).unwrap_or_else(|| item.get().to_owned()))
                .collect(),
        }
    }

    /// A quarter of the prompt's bytes, at least one.
    pub fn prompt_tokens(&self) -> u64 {
        let fields = ["messages", "input", "prompt", "instructions", "tools"];
        let bytes: usize = fields
            .iter()
            .filter_map(|name| self.raw(name))
            .map(|raw| raw.get().len())
            .sum();
        (bytes as u64).div_ceil(4).max(1)
    }

    /// Whether the conversation ends with a tool's answer.
    pub fn ends_with_tool_result(&self) -> bool {
        let raw = self.raw("messages").or_else(|| self.raw("input"));
        raw.and_then(|raw| serde_json::from_str::<Vec<Message>>(raw.get()).ok())
            .and_then(|mut messages| messages.pop())
            .is_some_and(|last| {
                last.role.as_deref() == Some("tool")
                    || last.r#type.as_deref() == Some("function_call_output")
            })
    }
}

#[derive(Deserialize)]
struct Message<'a> {
    role: Option<String>,
    r#type: Option<String>,
    #[serde(borrow)]
    content: Option<&'a RawValue>,
    #[serde(borrow)]
    text: Option<&'a RawValue>,
}

fn last_user_text(raw: &RawValue) -> String {
    let messages: Vec<Message> = serde_json::from_str(raw.get()).unwrap_or_default();
    let of_user = messages
        .iter()
        .rev()
        .find(|message| message.role.as_deref() == Some("user"));
    let Some(content) = of_user
        .or(messages.last())
        .and_then(|message| message.content)
    else {
        return String::new();
    };
    if let Some(text) = text_of(content) {
        return text;
    }
    let parts: Vec<Message> = serde_json::from_str(content.get()).unwrap_or_default();
    let texts = parts.iter().filter_map(|part| text_of(part.text?));
    texts.collect::<Vec<_>>().join(" ")
}

/// A JSON string's text; a lone surrogate becomes U+FFFD. `None` if it is no string.
pub(super) fn text_of(raw: &RawValue) -> Option<String> {
    struct Text;
    impl Visitor<'_> for Text {
        type Value = String;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string")
        }
        fn visit_bytes<E>(self, bytes: &[u8]) -> Result<String, E> {
            Ok(String::from_utf8_lossy(bytes).into_owned())
        }
    }
    if !raw.get().starts_with('"') {
        return None;
    }
    serde_json::Deserializer::from_str(raw.get())
        .deserialize_bytes(Text)
        .ok()
}

fn without_white_space(json: &str, mut piece: impl FnMut(&[u8])) {
    let (mut in_string, mut escaped, mut start) = (false, false, 0);
    let bytes = json.as_bytes();
    for (index, byte) in bytes.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b' ' | b'\t' | b'\r' | b'\n' if !in_string => {
                piece(&bytes[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    piece(&bytes[start..]);
}

/// Instructions to the simulator inside a request: words such as `status=500`,
/// `tokens=1000`, `prompt=300000`, `cached=200`, `written=50`, `slow=3s`, `flaky=2`, `missing`, `never`, `refusal`,
/// `invalid`, separated by spaces or commas. Unknown words are ignored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Directive {
    /// Answer with this HTTP status.
    pub status: Option<u16>,
    /// Completion tokens of the answer.
    pub tokens: Option<u64>,
    /// Tokens of the prompt, however many it has.
    pub prompt: Option<u64>,
    /// Cached tokens among the prompt's.
    pub cached: Option<u64>,
    /// Those among the others that are written to the cache.
    pub written: Option<u64>,
    /// Added to the latency, simulated.
    pub slow: Duration,
    /// Fail with 500 this many times, then work.
    pub flaky: u32,
    /// A batch line that appears in neither file (it never ran).
    pub missing: bool,
    /// A batch line that never finishes.
    pub never: bool,
    /// Answer with a refusal.
    pub refusal: bool,
    /// A batch line that fails its batch's validation; in other lanes, a 400.
    pub invalid: bool,
}

impl Directive {
    fn parse(text: &str) -> Self {
        let mut directive = Directive::default();
        for word in text.split([' ', ',']) {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            match name {
                "status" => directive.status = value.parse().ok(),
                "tokens" => directive.tokens = value.parse().ok(),
                "prompt" => directive.prompt = value.parse().ok(),
                "cached" => directive.cached = value.parse().ok(),
                "written" => directive.written = value.parse().ok(),
                "slow" => directive.slow = humantime::parse_duration(value).unwrap_or_default(),
                "flaky" => directive.flaky = value.parse().unwrap_or(0),
                "missing" => directive.missing = true,
                "never" => directive.never = true,
                "refusal" => directive.refusal = true,
                "invalid" => (directive.invalid, directive.status) = (true, Some(400)),
                _ => {}
            }
        }
        directive
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fingerprint(text: &str) -> u128 {
        Body::parse(text).unwrap().fingerprint()
    }

    #[test]
    fn one_question_has_one_fingerprint_in_every_lane() {
        let plain = fingerprint(r#"{"model":"m","n":0.10,"s":"a \" b"}"#);
        for same in [
            r#"{ "n" : 0.10, "model":"m",  "s":"a \" b", "stream":true }"#,
            "{\"model\":\"m\",\n\"service_tier\":\"flex\",\"n\":0.10,\"s\":\"a \\\" b\"}",
        ] {
            assert_eq!(fingerprint(same), plain, "{same}");
        }
        for other in [
            r#"{"model":"m","n":0.1,"s":"a \" b"}"#,
            r#"{"model":"m","n":0.10,"s":"a \"  b"}"#,
        ] {
            assert_ne!(fingerprint(other), plain, "{other}");
        }
    }

    #[test]
    fn questions_are_found_in_every_endpoint() {
        for (body, questions) in [
            (
                r#"{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}"#,
                &["a"][..],
            ),
            (
                r#"{"messages":[{"role":"user","content":[{"type":"text","text":"a"}]}],"x":1e400}"#,
                &["a"],
            ),
            (
                r#"{"messages":[{"role":"user","content":"\ud800"}]}"#,
                &["\u{fffd}\u{fffd}\u{fffd}"],
            ),
            (r#"{"input":"a"}"#, &["a"]),
            (r#"{"input":["a","b"]}"#, &["a", "b"]),
            (r#"{"input":[1,2]}"#, &["[1,2]"]),
            (r#"{"input":[[1],[2]]}"#, &["[1]", "[2]"]),
            (r#"{"input":[{"role":"user","content":"a"}]}"#, &["a"]),
            (r#"{"prompt":"a"}"#, &["a"]),
            (r#"{"model":"a"}"#, &[]),
        ] {
            assert_eq!(Body::parse(body).unwrap().questions(), questions, "{body}");
        }
    }

    #[test]
    fn directives_come_from_metadata_or_user() {
        let metadata = r#"{"metadata":{"sim":"status=429, slow=3s flaky=2"}}"#;
        let directive = Body::parse(metadata).unwrap().directive();
        assert_eq!(directive.status, Some(429));
        assert_eq!(directive.slow, Duration::from_secs(3));
        assert_eq!(directive.flaky, 2);
        let user = Body::parse(r#"{"user":"sim:missing"}"#).unwrap();
        assert!(user.directive().missing);
    }
}
