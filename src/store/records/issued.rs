//! `C | id`: a key that we issued to a caller. Value: the [`IssuedKey`], which holds
//! the fingerprint of the key and never the key.
//!
//! Born when an operator creates it, written over once when it is revoked. It stays, so
//! that its holder is told what became of it and its name is known in the list.

use bytes::Bytes;

use super::super::{
    codec::{Fields, Key, Kind, seal, unseal},
    kv::Span,
};
use crate::{
    model::{id::KeyId, issued::IssuedKey},
    ports::StoreError,
};

pub const KIND: Kind = Kind {
    tag: b'C',
    name: "issued key",
};

pub fn key(id: KeyId) -> Vec<u8> {
    Key::of(KIND).raw(id.as_bytes()).done()
}

pub fn all() -> Span {
    Span::prefix(&[KIND.tag])
}

pub fn encode(issued: &IssuedKey) -> Bytes {
    seal(issued)
}

pub fn decode(key: &[u8], value: &Bytes) -> Result<IssuedKey, StoreError> {
    let mut fields = Fields::of(KIND, key)?;
    let id = KeyId::from_bytes(fields.array()?);
    let issued: IssuedKey = unseal(KIND, key, value)?;
    match issued.id == id {
        true => Ok(issued),
        false => Err(fields.corrupt("the record is of another key")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{issued::samples::issued, money::Usd, time::Timestamp};

    proptest! {
        #[test]
        fn round_trip(
            number: u8,
            created in 0u64..1 << 47,
            expires: Option<u64>,
            revoked: Option<u64>,
            models in prop::collection::vec("[a-z0-9*.-]{1,12}", 0..3),
            budget: Option<i128>,
            rate: Option<u32>,
            passthrough: bool,
        ) {
            let record = IssuedKey {
                expires: expires.map(Timestamp::from_millis),
                revoked: revoked.map(Timestamp::from_millis),
                models,
                monthly_budget: budget.map(Usd::from_pico),
                requests_per_minute: rate,
                passthrough,
                ..issued(number, Timestamp::from_millis(created))
            };
            let name = key(record.id);
            prop_assert!(all().from < name && name < all().to);
            prop_assert_eq!(&decode(&name, &encode(&record))?, &record);
            let other = key(issued(number ^ 1, Timestamp::from_millis(created)).id);
            prop_assert!(decode(&other, &encode(&record)).is_err());
        }
    }
}
