//! `V | deadline | tenant | id`: a request waits for a live call, or is in one.
//! Value: line bytes, inputs.
//!
//! Born at admission or rescue; gone when the request ends. The earliest
//! deadline stands first.

use bytes::Bytes;

use super::{
    super::{
        codec::{Fields, Key, Kind, seal, unseal},
        kv::Span,
    },
    RequestFields, request_key,
};
use crate::{
    model::{id::RequestKey, request::Entry, time::Timestamp},
    ports::StoreError,
};

pub const KIND: Kind = Kind {
    tag: b'V',
    name: "live entry",
};

pub fn key(deadline: Timestamp, request: RequestKey) -> Vec<u8> {
    Key::of(KIND).time(deadline).request(request).done()
}

pub fn all(after: Option<(Timestamp, RequestKey)>) -> Span {
    let span = Span::prefix(&[KIND.tag]);
    match after {
        Some((deadline, request)) => span.after(&key(deadline, request)),
        None => span,
    }
}

pub fn encode(entry: &Entry) -> Bytes {
    seal(&(entry.line_bytes, entry.inputs))
}

pub fn decode(key: &[u8], value: &Bytes) -> Result<Entry, StoreError> {
    let mut fields = Fields::of(KIND, key)?;
    let deadline = fields.time()?;
    let request = request_key(&mut fields)?;
    fields.end()?;
    let (line_bytes, inputs) = unseal(KIND, key, value)?;
    Ok(Entry {
        key: request,
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
            let name = key(entry.deadline, entry.key);
            prop_assert!(all(None).from < name && name < all(None).to);
            prop_assert!(all(Some((entry.deadline, entry.key))).from > name);
            prop_assert_eq!(decode(&name, &encode(&entry))?, entry);
        }
    }
}
