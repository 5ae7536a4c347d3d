//! Records that are counted as they come and go, so that their number is told at once.

use super::{codec::Kind, records::delivery};

pub const COUNTED: [Kind; 3] = [delivery::DUE, delivery::BACKLOG, delivery::DEAD];

/// How many records there are of each kind that is [`COUNTED`].
#[derive(Clone, Copy, Default)]
pub struct Counts([usize; COUNTED.len()]);

impl Counts {
    pub fn enter(&mut self, key: &[u8]) {
        if let Some(count) = self.place(key) {
            *count += 1;
        }
    }

    pub fn leave(&mut self, key: &[u8]) {
        if let Some(count) = self.place(key) {
            *count = count.saturating_sub(1);
        }
    }

    pub fn of(mut self, tag: u8) -> usize {
        self.place(&[tag]).copied().unwrap_or_default()
    }

    fn place(&mut self, key: &[u8]) -> Option<&mut usize> {
        let tag = key.first()?;
        let place = COUNTED.iter().position(|kind| kind.tag == *tag)?;
        self.0.get_mut(place)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::{
        super::{
            kv::{Batch, End, Kv, Span},
            sled::SledKv,
        },
        *,
    };

    fn check(kv: &SledKv, keys: &BTreeSet<Vec<u8>>) {
        for kind in COUNTED {
            let there = kv
                .scan(&Span::prefix(&[kind.tag]), End::Front, 1_000)
                .unwrap();
            let expected = keys.iter().filter(|key| key[0] == kind.tag).count();
            assert_eq!(
                (kv.how_many(kind), there.len()),
                (expected, expected),
                "{}",
                kind.name
            );
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        /// Keys are written again, and deleted without having been there.
        #[test]
        fn as_many_as_there_are(
            commits in prop::collection::vec(
                prop::collection::btree_map((0..4usize, 0..6u8), any::<bool>(), 1..8), 1..12,
            ),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let mut keys = BTreeSet::new();
            {
                let kv = SledKv::open(dir.path(), 1 << 20).unwrap();
                for commit in commits {
                    let mut batch = Batch::new();
                    for ((kind, name), stays) in commit {
                        let tag = COUNTED.get(kind).map_or(b'q', |kind| kind.tag);
                        let key = vec![tag, name];
                        match stays {
                            true => keys.insert(key.clone()),
                            false => keys.remove(&key),
                        };
                        batch.insert(key, stays.then(|| Bytes::from_static(b"sound")));
                    }
                    kv.apply(batch).unwrap();
                    check(&kv, &keys);
                }
                kv.sync().unwrap();
            }
            let kv = SledKv::open(dir.path(), 1 << 20).unwrap();
            kv.recount().unwrap();
            check(&kv, &keys);
        }
    }
}
