//! Damage: how it is found, and what can be saved.

mod log;
mod pages;
mod tail;
#[cfg(test)]
mod tests;
mod verify;

pub use self::{tail::torn_tail, verify::verify};
