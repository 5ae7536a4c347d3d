//! Settings, merged from `config/default.toml` (compiled in, and the reference
//! of every key), a file, the environment and the command line, in that order.
//!
//! The defaults are also the schema. A key that they lack is unknown. A value has
//! its default's type, and a string default that reads as a duration makes the
//! key a duration. Numbers are zero or more. A key with `_usd` in its name is an
//! amount: a string, for which a number may be written. An empty table among the defaults is
//! open: the names in it are the operator's, and its values are checked by the
//! module that takes the section.

mod error;
mod key;
mod schema;

use std::{collections::BTreeMap, ffi::OsStr, path::Path};

use serde::de::DeserializeOwned;
use toml::{Table, Value};

pub use self::error::{ConfigError, Invalid, Origin};
use self::{
    key::Key,
    schema::{Given, Schema, flatten, parse},
};

const DEFAULTS: &str = include_str!("../config/default.toml");
const PREFIX: &str = "OFFPEAK_";

/// The merged settings, and where each value came from.
#[derive(Debug, Clone)]
pub struct Config {
    /// A leaf for every key; an empty open table is a leaf too.
    leaves: BTreeMap<Key, Leaf>,
}

impl Config {
    /// The settings when nobody sets anything.
    ///
    /// # Errors
    /// Only when the compiled-in defaults are no TOML; a test rules that out.
    pub fn defaults() -> Result<Self, ConfigError> {
        let leaves = Schema::parse(DEFAULTS)?.into_leaves();
        Ok(Config { leaves })
    }

    /// Merges all sources; the later ones win. `environment` may be the whole
    /// environment: only `OFFPEAK_SECTION__KEY` variables are read. `flags` are
    /// pairs of a dotted key and a value written as in the environment.
    ///
    /// # Errors
    /// An unreadable file, an unknown key, a value that its key does not accept.
    pub fn load<N: AsRef<OsStr>, V: AsRef<OsStr>>(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (N, V)>,
        flags: &[(&str, String)],
    ) -> Result<Self, ConfigError> {
        let text = read(file)?;
        let file = file.zip(text.as_deref());
        merge(DEFAULTS, file, environment, flags)
    }

    /// As [`Config::load`], and goes on past what it refuses: such a value counts as not
    /// given, and its error is in the list.
    ///
    /// # Errors
    /// Only when the compiled-in defaults are no TOML; a test rules that out.
    pub fn gather<N: AsRef<OsStr>, V: AsRef<OsStr>>(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (N, V)>,
        flags: &[(&str, String)],
    ) -> Result<(Self, Vec<ConfigError>), ConfigError> {
        let (text, unread) = match read(file) {
            Ok(text) => (text, None),
            Err(error) => (None, Some(error)),
        };
        let file = file.zip(text.as_deref());
        let (config, mut errors) = gather(DEFAULTS, file, environment, flags)?;
        errors.splice(0..0, unread);
        Ok((config, errors))
    }

    /// What was set to something else than its default, by key.
    ///
    /// # Errors
    /// Only when the compiled-in defaults are no TOML; a test rules that out.
    pub fn differences(&self) -> Result<Vec<Difference>, ConfigError> {
        let defaults = Schema::parse(DEFAULTS)?.into_leaves();
        let default = |key: &Key| defaults.get(key).map(|leaf| &leaf.value);
        let leaves = self.leaves.iter();
        let changed = leaves.filter(|(key, leaf)| default(key) != Some(&leaf.value));
        let difference = |(key, leaf): (&Key, &Leaf)| Difference {
            key: key.to_string(),
            value: key.masked(&leaf.value),
            default: default(key)
                .filter(|value| !value.is_table())
                .map(|value| key.shown(value)),
            origin: leaf.origin.clone(),
        };
        Ok(changed.map(difference).collect())
    }

    /// Takes back what somebody set of `key` or within it. False where nobody did.
    ///
    /// # Errors
    /// Only when the compiled-in defaults are no TOML; a test rules that out.
    pub fn reset(&mut self, key: &str) -> Result<bool, ConfigError> {
        let key = Key::dotted(key);
        let concerned = |other: &Key| *other == key || other.within(&key).is_some();
        let mut found = false;
        self.leaves.retain(|other, leaf| {
            let given = concerned(other) && leaf.origin != Origin::Defaults;
            found |= given;
            !given
        });
        for (other, leaf) in Schema::parse(DEFAULTS)?.into_leaves() {
            if concerned(&other) || other.is_above(&key) {
                self.leaves.entry(other).or_insert(leaf);
            }
        }
        Ok(found)
    }

    /// One section as its module's settings type; dots reach nested tables
    /// (`lanes.batch`).
    ///
    /// # Errors
    /// What the type refuses, with the key and the source of the value.
    pub fn section<T: DeserializeOwned>(&self, name: &str) -> Result<T, ConfigError> {
        let section = Key::dotted(name);
        let mut table = Table::new();
        for (key, leaf) in &self.leaves {
            if key == &section && leaf.value.is_table() {
                continue;
            }
            if let Some(rest) = key.within(&section) {
                plant(&mut table, rest, leaf.value.clone());
            }
        }
        serde_path_to_error::deserialize(Value::Table(table)).map_err(|error| {
            let key = section.join(error.path());
            let reason = error.inner().message().trim_end().to_owned();
            self.refused(&key, reason)
        })
    }

