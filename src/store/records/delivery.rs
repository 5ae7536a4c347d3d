//! `W | due | tenant | id`: a webhook is due. Value: tries, first due.
//!
//! `D | tenant | id`: how the delivery stands. Value: the [`DeliveryStatus`].
//!
//! Both are born with the ending of a request that has a webhook. `W` moves to
//! the next due time at every failure and goes at the last; `D` stays as long as
//! the request.

use bytes::Bytes;

use super::{
    super::{
        codec::{Fields, Key, Kind, seal, unseal},
        kv::Span,
    },
    RequestFields, request_key,
};
use crate::{
    model::{id::RequestKey, time::Timestamp},
    ports::{Delivery, DeliveryStatus, StoreError},
};

pub const DUE: Kind = Kind {
    tag: b'W',
    name: "due delivery",
};
pub const STATUS: Kind = Kind {
    tag: b'D',
    name: "delivery status",
};

pub fn due_key(due: Timestamp, request: RequestKey) -> Vec<u8> {
    Key::of(DUE).time(due).request(request).done()
}

pub fn all_due() -> Span {
    Span::prefix(&[DUE.tag])
}

pub fn due_by(now: Timestamp) -> Span {
    let last = Key::of(DUE).time(now).raw(&[u8::MAX; 33]).done();
    all_due().before(&last)
}

pub fn encode_due(delivery: &Delivery) -> Bytes {
    seal(&(delivery.tries, delivery.first_due))
}

pub fn decode_due(key: &[u8], value: &Bytes) -> Result<Delivery, StoreError> {
    let mut fields = Fields::of(DUE, key)?;
    let due = fields.time()?;
    let request = request_key(&mut fields)?;
    fields.end()?;
    let (tries, first_due) = unseal(DUE, key, value)?;
    Ok(Delivery {
        due,
        key: request,
        tries,
        first_due,
    })
}

pub fn status_key(request: RequestKey) -> Vec<u8> {
    Key::of(STATUS).request(request).done()
}

pub fn encode_status(status: &DeliveryStatus) -> Bytes {
    seal(status)
}

pub fn decode_status(key: &[u8], value: &Bytes) -> Result<DeliveryStatus, StoreError> {
    unseal(STATUS, key, value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::samples, *};

    proptest! {
        #[test]
        fn round_trip(
            key in samples::request_key(),
            due in samples::time(),
            first_due in samples::time(),
            tries: u32,
            last: Option<String>,
        ) {
            let delivery = Delivery { due, key, tries, first_due };
            let name = due_key(due, key);
            prop_assert_eq!(decode_due(&name, &encode_due(&delivery))?, delivery);
            prop_assert!(name < due_by(due).to);
            prop_assert!(name >= due_by(Timestamp::from_millis(due.as_millis() - 1)).to);
            let name = status_key(key);
            for status in [
                DeliveryStatus::Pending { next: due, tries, last },
                DeliveryStatus::Delivered { at: due, tries },
                DeliveryStatus::Dead { at: due, tries, last: "410".into() },
            ] {
                prop_assert_eq!(decode_status(&name, &encode_status(&status))?, status);
            }
        }
    }
}
