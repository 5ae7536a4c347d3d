//! Webhooks: tried until they arrive, for `webhook.horizon` at most, then kept
//! as dead letters. The same event id at every try.
//!
//! What is due and cannot be sent at once goes into the backlog of its receiver on
//! disk: behind others of a receiver that has its fill, or until one that keeps
//! failing is tried again. So a delivery is read once when it is due and once when
//! its receiver has room, however long that takes.

mod attempt;
mod event;
mod receivers;
mod redeliver;

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
    time::Duration,
};

use futures_util::future::try_join_all;
use tracing::Instrument;

use self::receivers::{Ticket, Turn};
pub use self::{event::event_body, receivers::Resting, redeliver::Redelivered, redeliver::Tested};
pub(in crate::engine) use self::{receivers::Receivers, redeliver::TestCalls};
use super::{Engine, drive::Next};
use crate::{
    model::{
        id::{ReceiverId, RequestId, RequestKey, TenantId},
        time::Timestamp,
    },
    ports::{Delivery, DeliveryStatus, StoreError},
};

const PAGE: usize = 256;
/// Dead letters that are written together.
const FUNERALS: usize = 64;
/// How long a delivery waits for its acknowledgement, at most: a connection may
/// be stalled for good.
const UNFLUSHED_PATIENCE: Duration = Duration::from_secs(5);
/// The first pause before looking whether an acknowledgement has been sent.
const UNFLUSHED_PAUSE: Duration = Duration::from_millis(20);
const AFTER_FAILURE: Duration = Duration::from_secs(1);
/// The least time between two searches of the whole index, each for those whose
/// receivers are gone.
const SEARCHES: Duration = Duration::from_secs(10);

/// A search for what waits for another try and will get none.
#[derive(Default)]
pub(super) struct Search {
    gone: BTreeSet<ReceiverId>,
    after: Option<(Timestamp, RequestKey)>,
    not_before: Timestamp,
}

impl Engine {
    pub(super) async fn courier_turn(self: &Arc<Self>) -> Result<Next, StoreError> {
        let now = self.now();
        let mut next = self.bury_expired(now).await?;
        next = next.sooner(self.search_for_the_gone(now).await?);
        let mut after = None;
        let mut at_their_share = HashSet::new();
        loop {
            self.serve_backlogs(now).await?;
            let page = self.store.due_deliveries(now, after, PAGE).await?;
            after = page.last().map(|last| (last.due, last.key));
            let is_last = page.len() < PAGE;
            let mut shelved = Vec::new();
            let mut is_full = false;
            for delivery in page {
                let tenant = delivery.key.tenant;
                if self.inflight.deliveries.contains(&delivery.key)
                    || at_their_share.contains(&tenant)
                {
                    continue;
                }
                if let Some(look) = self.flushed_by(&delivery, now) {
                    next = next.sooner(Next::At(look));
                    continue;
                }
                match self.receivers.take(&delivery, now) {
                    Turn::Now(ticket) => self.send(delivery, ticket),
                    Turn::InBacklog => shelved.push(delivery),
                    // It stays due, and those behind it have their turn.
                    Turn::AfterItsOwn => {
                        at_their_share.insert(tenant);
                    }
                    Turn::WhenFree => {
                        is_full = true;
                        break;
                    }
                }
            }
            self.shelve(shelved).await?;
            if is_last || is_full {
                break;
            }
        }
        self.serve_backlogs(now).await?;
        let later = self.next_due_after(now).await?;
        let wakes = [later, self.receivers.wakes()].into_iter().flatten().min();
        Ok(next.sooner(wakes.map_or(Next::OnSignal, Next::At)))
    }

    /// Those due by `now` are in hand, or wait for what says so itself.
    async fn next_due_after(&self, now: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        let first = self.store.next_delivery().await?;
        if first.is_none_or(|due| due > now) {
            return Ok(first);
        }
        let tenant = TenantId([u8::MAX; 16]);
        let id = RequestId::new(now, u128::MAX);
        let behind = Some((now, RequestKey { tenant, id }));
        let next = self.store.due_deliveries(Timestamp::MAX, behind, 1).await?;
        Ok(next.first().map(|delivery| delivery.due))
    }

    /// When to look again at a delivery whose acknowledgement is still on the way:
    /// a moment's matter mostly, so in ever longer steps, and not for ever.
    fn flushed_by(&self, delivery: &Delivery, now: Timestamp) -> Option<Timestamp> {
        let patience = delivery.due + UNFLUSHED_PATIENCE;
        let waits = patience > now && self.unflushed.contains(&delivery.key);
        let age = delivery.due.until(now);
        waits.then(|| patience.min(now + age.max(UNFLUSHED_PAUSE)))
    }

    /// Remembered before it is written: a write that fails may have been made.
    async fn shelve(&self, shelved: Vec<Delivery>) -> Result<(), StoreError> {
        if shelved.is_empty() {
            return Ok(());
        }
        for delivery in &shelved {
            let tenant = delivery.key.tenant;
            let expires = self.expiry(delivery);
            self.receivers.waits(delivery.receiver, tenant, expires);
        }
        self.store.shelve_deliveries(shelved).await
    }

