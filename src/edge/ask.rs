//! What a call's headers ask for besides the deadline (DESIGN.md §1).

use std::time::Duration;

use http::{HeaderMap, HeaderName, header};

use super::{errors::ApiError, prefer::Preference};
use crate::model::{body::Scan, endpoint::Endpoint, request::OnLate};

/// The headers of a deferred call, read and bounded.
#[derive(Debug, Default, PartialEq)]
pub struct Ask {
    pub prefer: Preference,
    pub on_late: OnLate,
    pub tag: Option<String>,
    pub webhook: Option<String>,
    pub idempotency_key: Option<String>,
    /// `x-stainless-retry-count`: how often an SDK has sent this call before.
    pub retry: u32,
}

impl Ask {
    /// `max_wait` bounds `Prefer: wait=N`.
    ///
    /// # Errors
    /// 400 for a header or a value that we would have to guess the meaning of.
    /// `Prefer` and the SDKs' own headers are hints, and never refused.
    pub fn read(headers: &HeaderMap, max_wait: Duration) -> Result<Ask, ApiError> {
        all_known(headers)?;
        let on_late = match single(headers, &ON_LATE, "Offpeak-On-Late", ON_LATE_ACCEPTED)? {
            None => OnLate::default(),
            Some("rescue") => OnLate::Rescue,
            Some("wait") => OnLate::Wait,
            Some("fail") => OnLate::Fail,
            Some(other) => {
                let message = format!("`{other}` is no value for Offpeak-On-Late.");
                return Err(refused("Offpeak-On-Late", &message, ON_LATE_ACCEPTED));
            }
        };
        let retry = headers
            .get(&RETRY_COUNT)
            .and_then(|value| value.to_str().ok());
        Ok(Ask {
            prefer: preference(headers, max_wait),
            on_late,
            tag: label(headers, &TAG, "Offpeak-Tag", 128, TAG_ACCEPTED)?,
            webhook: single(headers, &WEBHOOK, "Offpeak-Webhook", WEBHOOK_ACCEPTED)?
                .map(str::to_owned),
            idempotency_key: label(headers, &IDEMPOTENCY, "Idempotency-Key", 255, KEY_ACCEPTED)?,
            retry: retry.and_then(|count| count.parse().ok()).unwrap_or(0),
        })
    }

    /// Whether the caller waits on the line, given the body's own wishes.
    ///
    /// # Errors
    /// 400 for a stream that nobody would read: both SDKs take a 202 to a
    /// streamed call for a stream without events (WIRE.md §3).
    pub fn held(&self, scan: &Scan, endpoint: Endpoint) -> Result<bool, ApiError> {
        let background = scan.background && endpoint == Endpoint::Responses;
        let leaves = match () {
            () if self.prefer.respond_async => Some("Prefer: respond-async"),
            () if background => Some("background: true"),
            () if self.webhook.is_some() && self.prefer.wait.is_none() => {
                Some("Offpeak-Webhook without Prefer: wait=N")
            }
            () => None,
        };
        match leaves {
            Some(what) if scan.stream => Err(ApiError::bad(
                "stream_not_held",
                format!(
                    "`stream: true` cannot be combined with {what}: there would be no \
                     stream to read. Accepted: `stream: true` on a call that waits for \
                     its answer, or {what} with `stream: false`."
                ),
            )
            .param("stream")),
            Some(_) => Ok(self.prefer.wait.is_some()),
            None => Ok(true),
        }
    }
}

const ON_LATE: HeaderName = HeaderName::from_static("offpeak-on-late");
const TAG: HeaderName = HeaderName::from_static("offpeak-tag");
const WEBHOOK: HeaderName = HeaderName::from_static("offpeak-webhook");
const IDEMPOTENCY: HeaderName = HeaderName::from_static("idempotency-key");
const RETRY_COUNT: HeaderName = HeaderName::from_static("x-stainless-retry-count");
const PREFER: HeaderName = HeaderName::from_static("prefer");

/// Every header of ours that a call may carry.
const OURS: [&str; 4] = [
    "Offpeak-Deadline",
    "Offpeak-On-Late",
    "Offpeak-Tag",
    "Offpeak-Webhook",
];
const PREFIX: &str = "offpeak-";
/// How alike two names must look, 0 to 1, for one to be a slip of the other.
const NEAR: f64 = 0.5;

