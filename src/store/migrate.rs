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
    records::{batch, meta},
    sled::SledKv,
    tally::Tally,
};
use crate::ports::StoreError;

/// The version of the layouts in [`records`](super::records).
pub const FORMAT: u32 = 3;
/// The oldest that is read.
pub const OLDEST: u32 = 2;

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
const STEPS: [(u32, Step); 1] = [(2, count)];

/// Makes one chunk of the step that leads on from `format`, and returns the format
/// that the database has then.
pub fn advance(kv: &SledKv, format: u32, chunk: usize) -> Result<u32, StoreError> {
    match STEPS.iter().find(|(from, _)| *from == format) {
        Some((_, step)) => step(kv, chunk),
        None => Ok(format),
    }
}

/// Format 3 is format 2 with a tally of all records, and with two fields more at the end
/// of a batch: which one it is a twin of, and of which a part.
fn count(kv: &SledKv, chunk: usize) -> Result<u32, StoreError> {
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
        match longer_batch(key, value) {
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
            Ok(2)
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
            let format = (meta::format_key(), Some(meta::encode(&3u32)));
            kv.apply(Batch::from([format, (name, None)]))?;
            kv.sync()?;
            Ok(3)
        }
    }
}

/// A batch without its last two fields, with them; none where it is no such record.
fn longer_batch(key: &[u8], value: &Bytes) -> Option<Bytes> {
    if key.first() != Some(&batch::KIND.tag) || batch::decode(key, value).is_ok() {
        return None;
    }
    let record = value
        .get(codec::HEADER..)
        .filter(|_| codec::is_sound(value))?;
    // Two options that hold nothing.
    let longer = codec::seal_with(&(), &[record, &[0, 0]].concat());
    batch::decode(key, &longer).is_ok().then_some(longer)
}
