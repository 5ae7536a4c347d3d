//! Taking a backup: all pairs in pages, then what was committed meanwhile.

use std::{
    io::{self, Read as _},
    path::Path,
    sync::Arc,
};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::{
    End, MAGIC, VERSION,
    frame::{self, frame, framed},
};
use crate::{
    ports::StoreError,
    store::{
        kv::{End as From, Kv, Span},
        migrate::FORMAT,
        redo::Redo,
    },
};

/// Pairs of a frame; a page of the largest values is a megabyte.
const PAGE: usize = 256;
const SPILL: usize = 256 * 1024;

/// Writes a backup to `out`, as fast as it is taken, with one page in memory. Blocks.
/// Ends early where nobody takes it any more.
pub fn take<K: Kv>(
    kv: &Arc<K>,
    redo: &Redo,
    dir: &Path,
    reserve: u64,
    out: mpsc::Sender<io::Result<Bytes>>,
) -> Result<(), StoreError> {
    let mut out = Out {
        to: out,
        hasher: blake3::Hasher::new(),
    };
    let recording = redo.begin(dir, spare(&**kv, reserve)?);
    let recording = recording.map_err(StoreError::Io)?;
    let mut head = MAGIC.to_vec();
    head.extend_from_slice(&VERSION.to_le_bytes());
    head.extend_from_slice(&FORMAT.to_le_bytes());
    if out.send(head).is_none() {
        return Ok(());
    }
    let mut pairs = 0;
    let mut span = Span {
        from: Vec::new(),
        to: vec![u8::MAX],
    };
    loop {
        let page = kv.scan(&span, From::Front, PAGE)?;
        let Some((last, _)) = page.last() else {
            break;
        };
        recording.goes_on().map_err(StoreError::Io)?;
        span = span.after(last);
        pairs += page.len() as u64;
        let page = page.iter().map(|(key, value)| (&key[..], Some(&value[..])));
        if out.send(frame(frame::PAIRS, page)).is_none() {
            return Ok(());
        }
    }
    let mut recorded = recording.end(&**kv).map_err(StoreError::Io)?;
    loop {
        let mut part = Vec::with_capacity(SPILL);
        let mut spill = recorded.spill.by_ref().take(SPILL as u64);
        spill.read_to_end(&mut part).map_err(StoreError::Io)?;
        if part.is_empty() {
            break;
        }
        if out.send(part).is_none() {
            return Ok(());
        }
    }
    let end = End {
        pairs,
        commits: recorded.commits,
        tally: recorded.tally,
    };
    // Serialising plain data into a growing vector has no way to fail.
    let end = postcard::to_stdvec(&end).expect("plain data serialises");
    if out.send(framed(frame::END, &end)).is_some() {
        let hash = out.hasher.finalize().as_bytes().to_vec();
        out.send(hash);
    }
    Ok(())
}

/// What is committed meanwhile stands on the disk twice, and others write there too.
fn spare<K: Kv>(kv: &K, reserve: u64) -> Result<u64, StoreError> {
    Ok(kv.free_bytes()?.saturating_sub(reserve) / 4)
}

struct Out {
    to: mpsc::Sender<io::Result<Bytes>>,
    hasher: blake3::Hasher,
}

impl Out {
    /// None where nobody takes it.
    fn send(&mut self, bytes: Vec<u8>) -> Option<()> {
        self.hasher.update(&bytes);
        self.to.blocking_send(Ok(bytes.into())).ok()
    }
}
