//! `T | tenant | id | attempt`: one try at answering a request. Value: the
//! [`Attempt`].
//!
//! `X | tenant | id | attempt`: the attempt is open. Value: empty.
//!
//! Attempts are born before a live call is sent, or when an answer comes late,
//! and go with their request; of an open one [`unbooked`](super::unbooked) stays. `X` stands while the attempt is open, so that what
//! was in flight when the process died is found at start.

use bytes::Bytes;

use super::{
    super::{
        codec::{Fields, Key, Kind, seal, unseal},
        kv::Span,
    },
    RequestFields, request_key,
};
use crate::{
    model::{
        attempt::{Attempt, AttemptId},
        id::{BatchId, RequestKey},
    },
    ports::StoreError,
};

pub const KIND: Kind = Kind {
    tag: b'T',
    name: "attempt",
};
pub const OPEN: Kind = Kind {
    tag: b'X',
    name: "open attempt",
};

pub fn key(request: RequestKey, attempt: AttemptId) -> Vec<u8> {
    named(KIND, request, attempt)
}

pub fn of_request(request: RequestKey) -> Span {
    Span::prefix(&Key::of(KIND).request(request).done())
}

pub fn encode(attempt: &Attempt) -> Bytes {
    seal(attempt)
}

pub fn decode(key: &[u8], value: &Bytes) -> Result<Attempt, StoreError> {
    unseal(KIND, key, value)
}

pub fn open_key(request: RequestKey, attempt: AttemptId) -> Vec<u8> {
    named(OPEN, request, attempt)
}

pub fn encode_open() -> Bytes {
    seal(&())
}

pub fn all_open() -> Span {
    Span::prefix(&[OPEN.tag])
}

pub fn decode_open(key: &[u8], value: &Bytes) -> Result<(RequestKey, AttemptId), StoreError> {
    let mut fields = Fields::of(OPEN, key)?;
    let request = request_key(&mut fields)?;
    let attempt = match fields.byte()? {
        0 => AttemptId::Batch(BatchId::from_bytes(fields.array()?)),
        1 => AttemptId::Live(fields.u32()?),
        _ => return Err(fields.corrupt("no such kind of attempt")),
    };
    fields.end()?;
    unseal::<()>(OPEN, key, value)?;
    Ok((request, attempt))
}

pub fn named(kind: Kind, request: RequestKey, attempt: AttemptId) -> Vec<u8> {
    let key = Key::of(kind).request(request);
    match attempt {
        AttemptId::Batch(batch) => key.byte(0).raw(batch.as_bytes()).done(),
        AttemptId::Live(number) => key.byte(1).u32(number).done(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::samples, *};

    proptest! {
        #[test]
        fn round_trip(request in samples::request_key(), attempt in samples::attempt()) {
            let name = key(request, attempt.id);
            let span = of_request(request);
            prop_assert!(span.from < name && name < span.to);
            prop_assert_eq!(&decode(&name, &encode(&attempt))?, &attempt);
            let name = open_key(request, attempt.id);
            prop_assert_eq!(decode_open(&name, &encode_open())?, (request, attempt.id));
        }
    }
}
