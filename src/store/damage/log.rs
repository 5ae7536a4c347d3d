//! sled's log, read without sled: every message that is as it was written, also
//! behind one that is not. Nothing is changed.
//!
//! A log is segments of one size. A segment begins with a header (CRC-32, its
//! position in the log's order, how far the log was safe then) and holds messages:
//! CRC-32, kind, length, segment number, page, body. From sled 0.34.7:
//! `pagecache/{logger,iterator,snapshot}.rs`, `serialization.rs`.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use super::super::sled::{SEGMENT, segment_bytes};

const SEGMENT_HEADER: usize = 20;
/// sled writes no message that begins nearer to a segment's end.
const LONGEST_HEADER: usize = 32;
/// A complement, as sled stores it.
const FLIPPED: u64 = 0x7fff_ffff_ffff_ffff;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The rest of the segment is padding.
    Cap,
    /// The page is gone.
    Free,
    /// The whole page.
    Node,
    /// One change of the page.
    Link,
    /// What follows, up to the `lsn` in its body, counts together or not at all.
    Batch,
    /// Nothing that pairs are made of.
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its place in the log's order, and where the next one begins.
    pub lsn: u64,
    pub end: u64,
    pub kind: Kind,
    pub page: u64,
    /// Where its body stands in the file, and how long it is.
    pub at: u64,
    pub length: usize,
    /// The body is in a file of its own.
    pub blob: bool,
}

/// Bytes that are no message although messages follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Gap {
    /// In the file.
    pub offset: u64,
    pub bytes: u64,
}

#[derive(Default)]
pub struct Segment {
    pub messages: Vec<Message>,
    pub gaps: Vec<Gap>,
}

pub struct Log {
    file: File,
    blobs: PathBuf,
    segment: usize,
    pub length: u64,
}

impl Log {
    pub fn open(dir: &Path) -> io::Result<Log> {
        let file = File::open(dir.join("db"))?;
        Ok(Log {
            length: file.metadata()?.len(),
            file,
            blobs: dir.join("blobs"),
            segment: segment(dir),
        })
    }

    pub fn segments(&self) -> u64 {
        self.length.div_ceil(self.segment as u64)
    }

    /// The number of the segment that holds this place in the log's order.
    pub fn number(&self, lsn: u64) -> u64 {
        lsn / self.segment as u64
    }

    /// Number and safe `lsn` of a segment, by its place in the file.
    pub fn header(&self, place: u64) -> io::Result<Option<(u64, u64)>> {
        let mut header = [0; SEGMENT_HEADER];
        match self
            .file
            .read_exact_at(&mut header, place * self.segment as u64)
        {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            read => read.map(|()| self.decode_header(&header)),
        }
    }

