//! A look at a damaged database, and a new one of what can be read of it.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use rustix::fs::FlockOperation;
use serde::Serialize;
use thiserror::Error;

use super::{
    Unreadable,
    leftovers::{self, leftovers},
    log::{Gap, Log},
    pages,
    repair::{Repairs, repair},
};
use crate::{
    model::time::Timestamp,
    ports::StoreError,
    store::{
        codec,
        fresh::{self, Fresh},
        kv::Kv as _,
        migrate,
        records::{self, meta},
        staging::Staging,
        tally::Tally,
        watermark::{self, Mark},
        writer::Horizon,
    },
};

/// Why a database cannot be looked at, or saved.
#[derive(Debug, Error)]
pub enum SalvageError {
    #[error("there is no database in {dir}")]
    None { dir: PathBuf },
    #[error(
        "there is no database in {dir}, and beside it are {}",
        leftovers::told(found)
    )]
    Leftovers { dir: PathBuf, found: Vec<String> },
    #[error("the data directory {dir} is in use by a running server: stop it first")]
    InUse { dir: PathBuf },
    #[error(
        "the database in {dir} has format {found}, this version saves format {known}: run `offpeak serve` on it, or the version that wrote it"
    )]
    Format {
        dir: PathBuf,
        found: u32,
        known: u32,
    },
    #[error("{dir}: {error}")]
    Io {
        dir: PathBuf,
        #[source]
        error: io::Error,
    },
    #[error("the new database: {0}")]
    Store(#[from] StoreError),
}

/// What a database holds, and what of it cannot be read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Records that can be read, by kind.
    pub records: BTreeMap<&'static str, u64>,
    /// Records that there should be; none where that cannot be read.
    pub expected: Option<u64>,
    /// Acknowledged commits that are not there.
    pub missing_commits: u64,
    /// Whether the number of acknowledged commits is known.
    pub acknowledged: Option<u64>,
    /// Bytes of the log that cannot be read although messages follow.
    pub gaps: Vec<Gap>,
    /// Pages of records, and changes of pages, that cannot be read.
    pub lost_pages: u64,
    pub lost_changes: u64,
    /// Records that were found and cannot be read.
    pub unreadable: Vec<Unreadable>,
    /// Whether the sealed roots of the vault are there, without which no stored key
    /// opens. A database of an earlier version has none.
    pub roots: bool,
    /// All is there, as it was written.
    pub sound: bool,
}

impl Report {
    pub fn readable(&self) -> u64 {
        self.records.values().sum()
    }
}

/// What a salvage did.
#[derive(Clone, Debug, Serialize)]
pub struct Salvaged {
    pub found: Report,
    pub repairs: Repairs,
    /// The old database, as it was.
    pub kept: PathBuf,
    /// The records that cannot be read, a line of JSON each.
    pub unreadable: PathBuf,
}

/// Reads everything of the database below `data_dir`; changes nothing.
pub fn check(data_dir: &Path) -> Result<Report, SalvageError> {
    let dir = data_dir.join("store");
    let (_lock, log) = locked(&dir)?;
    read(&dir, &log, |_, _| Ok(()))
}

