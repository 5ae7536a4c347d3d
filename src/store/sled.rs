//! sled, kept to what it does well (DESIGN.md §6).

use std::{
    cell::Cell,
    fs, io,
    panic::{self, AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Once,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use rustix::fs::FlockOperation;

use super::{
    codec::{self, Kind},
    counts::{COUNTED, Counts},
    kv::{Batch, End, Kv, Pair, Span},
    records::meta,
    tally::Tally,
    watermark::Watermark,
};
use crate::ports::StoreError;

/// sled puts a page of more than a quarter of a segment into a file of its own,
/// which it does not sync. A leaf holds up to 17 pairs: a request's record with
/// [`chunk::BYTES`](super::records::chunk::BYTES) inline, and a long webhook, are
/// about 10 KB each. Some ten segments are in memory while they are written.
pub const SEGMENT: usize = 1024 * 1024;

/// Tells how long the log was when the database was closed. sled takes a log
/// that was cut short for one whose end was never written, and an empty one for
/// a new database; this tells them apart.
const CLOSED: &str = "closed";
/// Stands from the first opening on.
const CREATED: &str = "created";

pub struct SledKv {
    db: sled::Db,
    /// What the last commit wrote of all of them.
    tally: Mutex<Tally>,
    counts: Mutex<Counts>,
    torn: AtomicBool,
    closing: Closing,
}

/// Dropped behind the database.
struct Closing {
    dir: PathBuf,
    /// sled's log once more, for the sync that sled does not make.
    log: fs::File,
    watermark: Watermark,
}

impl SledKv {
    /// Opens the database in `dir`, or creates it. sled panics on some damage;
    /// that is told as corruption.
    pub fn open(dir: &Path, cache_bytes: u64) -> Result<Self, sled::Error> {
        let config = sled::Config::new()
            .path(dir)
            .cache_capacity(cache_bytes)
            .segment_size(segment_bytes(dir))
            .flush_every_ms(None);
        check_length(dir)?;
        let db = without_panics(|| config.open())
            .unwrap_or_else(|| Err(damaged("its log cannot be read")))?;
        if db.is_empty() && dir.join(CREATED).exists() {
            return Err(damaged("its log is empty"));
        }
        let closing = Closing {
            dir: dir.to_path_buf(),
            log: fs::OpenOptions::new().write(true).open(dir.join("db"))?,
            watermark: Watermark::open(dir)?,
        };
        match fs::remove_file(dir.join(CLOSED)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let tally = Mutex::new(Tally::default());
        Ok(SledKv {
            db,
            tally,
            counts: Mutex::default(),
            torn: AtomicBool::new(false),
            closing,
        })
    }

    /// What stands in the database, to count on from.
    pub fn resume(&self, tally: Tally) {
        *self.tally.lock() = tally;
    }

    /// Counts what is `COUNTED`, to count on from. Reads their keys.
    pub fn recount(&self) -> Result<(), StoreError> {
        let mut counts = Counts::default();
        for kind in COUNTED {
            let keys = self.db.scan_prefix([kind.tag]).keys();
            for (number, key) in keys.enumerate() {
                counts.enter(&key.map_err(failed)?);
                if number % 64 == 0 {
                    drop(Collect);
                }
            }
        }
        *self.counts.lock() = counts;
        Ok(())
    }

    /// A tally of all there is, and the keys whose values are not what was written.
    /// Reads everything, on `threads` threads.
    pub fn count(&self, threads: usize) -> Result<(Tally, Vec<Bytes>), StoreError> {
        let kinds = Mutex::new(KINDS.rev());
        let all = Mutex::new((Tally::default(), Vec::new()));
        let work = || -> Result<(), StoreError> {
            loop {
                let Some(kind) = kinds.lock().next() else {
                    return Ok(());
                };
                let (tally, spoiled) = self.count_kind(kind)?;
                let mut all = all.lock();
                all.0.add(&tally);
                all.1.extend(spoiled);
            }
        };
        thread::scope(|scope| {
            let running: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(work)).collect();
            let ended = running.into_iter().map(|thread| thread.join());
            ended.collect::<Vec<_>>().into_iter().try_for_each(|ended| {
                ended.unwrap_or_else(|_| Err(StoreError::Corrupt("a page cannot be read".into())))
            })
        })?;
        Ok(all.into_inner())
    }

    fn count_kind(&self, kind: u8) -> Result<(Tally, Vec<Bytes>), StoreError> {
        let mut tally = Tally::default();
        let mut spoiled = Vec::new();
        let own = meta::tally_key();
        let (from, to) = ([kind], [kind + 1]);
        let mut pairs = self.db.range(&from[..]..&to[..]);
        let read = without_panics(|| {
            for (number, pair) in pairs.by_ref().enumerate() {
                let (key, value) = pair.map_err(failed)?;
                if *key == own[..] {
                    continue;
                }
                // The range looks at a page once, and what is looked at once stays in
                // memory for long, see [`touches`].
                self.db.get(&key).map_err(failed)?;
                tally.enter(&key, &value);
                if !codec::is_sound(&value) {
                    spoiled.push(Bytes::copy_from_slice(&key));
                }
                if number % 64 == 0 {
                    drop(Collect);
                }
            }
            Ok(())
        });
        read.unwrap_or_else(|| Err(StoreError::Corrupt("its pages do not fit together".into())))?;
        Ok((tally, spoiled))
    }

    /// Lets sled see how large its cache is, see [`touches`]. What was read or written
    /// before was so, whatever becomes of this.
    fn touch(&self, key: &[u8], length: usize) {
        let touched = (0..touches(length)).try_for_each(|_| self.db.get(key).map(drop));
        if let Err(error) = touched {
            tracing::warn!(%error, "a page cannot be read again");
        }
    }

    /// From here on, a database without the number of its acknowledged commits is a
    /// damaged one.
    pub fn acknowledge_none(&self) -> io::Result<()> {
        self.closing.watermark.settle(0)
    }

    /// From here on, a database without records is a damaged one.
    pub fn created(&self) -> io::Result<()> {
        fs::File::create(self.closing.dir.join(CREATED))?.sync_all()
    }
}

/// The tags of all kinds of record.
const KINDS: std::ops::RangeInclusive<u8> = 0..=u8::MAX - 1;

thread_local! {
    /// This thread's panics are caught and told in other words.
    static CAUGHT: Cell<bool> = const { Cell::new(false) };
}

/// None where `act` panicked; no panic's text reaches standard error.
fn without_panics<T>(act: impl FnOnce() -> T) -> Option<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |panic| match CAUGHT.get() {
            true => tracing::debug!(%panic, "sled cannot open the database"),
            false => usual(panic),
        }));
    });
    CAUGHT.set(true);
    let done = catch_unwind(AssertUnwindSafe(act));
    CAUGHT.set(false);
    done.ok()
}

