//! `I | tenant | digest of the caller's key`: a request holds an idempotency
//! key. Value: the request's id and the fingerprint of its body.
//!
//! Born at admission; overwritten when the key is free again (its request ended
//! long enough ago), gone with its request.

use bytes::Bytes;

use super::super::codec::{Key, Kind, seal, unseal};
use crate::{
    model::id::{CallDigest, TenantId},
    ports::{Idempotent, StoreError},
};

pub const KIND: Kind = Kind {
    tag: b'I',
    name: "idempotency key",
};

pub fn key(tenant: TenantId, digest: CallDigest) -> Vec<u8> {
    Key::of(KIND).raw(&tenant.0).raw(&digest.0).done()
}

pub fn encode(held: &Idempotent) -> Bytes {
    seal(&(held.request, held.body_digest))
}

pub fn decode(key: &[u8], value: &Bytes) -> Result<Idempotent, StoreError> {
    let (request, body_digest) = unseal(KIND, key, value)?;
    Ok(Idempotent {
        request,
        body_digest,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::samples, *};

    proptest! {
        #[test]
        fn round_trip(request in samples::request_key(), digest: [u8; 16]) {
            let digest = CallDigest(digest);
            let held = Idempotent { request: request.id, body_digest: digest };
            let name = key(request.tenant, digest);
            prop_assert_eq!(decode(&name, &encode(&held))?, held);
        }
    }
}
