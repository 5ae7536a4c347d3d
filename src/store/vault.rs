//! What the data directory keeps secret: credentials sealed at rest, keyed
//! fingerprints, and each tenant's webhook secret, all from one master key.
//!
//! A sealed value is
//!
//! ```text
//! version (1) | key id (4) | salt (24) | ChaCha20-Poly1305 ciphertext and tag (n + 16)
//! ```
//!
//! Each value has its own key, derived from the master key and the salt, and
//! uses the cipher's nonce once: a random 96-bit nonce under one key would be
//! good for about 2³² values. The salt is a keyed hash of fresh randomness, the
//! `aad` and the clear bytes, so that even a machine without randomness never
//! uses one key for two values. The 29 bytes in front are authenticated
//! together with the caller's `aad`.

use std::fmt;

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use bytes::Bytes;
use ring::{
    aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey},
    rand::{SecureRandom, SystemRandom},
};

use crate::{
    model::{
        id::{CredentialId, TenantId},
        secret::Secret,
    },
    ports::{self, Credential},
};

mod master;

pub use master::{BadMasterKey, MasterKey};

const VERSION: u8 = 1;
const KEY_ID: usize = 4;
const SALT: usize = 24;
const HEADER: usize = 1 + KEY_ID + SALT;
const TAG: usize = 16;

/// Seals and opens credentials. Prints nothing of itself.
pub struct Vault {
    key_id: [u8; KEY_ID],
    sealing: [u8; 32],
    salting: [u8; 32],
    fingerprinting: [u8; 32],
    webhooks: [u8; 32],
    random: SystemRandom,
}

impl Vault {
    pub fn new(master: &MasterKey) -> Self {
        let derive = |purpose| blake3::derive_key(purpose, master.bytes());
        let [a, b, c, d, ..] = derive("offpeak 2026 vault key id");
        Vault {
            key_id: [a, b, c, d],
            sealing: derive("offpeak 2026 vault sealing"),
            salting: derive("offpeak 2026 vault salts"),
            fingerprinting: derive("offpeak 2026 vault fingerprints"),
            webhooks: derive("offpeak 2026 vault webhook secrets"),
            random: SystemRandom::new(),
        }
    }

