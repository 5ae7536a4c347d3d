//! The one way a request ends here: durable first, then counted, then told.

use std::sync::{Arc, atomic::Ordering};

use bytes::Bytes;
use serde::{Deserialize, de::IgnoredAny};

use crate::{
    ledger,
    model::{
        attempt::Attempt,
        id::RequestKey,
        request::{Framing, Outcome, Place, Request, Source, State, Usage},
    },
    ports::{Ending, LedgerEntry, Settled, StoreError},
};

use super::{Engine, counted::Brief};

impl Engine {
    pub(super) async fn settle(
        self: &Arc<Self>,
        endings: Vec<Ending>,
    ) -> Result<Vec<(RequestKey, Settled)>, StoreError> {
        if endings.is_empty() {
            return Ok(Vec::new());
        }
        let told: Vec<(RequestKey, Source, LedgerEntry, Brief)> = endings
            .iter()
            .map(|ending| {
                let outcome = &ending.outcome;
                let (ledger, brief) = (ending.ledger.clone(), Brief::of(outcome));
                (ending.key, outcome.source, ledger, brief)
            })
            .collect();
        let results = self.store.settle(endings).await;
        let mut settled = Vec::with_capacity(told.len());
        let mut all = Ok(());
        for ((key, source, ledger, brief), result) in told.into_iter().zip(results) {
            match result {
                Ok(one) => {
                    if let Settled::Now { entry, .. } = &one {
                        self.endings.fetch_add(1, Ordering::Relaxed);
                        self.count_ending(entry, &brief, &ledger);
                        self.book(&ledger);
                        if let Source::Batch(batch) = source {
                            self.summary.lock().billed(&key, batch);
                        }
                    }
                    self.ended(key, &one);
                    settled.push((key, one));
                }
                Err(error) => {
                    // It may have ended all the same: who waits looks.
                    self.waiters.wake(key);
                    all = Err(error);
                }
            }
        }
        all.map(|()| settled)
    }

    fn ended(&self, key: RequestKey, settled: &Settled) {
        let waited = self.budgets.forget(&key);
        if self.backoffs.ended(&key) || waited {
            self.signals.live.notify_one();
        }
        // Whoever still listens there hears the end of it.
        self.taps.take(key);
        self.waiters.wake(key);
        let Settled::Now {
            entry,
            place,
            webhook,
            ..
        } = settled
        else {
            return;
        };
        match place {
            Some(place) => self.summary.lock().exit(place, entry),
            None => tracing::error!(id = %key.id, "ended, and was in no place we knew of"),
        }
        if *webhook {
            self.signals.courier.notify_one();
        }
        self.trace_ending(key);
    }

    /// An ending that Offpeak itself decides.
    pub(super) fn own_ending(
        &self,
        request: &Request,
        places: Vec<Place>,
        state: State,
        status: u16,
        reason: String,
        answer: Bytes,
    ) -> Ending {
        let outcome = Outcome {
            state,
            status,
            finished: self.now(),
            source: Source::Offpeak,
            framing: Framing::Json,
            reason,
            provider_request: None,
            usage: Usage::default(),
            bill: None,
        };
        self.ending(request, places, outcome, answer, None)
    }

    pub(super) fn ending(
        &self,
        request: &Request,
        places: Vec<Place>,
        outcome: Outcome,
        answer: Bytes,
        attempt: Option<Attempt>,
    ) -> Ending {
        let most = self.reserves.amount(&request.key);
        let ledger = LedgerEntry {
            key: ledger::key(request, &outcome),
            row: ledger::ending(
                request,
                &outcome,
                attempt.as_ref().and_then(|it| it.reserved),
                self.reckoned(&request.model, (&outcome, &answer[..]), most),
            ),
        };
        Ending {
            key: request.key,
            places,
            outcome,
            answer,
            ledger,
            attempt,
        }
    }

    /// Everywhere that an open request can be.
    pub(super) fn places_of(&self, request: &Request) -> Vec<Place> {
        let batches = self.summary.lock().batches_of(&request.cohort);
        let lines = batches.into_iter().map(Place::Line);
        [Place::Queue(request.cohort), Place::Live]
            .into_iter()
            .chain(lines)
            .collect()
    }
}

