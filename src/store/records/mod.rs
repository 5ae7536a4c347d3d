//! One file a kind of record: its key, its value, and how long it lives.
//!
//! | tag | record | key behind the tag |
//! |---|---|---|
//! | `R` | [`request`] | tenant, id |
//! | `Y` | [`chunk`]: a part of a large body or answer | tenant, id, side, number |
//! | `J` | [`chunk`]: chunks that are being written or removed | tenant, id, side |
//! | `Q` | [`queue`] | destination, on-late, guarantee, bucket, id, tenant |
//! | `L` | [`line`](mod@line) | batch, id, tenant |
//! | `V` | [`live`] | destination, on-late, guarantee, rescued, deadline, tenant, id |
//! | `B` | [`batch`] | id |
//! | `N` | [`destination`] | id |
//! | `K` | [`credential`] | id |
//! | `C` | [`issued`]: keys that we issued | id |
//! | `U` | [`tenant`] | fingerprint of a key |
//! | `F`, `P` | [`feed`], and how far it is purged | tenant, sequence; tenant |
//! | `W`, `D` | [`delivery`]: due, status | due, tenant, id; tenant, id |
//! | `w`, `x` | [`delivery`]: backlog, dead letter | receiver, ended, tenant, id; tenant, receiver, id |
//! | `z` | [`receiver`]: turned off | tenant, receiver |
//! | `s` | [`hook_secrets`] | tenant |
//! | `T`, `X` | [`attempt`], and the open ones | tenant, id, attempt |
//! | `A` | [`unbooked`]: calls of erased requests | tenant, id, attempt |
//! | `H` | [`unbooked`]: booked lines of erased requests | batch, tenant, id |
//! | `G` | [`ledger`] | tenant, hour, lane, digest of model and tag |
//! | `I` | [`idempotency`] | tenant, digest |
//! | `O` | [`orphan`] | tenant, digest, id |
//! | `E` | [`learned`] | owner, digest of model and lane |
//! | `S` | [`shadow`] | tenant, day, deadline, digest of model |
//! | `M` | [`meta`] | name |

pub mod attempt;
pub mod batch;
pub mod chunk;
pub mod credential;
pub mod delivery;
pub mod destination;
pub mod feed;
pub mod hook_secrets;
pub mod idempotency;
pub mod issued;
pub mod learned;
pub mod ledger;
pub mod line;
pub mod live;
pub mod meta;
pub mod orphan;
pub mod queue;
pub mod receiver;
pub mod request;
#[cfg(test)]
pub mod samples;
pub mod shadow;
pub mod tenant;
pub mod unbooked;

#[cfg(any(test, fuzzing))]
mod fuzz;

#[cfg(any(test, fuzzing))]
pub use fuzz::fuzz;

use super::codec::{Fields, Key, Kind};
use crate::{
    model::{
        id::{RequestId, RequestKey, TenantId},
        request::{Entry, Guarantee, OnLate, Place},
    },
    ports::StoreError,
};

/// All kinds.
pub const KINDS: [Kind; 29] = [
    request::KIND,
    chunk::KIND,
    chunk::JOURNAL,
    queue::KIND,
    line::KIND,
    live::KIND,
    batch::KIND,
    destination::KIND,
    credential::KIND,
    feed::KIND,
    feed::FLOOR,
    delivery::DUE,
    delivery::STATUS,
    delivery::BACKLOG,
    delivery::DEAD,
    receiver::KIND,
    hook_secrets::KIND,
    attempt::KIND,
    attempt::OPEN,
    unbooked::CALL,
    unbooked::LINE,
    ledger::KIND,
    idempotency::KIND,
    orphan::KIND,
    learned::KIND,
    shadow::KIND,
    tenant::KIND,
    issued::KIND,
    meta::KIND,
];

pub fn kind(key: &[u8]) -> Option<Kind> {
    let tag = key.first()?;
    KINDS.into_iter().find(|kind| kind.tag == *tag)
}

/// A key for people: its kind, and the rest in hexadecimal digits.
pub fn name(key: &[u8]) -> String {
    let rest = key.iter().skip(1).map(|byte| format!("{byte:02x}"));
    let rest: String = rest.collect();
    match kind(key) {
        Some(kind) => format!("{} {rest}", kind.name),
        None => format!("unknown {:02x}{rest}", key.first().copied().unwrap_or(0)),
    }
}

/// The key and the value that say that `entry` is at `place`, and was nowhere before.
pub fn placed(place: &Place, entry: &Entry) -> (Vec<u8>, bytes::Bytes) {
    moved(None, place, entry)
}

/// The same where it was at `from`.
pub fn moved(from: Option<&Place>, place: &Place, entry: &Entry) -> (Vec<u8>, bytes::Bytes) {
    match place {
        Place::Queue(cohort) => (queue::key(cohort, entry.key), queue::encode(entry)),
        Place::Line(batch) => (line::key(*batch, entry.key), line::encode(entry)),
        Place::Live => {
            let batch = match from {
                Some(Place::Line(batch)) => Some(*batch),
                _ => None,
            };
            (live::key(entry), live::encode(entry, batch))
        }
    }
}

fn on_late_byte(on_late: OnLate) -> u8 {
    match on_late {
        OnLate::Rescue => 0,
        OnLate::Wait => 1,
        OnLate::Fail => 2,
    }
}

fn on_late(fields: &mut Fields<'_>) -> Result<OnLate, StoreError> {
    match fields.byte()? {
        0 => Ok(OnLate::Rescue),
        1 => Ok(OnLate::Wait),
        2 => Ok(OnLate::Fail),
        _ => Err(fields.corrupt("no such on-late")),
    }
}

trait RequestFields: Sized {
    /// Tenant, then id.
    fn request(self, key: RequestKey) -> Self;
}

impl RequestFields for Key {
    fn request(self, key: RequestKey) -> Self {
        self.raw(&key.tenant.0).raw(key.id.as_bytes())
    }
}

fn tenant(fields: &mut Fields<'_>) -> Result<TenantId, StoreError> {
    fields.array().map(TenantId)
}

fn id(fields: &mut Fields<'_>) -> Result<RequestId, StoreError> {
    fields.array().map(RequestId::from_bytes)
}

fn rank(guarantee: Guarantee) -> u8 {
    match guarantee {
        Guarantee::Firm => 0,
        Guarantee::BestEffort => 1,
    }
}

fn guarantee(fields: &mut Fields<'_>) -> Result<Guarantee, StoreError> {
    match fields.byte()? {
        0 => Ok(Guarantee::Firm),
        1 => Ok(Guarantee::BestEffort),
        _ => Err(fields.corrupt("no such guarantee")),
    }
}

fn request_key(fields: &mut Fields<'_>) -> Result<RequestKey, StoreError> {
    Ok(RequestKey {
        tenant: tenant(fields)?,
        id: id(fields)?,
    })
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use super::*;

    /// What is not in the list is neither checked nor salvaged.
    #[test]
    fn every_kind_is_listed_once() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store/records");
        let mut written = BTreeSet::new();
        for entry in fs::read_dir(directory).unwrap() {
            let text = fs::read_to_string(entry.unwrap().path()).unwrap();
            for line in text
                .lines()
                .filter_map(|line| line.strip_prefix("    tag: b'"))
            {
                written.insert(line.as_bytes()[0]);
            }
        }
        let listed: BTreeSet<u8> = KINDS.iter().map(|kind| kind.tag).collect();
        assert_eq!(listed.len(), KINDS.len(), "two kinds have one tag");
        assert_eq!(listed, written);
    }
}
