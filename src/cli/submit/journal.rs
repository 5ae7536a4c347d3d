//! What a run has done, one JSON object a line, only ever appended to: whatever ends
//! the process, the next one reads it and goes on.
//!
//! A last line that was cut off is dropped. What is lost with it is asked for again: an
//! acknowledgement by the line's `Idempotency-Key`, an answer by the feed's cursor, which
//! never stands before the answers that it is behind.

use std::{
    borrow::Cow,
    fs::{File, TryLockError},
    io::{self, BufRead as _, BufReader, Seek as _, SeekFrom, Write as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use thiserror::Error;

use super::input::Input;
use crate::model::{id::RequestId, money::Usd};

/// What all of a run has in common; the journal's first line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Begins the `Idempotency-Key` of every line.
    pub run: String,
    pub digest: String,
    pub lines: u64,
    /// As the command line has it.
    pub asked: String,
    /// The instant that it meant when the run began, RFC 3339.
    pub deadline: String,
    /// Where the feed ended before anything was sent.
    pub cursor: String,
    pub options: Options,
}

/// What a resume has to say again, or lines would differ.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    pub endpoint: Option<String>,
    pub tag: Option<String>,
    pub on_late: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Record<'a> {
    Begun(Header),
    /// The server has the line.
    Taken {
        line: u64,
        id: RequestId,
    },
    Ended(Ended<'a>),
    /// All that the feed tells up to here stands above.
    Cursor(Cow<'a, str>),
    /// The deadline of what is sent from here on.
    Deadline(Cow<'a, str>),
    /// The output is complete; nothing else is kept but the header.
    Done(Sums),
}

/// A line's answer, or why there is none.
#[derive(Debug, Serialize, Deserialize)]
pub struct Ended<'a> {
    pub line: u64,
    /// None where the server did not take it.
    pub id: Option<RequestId>,
    pub succeeded: bool,
    /// 0 where there is no answer.
    pub status: u16,
    pub request_id: Option<Cow<'a, str>>,
    pub body: Cow<'a, RawValue>,
    /// Why there is no answer.
    pub error: Option<Cow<'a, str>>,
    pub paid: Option<Cow<'a, str>>,
    pub saved: Option<Cow<'a, str>>,
}

/// What a run comes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sums {
    pub succeeded: u64,
    pub failed: u64,
    /// Answers of models without a known price.
    pub unpriced: u64,
    pub paid: Usd,
    pub saved: Usd,
}

impl Sums {
    pub fn add(&mut self, ended: &Ended<'_>) {
        match ended.succeeded {
            true => self.succeeded += 1,
            false => self.failed += 1,
        }
        let amount = |text: &Option<Cow<'_, str>>| text.as_deref()?.parse::<Usd>().ok();
        match (amount(&ended.paid), amount(&ended.saved)) {
            (Some(paid), Some(saved)) => {
                self.paid += paid;
                self.saved += saved;
            }
            _ if ended.succeeded => self.unpriced += 1,
            _ => {}
        }
    }

    pub fn ended(&self) -> u64 {
        self.succeeded + self.failed
    }
}

#[derive(Debug, Error)]
pub enum BadJournal {
    #[error("{}: {error}", .path.display())]
    Io { path: PathBuf, error: io::Error },
    #[error("{} is in use: another `offpeak submit` writes the same output", .0.display())]
    InUse(PathBuf),
    #[error(
        "{} is not the file that this run began with: {} has the run of another. Bring it back, \
         or name another --out for a run of its own",
        .input.display(),
        .journal.display()
    )]
    OtherInput { input: PathBuf, journal: PathBuf },
}

pub struct Journal {
    file: File,
    path: PathBuf,
    end: u64,
    unsynced: u32,
}

/// A power cut may lose so many records, which are asked for again.
const UNSYNCED: u32 = 500;
/// Read at once, where a record is looked up.
const PIECE: usize = 8 << 10;

