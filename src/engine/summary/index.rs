//! What else things are found by than their id.

use std::{
    collections::{BTreeSet, HashMap},
    hash::Hash,
};

/// The ids of what has a key in common; no key is kept without any.
pub(super) struct Index<K, Id>(HashMap<K, BTreeSet<Id>>);

impl<K, Id> Default for Index<K, Id> {
    fn default() -> Self {
        Index(HashMap::new())
    }
}

impl<K: Hash + Eq, Id: Ord> Index<K, Id> {
    pub fn insert(&mut self, key: K, id: Id) {
        self.0.entry(key).or_default().insert(id);
    }

    pub fn remove(&mut self, key: &K, id: &Id) {
        if let Some(ids) = self.0.get_mut(key) {
            ids.remove(id);
            if ids.is_empty() {
                self.0.remove(key);
            }
        }
    }

    /// Takes the key out, with all that have it.
    pub fn take(&mut self, key: &K) -> BTreeSet<Id> {
        self.0.remove(key).unwrap_or_default()
    }

    pub fn get<'a>(&'a self, key: &K) -> impl Iterator<Item = &'a Id> + use<'a, K, Id> {
        self.0.get(key).into_iter().flatten()
    }
}
