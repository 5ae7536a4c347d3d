//! Settings, merged from `config/default.toml` (compiled in, and the reference
//! of every key), a file, the environment and the command line, in that order.
//!
//! The defaults are also the schema. A key that they lack is unknown. A value has
//! its default's type, and a string default that reads as a duration makes the
//! key a duration. Numbers are zero or more. An empty table among the defaults is
//! open: the names in it are the operator's, and its values are checked by the
//! module that takes the section.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fmt,
    path::{Path, PathBuf},
};

use serde::de::DeserializeOwned;
use toml::{Table, Value};

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
        Ok(Schema::parse(DEFAULTS)?.into_config())
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
        let text = match file {
            None => None,
            Some(path) => Some((
                path,
                std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
                    path: path.to_owned(),
                    source,
                })?,
            )),
        };
        let file = text.as_ref().map(|(path, text)| (*path, text.as_str()));
        merge(DEFAULTS, file, environment, flags)
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
        let value = exact.map(|leaf| leaf.value.to_string());
        ConfigError::Invalid(Box::new(Invalid {
            key: key.to_string(),
            value,
            origin,
            reason,
        }))
    }
}

/// Why the settings cannot be used. Each names its source.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read the settings in {}: {source}", path.display())]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("the settings {origin} are not valid TOML: {source}")]
    Syntax {
        origin: Origin,
        source: Box<toml::de::Error>,
    },
    #[error("the variable {0} is not UTF-8")]
    NotUnicode(String),
    /// `nearest` is spelled as its source spells keys.
    #[error("there is no setting `{key}` ({origin}); the nearest is `{nearest}`")]
    Unknown {
        key: String,
        origin: Origin,
        nearest: String,
    },
    #[error(transparent)]
    Invalid(Box<Invalid>),
}

/// A value that its key does not accept.
#[derive(Debug, thiserror::Error)]
#[error("`{key}`{} ({origin}): {reason}", value.as_deref().map(|v| format!(" is {v}")).unwrap_or_default())]
pub struct Invalid {
    pub key: String,
    pub value: Option<String>,
    pub origin: Origin,
    pub reason: String,
}

/// Who set a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    Defaults,
    File(PathBuf),
    Variable(String),
    Flags,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Defaults => f.write_str("in the defaults"),
            Origin::File(path) => write!(f, "in {}", path.display()),
            Origin::Variable(name) => write!(f, "in the variable {name}"),
            Origin::Flags => f.write_str("on the command line"),
        }
    }
}

fn merge<N: AsRef<OsStr>, V: AsRef<OsStr>>(
    defaults: &str,
    file: Option<(&Path, &str)>,
    environment: impl IntoIterator<Item = (N, V)>,
    flags: &[(&str, String)],
) -> Result<Config, ConfigError> {
    let schema = Schema::parse(defaults)?;
    let mut config = schema.clone().into_config();
    if let Some((path, text)) = file {
        let origin = Origin::File(path.to_owned());
        for (key, value) in flatten(parse(text, &origin)?) {
            schema.set(&mut config, key, Given::Value(value), &origin)?;
        }
    }
    for (name, value) in environment {
        let name = name.as_ref().to_string_lossy();
        if let Some(key) = schema.variable(&name)? {
            let origin = Origin::Variable(name.to_string());
            let text = value.as_ref().to_str();
            let text = text.ok_or_else(|| ConfigError::NotUnicode(name.to_string()))?;
            schema.set(&mut config, key, Given::Text(text), &origin)?;
        }
    }
    for (key, text) in flags {
        let key = Key::dotted(key);
        schema.set(&mut config, key, Given::Text(text), &Origin::Flags)?;
    }
    Ok(config)
}

/// A value as its source gives it: typed by TOML, or text to be read as the
/// default's type.
enum Given<'a> {
    Value(Value),
    Text(&'a str),
}

/// The defaults, read as rules.
#[derive(Clone)]
struct Schema(BTreeMap<Key, Value>);

