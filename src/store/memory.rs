//! A map in memory, for tests and for `offpeak demo`. It starts no threads.

use std::{collections::BTreeMap, ops::Bound};

use bytes::Bytes;
use parking_lot::RwLock;

use super::{
    codec::Kind,
    kv::{Batch, End, Kv, Pair, Span},
};
use crate::ports::StoreError;

#[derive(Default)]
pub struct MemoryKv {
    map: RwLock<BTreeMap<Bytes, Bytes>>,
}

impl Kv for MemoryKv {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.map.read().get(key).cloned())
    }

    fn scan(&self, span: &Span, from: End, limit: usize) -> Result<Vec<Pair>, StoreError> {
        if span.is_empty() {
            return Ok(Vec::new());
        }
        let map = self.map.read();
        let bounds = (
            Bound::Included(span.from.as_slice()),
            Bound::Excluded(span.to.as_slice()),
        );
        let range = map.range::<[u8], _>(bounds);
        let owned = |(key, value): (&Bytes, &Bytes)| (key.clone(), value.clone());
        Ok(match from {
            End::Front => range.take(limit).map(owned).collect(),
            End::Back => range.rev().take(limit).map(owned).collect(),
        })
    }

    fn apply(&self, batch: Batch) -> Result<(), StoreError> {
        let mut map = self.map.write();
        for (key, value) in batch {
            match value {
                Some(value) => map.insert(Bytes::from(key), value),
                None => map.remove(key.as_slice()),
            };
        }
        Ok(())
    }

    fn how_many(&self, kind: Kind) -> usize {
        let tagged = |key: &&Bytes| key.first() == Some(&kind.tag);
        self.map.read().keys().filter(tagged).count()
    }

    fn sync(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn disk_bytes(&self) -> Result<u64, StoreError> {
        let map = self.map.read();
        Ok(map
            .iter()
            .map(|(key, value)| (key.len() + value.len()) as u64)
            .sum())
    }

    fn free_bytes(&self) -> Result<u64, StoreError> {
        Ok(u64::MAX)
    }
}
