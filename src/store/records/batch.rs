//! `B | id`: a provider batch. Value: the [`Batch`].
//!
//! Born before its first line is claimed, rewritten at each of its steps, purged
//! some time after it ended.

use bytes::Bytes;

use super::super::{
    codec::{Key, Kind, seal, unseal},
    kv::Span,
};
use crate::{
    model::{batch::Batch, id::BatchId},
    ports::StoreError,
};

pub const KIND: Kind = Kind {
    tag: b'B',
    name: "batch",
};

pub fn key(id: BatchId) -> Vec<u8> {
    Key::of(KIND).raw(id.as_bytes()).done()
}

pub fn all() -> Span {
    Span::prefix(&[KIND.tag])
}

pub fn encode(batch: &Batch) -> Bytes {
    seal(batch)
}

pub fn decode(key: &[u8], value: &Bytes) -> Result<Batch, StoreError> {
    unseal(KIND, key, value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::samples, *};

    proptest! {
        #[test]
        fn round_trip(batch in samples::batch()) {
            let name = key(batch.id);
            prop_assert!(all().from < name && name < all().to);
            prop_assert_eq!(decode(&name, &encode(&batch))?, batch);
        }
    }
}
