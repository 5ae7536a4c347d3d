//! Reading a backup, from bytes as they come.

use bytes::{Buf as _, BytesMut};
use thiserror::Error;

use super::{
    End, MAGIC, VERSION,
    frame::{self, HEAD, LONGEST, pair},
};
use crate::store::{
    migrate::{FORMAT, OLDEST},
    records,
};

const HASH: usize = 32;

/// Why a backup is refused.
#[derive(Debug, Error)]
pub enum BadBackup {
    #[error("this is no backup of Offpeak")]
    Other,
    #[error("it is a backup of version {0}, and this program reads version {VERSION}")]
    Version(u32),
    #[error("its records have format {0}, and this program reads formats {OLDEST} to {FORMAT}")]
    Format(u32),
    #[error("it ends before its end: it was cut off after {0} bytes")]
    Cut(u64),
    #[error("it is damaged: {0}")]
    Spoiled(&'static str),
}

/// Checks a backup as it goes by. What it hands on counts only once [`Check::end`]
/// says that it is whole.
#[derive(Default)]
pub struct Check {
    waiting: BytesMut,
    hasher: blake3::Hasher,
    begun: bool,
    bytes: u64,
    pairs: u64,
    commits: u64,
    end: Option<End>,
    whole: bool,
}

impl Check {
    /// Takes the next bytes, and hands on the pairs of the frames that they complete;
    /// a key without a value is removed.
    pub fn take<E: From<BadBackup>>(
        &mut self,
        bytes: &[u8],
        mut each: impl FnMut(&[u8], Option<&[u8]>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.bytes += bytes.len() as u64;
        self.waiting.extend_from_slice(bytes);
        while let Some((kind, body)) = self.next()? {
            self.frame(kind, &body, &mut each)?;
        }
        Ok(())
    }

    /// All bytes were taken.
    pub fn end(self) -> Result<End, BadBackup> {
        match self.end {
            _ if !self.begun && self.bytes > 0 && !self.waiting.starts_with(b"OFF") => {
                Err(BadBackup::Other)
            }
            Some(end) if self.whole => Ok(end),
            _ => Err(BadBackup::Cut(self.bytes)),
        }
    }

    fn next(&mut self) -> Result<Option<(u8, BytesMut)>, BadBackup> {
        if self.whole {
            return match self.waiting.is_empty() {
                true => Ok(None),
                false => Err(BadBackup::Spoiled("something stands behind its end")),
            };
        }
        if !self.begun && !self.begin()? {
            return Ok(None);
        }
        if self.end.is_some() {
            if self.waiting.len() >= HASH {
                let hash = self.waiting.split_to(HASH);
                if hash[..] != self.hasher.finalize().as_bytes()[..] {
                    return Err(BadBackup::Spoiled("its hash does not match"));
                }
                self.whole = true;
                return self.next();
            }
            return Ok(None);
        }
        let Some((&[kind, ref length @ ..], _)) = self.waiting.split_first_chunk::<HEAD>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*length);
        if length > LONGEST || !(frame::PAIRS..=frame::END).contains(&kind) {
            return Err(BadBackup::Spoiled("what should be a frame is none"));
        }
        let whole = HEAD + length as usize;
        if self.waiting.len() < whole {
            return Ok(None);
        }
        let mut frame = self.waiting.split_to(whole);
        self.hasher.update(&frame);
        frame.advance(HEAD);
        Ok(Some((kind, frame)))
    }

    fn begin(&mut self) -> Result<bool, BadBackup> {
        let head = MAGIC.len() + 8;
        if self.waiting.len() < head {
            return Ok(false);
        }
        let head = self.waiting.split_to(head);
        let (magic, numbers) = head.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err(BadBackup::Other);
        }
        let number = |at: usize| {
            let mut four = [0; 4];
            four.copy_from_slice(&numbers[at..at + 4]);
            u32::from_le_bytes(four)
        };
        let (version, format) = (number(0), number(4));
        if version != VERSION {
            return Err(BadBackup::Version(version));
        }
        if !(OLDEST..=FORMAT).contains(&format) {
            return Err(BadBackup::Format(format));
        }
        self.hasher.update(&head);
        self.begun = true;
        Ok(true)
    }

    fn frame<E: From<BadBackup>>(
        &mut self,
        kind: u8,
        mut body: &[u8],
        each: &mut impl FnMut(&[u8], Option<&[u8]>) -> Result<(), E>,
    ) -> Result<(), E> {
        if kind == frame::END {
            let end = postcard::from_bytes::<End>(body)
                .map_err(|_| BadBackup::Spoiled("its end cannot be read"))?;
            if (end.pairs, end.commits) != (self.pairs, self.commits) {
                Err(BadBackup::Spoiled("it holds more or less than it says"))?;
            }
            self.end = Some(end);
            return Ok(());
        }
        self.commits += u64::from(kind == frame::COMMIT);
        while !body.is_empty() {
            let read = pair(&mut body).filter(|(key, _)| records::kind(key).is_some());
            let (key, value) = read.ok_or(BadBackup::Spoiled("a record cannot be read"))?;
            self.pairs += u64::from(kind == frame::PAIRS);
            each(key, value)?;
        }
        Ok(())
    }
}
