//! What the data directory keeps secret: credentials sealed at rest, keyed
//! fingerprints, and each tenant's webhook secret.
//!
//! All of it comes from [`Roots`], random bytes that are kept in the store, sealed with
//! the master key. So a master key can be changed: the roots are sealed anew, and what
//! is sealed gets a new root; names and secrets that callers know stay.

use std::fmt;

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use bytes::Bytes;

use crate::{
    model::{
        id::{CredentialId, TenantId},
        secret::Secret,
    },
    ports::{self, Credential},
};

mod master;
mod roots;
mod sealer;
mod unlock;

pub use master::{BadMasterKey, MasterKey};
pub use roots::Roots;
use sealer::Sealer;
pub use sealer::Unopened;
pub use unlock::{Locked, is_sealed, unlock};

/// Seals and opens credentials. Prints nothing of itself.
pub struct Vault {
    /// The first seals; all open.
    sealers: Vec<Sealer>,
    fingerprinting: [u8; 32],
    webhooks: [u8; 32],
}

impl Vault {
    pub fn new(roots: &Roots) -> Self {
        let derive = |purpose| blake3::derive_key(purpose, roots.identity());
        Vault {
            sealers: roots.sealing().iter().map(Sealer::new).collect(),
            fingerprinting: derive("offpeak 2026 vault fingerprints"),
            webhooks: derive("offpeak 2026 vault webhook secrets"),
        }
    }

    /// Encrypts `clear`. It opens only with the same `aad`: the record it
    /// belongs to, so that a value moved to another record is found out.
    pub fn seal_bytes(&self, aad: &[u8], clear: &[u8]) -> Vec<u8> {
        let newest = self.sealers.first().expect("there is always one");
        newest.seal(aad, clear)
    }

    /// Decrypts what [`Vault::seal_bytes`] made with the same `aad` and roots.
    pub fn open_bytes(&self, aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>, Unopened> {
        let mut opened = Err(Unopened::OtherKey);
        for sealer in &self.sealers {
            opened = sealer.open(aad, sealed);
            if opened != Err(Unopened::OtherKey) {
                break;
            }
        }
        opened
    }

    /// Whether it was sealed with a root that is about to be given up.
    fn is_stale(&self, aad: &[u8], sealed: &[u8]) -> bool {
        let mut older = self.sealers.iter().skip(1);
        older.any(|sealer| sealer.open(aad, sealed).is_ok())
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
        Vault::new(&Roots::from([byte; 32]))
    }

    #[test]
    fn an_older_root_opens_and_is_stale() {
        let old = vault(7);
        let sealed = old.seal_bytes(b"1", b"sk");
        let mut roots = Roots::from([7; 32]);
        roots.renew([8; 32]);
        let new = Vault::new(&roots);
        assert_eq!(new.open_bytes(b"1", &sealed).unwrap(), b"sk");
        assert!(new.is_stale(b"1", &sealed));
        let again = new.seal_bytes(b"1", b"sk");
        assert!(!new.is_stale(b"1", &again));
        assert_eq!(old.open_bytes(b"1", &again), Err(Unopened::OtherKey));
        let (a, b) = (old.fingerprint("x", &[]), new.fingerprint("x", &[]));
        assert_eq!(a, b, "names stay");
        roots.forget_older();
        let last = Vault::new(&roots);
        assert_eq!(last.open_bytes(b"1", &sealed), Err(Unopened::OtherKey));
        assert_eq!(last.open_bytes(b"1", &again).unwrap(), b"sk");
    }

    #[test]
    fn opens_what_it_sealed_and_never_seals_alike() {
        let vault = vault(7);
        for clear in [&b""[..], b"sk-live-1234", &[0xff; 10_000]] {
            let sealed = vault.seal_bytes(b"tenant/1", clear);
            assert_eq!(sealed.len(), sealer::HEADER + clear.len() + sealer::TAG);
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
                1..=sealer::KEY_ID => Unopened::OtherKey,
                _ => Unopened::Forged,
            };
            assert_eq!(
                vault.open_bytes(b"tenant/1", &changed),
                Err(expected),
                "{place}"
            );
        }
        for length in 0..sealed.len() {
            let expected = match length < sealer::HEADER + sealer::TAG {
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
