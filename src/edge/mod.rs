//! HTTP in. To come: router, pass-through, parsing, hold, poll, auth, errors.

pub mod prefer;
pub mod replay;
