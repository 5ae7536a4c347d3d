//! The names on the way to a setting.

use std::fmt;

use toml::Value;
use url::Url;

use super::PREFIX;

/// Below it names of the operator's own, with URLs that only the receiver should know.
const HOOKS: [&str; 2] = ["webhook", "endpoints"];

/// The names on the way to a value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(pub Vec<String>);

impl Key {
    pub fn dotted(text: &str) -> Self {
        Key(text.split('.').map(str::to_owned).collect())
    }

    pub fn child(&self, name: String) -> Self {
        let mut names = self.0.clone();
        names.push(name);
        Key(names)
    }

    pub fn parent(&self) -> Option<Self> {
        match self.0.as_slice() {
            [] | [_] => None,
            [above @ .., _] => Some(Key(above.to_vec())),
        }
    }

    /// The key of what a settings type refused, as serde names the way to it.
    pub fn join(&self, path: &serde_path_to_error::Path) -> Self {
        use serde_path_to_error::Segment;
        let mut key = self.clone();
        for segment in path {
            match segment {
                Segment::Map { key: name } => key.0.push(name.clone()),
                Segment::Enum { variant } => key.0.push(variant.clone()),
                Segment::Seq { .. } | Segment::Unknown => break,
            }
        }
        key
    }

    /// The names below `above`; `None` when this key is not strictly inside it.
    pub fn within(&self, above: &Key) -> Option<&[String]> {
        let rest = self.0.strip_prefix(above.0.as_slice())?;
        (!rest.is_empty()).then_some(rest)
    }

    pub fn variable(&self) -> String {
        format!("{PREFIX}{}", self.0.join("__").to_uppercase())
    }

    /// Its value as an error may quote it.
    pub fn shown(&self, value: &Value) -> String {
        let name = self.0.last().map_or("", String::as_str);
        match value {
            _ if name.contains("secret") || has_password(value) => "not shown".to_owned(),
            Value::Table(_) => "a table".to_owned(),
            value => value.to_string(),
        }
    }

    /// Its value as a listing of settings may show it: a password or a query in a URL may
    /// be a secret, and of a webhook's URL the path too.
    pub fn masked(&self, value: &Value) -> String {
        let url = value.as_str().and_then(|text| Url::parse(text).ok());
        let Some(mut url) = url.filter(Url::has_host) else {
            return self.shown(value);
        };
        let secret = url.password().is_some() || url.query().is_some();
        let is_hook = self.0.starts_with(&HOOKS.map(str::to_owned));
        if !secret && !is_hook {
            return self.shown(value);
        }
        url.set_query(None);
        if is_hook {
            url.set_path("");
        }
        // Both fail only where there is no host.
        let _has_host = url.set_username("");
        let _has_host = url.set_password(None);
        format!("\"{url}\", and more that is not shown")
    }

    /// Whether `below` is strictly inside it.
    pub fn is_above(&self, below: &Key) -> bool {
        below.within(self).is_some()
    }

    /// Whether its value is money: a string, so that no digit is lost, though people
    /// write a number.
    pub fn is_amount(&self) -> bool {
        self.0.last().is_some_and(|name| name.contains("_usd"))
    }

    /// Whether the one may be a slip of the other: only so far is a guess of use.
    pub fn is_near(&self, other: &Key) -> bool {
        let name = |key: &Key| key.0.last().cloned().unwrap_or_default();
        let names = strsim::normalized_damerau_levenshtein(&name(self), &name(other));
        names >= 0.5 && self.likeness(other) >= 0.6
    }

    /// How alike two keys look, 0 to 1. A right name in a wrong section counts
    /// for a little less than the whole key.
    pub fn likeness(&self, other: &Key) -> f64 {
        let whole = strsim::normalized_damerau_levenshtein(&self.to_string(), &other.to_string());
        let name = |key: &Key| key.0.last().cloned().unwrap_or_default();
        whole.max(0.9 * strsim::normalized_damerau_levenshtein(&name(self), &name(other)))
    }
}

fn has_password(value: &Value) -> bool {
    let url = value.as_str().and_then(|text| Url::parse(text).ok());
    url.is_some_and(|url| url.password().is_some())
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("."))
    }
}
