//! From the format of an earlier version to this one's.
//!
//! A migration goes over the records in chunks, and each chunk's commit notes how far it
//! came, so that a killed process goes on where it was. The last commit writes the
//! format. Nothing else writes meanwhile.

mod earlier;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use super::{
    kv::{Batch, End, Kv, Span},
    records::meta,
    sled::SledKv,
    tally::Tally,
};
use crate::ports::StoreError;

/// The version of the layouts in [`records`](super::records).
pub const FORMAT: u32 = 5;
/// The oldest that is read.
pub const OLDEST: u32 = 2;

/// The oldest that keeps a tally of itself.
const TALLIED: u32 = 3;

/// Records that one commit covers: it may write each of them.
pub const CHUNK: usize = 160;

/// How far a migration is.
#[derive(Serialize, Deserialize)]
struct Progress {
    /// The key that was read last.
    behind: Vec<u8>,
    tally: Tally,
    /// The format that the records up to there have.
    to: u32,
}

impl Progress {
    fn none() -> Progress {
        Progress {
            behind: Vec::new(),
            tally: Tally::default(),
            to: FORMAT,
        }
    }

    /// How far it came. What an earlier version left half done is begun anew: records of
    /// its format and of those before are read alike.
    fn read(kv: &SledKv) -> Result<Progress, StoreError> {
        let name = meta::migrating_key();
        let Some(value) = kv.get(&name)? else {
            return Ok(Progress::none());
        };
        match meta::decode::<Progress>(&name, &value) {
            Ok(progress) if progress.to == FORMAT => Ok(progress),
            Ok(Progress { to, .. }) => {
                let why = format!("a migration to format {to} was left half done");
                Err(meta::KIND.corrupt(&name, why))
            }
            Err(_) if meta::decode::<(Vec<u8>, Tally)>(&name, &value).is_ok() => {
                Ok(Progress::none())
            }
            Err(unreadable) => Err(unreadable),
        }
    }
}

/// Makes the next chunk of the way from `format`: at most so many records. Returns the
/// format that the database has then.
pub fn advance(kv: &SledKv, format: u32, chunk: usize) -> Result<u32, StoreError> {
    match format {
        OLDEST..FORMAT => renew(kv, chunk),
        _ => Ok(format),
    }
}

/// Whether the database's tally tells what it should hold: not one that has none, and not
/// in the middle of a migration.
pub fn is_tallied(kv: &SledKv, format: u32) -> Result<bool, StoreError> {
    Ok(format >= TALLIED && kv.get(&meta::migrating_key())?.is_none())
}

/// From each of the earlier formats straight to this one. All records are tallied anew on
/// the way.
fn renew(kv: &SledKv, chunk: usize) -> Result<u32, StoreError> {
    let name = meta::migrating_key();
    let mut progress = Progress::read(kv)?;
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
        match earlier::renewed(key, value) {
            Some(renewed) => {
                progress.tally.enter(key, &renewed);
                changes.insert(key.to_vec(), Some(renewed));
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