impl Schema {
    fn parse(defaults: &str) -> Result<Self, ConfigError> {
        let table = parse(defaults, &Origin::Defaults)?;
        Ok(Schema(flatten(table).into_iter().collect()))
    }

    fn into_config(self) -> Config {
        let leaf = |value| Leaf {
            value,
            origin: Origin::Defaults,
        };
        let leaves = self.0.into_iter();
        Config {
            leaves: leaves.map(|(key, value)| (key, leaf(value))).collect(),
        }
    }

    fn set(
        &self,
        config: &mut Config,
        key: Key,
        given: Given<'_>,
        origin: &Origin,
    ) -> Result<(), ConfigError> {
        let value = match self.rule(&key) {
            Rule::Open => match given {
                Given::Value(value) => value,
                Given::Text(text) => Value::from(text),
            },
            Rule::Like(default) => accept(default, given)
                .map_err(|(value, wanted)| invalid(&key, value, origin, wanted))?,
            Rule::Section => match given {
                Given::Value(Value::Table(_)) => return Ok(()),
                Given::Value(value) => {
                    return Err(invalid(&key, value, origin, "a table of settings"));
                }
                Given::Text(text) => {
                    return Err(invalid(&key, text.into(), origin, "a table of settings"));
                }
            },
            Rule::Below(leaf) => {
                let default = &self.0[leaf];
                return Err(invalid(
                    leaf,
                    Value::Table(Table::new()),
                    origin,
                    wanted(default),
                ));
            }
            Rule::Unknown => return Err(self.unknown(&key, origin)),
        };
        // A later source may turn a value of an open table into a table, and back.
        let overlaps = |other: &Key| other.within(&key).is_some() || key.within(other).is_some();
        config.leaves.retain(|other, _| !overlaps(other));
        let origin = origin.clone();
        config.leaves.insert(key, Leaf { value, origin });
        Ok(())
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
                    false => Rule::Below(known),
                };
            }
            if known.within(key).is_some() {
                return Rule::Section;
            }
        }
        Rule::Unknown
    }

    /// The key that a variable sets; `None` for variables that are no settings.
    fn variable(&self, name: &str) -> Result<Option<Key>, ConfigError> {
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
                nearest: key.variable(),
            }),
        }
    }

    fn unknown(&self, key: &Key, origin: &Origin) -> ConfigError {
        let sections = self.0.keys().filter_map(Key::parent);
        let candidates = self.0.keys().cloned().chain(sections);
        let nearest = candidates
            .max_by(|a, b| key.likeness(a).total_cmp(&key.likeness(b)))
            .unwrap_or_else(|| key.clone());
        let (key, nearest) = match origin {
            Origin::Variable(name) => (name.clone(), nearest.variable()),
            _ => (key.to_string(), nearest.to_string()),
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
    Below(&'a Key),
    Unknown,
}

/// The value in its default's type, or the offending value and what is accepted.
fn accept(default: &Value, given: Given<'_>) -> Result<Value, (Value, &'static str)> {
    let value = match given {
        Given::Value(value) => value,
        Given::Text(text) => {
            typed(default, text.trim()).ok_or_else(|| (text.into(), wanted(default)))?
        }
    };
    let value = match (default, value) {
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
    if fits {
        Ok(value)
    } else {
        Err((value, wanted(default)))
    }
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

fn wanted(default: &Value) -> &'static str {
    match default {
        Value::String(text) if is_duration(text) => {
            "a duration such as \"200ms\", \"90s\" or \"1h 30m\""
        }
        Value::String(_) => "a string",
        Value::Integer(_) => "a whole number, zero or more",
        Value::Float(_) => "a number, zero or more",
        Value::Boolean(_) => "true or false",
        Value::Array(_) => "a list of strings",
        Value::Table(_) => "a table of settings",
        Value::Datetime(_) => "a date",
    }
}

fn is_duration(text: &str) -> bool {
    humantime::parse_duration(text).is_ok()
}

fn invalid(key: &Key, value: Value, origin: &Origin, wanted: &str) -> ConfigError {
    let value = match value {
        Value::Table(_) => "a table".to_owned(),
        value => value.to_string(),
    };
    ConfigError::Invalid(Box::new(Invalid {
        key: key.to_string(),
        value: Some(value),
        origin: origin.clone(),
        reason: format!("expected {wanted}"),
    }))
}

fn parse(text: &str, origin: &Origin) -> Result<Table, ConfigError> {
    text.parse().map_err(|source| ConfigError::Syntax {
        origin: origin.clone(),
        source: Box::new(source),
    })
}

/// Every leaf with its full key. An empty table is a leaf.
fn flatten(table: Table) -> Vec<(Key, Value)> {
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

#[derive(Debug, Clone)]
struct Leaf {
    value: Value,
    origin: Origin,
}

/// The names on the way to a value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key(Vec<String>);

impl Key {
    fn dotted(text: &str) -> Self {
        Key(text.split('.').map(str::to_owned).collect())
    }

    fn child(&self, name: String) -> Self {
        let mut names = self.0.clone();
        names.push(name);
        Key(names)
    }

    fn parent(&self) -> Option<Self> {
        match self.0.as_slice() {
            [] | [_] => None,
            [above @ .., _] => Some(Key(above.to_vec())),
        }
    }

    /// The key of what a settings type refused, as serde names the way to it.
    fn join(&self, path: &serde_path_to_error::Path) -> Self {
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
    fn within(&self, above: &Key) -> Option<&[String]> {
        let rest = self.0.strip_prefix(above.0.as_slice())?;
        (!rest.is_empty()).then_some(rest)
    }

    fn variable(&self) -> String {
        format!("{PREFIX}{}", self.0.join("__").to_uppercase())
    }

    /// How alike two keys look, 0 to 1. A right name in a wrong section counts
    /// for a little less than the whole key.
    fn likeness(&self, other: &Key) -> f64 {
        let whole = strsim::normalized_damerau_levenshtein(&self.to_string(), &other.to_string());
        let name = |key: &Key| key.0.last().cloned().unwrap_or_default();
        whole.max(0.9 * strsim::normalized_damerau_levenshtein(&name(self), &name(other)))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("."))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde::Deserialize;

    use super::*;

    const SCHEMA: &str = r#"
        [packing]
        linger = "5s"
        max_lines = 50_000
        bucket_share = 0.05
        [watch]
        poll_interval = "10s"
        [admission]
        endpoints = ["/a", "/b"]
        strict = false
        on_full = "reject"
        [lanes.batch]
        price_factor = 0.5
        [webhook]
        allow = []
        [webhook.endpoints]
    "#;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Packing {
        #[serde(with = "crate::model::time::human")]
        linger: Duration,
        max_lines: u32,
        bucket_share: f64,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Admission {
        endpoints: Vec<String>,
        strict: bool,
        on_full: OnFull,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(rename_all = "lowercase")]
    enum OnFull {
        Reject,
        Live,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Webhook {
        allow: Vec<String>,
        endpoints: BTreeMap<String, Endpoint>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Endpoint {
        url: String,
    }

    fn load(
        file: &str,
        environment: &[(&str, &str)],
        flags: &[(&str, &str)],
    ) -> Result<Config, ConfigError> {
        let flags: Vec<_> = flags.iter().map(|(k, v)| (*k, (*v).to_owned())).collect();
        let file = Some((Path::new("my.toml"), file));
        merge(SCHEMA, file, environment.iter().copied(), &flags)
    }

    #[test]
    fn later_sources_win() {
        let file = "[packing]\nlinger = '1s'\nmax_lines = 1\nbucket_share = 1";
        let environment = [
            ("OFFPEAK_PACKING__LINGER", "200ms"),
            ("OFFPEAK_PACKING__MAX_LINES", "2"),
        ];
        let config = load(file, &environment, &[("packing.max_lines", "3")]).unwrap();
        assert_eq!(
            config.section::<Packing>("packing").unwrap(),
            Packing {
                linger: Duration::from_millis(200),
                max_lines: 3,
                bucket_share: 1.0,
            }
        );
    }

    #[test]
    fn variables_are_read_as_their_defaults_type() {
        let environment = [
            ("OFFPEAK_PACKING__MAX_LINES", " 1_000 "),
            ("OFFPEAK_PACKING__BUCKET_SHARE", "1"),
            ("OFFPEAK_ADMISSION__ENDPOINTS", "/x, /y,"),
            ("OFFPEAK_ADMISSION__STRICT", "true"),
            ("OFFPEAK_ADMISSION__ON_FULL", "live"),
            ("OFFPEAK_LANES__BATCH__PRICE_FACTOR", "0.4"),
        ];
        let config = load("", &environment, &[]).unwrap();
        let packing: Packing = config.section("packing").unwrap();
        assert_eq!((packing.max_lines, packing.bucket_share), (1000, 1.0));
        let admission: Admission = config.section("admission").unwrap();
        assert_eq!(admission.endpoints, ["/x", "/y"]);
        assert!(admission.strict);
        assert_eq!(admission.on_full, OnFull::Live);
        let batch: BTreeMap<String, f64> = config.section("lanes.batch").unwrap();
        assert_eq!(batch["price_factor"], 0.4);
    }

    #[test]
    fn variables_that_are_no_settings_are_left_alone() {
        let environment = [
            ("OFFPEAK_MASTER_KEY", "x"),
            ("OFFPEAK_ADMIN_TOKEN", "x"),
            ("OFFPEAK_LOG", "x"),
            ("OFFPEAK_URL", "x"),
            ("PACKING__LINGER", "x"),
            ("PATH", "x"),
        ];
        load("", &environment, &[]).unwrap();
    }

    #[test]
    fn open_tables_take_the_operators_names() {
        let file = "[webhook.endpoints.'bill.ing']\nurl = 'https://a/'\n[webhook.endpoints.b]\nurl = 'https://b/'";
        let environment = [
            ("OFFPEAK_WEBHOOK__ENDPOINTS__B__URL", "https://c/"),
            ("OFFPEAK_WEBHOOK__ALLOW", ""),
        ];
        let webhook: Webhook = load(file, &environment, &[])
            .and_then(|config| config.section("webhook"))
            .unwrap();
        assert_eq!(webhook.endpoints["bill.ing"].url, "https://a/");
        assert_eq!(webhook.endpoints["b"].url, "https://c/");
        assert_eq!(webhook.allow, [""; 0]);

        let none: Webhook = load("[webhook]", &[], &[])
            .and_then(|config| config.section("webhook"))
            .unwrap();
        assert!(none.endpoints.is_empty());
    }

    #[test]
    fn a_later_source_may_replace_an_open_value_by_a_table() {
        let file = "[webhook.endpoints]\nb = 'https://b/'";
        let environment = [("OFFPEAK_WEBHOOK__ENDPOINTS__B__URL", "https://c/")];
        let webhook: Webhook = load(file, &environment, &[])
            .and_then(|config| config.section("webhook"))
            .unwrap();
        assert_eq!(webhook.endpoints["b"].url, "https://c/");
    }

    #[test]
    fn bad_settings_are_refused_with_key_value_source_and_what_is_accepted() {
        const DURATION: &str = "expected a duration such as \"200ms\", \"90s\" or \"1h 30m\"";
        let file = |text: &str| load(text, &[], &[]).unwrap_err().to_string();
        let variable = |name: &str, value: &str| {
            let error = load("", &[(name, value)], &[]).unwrap_err();
            error.to_string()
        };
        let flag = |key: &str, value: &str| {
            let error = load("", &[], &[(key, value)]).unwrap_err();
            error.to_string()
        };
        let table: &[(String, &str)] = &[
            // Unknown keys.
            (
                file("[packing]\nlingr = '5s'"),
                "there is no setting `packing.lingr` (in my.toml); the nearest is `packing.linger`",
            ),
            (
                file("[paking]\nlinger = '5s'"),
                "there is no setting `paking.linger` (in my.toml); the nearest is `packing.linger`",
            ),
            (
                file("[paking]"),
                "there is no setting `paking` (in my.toml); the nearest is `packing`",
            ),
            (
                file("poll_interval = '5s'"),
                "there is no setting `poll_interval` (in my.toml); the nearest is `watch.poll_interval`",
            ),
            (
                variable("OFFPEAK_WATCH__POLL_INTERVALL", "5s"),
                "there is no setting `OFFPEAK_WATCH__POLL_INTERVALL` (in the variable \
                 OFFPEAK_WATCH__POLL_INTERVALL); the nearest is `OFFPEAK_WATCH__POLL_INTERVAL`",
            ),
            (
                variable("OFFPEAK_PACKING_LINGER", "5s"),
                "there is no setting `OFFPEAK_PACKING_LINGER` (in the variable \
                 OFFPEAK_PACKING_LINGER); the nearest is `OFFPEAK_PACKING__LINGER`",
            ),
            (
                flag("packing.ling", "5s"),
                "there is no setting `packing.ling` (on the command line); the nearest is `packing.linger`",
            ),
            // Bad durations.
            (
                file("[packing]\nlinger = 'soon'"),
                &format!("`packing.linger` is \"soon\" (in my.toml): {DURATION}"),
            ),
            (
                file("[packing]\nlinger = 5"),
                &format!("`packing.linger` is 5 (in my.toml): {DURATION}"),
            ),
            (
                variable("OFFPEAK_PACKING__LINGER", "5 parsecs"),
                &format!(
                    "`packing.linger` is \"5 parsecs\" (in the variable OFFPEAK_PACKING__LINGER): {DURATION}"
                ),
            ),
            (
                flag("packing.linger", ""),
                &format!("`packing.linger` is \"\" (on the command line): {DURATION}"),
            ),
            // Wrong types.
            (
                file("[packing]\nmax_lines = 1.5"),
                "`packing.max_lines` is 1.5 (in my.toml): expected a whole number, zero or more",
            ),
            (
                variable("OFFPEAK_PACKING__MAX_LINES", "many"),
                "`packing.max_lines` is \"many\" (in the variable OFFPEAK_PACKING__MAX_LINES): \
                 expected a whole number, zero or more",
            ),
            (
                variable("OFFPEAK_PACKING__MAX_LINES", "-1"),
                "`packing.max_lines` is -1 (in the variable OFFPEAK_PACKING__MAX_LINES): \
                 expected a whole number, zero or more",
            ),
            (
                file("[packing]\nbucket_share = nan"),
                "`packing.bucket_share` is nan (in my.toml): expected a number, zero or more",
            ),
            (
                variable("OFFPEAK_ADMISSION__STRICT", "yes"),
                "`admission.strict` is \"yes\" (in the variable OFFPEAK_ADMISSION__STRICT): \
                 expected true or false",
            ),
            (
                file("[admission]\non_full = true"),
                "`admission.on_full` is true (in my.toml): expected a string",
            ),
            (
                file("[admission]\nendpoints = ['/a', 1]"),
                "`admission.endpoints` is [\"/a\", 1] (in my.toml): expected a list of strings",
            ),
            (
                file("packing = 5"),
                "`packing` is 5 (in my.toml): expected a table of settings",
            ),
            (
                file("[webhook]\nendpoints = 'x'"),
                "`webhook.endpoints` is \"x\" (in my.toml): expected a table of settings",
            ),
            (
                variable("OFFPEAK_WEBHOOK__ENDPOINTS", "x"),
                "`webhook.endpoints` is \"x\" (in the variable OFFPEAK_WEBHOOK__ENDPOINTS): \
                 expected a table of settings",
            ),
            (
                file("[packing.linger]\nseconds = 5"),
                &format!("`packing.linger` is a table (in my.toml): {DURATION}"),
            ),
            (
                file("[packing.linger]"),
                &format!("`packing.linger` is a table (in my.toml): {DURATION}"),
            ),
        ];
        for (said, expected) in table {
            assert_eq!(said, expected);
        }
    }

    #[test]
    fn what_a_settings_type_refuses_is_traced_to_its_source() {
        fn refusal<T: DeserializeOwned>(config: Config, section: &str) -> String {
            match config.section::<T>(section) {
                Ok(_) => panic!("{section} was taken"),
                Err(error) => error.to_string(),
            }
        }
        let environment = [("OFFPEAK_ADMISSION__ON_FULL", "drop")];
        assert_eq!(
            refusal::<Admission>(load("", &environment, &[]).unwrap(), "admission"),
            "`admission.on_full` is \"drop\" (in the variable OFFPEAK_ADMISSION__ON_FULL): \
             unknown variant `drop`, expected `reject` or `live`"
        );
        let file = "[packing]\nmax_lines = 5_000_000_000";
        assert_eq!(
            refusal::<Packing>(load(file, &[], &[]).unwrap(), "packing"),
            "`packing.max_lines` is 5000000000 (in my.toml): \
             invalid value: integer `5000000000`, expected u32"
        );
        let file = "[webhook.endpoints.b]\nulr = 'https://b/'";
        assert_eq!(
            refusal::<Webhook>(load(file, &[], &[]).unwrap(), "webhook"),
            "`webhook.endpoints.b.ulr` is \"https://b/\" (in my.toml): \
             unknown field `ulr`, expected `url`"
        );
        let file = "[webhook.endpoints.b]";
        assert_eq!(
            refusal::<Webhook>(load(file, &[], &[]).unwrap(), "webhook"),
            "`webhook.endpoints.b` is {} (in my.toml): missing field `url`"
        );
    }

    #[test]
    fn sources_that_cannot_be_read_are_named() {
        let nothing: [(&str, &str); 0] = [];
        let missing = Path::new("/nonexistent/offpeak.toml");
        let said = Config::load(Some(missing), nothing, &[]).unwrap_err();
        assert!(
            said.to_string()
                .starts_with("cannot read the settings in /nonexistent/offpeak.toml: ")
        );

        let said = load("[packing\n", &[], &[]).unwrap_err().to_string();
        assert!(said.starts_with("the settings in my.toml are not valid TOML: "));
        assert!(said.contains("line 1"), "{said}");
    }

    #[cfg(unix)]
    #[test]
    fn a_variable_that_is_not_utf_8_is_named() {
        use std::os::unix::ffi::OsStrExt;
        let value = OsStr::from_bytes(b"\xff");
        let environment = [(OsStr::new("OFFPEAK_PACKING__LINGER"), value)];
        let said = Config::load(None, environment, &[]).unwrap_err();
        assert_eq!(
            said.to_string(),
            "the variable OFFPEAK_PACKING__LINGER is not UTF-8"
        );
        let other = [(OsStr::new("LESSOPEN"), value)];
        Config::load(None, other, &[]).unwrap();
    }

    #[test]
    fn the_defaults_parse_and_the_fixed_variable_names_work() {
        Config::defaults().unwrap();
        let environment = [
            ("OFFPEAK_PACKING__LINGER", "200ms"),
            ("OFFPEAK_WATCH__POLL_INTERVAL", "200ms"),
            ("OFFPEAK_RESCUE__RESERVE", "2s"),
            ("OFFPEAK_HOLD__DRIP_AFTER", "5s"),
        ];
        let config = Config::load(None, environment, &[]).unwrap();
        let value = |section: &str, key: &str| {
            let table: Table = config.section(section).unwrap();
            table[key].as_str().unwrap().to_owned()
        };
        assert_eq!(value("packing", "linger"), "200ms");
        assert_eq!(value("watch", "poll_interval"), "200ms");
        assert_eq!(value("rescue", "reserve"), "2s");
        assert_eq!(value("hold", "drip_after"), "5s");
    }
}
