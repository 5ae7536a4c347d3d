//! What callers may ask of their webhooks.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::future::try_join_all;
use parking_lot::Mutex;

use super::{super::Engine, event};
use crate::{
    model::{
        hook::{Secrets, TurnedOff},
        id::{ReceiverId, RequestId, RequestKey, TenantId},
        time::Timestamp,
    },
    policy::limits::Rate,
    ports::{Delivery, DeliveryStatus, HookEvent, HookOutcome, StoreError},
};

/// Earlier signing secrets stay valid for a day, as Standard Webhooks advises.
const OVERLAP: Duration = Duration::from_secs(24 * 3600);
/// Dead letters that are written together.
const TOGETHER: usize = 64;
/// Test calls of a tenant: a burst, and then one in every so many seconds.
const TESTS: u32 = 5;
const TEST_EVERY: Duration = Duration::from_secs(6);
/// Tenants whose test calls are counted.
const TESTERS: usize = 10_000;

/// How often each tenant has made test calls of late.
#[derive(Default)]
pub(in crate::engine) struct TestCalls(Mutex<HashMap<TenantId, Rate>>);

/// How a test call went.
#[derive(Debug)]
pub enum Tested {
    Called(HookOutcome),
    /// The target cannot be used, and why.
    Refused(String),
    TooMany {
        retry_after: Duration,
    },
}

/// A step of sending dead letters again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Redelivered {
    pub count: usize,
    /// There are more.
    pub has_more: bool,
}

impl TestCalls {
    /// How long to wait, where there were too many.
    fn take(&self, tenant: TenantId, now: Timestamp) -> Result<(), Duration> {
        let mut rates = self.0.lock();
        if rates.len() >= TESTERS {
            rates.retain(|_, rate| rate.ready_at() > now);
        }
        if rates.len() >= TESTERS && !rates.contains_key(&tenant) {
            return Err(TEST_EVERY);
        }
        let rate = rates.entry(tenant);
        let rate = rate.or_insert_with(|| Rate::new(TEST_EVERY, TESTS));
        match rate.take(now) {
            true => Ok(()),
            false => Err(now.until(rate.ready_at())),
        }
    }
}

impl Engine {
    /// Sends the webhook again; a receiver that is off is turned on for it. False
    /// where the request has none, or is open.
    pub async fn redeliver(self: &Arc<Self>, key: RequestKey) -> Result<bool, StoreError> {
        let Some(head) = self.store.head(key).await? else {
            return Ok(false);
        };
        let (Some(target), Some(outcome)) = (head.request.webhook, head.outcome) else {
            return Ok(false);
        };
        let receiver = ReceiverId::of(key.tenant, &target);
        self.turn_on(key.tenant, receiver).await?;
        self.receivers.hurry(receiver, self.now());
        self.send_again(key, receiver, outcome.finished).await?;
        self.signals.courier.notify_one();
        Ok(true)
    }

    /// Sends the oldest dead letters of a target again, `most` of them.
    pub async fn redeliver_dead(
        self: &Arc<Self>,
        tenant: TenantId,
        target: &str,
        most: usize,
    ) -> Result<Redelivered, StoreError> {
        let receiver = ReceiverId::of(tenant, target);
        let of = Some(receiver);
        let dead = self.store.dead_letters(tenant, of, None, most + 1).await?;
        let has_more = dead.len() > most;
        if !dead.is_empty() {
            self.turn_on(tenant, receiver).await?;
            self.receivers.hurry(receiver, self.now());
        }
        let mut count = 0;
        for some in dead[..most.min(dead.len())].chunks(TOGETHER) {
            let sent = some.iter().map(async |(_, id)| {
                let key = RequestKey { tenant, id: *id };
                let head = self.store.head(key).await?;
                let Some(outcome) = head.and_then(|head| head.outcome) else {
                    return Ok(0);
                };
                self.send_again(key, receiver, outcome.finished).await?;
                Ok::<_, StoreError>(1)
            });
            count += try_join_all(sent).await?.iter().sum::<usize>();
        }
        self.signals.courier.notify_one();
        Ok(Redelivered { count, has_more })
    }

    async fn send_again(
        &self,
        key: RequestKey,
        receiver: ReceiverId,
        ended: Timestamp,
    ) -> Result<(), StoreError> {
        let now = self.now();
        let (due, tries) = match self.store.delivery_status(key).await? {
            Some(DeliveryStatus::Pending { next, tries, .. }) => (next, tries),
            _ => (now, 0),
        };
        let earlier = Delivery {
            due,
            key,
            tries,
            first_due: now,
            receiver,
            ended,
        };
        let pending = DeliveryStatus::Pending {
            next: now,
            tries,
            last: None,
        };
        self.store.record_delivery(earlier, pending).await
    }

