//! To come.

pub mod vault;
