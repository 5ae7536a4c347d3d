//! Where the provider is, and how long it may be silent.

use std::{ops::RangeInclusive, time::Duration};

use serde::Deserialize;
use thiserror::Error;
use url::Url;

/// How long a provider may be told to keep a file (WIRE.md §1).
const KEEPING: RangeInclusive<Duration> =
    Duration::from_secs(3_600)..=Duration::from_secs(2_592_000);

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The URL that `/files`, `/batches` and `/chat/completions` stand under,
    /// such as `https://api.openai.com/v1`.
    pub base_url: String,
    /// Name look-up, TCP and TLS together.
    #[serde(with = "crate::model::time::human")]
    pub connect_timeout: Duration,
    /// Silence: from a control call to its head, and between pieces of any body.
    #[serde(with = "crate::model::time::human")]
    pub read_timeout: Duration,
    /// Silence of an upload: no piece taken by the connection, or no answer
    /// after the last one.
    #[serde(with = "crate::model::time::human")]
    pub upload_timeout: Duration,
    /// How long the provider keeps input files that we do not delete.
    #[serde(with = "crate::model::time::human")]
    pub input_expires_after: Duration,
    /// How long it keeps output and error files.
    #[serde(with = "crate::model::time::human")]
    pub output_expires_after: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Invalid {
    /// Without the URL, which may hold a password.
    #[error("base_url is not usable: {0}")]
    BaseUrl(String),
    #[error("{key} must be longer than zero")]
    Zero { key: &'static str },
    #[error("{key} must be between 1 h and 30 days: providers keep files no shorter or longer")]
    Keeping { key: &'static str },
    #[error("the system's root certificates cannot be used: {0}")]
    Roots(String),
}

impl Settings {
    /// Checks every value; returns the base URL without a slash at its end.
    pub(super) fn check(&self) -> Result<String, Invalid> {
        for (key, timeout) in [
            ("connect_timeout", self.connect_timeout),
            ("read_timeout", self.read_timeout),
            ("upload_timeout", self.upload_timeout),
        ] {
            if timeout.is_zero() {
                return Err(Invalid::Zero { key });
            }
        }
        for (key, span) in [
            ("input_expires_after", self.input_expires_after),
            ("output_expires_after", self.output_expires_after),
        ] {
            if !KEEPING.contains(&span) {
                return Err(Invalid::Keeping { key });
            }
        }
        self.base()
    }

    fn base(&self) -> Result<String, Invalid> {
        let invalid = |reason: &str| Err(Invalid::BaseUrl(reason.to_owned()));
        let url =
            Url::parse(&self.base_url).map_err(|error| Invalid::BaseUrl(error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return invalid("it must start with http:// or https://");
        }
        if !url.username().is_empty() || url.password().is_some() {
            return invalid("it must hold no user name and no password");
        }
        if url.query().is_some() || url.fragment().is_some() {
            return invalid("it must have no query and no fragment");
        }
        Ok(url.as_str().trim_end_matches('/').to_owned())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn example(base_url: &str) -> Settings {
        Settings {
            base_url: base_url.to_owned(),
            connect_timeout: Duration::from_secs(5),
            read_timeout: Duration::from_secs(30),
            upload_timeout: Duration::from_secs(60),
            input_expires_after: Duration::from_secs(86_400),
            output_expires_after: Duration::from_secs(172_800),
        }
    }

    #[test]
    fn a_base_url_is_http_without_a_query() {
        for (text, expected) in [
            (
                "https://api.openai.com/v1",
                Some("https://api.openai.com/v1"),
            ),
            (
                "http://127.0.0.1:8000/v1/",
                Some("http://127.0.0.1:8000/v1"),
            ),
            ("http://localhost", Some("http://localhost")),
            ("ftp://api.openai.com/v1", None),
            ("https://api.openai.com/v1?a=b", None),
            ("https://api.openai.com/v1#a", None),
            ("https://user:secret@api.openai.com/v1", None),
            ("https://user:secret@api.openai.com:http/v1", None),
            ("api.openai.com/v1", None),
            ("", None),
        ] {
            let checked = example(text).check();
            assert_eq!(checked.as_deref().ok(), expected, "{text}: {checked:?}");
            if let Err(error) = checked {
                assert!(!error.to_string().contains("secret"), "{error}");
            }
        }
    }

    #[test]
    fn durations_are_those_a_provider_takes() {
        let mut short = example("http://localhost");
        short.input_expires_after = Duration::from_secs(3_599);
        assert_eq!(
            short.check(),
            Err(Invalid::Keeping {
                key: "input_expires_after"
            })
        );
        let mut never = example("http://localhost");
        never.read_timeout = Duration::ZERO;
        assert_eq!(
            never.check(),
            Err(Invalid::Zero {
                key: "read_timeout"
            })
        );
    }
}
