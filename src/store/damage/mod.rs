//! Damage: how it is found, and what can be saved.
//!
//! ```text
//! open ─► tail ─► sled ─► verify            refuses, in a sentence
//! check, salvage ─► log ─► pages ─► repair  reads without sled, mends what fits
//! ```

mod leftovers;
mod log;
mod pages;
mod repair;
mod salvage;
mod tail;
#[cfg(test)]
mod tests;
mod verify;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Serialize;

pub use self::{
    leftovers::{leftovers, told},
    log::Gap,
    repair::Repairs,
    salvage::{Report, SalvageError, Salvaged, check, salvage},
    tail::torn_tail,
    verify::verify,
};
use super::records;

/// A record that cannot be read, kept as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unreadable {
    /// Its kind, and its key in hexadecimal digits.
    pub record: String,
    pub why: String,
    /// Base64.
    pub value: String,
}

impl Unreadable {
    fn new(key: &[u8], value: &[u8], why: String) -> Unreadable {
        Unreadable {
            record: records::name(key),
            why,
            value: STANDARD.encode(value),
        }
    }
}
