//! Where in the journal a line stands, and which line a request answers: two files
//! without a name, so that ten million lines take no memory but the page cache's. They
//! are made anew from the journal at each start.

use std::{fs::File, io, os::unix::fs::FileExt as _, path::Path};

use crate::model::id::RequestId;

/// What is known of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing: to be sent.
    Unsent,
    /// The server has it; its record stands at this byte of the journal.
    Taken(u64),
    /// So does its answer.
    Ended(u64),
}

pub struct Index {
    /// Eight bytes a line.
    places: File,
    /// A hash table with open addressing, never more than half full.
    slots: File,
    mask: u64,
}

const PLACE: u64 = 8;
const SLOT: u64 = 24;
const ENDED: u64 = 1 << 63;

impl Index {
    /// # Errors
    /// Of the disk that holds `dir`.
    pub fn new(lines: u64, dir: &Path) -> io::Result<Index> {
        let (places, slots) = (tempfile::tempfile_in(dir)?, tempfile::tempfile_in(dir)?);
        let count = (2 * lines).next_power_of_two();
        places.set_len(lines * PLACE)?;
        slots.set_len(count * SLOT)?;
        Ok(Index {
            places,
            slots,
            mask: count - 1,
        })
    }

    pub fn standing(&self, line: u64) -> io::Result<Standing> {
        let mut bytes = [0; PLACE as usize];
        self.places.read_exact_at(&mut bytes, line * PLACE)?;
        Ok(match u64::from_le_bytes(bytes) {
            // The journal begins with its header.
            0 => Standing::Unsent,
            place if place & ENDED != 0 => Standing::Ended(place & !ENDED),
            place => Standing::Taken(place),
        })
    }

    pub fn taken(&mut self, line: u64, id: RequestId, place: u64) -> io::Result<()> {
        self.put(line, place)?;
        let (slot, _) = self.find(id)?;
        let mut bytes = [0; SLOT as usize];
        bytes[..16].copy_from_slice(id.as_bytes());
        bytes[16..].copy_from_slice(&line.to_le_bytes());
        self.slots.write_all_at(&bytes, slot * SLOT)
    }

    pub fn ended(&mut self, line: u64, place: u64) -> io::Result<()> {
        self.put(line, place | ENDED)
    }

    /// The line that the request answers; none where it is not of this run.
    pub fn line_of(&self, id: RequestId) -> io::Result<Option<u64>> {
        self.find(id).map(|(_, line)| line)
    }

    fn put(&mut self, line: u64, place: u64) -> io::Result<()> {
        self.places.write_all_at(&place.to_le_bytes(), line * PLACE)
    }

    /// The id's slot, or the free one where it would be.
    fn find(&self, id: RequestId) -> io::Result<(u64, Option<u64>)> {
        // An id ends in 80 random bits.
        let mut tail = [0; 8];
        tail.copy_from_slice(&id.as_bytes()[8..]);
        let mut slot = u64::from_le_bytes(tail) & self.mask;
        let mut bytes = [0; SLOT as usize];
        loop {
            self.slots.read_exact_at(&mut bytes, slot * SLOT)?;
            let (held, line) = bytes.split_at(16);
            if held == id.as_bytes() {
                let mut number = [0; 8];
                number.copy_from_slice(line);
                return Ok((slot, Some(u64::from_le_bytes(number))));
            }
            if held == [0; 16] {
                return Ok((slot, None));
            }
            slot = (slot + 1) & self.mask;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::time::Timestamp;

    #[test]
    fn lines_are_found_by_their_requests() {
        let dir = tempfile::tempdir().unwrap();
        let lines = 300;
        let mut index = Index::new(lines, dir.path()).unwrap();
        // Many begin at one slot.
        let id =
            |line: u64| RequestId::new(Timestamp::from_millis(line), u128::from(line % 7) << 64);
        for line in 0..lines {
            assert_eq!(index.line_of(id(line)).unwrap(), None);
            assert_eq!(index.standing(line).unwrap(), Standing::Unsent);
            index.taken(line, id(line), 100 + line).unwrap();
        }
        for line in 0..lines {
            assert_eq!(index.line_of(id(line)).unwrap(), Some(line));
            assert_eq!(index.standing(line).unwrap(), Standing::Taken(100 + line));
            index.ended(line, 5000 + line).unwrap();
            assert_eq!(index.standing(line).unwrap(), Standing::Ended(5000 + line));
        }
        assert_eq!(index.line_of(id(lines)).unwrap(), None);
    }
}
