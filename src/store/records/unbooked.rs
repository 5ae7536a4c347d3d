//! `A | tenant | id | attempt`: a live call that was open when its request was
//! erased. Value: the [`Unbooked`].
//!
//! `H | batch | tenant | id`: the batch's answer to a request that is erased is in
//! the ledger. Value: empty.
//!
//! `A` is born when the request is erased, and gone when the call is booked or known
//! to have cost nothing. `H` is born when the answer is booked, or when the request
//! of one that was booked is erased; it goes with its batch, whose files may be read
//! again until that has ended.

use bytes::Bytes;

use super::{
    super::{
        codec::{Key, Kind, seal, unseal},
        kv::Span,
    },
    RequestFields, attempt,
};
use crate::{
    model::{
        attempt::AttemptId,
        id::{BatchId, RequestKey},
    },
    ports::{StoreError, Unbooked},
};

pub const CALL: Kind = Kind {
    tag: b'A',
    name: "call of an erased request",
};
pub const LINE: Kind = Kind {
    tag: b'H',
    name: "booked line of an erased request",
};

pub fn call_key(request: RequestKey, id: AttemptId) -> Vec<u8> {
    attempt::named(CALL, request, id)
}

/// The calls of one request, or of all.
pub fn calls(of: Option<RequestKey>) -> Span {
    let prefix = Key::of(CALL);
    let prefix = match of {
        Some(request) => prefix.request(request),
        None => prefix,
    };
    Span::prefix(&prefix.done())
}

pub fn encode_call(call: &Unbooked) -> Bytes {
    seal(call)
}

pub fn decode_call(key: &[u8], value: &Bytes) -> Result<Unbooked, StoreError> {
    unseal(CALL, key, value)
}

pub fn line_key(batch: BatchId, request: RequestKey) -> Vec<u8> {
    Key::of(LINE).raw(batch.as_bytes()).request(request).done()
}

pub fn lines(batch: BatchId) -> Span {
    Span::prefix(&Key::of(LINE).raw(batch.as_bytes()).done())
}

pub fn encode_line() -> Bytes {
    seal(&())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::samples, *};

    proptest! {
        #[test]
        fn round_trip(
            entry in samples::entry(),
            attempt in samples::attempt(),
            (model, tag) in any::<(String, Option<String>)>(),
            batch in any::<[u8; 16]>(),
        ) {
            let call = Unbooked { entry, model, tag, attempt };
            let name = call_key(entry.key, call.attempt.id);
            for span in [calls(None), calls(Some(entry.key))] {
                prop_assert!(span.from < name && name < span.to);
            }
            prop_assert_eq!(decode_call(&name, &encode_call(&call))?, call);
            let batch = BatchId::from_bytes(batch);
            let (name, span) = (line_key(batch, entry.key), lines(batch));
            prop_assert!(span.from < name && name < span.to);
        }
    }
}