    /// Encrypts `clear`. It opens only with the same `aad`: the record it
    /// belongs to, so that a value moved to another record is found out.
    pub fn seal_bytes(&self, aad: &[u8], clear: &[u8]) -> Vec<u8> {
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

    /// Decrypts what [`Vault::seal_bytes`] made with the same `aad` and master key.
    pub fn open_bytes(&self, aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>, Unopened> {
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

    /// A tenant's `whsec_…` of 32 bytes. It needs no storage; rotating it is
    /// counting `generation` up.
    pub fn webhook_secret_of(&self, tenant: TenantId, generation: u32) -> Secret {
        let mut hasher = blake3::Hasher::new_keyed(&self.webhooks);
        hasher.update(&tenant.0);
        hasher.update(&generation.to_be_bytes());
        let encoded = STANDARD.encode(hasher.finalize().as_bytes());
        Secret::new(format!("whsec_{encoded}"))
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

impl ports::Vault for Vault {
    fn seal(&self, id: CredentialId, credential: &Credential) -> Bytes {
        let clear = serde_json::to_vec(credential).expect("strings always serialise");
        self.seal_bytes(&id.0, &clear).into()
    }

    fn open(&self, id: CredentialId, sealed: &[u8]) -> Result<Credential, ports::Unopened> {
        let clear = self.open_bytes(&id.0, sealed).map_err(|reason| {
            tracing::error!(credential = %id, %reason, "a stored credential does not open");
            ports::Unopened
        })?;
        serde_json::from_slice(&clear).map_err(|_| ports::Unopened)
    }

    /// Tells holders of the master key that two values are equal, and others
    /// nothing: a stolen store cannot be searched for a known API key.
    fn fingerprint(&self, domain: &str, parts: &[&[u8]]) -> [u8; 16] {
        let mut hasher = blake3::Hasher::new_keyed(&self.fingerprinting);
        framed(&mut hasher, domain.as_bytes());
        for part in parts {
            framed(&mut hasher, part);
        }
        let mut print = [0; 16];
        hasher.finalize_xof().fill(&mut print);
        print
    }

    fn webhook_secret(&self, tenant: TenantId, number: u32) -> String {
        self.webhook_secret_of(tenant, number).expose().to_owned()
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Vault([redacted])")
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

/// Hashes `bytes` with their length, so that what follows cannot be mistaken
/// for a part of them.
fn framed(hasher: &mut blake3::Hasher, bytes: &[u8]) {
    hasher.update(&(bytes.len() as u64).to_be_bytes());
    hasher.update(bytes);
}

/// 32 bytes as base64 (either alphabet, padded or not) or 64 hex digits.
fn decode_32(text: &str) -> Option<[u8; 32]> {
    if text.len() == 64 {
        return blake3::Hash::from_hex(text).ok().map(Into::into);
    }
    let url_safe: String = text
        .trim_end_matches('=')
        .chars()
        .map(|c| match c {
            '+' => '-',
            '/' => '_',
            other => other,
        })
        .collect();
    URL_SAFE_NO_PAD.decode(url_safe).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ports::Vault as _;

    fn vault(byte: u8) -> Vault {
        let key = MasterKey::parse(&Secret::new(STANDARD.encode([byte; 32]))).unwrap();
        Vault::new(&key)
    }

    #[test]
    fn opens_what_it_sealed_and_never_seals_alike() {
        let vault = vault(7);
        for clear in [&b""[..], b"sk-live-1234", &[0xff; 10_000]] {
            let sealed = vault.seal_bytes(b"tenant/1", clear);
            assert_eq!(sealed.len(), HEADER + clear.len() + TAG);
            assert_eq!(vault.open_bytes(b"tenant/1", &sealed).unwrap(), clear);
            assert_ne!(vault.seal_bytes(b"tenant/1", clear), sealed);
        }
        let sealed = vault.seal_bytes(b"", b"sk-live-1234");
        assert!(!sealed.windows(7).any(|window| window == b"sk-live"));
    }

    #[test]
    fn any_changed_byte_is_found_out() {
        let vault = vault(7);
        let sealed = vault.seal_bytes(b"tenant/1", b"sk-live-1234");
        for place in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[place] ^= 1;
            let expected = match place {
                0 => Unopened::Version(0),
                1..=KEY_ID => Unopened::OtherKey,
                _ => Unopened::Forged,
            };
            assert_eq!(
                vault.open_bytes(b"tenant/1", &changed),
                Err(expected),
                "{place}"
            );
        }
        for length in 0..sealed.len() {
            let expected = match length < HEADER + TAG {
                true => Unopened::Truncated,
                false => Unopened::Forged,
            };
            assert_eq!(
                vault.open_bytes(b"tenant/1", &sealed[..length]),
                Err(expected),
                "{length}"
            );
        }
    }

    #[test]
    fn opens_only_for_its_record_and_with_its_key() {
        let sealed = vault(7).seal_bytes(b"tenant/1", b"sk");
        assert_eq!(
            vault(7).open_bytes(b"tenant/2", &sealed),
            Err(Unopened::Forged)
        );
        assert_eq!(vault(7).open_bytes(b"", &sealed), Err(Unopened::Forged));
        assert_eq!(
            vault(8).open_bytes(b"tenant/1", &sealed),
            Err(Unopened::OtherKey)
        );
    }

    #[test]
    fn seals_credentials_for_their_id() {
        let credential = Credential {
            headers: vec![("authorization".to_owned(), "Bearer sk-1".to_owned())],
            query: Some("api-version=1".to_owned()),
        };
        let vault = vault(7);
        let id = CredentialId([1; 16]);
        let sealed = vault.seal(id, &credential);
        assert_eq!(vault.open(id, &sealed).unwrap(), credential);
        assert!(vault.open(CredentialId([2; 16]), &sealed).is_err());
        assert!(
            vault
                .open(id, &vault.seal_bytes(&id.0, b"no JSON"))
                .is_err()
        );
    }

    #[test]
    fn fingerprints_are_stable_keyed_and_separate() {
        let print = vault(7).fingerprint("tenant", &[b"sk", b"1"]);
        assert_eq!(print, vault(7).fingerprint("tenant", &[b"sk", b"1"]));
        for other in [
            vault(8).fingerprint("tenant", &[b"sk", b"1"]),
            vault(7).fingerprint("credential", &[b"sk", b"1"]),
            vault(7).fingerprint("tenant", &[b"sk", b"2"]),
            vault(7).fingerprint("tenant", &[b"sk1"]),
            vault(7).fingerprint("tenant", &[b"s", b"k1"]),
            vault(7).fingerprint("tenant", &[b"sk", b"1", b""]),
        ] {
            assert_ne!(print, other);
        }
    }

    #[test]
    fn webhook_secrets_are_stable_and_rotate() {
        let secret = |vault: &Vault, tenant, generation| {
            let secret = vault.webhook_secret_of(TenantId([tenant; 16]), generation);
            secret.expose().to_owned()
        };
        let first = secret(&vault(7), 1, 0);
        assert_eq!(first, vault(7).webhook_secret(TenantId([1; 16]), 0));
        assert_ne!(first, secret(&vault(7), 1, 1));
        assert_ne!(first, secret(&vault(7), 2, 0));
        assert_ne!(first, secret(&vault(8), 1, 0));
        let bytes = STANDARD.decode(first.strip_prefix("whsec_").unwrap());
        assert_eq!(bytes.unwrap().len(), 32);
        standardwebhooks::Webhook::new(&first).unwrap();
    }

    #[test]
    fn prints_nothing_of_itself() {
        assert_eq!(format!("{:?}", vault(7)), "Vault([redacted])");
    }

    proptest! {
        #[test]
        fn opening_rubbish_is_an_error(rubbish in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(vault(7).open_bytes(b"", &rubbish).is_err());
        }
    }
}
