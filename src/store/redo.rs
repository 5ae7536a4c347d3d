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
pub struct Redo(Arc<Mutex<Option<Recorder>>>);

struct Recorder {
    /// On disk and not in memory: a backup takes as long as its reader likes.
    spill: io::Result<BufWriter<File>>,
    bytes: u64,
    /// More than this the disk has no room for.
    bound: u64,
    commits: u64,
}

/// A recording under way; dropped, it ends.
pub struct Recording {
    redo: Redo,
    ended: bool,
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
        let mut recorder = self.0.lock();
        let Some(recorder) = recorder.as_mut().filter(|one| one.spill.is_ok()) else {
            return kv.apply(batch);
        };
        let frame = frame(
            frame::COMMIT,
            batch.iter().map(|(k, v)| (&k[..], v.as_deref())),
        );
        kv.apply(batch)?;
        recorder.note(&frame);
        Ok(())
    }

    #[cfg(test)]
    pub fn is_idle(&self) -> bool {
        self.0.lock().is_none()
    }

    /// Records every commit from here on, in a nameless file in `dir` of at most `bound`
    /// bytes.
    ///
    /// # Errors
    /// [`ResourceBusy`](io::ErrorKind::ResourceBusy) while another recording is under way:
    /// each costs the disk what is committed meanwhile.
    pub fn begin(&self, dir: &Path, bound: u64) -> io::Result<Recording> {
        let mut recorder = self.0.lock();
        if recorder.is_some() {
            let busy = "another backup is being taken: one at a time";
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, busy));
        }
        *recorder = Some(Recorder {
            spill: Ok(BufWriter::new(tempfile::tempfile_in(dir)?)),
            bytes: 0,
            bound,
            commits: 0,
        });
        Ok(Recording {
            redo: self.clone(),
            ended: false,
        })
    }
}

impl Recorder {
    /// What cannot be kept ends the recording, and gives the disk back.
    fn note(&mut self, frame: &[u8]) {
        self.commits += 1;
        self.bytes += frame.len() as u64;
        let Ok(spill) = &mut self.spill else { return };
        let noted = match self.bytes <= self.bound {
            true => spill.write_all(frame),
            false => Err(io::Error::new(
                io::ErrorKind::StorageFull,
                format!(
                    "more than {} bytes were committed while the backup was taken, and the disk has no room for more: take it faster, or when less is written",
                    self.bound
                ),
            )),
        };
        if let Err(error) = noted {
            self.spill = Err(error);
        }
    }
}

impl Recording {
    /// # Errors
    /// Where it could not go on: its end has no more to give.
    pub fn goes_on(&self) -> io::Result<()> {
        match self.redo.0.lock().as_ref().map(|recorder| &recorder.spill) {
            Some(Err(error)) => Err(io::Error::new(error.kind(), error.to_string())),
            _ => Ok(()),
        }
    }

    /// Ends between two commits.
    pub fn end<K: Kv>(mut self, kv: &K) -> io::Result<Recorded> {
        let (recorder, tally) = {
            let mut under_way = self.redo.0.lock();
            (under_way.take(), kv.tally())
        };
        // Another may be under way from here on.
        self.ended = true;
        let Some(recorder) = recorder else {
            return Err(io::Error::other("the recording is gone"));
        };
        let mut spill = recorder.spill?.into_inner().map_err(io::Error::from)?;
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
        if !self.ended {
            self.redo.0.lock().take();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use bytes::Bytes;

    use super::*;
    use crate::store::MemoryKv;

    fn commit(redo: &Redo, kv: &MemoryKv, bytes: usize) {
        let value = Bytes::from(vec![7; bytes]);
        redo.apply(kv, Batch::from([(b"Rk".to_vec(), Some(value))]))
            .unwrap();
    }

    #[test]
    fn one_is_recorded_at_a_time() {
        let (redo, kv, dir) = (
            Redo::default(),
            MemoryKv::default(),
            tempfile::tempdir().unwrap(),
        );
        let first = redo.begin(dir.path(), 1 << 20).unwrap();
        let second = redo.begin(dir.path(), 1 << 20).err().unwrap();
        assert_eq!(second.kind(), io::ErrorKind::ResourceBusy);
        commit(&redo, &kv, 100);
        let mut recorded = first.end(&kv).unwrap();
        let mut bytes = Vec::new();
        recorded.spill.read_to_end(&mut bytes).unwrap();
        assert!(recorded.commits == 1 && bytes.len() > 100);
        drop(redo.begin(dir.path(), 1 << 20).unwrap());
        assert!(redo.is_idle());
    }

    #[test]
    fn a_recording_that_the_disk_has_no_room_for_ends() {
        let (redo, kv, dir) = (
            Redo::default(),
            MemoryKv::default(),
            tempfile::tempdir().unwrap(),
        );
        let recording = redo.begin(dir.path(), 1000).unwrap();
        commit(&redo, &kv, 500);
        recording.goes_on().unwrap();
        commit(&redo, &kv, 500);
        assert!(
            redo.0.lock().as_ref().unwrap().spill.is_err(),
            "it is given back"
        );
        commit(&redo, &kv, 10);
        let told = recording.goes_on().unwrap_err();
        assert_eq!(told.kind(), io::ErrorKind::StorageFull);
        assert!(recording.end(&kv).is_err());
        assert!(redo.is_idle());
    }
}
