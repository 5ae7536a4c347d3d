//! `V | destination | on-late | guarantee | rescued | deadline | tenant | id`: a
//! request waits for a live call, or is in one. Value: lane, bucket, line bytes, inputs,
//! and behind them the id of the batch that it was taken out of, if any.
//!
//! Born at admission or rescue; gone when the request ends or goes back to its
//! queue. What a provider limits together stands together, the earliest deadline
//! first: where one cannot go, the next is a range away and not a scan.

use std::ops::Bound;

use bytes::Bytes;

use super::{
    super::{
        codec::{Fields, Key, Kind, seal, seal_with, unseal_with},
        kv::Span,
    },
    RequestFields, guarantee, on_late, on_late_byte, rank, request, request_key,
};
use crate::{
    model::{
        id::{BatchId, DestinationId, RequestKey},
        request::{Cohort, Entry, LiveQueue},
        time::Timestamp,
    },
    ports::StoreError,
};

pub const KIND: Kind = Kind {
    tag: b'V',
    name: "live entry",
};

pub fn key(entry: &Entry) -> Vec<u8> {
    position(entry.live_queue(), entry.deadline, entry.key)
}

/// Of all queues, behind `after`.
pub fn all(after: Option<&Entry>) -> Span {
    let span = Span::prefix(&[KIND.tag]);
    match after {
        Some(entry) => span.after(&key(entry)),
        None => span,
    }
}

pub fn of_queue(queue: LiveQueue, from: Bound<(Timestamp, RequestKey)>) -> Span {
    let span = Span::prefix(&prefix(queue).done());
    let at = |(deadline, request)| position(queue, deadline, request);
    match from {
        Bound::Unbounded => span,
        Bound::Excluded(passed) => span.after(&at(passed)),
        Bound::Included(first) => Span {
            from: at(first),
            ..span
        },
    }
}

/// The request that a key names, whatever its value says.
pub fn request_of(key: &[u8]) -> Option<RequestKey> {
    let (_, ends) = key.split_last_chunk::<32>()?;
    request::of_bytes(ends)
}

pub fn encode(entry: &Entry, batch: Option<BatchId>) -> Bytes {
    let record = (
        entry.lane,
        entry.cohort.bucket,
        entry.line_bytes,
        entry.inputs,
    );
    match batch {
        Some(batch) => seal_with(&record, batch.as_bytes()),
        None => seal(&record),
    }
}

/// With the batch that it was taken out of.
pub fn decode(key: &[u8], value: &Bytes) -> Result<(Entry, Option<BatchId>), StoreError> {
    let mut fields = Fields::of(KIND, key)?;
    let destination = DestinationId(fields.array()?);
    let on_late = on_late(&mut fields)?;
    let guarantee = guarantee(&mut fields)?;
    fields.byte()?;
    let deadline = fields.time()?;
    let request = request_key(&mut fields)?;
    fields.end()?;
    let ((lane, bucket, line_bytes, inputs), tail) = unseal_with(KIND, key, value)?;
    let batch = match (<[u8; 16]>::try_from(&tail[..]), tail.is_empty()) {
        (Ok(id), _) => Some(BatchId::from_bytes(id)),
        (Err(_), true) => None,
        (Err(_), false) => return Err(KIND.corrupt(key, "no id of a batch behind the record")),
    };
    let cohort = Cohort {
        destination,
        on_late,
        guarantee,
        bucket,
    };
    let entry = Entry {
        key: request,
        cohort,
        lane,
        deadline,
        line_bytes,
        inputs,
    };
    Ok((entry, batch))
}

fn position(queue: LiveQueue, deadline: Timestamp, request: RequestKey) -> Vec<u8> {
    prefix(queue).time(deadline).request(request).done()
}

fn prefix(queue: LiveQueue) -> Key {
    Key::of(KIND)
        .raw(&queue.destination.0)
        .byte(on_late_byte(queue.on_late))
        .byte(rank(queue.guarantee))
        .byte(queue.rescued.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::samples, *};

    proptest! {
        #[test]
        fn round_trip(
            entry in samples::entry(),
            other in samples::entry(),
            batch: Option<[u8; 16]>,
        ) {
            let name = key(&entry);
            prop_assert!(all(None).from < name && name < all(None).to);
            prop_assert!(all(Some(&entry)).from > name);
            let batch = batch.map(BatchId::from_bytes);
            prop_assert_eq!(decode(&name, &encode(&entry, batch))?, (entry, batch));
            let (queue, at) = (entry.live_queue(), (entry.deadline, entry.key));
            let holds = |span: Span, name: &Vec<u8>| span.from <= *name && *name < span.to;
            prop_assert!(holds(of_queue(queue, Bound::Unbounded), &name));
            prop_assert!(holds(of_queue(queue, Bound::Included(at)), &name));
            prop_assert!(!holds(of_queue(queue, Bound::Excluded(at)), &name));
            let other = Entry { cohort: entry.cohort, lane: entry.lane, ..other };
            let later = (other.deadline, other.key) > at;
            prop_assert_eq!(holds(of_queue(queue, Bound::Excluded(at)), &key(&other)), later);
        }
    }
}
