//! A copy of the whole database in one stream, taken while it is written to.
//!
//! ```text
//! "OFFPEAK BACKUP\n"  version u32  store format u32
//! frame*              kind u8, length u32, body
//!   1 pairs           (key length u16, key, value length u32, value)*
//!   2 commit          the same; a length of 2³²−1 removes the key
//!   3 end             postcard: End
//! hash                BLAKE3 of all bytes before it, 32 bytes
//! ```
//!
//! Numbers are little-endian. The pairs are read while the database changes, and may
//! be of different instants; the commits that were made meanwhile follow in their
//! order, and written over the pairs they make the state behind the last of them.

pub mod frame;
mod read;
mod restore;
mod take;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub use self::{
    frame::frame,
    read::{BadBackup, Check},
    restore::{RestoreError, restore},
    take::take,
};
use super::tally::Tally;

/// The layout above.
pub const VERSION: u32 = 1;
pub const MAGIC: &[u8; 15] = b"OFFPEAK BACKUP\n";

/// What a backup says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    pub pairs: u64,
    pub commits: u64,
    /// Of the database that it makes.
    pub tally: Option<Tally>,
}
