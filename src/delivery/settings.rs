//! The `[webhook]` section, and what an `Offpeak-Webhook` header means by it.

use std::{collections::BTreeMap, time::Duration};

use serde::Deserialize;
use url::Url;

use super::guard::{Guard, Refused};
use crate::model::secret::Secret;

/// Longer URLs are refused: they would be stored with every request.
const LONGEST_URL: usize = 2048;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// One attempt, from connecting to the end of the answer.
    #[serde(with = "crate::model::time::human")]
    pub timeout: Duration,
    /// Exceptions to "https to public addresses": see [`Guard::new`].
    pub allow: Vec<String>,
    /// From the end of the request to the dead letter: `policy::backoff`.
    #[serde(with = "crate::model::time::human")]
    pub horizon: Duration,
    /// The wait after the first failed attempt.
    #[serde(with = "crate::model::time::human")]
    pub first_retry: Duration,
    /// Attempts at the same time; the engine keeps to it.
    pub max_concurrent: usize,
    /// Of them, those on one endpoint.
    pub max_per_endpoint: usize,
    /// Bytes of an answer that travel in the event; a larger one is replaced
    /// by its `result_url`.
    pub max_inline_bytes: usize,
    /// Targets that callers name instead of giving a URL.
    pub endpoints: BTreeMap<String, Endpoint>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    pub url: String,
    /// `whsec_…`. Without it events are signed with the tenant's own secret.
    pub secret: Option<Secret>,
}

/// Where a request's events go.
#[derive(Debug, Clone)]
pub struct Target {
    /// The configured name, when the caller gave one.
    pub name: Option<String>,
    pub url: Url,
    /// The endpoint's own secret, when it has one.
    pub secret: Option<Secret>,
}

/// Reads an `Offpeak-Webhook` value: the name of a configured endpoint, or a
/// URL. Asks no network; names in URLs are resolved and checked when sending.
pub(super) fn resolve_target(
    settings: &Settings,
    guard: &Guard,
    value: &str,
) -> Result<Target, BadTarget> {
    let value = value.trim();
    let configured = settings.endpoints.get_key_value(value);
    let text = match configured {
        Some((_, endpoint)) => endpoint.url.as_str(),
        None if is_name(value) => {
            return Err(BadTarget::UnknownName {
                name: value.to_owned(),
            });
        }
        None => value,
    };
    if text.len() > LONGEST_URL {
        return Err(BadTarget::TooLong);
    }
    // The parser drops tabs and newlines and takes `\\` for `/`; no other that
    // looks at the URL has to agree with it on that.
    let is_odd = |c: char| c.is_control() || c.is_whitespace() || c == '\\';
    if text.contains(is_odd) {
        return Err(BadTarget::OddCharacter);
    }
    let url = Url::parse(text).map_err(|_| BadTarget::NotAUrl)?;
    guard.check_url(&url)?;
    Ok(Target {
        name: configured.map(|(name, _)| name.clone()),
        url,
        secret: configured.and_then(|(_, endpoint)| endpoint.secret.clone()),
    })
}

/// Why an `Offpeak-Webhook` value is refused with 400.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadTarget {
    #[error("no webhook endpoint named `{name}` is configured")]
    UnknownName { name: String },
    #[error("the webhook is neither the name of a configured endpoint nor an https URL")]
    NotAUrl,
    #[error("the webhook URL holds white space, a control character or a backslash")]
    OddCharacter,
    #[error("the webhook URL is longer than {LONGEST_URL} bytes")]
    TooLong,
    #[error(transparent)]
    Refused(#[from] Refused),
}

