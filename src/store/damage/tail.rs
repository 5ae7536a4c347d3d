//! A look at the end of the log before sled has it. sled takes what it cannot read
//! there for the end, and wipes what stands behind it: that could still be saved.

use std::{io, path::Path};

use bytes::Bytes;

use super::{
    super::{records::meta, tally::Tally, watermark::Mark},
    log::{Gap, Kind, Log, Message, Segment},
    pages::{Change, change},
};

/// Tells of bytes at the log's end that cannot be read, with messages behind them and
/// acknowledged commits among these. A crash alone leaves no such thing: it tears what
/// was not acknowledged.
pub fn torn_tail(dir: &Path, mark: Mark) -> io::Result<Option<String>> {
    let Mark::Commits(acknowledged) = mark else {
        return Ok(None);
    };
    let log = match Log::open(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        log => log?,
    };
    let mut tail = tail(&log)?;
    tail.sort_by_key(|segment| segment.messages.first().map(|message| message.lsn));
    let Some((gap, end)) = tail.iter().find_map(first_gap) else {
        return Ok(None);
    };
    let before = tail.iter().flat_map(|segment| &segment.messages);
    let before = before.filter(|message| message.lsn < end);
    let mut commits = None;
    for message in before {
        commits = commits.max(tally(&log, message)?.map(|tally| tally.commits));
    }
    Ok(commits
        .filter(|commits| *commits < acknowledged)
        .map(|commits| {
            format!(
                "{} bytes of its log cannot be read at offset {}, and {} of {acknowledged} commits stand behind them",
                gap.bytes,
                gap.offset,
                acknowledged - commits,
            )
        }))
}

/// The segments that were not yet known to be safe when the last one was begun, the
/// one before them, and those whose header cannot be read.
fn tail(log: &Log) -> io::Result<Vec<Segment>> {
    let headers: Vec<Option<(u64, u64)>> = (0..log.segments())
        .map(|place| log.header(place))
        .collect::<io::Result<_>>()?;
    let safe = headers.iter().flatten().map(|(_, safe)| *safe).max();
    let first = log.number(safe.unwrap_or(0)).saturating_sub(1);
    let mut segments = Vec::new();
    for (place, header) in (0..).zip(headers) {
        if header.is_none_or(|(number, _)| number >= first) {
            segments.push(log.segment(place)?);
        }
    }
    Ok(segments)
}

/// The first gap of a segment, and the `lsn` of what stands behind it.
fn first_gap(segment: &Segment) -> Option<(Gap, u64)> {
    let gap = *segment.gaps.first()?;
    let behind = segment.messages.iter().find(|m| m.at > gap.offset)?;
    Some((gap, behind.lsn))
}

fn tally(log: &Log, message: &Message) -> io::Result<Option<Tally>> {
    if message.kind != Kind::Link {
        return Ok(None);
    }
    let body = log.body(message)?.unwrap_or_default();
    let Some(Change::Set(end, value)) = change(&body) else {
        return Ok(None);
    };
    let key = meta::tally_key();
    // A page leaves out what all its keys begin with; this one stays apart from its
    // neighbours by its name.
    let is_tally = end.len() + 1 >= key.len() && key.ends_with(&end);
    Ok(is_tally
        .then(|| meta::decode(&key, &Bytes::from(value)).ok())
        .flatten())
}
