//! What a reconciler has in hand: each thing once, and only so many at a time.

use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
    sync::Arc,
};

use parking_lot::Mutex;

/// Sizes of what is kept in memory: none grows with the requests that are done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Steps of batches, live calls and deliveries that run now.
    pub in_hand: usize,
    /// Held calls, orphans among them.
    pub held: usize,
    /// Requests and feeds that somebody waits for.
    pub waiting: usize,
    /// Callers who get, or will get, a live answer as it streams.
    pub taps: usize,
    /// Live calls that wait before their next step: another try, or a look at a
    /// background response.
    pub backing_off: usize,
    /// Requests whose acknowledgement is not on the wire yet.
    pub unflushed: usize,
    /// Receivers of webhooks that are called, waited for, or failed last.
    pub receivers: usize,
}

pub(super) struct Inflight<K> {
    keys: Arc<Mutex<HashSet<K>>>,
}

impl<K> Default for Inflight<K> {
    fn default() -> Self {
        Inflight {
            keys: Arc::default(),
        }
    }
}

impl<K: Hash + Eq + Copy> Inflight<K> {
    /// Takes `key` in hand until the guard is dropped; none where it already is.
    pub fn begin(&self, key: K) -> Option<InHand<K>> {
        self.begin_within(key, usize::MAX)
    }

    /// As [`Inflight::begin`]; none, too, where `most` are in hand.
    pub fn begin_within(&self, key: K, most: usize) -> Option<InHand<K>> {
        let mut keys = self.keys.lock();
        (keys.len() < most && keys.insert(key)).then(|| InHand {
            key,
            keys: self.keys.clone(),
        })
    }

    pub fn len(&self) -> usize {
        self.keys.lock().len()
    }

    pub fn contains(&self, key: &K) -> bool {
        self.keys.lock().contains(key)
    }
}

pub(super) struct InHand<K: Hash + Eq + Copy> {
    key: K,
    keys: Arc<Mutex<HashSet<K>>>,
}

impl<K: Hash + Eq + Copy> Drop for InHand<K> {
    fn drop(&mut self) {
        self.keys.lock().remove(&self.key);
    }
}

/// What somebody speaks of at the moment, by how many.
pub(super) struct Mentions<K> {
    counts: Arc<Mutex<HashMap<K, usize>>>,
}

impl<K> Default for Mentions<K> {
    fn default() -> Self {
        Mentions {
            counts: Arc::default(),
        }
    }
}

impl<K: Hash + Eq + Copy> Mentions<K> {
    /// Counts until it is dropped.
    pub fn mention(&self, key: K) -> Mention<K> {
        *self.counts.lock().entry(key).or_default() += 1;
        Mention {
            key,
            counts: self.counts.clone(),
        }
    }

    pub fn len(&self) -> usize {
        self.counts.lock().len()
    }

    pub fn contains(&self, key: &K) -> bool {
        self.counts.lock().contains_key(key)
    }
}

pub(super) struct Mention<K: Hash + Eq + Copy> {
    key: K,
    counts: Arc<Mutex<HashMap<K, usize>>>,
}

impl<K: Hash + Eq + Copy> Drop for Mention<K> {
    fn drop(&mut self) {
        let mut counts = self.counts.lock();
        if let Some(count) = counts.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.key);
            }
        }
    }
}
