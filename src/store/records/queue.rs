//! `Q | destination | on-late | guarantee | bucket start | bucket width | id |
//! tenant`: a request waits to be packed. Value: lane,
//! deadline, line bytes, inputs.
//!
//! Born at admission or when an attempt ends without an answer; gone when the
//! request is claimed for a batch, goes live, or ends. One cohort's entries stand
//! together, oldest first.

use bytes::Bytes;

use super::{
    super::{
        codec::{Fields, Key, Kind, seal, unseal},
        kv::Span,
    },
    guarantee, id, on_late, on_late_byte, rank, tenant,
};
use crate::{
    model::{
        id::{DestinationId, RequestId, RequestKey, TenantId},
        request::{Bucket, Cohort, Entry},
    },
    ports::StoreError,
};

pub const KIND: Kind = Kind {
    tag: b'Q',
    name: "queue entry",
};

pub fn key(cohort: &Cohort, request: RequestKey) -> Vec<u8> {
    prefix(cohort)
        .raw(request.id.as_bytes())
        .raw(&request.tenant.0)
        .done()
}

pub fn of_cohort(cohort: &Cohort) -> Span {
    Span::prefix(&prefix(cohort).done())
}

pub fn all() -> Span {
    Span::prefix(&[KIND.tag])
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
    seal(&(entry.lane, entry.deadline, entry.line_bytes, entry.inputs))
}

pub fn decode(key: &[u8], value: &Bytes) -> Result<(Cohort, Entry), StoreError> {
    let mut fields = Fields::of(KIND, key)?;
    let destination = DestinationId(fields.array()?);
    let on_late = on_late(&mut fields)?;
    let guarantee = guarantee(&mut fields)?;
    let bucket = Bucket {
        start: fields.time()?,
        width_log2: fields.byte()?,
    };
    let id = id(&mut fields)?;
    let tenant = tenant(&mut fields)?;
    fields.end()?;
    let (lane, deadline, line_bytes, inputs) = unseal(KIND, key, value)?;
    let cohort = Cohort {
        destination,
        on_late,
        guarantee,
        bucket,
    };
    let entry = Entry {
        key: RequestKey { tenant, id },
        cohort,
        lane,
        deadline,
        line_bytes,
        inputs,
    };
    Ok((cohort, entry))
}

fn prefix(cohort: &Cohort) -> Key {
    Key::of(KIND)
        .raw(&cohort.destination.0)
        .byte(on_late_byte(cohort.on_late))
        .byte(rank(cohort.guarantee))
        .time(cohort.bucket.start)
        .byte(cohort.bucket.width_log2)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::samples, *};

    proptest! {
        #[test]
        fn round_trip(cohort in samples::cohort(), entry in samples::entry()) {
            let entry = Entry { cohort, ..entry };
            let name = key(&cohort, entry.key);
            let span = of_cohort(&cohort);
            prop_assert!(span.from < name && name < span.to);
            let entry = Entry { cohort, ..entry };
            prop_assert_eq!(decode(&name, &encode(&entry))?, (cohort, entry));
        }

        #[test]
        fn keys_sort_as_cohorts_do(
            a in samples::cohort(), b in samples::cohort(), entry in samples::entry(),
        ) {
            prop_assert_eq!(key(&a, entry.key).cmp(&key(&b, entry.key)), a.cmp(&b));
        }
    }
}
