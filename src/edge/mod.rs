//! HTTP in. A call without a deadline goes straight through ([`passthrough`]);
//! the others go to the router. [`server`] tells them apart and owns the sockets.

pub mod passthrough;
pub mod prefer;
pub mod replay;
pub mod route;
pub mod server;

#[cfg(test)]
mod testing;