/// An error of ours in the shape of the provider's (WIRE.md §3).
pub fn error_body(message: &str, kind: &str, param: Option<&str>, code: Option<&str>) -> Bytes {
    serde_json::json!({
        "error": {"message": message, "type": kind, "param": param, "code": code}
    })
    .to_string()
    .into()
}

/// The `code` of a provider's error.
pub(super) fn error_code(body: &[u8]) -> Option<String> {
    serde_json::from_slice::<Refusal>(body)
        .ok()?
        .error
        .code?
        .into_name()
}

/// Why a request ended with this answer: an error by its status and the provider's name
/// for it, and then `planned`, why it was asked where it was. Never the error's message:
/// it may quote what the caller wrote.
pub(super) fn why_it_ended(status: u16, body: &[u8], planned: String) -> String {
    if status < 400 {
        return planned;
    }
    let refusal = serde_json::from_slice::<Refusal>(body).ok();
    let number = status.to_string();
    let name = refusal.and_then(|Refusal { error }| {
        let names = [error.code, error.kind].into_iter().flatten();
        let mut names = names.filter_map(Named::into_name);
        names.find(|name| is_name(name) && *name != number)
    });
    match name {
        Some(name) => format!("the provider answered {status} {name}; {planned}"),
        None => format!("the provider answered {status}; {planned}"),
    }
}

/// A word, as names of errors are; no sentence, which may be the caller's.
fn is_name(text: &str) -> bool {
    (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// The longest name of an error, in bytes.
const MAX_NAME: usize = 64;

/// A provider's error (WIRE.md §3).
#[derive(Deserialize)]
struct Refusal {
    error: Error,
}

#[derive(Deserialize)]
struct Error {
    code: Option<Named>,
    #[serde(rename = "type")]
    kind: Option<Named>,
}

/// Some providers count where others name.
#[derive(Deserialize)]
#[serde(untagged)]
enum Named {
    Text(String),
    Number(u32),
    Other(IgnoredAny),
}

impl Named {
    fn into_name(self) -> Option<String> {
        match self {
            Named::Text(text) => Some(text),
            Named::Number(number) => Some(number.to_string()),
            Named::Other(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_told_by_its_name_and_never_by_its_message() {
        let long = "x".repeat(65);
        for (status, body, told) in [
            (200, r#"{"error":{"code":"a"}}"#, "planned"),
            (
                400,
                r#"{"error":{"message":"my secret","type":"invalid_request_error","code":"invalid_value"}}"#,
                "the provider answered 400 invalid_value; planned",
            ),
            (
                400,
                r#"{"type":"error","error":{"type":"invalid_request_error","message":"my secret"}}"#,
                "the provider answered 400 invalid_request_error; planned",
            ),
            (
                404,
                r#"{"error":{"code":404,"message":"my secret","type":"NotFoundError"}}"#,
                "the provider answered 404 NotFoundError; planned",
            ),
            (
                400,
                r#"{"error":{"code":"my secret","type":{"my":"secret"}}}"#,
                "the provider answered 400; planned",
            ),
            (
                400,
                &format!(r#"{{"error":{{"code":"{long}","type":"too_long"}}}}"#),
                "the provider answered 400 too_long; planned",
            ),
            (
                400,
                r#"{"error":"my secret"}"#,
                "the provider answered 400; planned",
            ),
            (502, "<html>my secret", "the provider answered 502; planned"),
        ] {
            let why = why_it_ended(status, body.as_bytes(), "planned".into());
            assert_eq!(why, told, "{body}");
        }
    }

    #[test]
    fn a_code_is_read_as_it_is() {
        let code = |body: &str| error_code(body.as_bytes());
        assert_eq!(
            code(r#"{"error":{"code":"insufficient_quota"}}"#).as_deref(),
            Some("insufficient_quota")
        );
        assert_eq!(code(r#"{"error":{"code":null}}"#), None);
        assert_eq!(code(r#"{"error":{}}"#), None);
        assert_eq!(code("[]"), None);
    }
}
