//! The defaults, read as rules for what other sources may say.

use std::collections::BTreeMap;

use toml::{Table, Value};

use super::{ConfigError, Invalid, Leaf, Origin, PREFIX, key::Key};

const A_TABLE: &str = "a table of settings";

/// The defaults, read as rules.
#[derive(Clone)]
pub struct Schema(BTreeMap<Key, Value>);

impl Schema {
    pub fn parse(defaults: &str) -> Result<Self, ConfigError> {
        let table = parse(defaults, &Origin::Defaults)?;
        Ok(Schema(flatten(table).into_iter().collect()))
    }

    pub fn into_leaves(self) -> BTreeMap<Key, Leaf> {
        let leaf = |value| Leaf {
            value,
            origin: Origin::Defaults,
        };
        let leaves = self.0.into_iter();
        leaves.map(|(key, value)| (key, leaf(value))).collect()
    }

    /// The value to store for `key`; `None` when there is nothing to store, as
    /// for `[packing]` with no keys below it.
    ///
    /// # Errors
    /// An unknown key, or a value that the key does not accept.
    pub fn check(
        &self,
        key: &Key,
        given: Given<'_>,
        origin: &Origin,
    ) -> Result<Option<Value>, ConfigError> {
        let refuse = |key, value, wanted| Err(invalid(key, value, origin, wanted));
        match (self.rule(key), given) {
            (Rule::Like(default), given) => match accept(key, default, given) {
                Ok(value) => Ok(Some(value)),
                Err(value) => refuse(key, value, wanted(key, default)),
            },
            (Rule::Open, given) => Ok(Some(given.raw())),
            (Rule::Section, Given::Value(Value::Table(_))) => Ok(None),
            (Rule::Section, given) => refuse(key, given.raw(), A_TABLE),
            (Rule::Below(leaf, default), _) => {
                refuse(leaf, Value::Table(Table::new()), wanted(leaf, default))
            }
            (Rule::Unknown, _) => Err(self.unknown(key, origin)),
        }
    }

    fn rule(&self, key: &Key) -> Rule<'_> {
        for (known, default) in &self.0 {
            let open = default.is_table();
            if known == key {
                return match open {
                    true => Rule::Section,
                    false => Rule::Like(default),
                };
            }
            if key.within(known).is_some() {
                return match open {
                    true => Rule::Open,
                    false => Rule::Below(known, default),
                };
            }
            if known.within(key).is_some() {
                return Rule::Section;
            }
        }
        Rule::Unknown
    }

    /// The key that a variable sets; `None` for variables that are no settings.
    pub fn variable(&self, name: &str) -> Result<Option<Key>, ConfigError> {
        let Some(rest) = name.strip_prefix(PREFIX) else {
            return Ok(None);
        };
        if rest.contains("__") {
            let parts = rest.split("__").map(str::to_lowercase);
            return Ok(Some(Key(parts.collect())));
        }
        // OFFPEAK_PACKING_LINGER, one underscore short, must not be ignored.
        let meant = |key: &&Key| key.variable().replace("__", "_") == name;
        match self.0.keys().find(meant) {
            None => Ok(None),
            Some(key) => Err(ConfigError::Unknown {
                key: name.to_owned(),
                origin: Origin::Variable(name.to_owned()),
                nearest: Some(key.variable()),
            }),
        }
    }

    fn unknown(&self, key: &Key, origin: &Origin) -> ConfigError {
        let sections = self.0.keys().filter_map(Key::parent);
        let candidates = self.0.keys().cloned().chain(sections);
        let nearest = candidates
            .filter(|known| key.is_near(known))
            .max_by(|a, b| key.likeness(a).total_cmp(&key.likeness(b)));
        let (key, nearest) = match origin {
            Origin::Variable(name) => (name.clone(), nearest.map(|key| key.variable())),
            _ => (key.to_string(), nearest.map(|key| key.to_string())),
        };
        ConfigError::Unknown {
            key,
            origin: origin.clone(),
            nearest,
        }
    }
}

/// What the defaults say about a key.
enum Rule<'a> {
    /// The key stands in the defaults with this value.
    Like(&'a Value),
    /// The key is inside an open table.
    Open,
    /// The key is a table, not a value.
    Section,
    /// The key is inside something that is a value.
    Below(&'a Key, &'a Value),
    Unknown,
}