    async fn serve_backlogs(self: &Arc<Self>, now: Timestamp) -> Result<(), StoreError> {
        while let Some((receiver, in_hand)) = self.receivers.next(now) {
            // Those in hand stand there until they are recorded.
            let front = self.store.backlog(receiver, None, in_hand + 1).await?;
            let is_all = front.len() <= in_hand;
            let mut front = front.into_iter();
            match front.find(|delivery| !self.inflight.deliveries.contains(&delivery.key)) {
                Some(delivery) => {
                    let ticket = self.receivers.serve(&delivery);
                    self.send(delivery, ticket);
                }
                None if is_all => self.receivers.emptied(receiver),
                // One of them has just ended, and says so.
                None => break,
            }
        }
        Ok(())
    }

    /// No try is made of what waits for a receiver that rests; at its horizon it is
    /// a dead letter all the same.
    async fn bury_expired(self: &Arc<Self>, now: Timestamp) -> Result<Next, StoreError> {
        let mut next = Next::OnSignal;
        for receiver in self.receivers.expired(now) {
            let horizon = self.settings.webhook.horizon;
            let mut after = None;
            let mut earliest = now + horizon;
            loop {
                let page = self.store.backlog(receiver, after, PAGE).await?;
                let is_last = page.len() < PAGE;
                // Those behind it ended later.
                let behind = page.last().map(|last| last.ended + horizon);
                after = page.last().map(|last| (last.ended, last.key));
                let in_hand = &self.inflight.deliveries;
                let waiting = page.into_iter().filter(|one| !in_hand.contains(&one.key));
                let (dead, alive): (Vec<_>, Vec<_>) =
                    waiting.partition(|delivery| self.expiry(delivery) <= now);
                for alive in &alive {
                    earliest = earliest.min(self.expiry(alive));
                }
                for dead in dead.chunks(FUNERALS) {
                    try_join_all(dead.iter().map(|delivery| self.bury(delivery, now))).await?;
                }
                if is_last {
                    break;
                }
                if let Some(behind) = behind.filter(|behind| *behind > now) {
                    earliest = earliest.min(behind);
                    break;
                }
                if !dead.is_empty() {
                    // Others have their turn in between.
                    earliest = now;
                    next = Next::At(now);
                    break;
                }
            }
            self.receivers.expires(receiver, earliest);
        }
        Ok(next)
    }

    fn expiry(&self, delivery: &Delivery) -> Timestamp {
        delivery.first_due + self.settings.webhook.horizon
    }

    async fn bury(&self, delivery: &Delivery, now: Timestamp) -> Result<(), StoreError> {
        // It may have been sent again by hand since it was read.
        if !self.stands(delivery).await? {
            return Ok(());
        }
        let status = DeliveryStatus::Dead {
            at: now,
            tries: delivery.tries,
            last: "its receiver did not work again in time".into(),
        };
        self.record(*delivery, status).await
    }

    /// Puts what waits for another try at a receiver that is gone into its backlog,
    /// which ends it. A page a turn.
    async fn search_for_the_gone(&self, now: Timestamp) -> Result<Next, StoreError> {
        let (gone, after) = {
            let mut search = self.search.lock();
            if search.not_before > now {
                return Ok(Next::At(search.not_before));
            }
            if search.gone.is_empty() {
                search.gone = self.receivers.take_gone();
                search.after = None;
            }
            if search.gone.is_empty() {
                return Ok(Next::OnSignal);
            }
            (search.gone.clone(), search.after)
        };
        let latest = Timestamp::from_millis(u64::MAX);
        let page = self.store.due_deliveries(latest, after, PAGE).await?;
        let is_last = page.len() < PAGE;
        let after = page.last().map(|last| (last.due, last.key));
        let in_hand = &self.inflight.deliveries;
        let found = page
            .into_iter()
            .filter(|one| gone.contains(&one.receiver) && !in_hand.contains(&one.key));
        self.shelve(found.collect()).await?;
        let mut search = self.search.lock();
        search.after = after;
        if is_last {
            search.gone.clear();
            search.not_before = now + SEARCHES;
        }
        Ok(Next::At(search.not_before.max(now)))
    }

    fn send(self: &Arc<Self>, delivery: Delivery, ticket: Ticket) {
        if let Some(in_hand) = self.inflight.deliveries.begin(delivery.key) {
            let engine = self.clone();
            let span = tracing::debug_span!("webhook", id = %delivery.key.id);
            self.tasks.spawn(
                async move {
                    let heard = match engine.deliver(delivery).await {
                        Ok(heard) => Some(heard),
                        Err(error) => {
                            tracing::error!(id = %delivery.key.id, %error, "delivering");
                            // It stays due: not sent over and over while the store fails.
                            tokio::time::sleep(AFTER_FAILURE).await;
                            None
                        }
                    };
                    // In this order: what has a place is in hand.
                    drop(in_hand);
                    match heard {
                        Some(heard) => ticket.end(heard),
                        None => drop(ticket),
                    }
                    engine.signals.courier.notify_one();
                }
                .instrument(span),
            );
        }
    }
}