const ON_LATE_ACCEPTED: &str =
    "`rescue` (pay more to be on time), `wait` (stay cheap, be late) or `fail`";
const TAG_ACCEPTED: &str = "1 to 128 printable ASCII characters";
const KEY_ACCEPTED: &str = "1 to 255 printable ASCII characters";
const WEBHOOK_ACCEPTED: &str = "the name of a configured endpoint, or an https URL";

/// A misspelt `Offpeak-On-Late: wait` would cost its caller the full price.
fn all_known(headers: &HeaderMap) -> Result<(), ApiError> {
    let is_ours = |name: &str| OURS.iter().any(|ours| ours.eq_ignore_ascii_case(name));
    let mut names = headers.keys().map(HeaderName::as_str);
    let Some(unknown) = names.find(|name| name.starts_with(PREFIX) && !is_ours(name)) else {
        return Ok(());
    };
    let likeness = |ours: &str| {
        let (given, ours) = (&unknown[PREFIX.len()..], &ours[PREFIX.len()..]);
        strsim::normalized_damerau_levenshtein(given, &ours.to_ascii_lowercase())
    };
    let nearest = OURS
        .iter()
        .max_by(|a, b| likeness(a).total_cmp(&likeness(b)))
        .filter(|ours| likeness(ours) >= NEAR);
    let meant = nearest.map_or_else(String::new, |ours| format!(" Did you mean {ours}?"));
    Err(ApiError::bad(
        "unknown_header",
        format!(
            "There is no header `{unknown}`.{meant} Accepted: {}.",
            OURS.join(", ")
        ),
    ))
}

/// What is asked of the answer's form, with `wait` cut to its bound.
pub fn preference(headers: &HeaderMap, max_wait: Duration) -> Preference {
    let lines = headers
        .get_all(&PREFER)
        .iter()
        .map(|value| value.as_bytes());
    let asked = Preference::parse(lines);
    Preference {
        wait: asked.wait.map(|wait| wait.min(max_wait)),
        ..asked
    }
}

/// # Errors
/// 415 for a body that only somebody else could read.
pub fn plain_body(headers: &HeaderMap) -> Result<(), ApiError> {
    let coded = headers
        .get_all(header::CONTENT_ENCODING)
        .iter()
        .find(|value| {
            !value
                .as_bytes()
                .trim_ascii()
                .eq_ignore_ascii_case(b"identity")
        });
    match coded {
        None => Ok(()),
        Some(coding) => {
            let coding = String::from_utf8_lossy(coding.as_bytes()).into_owned();
            Err(ApiError::invalid(
                http::StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_content_encoding",
                format!(
                    "A call with a deadline cannot have a body in Content-Encoding \
                     `{coding}`. Accepted: plain JSON."
                ),
            )
            .param("Content-Encoding"))
        }
    }
}

/// The answer to a webhook target that cannot be used.
pub fn bad_webhook(reason: &str) -> ApiError {
    let message = format!("This Offpeak-Webhook cannot be used: {reason}.");
    refused("Offpeak-Webhook", &message, WEBHOOK_ACCEPTED)
}

fn label(
    headers: &HeaderMap,
    name: &HeaderName,
    shown: &'static str,
    most: usize,
    accepted: &str,
) -> Result<Option<String>, ApiError> {
    match single(headers, name, shown, accepted)? {
        Some(value) if value.is_empty() || value.len() > most => {
            let message = format!("{shown} has {} characters.", value.len());
            Err(refused(shown, &message, accepted))
        }
        value => Ok(value.map(str::to_owned)),
    }
}

fn single<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
    shown: &'static str,
    accepted: &str,
) -> Result<Option<&'a str>, ApiError> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        let message = format!("{shown} is given more than once.");
        return Err(refused(shown, &message, accepted));
    }
    match value.to_str() {
        Ok(text) if !text.contains('\t') => Ok(Some(text.trim())),
        _ => {
            let message = format!("{shown} holds characters that are not printable ASCII.");
            Err(refused(shown, &message, accepted))
        }
    }
}

