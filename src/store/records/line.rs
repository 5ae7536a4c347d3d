//! `L | batch | id | tenant`: a request is a line of a batch. Value: cohort,
//! lane, deadline, line bytes, inputs.
//!
//! Born when the request is claimed; gone when it is answered, goes back to its
//! queue, or goes live. Lines stand in the order of the file.

use bytes::Bytes;

use super::{
    super::{
        codec::{Fields, Key, Kind, seal, unseal},
        kv::Span,
    },
    id, tenant,
};
use crate::{
    model::{
        id::{BatchId, RequestId, RequestKey, TenantId},
        request::Entry,
    },
    ports::StoreError,
};

pub const KIND: Kind = Kind {
    tag: b'L',
    name: "batch line",
};

pub fn key(batch: BatchId, request: RequestKey) -> Vec<u8> {
    Key::of(KIND)
        .raw(batch.as_bytes())
        .raw(request.id.as_bytes())
        .raw(&request.tenant.0)
        .done()
}

pub fn of_batch(batch: BatchId, after: Option<RequestId>) -> Span {
    let prefix = Key::of(KIND).raw(batch.as_bytes());
    let span = Span::prefix(&prefix.done());
    match after {
        None => span,
        Some(id) => {
            let passed = Key::of(KIND).raw(batch.as_bytes()).raw(id.as_bytes());
            span.after(&passed.raw(&[u8::MAX; 16]).done())
        }
    }
}

/// The batch that a key names.
pub fn batch_of(key: &[u8]) -> Result<BatchId, StoreError> {
    let mut fields = Fields::of(KIND, key)?;
    Ok(BatchId::from_bytes(fields.array()?))
}

/// The request that a key names, whatever its value says.
pub fn request_of(key: &[u8]) -> Option<RequestKey> {
    let (_, ends) = key.split_last_chunk::<32>()?;
    let (id, tenant) = ends.split_first_chunk::<16>()?;
    Some(RequestKey {
        tenant: TenantId(*tenant.first_chunk()?),
        id: RequestId::from_bytes(*id),
    })
}

pub fn encode(entry: &Entry) -> Bytes {
    seal(&(
        entry.cohort,
        entry.lane,
        entry.deadline,
        entry.line_bytes,
        entry.inputs,
    ))
}

pub fn decode(key: &[u8], value: &Bytes) -> Result<(BatchId, Entry), StoreError> {
    let mut fields = Fields::of(KIND, key)?;
    let batch = BatchId::from_bytes(fields.array()?);
    let id = id(&mut fields)?;
    let tenant = tenant(&mut fields)?;
    fields.end()?;
    let (cohort, lane, deadline, line_bytes, inputs) = unseal(KIND, key, value)?;
    let entry = Entry {
        key: RequestKey { tenant, id },
        cohort,
        lane,
        deadline,
        line_bytes,
        inputs,
    };
    Ok((batch, entry))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::samples, *};

    proptest! {
        #[test]
        fn round_trip(batch: [u8; 16], entry in samples::entry()) {
            let batch = BatchId::from_bytes(batch);
            let name = key(batch, entry.key);
            prop_assert_eq!(batch_of(&name)?, batch);
            let span = of_batch(batch, None);
            prop_assert!(span.from < name && name < span.to);
            prop_assert!(of_batch(batch, Some(entry.key.id)).from > name);
            prop_assert_eq!(decode(&name, &encode(&entry))?, (batch, entry));
        }
    }
}
