//! Names of things. Requests and batches carry their birth time in front, so
//! that keys made of them are written almost in order; tenants, credentials and
//! destinations are fingerprints, so that nobody's key can be read from them.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use thiserror::Error;

use super::time::Timestamp;

/// Crockford's alphabet in lower case: no `i`, `l`, `o`, `u`.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const TEXT_LEN: usize = 26;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not an id of this kind")]
pub struct BadId;

/// 48 bits of milliseconds, then 80 random bits, in Crockford's base 32.
macro_rules! timed_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 16]);

        impl $name {
            pub const PREFIX: &'static str = $prefix;
            pub const MIN: $name = $name([0; 16]);
            /// Characters in its text form.
            pub const LEN: usize = $prefix.len() + TEXT_LEN;

            pub fn new(born: Timestamp, random: u128) -> Self {
                let value = (u128::from(born.as_millis()) << 80) | (random >> 48);
                $name(value.to_be_bytes())
            }

            pub fn born(&self) -> Timestamp {
                Timestamp::from_millis((u128::from_be_bytes(self.0) >> 80) as u64)
            }

            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                $name(bytes)
            }

            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let text = encode(self.0);
                f.write_str($prefix)?;
                f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = BadId;

            fn from_str(text: &str) -> Result<Self, BadId> {
                text.strip_prefix($prefix).and_then(decode).map($name).ok_or(BadId)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                if to.is_human_readable() { to.collect_str(self) } else { self.0.serialize(to) }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                if from.is_human_readable() {
                    String::deserialize(from)?.parse().map_err(D::Error::custom)
                } else {
                    <[u8; 16]>::deserialize(from).map($name)
                }
            }
        }
    };
}

timed_id! {
    /// A request's public name, `op_…`; also the `custom_id` of its batch line.
    RequestId, "op_"
}
timed_id! {
    /// Our name for a provider batch, `ob_…`, carried in its metadata.
    BatchId, "ob_"
}

timed_id! {
    /// A key that we issued, `ok_…`: its public name, from which nothing can be called.
    KeyId, "ok_"
}

impl BatchId {
    /// The id of a second batch of the same lines, told from others by `name`: as
    /// old as this one, and always the same.
    pub fn twin(&self, name: &str) -> BatchId {
        let mut hash = blake3::Hasher::new();
        hash.update(&self.0).update(name.as_bytes());
        let mut random = [0; 16];
        random.copy_from_slice(&hash.finalize().as_bytes()[..16]);
        BatchId::new(self.born(), u128::from_be_bytes(random))
    }
}

impl RequestId {
    /// The webhook event of this request's ending. One request ends once, so
    /// the id is the same at every delivery.
    pub fn event(&self) -> String {
        self.to_string().replacen(Self::PREFIX, "evt_", 1)
    }
}

macro_rules! fingerprint {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub [u8; 16]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }
    };
}

fingerprint! {
    /// Who may see a request: the keyed fingerprint of the caller's key.
    TenantId
}
fingerprint! {
    /// What does the work: the key and the headers that change where it runs.
    CredentialId
}
fingerprint! {
    /// Where work goes: a credential, an endpoint and a model.
    DestinationId
}
fingerprint! {
    /// A key that we issued, as it is stored: its keyed fingerprint.
    KeyPrint
}
fingerprint! {
    /// Who takes a tenant's webhooks: the target without its query, which callers
    /// put the names of their own things in.
    ReceiverId
}
fingerprint! {
    /// Two calls with the same digest are the same call sent again: tenant,
    /// endpoint, body and `Idempotency-Key`.
    CallDigest
}

impl FromStr for TenantId {
    type Err = BadId;

    /// As it is displayed.
    fn from_str(text: &str) -> Result<Self, BadId> {
        let digits = text.as_bytes();
        if digits.len() != 32
            || !digits
                .iter()
                .all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f'))
        {
            return Err(BadId);
        }
        let id = u128::from_str_radix(text, 16).map_err(|_| BadId)?;
        Ok(TenantId(id.to_be_bytes()))
    }
}

