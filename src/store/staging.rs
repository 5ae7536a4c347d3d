//! Writes on their way to the map: what the next commit will hold, and reads
//! that see it.

use std::{ops::RangeInclusive, sync::Arc};

use bytes::Bytes;

use super::{
    kv::{Batch, End, Kv, Pair, Span, again},
    records::meta,
    redo::Redo,
    writer::Horizon,
};
use crate::ports::StoreError;

/// Operations in a commit. sled's memory grows with them: 2,500 took gigabytes,
/// 160 a quarter of one (DESIGN.md §6).
const CUT_OPERATIONS: usize = 200;
/// Bytes of values in a commit.
const CUT_BYTES: usize = 512 * 1024;
/// Feed sequences that are reserved at a time.
const SEQUENCES: u64 = 4096;

/// Bytes of the disk that every commit leaves free, of those that admissions do.
pub const fn least_free(reserve: u64) -> u64 {
    reserve / 8
}

/// Changes that belong together: one request's.
#[derive(Default)]
pub struct Step(Vec<(Vec<u8>, Option<Bytes>)>);

impl Step {
    pub fn put(&mut self, key: Vec<u8>, value: Bytes) {
        self.0.push((key, Some(value)));
    }

    pub fn delete(&mut self, key: Vec<u8>) {
        self.0.push((key, None));
    }
}

/// A change and the commits that it is in.
pub struct Change<T> {
    result: Result<T, StoreError>,
    commits: RangeInclusive<u64>,
}

/// What of a group of changes was not made.
pub struct Failures {
    commits: Vec<(u64, StoreError)>,
    /// None of the group is durable.
    pub sync: Option<StoreError>,
}

impl<T> Change<T> {
    /// How it went, once its group was written.
    pub fn outcome(self, failures: &Failures) -> Result<T, StoreError> {
        let failed = failures
            .commits
            .iter()
            .find(|(commit, _)| self.commits.contains(commit))
            .map(|(_, error)| error);
        match failures.sync.as_ref().or(failed) {
            Some(error) => Err(again(error)),
            None => self.result,
        }
    }
}

/// The one place where the map is changed. Steps gather into commits; a step is
/// never split.
pub struct Staging<K> {
    kv: Arc<K>,
    horizon: Arc<Horizon>,
    /// Where backups hear of commits.
    redo: Redo,
    batch: Batch,
    bytes: usize,
    /// The next feed sequence, and the first that is not reserved.
    sequence: u64,
    reserved: u64,
    /// Commits are numbered; this one is being gathered.
    commit: u64,
    /// Commits of this group of changes that failed.
    failures: Vec<(u64, StoreError)>,
    /// The commit that decides the current change; what fails later does not
    /// undo it.
    decided: Option<u64>,
    free: u64,
    reserve: u64,
}

impl<K: Kv> Staging<K> {
    /// Admissions leave `reserve` bytes of the disk free, so that the answers to
    /// what is already in still find room.
    pub fn new(kv: Arc<K>, horizon: Arc<Horizon>, reserve: u64) -> Result<Self, StoreError> {
        let key = meta::feed_key();
        let sequence = match kv.get(&key)? {
            Some(value) => meta::decode(&key, &value)?,
            None => meta::FIRST_SEQUENCE,
        };
        Ok(Staging {
            kv,
            horizon,
            redo: Redo::default(),
            batch: Batch::new(),
            bytes: 0,
            sequence,
            reserved: sequence,
            commit: 0,
            failures: Vec::new(),
            decided: None,
            free: u64::MAX,
            reserve,
        })
    }

    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        match self.batch.get(key) {
            Some(staged) => Ok(staged.clone()),
            None => self.kv.get(key),
        }
    }

    /// Commits what is staged first where the scan has to see it.
    pub fn scan(&mut self, span: &Span, limit: usize) -> Result<Vec<Pair>, StoreError> {
        if self
            .batch
            .range(span.from.clone()..)
            .next()
            .is_some_and(|(key, _)| *key < span.to)
        {
            self.cut()?;
        }
        self.kv.scan(span, End::Front, limit)
    }

    /// Fails where the commit before it does: this change may build on that one.
    pub fn stage(&mut self, step: Step) -> Result<(), StoreError> {
        if self.batch.len() + step.0.len() > CUT_OPERATIONS || self.bytes > CUT_BYTES {
            self.cut()?;
        }
        for (key, value) in step.0 {
            self.bytes += value.as_ref().map_or(0, Bytes::len);
            self.batch.insert(key, value);
        }
        Ok(())
    }

    /// A feed sequence for an ending that `step` writes.
    pub fn next_sequence(&mut self, step: &mut Step) -> u64 {
        let sequence = self.sequence;
        self.sequence += 1;
        if sequence >= self.reserved {
            self.reserved = sequence + SEQUENCES;
            step.put(meta::feed_key(), meta::encode(&self.reserved));
        }
        sequence
    }

    pub fn redo(&self) -> Redo {
        self.redo.clone()
    }

    /// Gives out feed sequences from this one on.
    pub fn resume(&mut self, sequence: u64) {
        self.sequence = sequence;
        self.reserved = sequence;
    }

    /// Commits what is staged.
    pub fn cut(&mut self) -> Result<(), StoreError> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let batch = std::mem::take(&mut self.batch);
        let bytes = std::mem::take(&mut self.bytes) as u64;
        let applied = self
            .roomy(least_free(self.reserve).saturating_add(bytes))
            .and_then(|()| self.apply(batch));
        // A group may hold many commits; the disk is asked once.
        self.free = self.free.saturating_sub(bytes);
        let commit = self.commit;
        self.commit += 1;
        if let Err(error) = &applied {
            self.failures.push((commit, again(error)));
            // The reservation may have been in what was lost.
            self.reserved = self.sequence;
        }
        applied
    }

    fn apply(&self, batch: Batch) -> Result<(), StoreError> {
        self.horizon.writes()?;
        self.horizon.begin();
        let applied = self.redo.apply(&*self.kv, batch);
        match applied {
            Err(error) if self.kv.is_torn() => Err(self.horizon.fail(&error)),
            applied => applied,
        }
    }

    /// Makes one change, and tells in which commits: it is made if all of them
    /// are. That which was being gathered when it began is one of them, because
    /// the change may have read from it.
    pub fn spanning<T>(
        &mut self,
        change: impl FnOnce(&mut Self) -> Result<T, StoreError>,
    ) -> Change<T> {
        let first = self.commit;
        self.decided = None;
        let result = change(self);
        Change {
            result,
            commits: first..=self.decided.take().unwrap_or(self.commit),
        }
    }

    /// The current change is made with what is staged; what follows is tidying.
    pub fn decide(&mut self) {
        self.decided = Some(self.commit);
    }

    /// Ends a group of changes: commits what is staged, and tells which commits
    /// of the group failed.
    pub fn finish(&mut self) -> Failures {
        // Told with the others.
        let _ = self.cut();
        Failures {
            commits: std::mem::take(&mut self.failures),
            sync: None,
        }
    }

    /// Begins a group of changes with a look at the disk.
    pub fn begin(&mut self) {
        // Where the disk cannot be asked, writing to it will tell.
        self.free = self.kv.free_bytes().unwrap_or(u64::MAX);
    }

    /// Whether there is room to take in `bytes` more.
    pub fn room_to_admit(&self, bytes: usize) -> Result<(), StoreError> {
        self.roomy(self.reserve.saturating_add(bytes as u64))
    }

    fn roomy(&self, needed: u64) -> Result<(), StoreError> {
        if self.free < needed {
            return Err(StoreError::Full);
        }
        Ok(())
    }
}