fn refused(shown: &'static str, message: &str, accepted: &str) -> ApiError {
    ApiError::bad("invalid_header", format!("{message} Accepted: {accepted}.")).param(shown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::body;

    const MAX: Duration = Duration::from_secs(60);

    fn ask(fields: &[(&'static str, &'static str)]) -> Result<Ask, ApiError> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        Ask::read(&headers, MAX)
    }

    #[test]
    fn what_is_read() {
        let asked = ask(&[
            ("prefer", "wait=600"),
            ("offpeak-on-late", "fail"),
            ("offpeak-tag", " nightly eval "),
            ("offpeak-webhook", "billing"),
            ("idempotency-key", "k"),
            ("x-stainless-retry-count", "2"),
        ])
        .unwrap();
        assert_eq!(asked.prefer.wait, Some(MAX));
        assert_eq!(asked.on_late, OnLate::Fail);
        assert_eq!(asked.tag.as_deref(), Some("nightly eval"));
        assert_eq!(asked.webhook.as_deref(), Some("billing"));
        assert_eq!(
            (asked.idempotency_key.as_deref(), asked.retry),
            (Some("k"), 2)
        );
        assert_eq!(
            ask(&[("x-stainless-retry-count", "x")]).unwrap(),
            Ask::default()
        );
    }

    #[test]
    fn what_is_refused() {
        let long: &'static str = "x".repeat(256).leak();
        for fields in [
            &[("offpeak-on-late", "later")][..],
            &[("offpeak-on-late", "wait"), ("offpeak-on-late", "fail")],
            &[("offpeak-tag", "")],
            &[("offpeak-tag", &long[..129])],
            &[("offpeak-tag", "a\tb")],
            &[("offpeak-tag", "é")],
            &[("idempotency-key", long)],
            &[("idempotency-key", " ")],
        ] {
            let error = ask(fields).unwrap_err();
            let text = String::from_utf8(error.body().to_vec()).unwrap();
            assert!(text.contains("Accepted: "), "{fields:?}: {text}");
        }
    }

    #[test]
    fn a_header_that_is_not_ours_is_named_with_what_was_meant() {
        for (name, meant) in [
            ("offpeak-onlate", Some("Offpeak-On-Late")),
            ("offpeak-on_late", Some("Offpeak-On-Late")),
            ("offpeak-web-hook", Some("Offpeak-Webhook")),
            ("offpeak-tags", Some("Offpeak-Tag")),
            ("offpeak-dedline", Some("Offpeak-Deadline")),
            ("offpeak-priority", None),
            ("offpeak-", None),
        ] {
            let error = ask(&[("offpeak-deadline", "6h"), (name, "x")]).unwrap_err();
            let text = String::from_utf8(error.body().to_vec()).unwrap();
            assert!(
                text.contains(name) && text.contains("unknown_header"),
                "{text}"
            );
            match meant {
                Some(ours) => assert!(text.contains(&format!("Did you mean {ours}?")), "{text}"),
                None => assert!(!text.contains("Did you mean"), "{text}"),
            }
        }
        assert!(ask(&[("offpeaks-tag", "x"), ("x-offpeak", "y")]).is_ok());
    }

    #[test]
    fn who_waits() {
        let plain = r#"{"model":"m","input":"x"}"#;
        let streamed = r#"{"model":"m","input":"x","stream":true}"#;
        let background = r#"{"model":"m","input":"x","background":true}"#;
        type Row<'a> = (&'a [(&'a str, &'a str)], &'a str, Option<bool>);
        let table: &[Row<'_>] = &[
            (&[], plain, Some(true)),
            (&[("prefer", "wait=5")], plain, Some(true)),
            (&[("prefer", "respond-async")], plain, Some(false)),
            (&[("prefer", "respond-async, wait=5")], plain, Some(true)),
            (&[("offpeak-webhook", "w")], plain, Some(false)),
            (
                &[("offpeak-webhook", "w"), ("prefer", "wait=5")],
                plain,
                Some(true),
            ),
            (&[], background, Some(false)),
            (&[], streamed, Some(true)),
            (
                &[("offpeak-webhook", "w"), ("prefer", "wait=5")],
                streamed,
                Some(true),
            ),
            (&[("prefer", "respond-async")], streamed, None),
            (&[("offpeak-webhook", "w")], streamed, None),
        ];
        for (fields, text, expected) in table {
            let mut headers = HeaderMap::new();
            for (name, value) in *fields {
                let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
                headers.append(name, value.parse().unwrap());
            }
            let ask = Ask::read(&headers, MAX).unwrap();
            let scan = body::scan(text.as_bytes(), Endpoint::Responses).unwrap();
            let held = ask.held(&scan, Endpoint::Responses);
            assert_eq!(held.ok(), *expected, "{fields:?} {text}");
        }
    }
}
