//! `R | tenant | id`: a request.
//!
//! Value: a [`Head`], then the payload where it is small. The payload is the
//! caller's body while the request is open, and the answer afterwards: the write
//! that ends a request drops its body. A large payload stands in
//! [chunks](super::chunk).
//!
//! Born at admission, rewritten when another lane is chosen than at first and when
//! the request ends, gone when it is purged or erased.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    super::{
        codec::{Fields, Key, Kind, seal_with, unseal_with},
        kv::Span,
    },
    RequestFields, tenant,
};
use crate::{
    model::{
        id::{RequestId, RequestKey, TenantId},
        request::{Outcome, Request},
    },
    ports::StoreError,
};

pub const KIND: Kind = Kind {
    tag: b'R',
    name: "request",
};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Head {
    pub request: Request,
    pub done: Option<Done>,
    pub payload: Payload,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Done {
    pub outcome: Outcome,
    /// Its place in the feed.
    pub sequence: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Payload {
    Inline,
    Chunked { chunks: u32 },
}

pub fn key(key: RequestKey) -> Vec<u8> {
    Key::of(KIND).request(key).done()
}

/// What stands behind the tag of a key that names a request.
pub fn of_bytes(bytes: &[u8]) -> Option<RequestKey> {
    let (tenant, id) = bytes.split_first_chunk()?;
    Some(RequestKey {
        tenant: TenantId(*tenant),
        id: RequestId::from_bytes(*id.first_chunk()?),
    })
}

pub fn all() -> Span {
    Span::prefix(&[KIND.tag])
}

/// The requests of the tenants behind `tenant`.
pub fn behind(tenant: TenantId) -> Span {
    all().after(&key(RequestKey {
        tenant,
        id: RequestId::from_bytes([u8::MAX; 16]),
    }))
}

/// Whose request this is a key of.
pub fn tenant_of(key: &[u8]) -> Result<TenantId, StoreError> {
    tenant(&mut Fields::of(KIND, key)?)
}

/// A tenant's requests, oldest first, those before `before`.
pub fn of_tenant(tenant: TenantId, before: Option<RequestId>) -> Span {
    let span = Span::prefix(&Key::of(KIND).raw(&tenant.0).done());
    match before {
        Some(id) => span.before(&key(RequestKey { tenant, id })),
        None => span,
    }
}

pub fn encode(head: &Head, inline: &[u8]) -> Bytes {
    seal_with(head, inline)
}

pub fn decode(key: &[u8], value: &Bytes) -> Result<(Head, Bytes), StoreError> {
    unseal_with(KIND, key, value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::samples, *};

    proptest! {
        #[test]
        fn round_trip(head in samples::head(), payload: Vec<u8>) {
            let name = key(head.request.key);
            prop_assert!(of_tenant(head.request.key.tenant, None).from <= name);
            prop_assert!(all().from <= name && behind(head.request.key.tenant).from >= name);
            prop_assert_eq!(tenant_of(&name)?, head.request.key.tenant);
            let (read, rest) = decode(&name, &encode(&head, &payload))?;
            prop_assert_eq!((read, rest.to_vec()), (head, payload));
        }
    }
}
