//! A run as it stands: the journal, and what was read of it.

use std::{borrow::Cow, io, path::Path};

use serde_json::value::RawValue;

use super::{
    index::{Index, Standing},
    input::Input,
    journal::{BadJournal, Ended, Header, Journal, Record, Sums, directory},
};
use crate::model::id::RequestId;

pub struct Run {
    pub header: Header,
    pub journal: Journal,
    pub index: Index,
    /// The deadline of what is sent from now on.
    pub deadline: String,
    /// Where the feed goes on.
    pub cursor: Option<String>,
    /// Lines that the server has, or had and answered, or refused.
    pub sent: u64,
    pub sums: Sums,
    /// The output is complete.
    pub done: bool,
}

impl Run {
    /// The run that the journal holds; none where nothing was begun.
    ///
    /// # Errors
    /// A journal that cannot be read, or is of another input.
    pub fn resume(journal: &mut Journal, input: &Input) -> Result<Option<Read>, BadJournal> {
        let path = journal.path().to_owned();
        let failed = |error| BadJournal::Io {
            path: path.clone(),
            error,
        };
        let index = Index::new(input.lines, &directory(&path)).map_err(failed)?;
        let mut read = Read {
            index,
            deadline: None,
            cursor: None,
            sent: 0,
            sums: Sums::default(),
            done: false,
            header: None,
        };
        read.header = journal.replay(
            |header| header.check_input(input, &path),
            |place, record| read.record(place, record, input.lines),
        )?;
        Ok(read.header.is_some().then_some(read))
    }

    /// Writes the header down, and that before anything is sent.
    pub fn begin(mut journal: Journal, header: Header) -> io::Result<Run> {
        let index = Index::new(header.lines, &directory(journal.path()))?;
        journal.append(&Record::Begun(header.clone()))?;
        journal.sync()?;
        Ok(Run {
            deadline: header.deadline.clone(),
            cursor: Some(header.cursor.clone()),
            header,
            journal,
            index,
            sent: 0,
            sums: Sums::default(),
            done: false,
        })
    }

    /// Once the output is complete.
    pub fn finish(&mut self) -> io::Result<()> {
        self.journal.finish(&self.header, self.sums)?;
        self.done = true;
        Ok(())
    }

    pub fn lines(&self) -> u64 {
        self.header.lines
    }

    /// Lines that the server has and has not answered.
    pub fn open(&self) -> u64 {
        self.sent - self.sums.ended()
    }

    pub fn taken(&mut self, line: u64, id: RequestId) -> io::Result<()> {
        let place = self.journal.append(&Record::Taken { line, id })?;
        self.index.taken(line, id, place)?;
        self.sent += 1;
        Ok(())
    }

    /// A line that the server does not take.
    pub fn refused(&mut self, line: u64, status: u16, body: Box<RawValue>) -> io::Result<()> {
        self.sent += 1;
        self.end(&Ended {
            line,
            id: None,
            succeeded: false,
            status,
            request_id: None,
            body: Cow::Owned(body),
            error: None,
            paid: None,
            saved: None,
        })
    }

    /// An answer, once: the feed may tell it again after an interruption.
    pub fn end(&mut self, ended: &Ended<'_>) -> io::Result<()> {
        if let Standing::Ended(_) = self.index.standing(ended.line)? {
            return Ok(());
        }
        let record = Record::Ended(Ended {
            request_id: ended.request_id.as_deref().map(Cow::Borrowed),
            body: Cow::Borrowed(&ended.body),
            error: ended.error.as_deref().map(Cow::Borrowed),
            paid: ended.paid.as_deref().map(Cow::Borrowed),
            saved: ended.saved.as_deref().map(Cow::Borrowed),
            ..*ended
        });
        let place = self.journal.append(&record)?;
        self.index.ended(ended.line, place)?;
        self.sums.add(ended);
        Ok(())
    }

