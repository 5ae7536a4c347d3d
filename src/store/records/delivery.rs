//! `W | due | tenant | id`: a webhook is due. Value: tries, first due; receiver and
//! the request's end (early versions wrote neither: they are the request's).
//!
//! `D | tenant | id`: how the delivery stands. Value: the [`DeliveryStatus`].
//!
//! `w | receiver | ended | tenant | id`: it is due, and in its receiver's backlog.
//! Value: due, tries, first due.
//!
//! `x | tenant | receiver | id`: it is a dead letter. No value.
//!
//! `W` and `D` are born with the ending of a request that has a webhook. `W` moves to
//! the next due time at every failure and goes at the last; `D` stays as long as
//! the request. `w` takes the place of a `W` that is due and cannot be sent at once:
//! its key holds nothing that changes, so that whoever ends the delivery finds it.
//! `x` stands where `D` is dead.

use bytes::Bytes;

use super::{
    super::{
        codec::{Fields, Key, Kind, seal, unseal, unseal_with},
        kv::Span,
    },
    RequestFields, id, request_key, tenant,
};
use crate::{
    model::{
        id::{ReceiverId, RequestId, RequestKey, TenantId},
        time::Timestamp,
    },
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

pub const BACKLOG: Kind = Kind {
    tag: b'w',
    name: "backlog of webhooks",
};
pub const DEAD: Kind = Kind {
    tag: b'x',
    name: "dead letter",
};

pub fn due_key(due: Timestamp, request: RequestKey) -> Vec<u8> {
    Key::of(DUE).time(due).request(request).done()
}

pub fn all_due() -> Span {
    Span::prefix(&[DUE.tag])
}

pub fn due_by(now: Timestamp, after: Option<(Timestamp, RequestKey)>) -> Span {
    let last = Key::of(DUE).time(now).raw(&[u8::MAX; 33]).done();
    let span = all_due().before(&last);
    match after {
        Some((due, request)) => span.after(&due_key(due, request)),
        None => span,
    }
}

pub fn encode_due(delivery: &Delivery) -> Bytes {
    let Delivery {
        tries,
        first_due,
        receiver,
        ended,
        ..
    } = *delivery;
    seal(&(tries, first_due, receiver, ended))
}

/// `named` tells receiver and end of a request whose value does not.
pub fn decode_due(
    key: &[u8],
    value: &Bytes,
    named: impl FnOnce(RequestKey) -> Result<(ReceiverId, Timestamp), StoreError>,
) -> Result<Delivery, StoreError> {
    let (due, request) = due_of(key)?;
    let ((tries, first_due), tail) = unseal_with(DUE, key, value)?;
    let (receiver, ended) = match tail.is_empty() {
        true => named(request)?,
        false => {
            let (_, _, receiver, ended) = unseal::<(u32, Timestamp, _, _)>(DUE, key, value)?;
            (receiver, ended)
        }
    };
    Ok(Delivery {
        due,
        key: request,
        tries,
        first_due,
        receiver,
        ended,
    })
}

pub fn due_of(key: &[u8]) -> Result<(Timestamp, RequestKey), StoreError> {
    let mut fields = Fields::of(DUE, key)?;
    let due = fields.time()?;
    let request = request_key(&mut fields)?;
    fields.end()?;
    Ok((due, request))
}

pub fn backlog_key(receiver: ReceiverId, ended: Timestamp, request: RequestKey) -> Vec<u8> {
    let key = Key::of(BACKLOG).raw(&receiver.0).time(ended);
    key.request(request).done()
}

pub fn backlog(receiver: ReceiverId, after: Option<(Timestamp, RequestKey)>) -> Span {
    let span = Span::prefix(&Key::of(BACKLOG).raw(&receiver.0).done());
    match after {
        Some((ended, request)) => span.after(&backlog_key(receiver, ended, request)),
        None => span,
    }
}

/// The backlogs of the receivers behind `after`.
pub fn backlogs(after: Option<ReceiverId>) -> Span {
    let mut span = Span::prefix(&[BACKLOG.tag]);
    if let Some(receiver) = after {
        span.from = backlog(receiver, None).to;
    }
    span
}

pub fn encode_backlog(delivery: &Delivery) -> Bytes {
    seal(&(delivery.due, delivery.tries, delivery.first_due))
}

pub fn decode_backlog(key: &[u8], value: &Bytes) -> Result<Delivery, StoreError> {
    let mut fields = Fields::of(BACKLOG, key)?;
    let receiver = fields.array().map(ReceiverId)?;
    let ended = fields.time()?;
    let request = request_key(&mut fields)?;
    fields.end()?;
    let (due, tries, first_due) = unseal(BACKLOG, key, value)?;
    Ok(Delivery {
        due,
        key: request,
        tries,
        first_due,
        receiver,
        ended,
    })
}

pub fn dead_key(receiver: ReceiverId, request: RequestKey) -> Vec<u8> {
    let key = Key::of(DEAD).raw(&request.tenant.0).raw(&receiver.0);
    key.raw(request.id.as_bytes()).done()
}

pub fn encode_dead() -> Bytes {
    seal(&())
}

pub fn dead(
    tenant: TenantId,
    receiver: Option<ReceiverId>,
    after: Option<(ReceiverId, RequestId)>,
) -> Span {
    let key = Key::of(DEAD).raw(&tenant.0);
    let span = Span::prefix(&match receiver {
        Some(receiver) => key.raw(&receiver.0).done(),
        None => key.done(),
    });
    match after {
        Some((receiver, id)) => span.after(&dead_key(receiver, RequestKey { tenant, id })),
        None => span,
    }
}

/// Those of all tenants.
pub fn all_dead(after: Option<(ReceiverId, RequestKey)>) -> Span {
    let span = Span::prefix(&[DEAD.tag]);
    match after {
        Some((receiver, request)) => span.after(&dead_key(receiver, request)),
        None => span,
    }
}

pub fn decode_dead(key: &[u8], value: &Bytes) -> Result<(ReceiverId, RequestKey), StoreError> {
    let mut fields = Fields::of(DEAD, key)?;
    let tenant = tenant(&mut fields)?;
    let receiver = fields.array().map(ReceiverId)?;
    let id = id(&mut fields)?;
    fields.end()?;
    unseal::<()>(DEAD, key, value)?;
    Ok((receiver, RequestKey { tenant, id }))
}

pub fn status_key(request: RequestKey) -> Vec<u8> {
    Key::of(STATUS).request(request).done()
}

/// A tenant's deliveries, those of requests before `before`.
pub fn statuses(tenant: TenantId, before: Option<RequestId>) -> Span {
    let span = Span::prefix(&Key::of(STATUS).raw(&tenant.0).done());
    match before {
        Some(id) => span.before(&status_key(RequestKey { tenant, id })),
        None => span,
    }
}

pub fn decode_stood(key: &[u8], value: &Bytes) -> Result<(RequestId, DeliveryStatus), StoreError> {
    let mut fields = Fields::of(STATUS, key)?;
    let request = request_key(&mut fields)?;
    fields.end()?;
    Ok((request.id, decode_status(key, value)?))
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
            ended in samples::time(),
            receiver: [u8; 16],
            tries: u32,
            last: Option<String>,
        ) {
            let receiver = ReceiverId(receiver);
            let delivery = Delivery { due, key, tries, first_due, receiver, ended };
            let name = due_key(due, key);
            let never = |_| panic!("its value tells");
            prop_assert_eq!(decode_due(&name, &encode_due(&delivery), never)?, delivery);
            let early = seal(&(tries, first_due));
            prop_assert_eq!(decode_due(&name, &early, |_| Ok((receiver, ended)))?, delivery);
            prop_assert!(name < due_by(due, None).to);
            prop_assert!(name >= due_by(Timestamp::from_millis(due.as_millis() - 1), None).to);
            prop_assert!(name < due_by(due, Some((due, key))).from);
            let name = backlog_key(receiver, ended, key);
            prop_assert_eq!(decode_backlog(&name, &encode_backlog(&delivery))?, delivery);
            let span = backlog(receiver, None);
            prop_assert!(span.from < name && name < span.to);
            prop_assert!(name < backlog(receiver, Some((ended, key))).from);
            prop_assert!(name < backlogs(Some(receiver)).from);
            let name = dead_key(receiver, key);
            prop_assert_eq!(decode_dead(&name, &encode_dead())?, (receiver, key));
            for span in [all_dead(None), dead(key.tenant, None, None), dead(key.tenant, Some(receiver), None)] {
                prop_assert!(span.from < name && name < span.to);
            }
            prop_assert!(name < dead(key.tenant, None, Some((receiver, key.id))).from);
            prop_assert!(name < all_dead(Some((receiver, key))).from);
            let name = status_key(key);
            for status in [
                DeliveryStatus::Pending { next: due, tries, last },
                DeliveryStatus::Delivered { at: due, tries },
                DeliveryStatus::Dead { at: due, tries, last: "410".into() },
            ] {
                let stood = decode_stood(&name, &encode_status(&status))?;
                prop_assert_eq!(stood, (key.id, status));
            }
        }
    }
}