/// A value as its source gives it: typed by TOML, or text to be read as the
/// default's type.
pub enum Given<'a> {
    Value(Value),
    Text(&'a str),
}

impl Given<'_> {
    fn raw(self) -> Value {
        match self {
            Given::Value(value) => value,
            Given::Text(text) => Value::from(text),
        }
    }
}

/// The value in its default's type, or the offending value.
fn accept(key: &Key, default: &Value, given: Given<'_>) -> Result<Value, Value> {
    let value = match given {
        Given::Value(value) => value,
        Given::Text(text) => typed(default, text.trim()).ok_or_else(|| Value::from(text))?,
    };
    let value = match (default, value) {
        // As it is written: the shortest digits that mean it.
        (Value::String(_), Value::Integer(whole)) if key.is_amount() && whole >= 0 => {
            Value::String(whole.to_string())
        }
        (Value::String(_), Value::Float(number))
            if key.is_amount() && number.is_finite() && number >= 0.0 =>
        {
            Value::String(number.to_string())
        }
        (Value::Float(_), Value::Integer(whole)) => Value::Float(whole as f64),
        (_, value) => value,
    };
    let fits = match (default, &value) {
        (Value::String(default), Value::String(text)) => !is_duration(default) || is_duration(text),
        (Value::Integer(_), Value::Integer(number)) => *number >= 0,
        (Value::Float(_), Value::Float(number)) => number.is_finite() && *number >= 0.0,
        (Value::Array(_), Value::Array(items)) => items.iter().all(Value::is_str),
        (default, value) => default.same_type(value),
    };
    if fits { Ok(value) } else { Err(value) }
}

/// Text from a variable or a flag, read as the default's type.
fn typed(default: &Value, text: &str) -> Option<Value> {
    let digits = || text.replace('_', "");
    match default {
        Value::Integer(_) => digits().parse().ok().map(Value::Integer),
        Value::Float(_) => digits().parse().ok().map(Value::Float),
        Value::Boolean(_) => text.parse().ok().map(Value::Boolean),
        Value::Array(_) => {
            let items = text
                .split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty());
            Some(Value::Array(items.map(Value::from).collect()))
        }
        _ => Some(Value::from(text)),
    }
}

fn wanted(key: &Key, default: &Value) -> &'static str {
    match default {
        Value::String(_) if key.is_amount() => {
            "an amount in dollars such as 25 or \"0.50\", or \"\" for no bound"
        }
        Value::String(text) if is_duration(text) => {
            "a duration such as \"200ms\", \"90s\" or \"1h 30m\""
        }
        Value::String(_) => "a string",
        Value::Integer(_) => "a whole number, zero or more",
        Value::Float(_) => "a number, zero or more",
        Value::Boolean(_) => "true or false",
        Value::Array(_) => "a list of strings",
        Value::Table(_) => A_TABLE,
        Value::Datetime(_) => "a date",
    }
}

fn is_duration(text: &str) -> bool {
    humantime::parse_duration(text).is_ok()
}

fn invalid(key: &Key, value: Value, origin: &Origin, wanted: &str) -> ConfigError {
    ConfigError::Invalid(Box::new(Invalid {
        key: key.to_string(),
        value: Some(key.shown(&value)),
        origin: origin.clone(),
        reason: format!("expected {wanted}"),
    }))
}

pub fn parse(text: &str, origin: &Origin) -> Result<Table, ConfigError> {
    text.parse().map_err(|source| ConfigError::Syntax {
        origin: origin.clone(),
        source: Box::new(source),
    })
}

/// Every leaf with its full key. An empty table is a leaf.
pub fn flatten(table: Table) -> Vec<(Key, Value)> {
    fn walk(above: &Key, table: Table, leaves: &mut Vec<(Key, Value)>) {
        for (name, value) in table {
            let key = above.child(name);
            match value {
                Value::Table(table) if !table.is_empty() => walk(&key, table, leaves),
                value => leaves.push((key, value)),
            }
        }
    }
    let mut leaves = Vec::new();
    walk(&Key(Vec::new()), table, &mut leaves);
    leaves
}
