//! The shape of JSON: which keys there are, and what kinds of values they have.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde_json::Value;

/// What stands at each path, over all samples. A path is `choices[].message`; the root is
/// empty.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shape(BTreeMap<String, BTreeSet<Kind>>);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Null,
    Bool,
    Number,
    /// Text that is anything.
    Text,
    Empty,
    /// How the id begins: `chatcmpl-`.
    Id(String),
    /// A word that clients decide by.
    Word(String),
    Array,
    Object,
}

/// Keys whose text clients decide by.
const WORDS: [&str; 8] = [
    "object",
    "type",
    "role",
    "code",
    "param",
    "endpoint",
    "completion_window",
    "purpose",
];

impl Shape {
    /// One more sample.
    pub fn add(&mut self, value: &Value) {
        self.walk(String::new(), "", value);
    }

    fn walk(&mut self, path: String, key: &str, value: &Value) {
        let kinds = self.0.entry(path.clone()).or_default();
        kinds.insert(Kind::of(key, value));
        match value {
            Value::Array(items) => {
                for item in items {
                    self.walk(format!("{path}[]"), key, item);
                }
            }
            Value::Object(fields) => {
                for (name, value) in fields {
                    let path = match path.as_str() {
                        "" => name.clone(),
                        above => format!("{above}.{name}"),
                    };
                    self.walk(path, name, value);
                }
            }
            _ => {}
        }
    }

    /// Where the two differ. What is below a difference is not told again.
    pub fn differences(&self, other: &Shape) -> Vec<(String, Differs)> {
        let paths: BTreeSet<&String> = self.0.keys().chain(other.0.keys()).collect();
        let mut found = Vec::new();
        for path in paths {
            let differs = match (self.0.get(path), other.0.get(path)) {
                (Some(mine), Some(theirs)) if mine != theirs => {
                    Differs::Kinds(mine.clone(), theirs.clone())
                }
                (Some(mine), None) if other.could_hold(path) => Differs::OnlyFirst(mine.clone()),
                (None, Some(theirs)) if self.could_hold(path) => {
                    Differs::OnlySecond(theirs.clone())
                }
                _ => continue,
            };
            found.push((path.clone(), differs));
        }
        found
    }

    /// Whether it has an object around `path`. That a list is empty says nothing.
    fn could_hold(&self, path: &str) -> bool {
        if path.ends_with("[]") {
            return false;
        }
        let above = path.rsplit_once('.').map_or("", |(above, _)| above);
        let kinds = self.0.get(above);
        kinds.is_some_and(|kinds| kinds.contains(&Kind::Object))
    }
}

/// How two shapes differ at a path.
#[derive(Clone, Debug, PartialEq)]
pub enum Differs {
    OnlyFirst(BTreeSet<Kind>),
    OnlySecond(BTreeSet<Kind>),
    Kinds(BTreeSet<Kind>, BTreeSet<Kind>),
}

impl Kind {
    fn of(key: &str, value: &Value) -> Kind {
        match value {
            Value::Null => Kind::Null,
            Value::Bool(_) => Kind::Bool,
            Value::Number(_) => Kind::Number,
            Value::Array(_) => Kind::Array,
            Value::Object(_) => Kind::Object,
            Value::String(text) if text.is_empty() => Kind::Empty,
            Value::String(text) if WORDS.contains(&key) => Kind::Word(text.clone()),
            Value::String(text) if key == "id" || key.ends_with("_id") => {
                let end = text.find(['-', '_']).map_or(0, |at| at + 1);
                Kind::Id(text[..end].to_owned())
            }
            Value::String(_) => Kind::Text,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Null => f.write_str("null"),
            Kind::Bool => f.write_str("true or false"),
            Kind::Number => f.write_str("a number"),
            Kind::Text => f.write_str("text"),
            Kind::Empty => f.write_str("empty text"),
            Kind::Id(start) => write!(f, "an id `{start}…`"),
            Kind::Word(word) => write!(f, "\"{word}\""),
            Kind::Array => f.write_str("a list"),
            Kind::Object => f.write_str("an object"),
        }
    }
}

/// `null or text`.
pub fn told(kinds: &BTreeSet<Kind>) -> String {
    let kinds: Vec<String> = kinds.iter().map(Kind::to_string).collect();
    kinds.join(" or ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(value: &Value) -> Shape {
        let mut shape = Shape::default();
        shape.add(value);
        shape
    }

    /// `path: what the first has / what the second has`.
    fn differences(first: Value, second: Value) -> Vec<String> {
        let found = of(&first).differences(&of(&second));
        let told = found.iter().map(|(path, differs)| match differs {
            Differs::OnlyFirst(kinds) => format!("{path}: {} / -", told(kinds)),
            Differs::OnlySecond(kinds) => format!("{path}: - / {}", told(kinds)),
            Differs::Kinds(first, second) => format!("{path}: {} / {}", told(first), told(second)),
        });
        told.collect()
    }

    #[test]
    fn values_do_not_matter_and_kinds_do() {
        for (first, second, expected) in [
            (
                json!({"a": 1, "b": "x"}),
                json!({"b": "y", "a": 2.5}),
                &[][..],
            ),
            (
                json!({"id": "chatcmpl-1"}),
                json!({"id": "chatcmpl-2"}),
                &[],
            ),
            (
                json!({"id": "chatcmpl-1"}),
                json!({"id": "resp_2"}),
                &["id: an id `chatcmpl-…` / an id `resp_…`"],
            ),
            (
                json!({"object": "list"}),
                json!({"object": "page"}),
                &["object: \"list\" / \"page\""],
            ),
            (json!({"a": 1}), json!({"a": "1"}), &["a: a number / text"]),
            (json!({"a": null}), json!({}), &["a: null / -"]),
            (json!({}), json!({"a": {"b": 1}}), &["a: - / an object"]),
            (
                json!({"a": {"b": 1}}),
                json!({"a": null}),
                &["a: an object / null"],
            ),
            (
                json!({"a": [{"b": 1}]}),
                json!({"a": [{"b": 1}, {"c": 1}]}),
                &["a[].c: - / a number"],
            ),
            // That a list is empty is no difference, and nothing is known below it.
            (json!({"a": []}), json!({"a": [{"b": 1}]}), &[]),
            (json!([1]), json!({"a": 1}), &[": a list / an object"]),
            (
                json!({"error_file_id": ""}),
                json!({"error_file_id": null}),
                &["error_file_id: empty text / null"],
            ),
        ] {
            assert_eq!(differences(first.clone(), second.clone()), expected);
            let back = differences(second, first);
            assert_eq!(back.len(), expected.len(), "{back:?}");
        }
    }

    #[test]
    fn samples_add_up() {
        let mut shape = of(&json!({"a": null}));
        shape.add(&json!({"a": 1}));
        let other = of(&json!({"a": 1}));
        let kinds = |kinds: &[Kind]| kinds.iter().cloned().collect();
        let expected = Differs::Kinds(kinds(&[Kind::Null, Kind::Number]), kinds(&[Kind::Number]));
        assert_eq!(shape.differences(&other), [("a".to_owned(), expected)]);
    }
}