/// A database keeps the segments that it was created with; sled notes their size
/// in a line of its `conf`, and refuses another.
pub fn segment_bytes(dir: &Path) -> usize {
    let noted = fs::read(dir.join("conf")).unwrap_or_default();
    let noted = String::from_utf8_lossy(&noted);
    let size = noted
        .lines()
        .find_map(|line| line.strip_prefix("segment_size: "));
    // What is damaged there is told by sled: the line is whole if another follows.
    let size = size.filter(|_| noted.contains("\nuse_compression"));
    size.and_then(|size| size.parse().ok()).unwrap_or(SEGMENT)
}

fn check_length(dir: &Path) -> Result<(), sled::Error> {
    let Ok(closed) = fs::read_to_string(dir.join(CLOSED)) else {
        return Ok(());
    };
    let length = fs::metadata(dir.join("db"))?.len();
    match closed.trim().parse::<u64>() {
        Ok(closed) if length < closed => {
            Err(damaged(&format!("its log has {length} bytes of {closed}")))
        }
        _ => Ok(()),
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        if !self.alone() {
            tracing::warn!("the database is still busy; the length of its log is not noted");
            return;
        }
        let noted = self
            .log
            .metadata()
            .and_then(|log| fs::write(self.dir.join(CLOSED), log.len().to_string()))
            .and_then(|()| Ok(rustix::fs::flock(&self.log, FlockOperation::Unlock)?));
        if let Err(error) = noted {
            tracing::warn!(%error, "the length of the database's log could not be noted");
        }
    }
}

impl Closing {
    /// sled's own threads may still be shortening the log, and hold its lock
    /// while they do. They have no end to wait for, so the lock is tried, for two
    /// seconds at most.
    fn alone(&self) -> bool {
        (0..2000).any(|_| {
            let lock = FlockOperation::NonBlockingLockExclusive;
            let locked = rustix::fs::flock(&self.log, lock).is_ok();
            if !locked {
                thread::park_timeout(Duration::from_millis(1));
            }
            locked
        })
    }
}

