//! `POST /offpeak/webhooks/openai`: the provider says that a batch has ended
//! (WIRE.md §4). An event is a hint to look at the batch, and no more: whatever it
//! says, polls decide.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::State,
    response::Response,
    routing::post,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;
use ring::hmac;
use serde::Deserialize;

use super::json;
use crate::{
    edge::{Edge, errors::ApiError},
    model::{secret::Secret, time::Timestamp},
};

/// The provider's events hold an id and a type.
const MAX_BODY: usize = 64 * 1024;
/// How far an event's time may be from ours, as the SDKs have it.
const TOLERANCE: Duration = Duration::from_secs(300);
/// Signatures of one event that are looked at.
const SIGNATURES: usize = 8;
/// The longest id that is remembered.
const LONGEST_ID: usize = 256;
/// Ids that are remembered.
const REMEMBERED: usize = 4096;
/// Fewer bytes than this can be guessed.
const SHORTEST_SECRET: usize = 16;

pub fn routes() -> Router<Arc<Edge>> {
    Router::new().route("/offpeak/webhooks/openai", post(receive))
}

/// Who may send events, and which came already.
pub struct UpstreamEvents {
    /// One, or several while a secret rotates; none: no event is taken.
    keys: Vec<hmac::Key>,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    ids: HashSet<String>,
    order: VecDeque<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "OFFPEAK_UPSTREAM_WEBHOOK_SECRET holds the signing secrets of the provider's webhooks, \
     `whsec_` followed by base64, with spaces between them"
)]
pub struct BadUpstreamSecret;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Unverified {
    #[error("webhook-id, webhook-timestamp and webhook-signature are needed, once each")]
    Headers,
    #[error("its time is more than five minutes from ours")]
    Time,
    #[error("no signature is of a secret that is known here")]
    Signature,
}

impl UpstreamEvents {
    /// `secrets` holds one or several, with white space between them.
    pub fn new(secrets: Option<&Secret>) -> Result<Self, BadUpstreamSecret> {
        let secrets = secrets.map_or("", |secrets| secrets.expose());
        let keys = secrets.split_whitespace().map(|secret| {
            let encoded = secret.strip_prefix("whsec_").ok_or(BadUpstreamSecret)?;
            let bytes = STANDARD.decode(encoded).map_err(|_| BadUpstreamSecret)?;
            match bytes.len() < SHORTEST_SECRET {
                true => Err(BadUpstreamSecret),
                false => Ok(hmac::Key::new(hmac::HMAC_SHA256, &bytes)),
            }
        });
        Ok(UpstreamEvents {
            keys: keys.collect::<Result<_, _>>()?,
            seen: Mutex::default(),
        })
    }

    /// The id of an event that was signed with one of the secrets, a moment ago.
    fn verify<'a>(
        &self,
        headers: &'a HeaderMap,
        body: &[u8],
        now: Timestamp,
    ) -> Result<&'a str, Unverified> {
        let id = single(headers, "webhook-id")?;
        let sent = single(headers, "webhook-timestamp")?;
        let signatures = single(headers, "webhook-signature")?;
        if id.is_empty() || id.len() > LONGEST_ID || !sent.bytes().all(|it| it.is_ascii_digit()) {
            return Err(Unverified::Headers);
        }
        let seconds: u64 = sent.parse().map_err(|_| Unverified::Headers)?;
        if now.as_secs().abs_diff(seconds) > TOLERANCE.as_secs() {
            return Err(Unverified::Time);
        }
        let signed = [format!("{id}.{sent}.").as_bytes(), body].concat();
        let given = signatures.split(' ').take(SIGNATURES);
        let mut given = given
            .filter_map(|one| one.strip_prefix("v1,"))
            .filter_map(|one| STANDARD.decode(one).ok());
        // ring compares in constant time.
        let is_ours = |tag: &Vec<u8>| {
            let mut keys = self.keys.iter();
            keys.any(|key| hmac::verify(key, &signed, tag).is_ok())
        };
        match given.any(|tag| is_ours(&tag)) {
            true => Ok(id),
            false => Err(Unverified::Signature),
        }
    }

    /// Whether it has not come before, as far as is remembered.
    fn is_new(&self, id: &str) -> bool {
        let mut seen = self.seen.lock();
        if !seen.ids.insert(id.to_owned()) {
            return false;
        }
        seen.order.push_back(id.to_owned());
        if seen.order.len() > REMEMBERED
            && let Some(oldest) = seen.order.pop_front()
        {
            seen.ids.remove(&oldest);
        }
        true
    }
}

fn single<'a>(headers: &'a HeaderMap, name: &str) -> Result<&'a str, Unverified> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().map_err(|_| Unverified::Headers),
        _ => Err(Unverified::Headers),
    }
}

/// Whatever was signed is a success, understood or not: the provider would only send
/// it again.
async fn receive(
    State(edge): State<Arc<Edge>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let events = &edge.upstream_events;
    if events.keys.is_empty() {
        return Err(ApiError::not_found(
            "No events are taken here: OFFPEAK_UPSTREAM_WEBHOOK_SECRET is not set.",
        ));
    }
    let body = to_bytes(body, MAX_BODY).await.map_err(|_| {
        let message = format!("The body broke off, or is longer than {MAX_BODY} bytes.");
        ApiError::bad("unreadable_body", message)
    })?;
    let id = events
        .verify(&headers, &body, edge.engine.now())
        .map_err(|reason| {
            let message = format!("This is no event of the provider: {reason}.");
            ApiError::invalid(StatusCode::UNAUTHORIZED, "invalid_signature", message)
        })?;
    let is_news = events.is_new(id);
    if let Some(batch) = ended_batch(&body).filter(|_| is_news) {
        let known = edge.engine.hear_of_batch(&batch);
        tracing::debug!(%batch, known, "the provider says that a batch has ended");
    }
    json(&serde_json::json!({"received": true}))
}

