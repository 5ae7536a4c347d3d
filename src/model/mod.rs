//! The records the product speaks of and the rules that move them. Pure: no
//! I/O, no clock, no randomness.

pub mod attempt;
pub mod batch;
pub mod body;
pub mod deadline;
pub mod durations;
pub mod endpoint;
pub mod hook;
pub mod id;
pub mod issued;
pub mod ledger;
pub mod line;
pub mod money;
pub mod pattern;
pub mod request;
pub mod secret;
pub mod shadow;
pub mod time;
pub mod timeline;
pub mod trace;
