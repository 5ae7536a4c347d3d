//! `S | tenant | day | deadline in ms | digest of model`: what calls without a
//! deadline would have saved. Value: the [`ShadowKey`] and its [`ShadowRow`].
//!
//! Written over now and then with sums that only grow; removed when the day is long
//! past. Models come from answers, so the key holds a digest of bounded length.

use bytes::Bytes;

use super::super::{
    codec::{Key, Kind, seal, unseal},
    kv::Span,
};
use crate::{
    model::shadow::{ShadowKey, ShadowRow},
    ports::StoreError,
};

pub const KIND: Kind = Kind {
    tag: b'S',
    name: "shadow row",
};

pub fn key(key: &ShadowKey) -> Vec<u8> {
    let mut digest = blake3::Hasher::new();
    if let Some(model) = &key.model {
        digest.update(&[1]);
        digest.update(model.as_bytes());
    }
    let millis = u64::try_from(key.deadline.as_millis()).unwrap_or(u64::MAX);
    Key::of(KIND)
        .raw(&key.tenant.0)
        .u32(key.day)
        .u64(millis)
        .raw(&digest.finalize().as_bytes()[..16])
        .done()
}

pub fn all() -> Span {
    Span::prefix(&[KIND.tag])
}

pub fn encode(key: &ShadowKey, row: &ShadowRow) -> Bytes {
    seal(&(key, row))
}

pub fn decode(key: &[u8], value: &Bytes) -> Result<(ShadowKey, ShadowRow), StoreError> {
    unseal(KIND, key, value)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::model::id::TenantId;

    fn shadow_key() -> impl Strategy<Value = ShadowKey> {
        let models = prop::sample::select(vec![None, Some(""), Some("a"), Some("ab")]);
        (any::<bool>(), 0u32..3, 0u64..3, models).prop_map(|(tenant, day, hours, model)| {
            ShadowKey {
                tenant: TenantId([tenant.into(); 16]),
                day,
                deadline: Duration::from_secs(3600 * hours),
                model: model.map(Into::into),
            }
        })
    }

    proptest! {
        #[test]
        fn round_trip(one in shadow_key(), other in shadow_key(), calls: u64) {
            let name = key(&one);
            prop_assert!(all().from < name && name < all().to);
            prop_assert_eq!(name == key(&other), one == other);
            let row = ShadowRow { calls, ..ShadowRow::default() };
            prop_assert_eq!(decode(&name, &encode(&one, &row))?, (one, row));
        }
    }
}
