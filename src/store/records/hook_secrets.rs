//! `s | tenant`: which secrets sign a tenant's webhooks. Value: the [`Secrets`],
//! which are numbers: the secrets themselves are nowhere on disk.
//!
//! Born with the first rotation; stays.

use bytes::Bytes;

use super::super::codec::{Key, Kind, seal, unseal};
use crate::{
    model::{hook::Secrets, id::TenantId},
    ports::StoreError,
};

pub const KIND: Kind = Kind {
    tag: b's',
    name: "webhook secrets",
};

pub fn key(tenant: TenantId) -> Vec<u8> {
    Key::of(KIND).raw(&tenant.0).done()
}

pub fn encode(secrets: &Secrets) -> Bytes {
    seal(secrets)
}

pub fn decode(key: &[u8], value: &Bytes) -> Result<Secrets, StoreError> {
    unseal(KIND, key, value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::samples, *};

    proptest! {
        #[test]
        fn round_trip(tenant: [u8; 16], current: u32, until in samples::time()) {
            let secrets = Secrets { current, previous: vec![(3, until)] };
            let name = key(TenantId(tenant));
            prop_assert_eq!(decode(&name, &encode(&secrets))?, secrets);
        }
    }
}
