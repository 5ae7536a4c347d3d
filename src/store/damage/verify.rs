//! Whether an opened database holds all that was acknowledged.

use std::thread;

use bytes::Bytes;

use super::super::{
    kv::Kv as _,
    records::{self, meta},
    sled::SledKv,
    tally::Tally,
    watermark::Mark,
};
use crate::ports::StoreError;

/// Records that a message names.
const NAMED: usize = 3;

/// What the database should hold, where it does; else what is wrong, in words.
/// Reads everything where `thorough`.
///
/// # Errors
/// When the disk cannot be read.
pub fn verify(
    kv: &SledKv,
    mark: Mark,
    thorough: bool,
) -> Result<Result<Tally, String>, StoreError> {
    let key = meta::tally_key();
    let told = match kv
        .get(&key)?
        .map(|value| meta::decode::<Tally>(&key, &value))
    {
        Some(Ok(tally)) => tally,
        Some(Err(error)) => return Ok(Err(error.to_string())),
        None => return Ok(Err("its tally is missing".into())),
    };
    let mut wrong = Vec::new();
    match mark {
        Mark::Missing => wrong.push("the file `acknowledged` is missing".into()),
        Mark::Unreadable => wrong.push("the file `acknowledged` cannot be read".into()),
        Mark::Commits(acknowledged) if acknowledged > told.commits => wrong.push(format!(
            "the last {} of {acknowledged} acknowledged commits are missing",
            acknowledged - told.commits
        )),
        Mark::Commits(_) => {}
    }
    if thorough {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        match kv.count(threads) {
            Ok((found, spoiled)) => wrong.extend(compare(&told, &found, &spoiled)),
            Err(StoreError::Corrupt(what)) => wrong.push(what),
            Err(error) => return Err(error),
        }
    }
    Ok(match wrong.is_empty() {
        true => Ok(told),
        false => Err(wrong.join("; ")),
    })
}

fn compare(told: &Tally, found: &Tally, spoiled: &[Bytes]) -> Vec<String> {
    let mut wrong = Vec::new();
    if found.pairs < told.pairs {
        let missing = told.pairs - found.pairs;
        wrong.push(format!("{missing} of {} records are missing", told.pairs));
    } else if !found.same_pairs(told) && spoiled.is_empty() {
        wrong.push("some records are not the latest that were written".into());
    }
    if !spoiled.is_empty() {
        let named = spoiled.iter().take(NAMED).map(|key| records::name(key));
        let named: Vec<String> = named.collect();
        let more = if spoiled.len() > NAMED { ", …" } else { "" };
        wrong.push(format!(
            "{} of {} records cannot be read ({}{more})",
            spoiled.len(),
            told.pairs,
            named.join(", ")
        ));
    }
    wrong
}
