//! Large payloads: chunks before and after the record that names them.

use bytes::Bytes;

use super::{
    super::{
        kv::{Kv, Span},
        records::{
            chunk::{self, Side},
            request::Payload,
        },
        staging::{Staging, Step},
    },
    read_request,
};
use crate::{model::id::RequestKey, ports::StoreError};

/// With at most this many, a payload's chunks are in the step of their record:
/// 64 KB, and a part of a commit's operations.
const FEW: u32 = 16;

/// Writes what does not fit inline: a few chunks into the record's `step`, many
/// before it. The step then holds the record too.
pub fn write<K: Kv>(
    staging: &mut Staging<K>,
    step: &mut Step,
    key: RequestKey,
    side: Side,
    payload: &Bytes,
) -> Result<Payload, StoreError> {
    if payload.len() <= chunk::BYTES {
        return Ok(Payload::Inline);
    }
    let chunks = payload.len().div_ceil(chunk::BYTES) as u32;
    let parts = (0..).zip(payload.chunks(chunk::BYTES));
    if chunks <= FEW {
        for (number, part) in parts {
            step.put(chunk::key(key, side, number), chunk::encode(part));
        }
        return Ok(Payload::Chunked { chunks });
    }
    let mut journal = Step::default();
    journal.put(chunk::journal_key(key, side), chunk::journal_value());
    staging.stage(journal)?;
    for (number, part) in parts {
        let mut one = Step::default();
        one.put(chunk::key(key, side, number), chunk::encode(part));
        staging.stage(one)?;
    }
    step.delete(chunk::journal_key(key, side));
    Ok(Payload::Chunked { chunks })
}

/// What stands inline of a payload.
pub fn inline(payload: Payload, bytes: &Bytes) -> &[u8] {
    match payload {
        Payload::Inline => bytes,
        Payload::Chunked { .. } => &[],
    }
}

/// The record in this step stops naming these chunks; [`remove`] them when it is
/// staged.
pub fn disown(step: &mut Step, key: RequestKey, side: Side, payload: Payload) {
    match payload {
        Payload::Inline => {}
        Payload::Chunked { chunks } if chunks <= FEW => {
            for number in 0..chunks {
                step.delete(chunk::key(key, side, number));
            }
        }
        Payload::Chunked { .. } => {
            step.put(chunk::journal_key(key, side), chunk::journal_value());
        }
    }
}

/// Removes what [`disown`] left: the many.
pub fn remove<K: Kv>(
    staging: &mut Staging<K>,
    key: RequestKey,
    side: Side,
    payload: Payload,
) -> Result<(), StoreError> {
    let Payload::Chunked { chunks } = payload else {
        return Ok(());
    };
    if chunks <= FEW {
        return Ok(());
    }
    for number in 0..chunks {
        let mut step = Step::default();
        step.delete(chunk::key(key, side, number));
        staging.stage(step)?;
    }
    let mut step = Step::default();
    step.delete(chunk::journal_key(key, side));
    staging.stage(step)
}

/// Removes the chunks that a crash left without a record that names them.
pub fn sweep<K: Kv>(staging: &mut Staging<K>) -> Result<usize, StoreError> {
    let journal = staging.scan(&chunk::journal(), usize::MAX)?;
    for (name, _) in &journal {
        let (key, side) = chunk::read_journal_key(name)?;
        let named = match read_request(staging, key)? {
            Some((head, _)) => {
                let current = match head.done {
                    Some(_) => Side::Answer,
                    None => Side::Body,
                };
                current == side && head.payload != Payload::Inline
            }
            None => false,
        };
        if !named {
            remove_all(staging, &chunk::all(key, side))?;
        }
        let mut step = Step::default();
        step.delete(name.to_vec());
        staging.stage(step)?;
    }
    staging.cut()?;
    Ok(journal.len())
}

/// A few at a time: the scan reads the chunks themselves.
fn remove_all<K: Kv>(staging: &mut Staging<K>, chunks: &Span) -> Result<(), StoreError> {
    loop {
        let found = staging.scan(chunks, 16)?;
        if found.is_empty() {
            return Ok(());
        }
        for (chunk, _) in found {
            let mut step = Step::default();
            step.delete(chunk.to_vec());
            staging.stage(step)?;
        }
    }
}
