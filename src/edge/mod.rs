//! HTTP in. A call without a deadline goes straight through ([`passthrough`]);
//! the others go to the [`router`]. [`server`] tells them apart and owns the
//! sockets.

pub mod auth;
pub mod deadline;
pub mod errors;
pub mod hold;
pub mod passthrough;
pub mod prefer;
pub mod replay;
pub mod route;
pub mod server;

#[cfg(test)]
mod testing;

use std::sync::Arc;

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
}

#[derive(Debug, Clone)]
pub struct Settings {
    pub deadline: deadline::Settings,
    pub hold: hold::Settings,
}
pub fn router(_: std::sync::Arc<Edge>) -> axum::Router {
    axum::Router::new()
}