    async fn turn_on(&self, tenant: TenantId, receiver: ReceiverId) -> Result<(), StoreError> {
        match self.store.turned_off(tenant, receiver).await? {
            Some(_) => self.store.turn_on(tenant, receiver).await,
            None => Ok(()),
        }
    }

    /// Sends an event that says nothing, once. A receiver that takes it is on again,
    /// and works.
    pub async fn test_webhook(
        self: &Arc<Self>,
        tenant: TenantId,
        target: &str,
    ) -> Result<Tested, StoreError> {
        if let Err(reason) = self.deliver.check(target) {
            return Ok(Tested::Refused(reason));
        }
        let now = self.now();
        if let Err(retry_after) = self.test_calls.take(tenant, now) {
            return Ok(Tested::TooMany { retry_after });
        }
        let id = RequestId::new(now, self.clock.random());
        let event = HookEvent {
            target: target.to_owned(),
            tenant,
            id: id.event(),
            wall: self.clock.wall(),
            body: event::test_body(id, now),
            bill: None,
            secrets: self.store.hook_secrets(tenant).await?.valid(now),
        };
        let outcome = self.deliver.deliver(event).await;
        if matches!(outcome, HookOutcome::Delivered { .. }) {
            let receiver = ReceiverId::of(tenant, target);
            self.turn_on(tenant, receiver).await?;
            self.receivers.works(receiver, self.now());
            self.signals.courier.notify_one();
        }
        Ok(Tested::Called(outcome))
    }

    /// Whether a webhook target may be used.
    pub fn check_webhook(&self, target: &str) -> Result<(), String> {
        self.deliver.check(target)
    }

    /// What binds a cursor to its tenant.
    pub fn cursor_mark(&self, tenant: TenantId, cursor: &[u8]) -> [u8; 16] {
        self.vault.fingerprint("cursor", &[&tenant.0, cursor])
    }

    /// A tenant's deliveries, newest request first.
    pub async fn deliveries(
        &self,
        tenant: TenantId,
        before: Option<RequestId>,
        limit: usize,
    ) -> Result<Vec<(RequestId, DeliveryStatus)>, StoreError> {
        self.store.deliveries(tenant, before, limit).await
    }

    /// A tenant's dead letters, by receiver.
    pub async fn dead_letters(
        &self,
        tenant: TenantId,
        after: Option<(ReceiverId, RequestId)>,
        limit: usize,
    ) -> Result<Vec<(ReceiverId, RequestId)>, StoreError> {
        self.store.dead_letters(tenant, None, after, limit).await
    }

    /// How a request's delivery stands, and where it goes.
    pub async fn delivery(
        &self,
        key: RequestKey,
    ) -> Result<Option<(String, DeliveryStatus)>, StoreError> {
        let status = self.store.delivery_status(key).await?;
        let head = self.store.head(key).await?;
        let target = head.and_then(|head| head.request.webhook);
        Ok(target.zip(status))
    }

    /// The tenant's receivers that are off, `limit` at most.
    pub async fn turned_off(
        &self,
        tenant: TenantId,
        limit: usize,
    ) -> Result<Vec<TurnedOff>, StoreError> {
        self.store.all_turned_off(tenant, limit).await
    }

    /// The tenant's receivers that failed so often that they are left alone for a
    /// while.
    pub fn resting(&self, tenant: TenantId) -> Vec<super::Resting> {
        self.receivers.resting(tenant)
    }

    pub async fn hook_secrets(&self, tenant: TenantId) -> Result<Secrets, StoreError> {
        self.store.hook_secrets(tenant).await
    }

    /// The tenant's signing secret of this number, `whsec_…`.
    pub fn webhook_secret(&self, tenant: TenantId, number: u32) -> String {
        self.vault.webhook_secret(tenant, number)
    }

    /// Takes a new signing secret. Those before sign for a day more, or end now.
    pub async fn rotate_webhook_secret(
        &self,
        tenant: TenantId,
        expire_previous: bool,
    ) -> Result<Secrets, StoreError> {
        let overlap = match expire_previous {
            true => Duration::ZERO,
            false => OVERLAP,
        };
        let now = self.now();
        self.store.rotate_hook_secret(tenant, now, overlap).await
    }
}
