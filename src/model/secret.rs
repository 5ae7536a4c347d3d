//! Text that must not reach a log, an error message or a settings dump.

use std::fmt;

use serde::Deserialize;

/// A provider key, a signing secret or a token. It prints as `[redacted]`, has
/// no `Serialize`, and is read only through [`Secret::expose`], so that every
/// place that handles the clear text can be found by one search.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct Secret(Box<str>);

impl Secret {
    pub fn new(clear: impl Into<Box<str>>) -> Self {
        Secret(clear.into())
    }

    /// The clear text.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_prints_itself() {
        let secret: Secret = serde_json::from_str("\"sk-live-1234\"").unwrap();
        assert_eq!(secret.expose(), "sk-live-1234");
        assert_eq!(format!("{secret}"), "[redacted]");
        assert_eq!(format!("{:?}", Some(&secret)), "Some([redacted])");
        assert_eq!(format!("{secret:#?}"), "[redacted]");
    }
}
