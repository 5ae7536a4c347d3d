//! `O | tenant | digest of the call | id`: a held request whose answer has not
//! been delivered. Value: empty.
//!
//! Born with a held request; gone when the caller has its answer, or with the
//! request.

use bytes::Bytes;

use super::{
    super::{
        codec::{Fields, Key, Kind, seal, unseal},
        kv::Span,
    },
    id, tenant,
};
use crate::{
    model::id::{CallDigest, RequestKey},
    ports::StoreError,
};

pub const KIND: Kind = Kind {
    tag: b'O',
    name: "held request",
};

pub fn key(digest: CallDigest, request: RequestKey) -> Vec<u8> {
    Key::of(KIND)
        .raw(&request.tenant.0)
        .raw(&digest.0)
        .raw(request.id.as_bytes())
        .done()
}

pub fn all() -> Span {
    Span::prefix(&[KIND.tag])
}

pub fn encode() -> Bytes {
    seal(&())
}

pub fn decode(key: &[u8], value: &Bytes) -> Result<(CallDigest, RequestKey), StoreError> {
    let mut fields = Fields::of(KIND, key)?;
    let tenant = tenant(&mut fields)?;
    let digest = CallDigest(fields.array()?);
    let id = id(&mut fields)?;
    fields.end()?;
    unseal::<()>(KIND, key, value)?;
    Ok((digest, RequestKey { tenant, id }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::samples, *};

    proptest! {
        #[test]
        fn round_trip(request in samples::request_key(), digest: [u8; 16]) {
            let digest = CallDigest(digest);
            prop_assert_eq!(decode(&key(digest, request), &encode())?, (digest, request));
        }
    }
}
