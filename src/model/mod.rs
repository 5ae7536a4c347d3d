//! The records the product speaks of and the rules that move them. Pure: no
//! I/O, no clock, no randomness.

pub mod time;
