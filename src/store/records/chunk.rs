//! `Y | tenant | id | side | number`: a part of a payload that is too large to
//! stand in its [request](super::request)'s record. Value: an empty record, then
//! the bytes.
//!
//! `J | tenant | id | side`: these chunks are being written or removed.
//!
//! A few chunks are written and removed with the record that names them. Many
//! take several commits: they are written before that record and removed after
//! the one that stops naming them; meanwhile the `J` stands. What it names at
//! start-up is removed, unless the record needs it.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    super::{
        codec::{Fields, Key, Kind, seal, seal_with, unseal_with},
        kv::Span,
    },
    RequestFields, request_key,
};
use crate::{model::id::RequestKey, ports::StoreError};

pub const KIND: Kind = Kind {
    tag: b'Y',
    name: "chunk",
};
pub const JOURNAL: Kind = Kind {
    tag: b'J',
    name: "chunk journal",
};

/// Bytes of a chunk, and the most that a request's record holds inline. sled
/// keeps up to 17 pairs as one page, and a page in each of the 256 shards of its
/// cache whatever the cache's size is: 20 MB with chunks of this many bytes,
/// which with what stands around them fill 4096.
pub const BYTES: usize = 4000;

/// Which payload of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Side {
    Body,
    Answer,
}

pub fn key(request: RequestKey, side: Side, number: u32) -> Vec<u8> {
    Key::of(KIND)
        .request(request)
        .byte(side as u8)
        .u32(number)
        .done()
}

/// All chunks of one payload.
pub fn all(request: RequestKey, side: Side) -> Span {
    Span::prefix(&Key::of(KIND).request(request).byte(side as u8).done())
}

pub fn encode(bytes: &[u8]) -> Bytes {
    seal_with(&(), bytes)
}

pub fn decode(key: &[u8], value: &Bytes) -> Result<Bytes, StoreError> {
    unseal_with::<()>(KIND, key, value).map(|((), bytes)| bytes)
}

pub fn journal_key(request: RequestKey, side: Side) -> Vec<u8> {
    Key::of(JOURNAL).request(request).byte(side as u8).done()
}

pub fn journal_value() -> Bytes {
    seal(&())
}

pub fn journal() -> Span {
    Span::prefix(&[JOURNAL.tag])
}

pub fn read_journal_key(key: &[u8]) -> Result<(RequestKey, Side), StoreError> {
    let mut fields = Fields::of(JOURNAL, key)?;
    let request = request_key(&mut fields)?;
    let side = match fields.byte()? {
        0 => Side::Body,
        1 => Side::Answer,
        _ => return Err(fields.corrupt("no such side")),
    };
    fields.end()?;
    Ok((request, side))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::samples, *};

    proptest! {
        #[test]
        fn round_trip(request in samples::request_key(), number: u32, bytes: Vec<u8>) {
            for side in [Side::Body, Side::Answer] {
                let name = key(request, side, number);
                let span = all(request, side);
                prop_assert!(span.from < name && name < span.to);
                prop_assert_eq!(decode(&name, &encode(&bytes))?.to_vec(), bytes.clone());
                prop_assert_eq!(read_journal_key(&journal_key(request, side))?, (request, side));
            }
        }
    }
}
