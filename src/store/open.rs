//! Opening a store: locks, formats, and what a crash left behind.

use std::{fs, path::Path, sync::Arc};

use super::{
    KvStore, MemoryStore, OpenError, Settings, SledStore,
    changes::payload,
    damage,
    kv::{End, Kv, Span},
    memory::MemoryKv,
    migrate::{self, CHUNK, FORMAT},
    records::meta,
    sled::SledKv,
    staging::{Staging, Step},
    watermark,
    writer::{Horizon, Writer},
};
use crate::ports::StoreError;

/// Kept free whatever the settings say: sled fails for good once a write of its
/// own finds the disk full. An eighth of it, two of sled's segments, is left
/// free by every commit.
const LEAST_RESERVE: u64 = 32 << 20;

impl MemoryStore {
    pub fn new() -> Self {
        let kv = Arc::new(MemoryKv::default());
        let horizon = Arc::new(Horizon::new());
        let staging = Staging::new(kv.clone(), horizon.clone(), 0)
            .expect("an empty map has nothing to misread");
        KvStore {
            redo: staging.redo(),
            writer: Writer::inline(horizon.clone(), staging),
            kv,
            horizon,
            spill: std::env::temp_dir(),
        }
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl SledStore {
    /// Opens the database below `data_dir`, or creates it. Blocks while what was
    /// written last is read.
    pub fn open(settings: &Settings) -> Result<Self, OpenError> {
        let dir = settings.data_dir.join("store");
        let io = |error| OpenError::Io {
            dir: dir.clone(),
            error,
        };
        fs::create_dir_all(&dir).map_err(io)?;
        let mark = watermark::read(&dir).map_err(io)?;
        if let Some(what) = damage::torn_tail(&dir, mark).map_err(io)? {
            return Err(OpenError::Damaged { dir, what });
        }
        let kv = SledKv::open(&dir, settings.cache_bytes).map_err(|error| cannot(&dir, error))?;
        let damaged = |error: StoreError| match error {
            StoreError::Io(error) => io(error),
            other => OpenError::Damaged {
                dir: dir.clone(),
                what: other.to_string(),
            },
        };
        let found = migrated(&kv, &dir, damaged)?;
        match found {
            // Nothing was acknowledged by a version that kept no number.
            Format::New => kv.acknowledge_none().map_err(io)?,
            Format::Migrated => {}
            Format::Present => {
                let sound = damage::verify(&kv, mark, settings.verify_at_start).map_err(damaged)?;
                let tally = sound.map_err(|what| OpenError::Damaged {
                    dir: dir.clone(),
                    what,
                })?;
                kv.resume(tally);
            }
        }
        let kv = Arc::new(kv);
        let horizon = Arc::new(Horizon::new());
        let reserve = settings.reserve_bytes.max(LEAST_RESERVE);
        let staging = Staging::new(kv.clone(), horizon.clone(), reserve);
        let mut staging = staging.map_err(damaged)?;
        prepare(&mut staging, found).map_err(damaged)?;
        kv.sync().map_err(damaged)?;
        kv.created().map_err(io)?;
        horizon.synced(horizon.applied());
        let redo = staging.redo();
        let writer = Writer::threads(kv.clone(), horizon.clone(), staging).map_err(io)?;
        Ok(KvStore {
            writer,
            kv,
            horizon,
            redo,
            spill: settings.data_dir.clone(),
        })
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Format {
    New,
    /// It was written by an earlier version, and is this one's now.
    Migrated,
    Present,
}

fn migrated(
    kv: &SledKv,
    dir: &Path,
    damaged: impl Fn(StoreError) -> OpenError,
) -> Result<Format, OpenError> {
    let dir = dir.to_path_buf();
    let known = FORMAT;
    let Some(found) = format(kv).map_err(&damaged)? else {
        return Ok(Format::New);
    };
    match found {
        FORMAT => return Ok(Format::Present),
        _ if found > FORMAT => return Err(OpenError::Newer { dir, found, known }),
        _ if found < migrate::OLDEST => return Err(OpenError::Older { dir, found, known }),
        _ => {}
    }
    tracing::info!(
        from = found,
        to = FORMAT,
        "the database is brought to this version's format"
    );
    // Commits of a migration are not counted; a killed one begins again from none.
    kv.acknowledge_none()
        .map_err(|error| damaged(StoreError::Io(error)))?;
    let mut format = found;
    while format < FORMAT {
        format = migrate::advance(kv, format, CHUNK).map_err(&damaged)?;
    }
    Ok(Format::Migrated)
}

/// The format that the database was written in; none where it is new.
fn format<K: Kv>(kv: &K) -> Result<Option<u32>, StoreError> {
    let key = meta::format_key();
    match kv.get(&key)? {
        Some(value) => meta::decode(&key, &value).map(Some),
        None => {
            let everything = Span {
                from: Vec::new(),
                to: vec![u8::MAX],
            };
            match kv.scan(&everything, End::Front, 1)?.first() {
                None => Ok(None),
                Some((found, _)) => {
                    Err(meta::KIND.corrupt(found, "there are records, but no format"))
                }
            }
        }
    }
}

fn prepare<K: Kv>(staging: &mut Staging<K>, found: Format) -> Result<(), StoreError> {
    if found == Format::New {
        let mut step = Step::default();
        step.put(meta::format_key(), meta::encode(&FORMAT));
        staging.stage(step)?;
    }
    let swept = payload::sweep(staging)?;
    if swept > 0 {
        tracing::info!(
            payloads = swept,
            "removed parts of payloads that a crash had left"
        );
    }
    Ok(())
}

fn cannot(dir: &Path, error: sled::Error) -> OpenError {
    let dir = dir.to_path_buf();
    match error {
        // The lock's error has no kind of its own.
        sled::Error::Io(error) if error.to_string().contains("could not acquire lock") => {
            OpenError::InUse { dir }
        }
        sled::Error::Io(error) => OpenError::Io { dir, error },
        sled::Error::Unsupported(what) => OpenError::Damaged { dir, what },
        other => OpenError::Damaged {
            dir,
            what: other.to_string(),
        },
    }
}
