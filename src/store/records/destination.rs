//! `N | id`: a destination. Value: the [`Destination`].
//!
//! Born with the first request that goes there; gone with its credential, when no work
//! is left for that.

use bytes::Bytes;

use super::super::{
    codec::{Key, Kind, seal, unseal},
    kv::Span,
};
use crate::{
    model::{id::DestinationId, request::Destination},
    ports::StoreError,
};

pub const KIND: Kind = Kind {
    tag: b'N',
    name: "destination",
};

pub fn key(id: DestinationId) -> Vec<u8> {
    Key::of(KIND).raw(&id.0).done()
}

pub fn all() -> Span {
    Span::prefix(&[KIND.tag])
}

pub fn encode(destination: &Destination) -> Bytes {
    seal(destination)
}

pub fn decode(key: &[u8], value: &Bytes) -> Result<Destination, StoreError> {
    unseal(KIND, key, value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::samples, *};

    proptest! {
        #[test]
        fn round_trip(destination in samples::destination()) {
            let name = key(destination.id);
            prop_assert!(all().from < name && name < all().to);
            prop_assert_eq!(decode(&name, &encode(&destination))?, destination);
        }
    }
}
