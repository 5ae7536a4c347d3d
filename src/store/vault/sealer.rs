//! Values sealed with one root.
//!
//! A sealed value is
//!
//! ```text
//! version (1) | key id (4) | salt (24) | ChaCha20-Poly1305 ciphertext and tag (n + 16)
//! ```
//!
//! Each value has its own key, derived from the root and the salt, and uses the cipher's
//! nonce once: a random 96-bit nonce under one key would be good for about 2³² values.
//! The salt is a keyed hash of fresh randomness, the `aad` and the clear bytes, so that
//! even a machine without randomness never uses one key for two values. The 29 bytes in
//! front are authenticated together with the caller's `aad`.

use ring::{
    aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey},
    rand::{SecureRandom, SystemRandom},
};

use super::framed;

const VERSION: u8 = 1;
pub const KEY_ID: usize = 4;
const SALT: usize = 24;
pub const HEADER: usize = 1 + KEY_ID + SALT;
pub const TAG: usize = 16;

pub struct Sealer {
    key_id: [u8; KEY_ID],
    sealing: [u8; 32],
    salting: [u8; 32],
    random: SystemRandom,
}

impl Sealer {
    pub fn new(root: &[u8; 32]) -> Sealer {
        let derive = |purpose| blake3::derive_key(purpose, root);
        let [a, b, c, d, ..] = derive("offpeak 2026 vault key id");
        Sealer {
            key_id: [a, b, c, d],
            sealing: derive("offpeak 2026 vault sealing"),
            salting: derive("offpeak 2026 vault salts"),
            random: SystemRandom::new(),
        }
    }

    pub fn seal(&self, aad: &[u8], clear: &[u8]) -> Vec<u8> {
        let salt = self.salt(aad, clear);
        let mut sealed = Vec::with_capacity(HEADER + clear.len() + TAG);
        sealed.push(VERSION);
        sealed.extend_from_slice(&self.key_id);
        sealed.extend_from_slice(&salt);
        let bound = [&sealed[..], aad].concat();
        let mut text = clear.to_vec();
        let tag = self
            .value_key(&salt)
            .seal_in_place_separate_tag(once(), Aad::from(bound), &mut text)
            .expect("a value in memory is far below the cipher's 256 GB");
        sealed.extend_from_slice(&text);
        sealed.extend_from_slice(tag.as_ref());
        sealed
    }

    pub fn open(&self, aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>, Unopened> {
        let (header, ciphertext) = sealed
            .split_at_checked(HEADER)
            .filter(|(_, ciphertext)| ciphertext.len() >= TAG)
            .ok_or(Unopened::Truncated)?;
        if header[0] != VERSION {
            return Err(Unopened::Version(header[0]));
        }
        let (key_id, salt) = header[1..].split_at(KEY_ID);
        if key_id != self.key_id {
            return Err(Unopened::OtherKey);
        }
        let bound = [header, aad].concat();
        let mut text = ciphertext.to_vec();
        let length = self
            .value_key(salt)
            .open_in_place(once(), Aad::from(bound), &mut text)
            .map_err(|_| Unopened::Forged)?
            .len();
        text.truncate(length);
        Ok(text)
    }

    fn salt(&self, aad: &[u8], clear: &[u8]) -> [u8; SALT] {
        let mut fresh = [0; 32];
        // Without it equal values of one record seal alike, and nothing worse.
        let _ = self.random.fill(&mut fresh);
        let mut hasher = blake3::Hasher::new_keyed(&self.salting);
        hasher.update(&fresh);
        framed(&mut hasher, aad);
        hasher.update(clear);
        let mut salt = [0; SALT];
        hasher.finalize_xof().fill(&mut salt);
        salt
    }

    fn value_key(&self, salt: &[u8]) -> LessSafeKey {
        let key = blake3::keyed_hash(&self.sealing, salt);
        let key = UnboundKey::new(&CHACHA20_POLY1305, key.as_bytes())
            .expect("the cipher's key is as long as the hash");
        LessSafeKey::new(key)
    }
}

/// Why a sealed value does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unopened {
    #[error("the sealed value is cut short")]
    Truncated,
    #[error("the sealed value has format {0}; this version reads {VERSION}")]
    Version(u8),
    #[error("the value was sealed with another master key")]
    OtherKey,
    #[error("the sealed value was changed, or belongs to another record")]
    Forged,
}

/// The nonce of a key that seals a single value.
fn once() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}
