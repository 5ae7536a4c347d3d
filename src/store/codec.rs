//! How keys and values are made of bytes.
//!
//! A key is a tag and then fields of fixed width, numbers big-endian, so that
//! keys sort as their fields do. A value is a version byte, the CRC-32 of what
//! follows, a postcard record, and for some kinds raw bytes behind it.

use std::fmt;

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

use crate::{model::time::Timestamp, ports::StoreError};

/// The layout of values. A value of another version is refused.
const VERSION: u8 = 1;
/// Bytes before a value's record: its version and its checksum.
pub const HEADER: usize = 5;

/// A kind of record: the first byte of its keys, and its name in messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    pub tag: u8,
    pub name: &'static str,
}

impl Kind {
    pub fn corrupt(self, key: &[u8], why: impl fmt::Display) -> StoreError {
        let mut hex = String::with_capacity(key.len() * 2);
        for byte in key {
            hex.push_str(&format!("{byte:02x}"));
        }
        StoreError::Corrupt(format!("{} {hex}: {why}", self.name))
    }
}

/// Builds a key.
pub struct Key(Vec<u8>);

impl Key {
    pub fn of(kind: Kind) -> Key {
        let mut bytes = Vec::with_capacity(64);
        bytes.push(kind.tag);
        Key(bytes)
    }

    pub fn raw(mut self, bytes: &[u8]) -> Key {
        self.0.extend_from_slice(bytes);
        self
    }

    pub fn byte(self, byte: u8) -> Key {
        self.raw(&[byte])
    }

    pub fn u32(self, number: u32) -> Key {
        self.raw(&number.to_be_bytes())
    }

    pub fn u64(self, number: u64) -> Key {
        self.raw(&number.to_be_bytes())
    }

    pub fn time(self, at: Timestamp) -> Key {
        self.u64(at.as_millis())
    }

    pub fn done(self) -> Vec<u8> {
        self.0
    }
}

/// Reads a key's fields in order.
pub struct Fields<'a> {
    kind: Kind,
    key: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub fn of(kind: Kind, key: &'a [u8]) -> Result<Self, StoreError> {
        match key.split_first() {
            Some((tag, rest)) if *tag == kind.tag => Ok(Fields { kind, key, rest }),
            _ => Err(kind.corrupt(key, "not a key of this kind")),
        }
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], StoreError> {
        let (field, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or_else(|| self.kind.corrupt(self.key, "the key is too short"))?;
        self.rest = rest;
        Ok(*field)
    }

    pub fn byte(&mut self) -> Result<u8, StoreError> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub fn u32(&mut self) -> Result<u32, StoreError> {
        self.array().map(u32::from_be_bytes)
    }

    pub fn u64(&mut self) -> Result<u64, StoreError> {
        self.array().map(u64::from_be_bytes)
    }

    pub fn time(&mut self) -> Result<Timestamp, StoreError> {
        self.u64().map(Timestamp::from_millis)
    }

    pub fn end(self) -> Result<(), StoreError> {
        match self.rest {
            [] => Ok(()),
            _ => Err(self.corrupt("the key is too long")),
        }
    }

    pub fn corrupt(&self, why: impl fmt::Display) -> StoreError {
        self.kind.corrupt(self.key, why)
    }
}

/// A value of `record` and then `tail` as it is.
pub fn seal_with<T: Serialize + ?Sized>(record: &T, tail: &[u8]) -> Bytes {
    let mut value = Vec::with_capacity(HEADER + 384 + tail.len());
    value.push(VERSION);
    value.extend_from_slice(&[0; 4]);
    // Serialising plain data into a growing vector has no way to fail.
    let mut value = postcard::to_extend(record, value).expect("plain data serialises");
    value.extend_from_slice(tail);
    let sum = crc32fast::hash(&value[HEADER..]);
    value[1..HEADER].copy_from_slice(&sum.to_le_bytes());
    Bytes::from(value)
}

/// A value of any bytes, with a header that fits them.
#[cfg(any(test, fuzzing))]
pub fn framed(body: &[u8]) -> Bytes {
    let sum = crc32fast::hash(body).to_le_bytes();
    [&[VERSION][..], &sum, body].concat().into()
}

pub fn seal<T: Serialize + ?Sized>(record: &T) -> Bytes {
    seal_with(record, &[])
}

/// The record of a value, and the bytes behind it.
pub fn unseal_with<T: DeserializeOwned>(
    kind: Kind,
    key: &[u8],
    value: &Bytes,
) -> Result<(T, Bytes), StoreError> {
    let body = checked(kind, key, value)?;
    let (record, tail) = postcard::take_from_bytes::<T>(&body)
        .map_err(|error| kind.corrupt(key, format_args!("the record cannot be read: {error}")))?;
    let tail = body.slice(body.len() - tail.len()..);
    Ok((record, tail))
}

pub fn unseal<T: DeserializeOwned>(kind: Kind, key: &[u8], value: &Bytes) -> Result<T, StoreError> {
    match unseal_with(kind, key, value)? {
        (record, tail) if tail.is_empty() => Ok(record),
        _ => Err(kind.corrupt(key, "bytes are left behind the record")),
    }
}

/// Whether a value of any kind is as it was written.
pub fn is_sound(value: &[u8]) -> bool {
    match value.split_first_chunk::<HEADER>() {
        Some(([version, sum @ ..], body)) => {
            *version == VERSION && u32::from_le_bytes(*sum) == crc32fast::hash(body)
        }
        None => false,
    }
}

fn checked(kind: Kind, key: &[u8], value: &Bytes) -> Result<Bytes, StoreError> {
    let Some((&[version, ref sum @ ..], body)) = value.split_first_chunk::<HEADER>() else {
        return Err(kind.corrupt(key, "the value is too short"));
    };
    if version != VERSION {
        return Err(kind.corrupt(key, format_args!("version {version} is not known")));
    }
    if u32::from_le_bytes(*sum) != crc32fast::hash(body) {
        return Err(kind.corrupt(key, "the checksum does not match"));
    }
    Ok(value.slice(HEADER..))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KIND: Kind = Kind {
        tag: b'Z',
        name: "test",
    };

    proptest! {
        #[test]
        fn a_value_comes_back(record: (u64, String), tail: Vec<u8>) {
            let value = seal_with(&record, &tail);
            let (read, rest) = unseal_with::<(u64, String)>(KIND, b"Z", &value)?;
            prop_assert_eq!((read, rest.to_vec()), (record, tail));
        }

        #[test]
        fn one_changed_bit_is_seen(record: (u64, String), at: prop::sample::Index, bit in 0..8u8) {
            let mut value = seal(&record).to_vec();
            let at = at.index(value.len());
            value[at] ^= 1 << bit;
            let read = unseal::<(u64, String)>(KIND, b"Zkey", &Bytes::from(value));
            prop_assert!(matches!(&read, Err(StoreError::Corrupt(what)) if what.contains("test 5a6b6579")));
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(value: Vec<u8>, key: Vec<u8>) {
            let value = Bytes::from(value);
            prop_assert!(unseal::<(u64, String)>(KIND, &key, &value).is_err());
            if let Ok(mut fields) = Fields::of(KIND, &key) {
                let whole = fields.u64().and_then(|_| fields.end());
                prop_assert_eq!(whole.is_ok(), key.len() == 9);
            }
        }
    }
}