impl Journal {
    /// Opens it for this process alone, and makes it where it is not there.
    pub fn open(path: &Path) -> Result<Journal, BadJournal> {
        let failed = |error| BadJournal::Io {
            path: path.to_owned(),
            error,
        };
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false);
        let file = options.open(path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(BadJournal::InUse(path.to_owned())),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        Ok(Journal {
            file,
            path: path.to_owned(),
            end: 0,
            unsynced: 0,
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The header, and then all other records in their order, each with its place.
    /// None where nothing was begun.
    pub fn replay(
        &mut self,
        mut header: impl FnMut(&Header) -> Result<(), BadJournal>,
        mut each: impl FnMut(u64, Record<'_>) -> io::Result<()>,
    ) -> Result<Option<Header>, BadJournal> {
        let path = self.path.clone();
        let failed = |error| BadJournal::Io {
            path: path.clone(),
            error,
        };
        self.file.seek(SeekFrom::Start(0)).map_err(failed)?;
        let mut reader = BufReader::with_capacity(1 << 16, &self.file);
        let (mut text, mut place, mut begun) = (Vec::new(), 0, None);
        loop {
            text.clear();
            let length = reader.read_until(b'\n', &mut text).map_err(failed)?;
            let whole = text.last() == Some(&b'\n');
            let record = whole.then(|| serde_json::from_slice::<Record<'_>>(&text).ok());
            match record.flatten() {
                Some(Record::Begun(read)) if place == 0 => {
                    header(&read)?;
                    begun = Some(read);
                }
                Some(record) if begun.is_some() => each(place, record).map_err(failed)?,
                // The end, or where it was cut off.
                _ => break,
            }
            place += length as u64;
        }
        self.file.set_len(place).map_err(failed)?;
        self.file.seek(SeekFrom::End(0)).map_err(failed)?;
        self.end = place;
        Ok(begun)
    }

    /// The record's place. It outlives this process, and a power cut after the next
    /// [`Journal::sync`].
    pub fn append(&mut self, record: &Record<'_>) -> io::Result<u64> {
        let mut line = serde_json::to_vec(record)?;
        line.push(b'\n');
        let place = self.end;
        self.file.write_all(&line)?;
        self.end += line.len() as u64;
        self.unsynced += 1;
        if self.unsynced >= UNSYNCED {
            self.sync()?;
        }
        Ok(place)
    }

    pub fn sync(&mut self) -> io::Result<()> {
        self.unsynced = 0;
        self.file.sync_data()
    }

    /// The bytes of the record at `place`.
    pub fn read(&self, place: u64) -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        loop {
            let known = text.len();
            text.resize(known + PIECE, 0);
            let read = (self.file).read_at(&mut text[known..], place + known as u64)?;
            text.truncate(known + read);
            let end = text[known..].iter().position(|byte| *byte == b'\n');
            if let Some(end) = end {
                text.truncate(known + end);
                return Ok(text);
            }
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Leaves the header and the sums: the output has all else.
    pub fn finish(&self, header: &Header, sums: Sums) -> io::Result<()> {
        let directory = directory(&self.path);
        let mut short = tempfile::NamedTempFile::new_in(&directory)?;
        for record in [Record::Begun(header.clone()), Record::Done(sums)] {
            serde_json::to_writer(&mut short, &record)?;
            short.write_all(b"\n")?;
        }
        short.as_file().sync_all()?;
        short.persist(&self.path)?;
        File::open(directory)?.sync_all()
    }
}

impl Header {
    /// # Errors
    /// Where the journal is another file's.
    pub fn check_input(&self, input: &Input, journal: &Path) -> Result<(), BadJournal> {
        match self.digest == input.digest && self.lines == input.lines {
            true => Ok(()),
            false => Err(BadJournal::OtherInput {
                input: input.path.clone(),
                journal: journal.to_owned(),
            }),
        }
    }

    pub fn idempotency_key(&self, line: u64) -> String {
        format!("offpeak-submit-{}-{line}", self.run)
    }
}

/// The directory that a file stands in.
pub fn directory(file: &Path) -> PathBuf {
    match file.parent() {
        Some(parent) if parent.as_os_str().is_empty() => ".".into(),
        Some(parent) => parent.to_owned(),
        None => ".".into(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn header() -> Header {
        Header {
            run: "r".into(),
            digest: "d".into(),
            lines: 3,
            asked: "6h".into(),
            deadline: "2026-11-28T12:00:00.000Z".into(),
            cursor: "ZgAA".into(),
            options: Options::default(),
        }
    }

    fn answer(line: u64) -> Record<'static> {
        Record::Ended(Ended {
            line,
            id: Some(RequestId::from_bytes([7; 16])),
            succeeded: true,
            status: 200,
            request_id: Some("req_1".into()),
            body: Cow::Owned(RawValue::from_string(r#"{"n":1.50,"t":"é"}"#.into()).unwrap()),
            error: None,
            paid: Some("0.1".into()),
            saved: Some("0.2".into()),
        })
    }

    /// The header, and the places and lines of the answers.
    fn replayed(path: &Path) -> (Option<Header>, Vec<(u64, u64)>) {
        let mut journal = Journal::open(path).unwrap();
        let mut found = Vec::new();
        let header = journal.replay(
            |_| Ok(()),
            |place, record| {
                if let Record::Ended(ended) = record {
                    found.push((place, ended.line));
                }
                Ok(())
            },
        );
        (header.unwrap(), found)
    }

    #[test]
    fn wherever_it_is_cut_off_the_whole_records_before_are_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let mut journal = Journal::open(&path).unwrap();
        assert_eq!(journal.replay(|_| Ok(()), |_, _| Ok(())).unwrap(), None);
        journal.append(&Record::Begun(header())).unwrap();
        let places: Vec<u64> = (0..3)
            .map(|line| journal.append(&answer(line)).unwrap())
            .collect();
        let expected = serde_json::to_vec(&answer(1)).unwrap();
        assert_eq!(journal.read(places[1]).unwrap(), expected);
        drop(journal);
        let whole = fs::read(&path).unwrap();
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            let (begun, found) = replayed(&path);
            let ends = places.iter().skip(1).copied().chain([whole.len() as u64]);
            let kept = ends.filter(|end| *end <= length as u64).count();
            assert_eq!(begun.is_some(), length as u64 >= places[0], "{length}");
            let lines: Vec<u64> = (0..kept as u64).collect();
            let read: Vec<u64> = found.iter().map(|(_, line)| *line).collect();
            assert_eq!(read, lines, "{length}");
            // What is appended then stands behind them.
            if begun.is_some() {
                let mut journal = Journal::open(&path).unwrap();
                journal.replay(|_| Ok(()), |_, _| Ok(())).unwrap();
                journal.append(&answer(9)).unwrap();
                drop(journal);
                assert_eq!(replayed(&path).1.last().unwrap().1, 9, "{length}");
            }
        }
    }

    #[test]
    fn one_process_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let first = Journal::open(&path).unwrap();
        assert!(matches!(Journal::open(&path), Err(BadJournal::InUse(_))));
        drop(first);
        assert!(Journal::open(&path).is_ok());
    }

    #[test]
    fn a_finished_run_keeps_its_sums() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let mut journal = Journal::open(&path).unwrap();
        journal.replay(|_| Ok(()), |_, _| Ok(())).unwrap();
        journal.append(&Record::Begun(header())).unwrap();
        let mut sums = Sums::default();
        for line in 0..3 {
            let record = answer(line);
            journal.append(&record).unwrap();
            if let Record::Ended(ended) = record {
                sums.add(&ended);
            }
        }
        assert_eq!((sums.succeeded, sums.paid.to_string()), (3, "0.30".into()));
        journal.finish(&header(), sums).unwrap();
        drop(journal);
        let mut journal = Journal::open(&path).unwrap();
        let mut done = None;
        let read = |_, record: Record<'_>| {
            if let Record::Done(sums) = record {
                done = Some(sums);
            }
            Ok(())
        };
        assert_eq!(journal.replay(|_| Ok(()), read).unwrap(), Some(header()));
        assert_eq!(done, Some(sums));
    }
}
