//! Callers who wait on a connection, and their requests once they have gone.
//!
//! SDKs re-send a call whose connection died, without any key that says so
//! (WIRE.md §3). An identical call therefore takes over one orphan: a request
//! whose caller was gone before its answer was fully written.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;

use crate::model::{
    id::{CallDigest, RequestKey},
    time::Timestamp,
};

#[derive(Default)]
pub(super) struct Holders {
    calls: Mutex<HashMap<CallDigest, Vec<Held>>>,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    key: RequestKey,
    /// Who holds it; none: an orphan.
    holder: Option<Holder>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Holder {
    /// Grows with every take-over, so that a late goodbye of an earlier holder
    /// is not taken for the present one's.
    turn: u64,
    /// `x-stainless-retry-count` of the call that holds.
    retry: u32,
}

impl Holders {
    /// Takes over the oldest orphan of this call; else, for a re-send, the holder
    /// that it says it replaces.
    pub fn take_over(self: &Arc<Self>, digest: CallDigest, retry: u32) -> Option<Grip> {
        let mut calls = self.calls.lock();
        let held = calls.get_mut(&digest)?;
        let replaced = |held: &Held| {
            held.holder
                .is_some_and(|holder| retry > 0 && holder.retry == retry - 1)
        };
        let index = held
            .iter()
            .position(|held| held.holder.is_none())
            .or_else(|| held.iter().position(replaced))?;
        let turn = held[index].holder.map_or(0, |holder| holder.turn) + 1;
        held[index].holder = Some(Holder { turn, retry });
        Some(Grip {
            key: held[index].key,
            digest,
            turn,
            holders: self.clone(),
        })
    }

    /// A new request with its first holder.
    pub fn hold(self: &Arc<Self>, key: RequestKey, digest: CallDigest, retry: u32) -> Grip {
        let holder = Some(Holder { turn: 1, retry });
        self.calls
            .lock()
            .entry(digest)
            .or_default()
            .push(Held { key, holder });
        Grip {
            key,
            digest,
            turn: 1,
            holders: self.clone(),
        }
    }

    /// A held request whose caller did not survive us.
    pub fn orphan(&self, key: RequestKey, digest: CallDigest) {
        self.calls
            .lock()
            .entry(digest)
            .or_default()
            .push(Held { key, holder: None });
    }

    pub fn len(&self) -> usize {
        self.calls.lock().values().map(Vec::len).sum()
    }

    /// Orphans of requests from before `horizon`.
    pub fn orphans_before(&self, horizon: Timestamp) -> Vec<(RequestKey, CallDigest)> {
        let calls = self.calls.lock();
        let held = calls
            .iter()
            .flat_map(|(digest, held)| held.iter().map(move |held| (held, *digest)));
        held.filter(|(held, _)| held.holder.is_none() && held.key.id.born() < horizon)
            .map(|(held, digest)| (held.key, digest))
            .collect()
    }

    /// Forgets a request: its answer was delivered, or it is gone.
    pub fn forget(&self, key: RequestKey, digest: CallDigest) {
        let mut calls = self.calls.lock();
        if let Some(held) = calls.get_mut(&digest) {
            held.retain(|held| held.key != key);
            if held.is_empty() {
                calls.remove(&digest);
            }
        }
    }

    fn let_go(&self, grip: &Grip) {
        let mut calls = self.calls.lock();
        let held = calls.get_mut(&grip.digest).into_iter().flatten();
        for held in held.filter(|held| held.key == grip.key) {
            if held.holder.is_some_and(|holder| holder.turn == grip.turn) {
                held.holder = None;
            }
        }
    }

    fn holds(&self, grip: &Grip) -> bool {
        let calls = self.calls.lock();
        calls.get(&grip.digest).into_iter().flatten().any(|held| {
            held.key == grip.key && held.holder.is_some_and(|holder| holder.turn == grip.turn)
        })
    }
}

/// One caller's hold on a request. Dropped without a word, it leaves an orphan.
pub(super) struct Grip {
    pub key: RequestKey,
    pub digest: CallDigest,
    turn: u64,
    holders: Arc<Holders>,
}

impl Grip {
    /// Whether nobody has taken it over.
    pub fn is_current(&self) -> bool {
        self.holders.holds(self)
    }
}

impl Drop for Grip {
    fn drop(&mut self) {
        self.holders.let_go(self);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id::{RequestId, TenantId};

    const DIGEST: CallDigest = CallDigest([7; 16]);

    fn key(n: u8) -> RequestKey {
        RequestKey {
            tenant: TenantId([0; 16]),
            id: RequestId::from_bytes([n; 16]),
        }
    }

    #[test]
    fn an_orphan_is_taken_over_once_and_the_oldest_first() {
        let holders = Arc::new(Holders::default());
        let (first, second) = (
            holders.hold(key(1), DIGEST, 0),
            holders.hold(key(2), DIGEST, 0),
        );
        assert!(
            holders.take_over(DIGEST, 0).is_none(),
            "equal calls on purpose stay separate"
        );
        drop((second, first));
        let again = holders.take_over(DIGEST, 0).unwrap();
        let other = holders.take_over(DIGEST, 0).unwrap();
        assert_eq!((again.key, other.key), (key(1), key(2)));
        assert!(holders.take_over(DIGEST, 0).is_none());
    }

    #[test]
    fn a_resend_replaces_the_call_before_it() {
        let holders = Arc::new(Holders::default());
        let first = holders.hold(key(1), DIGEST, 0);
        assert!(
            holders.take_over(DIGEST, 2).is_none(),
            "not the one right before it"
        );
        let second = holders.take_over(DIGEST, 1).unwrap();
        assert!(!first.is_current() && second.is_current());
        drop(first);
        assert!(
            holders.take_over(DIGEST, 0).is_none(),
            "the second still holds"
        );
        drop(second);
        assert!(holders.take_over(DIGEST, 0).is_some());
    }

    #[test]
    fn what_was_delivered_is_never_joined() {
        let holders = Arc::new(Holders::default());
        let grip = holders.hold(key(1), DIGEST, 0);
        holders.forget(key(1), DIGEST);
        drop(grip);
        assert!(holders.take_over(DIGEST, 1).is_none());
        assert!(holders.calls.lock().is_empty());
    }
}
