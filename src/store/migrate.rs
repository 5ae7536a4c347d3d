//! From the format of an earlier version to this one's, a step at a time.
//!
//! A step goes over the records in chunks, and each chunk's commit notes how far it
//! came, so that a killed process goes on where it was. The last commit of a step
//! writes the format that it leads to. Nothing else writes meanwhile.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    codec,
    kv::{Batch, End, Kv, Span},
    records::{attempt, batch, ledger, meta, unbooked},
    sled::SledKv,
    tally::Tally,
};
use crate::ports::StoreError;

/// The version of the layouts in [`records`](super::records).
pub const FORMAT: u32 = 4;
/// The oldest that is read.
pub const OLDEST: u32 = 2;

/// The oldest that keeps a tally of itself.
const TALLIED: u32 = 3;

/// Records that one commit covers: it may write each of them.
pub const CHUNK: usize = 160;

/// How far a step is.
#[derive(Default, Serialize, Deserialize)]
struct Progress {
    /// The key that was read last.
    behind: Vec<u8>,
    tally: Tally,
}

/// Makes the next chunk of the step that leads on from a format: at most this many
/// records. Returns the format that the database has then.
type Step = fn(&SledKv, usize) -> Result<u32, StoreError>;

/// Where each step begins.
const STEPS: [(u32, Step); 2] = [(2, lengthen), (3, lengthen)];

/// Makes one chunk of the step that leads on from `format`, and returns the format
/// that the database has then.
pub fn advance(kv: &SledKv, format: u32, chunk: usize) -> Result<u32, StoreError> {
    match STEPS.iter().find(|(from, _)| *from == format) {
        Some((_, step)) => step(kv, chunk),
        None => Ok(format),
    }
}

/// Whether the database's tally tells what it should hold: not one that has none, and not
/// in the middle of a migration.
pub fn is_tallied(kv: &SledKv, format: u32) -> Result<bool, StoreError> {
    Ok(format >= TALLIED && kv.get(&meta::migrating_key())?.is_none())
}

/// Format 3 is format 2 with a tally of all records, and with two fields more at the end
/// of a batch: which one it is a twin of, and of which a part. Format 4 is format 3 with
/// one field more at the end of a batch, an attempt and a ledger row: what the budgets of
/// issued keys count. All records are tallied anew on the way, from either.
fn lengthen(kv: &SledKv, chunk: usize) -> Result<u32, StoreError> {
    let name = meta::migrating_key();
    let mut progress = match kv.get(&name)? {
        Some(value) => meta::decode::<Progress>(&name, &value)?,
        None => Progress::default(),
    };
    let everything = Span {
        from: Vec::new(),
        to: vec![u8::MAX],
    };
    let page = kv.scan(&everything.after(&progress.behind), End::Front, chunk)?;
    let own = [meta::tally_key(), name.clone()];
    let mut changes = Batch::new();
    let others = page
        .iter()
        .filter(|(key, _)| !own.iter().any(|own| own == key));
    for (key, value) in others {
        match longer(key, value) {
            Some(longer) => {
                progress.tally.enter(key, &longer);
                changes.insert(key.to_vec(), Some(longer));
            }
            None => progress.tally.enter(key, value),
        }
    }
    match page.last() {
        Some((last, _)) => {
            progress.behind = last.to_vec();
            changes.insert(name, Some(meta::encode(&progress)));
            kv.apply(changes)?;
            kv.sync()?;
            format_of(kv)
        }
        None => {
            let mut tally = progress.tally;
            // As many as the file beside the database says.
            tally.commits = kv.tally().map_or(0, |running| running.commits);
            // It goes with the last commit, which will count it out.
            if let Some(value) = kv.get(&name)? {
                tally.enter(&name, &value);
            }
            kv.resume(tally);
            let format = (meta::format_key(), Some(meta::encode(&FORMAT)));
            kv.apply(Batch::from([format, (name, None)]))?;
            kv.sync()?;
            Ok(FORMAT)
        }
    }
}

fn format_of(kv: &SledKv) -> Result<u32, StoreError> {
    let name = meta::format_key();
    match kv.get(&name)? {
        Some(value) => meta::decode(&name, &value),
        None => Err(meta::KIND.corrupt(&name, "the format is gone")),
    }
}

/// The most fields that a record lacks.
const MOST: usize = 3;

/// A record without its last fields, with them; none where it is no such record.
fn longer(key: &[u8], value: &Bytes) -> Option<Bytes> {
    if reads(key, value)? {
        return None;
    }
    let record = value
        .get(codec::HEADER..)
        .filter(|_| codec::is_sound(value))?;
    // Options that hold nothing, and an amount of nothing.
    let with = |fields: usize| codec::seal_with(&(), &[record, &[0; MOST][..fields]].concat());
    let mut longer = (1..=MOST).map(with);
    longer.find(|longer| reads(key, longer) == Some(true))
}

/// Whether the record is of this format. None for kinds that have not changed.
fn reads(key: &[u8], value: &Bytes) -> Option<bool> {
    let tag = *key.first()?;
    Some(match tag {
        _ if tag == batch::KIND.tag => batch::decode(key, value).is_ok(),
        _ if tag == attempt::KIND.tag => attempt::decode(key, value).is_ok(),
        _ if tag == unbooked::CALL.tag => unbooked::decode_call(key, value).is_ok(),
        _ if tag == ledger::KIND.tag => ledger::decode(key, value).is_ok(),
        _ => return None,
    })
}
