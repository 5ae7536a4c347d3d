//! What a run has done, one JSON object a line, only ever appended to: whatever ends
//! the process, the next one reads it and goes on.
//!
//! A last line that was cut off is dropped. What is lost with it is asked for again: an
//! acknowledgement by the line's `Idempotency-Key`, an answer by the feed's cursor, which
//! never stands before the answers that it is behind. Any other damage is told and left as
//! it is: what a line that cannot be read was about, could be bought twice.

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
    /// Of the journal's form: [`VERSION`].
    #[serde(default = "first_version")]
    pub version: u32,
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

/// Of what is written here.
pub const VERSION: u32 = 1;

/// Journals without one are of this.
fn first_version() -> u32 {
    1
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
    #[error(
        "{} stands where the journal of a run belongs, and is none. It is left as it is: name \
         another --out, or move it away",
        .0.display()
    )]
    NoJournal(PathBuf),
    #[error(
        "{} is of another version of offpeak (its form is {found}, {VERSION} is known here): go on with that one",
        .path.display()
    )]
    OtherVersion { path: PathBuf, found: u32 },
    #[error(
        "{}, line {line}, cannot be read; the file is left as it is. Bring back an undamaged \
         copy. Without one: keep this, and go on with its first {} lines (head -n). What was \
         sent after them is then sent again with the same Idempotency-Key, which the server \
         knows until 24 hours after the answer",
        .path.display(), line - 1
    )]
    Damaged {
        path: PathBuf,
        /// From 1.
        line: u64,
    },
}

/// How a journal's first line begins.
const BEGINNING: &[u8] = br#"{"begun":{"#;

/// Of a first line whose other fields may be unknown here.
#[derive(Deserialize)]
struct Versioned {
    begun: Version,
}

#[derive(Deserialize)]
struct Version {
    #[serde(default = "first_version")]
    version: u32,
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
    ///
    /// # Errors
    /// What is no journal, or has a line that cannot be read. The file is then as it was.
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
        for line in 1.. {
            text.clear();
            let length = reader.read_until(b'\n', &mut text).map_err(failed)?;
            if line == 1 && !is_beginning(&text) {
                return Err(BadJournal::NoJournal(path));
            }
            // The end, or where it was cut off.
            if text.last() != Some(&b'\n') {
                break;
            }
            if line == 1 {
                let read = first(&text, &path)?;
                header(&read)?;
                begun = Some(read);
            } else {
                let record = serde_json::from_slice::<Record<'_>>(&text);
                let path = path.clone();
                let record = record.map_err(|_| BadJournal::Damaged { path, line })?;
                each(place, record).map_err(failed)?;
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

/// Also where it was cut off.
fn is_beginning(text: &[u8]) -> bool {
    let length = text.len().min(BEGINNING.len());
    text[..length] == BEGINNING[..length]
}

fn first(text: &[u8], path: &Path) -> Result<Header, BadJournal> {
    let path = || path.to_owned();
    match serde_json::from_slice::<Versioned>(text) {
        Ok(read) if read.begun.version != VERSION => {
            let (path, found) = (path(), read.begun.version);
            return Err(BadJournal::OtherVersion { path, found });
        }
        Ok(_) => {}
        Err(_) => return Err(BadJournal::NoJournal(path())),
    }
    match serde_json::from_slice::<Record<'_>>(text) {
        Ok(Record::Begun(header)) => Ok(header),
        _ => Err(BadJournal::NoJournal(path())),
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
            version: VERSION,
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

    fn refused(path: &Path) -> BadJournal {
        let mut journal = Journal::open(path).unwrap();
        journal.replay(|_| Ok(()), |_, _| Ok(())).unwrap_err()
    }

    #[test]
    fn what_cannot_be_read_is_told_and_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let line = |record: &Record<'_>| serde_json::to_string(record).unwrap() + "\n";
        let begun = line(&Record::Begun(header()));
        let answers: String = (0..3).map(|number| line(&answer(number))).collect();
        let whole = begun.clone() + &answers;
        let middle = whole.replacen(r#""line":1"#, "\0\0\0\0\0\0\0\0", 1);
        let last = whole.replacen(r#""line":2"#, "nonsense", 1);
        let newer = begun.replacen(r#""version":1"#, r#""version":2,"more":[]"#, 1);
        for (text, expected) in [
            (middle, "line 3, cannot be read"),
            (last, "its first 3 lines"),
            (whole.replacen(r#""run":"#, r#""nur":"#, 1), "is none"),
            (answers, "is none"),
            ("somebody's\n".into(), "is none"),
            ("somebody's".into(), "is none"),
            (newer, "its form is 2"),
        ] {
            fs::write(&path, &text).unwrap();
            let error = refused(&path).to_string();
            assert!(error.contains(expected), "{text}: {error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        // Of before there was a version.
        fs::write(&path, whole.replacen(r#""version":1,"#, "", 1)).unwrap();
        assert_eq!(replayed(&path).0, Some(header()));
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
