//! Webhooks: tried until they arrive, for `webhook.horizon` at most, then kept
//! as dead letters. The same event id at every try.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::{
    model::{
        request::{Framing, Outcome, Request, State},
        time::Timestamp,
    },
    policy::backoff::Backoff,
    ports::{Content, Delivery, DeliveryStatus, HookEvent, HookOutcome, StoreError},
};

use super::{Engine, drive::Next, settings::HookSettings};

const PAGE: usize = 256;
/// How long a delivery waits for its acknowledgement, at most: a connection may
/// be stalled for good.
const UNFLUSHED_PATIENCE: Duration = Duration::from_secs(5);
/// The first pause before looking whether an acknowledgement has been sent.
const UNFLUSHED_PAUSE: Duration = Duration::from_millis(20);
const AFTER_FAILURE: Duration = Duration::from_secs(1);

impl Engine {
    pub(super) async fn courier_turn(self: &Arc<Self>) -> Result<Next, StoreError> {
        let now = self.now();
        let mut next = Next::OnSignal;
        let mut limit = PAGE;
        loop {
            let due = self.store.due_deliveries(now, limit).await?;
            let all = due.len() < limit;
            for delivery in due {
                if self.inflight.deliveries.len() >= self.settings.webhook.max_concurrent as usize {
                    return Ok(Next::OnSignal);
                }
                match self.flushed_by(&delivery, now) {
                    Some(look) => next = next.sooner(Next::At(look)),
                    None => self.send(delivery),
                }
            }
            if all {
                break;
            }
            // Those before were skipped or are in hand: what is behind them is due.
            limit = limit.saturating_mul(2);
        }
        let later = self.store.next_delivery().await?.filter(|due| *due > now);
        Ok(next.sooner(later.map_or(Next::OnSignal, Next::At)))
    }

    /// When to look again at a delivery whose acknowledgement is still on the way:
    /// a moment's matter mostly, so in ever longer steps, and not for ever.
    fn flushed_by(&self, delivery: &Delivery, now: Timestamp) -> Option<Timestamp> {
        let patience = delivery.due + UNFLUSHED_PATIENCE;
        let waits = patience > now && self.unflushed.contains(&delivery.key);
        let age = delivery.due.until(now);
        waits.then(|| patience.min(now + age.max(UNFLUSHED_PAUSE)))
    }

    fn send(self: &Arc<Self>, delivery: Delivery) {
        if let Some(in_hand) = self.inflight.deliveries.begin(delivery.key) {
            let engine = self.clone();
            self.tasks.spawn(async move {
                if let Err(error) = engine.deliver(delivery).await {
                    tracing::error!(id = %delivery.key.id, %error, "delivering");
                    // It stays due: not sent over and over while the store fails.
                    tokio::time::sleep(AFTER_FAILURE).await;
                }
                drop(in_hand);
                engine.signals.courier.notify_one();
            });
        }
    }

    async fn deliver(self: &Arc<Self>, delivery: Delivery) -> Result<(), StoreError> {
        let tries = delivery.tries + 1;
        let dead = |last: String| DeliveryStatus::Dead {
            at: self.now(),
            tries,
            last,
        };
        let status = match self.store.load(delivery.key).await? {
            None => dead("the request was erased".into()),
            Some(stored) => match (stored.request.webhook.clone(), stored.content) {
                (Some(target), Content::Done { outcome, answer }) => {
                    let body =
                        event_body(&stored.request, &outcome, &answer, &self.settings.webhook);
                    let event = HookEvent {
                        target,
                        tenant: delivery.key.tenant,
                        id: delivery.key.id.event(),
                        now: self.now(),
                        body,
                    };
                    self.after(&delivery, tries, self.deliver.deliver(event).await)
                }
                _ => dead("the request has no webhook".into()),
            },
        };
        self.store.record_delivery(delivery, status).await
    }

    fn after(&self, delivery: &Delivery, tries: u32, outcome: HookOutcome) -> DeliveryStatus {
        let now = self.now();
        let id = delivery.key.id;
        match outcome {
            HookOutcome::Delivered => DeliveryStatus::Delivered { at: now, tries },
            HookOutcome::GiveUp { reason } => {
                tracing::warn!(%id, tries, %reason, "a webhook is given up");
                DeliveryStatus::Dead {
                    at: now,
                    tries,
                    last: reason,
                }
            }
            HookOutcome::Retry { reason, after } => {
                let settings = &self.settings.webhook;
                let backoff = Backoff {
                    first_retry: settings.first_retry,
                    horizon: settings.horizon,
                };
                let Some(next) = backoff.next_attempt(
                    delivery.first_due,
                    now,
                    tries,
                    after,
                    self.clock.random(),
                ) else {
                    tracing::warn!(%id, tries, %reason, "a webhook is a dead letter");
                    return DeliveryStatus::Dead {
                        at: now,
                        tries,
                        last: reason,
                    };
                };
                tracing::info!(%id, tries, %reason, %next, "a webhook is tried again");
                DeliveryStatus::Pending {
                    next,
                    tries,
                    last: Some(reason),
                }
            }
        }
    }
}

/// The event that a webhook carries (DESIGN.md §1).
pub fn event_body(
    request: &Request,
    outcome: &Outcome,
    answer: &[u8],
    settings: &HookSettings,
) -> Bytes {
    #[derive(Serialize)]
    struct Event<'a> {
        object: &'static str,
        id: String,
        r#type: &'static str,
        created_at: u64,
        data: Data<'a>,
    }
    #[derive(Serialize)]
    struct Data<'a> {
        id: String,
        endpoint: &'static str,
        tag: Option<&'a str>,
        status_code: u16,
        #[serde(skip_serializing_if = "Option::is_none")]
        response: Option<&'a RawValue>,
        #[serde(skip_serializing_if = "Option::is_none")]
        result_url: Option<String>,
    }
    let raw = (answer.len() as u64 <= settings.max_inline_bytes
        && outcome.framing == Framing::Json)
        .then(|| serde_json::from_slice::<&RawValue>(answer).ok())
        .flatten();
    let result_url = raw.is_none().then(|| {
        format!(
            "{}{}/{}",
            settings.public_url,
            request.endpoint.path(),
            request.key.id
        )
    });
    let event = Event {
        object: "event",
        id: request.key.id.event(),
        r#type: match outcome.state {
            State::Succeeded => "offpeak.request.succeeded",
            State::Cancelled => "offpeak.request.cancelled",
            _ => "offpeak.request.failed",
        },
        created_at: outcome.finished.as_secs(),
        data: Data {
            id: request.key.id.to_string(),
            endpoint: request.endpoint.path(),
            tag: request.tag.as_deref(),
            status_code: outcome.status,
            response: raw,
            result_url,
        },
    };
    // Plain strings and valid JSON always serialise.
    serde_json::to_vec(&event).unwrap_or_default().into()
}
