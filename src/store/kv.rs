//! What the store needs of an ordered map of bytes.

use std::{collections::BTreeMap, io};

use bytes::Bytes;

use super::{codec::Kind, tally::Tally};
use crate::ports::StoreError;

/// Writes that become visible, and survive, together or not at all. `None`
/// removes a key.
pub type Batch = BTreeMap<Vec<u8>, Option<Bytes>>;

/// Key and value, in key order.
pub type Pair = (Bytes, Bytes);

/// An ordered map of bytes. Calls may block.
pub trait Kv: Send + Sync + 'static {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// At most `limit` pairs of `span`, from its front or from its back.
    fn scan(&self, span: &Span, from: End, limit: usize) -> Result<Vec<Pair>, StoreError>;

    /// Visible to every reader when it returns; durable after the next
    /// [`Kv::sync`] that begins later.
    ///
    /// # Errors
    /// When nothing of it was written, unless [`Kv::is_torn`] from then on.
    fn apply(&self, batch: Batch) -> Result<(), StoreError>;

    /// Whether a batch broke off within, so that readers may see a part of it.
    fn is_torn(&self) -> bool {
        false
    }

    /// # Errors
    /// When nobody can say what is on the disk of all that was applied since the last.
    fn sync(&self) -> Result<(), StoreError>;

    /// How many records of the kind there are, which is one of
    /// [`COUNTED`](super::counts::COUNTED).
    fn how_many(&self, kind: Kind) -> usize;

    /// What the last commit left, where that is counted.
    fn tally(&self) -> Option<Tally> {
        None
    }

    /// Bytes it takes on disk.
    fn disk_bytes(&self) -> Result<u64, StoreError>;

    /// Bytes that the disk still has.
    fn free_bytes(&self) -> Result<u64, StoreError>;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Front,
    Back,
}

/// The keys from `from`, up to and without `to`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    pub from: Vec<u8>,
    pub to: Vec<u8>,
}

impl Span {
    /// Every key that begins with `prefix`. The first byte of a key is a
    /// record's tag, which is ASCII, so there is always a key behind them.
    pub fn prefix(prefix: &[u8]) -> Span {
        let mut to = prefix.to_vec();
        while to.last() == Some(&u8::MAX) {
            to.pop();
        }
        if let Some(last) = to.last_mut() {
            *last += 1;
        }
        Span {
            from: prefix.to_vec(),
            to,
        }
    }

    /// Without `key` and all before it.
    pub fn after(mut self, key: &[u8]) -> Span {
        let mut from = key.to_vec();
        from.push(0);
        self.from = self.from.max(from);
        self
    }

    /// Without `key` and all behind it.
    pub fn before(mut self, key: &[u8]) -> Span {
        self.to = self.to.min(key.to_vec());
        self
    }

    pub fn is_empty(&self) -> bool {
        self.from >= self.to
    }
}

/// The same error for another caller.
pub fn again(error: &StoreError) -> StoreError {
    match error {
        StoreError::Full => StoreError::Full,
        StoreError::Io(error) => StoreError::Io(io::Error::new(error.kind(), error.to_string())),
        StoreError::Corrupt(what) => StoreError::Corrupt(what.clone()),
        StoreError::Closed => StoreError::Closed,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_prefix_spans_what_begins_with_it(
            prefix in prop::collection::vec(any::<u8>(), 0..4),
            key in prop::collection::vec(any::<u8>(), 0..6),
        ) {
            let prefix: Vec<u8> = std::iter::once(b'R').chain(prefix).collect();
            let key: Vec<u8> = std::iter::once(b'R').chain(key).collect();
            let span = Span::prefix(&prefix);
            prop_assert_eq!(span.from <= key && key < span.to, key.starts_with(&prefix));
        }
    }
}