/// Makes a new database of what can be read, and puts it in the place of the old one,
/// which is kept beside it. Killed, it leaves the old one in its place.
pub fn salvage(data_dir: &Path, now: Timestamp) -> Result<Salvaged, SalvageError> {
    let dir = data_dir.join("store");
    let io = |error| SalvageError::Io {
        dir: dir.clone(),
        error,
    };
    let found = leftovers(data_dir).map_err(io)?;
    if !found.is_empty() {
        return Err(SalvageError::Leftovers { dir, found });
    }
    let (lock, log) = locked(&dir)?;
    let building = data_dir.join(leftovers::BUILDING);
    let mut fresh = Fresh::begin(&building)?;
    let mut found = read(&dir, &log, |key, value| {
        let put = fresh.put(key, Some(Bytes::from(value)));
        put.map_err(|error| io::Error::other(error.to_string()))
    })?;
    let (kv, _) = fresh.done()?;
    let format = meta::format_key();
    if let Some(value) = kv.get(&format)?
        && let Ok(format) = meta::decode::<u32>(&format, &value)
        && format != migrate::FORMAT
    {
        drop(kv);
        fs::remove_dir_all(&building).map_err(io)?;
        return Err(SalvageError::Format {
            dir,
            found: format,
            known: migrate::FORMAT,
        });
    }
    let kv = Arc::new(kv);
    let horizon = Arc::new(Horizon::new());
    let mut staging = Staging::new(kv.clone(), horizon, 0)?;
    let repairs = repair(&mut staging, now, &mut found.unreadable)?;
    kv.sync()?;
    drop((staging, kv));
    let seconds = now.as_millis() / 1000;
    let unreadable = data_dir.join(format!("unreadable-{seconds}.ndjson"));
    write_aside(&unreadable, &found.unreadable).map_err(io)?;
    fresh::sync_all(&building).map_err(io)?;
    let kept = data_dir.join(format!("{}{seconds}", leftovers::KEPT));
    fresh::replace(&dir, &building, &kept).map_err(io)?;
    drop(lock);
    Ok(Salvaged {
        found,
        repairs,
        kept,
        unreadable,
    })
}

/// sled locks its log as long as it has it open.
fn locked(dir: &Path) -> Result<(File, Log), SalvageError> {
    let io = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => SalvageError::None {
            dir: dir.to_path_buf(),
        },
        _ => SalvageError::Io {
            dir: dir.to_path_buf(),
            error,
        },
    };
    let lock = File::open(dir.join("db")).map_err(io)?;
    match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Err(rustix::io::Errno::WOULDBLOCK) => {
            return Err(SalvageError::InUse {
                dir: dir.to_path_buf(),
            });
        }
        Err(error) => return Err(io(error.into())),
        Ok(()) => {}
    }
    Ok((lock, Log::open(dir).map_err(io)?))
}

/// Hands on what can be read.
fn read(
    dir: &Path,
    log: &Log,
    mut each: impl FnMut(Vec<u8>, Vec<u8>) -> io::Result<()>,
) -> Result<Report, SalvageError> {
    let io = |error| SalvageError::Io {
        dir: dir.to_path_buf(),
        error,
    };
    let mark = watermark::read(dir).map_err(io)?;
    let mut pages = pages::of(log).map_err(io)?;
    let mut report = Report::default();
    let roots = meta::roots_key();
    let (own, mut told, mut counted) = (meta::tally_key(), None::<Tally>, Tally::default());
    let read = pages.pairs(log, |key, value| {
        if key == own {
            told = meta::decode(&own, &Bytes::from(value)).ok();
            return Ok(());
        }
        // sled keeps a tree of its own for names, whose keys begin otherwise.
        let Some(kind) = records::kind(&key) else {
            return Ok(());
        };
        counted.enter(&key, &value);
        if !codec::is_sound(&value) {
            let why = "the checksum does not match".into();
            report.unreadable.push(Unreadable::new(&key, &value, why));
            return Ok(());
        }
        report.roots |= key == roots;
        *report.records.entry(kind.name).or_default() += 1;
        each(key, value)
    });
    read.map_err(io)?;
    report.gaps = pages.gaps;
    report.lost_pages = pages.lost_pages;
    report.lost_changes = pages.lost_changes;
    report.expected = told.map(|tally| tally.pairs);
    if let Mark::Commits(acknowledged) = mark {
        report.acknowledged = Some(acknowledged);
        let there = told.map_or(0, |tally| tally.commits);
        report.missing_commits = acknowledged.saturating_sub(there);
    }
    report.sound = report.acknowledged.is_some()
        && report.missing_commits == 0
        && report.unreadable.is_empty()
        && told.is_some_and(|told| told.same_pairs(&counted));
    Ok(report)
}

/// They may hold prompts: for their owner only.
fn write_aside(path: &Path, unreadable: &[Unreadable]) -> io::Result<()> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    let mut lines = BufWriter::new(file);
    for record in unreadable {
        serde_json::to_writer(&mut lines, record)?;
        lines.write_all(b"\n")?;
    }
    lines.into_inner()?.sync_all()
}
