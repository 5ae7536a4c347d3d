//! How many connections of one tenant may wait, for a held answer, a long poll or the
//! feed: those who wait are never asked to make room for others.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;

use crate::model::id::TenantId;

/// Who waits.
pub struct Waiting {
    most: usize,
    /// Those of whom any does.
    tenants: Mutex<HashMap<TenantId, usize>>,
}

/// One connection that waits, until this is dropped.
pub struct Waits {
    waiting: Arc<Waiting>,
    tenant: TenantId,
}

/// Four of five, as of what may be queued: most servers have one tenant.
const SHARE: (usize, usize) = (4, 5);

impl Waiting {
    /// Where so many connections may be open.
    pub fn among(connections: usize) -> Arc<Waiting> {
        let (part, of) = SHARE;
        Arc::new(Waiting {
            most: (connections.saturating_mul(part) / of).max(1),
            tenants: Mutex::default(),
        })
    }

    /// None where the tenant has as many as it may.
    pub fn enter(self: &Arc<Self>, tenant: TenantId) -> Option<Waits> {
        let mut tenants = self.tenants.lock();
        let count = tenants.entry(tenant).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Waits {
            waiting: self.clone(),
            tenant,
        })
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
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
        let mut waits: Vec<_> = (0..4).map(|_| waiting.enter(one).unwrap()).collect();
        assert!(waiting.enter(one).is_none());
        assert!(waiting.enter(other).is_some());
        waits.pop();
        assert!(waiting.enter(one).is_some());
        drop(waits);
        assert!(waiting.tenants.lock().is_empty());
        assert!(Waiting::among(1).enter(one).is_some());
    }
}
