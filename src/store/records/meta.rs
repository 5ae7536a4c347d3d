//! `M | name`: facts about the store itself. They stay.
//!
//! - `format`: the version of all these layouts together, `u32`.
//! - `feed`: feed sequences below this may have been used, `u64`. It is raised in
//!   blocks, so that an ending costs no write for it and no sequence is given
//!   out twice.
//! - `tally`: what the database holds, see [`Tally`](super::super::tally::Tally);
//!   written by every commit.
//! - `migrating`: how far a migration has come, while one is under way.
//! - `roots`: what the vault is made of, sealed with the master key, bytes.

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

use super::super::codec::{Key, Kind, seal, unseal};
use crate::ports::StoreError;

pub const KIND: Kind = Kind {
    tag: b'M',
    name: "meta",
};

/// The first feed sequence of a new store; a cursor of 0 is before them all.
pub const FIRST_SEQUENCE: u64 = 1;

pub fn format_key() -> Vec<u8> {
    Key::of(KIND).raw(b"format").done()
}

pub fn feed_key() -> Vec<u8> {
    Key::of(KIND).raw(b"feed").done()
}

pub fn tally_key() -> Vec<u8> {
    Key::of(KIND).raw(b"tally").done()
}

pub fn migrating_key() -> Vec<u8> {
    Key::of(KIND).raw(b"migrating").done()
}

pub fn roots_key() -> Vec<u8> {
    Key::of(KIND).raw(b"roots").done()
}

pub fn encode<T: Serialize>(fact: &T) -> Bytes {
    seal(fact)
}

pub fn decode<T: DeserializeOwned>(key: &[u8], value: &Bytes) -> Result<T, StoreError> {
    unseal(KIND, key, value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn round_trip(format: u32, feed: u64) {
            prop_assert_eq!(decode::<u32>(&format_key(), &encode(&format))?, format);
            prop_assert_eq!(decode::<u64>(&feed_key(), &encode(&feed))?, feed);
        }
    }
}
