//! Bytes of a file: in memory while small, in an unlinked temporary file beyond.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::unix::fs::FileExt,
    sync::Arc,
};

use bytes::Bytes;

const SPILL_AT: usize = 1 << 20;

#[derive(Debug)]
pub(super) enum Blob {
    Memory(Bytes),
    Disk { file: File, len: u64 },
}

impl Blob {
    pub fn len(&self) -> u64 {
        match self {
            Blob::Memory(bytes) => bytes.len() as u64,
            Blob::Disk { len, .. } => *len,
        }
    }

    /// Up to `len` bytes from `offset`; fewer only at the end.
    pub fn read(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let len = len.min(usize::try_from(self.len().saturating_sub(offset)).unwrap_or(len));
        match self {
            Blob::Memory(bytes) => {
                let start = usize::try_from(offset)
                    .unwrap_or(usize::MAX)
                    .min(bytes.len());
                Ok(bytes.slice(start..start + len))
            }
            Blob::Disk { file, .. } => {
                let mut buffer = vec![0; len];
                file.read_exact_at(&mut buffer, offset)?;
                Ok(buffer.into())
            }
        }
    }

    pub fn reader(self: &Arc<Self>) -> Reader {
        Reader {
            blob: self.clone(),
            offset: 0,
        }
    }
}

/// Gathers a blob piece by piece.
#[derive(Default)]
pub(super) struct Writer {
    memory: Vec<u8>,
    disk: Option<File>,
    len: u64,
}

impl Writer {
    pub fn len(&self) -> u64 {
        self.len
    }

    pub fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.len += bytes.len() as u64;
        self.memory.extend_from_slice(bytes);
        if self.memory.len() >= SPILL_AT {
            self.spill()?;
        }
        Ok(())
    }

    pub fn finish(mut self) -> io::Result<Blob> {
        if self.disk.is_some() {
            self.spill()?;
        }
        Ok(match self.disk {
            Some(file) => Blob::Disk {
                file,
                len: self.len,
            },
            None => Blob::Memory(self.memory.into()),
        })
    }

    fn spill(&mut self) -> io::Result<()> {
        let file = match &mut self.disk {
            Some(file) => file,
            None => self.disk.insert(tempfile::tempfile()?),
        };
        file.write_all(&self.memory)?;
        self.memory.clear();
        Ok(())
    }
}

pub(super) struct Reader {
    blob: Arc<Blob>,
    offset: u64,
}

impl Read for Reader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let bytes = self.blob.read(self.offset, into.len())?;
        into[..bytes.len()].copy_from_slice(&bytes);
        self.offset += bytes.len() as u64;
        Ok(bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_and_small_read_the_same() {
        for size in [0, 10, SPILL_AT, 3 * SPILL_AT + 17] {
            let bytes: Vec<u8> = (0..size).map(|index| (index % 251) as u8).collect();
            let mut writer = Writer::default();
            for piece in bytes.chunks(60_000) {
                writer.push(piece).unwrap();
            }
            let blob = Arc::new(writer.finish().unwrap());
            assert_eq!(blob.len(), size as u64);
            let mut back = Vec::new();
            blob.reader().read_to_end(&mut back).unwrap();
            assert_eq!(back, bytes);
            assert_eq!(blob.read(size as u64, 5).unwrap().len(), 0);
        }
    }
}
