//! HTTP in. A call without a deadline goes straight through ([`passthrough`]);
//! the others go to the [`router`]. [`server`] tells them apart and owns the
//! sockets.

pub mod auth;
pub mod deadline;
pub mod errors;
pub mod hold;
pub mod namespace;
pub mod passthrough;
pub mod prefer;
pub mod replay;
pub mod route;
pub mod server;

#[cfg(test)]
mod testing;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::{engine::Engine, model::secret::Secret};
use passthrough::Passthrough;

/// What the router's handlers share.
pub struct Edge {
    pub engine: Arc<Engine>,
    /// For calls that turn out not to be ours.
    pub passthrough: Passthrough,
    pub settings: Settings,
    /// Opens `/offpeak/admin/…`.
    pub admin_token: Secret,
    /// Cancelled when the process begins to stop: who waits for nothing in
    /// particular is answered, and no more work is asked for.
    pub stopping: CancellationToken,
}

#[derive(Debug, Clone)]
pub struct Settings {
    pub deadline: deadline::Settings,
    pub hold: hold::Settings,
}
