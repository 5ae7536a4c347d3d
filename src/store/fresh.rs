//! A database that is written beside its place and takes it when it is whole.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use rustix::{
    fs::{CWD, RenameFlags},
    io::Errno,
};

use super::{
    kv::{Batch, Kv},
    private,
    records::meta,
    sled::SledKv,
};
use crate::ports::StoreError;

/// Operations and bytes of a commit, as in [`staging`](super::staging).
const OPERATIONS: usize = 200;
const BYTES: usize = 512 * 1024;
const CACHE: u64 = 16 << 20;

pub struct Fresh {
    kv: SledKv,
    dir: PathBuf,
    batch: Batch,
    bytes: usize,
}

impl Fresh {
    /// Begins with nothing: what an earlier one left in `dir` is removed.
    pub fn begin(dir: &Path) -> Result<Fresh, StoreError> {
        match fs::remove_dir_all(dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(StoreError::Io(error));
            }
            _ => {}
        }
        private::ensure(dir).map_err(StoreError::Io)?;
        let opened = SledKv::open(dir, CACHE);
        let kv = opened.map_err(|error| StoreError::Corrupt(error.to_string()))?;
        Ok(Fresh {
            kv,
            dir: dir.to_path_buf(),
            batch: Batch::new(),
            bytes: 0,
        })
    }

    /// Writes a pair over what stood there. The tally is this database's own.
    pub fn put(&mut self, key: Vec<u8>, value: Option<Bytes>) -> Result<(), StoreError> {
        if key == meta::tally_key() {
            return Ok(());
        }
        self.bytes += value.as_ref().map_or(0, Bytes::len);
        self.batch.insert(key, value);
        if self.batch.len() >= OPERATIONS || self.bytes >= BYTES {
            self.cut()?;
        }
        Ok(())
    }

    fn cut(&mut self) -> Result<(), StoreError> {
        self.bytes = 0;
        self.kv.apply(std::mem::take(&mut self.batch))
    }

    /// All that was put is in the map.
    pub fn done(mut self) -> Result<(SledKv, PathBuf), StoreError> {
        self.cut()?;
        self.kv.sync()?;
        self.kv.created().map_err(StoreError::Io)?;
        Ok((self.kv, self.dir))
    }
}

/// Writes a directory and all in it through to the disk.
pub fn sync_all(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        match path.is_dir() {
            true => sync_all(&path)?,
            false => File::open(&path)?.sync_all()?,
        }
    }
    File::open(dir)?.sync_all()
}

/// Gives a directory another name, durably.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    sync_parent(to)
}

/// Gives `new` the name `place`, and what stands there the name `kept`, durably. At every
/// instant one of them has the name `place`, where the file system can exchange names.
pub fn replace(place: &Path, new: &Path, kept: &Path) -> io::Result<()> {
    fs::rename(new, kept)?;
    match rustix::fs::renameat_with(CWD, kept, CWD, place, RenameFlags::EXCHANGE) {
        Ok(()) => {}
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
            fs::rename(kept, new)?;
            fs::rename(place, kept)?;
            fs::rename(new, place)?;
        }
        Err(error) => return Err(error.into()),
    }
    sync_parent(place)
}

fn sync_parent(of: &Path) -> io::Result<()> {
    match of.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}
