//! Things that each wait for an instant of their own, found by name and by when
//! they are due.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::Hash,
    ops::Bound,
};

use crate::model::time::Timestamp;

pub struct Schedule<K, V> {
    waiting: HashMap<K, (Timestamp, V)>,
    /// By instant; none is kept that nothing waits for.
    instants: BTreeMap<Timestamp, BTreeSet<K>>,
}

impl<K, V> Default for Schedule<K, V> {
    fn default() -> Self {
        Schedule {
            waiting: HashMap::new(),
            instants: BTreeMap::new(),
        }
    }
}

impl<K: Copy + Ord + Hash, V> Schedule<K, V> {
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    pub fn contains(&self, key: &K) -> bool {
        self.waiting.contains_key(key)
    }

    pub fn get(&self, key: &K) -> Option<&V> {
        self.waiting.get(key).map(|(_, value)| value)
    }

    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.waiting.get_mut(key).map(|(_, value)| value)
    }

    pub fn insert(&mut self, key: K, until: Timestamp, value: V) {
        self.remove(&key);
        self.waiting.insert(key, (until, value));
        self.instants.entry(until).or_default().insert(key);
    }

    pub fn remove(&mut self, key: &K) -> Option<V> {
        let (until, value) = self.waiting.remove(key)?;
        if let Some(keys) = self.instants.get_mut(&until) {
            keys.remove(key);
            if keys.is_empty() {
                self.instants.remove(&until);
            }
        }
        Some(value)
    }

    /// Those whose time has come, the longest due first.
    pub fn due(&self, now: Timestamp) -> impl Iterator<Item = &V> {
        let due = self.instants.range(..=now).flat_map(|(_, keys)| keys);
        due.filter_map(|key| self.get(key))
    }

    /// The next instant at which something is due.
    pub fn next_after(&self, now: Timestamp) -> Option<Timestamp> {
        let later = (Bound::Excluded(now), Bound::Unbounded);
        self.instants.range(later).next().map(|(until, _)| *until)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_due_is_what_a_look_at_all_would_find(
            steps in prop::collection::vec((0u8..8, 0u64..10, any::<bool>()), 0..60),
            now in 0u64..10,
        ) {
            let mut schedule = Schedule::default();
            let mut all = BTreeMap::new();
            for (key, until, comes) in steps {
                match comes {
                    true => {
                        schedule.insert(key, Timestamp::from_secs(until), (until, key));
                        all.insert(key, until);
                    }
                    false => {
                        let gone = schedule.remove(&key);
                        prop_assert_eq!(gone, all.remove(&key).map(|until| (until, key)));
                    }
                }
            }
            let mut due: Vec<(u64, u8)> = all.iter().map(|(key, until)| (*until, *key)).collect();
            due.sort_unstable();
            let later = due.split_off(due.partition_point(|(until, _)| *until <= now));
            let next = later.first().map(|(until, _)| Timestamp::from_secs(*until));
            let now = Timestamp::from_secs(now);
            prop_assert_eq!(schedule.due(now).copied().collect::<Vec<_>>(), due);
            prop_assert_eq!(schedule.next_after(now), next);
            prop_assert_eq!(schedule.len(), all.len());
            prop_assert!(schedule.instants.values().all(|keys| !keys.is_empty()));
        }
    }
}
