//! Standard Webhooks signatures (WIRE.md §4), what openai-python's and
//! openai-node's `client.webhooks.unwrap` verify:
//! `v1,base64(HMAC-SHA256(secret, "{id}.{timestamp}.{body}"))`.
//!
//! On ring's HMAC: the `standardwebhooks` crate signs UTF-8 only and copies the
//! body, while an answer may hold any bytes. The tests verify with that crate.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue};
use ring::hmac;

use crate::model::{secret::Secret, time::Timestamp};

pub const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
pub const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
pub const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// Fewer bytes than this can be guessed. Standard Webhooks advises 24 to 64.
const SHORTEST_SECRET: usize = 16;

/// One signing secret, decoded.
#[derive(Clone)]
pub struct SigningKey(hmac::Key);

impl SigningKey {
    /// Reads `whsec_` + base64. Without the prefix the SDKs take the text itself
    /// for the key and the Standard Webhooks libraries decode it, so that such a
    /// secret is refused rather than signed in a way half the receivers reject.
    pub fn parse(secret: &Secret) -> Result<Self, BadSecret> {
        let encoded = secret.expose().trim().strip_prefix("whsec_");
        let bytes = encoded
            .and_then(|encoded| STANDARD.decode(encoded).ok())
            .ok_or(BadSecret::Encoding)?;
        if bytes.len() < SHORTEST_SECRET {
            return Err(BadSecret::Short);
        }
        Ok(SigningKey(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
    }

    fn sign(&self, id: &str, seconds: u64, body: &[u8]) -> String {
        let mut mac = hmac::Context::with_key(&self.0);
        mac.update(format!("{id}.{seconds}.").as_bytes());
        mac.update(body);
        format!("v1,{}", STANDARD.encode(mac.sign()))
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey([redacted])")
    }
}

/// The three headers for one attempt at `now`, with one signature a key:
/// several while a secret rotates. `None` when there is no key, or when `id`
/// cannot stand in a header or holds the `.` that separates it from the time.
pub fn headers(id: &str, now: Timestamp, body: &[u8], keys: &[SigningKey]) -> Option<HeaderMap> {
    if keys.is_empty() || id.contains('.') {
        return None;
    }
    let seconds = now.as_secs();
    let signatures: Vec<String> = keys.iter().map(|key| key.sign(id, seconds, body)).collect();
    Some(HeaderMap::from_iter([
        (WEBHOOK_ID, HeaderValue::from_str(id).ok()?),
        (WEBHOOK_TIMESTAMP, HeaderValue::from(seconds)),
        (
            WEBHOOK_SIGNATURE,
            HeaderValue::from_str(&signatures.join(" ")).ok()?,
        ),
    ]))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadSecret {
    #[error("a webhook secret is `whsec_` followed by base64")]
    Encoding,
    #[error("a webhook secret needs at least {SHORTEST_SECRET} bytes, better 24 to 64")]
    Short,
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Whether a receiver with this secret takes the signature for its own. The
    /// crate's own `verify` would hold the time against the machine's clock.
    pub fn verifies(secret: &str, headers: &HeaderMap, body: &[u8]) -> bool {
        let text = |name: HeaderName| headers[name].to_str().unwrap();
        let seconds = text(WEBHOOK_TIMESTAMP).parse().unwrap();
        let receiver = standardwebhooks::Webhook::new(secret).unwrap();
        let expected = receiver.sign(text(WEBHOOK_ID), seconds, body).unwrap();
        text(WEBHOOK_SIGNATURE)
            .split(' ')
            .any(|one| one == expected)
    }

    fn key(text: &str) -> SigningKey {
        SigningKey::parse(&Secret::new(text)).unwrap()
    }

    const OLD: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
    const NEW: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    /// The example of the specification's own libraries.
    #[test]
    fn signs_the_published_vector() {
        let headers = headers(
            "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
            Timestamp::from_millis(1_649_367_553_999),
            br#"{"email":"test@example.com","username":"test_user"}"#,
            &[key(OLD)],
        )
        .unwrap();
        assert_eq!(headers["webhook-id"], "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk");
        assert_eq!(headers["webhook-timestamp"], "1649367553");
        assert_eq!(
            headers["webhook-signature"],
            "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw="
        );
    }

    #[test]
    fn while_a_secret_rotates_both_receivers_verify() {
        let body = br#"{"object":"event"}"#;
        let now = Timestamp::from_secs(1_763_832_346);
        let headers = headers("evt_1", now, body, &[key(NEW), key(OLD)]).unwrap();
        assert_eq!(headers["webhook-timestamp"], "1763832346");
        for secret in [OLD, NEW] {
            assert!(verifies(secret, &headers, body));
            assert!(!verifies(secret, &headers, br#"{"object":"evenT"}"#));
        }
        let other = "whsec_AAAAAAAAAAAAAAAAAAAAAAAA";
        assert!(!verifies(other, &headers, body));
    }

    #[test]
    fn bytes_that_are_no_utf_8_are_signed_too() {
        assert!(headers("evt_1", Timestamp::ZERO, b"\xff\xfe", &[key(OLD)]).is_some());
    }

    #[test]
    fn what_cannot_be_signed_is_not() {
        assert!(headers("evt_1", Timestamp::ZERO, b"", &[]).is_none());
        assert!(headers("evt.1", Timestamp::ZERO, b"", &[key(OLD)]).is_none());
        assert!(headers("evt\n1", Timestamp::ZERO, b"", &[key(OLD)]).is_none());
    }

    #[test]
    fn bad_secrets() {
        for (text, why) in [
            ("whsec_***", BadSecret::Encoding),
            ("C2FVsBQIhrscChlQIMV+b5sSYspob7oD", BadSecret::Encoding),
            ("whsec_", BadSecret::Short),
            ("whsec_c2hvcnQ=", BadSecret::Short),
        ] {
            assert_eq!(SigningKey::parse(&Secret::new(text)).unwrap_err(), why);
        }
        assert_eq!(format!("{:?}", key(OLD)), "SigningKey([redacted])");
    }
}
