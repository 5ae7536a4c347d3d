//! The one way a request ends here: durable first, then counted, then told.

use std::sync::{Arc, atomic::Ordering};

use bytes::Bytes;
use serde::Deserialize;

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
    #[derive(Deserialize)]
    struct Body {
        error: Error,
    }
    #[derive(Deserialize)]
    struct Error {
        code: Option<String>,
    }
    serde_json::from_slice::<Body>(body).ok()?.error.code
}
