//! `F | tenant | sequence`: a request ended. Value: its id and when.
//!
//! Born with the ending; gone when the request is purged or erased. It is the
//! tenant's feed, and the purge's list of what finished first.
//!
//! `P | tenant`: the feed is purged up to this sequence. Stays.

use bytes::Bytes;

use super::{
    super::{
        codec::{Fields, Key, Kind, seal, unseal},
        kv::Span,
    },
    tenant,
};
use crate::{
    model::{
        id::{RequestId, RequestKey, TenantId},
        time::Timestamp,
    },
    ports::{FeedEntry, StoreError},
};

pub const KIND: Kind = Kind {
    tag: b'F',
    name: "feed entry",
};
pub const FLOOR: Kind = Kind {
    tag: b'P',
    name: "feed floor",
};

pub fn key(tenant: TenantId, sequence: u64) -> Vec<u8> {
    Key::of(KIND).raw(&tenant.0).u64(sequence).done()
}

pub fn of_tenant(tenant: TenantId, after: u64) -> Span {
    Span::prefix(&Key::of(KIND).raw(&tenant.0).done()).after(&key(tenant, after))
}

/// A tenant's entries before `before` in commit order.
pub fn of_tenant_before(tenant: TenantId, before: Option<u64>) -> Span {
    let span = of_tenant(tenant, 0);
    match before {
        Some(sequence) => span.before(&key(tenant, sequence)),
        None => span,
    }
}

pub fn all() -> Span {
    Span::prefix(&[KIND.tag])
}

/// The feeds of the tenants behind `tenant`.
pub fn behind(tenant: TenantId) -> Span {
    all().after(&key(tenant, u64::MAX))
}

pub fn encode(id: RequestId, finished: Timestamp) -> Bytes {
    seal(&(id, finished))
}

pub fn decode(key: &[u8], value: &Bytes) -> Result<(FeedEntry, Timestamp), StoreError> {
    let mut fields = Fields::of(KIND, key)?;
    let tenant = tenant(&mut fields)?;
    let sequence = fields.u64()?;
    fields.end()?;
    let (id, finished) = unseal(KIND, key, value)?;
    let key = RequestKey { tenant, id };
    Ok((FeedEntry { sequence, key }, finished))
}

/// Whose feed this is a key of.
pub fn tenant_of(key: &[u8]) -> Result<TenantId, StoreError> {
    tenant(&mut Fields::of(KIND, key)?)
}

pub fn floor_key(tenant: TenantId) -> Vec<u8> {
    Key::of(FLOOR).raw(&tenant.0).done()
}

pub fn encode_floor(sequence: u64) -> Bytes {
    seal(&sequence)
}

pub fn decode_floor(key: &[u8], value: &Bytes) -> Result<u64, StoreError> {
    unseal(FLOOR, key, value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::samples, *};

    proptest! {
        #[test]
        fn round_trip(request in samples::request_key(), sequence in 1u64.., at in samples::time()) {
            let name = key(request.tenant, sequence);
            let entry = FeedEntry { sequence, key: request };
            prop_assert_eq!(decode(&name, &encode(request.id, at))?, (entry, at));
            prop_assert!(of_tenant(request.tenant, sequence - 1).from <= name);
            prop_assert!(of_tenant(request.tenant, sequence).from > name);
            prop_assert!(behind(request.tenant).from > name);
            let name = floor_key(request.tenant);
            prop_assert_eq!(decode_floor(&name, &encode_floor(sequence))?, sequence);
        }
    }
}