/// A typo in a name should be called that, not a bad URL.
fn is_name(value: &str) -> bool {
    !value.is_empty()
        && value.len() <= 64
        && value
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        toml::from_str(
            r#"
            timeout = "15s"
            allow = ["http://127.0.0.1:9000"]
            horizon = "72h"
            first_retry = "5s"
            max_concurrent = 32
            max_per_endpoint = 8
            max_inline_bytes = 262144
            [endpoints.nightly]
            url = "https://hooks.example.com/nightly"
            secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
            [endpoints.local]
            url = "http://127.0.0.1:9000/"
            [endpoints.inside]
            url = "https://10.0.0.1/"
            "#,
        )
        .unwrap()
    }

    fn resolve(value: &str) -> Result<Target, BadTarget> {
        let settings = settings();
        let guard = Guard::new(&settings.allow).unwrap();
        resolve_target(&settings, &guard, value)
    }

    #[test]
    fn names_and_urls() {
        let named = resolve(" nightly ").unwrap();
        assert_eq!(named.name.as_deref(), Some("nightly"));
        assert_eq!(named.url.as_str(), "https://hooks.example.com/nightly");
        assert!(named.secret.is_some());

        let url = resolve("https://example.com/h?x=1").unwrap();
        assert_eq!((url.name, url.secret.is_none()), (None, true));
        assert_eq!(url.url.as_str(), "https://example.com/h?x=1");

        assert!(resolve("local").is_ok());
        assert!(resolve("http://127.0.0.1:9000/any").is_ok());
    }

    #[test]
    fn bad_targets() {
        let unknown = |name: &str| BadTarget::UnknownName {
            name: name.to_owned(),
        };
        for (value, why) in [
            ("nightli", unknown("nightli")),
            ("example.com", unknown("example.com")),
            ("", BadTarget::NotAUrl),
            ("//example.com/x", BadTarget::NotAUrl),
            ("https://", BadTarget::NotAUrl),
            ("two words", BadTarget::OddCharacter),
            ("https://exa\tmple.com/", BadTarget::OddCharacter),
            (
                "https://example.com/\nhost: inside",
                BadTarget::OddCharacter,
            ),
            ("https://127.0.0\r\n.1/", BadTarget::OddCharacter),
            ("https://example.com/\u{0}", BadTarget::OddCharacter),
            ("https://example.com\\@127.0.0.1/", BadTarget::OddCharacter),
            ("https:\\\\127.0.0.1\\", BadTarget::OddCharacter),
            ("https://example.com\u{2028}/", BadTarget::OddCharacter),
            ("https://[fe80::1%25eth0]/", BadTarget::NotAUrl),
            ("https://[fe80::1%eth0]/", BadTarget::NotAUrl),
            ("https://[::1/", BadTarget::NotAUrl),
            ("https://example.com:99999/", BadTarget::NotAUrl),
            ("https://example.com:-1/", BadTarget::NotAUrl),
            ("https://256.1.1.1/", BadTarget::NotAUrl),
            ("https://08.1.1.1/", BadTarget::NotAUrl),
            ("https://1.2.3.4.5/", BadTarget::NotAUrl),
            ("https://0x7f.0.0.0x100/", BadTarget::NotAUrl),
            ("https://xn--a/", BadTarget::NotAUrl),
            ("https://exa%00mple.com/", BadTarget::NotAUrl),
            (
                "https:127.0.0.1/",
                BadTarget::Refused(Refused::Address { kind: "loopback" }),
            ),
            (
                "https:////127.0.0.1/",
                BadTarget::Refused(Refused::Address { kind: "loopback" }),
            ),
            (
                "http://example.com/",
                BadTarget::Refused(Refused::PlainHttp),
            ),
            ("mailto:a@b.c", BadTarget::Refused(Refused::Scheme)),
            (
                "inside",
                BadTarget::Refused(Refused::Address { kind: "private" }),
            ),
        ] {
            assert_eq!(resolve(value).unwrap_err(), why, "{value}");
        }
        let long = format!("https://example.com/{}", "x".repeat(2048));
        assert_eq!(resolve(&long).unwrap_err(), BadTarget::TooLong);
    }

    #[test]
    fn printed_settings_hold_no_secret() {
        let text = format!("{:?} {:?}", settings(), resolve("nightly").unwrap());
        assert!(!text.contains("whsec_"), "{text}");
    }
}
