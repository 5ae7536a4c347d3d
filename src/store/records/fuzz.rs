//! Any bytes as a key and a value of every kind: an error or a value, never a panic;
//! and what reads is written as it was.

use bytes::Bytes;

use super::*;
use crate::{
    model::{id::ReceiverId, time::Timestamp},
    store::codec,
};

/// The first byte says which kind, the second how long the key is, without its tag. The
/// rest is the value: as it is, and with a header that fits, so that what is behind the
/// checksum is reached.
pub fn fuzz(data: &[u8]) {
    let [kind, length, rest @ ..] = data else {
        return;
    };
    let (key, value) = rest.split_at(usize::from(*length).min(rest.len()));
    for value in [Bytes::copy_from_slice(value), codec::framed(value)] {
        read(*kind, key, &value);
    }
}

fn read(kind: u8, key: &[u8], value: &Bytes) {
    let key = |tag: codec::Kind| [&[tag.tag], key].concat();
    match kind % 23 {
        0 => {
            let key = key(attempt::KIND);
            if let Ok(read) = attempt::decode(&key, value) {
                let again = attempt::decode(&key, &attempt::encode(&read));
                assert_eq!(again.ok(), Some(read));
            }
        }
        1 => {
            let key = key(batch::KIND);
            if let Ok(read) = batch::decode(&key, value) {
                let again = batch::decode(&key, &batch::encode(&read)).ok();
                // No number equals one that is none.
                assert_eq!(format!("{again:?}"), format!("{:?}", Some(read)));
            }
        }
        2 => drop(chunk::decode(&key(chunk::KIND), value)),
        3 => drop(credential::decode(&key(credential::KIND), value)),
        4 => {
            let named = |_| Ok((ReceiverId([0; 16]), Timestamp::ZERO));
            drop(delivery::decode_due(&key(delivery::DUE), value, named));
        }
        5 => drop(delivery::decode_status(&key(delivery::STATUS), value)),
        6 => {
            let key = key(destination::KIND);
            if let Ok(read) = destination::decode(&key, value) {
                let again = destination::decode(&key, &destination::encode(&read));
                assert_eq!(again.ok(), Some(read));
            }
        }
        7 => drop(feed::decode(&key(feed::KIND), value)),
        8 => drop(idempotency::decode(&key(idempotency::KIND), value)),
        9 => drop(learned::decode(&key(learned::KIND), value)),
        10 => drop(ledger::decode(&key(ledger::KIND), value)),
        11 => drop(line::decode(&key(line::KIND), value)),
        12 => drop(live::decode(&key(live::KIND), value)),
        13 => drop(orphan::decode(&key(orphan::KIND), value)),
        14 => drop(queue::decode(&key(queue::KIND), value)),
        15 => drop(request::decode(&key(request::KIND), value)),
        16 => drop(shadow::decode(&key(shadow::KIND), value)),
        17 => drop(receiver::decode(&key(receiver::KIND), value)),
        18 => drop(hook_secrets::decode(&key(hook_secrets::KIND), value)),
        19 => drop(delivery::decode_backlog(&key(delivery::BACKLOG), value)),
        20 => drop(tenant::decode(&key(tenant::KIND), value)),
        21 => {
            let key = key(issued::KIND);
            if let Ok(read) = issued::decode(&key, value) {
                let again = issued::decode(&key, &issued::encode(&read));
                assert_eq!(again.ok(), Some(read));
            }
        }
        _ => drop(unbooked::decode_call(&key(unbooked::CALL), value)),
    }
}