impl Kv for SledKv {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let _collected = Collect;
        let value = self.db.get(key).map_err(failed)?;
        if let Some(value) = &value {
            self.touch(key, value.len());
        }
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn scan(&self, span: &Span, from: End, limit: usize) -> Result<Vec<Pair>, StoreError> {
        if span.is_empty() {
            return Ok(Vec::new());
        }
        let _collected = Collect;
        let range = self.db.range(span.from.as_slice()..span.to.as_slice());
        let owned = |pair: sled::Result<(sled::IVec, sled::IVec)>| {
            let (key, value) = pair.map_err(failed)?;
            Ok((Bytes::copy_from_slice(&key), Bytes::copy_from_slice(&value)))
        };
        match from {
            End::Front => range.take(limit).map(owned).collect(),
            End::Back => range.rev().take(limit).map(owned).collect(),
        }
    }

    fn apply(&self, batch: Batch) -> Result<(), StoreError> {
        let mut writes = sled::Batch::default();
        let mut large = Vec::new();
        // All pages that are written are read first: one that cannot be read fails
        // the commit before any of it is made.
        let mut tally = *self.tally.lock();
        tally.commits += 1;
        let mut counts = *self.counts.lock();
        for (key, value) in batch {
            if let Some(old) = self.db.get(&key).map_err(failed)? {
                tally.leave(&key, &old);
                counts.leave(&key);
            }
            if let Some(value) = &value {
                tally.enter(&key, value);
                counts.enter(&key);
            }
            let length = value.as_ref().map_or(0, Bytes::len);
            if touches(length) > 0 {
                large.push((key.clone(), length));
            }
            match value {
                Some(value) => writes.insert(key, &value[..]),
                None => writes.remove(key),
            }
        }
        writes.insert(meta::tally_key(), &meta::encode(&tally)[..]);
        let _collected = Collect;
        // sled makes one write after another, and takes none back.
        self.db.apply_batch(writes).map_err(|error| {
            self.torn.store(true, Ordering::SeqCst);
            failed(error)
        })?;
        *self.tally.lock() = tally;
        *self.counts.lock() = counts;
        for (key, length) in &large {
            self.touch(key, *length);
        }
        Ok(())
    }

    fn how_many(&self, kind: Kind) -> usize {
        self.counts.lock().of(kind.tag)
    }

    fn is_torn(&self) -> bool {
        self.torn.load(Ordering::SeqCst)
    }

    fn sync(&self) -> Result<(), StoreError> {
        let commits = self.tally.lock().commits;
        self.db.flush().map_err(failed)?;
        self.closing.log.sync_data().map_err(io_failed)?;
        self.closing.watermark.raise(commits).map_err(io_failed)
    }

    fn tally(&self) -> Option<Tally> {
        Some(*self.tally.lock())
    }

    fn disk_bytes(&self) -> Result<u64, StoreError> {
        self.db.size_on_disk().map_err(failed)
    }

    fn free_bytes(&self) -> Result<u64, StoreError> {
        let disk =
            rustix::fs::fstatvfs(&self.closing.log).map_err(|error| io_failed(error.into()))?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
    }
}

/// How often more to read a value of this many bytes that was read or written.
/// sled looks whether its cache is too large only at every 64th access of one of
/// its 256 shards (`lru.rs`): a page of chunks that is read or written once would
/// stay until three more have come into its shard. A cached read takes about a
/// microsecond.
const fn touches(bytes: usize) -> usize {
    if bytes < 3072 { 0 } else { bytes / 512 }
}

/// Dropped when a call on the database is done. sled leaves the pages that it
/// evicts and replaces to crossbeam's epochs, which keep up to 64 of them for
/// each thread, and a page with 8 KB bodies is 128 KB: reading a file of 200 MB
/// would leave 80 MB of garbage behind. A flush hands them on at once.
struct Collect;

impl Drop for Collect {
    fn drop(&mut self) {
        crossbeam_epoch::pin().flush();
    }
}

fn failed(error: sled::Error) -> StoreError {
    match error {
        sled::Error::Io(error) => io_failed(error),
        other => StoreError::Corrupt(other.to_string()),
    }
}

fn damaged(what: &str) -> sled::Error {
    sled::Error::Unsupported(what.into())
}

fn io_failed(error: io::Error) -> StoreError {
    StoreError::Io(error)
}
