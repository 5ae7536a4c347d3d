//! How many connections of one tenant may wait, for a held answer, a long poll or the
//! feed: those who wait are never asked to make room for others.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use parking_lot::Mutex;

use crate::model::id::TenantId;

/// Who waits.
pub struct Waiting {
    most: usize,
    /// By what for.
    kinds: [AtomicU64; Wait::ALL.len()],
    /// Those of whom any does.
    tenants: Mutex<HashMap<TenantId, usize>>,
}

/// One connection that waits, until this is dropped.
pub struct Waits {
    waiting: Arc<Waiting>,
    tenant: TenantId,
    wait: Wait,
}

/// What a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// The answer of the call that it made.
    Answer,
    /// That of an earlier one: a long poll.
    Poll,
    /// The next results.
    Feed,
}

impl Wait {
    pub const ALL: [Wait; 3] = [Wait::Answer, Wait::Poll, Wait::Feed];

    pub const fn as_str(self) -> &'static str {
        match self {
            Wait::Answer => "answer",
            Wait::Poll => "poll",
            Wait::Feed => "feed",
        }
    }
}

/// Four of five, as of what may be queued: most servers have one tenant.
const SHARE: (usize, usize) = (4, 5);

impl Waiting {
    /// Where so many connections may be open.
    pub fn among(connections: usize) -> Arc<Waiting> {
        let (part, of) = SHARE;
        Arc::new(Waiting {
            most: (connections.saturating_mul(part) / of).max(1),
            kinds: Default::default(),
            tenants: Mutex::default(),
        })
    }

    /// None where the tenant has as many as it may.
    pub fn enter(self: &Arc<Self>, tenant: TenantId, wait: Wait) -> Option<Waits> {
        let mut tenants = self.tenants.lock();
        let count = tenants.entry(tenant).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        self.kinds[wait as usize].fetch_add(1, Relaxed);
        Some(Waits {
            waiting: self.clone(),
            tenant,
            wait,
        })
    }

    /// How many wait for this.
    pub fn count(&self, wait: Wait) -> u64 {
        self.kinds[wait as usize].load(Relaxed)
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.waiting.kinds[self.wait as usize].fetch_sub(1, Relaxed);
        let mut tenants = self.waiting.tenants.lock();
        if let Some(count) = tenants.get_mut(&self.tenant) {
            *count -= 1;
            if *count == 0 {
                tenants.remove(&self.tenant);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_tenant_leaves_room_to_the_others() {
        let waiting = Waiting::among(5);
        let (one, other) = (TenantId([1; 16]), TenantId([2; 16]));
        let mut waits: Vec<_> = (0..4)
            .map(|_| waiting.enter(one, Wait::Answer).unwrap())
            .collect();
        assert!(waiting.enter(one, Wait::Answer).is_none());
        assert!(waiting.enter(other, Wait::Feed).is_some());
        assert_eq!(Wait::ALL.map(|wait| waiting.count(wait)), [4, 0, 0]);
        waits.pop();
        assert!(waiting.enter(one, Wait::Answer).is_some());
        drop(waits);
        assert!(waiting.tenants.lock().is_empty());
        assert!(Waiting::among(1).enter(one, Wait::Answer).is_some());
    }
}
