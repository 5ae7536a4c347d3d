//! `U | fingerprint of a key`: whose key it is, where it is not the tenant that the
//! fingerprint itself names. Value: the [`KeyOwner`].
//!
//! Born when a tenant moves to another key: two a move. They stay.

use bytes::Bytes;

use super::super::{
    codec::{Fields, Key, Kind, seal, unseal},
    kv::Span,
};
use crate::{
    model::id::TenantId,
    ports::{KeyOwner, StoreError},
};

pub const KIND: Kind = Kind {
    tag: b'U',
    name: "tenant",
};

pub fn key(print: TenantId) -> Vec<u8> {
    Key::of(KIND).raw(&print.0).done()
}

pub fn all() -> Span {
    Span::prefix(&[KIND.tag])
}

pub fn encode(owner: &KeyOwner) -> Bytes {
    seal(owner)
}

pub fn decode(key: &[u8], value: &Bytes) -> Result<(TenantId, KeyOwner), StoreError> {
    let mut fields = Fields::of(KIND, key)?;
    let print = TenantId(fields.array()?);
    fields.end()?;
    Ok((print, unseal(KIND, key, value)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn round_trip(print: [u8; 16], tenant: [u8; 16], kept: bool) {
            let print = TenantId(print);
            let owner = KeyOwner { tenant: TenantId(tenant), kept };
            let name = key(print);
            prop_assert!(all().from < name && name < all().to);
            prop_assert_eq!(decode(&name, &encode(&owner))?, (print, owner));
        }
    }
}
