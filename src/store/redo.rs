//! Commits that are made while a backup reads, kept for its end.

use std::{
    fs::File,
    io::{self, BufWriter, Seek as _, Write as _},
    path::Path,
    sync::Arc,
};

use parking_lot::Mutex;

use super::{
    backup::frame,
    kv::{Batch, Kv},
    tally::Tally,
};
use crate::ports::StoreError;

/// Told of every commit by the one writer.
#[derive(Clone, Default)]
pub struct Redo(Arc<Mutex<Vec<Recorder>>>);

struct Recorder {
    id: u64,
    /// On disk and not in memory: a backup takes as long as its reader likes.
    spill: BufWriter<File>,
    commits: u64,
    failed: Option<io::Error>,
}

/// A recording under way; dropped, it ends.
pub struct Recording {
    redo: Redo,
    id: u64,
}

/// What was committed meanwhile, from its first byte.
pub struct Recorded {
    pub spill: File,
    pub commits: u64,
    /// What the database held then, where it keeps count.
    pub tally: Option<Tally>,
}

impl Redo {
    /// Commits, and records what was.
    pub fn apply<K: Kv>(&self, kv: &K, batch: Batch) -> Result<(), StoreError> {
        let mut recorders = self.0.lock();
        if recorders.is_empty() {
            return kv.apply(batch);
        }
        let frame = frame(
            frame::COMMIT,
            batch.iter().map(|(k, v)| (&k[..], v.as_deref())),
        );
        kv.apply(batch)?;
        for recorder in recorders.iter_mut().filter(|one| one.failed.is_none()) {
            recorder.commits += 1;
            recorder.failed = recorder.spill.write_all(&frame).err();
        }
        Ok(())
    }

    #[cfg(test)]
    pub fn is_idle(&self) -> bool {
        self.0.lock().is_empty()
    }

    /// Records every commit from here on, in a nameless file in `dir`.
    pub fn begin(&self, dir: &Path) -> io::Result<Recording> {
        let spill = BufWriter::new(tempfile::tempfile_in(dir)?);
        let mut recorders = self.0.lock();
        let id = recorders.iter().map(|one| one.id + 1).max().unwrap_or(0);
        recorders.push(Recorder {
            id,
            spill,
            commits: 0,
            failed: None,
        });
        Ok(Recording {
            redo: self.clone(),
            id,
        })
    }
}

impl Recording {
    /// Ends between two commits.
    pub fn end<K: Kv>(self, kv: &K) -> io::Result<Recorded> {
        let (recorder, tally) = {
            let mut recorders = self.redo.0.lock();
            let at = recorders.iter().position(|one| one.id == self.id);
            (at.map(|at| recorders.swap_remove(at)), kv.tally())
        };
        let Some(recorder) = recorder else {
            return Err(io::Error::other("the recording is gone"));
        };
        if let Some(failed) = recorder.failed {
            return Err(failed);
        }
        let mut spill = recorder.spill.into_inner().map_err(io::Error::from)?;
        spill.rewind()?;
        Ok(Recorded {
            spill,
            commits: recorder.commits,
            tally,
        })
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.redo.0.lock().retain(|one| one.id != self.id);
    }
}
