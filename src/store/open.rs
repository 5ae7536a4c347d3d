//! Opening a store: locks, formats, and what a crash left behind.

use std::{path::Path, sync::Arc};

use super::{
    COMMITS, KvStore, MemoryStore, OpenError, Settings, SledStore,
    changes::payload,
    damage,
    kv::{End, Kv, Span},
    memory::MemoryKv,
    migrate::{self, CHUNK, FORMAT},
    private,
    records::meta,
    sled::SledKv,
    staging::{Staging, Step},
    watermark,
    writer::{Horizon, Writer},
};
use crate::{model::durations::Durations, ports::StoreError};

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
            reserve: 0,
            commits: Durations::within(COMMITS),
        }
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl SledStore {
    /// Opens the database below `data_dir`, or creates it. One of an earlier version is
    /// brought to this one's format. Blocks while it is read.
    pub fn open(settings: &Settings) -> Result<Self, OpenError> {
        Self::opened(settings, migrated)
    }

    /// The same, where it has this version's format.
    ///
    /// # Errors
    /// [`OpenError::Unchanged`] where it has an earlier one, which it keeps.
    pub fn open_unchanged(settings: &Settings) -> Result<Self, OpenError> {
        Self::opened(settings, |_, dir, found| {
            Err(OpenError::Unchanged {
                dir: dir.to_path_buf(),
                found,
                known: FORMAT,
            })
        })
    }

    fn opened(
        settings: &Settings,
        older: impl Fn(&SledKv, &Path, u32) -> Result<(), OpenError>,
    ) -> Result<Self, OpenError> {
        let dir = settings.data_dir.join("store");
        let io = |error| OpenError::Io {
            dir: dir.clone(),
            error,
        };
        let found = damage::leftovers(&settings.data_dir).map_err(io)?;
        if !found.is_empty() {
            return Err(OpenError::Leftovers { dir, found });
        }
        private::ensure(&dir).map_err(io)?;
        let mark = watermark::read(&dir).map_err(io)?;
        if let Some(what) = damage::torn_tail(&dir, mark).map_err(io)? {
            return Err(OpenError::Damaged { dir, what });
        }
        let kv = SledKv::open(&dir, settings.cache_bytes).map_err(|error| cannot(&dir, error))?;
        let damaged = |error| unreadable(&dir, error);
        let sound = || {
            let sound = damage::verify(&kv, mark, settings.verify_at_start).map_err(damaged)?;
            sound.map_err(|what| OpenError::Damaged {
                dir: dir.clone(),
                what,
            })
        };
        let found = format_of(&kv, &dir, |kv, dir, found| {
            // What is lost cannot be told any more once it is tallied anew.
            if migrate::is_tallied(kv, found).map_err(damaged)? {
                sound()?;
            }
            older(kv, dir, found)
        })?;
        match found {
            // Nothing was acknowledged by a version that kept no number.
            Format::New => kv.acknowledge_none().map_err(io)?,
            Format::Migrated => {}
            Format::Present => kv.resume(sound()?),
        }
        kv.recount().map_err(damaged)?;
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
            reserve,
            commits: Durations::within(COMMITS),
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

fn format_of(
    kv: &SledKv,
    dir: &Path,
    older: impl Fn(&SledKv, &Path, u32) -> Result<(), OpenError>,
) -> Result<Format, OpenError> {
    let known = FORMAT;
    let Some(found) = format(kv).map_err(|error| unreadable(dir, error))? else {
        return Ok(Format::New);
    };
    let at = || dir.to_path_buf();
    match found {
        FORMAT => Ok(Format::Present),
        _ if found > FORMAT => Err(OpenError::Newer {
            dir: at(),
            found,
            known,
        }),
        _ if found < migrate::OLDEST => Err(OpenError::Older {
            dir: at(),
            found,
            known,
        }),
        _ => older(kv, dir, found).map(|()| Format::Migrated),
    }
}

/// Brings it to this version's format.
fn migrated(kv: &SledKv, dir: &Path, found: u32) -> Result<(), OpenError> {
    let damaged = |error| unreadable(dir, error);
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
        format = migrate::advance(kv, format, CHUNK).map_err(damaged)?;
    }
    Ok(())
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

fn unreadable(dir: &Path, error: StoreError) -> OpenError {
    let dir = dir.to_path_buf();
    match error {
        StoreError::Io(error) => OpenError::Io { dir, error },
        other => OpenError::Damaged {
            dir,
            what: other.to_string(),
        },
    }
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