fn ended_batch(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Event {
        r#type: String,
        data: Data,
    }
    #[derive(Deserialize)]
    struct Data {
        id: String,
    }
    let event: Event = serde_json::from_slice(body).ok()?;
    let ended = ["completed", "failed", "expired", "cancelled"];
    let how = event.r#type.strip_prefix("batch.")?;
    ended.contains(&how).then_some(event.data.id)
}

#[cfg(test)]
mod tests {
    use http::HeaderName;
    use standardwebhooks::Webhook;

    use super::*;

    const OLD: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
    const NEW: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const NOW: Timestamp = Timestamp::from_secs(1_763_832_346);
    const BODY: &[u8] = br#"{"type":"batch.completed","data":{"id":"batch_1"}}"#;

    fn events(secrets: &str) -> UpstreamEvents {
        UpstreamEvents::new(Some(&Secret::new(secrets))).unwrap()
    }

    fn headers(fields: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let name = HeaderName::try_from(*name).unwrap();
            headers.append(name, value.parse().unwrap());
        }
        headers
    }

    fn signed(secret: &str, id: &str, at: i64) -> (String, HeaderMap) {
        let signature = Webhook::new(secret).unwrap().sign(id, at, BODY).unwrap();
        let fields = headers(&[
            ("webhook-id", id),
            ("webhook-timestamp", &at.to_string()),
            ("webhook-signature", &signature),
        ]);
        (signature, fields)
    }

    #[test]
    fn what_the_crate_signs_is_verified() {
        let at = NOW.as_secs() as i64;
        let both = events(&format!("{NEW}  {OLD}\n"));
        for secret in [OLD, NEW] {
            for seconds in [-300, 0, 300] {
                let (_, fields) = signed(secret, "wh_1", at + seconds);
                assert_eq!(both.verify(&fields, BODY, NOW), Ok("wh_1"));
            }
        }
        let (_, old) = signed(OLD, "wh_1", at);
        assert_eq!(
            events(NEW).verify(&old, BODY, NOW),
            Err(Unverified::Signature)
        );
        // Of several signatures one is enough.
        let (signature, mut fields) = signed(OLD, "wh_1", at);
        let several = format!("v2,x v1,*** v1,AAAA {signature}");
        fields.insert("webhook-signature", several.parse().unwrap());
        assert_eq!(events(OLD).verify(&fields, BODY, NOW), Ok("wh_1"));
    }

    #[test]
    fn what_is_refused() {
        let at = NOW.as_secs() as i64;
        let seconds = at.to_string();
        let events = events(OLD);
        let (signature, whole) = signed(OLD, "wh_1", at);
        for (fields, why) in [
            (signed(OLD, "wh_1", at - 301).1, Unverified::Time),
            (signed(OLD, "wh_1", at + 301).1, Unverified::Time),
            (headers(&[]), Unverified::Headers),
            (signed(OLD, "", at).1, Unverified::Headers),
            (signed(OLD, &"x".repeat(257), at).1, Unverified::Headers),
            (
                headers(&[
                    ("webhook-id", "wh_2"),
                    ("webhook-timestamp", &seconds),
                    ("webhook-signature", &signature),
                ]),
                Unverified::Signature,
            ),
            (
                headers(&[
                    ("webhook-id", "wh_1"),
                    ("webhook-timestamp", &format!("+{seconds}")),
                    ("webhook-signature", &signature),
                ]),
                Unverified::Headers,
            ),
            (
                headers(&[
                    ("webhook-id", "wh_1"),
                    ("webhook-id", "wh_1"),
                    ("webhook-timestamp", &seconds),
                    ("webhook-signature", &signature),
                ]),
                Unverified::Headers,
            ),
            (
                headers(&[
                    ("webhook-id", "wh_1"),
                    ("webhook-timestamp", &seconds),
                    ("webhook-signature", signature.strip_prefix("v1,").unwrap()),
                ]),
                Unverified::Signature,
            ),
        ] {
            assert_eq!(events.verify(&fields, BODY, NOW), Err(why), "{fields:?}");
        }
        assert_eq!(
            events.verify(&whole, &BODY[1..], NOW),
            Err(Unverified::Signature)
        );
    }

    #[test]
    fn secrets_that_cannot_work_are_told() {
        for secrets in ["hunter2", "whsec_", "whsec_c2hvcnQ=", "whsec_***"] {
            let secrets = Secret::new(format!("{OLD} {secrets}"));
            assert!(UpstreamEvents::new(Some(&secrets)).is_err());
        }
        assert!(UpstreamEvents::new(None).unwrap().keys.is_empty());
    }

    #[test]
    fn an_event_is_news_once_and_few_are_remembered() {
        let events = events(OLD);
        assert!(events.is_new("wh_1") && !events.is_new("wh_1"));
        for number in 0..REMEMBERED {
            assert!(events.is_new(&number.to_string()));
        }
        assert_eq!(events.seen.lock().ids.len(), REMEMBERED);
        assert!(events.is_new("wh_1"), "forgotten");
    }

    #[test]
    fn only_ends_of_batches_are_hints() {
        let text =
            |kind: &str| format!(r#"{{"object":"event","type":"{kind}","data":{{"id":"b"}}}}"#);
        for kind in ["completed", "failed", "expired", "cancelled"] {
            let event = text(&format!("batch.{kind}"));
            assert_eq!(ended_batch(event.as_bytes()).as_deref(), Some("b"));
        }
        for body in [
            &text("batch.created"),
            &text("response.completed"),
            "[]",
            "",
        ] {
            assert_eq!(ended_batch(body.as_bytes()), None);
        }
    }
}
