//! How many commits were acknowledged, in a small file beside the database.
//!
//! It is written when a group of commits is synced and before any of them is
//! acknowledged, so a database that opens with fewer has lost some. It is not synced
//! itself: it never says more than is on disk, and a killed process leaves it as it
//! was written. After a power cut it may say less.
//!
//! Two slots are written in turn, so that one torn write leaves the other.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt as _,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

pub const NAME: &str = "acknowledged";
/// The number, and the CRC-32 of it and of the slot that it stands in.
const SLOT: usize = 16;

pub struct Watermark {
    file: File,
    turn: AtomicU64,
}

/// What the file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    Missing,
    Unreadable,
    Commits(u64),
}

pub fn read(dir: &Path) -> io::Result<Mark> {
    let bytes = match std::fs::read(dir.join(NAME)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Mark::Missing),
        read => read?,
    };
    let slots = bytes.chunks_exact(SLOT).take(2).zip(0..);
    let commits = slots.filter_map(|(slot, turn)| decode(slot, turn)).max();
    Ok(commits.map_or(Mark::Unreadable, Mark::Commits))
}

impl Watermark {
    pub fn open(dir: &Path) -> io::Result<Watermark> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(dir.join(NAME))?;
        Ok(Watermark {
            file,
            turn: AtomicU64::new(0),
        })
    }

    /// All commits up to this one are on disk.
    pub fn raise(&self, commits: u64) -> io::Result<()> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % 2;
        self.file
            .write_all_at(&encode(commits, turn), turn * SLOT as u64)
    }

    /// Writes both slots, and through to the disk.
    pub fn settle(&self, commits: u64) -> io::Result<()> {
        self.raise(commits)?;
        self.raise(commits)?;
        self.file.sync_all()
    }
}

fn encode(commits: u64, turn: u64) -> [u8; SLOT] {
    let mut slot = [0; SLOT];
    slot[..8].copy_from_slice(&commits.to_le_bytes());
    slot[8..12].copy_from_slice(&sum(commits, turn).to_le_bytes());
    slot
}

fn decode(slot: &[u8], turn: u64) -> Option<u64> {
    let (number, rest) = slot.split_first_chunk::<8>()?;
    let commits = u64::from_le_bytes(*number);
    (rest == &encode(commits, turn)[8..]).then_some(commits)
}

fn sum(commits: u64, turn: u64) -> u32 {
    crc32fast::hash(&[commits.to_le_bytes(), turn.to_le_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_later_slot_counts_and_one_may_be_spoiled() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()).unwrap(), Mark::Missing);
        let mark = Watermark::open(dir.path()).unwrap();
        for commits in [1, 7, 9] {
            mark.raise(commits).unwrap();
            assert_eq!(read(dir.path()).unwrap(), Mark::Commits(commits));
        }
        let path = dir.path().join(NAME);
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut spoiled = whole.clone();
            spoiled[at] ^= 1;
            fs::write(&path, &spoiled).unwrap();
            let expected = if at < SLOT { 7 } else { 9 };
            assert_eq!(read(dir.path()).unwrap(), Mark::Commits(expected), "{at}");
        }
        for length in 0..SLOT {
            fs::write(&path, &whole[..length]).unwrap();
            assert_eq!(read(dir.path()).unwrap(), Mark::Unreadable);
        }
    }
}
