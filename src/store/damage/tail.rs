//! A look at the end of the log before sled has it. sled takes what it cannot read
//! there for the end, and wipes what stands behind it, or all of a log that is shorter
//! than it should be: that could still be saved.

use std::{io, path::Path};

use bytes::Bytes;

use super::{
    super::{records::meta, tally::Tally, watermark::Mark},
    log::{Gap, Kind, Log, Message, Segment},
    pages::{self, Change, change},
};

/// Tells of acknowledged commits that are missing at the log's end: behind bytes that
/// cannot be read and have messages behind them, or altogether. A crash alone leaves no
/// such thing: it tears what was not acknowledged.
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
        return cut_off(&log, &tail, acknowledged);
    };
    let before = commits(&log, &tail, end)?;
    Ok(before
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

/// Tells of a log without its end.
fn cut_off(log: &Log, tail: &[Segment], acknowledged: u64) -> io::Result<Option<String>> {
    let mut last = commits(log, tail, u64::MAX)?;
    // A commit that writes much may fill more segments than these, and its number
    // stands before them.
    for place in 0..log.segments() {
        if last.is_some_and(|commits| commits >= acknowledged) {
            return Ok(None);
        }
        last = last.max(commits(log, &[log.segment(place)?], u64::MAX)?);
    }
    let missing = acknowledged.saturating_sub(last.unwrap_or(0));
    Ok((missing > 0).then(|| {
        format!(
            "its log ends after {} bytes, and the last {missing} of {acknowledged} acknowledged commits are missing",
            log.length,
        )
    }))
}

/// The number of the last commit of those before `end`.
fn commits(log: &Log, segments: &[Segment], end: u64) -> io::Result<Option<u64>> {
    let mut last = None;
    let messages = segments.iter().flat_map(|segment| &segment.messages);
    for message in messages.filter(|message| message.lsn < end) {
        last = last.max(tally(log, message)?.map(|tally| tally.commits));
    }
    Ok(last)
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
    let key = meta::tally_key();
    let value = match message.kind {
        Kind::Link => match log.body(message)?.as_deref().map(change) {
            // A page leaves out what all its keys begin with; this one stays apart from
            // its neighbours by its name.
            Some(Some(Change::Set(end, value)))
                if end.len() + 1 >= key.len() && key.ends_with(&end) =>
            {
                Some(value)
            }
            _ => None,
        },
        Kind::Node => {
            let node = log.body(message)?;
            node.and_then(|node| pages::value_in(&node, &key))
        }
        _ => None,
    };
    Ok(value.and_then(|value| meta::decode(&key, &Bytes::from(value)).ok()))
}
