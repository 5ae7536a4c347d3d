//! One try at one delivery: what is sent, and what becomes of it.

use std::sync::Arc;

use super::{super::Engine, event::event_body, receivers::Heard};
use crate::{
    model::{hook::TurnedOff, id::without_query},
    policy::circuit::Said,
    ports::{Content, Delivery, DeliveryStatus, HookEvent, HookOutcome, StoreError},
};

impl Engine {
    pub(super) async fn deliver(self: &Arc<Self>, delivery: Delivery) -> Result<Heard, StoreError> {
        // It may have been recorded between its being read and its being in hand.
        if !self.stands(&delivery).await? {
            return Ok(self.told(Said::Nothing, None));
        }
        let tries = delivery.tries + 1;
        let (status, heard) = match self.event(&delivery).await? {
            Ok(event) => self.attempt(&delivery, tries, event).await?,
            Err(last) => {
                let at = self.now();
                let tries = delivery.tries;
                let dead = DeliveryStatus::Dead { at, tries, last };
                (dead, self.told(Said::Nothing, None))
            }
        };
        self.record(delivery, status).await?;
        Ok(heard)
    }

    /// Writes down how a delivery stands, and counts it where that is its end.
    pub(super) async fn record(
        &self,
        delivery: Delivery,
        status: DeliveryStatus,
    ) -> Result<(), StoreError> {
        self.store.record_delivery(delivery, status.clone()).await?;
        self.metrics.webhooks.recorded(&status);
        if let DeliveryStatus::Dead { tries, last, .. } = &status {
            tracing::warn!(id = %delivery.key.id, tries, reason = %last, "a webhook is a dead letter");
        }
        Ok(())
    }

    /// Whether it is still due as it was read; an erased one is as good as that.
    pub(super) async fn stands(&self, delivery: &Delivery) -> Result<bool, StoreError> {
        let status = self.store.delivery_status(delivery.key).await?;
        Ok(match status {
            Some(DeliveryStatus::Pending { next, .. }) => next == delivery.due,
            Some(DeliveryStatus::Delivered { .. } | DeliveryStatus::Dead { .. }) => false,
            None => true,
        })
    }

    fn told(&self, said: Said, target: Option<&str>) -> Heard {
        Heard {
            said,
            target: target.map(|target| without_query(target).into()),
            now: self.now(),
            chance: self.clock.random(),
        }
    }

    /// What is to be sent, or why nothing is.
    async fn event(&self, delivery: &Delivery) -> Result<Result<HookEvent, String>, StoreError> {
        let tenant = delivery.key.tenant;
        let Some(stored) = self.store.load(delivery.key).await? else {
            return Ok(Err("the request was erased".into()));
        };
        let (Some(target), Content::Done { outcome, answer }) =
            (stored.request.webhook.clone(), stored.content)
        else {
            return Ok(Err("the request has no webhook".into()));
        };
        if let Some(off) = self.store.turned_off(tenant, delivery.receiver).await? {
            return Ok(Err(format!(
                "the receiver is off: it answered 410 at {}, and wants no more of these",
                off.since
            )));
        }
        let now = self.now();
        Ok(Ok(HookEvent {
            target,
            tenant,
            id: delivery.key.id.event(),
            wall: self.clock.wall(),
            bill: outcome.bill,
            body: event_body(&stored.request, &outcome, &answer, &self.settings.webhook),
            secrets: self.store.hook_secrets(tenant).await?.valid(now),
        }))
    }

    async fn attempt(
        self: &Arc<Self>,
        delivery: &Delivery,
        tries: u32,
        event: HookEvent,
    ) -> Result<(DeliveryStatus, Heard), StoreError> {
        let target = event.target.clone();
        let outcome = self.deliver.deliver(event).await;
        let (now, id) = (self.now(), delivery.key.id);
        let dead = |last| DeliveryStatus::Dead {
            at: now,
            tries,
            last,
        };
        Ok(match outcome {
            HookOutcome::Delivered { .. } => {
                tracing::debug!(%id, tries, "a webhook is delivered");
                let status = DeliveryStatus::Delivered { at: now, tries };
                (status, self.told(Said::Works, Some(&target)))
            }
            HookOutcome::GiveUp { reason } => (dead(reason), self.told(Said::Nothing, None)),
            HookOutcome::Gone { reason } => {
                tracing::warn!(%id, tries, %reason, "a receiver of webhooks is turned off");
                let off = TurnedOff {
                    tenant: delivery.key.tenant,
                    receiver: delivery.receiver,
                    target: without_query(&target).to_owned(),
                    since: now,
                };
                self.store.turn_off(off).await?;
                self.receivers.gone(delivery.receiver);
                (dead(reason), self.told(Said::Nothing, None))
            }
            HookOutcome::Retry { reason, after, .. } => {
                let said = Said::Fails { retry_after: after };
                let heard = self.told(said, Some(&target));
                let chance = self.clock.random();
                let next = self.settings.webhook.backoff().next_attempt(
                    delivery.first_due,
                    now,
                    tries,
                    after,
                    chance,
                );
                let Some(next) = next else {
                    return Ok((dead(reason), heard));
                };
                tracing::info!(%id, tries, %reason, %next, "a webhook is tried again");
                let status = DeliveryStatus::Pending {
                    next,
                    tries,
                    last: Some(reason),
                };
                (status, heard)
            }
        })
    }
}
