//! `V | guarantee | deadline | tenant | id`: a request waits for a live call, or is
//! in one. Value: line bytes, inputs, cohort.
//!
//! Born at admission or rescue; gone when the request ends. What is firm stands
//! first, then the earliest deadline.

use bytes::Bytes;

use super::{
    super::{
        codec::{Fields, Key, Kind, seal, unseal},
        kv::Span,
    },
    RequestFields, guarantee, rank, request_key,
};
use crate::{
    model::request::{Cohort, Entry},
    ports::StoreError,
};

pub const KIND: Kind = Kind {
    tag: b'V',
    name: "live entry",
};

pub fn key(entry: &Entry) -> Vec<u8> {
    Key::of(KIND)
        .byte(rank(entry.cohort.guarantee))
        .time(entry.deadline)
        .request(entry.key)
        .done()
}

pub fn all(after: Option<&Entry>) -> Span {
    let span = Span::prefix(&[KIND.tag]);
    match after {
        Some(entry) => span.after(&key(entry)),
        None => span,
    }
}

pub fn encode(entry: &Entry) -> Bytes {
    seal(&(entry.line_bytes, entry.inputs, entry.cohort))
}

pub fn decode(key: &[u8], value: &Bytes) -> Result<Entry, StoreError> {
    let mut fields = Fields::of(KIND, key)?;
    let guarantee = guarantee(&mut fields)?;
    let deadline = fields.time()?;
    let request = request_key(&mut fields)?;
    fields.end()?;
    let (line_bytes, inputs, cohort): (u32, u32, Cohort) = unseal(KIND, key, value)?;
    Ok(Entry {
        key: request,
        cohort: Cohort {
            guarantee,
            ..cohort
        },
        deadline,
        line_bytes,
        inputs,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::samples, *};

    proptest! {
        #[test]
        fn round_trip(entry in samples::entry()) {
            let name = key(&entry);
            prop_assert!(all(None).from < name && name < all(None).to);
            prop_assert!(all(Some(&entry)).from > name);
            prop_assert_eq!(decode(&name, &encode(&entry))?, entry);
        }
    }
}
