//! `K | id`: a sealed credential. Value: an empty record, then the bytes.
//!
//! Born with the first request that needs it; dropped by the engine when no
//! work is left for it.

use bytes::Bytes;

use super::super::codec::{Key, Kind, seal_with, unseal_with};
use crate::{model::id::CredentialId, ports::StoreError};

pub const KIND: Kind = Kind {
    tag: b'K',
    name: "credential",
};

pub fn key(id: CredentialId) -> Vec<u8> {
    Key::of(KIND).raw(&id.0).done()
}

pub fn encode(sealed: &[u8]) -> Bytes {
    seal_with(&(), sealed)
}

pub fn decode(key: &[u8], value: &Bytes) -> Result<Bytes, StoreError> {
    unseal_with::<()>(KIND, key, value).map(|((), sealed)| sealed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn round_trip(id: [u8; 16], sealed: Vec<u8>) {
            let name = key(CredentialId(id));
            prop_assert_eq!(decode(&name, &encode(&sealed))?.to_vec(), sealed);
        }
    }
}
