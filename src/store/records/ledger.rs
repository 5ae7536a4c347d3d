//! `G | tenant | hour | lane | digest of model and tag`: what was paid. Value:
//! the [`LedgerKey`] and its [`LedgerRow`].
//!
//! A few for every hour in which something ended. Rows only grow, and are purged when
//! their hour is long past. Model and tag come from callers, so
//! the key holds a digest of bounded length.

use std::ops::Range;

use bytes::Bytes;

use super::super::{
    codec::{Fields, Key, Kind, seal, unseal},
    kv::Span,
};
use crate::{
    model::{
        attempt::Lane,
        id::TenantId,
        ledger::{LedgerKey, LedgerRow},
    },
    ports::StoreError,
};

pub const KIND: Kind = Kind {
    tag: b'G',
    name: "ledger row",
};

pub fn key(key: &LedgerKey) -> Vec<u8> {
    let lane = match key.lane {
        None => 0,
        Some(Lane::Batch) => 1,
        Some(Lane::Flex) => 2,
        Some(Lane::Background8h) => 3,
        Some(Lane::Background2h) => 4,
        Some(Lane::Standard) => 5,
    };
    let mut digest = blake3::Hasher::new();
    digest.update(&(key.model.len() as u64).to_be_bytes());
    digest.update(key.model.as_bytes());
    if let Some(tag) = &key.tag {
        digest.update(&[1]);
        digest.update(tag.as_bytes());
    }
    Key::of(KIND)
        .raw(&key.tenant.0)
        .u32(key.hour)
        .byte(lane)
        .raw(&digest.finalize().as_bytes()[..16])
        .done()
}

pub fn all() -> Span {
    Span::prefix(&[KIND.tag])
}

pub fn tenant_and_hour(key: &[u8]) -> Result<(TenantId, u32), StoreError> {
    let mut fields = Fields::of(KIND, key)?;
    Ok((TenantId(fields.array()?), fields.u32()?))
}

/// The rows of a tenant and of those behind it.
pub fn from(tenant: TenantId) -> Span {
    Span {
        from: Key::of(KIND).raw(&tenant.0).done(),
        ..all()
    }
}

/// The tenant's rows of hours before this one.
pub fn before(tenant: TenantId, hour: u32) -> Span {
    let tenant = || Key::of(KIND).raw(&tenant.0);
    Span {
        from: tenant().done(),
        to: tenant().u32(hour).done(),
    }
}

/// Behind all of a tenant's rows.
pub fn last_of(tenant: TenantId) -> Vec<u8> {
    Key::of(KIND).raw(&tenant.0).raw(&[u8::MAX; 22]).done()
}

/// The tenant's rows of these hours.
pub fn of_hours(tenant: TenantId, hours: &Range<u32>) -> Span {
    Span {
        from: of_tenant(tenant, hours.start).from,
        to: before(tenant, hours.end).to,
    }
}

/// The tenant's rows from an hour on.
pub fn of_tenant(tenant: TenantId, since: u32) -> Span {
    let tenant = || Key::of(KIND).raw(&tenant.0);
    Span {
        from: tenant().u32(since).done(),
        ..Span::prefix(&tenant().done())
    }
}

pub fn encode(key: &LedgerKey, row: &LedgerRow) -> Bytes {
    seal(&(key, row))
}

pub fn decode(key: &[u8], value: &Bytes) -> Result<(LedgerKey, LedgerRow), StoreError> {
    unseal(KIND, key, value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::samples, *};

    proptest! {
        #[test]
        fn round_trip(row in samples::ledger_key(), other in samples::ledger_key(), requests: u64) {
            let name = key(&row);
            let holds = |since: u32| {
                let span = of_tenant(row.tenant, since);
                span.from < name && name < span.to
            };
            prop_assert!(holds(0) && holds(row.hour) && !holds(row.hour + 1));
            let hours = |hours| {
                let span = of_hours(row.tenant, &hours);
                span.from < name && name < span.to
            };
            prop_assert!(hours(row.hour..row.hour + 1) && !hours(0..row.hour));
            prop_assert_eq!(name == key(&other), row == other);
            let sums = LedgerRow { requests, ..LedgerRow::default() };
            prop_assert_eq!(decode(&name, &encode(&row, &sums))?, (row, sums));
        }
    }
}
