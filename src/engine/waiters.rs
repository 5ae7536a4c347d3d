//! Who waits for what. Woken by the commit that they wait for; nobody polls the
//! store. Register first, read then, wait last: nothing falls in between.

use std::{collections::HashMap, hash::Hash, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::model::id::{RequestKey, TenantId};

#[derive(Default)]
pub(super) struct Waiters {
    requests: Slots<RequestKey>,
    feeds: Slots<TenantId>,
}

type Slots<K> = Mutex<HashMap<K, watch::Sender<()>>>;

impl Waiters {
    /// A waiter for a request's ending.
    pub fn request(self: &Arc<Self>, key: RequestKey) -> Waiter {
        let wakes = join(&self.requests, key);
        Waiter {
            wakes,
            on: On::Request(key),
            waiters: self.clone(),
        }
    }

    /// A waiter for the next ending of any request of a tenant.
    pub fn feed(self: &Arc<Self>, tenant: TenantId) -> Waiter {
        let wakes = join(&self.feeds, tenant);
        Waiter {
            wakes,
            on: On::Feed(tenant),
            waiters: self.clone(),
        }
    }

    pub fn len(&self) -> usize {
        self.requests.lock().len() + self.feeds.lock().len()
    }

    pub fn wake(&self, key: RequestKey) {
        wake(&self.requests, &key);
        wake(&self.feeds, &key.tenant);
    }
}

/// Registered from its creation to its drop.
pub struct Waiter {
    wakes: watch::Receiver<()>,
    on: On,
    waiters: Arc<Waiters>,
}

enum On {
    Request(RequestKey),
    Feed(TenantId),
}

impl Waiter {
    /// Waits for the first wake since the last one seen.
    pub async fn woken(&mut self) {
        // The sender stays in its slot for as long as this receiver lives.
        if self.wakes.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        match &self.on {
            On::Request(key) => leave(&self.waiters.requests, key),
            On::Feed(tenant) => leave(&self.waiters.feeds, tenant),
        }
    }
}

fn join<K: Hash + Eq>(slots: &Slots<K>, key: K) -> watch::Receiver<()> {
    slots
        .lock()
        .entry(key)
        .or_insert_with(|| watch::channel(()).0)
        .subscribe()
}

/// Removes the slot with its last receiver, which is still counted here.
fn leave<K: Hash + Eq>(slots: &Slots<K>, key: &K) {
    let mut slots = slots.lock();
    if slots
        .get(key)
        .is_some_and(|slot| slot.receiver_count() <= 1)
    {
        slots.remove(key);
    }
}

fn wake<K: Hash + Eq>(slots: &Slots<K>, key: &K) {
    if let Some(slot) = slots.lock().get(key) {
        slot.send_replace(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id::RequestId;

    #[tokio::test]
    async fn a_wake_between_registering_and_waiting_reaches_everybody() {
        let waiters = Arc::new(Waiters::default());
        let key = RequestKey {
            tenant: TenantId([1; 16]),
            id: RequestId::MIN,
        };
        let (mut first, mut second) = (waiters.request(key), waiters.request(key));
        let mut feed = waiters.feed(key.tenant);
        waiters.wake(key);
        first.woken().await;
        second.woken().await;
        feed.woken().await;
        drop((first, second, feed));
        assert!(waiters.requests.lock().is_empty() && waiters.feeds.lock().is_empty());
    }
}