    fn decode_header(&self, header: &[u8; SEGMENT_HEADER]) -> Option<(u64, u64)> {
        let number = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&header[at..at + 8]);
            u64::from_le_bytes(bytes) ^ FLIPPED
        };
        let sum = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) ^ u32::MAX;
        let (lsn, safe) = (number(4), number(12));
        let sound = sum == crc32fast::hash(&header[4..]) && lsn.is_multiple_of(self.segment as u64);
        sound.then_some((lsn / self.segment as u64, safe))
    }

    /// All messages of a segment, by its place in the file.
    pub fn segment(&self, place: u64) -> io::Result<Segment> {
        let base = place * self.segment as u64;
        let length = (self.length - base).min(self.segment as u64) as usize;
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, base)?;
        let header = bytes
            .first_chunk()
            .and_then(|head| self.decode_header(head));
        let mut found = Segment::default();
        let mut number = header.map(|(number, _)| number);
        let (mut at, mut lost) = (SEGMENT_HEADER, None);
        if number.is_none() && bytes.iter().any(|byte| *byte != 0) {
            lost = Some(0);
        }
        while at + LONGEST_HEADER <= self.segment && at < bytes.len() {
            let read = message(&bytes, at);
            let Some((head, of)) = read.filter(|(_, of)| number.is_none_or(|n| n == *of)) else {
                lost = lost.or(Some(at));
                at += 1;
                continue;
            };
            number = Some(of);
            if let Some(from) = lost.take() {
                found.gaps.push(Gap {
                    offset: base + from as u64,
                    bytes: (at - from) as u64,
                });
            }
            if head.kind == Kind::Cap {
                break;
            }
            let next = head.at as usize + head.length;
            let first = of * self.segment as u64;
            found.messages.push(Message {
                lsn: first + at as u64,
                end: first + next as u64,
                at: base + head.at,
                ..head
            });
            at = next;
        }
        Ok(found)
    }

    /// A message's own bytes; none where its file is gone or spoiled.
    pub fn body(&self, message: &Message) -> io::Result<Option<Vec<u8>>> {
        let mut body = vec![0; message.length];
        self.file.read_exact_at(&mut body, message.at)?;
        if !message.blob {
            return Ok(Some(body));
        }
        let Some(id) = body.first_chunk().map(|id| i64::from_le_bytes(*id)) else {
            return Ok(None);
        };
        let blob = match std::fs::read(self.blobs.join(id.to_string())) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read?,
        };
        let Some((sum, rest)) = blob.split_first_chunk::<4>() else {
            return Ok(None);
        };
        let sound = u32::from_le_bytes(*sum) == crc32fast::hash(rest);
        Ok(rest.get(1..).filter(|_| sound).map(<[u8]>::to_vec))
    }
}

/// The file that tells it may be what is damaged: sled takes powers of two only, and
/// ours are of one size.
fn segment(dir: &Path) -> usize {
    match segment_bytes(dir) {
        noted if noted.is_power_of_two() && noted >= 256 => noted,
        _ => SEGMENT,
    }
}

/// The message at `at` of a segment, and the number of the segment that it was
/// written for. Its own `at` is within the segment.
fn message(segment: &[u8], at: usize) -> Option<(Message, u64)> {
    let mut rest = segment.get(at + 4..)?;
    let (kind, blob) = match take(&mut rest, 1)?[0] {
        2 => (Kind::Cap, false),
        4 => (Kind::Free, false),
        3 => (Kind::Batch, false),
        1 | 5 | 6 => (Kind::Other, false),
        7 => (Kind::Other, true),
        8 => (Kind::Node, false),
        9 => (Kind::Node, true),
        10 => (Kind::Link, false),
        11 => (Kind::Link, true),
        _ => return None,
    };
    let length = usize::try_from(varint(&mut rest)?).ok()?;
    let number = varint(&mut rest)?;
    let page = varint(&mut rest)?;
    let body = rest.get(..length)?;
    let begin = segment.len() - rest.len();
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(body);
    hasher.update(&segment[at + 4..begin]);
    let sum = u32::from_le_bytes(*segment[at..].first_chunk()?) ^ u32::MAX;
    (hasher.finalize() == sum).then_some((
        Message {
            lsn: 0,
            end: 0,
            kind,
            page,
            at: begin as u64,
            length,
            blob,
        },
        number,
    ))
}

pub fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

/// sled's numbers of one to nine bytes.
pub fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let first = u64::from(take(bytes, 1)?[0]);
    let wide = |bytes: &mut &[u8], width: usize| {
        let mut number = [0; 8];
        number[..width].copy_from_slice(take(bytes, width)?);
        Some(u64::from_le_bytes(number))
    };
    match first {
        0..=240 => Some(first),
        241..=248 => Some(240 + 256 * (first - 241) + u64::from(take(bytes, 1)?[0])),
        249 => take(bytes, 2).map(|two| 2288 + 256 * u64::from(two[0]) + u64::from(two[1])),
        _ => wide(bytes, first as usize - 247),
    }
}

pub fn text<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(varint(bytes)?).ok()?;
    take(bytes, length)
}