    /// Behind all answers that were written down.
    pub fn go_on_after(&mut self, cursor: &str) -> io::Result<()> {
        if self.cursor.as_deref() != Some(cursor) {
            self.journal.append(&Record::Cursor(cursor.into()))?;
            self.cursor = Some(cursor.to_owned());
        }
        Ok(())
    }

    pub fn move_deadline(&mut self, deadline: String) -> io::Result<()> {
        self.journal
            .append(&Record::Deadline((&*deadline).into()))?;
        self.journal.sync()?;
        self.deadline = deadline;
        Ok(())
    }

    /// Lines that the server has and has not answered, from `from` on: at most `most`.
    pub fn open_lines(&self, from: u64, most: usize) -> io::Result<Vec<(u64, RequestId)>> {
        let mut open = Vec::new();
        for line in from..self.lines() {
            let Standing::Taken(place) = self.index.standing(line)? else {
                continue;
            };
            let text = self.journal.read(place)?;
            if let Record::Taken { line, id } = serde_json::from_slice(&text)? {
                open.push((line, id));
            }
            if open.len() == most {
                break;
            }
        }
        Ok(open)
    }

    /// Requests from all over the run, open and ended: at most `most`, one of each stretch
    /// of lines.
    pub fn sample(&self, most: u64) -> io::Result<Vec<RequestId>> {
        let stretch = self.lines().div_ceil(most).max(1);
        let mut sample = Vec::new();
        for start in (0..self.lines()).step_by(usize::try_from(stretch).unwrap_or(usize::MAX)) {
            for line in start..self.lines().min(start + stretch) {
                if let Some(id) = self.request_of(line)? {
                    sample.push(id);
                    break;
                }
            }
        }
        Ok(sample)
    }

    fn request_of(&self, line: u64) -> io::Result<Option<RequestId>> {
        let (Standing::Taken(place) | Standing::Ended(place)) = self.index.standing(line)? else {
            return Ok(None);
        };
        Ok(match serde_json::from_slice(&self.journal.read(place)?)? {
            Record::Taken { id, .. } => Some(id),
            Record::Ended(ended) => ended.id,
            _ => None,
        })
    }
}

/// What a journal tells.
pub struct Read {
    index: Index,
    deadline: Option<String>,
    cursor: Option<String>,
    sent: u64,
    sums: Sums,
    done: bool,
    header: Option<Header>,
}

impl Read {
    pub fn into_run(self, journal: Journal) -> Option<Run> {
        let header = self.header?;
        Some(Run {
            deadline: self.deadline.unwrap_or_else(|| header.deadline.clone()),
            cursor: self.cursor.or_else(|| Some(header.cursor.clone())),
            header,
            journal,
            index: self.index,
            sent: self.sent,
            sums: self.sums,
            done: self.done,
        })
    }

    fn record(&mut self, place: u64, record: Record<'_>, lines: u64) -> io::Result<()> {
        let known = |line: u64| match line < lines {
            true => Ok(line),
            false => Err(io::Error::other("a line that the input does not have")),
        };
        match record {
            Record::Taken { line, id }
                if self.index.standing(known(line)?)? == Standing::Unsent =>
            {
                self.index.taken(line, id, place)?;
                self.sent += 1;
            }
            Record::Ended(ended)
                if !matches!(self.index.standing(known(ended.line)?)?, Standing::Ended(_)) =>
            {
                self.index.ended(ended.line, place)?;
                self.sent += u64::from(ended.id.is_none());
                self.sums.add(&ended);
            }
            Record::Cursor(cursor) => self.cursor = Some(cursor.into_owned()),
            Record::Deadline(deadline) => self.deadline = Some(deadline.into_owned()),
            Record::Done(sums) => {
                (self.sums, self.sent, self.done) = (sums, sums.ended(), true);
            }
            // Said twice, it counts once.
            Record::Begun(_) | Record::Taken { .. } | Record::Ended(_) => {}
        }
        Ok(())
    }
}

/// The journal beside an output file.
pub fn journal_of(out: &Path) -> std::path::PathBuf {
    let mut name = out.as_os_str().to_owned();
    name.push(".journal");
    name.into()
}
