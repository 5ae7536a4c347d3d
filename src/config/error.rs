//! Why settings cannot be used, and whose they are.

use std::{fmt, path::PathBuf};

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
    /// `nearest` is spelled as its source spells keys; none where nothing is near.
    #[error("there is no setting `{key}` ({origin}); {}", hint(nearest.as_deref()))]
    Unknown {
        key: String,
        origin: Origin,
        nearest: Option<String>,
    },
    #[error(transparent)]
    Invalid(Box<Invalid>),
}

impl ConfigError {
    /// The setting that is concerned, where it is one.
    pub fn key(&self) -> Option<&str> {
        match self {
            ConfigError::Unknown { key, .. } => Some(key),
            ConfigError::Invalid(invalid) => Some(&invalid.key),
            ConfigError::NotUnicode(name) => Some(name),
            ConfigError::Read { .. } | ConfigError::Syntax { .. } => None,
        }
    }
}

fn hint(nearest: Option<&str>) -> String {
    match nearest {
        Some(nearest) => format!("the nearest is `{nearest}`"),
        None => "config/default.toml has them all".to_owned(),
    }
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