impl ReceiverId {
    /// `target` is a configured endpoint's name, or a URL.
    pub fn of(tenant: TenantId, target: &str) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&tenant.0);
        hasher.update(without_query(target).as_bytes());
        let mut id = [0; 16];
        hasher.finalize_xof().fill(&mut id);
        ReceiverId(id)
    }
}

/// A target as its receiver is named.
pub fn without_query(target: &str) -> &str {
    let target = target.trim();
    target.split(['?', '#']).next().unwrap_or(target)
}

/// A request is only ever looked up together with its tenant, so another
/// tenant's id cannot be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RequestKey {
    pub tenant: TenantId,
    pub id: RequestId,
}

fn encode(bytes: [u8; 16]) -> [u8; TEXT_LEN] {
    let mut value = u128::from_be_bytes(bytes);
    let mut text = [0; TEXT_LEN];
    for digit in text.iter_mut().rev() {
        *digit = ALPHABET[(value & 31) as usize];
        value >>= 5;
    }
    text
}

fn decode(text: &str) -> Option<[u8; 16]> {
    if text.len() != TEXT_LEN {
        return None;
    }
    text.bytes()
        .try_fold(0u128, |value, byte| {
            let digit = ALPHABET.iter().position(|&known| known == byte)?;
            // 26 digits hold 130 bits: the first may use only three of its five.
            (value >> 123 == 0).then_some((value << 5) | digit as u128)
        })
        .map(u128::to_be_bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_receiver_is_a_tenants_target_without_its_query() {
        let of = |tenant, target| ReceiverId::of(TenantId([tenant; 16]), target);
        let one = of(1, "https://example.com/hook");
        for same in [
            " https://example.com/hook ",
            "https://example.com/hook?job=7",
            "https://example.com/hook#top?x",
        ] {
            assert_eq!(of(1, same), one, "{same}");
        }
        assert_ne!(of(1, "https://example.com/hook/"), one);
        assert_ne!(of(2, "https://example.com/hook"), one);
    }

    proptest! {
        #[test]
        fn text_and_back(bytes: [u8; 16]) {
            let id = RequestId::from_bytes(bytes);
            prop_assert_eq!(id.to_string().parse(), Ok(id));
            let tenant = TenantId(bytes);
            prop_assert_eq!(tenant.to_string().parse(), Ok(tenant));
            prop_assert_eq!(tenant.to_string()[1..].parse::<TenantId>(), Err(BadId));
        }

        #[test]
        fn text_sorts_as_the_bytes_do(a: [u8; 16], b: [u8; 16]) {
            let (a, b) = (RequestId::from_bytes(a), RequestId::from_bytes(b));
            prop_assert_eq!(a.cmp(&b), a.to_string().cmp(&b.to_string()));
        }

        #[test]
        fn nothing_else_parses(text in ".{0,40}") {
            if let Ok(id) = text.parse::<RequestId>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }

    #[test]
    fn carries_its_birth() {
        let born = Timestamp::from_millis(1_763_832_346_120);
        assert_eq!(RequestId::new(born, u128::MAX).born(), born);
    }

    #[test]
    fn twins_are_told_apart() {
        let id = BatchId::new(Timestamp::from_secs(1), 7);
        let (one, other) = (id.twin("file-1"), id.twin("file-2"));
        assert!(one != id && one != other);
        assert_eq!((one, one.born()), (id.twin("file-1"), id.born()));
    }

    #[test]
    fn an_id_of_another_kind_is_refused() {
        let batch = BatchId::new(Timestamp::from_secs(1), 7).to_string();
        assert_eq!(batch.parse::<RequestId>(), Err(BadId));
        assert_eq!(
            "op_zzzzzzzzzzzzzzzzzzzzzzzzzz".parse::<RequestId>(),
            Err(BadId)
        );
    }
}
