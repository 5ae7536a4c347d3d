//! Opening a store: locks, formats, and what a crash left behind.

use std::{fs, path::Path, sync::Arc};

use super::{
    KvStore, MemoryStore, OpenError, Settings, SledStore,
    changes::payload,
    kv::{End, Kv, Span},
    memory::MemoryKv,
    records::meta,
    sled::SledKv,
    staging::{Staging, Step},
    writer::{Horizon, Writer},
};
use crate::ports::StoreError;

/// The version of the layouts in [`records`](super::records).
const FORMAT: u32 = 2;
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
            writer: Writer::inline(horizon.clone(), staging),
            kv,
            horizon,
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
        let kv = SledKv::open(&dir, settings.cache_bytes).map_err(|error| cannot(&dir, error))?;
        let kv = Arc::new(kv);
        let horizon = Arc::new(Horizon::new());
        let damaged = |error: StoreError| match error {
            StoreError::Io(error) => io(error),
            other => OpenError::Damaged {
                dir: dir.clone(),
                what: other.to_string(),
            },
        };
        let found = format(&*kv).map_err(damaged)?;
        if let Some(found) = found
            && found != FORMAT
        {
            return Err(OpenError::Format {
                dir: dir.clone(),
                found,
                known: FORMAT,
            });
        }
        let reserve = settings.reserve_bytes.max(LEAST_RESERVE);
        let staging = Staging::new(kv.clone(), horizon.clone(), reserve);
        let mut staging = staging.map_err(damaged)?;
        prepare(&mut staging, found).map_err(damaged)?;
        kv.sync().map_err(damaged)?;
        kv.created().map_err(io)?;
        horizon.synced(horizon.applied());
        let writer = Writer::threads(kv.clone(), horizon.clone(), staging).map_err(io)?;
        Ok(KvStore {
            writer,
            kv,
            horizon,
        })
    }
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

fn prepare<K: Kv>(staging: &mut Staging<K>, found: Option<u32>) -> Result<(), StoreError> {
    if found.is_none() {
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
