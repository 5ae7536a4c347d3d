//! Raw JSON in, raw JSON out: the few shapes that the replays need.

use super::NotReplayable;
use crate::model::body::walk::{Field, elements, fields};

/// The fields of one raw object.
pub(super) struct Object<'a>(pub Vec<Field<'a>>);

impl<'a> Object<'a> {
    /// `name` is what the object is, for the error.
    pub fn read(raw: &'a str, name: &'static str) -> Result<Self, NotReplayable> {
        match fields(raw) {
            Ok(fields) => Ok(Object(fields)),
            Err(_) => Err(NotReplayable::Unexpected(name)),
        }
    }

    /// The raw value of a field that is there and not null. Of two, the last,
    /// as parsers read it.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        let value = self.0.iter().rev().find(|field| field.name == name)?.value;
        (value != "null").then_some(value)
    }

    /// The elements of an array; none where it is absent or null.
    pub fn list(&self, name: &'static str) -> Result<Vec<&'a str>, NotReplayable> {
        match self.get(name) {
            None => Ok(Vec::new()),
            Some(raw) => elements(raw).map_err(|_| NotReplayable::Unexpected(name)),
        }
    }

    /// This object with other values for some of the fields that it has.
    pub fn with(&self, changes: &[(&str, &str)]) -> String {
        let mut changed = Writer::new();
        for field in &self.0 {
            let change = changes.iter().find(|(name, _)| *name == field.name);
            changed.raw(field.key, change.map_or(field.value, |(_, value)| value));
        }
        changed.finish()
    }
}

/// Builds a raw object.
pub(super) struct Writer(String);

impl Writer {
    pub fn new() -> Self {
        Writer("{".to_owned())
    }

    /// `key` with its quotes, `value` raw.
    pub fn raw(&mut self, key: &str, value: &str) {
        self.comma();
        self.0.push_str(key);
        self.0.push(':');
        self.0.push_str(value);
    }

    /// `name` needs no escapes.
    pub fn field(&mut self, name: &str, value: &str) {
        self.comma();
        for part in ["\"", name, "\":", value] {
            self.0.push_str(part);
        }
    }

    /// A string of raw JSON characters.
    pub fn text(&mut self, name: &str, inner: &str) {
        self.comma();
        for part in ["\"", name, "\":\"", inner, "\""] {
            self.0.push_str(part);
        }
    }

    pub fn number(&mut self, name: &str, value: u64) {
        self.field(name, &value.to_string());
    }

    pub fn finish(mut self) -> String {
        self.0.push('}');
        self.0
    }

    fn comma(&mut self) {
        if self.0.len() > 1 {
            self.0.push(',');
        }
    }
}

/// An object of these fields.
pub(super) fn object(fields: &[(&str, &str)]) -> String {
    let mut object = Writer::new();
    for (name, value) in fields {
        object.field(name, value);
    }
    object.finish()
}

/// What stands between the quotes of a raw string.
pub(super) fn inner(raw: &str) -> Option<&str> {
    raw.strip_prefix('"')?.strip_suffix('"')
}

/// Cuts a raw string's inside into a few parts, never inside a character, an
/// escape or a surrogate pair. Nothing for an empty string.
pub(super) fn pieces(inner: &str) -> Vec<&str> {
    const MOST: usize = 8;
    const SHORTEST: usize = 32;
    let target = inner.len().div_ceil(MOST).max(SHORTEST);
    let mut pieces = Vec::new();
    let (mut start, mut at) = (0, 0);
    while at < inner.len() {
        at += character(&inner[at..]);
        if at - start >= target {
            pieces.push(&inner[start..at]);
            start = at;
        }
    }
    if start < at {
        pieces.push(&inner[start..]);
    }
    pieces
}

/// The length of the first character of a raw string's inside.
fn character(rest: &str) -> usize {
    let bytes = rest.as_bytes();
    let length = match bytes {
        [b'\\', b'u', ..] if is_surrogate(bytes, b"89abAB") => {
            match bytes
                .get(6..)
                .is_some_and(|low| is_surrogate(low, b"cdefCDEF"))
            {
                true => 12,
                false => 6,
            }
        }
        [b'\\', b'u', ..] => 6,
        [b'\\', ..] => 2,
        _ => rest.chars().next().map_or(1, char::len_utf8),
    };
    length.min(rest.len())
}

/// `\uD` and then one of `thirds`.
fn is_surrogate(bytes: &[u8], thirds: &[u8]) -> bool {
    matches!(bytes, [b'\\', b'u', b'd' | b'D', third, ..] if thirds.contains(third))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn short_text_stays_whole() {
        assert_eq!(pieces(""), [""; 0]);
        assert_eq!(pieces("hello"), ["hello"]);
    }

    proptest! {
        #[test]
        fn pieces_are_strings_of_their_own(text in proptest::collection::vec(
            prop::sample::select(&["a", "é", "😀", r"\n", r"\\", r#"\""#, r"\ud83d\ude00", r"\uD83D\uDE00", r"\u0041"][..]),
            0..200,
        )) {
            let text = text.concat();
            let pieces = pieces(&text);
            prop_assert_eq!(pieces.concat(), &text[..]);
            prop_assert!(pieces.len() <= 8);
            // A pair cut in two would leave halves that the whole text has not.
            let decode = |inner: &str| serde_json::from_str::<String>(&format!("\"{inner}\"")).ok();
            if let Some(whole) = decode(&text) {
                let decoded: Option<String> = pieces.into_iter().map(decode).collect();
                prop_assert_eq!(decoded, Some(whole));
            }
        }
    }
}