    /// Refuses the value of a key for what another key says.
    pub fn refuse(&self, key: &str, reason: String) -> ConfigError {
        self.refused(&Key::dotted(key), reason)
    }

    fn set(
        &mut self,
        schema: &Schema,
        key: Key,
        given: Given<'_>,
        origin: &Origin,
    ) -> Result<(), ConfigError> {
        let Some(value) = schema.check(&key, given, origin)? else {
            return Ok(());
        };
        // A later source may turn a value of an open table into a table, and back.
        let overlaps = |other: &Key| other.within(&key).is_some() || key.within(other).is_some();
        self.leaves.retain(|other, _| !overlaps(other));
        let origin = origin.clone();
        self.leaves.insert(key, Leaf { value, origin });
        Ok(())
    }

    /// Sets what a variable of the environment says, where it is a setting.
    fn set_variable(
        &mut self,
        schema: &Schema,
        name: &str,
        value: &OsStr,
    ) -> Result<(), ConfigError> {
        let Some(key) = schema.variable(name)? else {
            return Ok(());
        };
        let text = value.to_str();
        let text = text.ok_or_else(|| ConfigError::NotUnicode(name.to_owned()))?;
        let origin = Origin::Variable(name.to_owned());
        self.set(schema, key, Given::Text(text), &origin)
    }

    /// A settings type's refusal, traced back to whoever set the value.
    fn refused(&self, key: &Key, reason: String) -> ConfigError {
        let exact = self.leaves.get(key);
        let below = || {
            let mut leaves = self.leaves.iter();
            leaves.find(|(other, _)| other.within(key).is_some())
        };
        let origin = match exact.or_else(|| below().map(|(_, leaf)| leaf)) {
            Some(leaf) => leaf.origin.clone(),
            None => Origin::Defaults,
        };
        let value = exact.map(|leaf| key.shown(&leaf.value));
        ConfigError::Invalid(Box::new(Invalid {
            key: key.to_string(),
            value,
            origin,
            reason,
        }))
    }
}

/// A setting that is not at its default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    pub key: String,
    /// As TOML has it; what is secret, or may be, is left out.
    pub value: String,
    /// None for a name of the operator's own.
    pub default: Option<String>,
    pub origin: Origin,
}

fn read(file: Option<&Path>) -> Result<Option<String>, ConfigError> {
    let read = |path: &Path| {
        std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })
    };
    file.map(read).transpose()
}

fn merge<N: AsRef<OsStr>, V: AsRef<OsStr>>(
    defaults: &str,
    file: Option<(&Path, &str)>,
    environment: impl IntoIterator<Item = (N, V)>,
    flags: &[(&str, String)],
) -> Result<Config, ConfigError> {
    let (config, errors) = gather(defaults, file, environment, flags)?;
    match errors.into_iter().next() {
        None => Ok(config),
        Some(error) => Err(error),
    }
}

fn gather<N: AsRef<OsStr>, V: AsRef<OsStr>>(
    defaults: &str,
    file: Option<(&Path, &str)>,
    environment: impl IntoIterator<Item = (N, V)>,
    flags: &[(&str, String)],
) -> Result<(Config, Vec<ConfigError>), ConfigError> {
    let schema = Schema::parse(defaults)?;
    let mut config = Config {
        leaves: schema.clone().into_leaves(),
    };
    let mut errors = Vec::new();
    if let Some((path, text)) = file {
        let origin = Origin::File(path.to_owned());
        match parse(text, &origin) {
            Ok(table) => {
                for (key, value) in flatten(table) {
                    let set = config.set(&schema, key, Given::Value(value), &origin);
                    errors.extend(set.err());
                }
            }
            Err(error) => errors.push(error),
        }
    }
    for (name, value) in environment {
        let name = name.as_ref().to_string_lossy();
        let set = config.set_variable(&schema, &name, value.as_ref());
        errors.extend(set.err());
    }
    for (key, text) in flags {
        let key = Key::dotted(key);
        let set = config.set(&schema, key, Given::Text(text), &Origin::Flags);
        errors.extend(set.err());
    }
    Ok((config, errors))
}

#[derive(Debug, Clone)]
struct Leaf {
    value: Value,
    origin: Origin,
}

/// Puts `value` at `path`, with the tables on the way.
fn plant(table: &mut Table, path: &[String], value: Value) {
    match path {
        [] => {}
        [name] => {
            table.insert(name.clone(), value);
        }
        [name, rest @ ..] => {
            let below = table
                .entry(name.clone())
                .or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(below) = below {
                plant(below, rest, value);
            }
        }
    }
}

#[cfg(test)]
mod tests;
