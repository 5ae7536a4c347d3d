//! `z | tenant | receiver`: a receiver of webhooks that is turned off. Value: its
//! target, and since when.
//!
//! Born with the first 410 that it answers; goes when it is turned on, or is
//! forgotten with its age.

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
        hook::TurnedOff,
        id::{ReceiverId, TenantId},
    },
    ports::StoreError,
};

pub const KIND: Kind = Kind {
    tag: b'z',
    name: "receiver that is off",
};

pub fn key(tenant: TenantId, receiver: ReceiverId) -> Vec<u8> {
    Key::of(KIND).raw(&tenant.0).raw(&receiver.0).done()
}

pub fn of_tenant(tenant: TenantId) -> Span {
    Span::prefix(&Key::of(KIND).raw(&tenant.0).done())
}

pub fn all() -> Span {
    Span::prefix(&[KIND.tag])
}

pub fn encode(off: &TurnedOff) -> Bytes {
    seal(&(&off.target, off.since))
}

pub fn decode(key: &[u8], value: &Bytes) -> Result<TurnedOff, StoreError> {
    let mut fields = Fields::of(KIND, key)?;
    let tenant = tenant(&mut fields)?;
    let receiver = fields.array().map(ReceiverId)?;
    fields.end()?;
    let (target, since) = unseal(KIND, key, value)?;
    Ok(TurnedOff {
        tenant,
        receiver,
        target,
        since,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::samples, *};

    proptest! {
        #[test]
        fn round_trip(
            tenant: [u8; 16],
            receiver: [u8; 16],
            target: String,
            since in samples::time(),
        ) {
            let (tenant, receiver) = (TenantId(tenant), ReceiverId(receiver));
            let off = TurnedOff { tenant, receiver, target, since };
            let name = key(tenant, receiver);
            prop_assert_eq!(decode(&name, &encode(&off))?, off);
            let span = of_tenant(tenant);
            prop_assert!(span.from < name && name < span.to);
        }
    }
}
