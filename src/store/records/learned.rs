//! `E | owner | digest of model and lane`: what was learned of a
//! scope. Value: the [`LearnedKey`], then the engine's own bytes.
//!
//! Written over now and then; forgotten when it has faded.

use bytes::Bytes;

use super::super::{
    codec::{Key, Kind, seal_with, unseal_with},
    kv::Span,
};
use crate::ports::{Learned, LearnedKey, StoreError};

pub const KIND: Kind = Kind {
    tag: b'E',
    name: "learned",
};

pub fn key(key: &LearnedKey) -> Vec<u8> {
    let mut digest = blake3::Hasher::new();
    digest.update(&(key.model.len() as u64).to_be_bytes());
    digest.update(key.model.as_bytes());
    digest.update(key.what.as_bytes());
    Key::of(KIND)
        .raw(&key.owner.0)
        .raw(&digest.finalize().as_bytes()[..16])
        .done()
}

pub fn all() -> Span {
    Span::prefix(&[KIND.tag])
}

pub fn encode(learned: &Learned) -> Bytes {
    seal_with(&learned.key, &learned.known)
}

pub fn decode(key: &[u8], value: &Bytes) -> Result<Learned, StoreError> {
    unseal_with(KIND, key, value).map(|(key, known)| Learned { key, known })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::id::CredentialId;

    fn learned_key() -> impl Strategy<Value = LearnedKey> {
        let words = prop::sample::select(vec!["", "a", "ab", "b"]);
        (any::<bool>(), words.clone(), words).prop_map(|(owner, model, what)| LearnedKey {
            owner: CredentialId([owner.into(); 16]),
            model: model.into(),
            what: what.into(),
        })
    }

    proptest! {
        #[test]
        fn round_trip(one in learned_key(), other in learned_key(), table: Vec<u8>) {
            let name = key(&one);
            prop_assert!(all().from < name && name < all().to);
            prop_assert_eq!(name == key(&other), one == other);
            let learned = Learned { key: one, known: table.into() };
            prop_assert_eq!(decode(&name, &encode(&learned))?, learned);
        }
    }
}
