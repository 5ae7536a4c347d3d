//! What the database should hold, in a few bytes: how many commits made it, how many
//! pairs it has, and a sum over all of them.
//!
//! Every commit writes the tally that is true behind it. sled takes a message of its
//! log that cannot be read for one that a crash cut off, and goes on without it; the
//! tally then says that something is missing, whatever it was.

use serde::{Deserialize, Serialize};

use super::codec;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Commits so far.
    pub commits: u64,
    /// All pairs but the tally's own.
    pub pairs: u64,
    /// The digests of all pairs, added up: the order does not matter, and a pair
    /// that goes is subtracted.
    sum: u128,
}

impl Tally {
    pub fn enter(&mut self, key: &[u8], value: &[u8]) {
        self.pairs = self.pairs.wrapping_add(1);
        self.sum = self.sum.wrapping_add(digest(key, value));
    }

    pub fn leave(&mut self, key: &[u8], value: &[u8]) {
        self.pairs = self.pairs.wrapping_sub(1);
        self.sum = self.sum.wrapping_sub(digest(key, value));
    }

    /// What another part of the database holds.
    pub fn add(&mut self, other: &Tally) {
        self.pairs = self.pairs.wrapping_add(other.pairs);
        self.sum = self.sum.wrapping_add(other.sum);
    }

    /// Whether both are of the same pairs.
    pub fn same_pairs(&self, other: &Tally) -> bool {
        (self.pairs, self.sum) == (other.pairs, other.sum)
    }
}

/// A value's bytes are vouched for by the checksum in its header, so the header
/// stands for them.
fn digest(key: &[u8], value: &[u8]) -> u128 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&value[..value.len().min(codec::HEADER)]);
    hasher.update(&(value.len() as u64).to_le_bytes());
    hasher.update(key);
    let mut first = [0; 16];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    u128::from_le_bytes(first)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of<'a>(pairs: impl IntoIterator<Item = &'a (Vec<u8>, Vec<u8>)>) -> Tally {
        let mut tally = Tally::default();
        for (key, value) in pairs {
            tally.enter(key, value);
        }
        tally
    }

    proptest! {
        #[test]
        fn order_does_not_matter_and_what_goes_is_gone(
            pairs: Vec<(Vec<u8>, Vec<u8>)>, gone: (Vec<u8>, Vec<u8>),
        ) {
            let mut tally = of([&gone].into_iter().chain(pairs.iter().rev()));
            prop_assert!(!tally.same_pairs(&of(&pairs)));
            tally.leave(&gone.0, &gone.1);
            prop_assert!(tally.same_pairs(&of(&pairs)));
        }

        #[test]
        fn another_key_or_header_is_seen(
            key: Vec<u8>, other: Vec<u8>, value: [u8; 5], changed: [u8; 5],
        ) {
            let tally = of(&[(key.clone(), value.to_vec())]);
            prop_assert_eq!(tally.same_pairs(&of(&[(other.clone(), value.to_vec())])), key == other);
            prop_assert_eq!(tally.same_pairs(&of(&[(key, changed.to_vec())])), value == changed);
        }
    }
}
