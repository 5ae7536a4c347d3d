//! Making a database of a backup.

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use thiserror::Error;

use super::{BadBackup, Check, End};
use crate::{
    ports::StoreError,
    store::{
        codec,
        fresh::{self, Fresh},
        private,
        sled::SledKv,
    },
};

/// What may stand in a data directory that a backup is brought to: the operator's
/// secrets, and what a restore that was killed left.
const ALLOWED: [&str; 3] = ["master.key", "admin.token", BUILDING];
const BUILDING: &str = "store.restoring";

/// Why a backup is not brought back; nothing is left behind.
#[derive(Debug, Error)]
pub enum RestoreError {
    #[error("{dir} is not empty (it holds {found}): name a new directory")]
    NotEmpty { dir: PathBuf, found: String },
    #[error("the backup is not used: {0}")]
    Backup(#[from] BadBackup),
    #[error("reading the backup: {0}")]
    Read(#[source] io::Error),
    #[error("{dir}: {error}")]
    Io {
        dir: PathBuf,
        #[source]
        error: io::Error,
    },
    #[error("the new database: {0}")]
    Store(#[from] StoreError),
}

/// Makes the database below `data_dir` of a backup. It takes its place when all of
/// it was read, compared with what the backup says of itself, and written through
/// to the disk.
pub fn restore(data_dir: &Path, from: impl Read) -> Result<End, RestoreError> {
    let io = |error| RestoreError::Io {
        dir: data_dir.to_path_buf(),
        error,
    };
    let made = !data_dir.exists();
    private::create(data_dir).map_err(io)?;
    for entry in fs::read_dir(data_dir).map_err(io)? {
        let name = entry.map_err(io)?.file_name();
        if !ALLOWED.iter().any(|allowed| name == **allowed) {
            return Err(RestoreError::NotEmpty {
                dir: data_dir.to_path_buf(),
                found: name.to_string_lossy().into_owned(),
            });
        }
    }
    let building = data_dir.join(BUILDING);
    let built = build(&building, from);
    let placed = built.and_then(|end| {
        fresh::sync_all(&building).map_err(io)?;
        fresh::rename(&building, &data_dir.join("store")).map_err(io)?;
        Ok(end)
    });
    if placed.is_err() {
        // Told is why it failed, and not why something could not be removed.
        let _ = fs::remove_dir_all(&building);
        if made {
            let _ = fs::remove_dir(data_dir);
        }
    }
    placed
}

fn build(dir: &Path, mut from: impl Read) -> Result<End, RestoreError> {
    let mut fresh = Fresh::begin(dir)?;
    let mut check = Check::default();
    let mut part = vec![0; 256 * 1024];
    loop {
        let read = from.read(&mut part).map_err(RestoreError::Read)?;
        if read == 0 {
            break;
        }
        check.take(&part[..read], |key, value| -> Result<(), RestoreError> {
            if value.is_some_and(|value| !codec::is_sound(value)) {
                Err(BadBackup::Spoiled("a record's checksum does not match"))?;
            }
            let value = value.map(Bytes::copy_from_slice);
            Ok(fresh.put(key.to_vec(), value)?)
        })?;
    }
    let end = check.end()?;
    let (kv, _) = fresh.done()?;
    compare(&kv, &end)?;
    Ok(end)
}

/// Counts what stands in the new database.
fn compare(kv: &SledKv, end: &End) -> Result<(), RestoreError> {
    let (found, unsound) = kv.count(1)?;
    let same = end.tally.is_none_or(|told| told.same_pairs(&found));
    if !unsound.is_empty() || !same {
        Err(BadBackup::Spoiled(
            "its records are not those that it should hold",
        ))?;
    }
    Ok(())
}
