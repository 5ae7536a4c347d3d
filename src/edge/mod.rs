//! HTTP in. A call without a deadline goes straight through ([`passthrough`]);
//! the others go to the [`router`]. [`server`] tells them apart and owns the
//! sockets.

mod ask;
pub mod auth;
mod calls;
pub mod deadline;
pub mod errors;
pub mod hold;
mod models;
pub mod namespace;
mod outcome;
pub mod passthrough;
mod poll;
pub mod prefer;
mod read;
pub mod replay;
pub mod route;
pub mod server;
mod stream;
mod stub;

#[cfg(test)]
mod testing;

use std::{any::Any, sync::Arc};

use axum::{
    Router,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;

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

impl Edge {
    pub fn new(
        engine: Arc<Engine>,
        passthrough: Passthrough,
        settings: Settings,
        admin_token: Secret,
    ) -> Self {
        Edge {
            engine,
            passthrough,
            settings,
            admin_token,
            stopping: CancellationToken::new(),
        }
    }
}

/// What [`route::route`] does not send straight through. Bodies are bounded where
/// they are read, and nowhere else.
pub fn router(edge: Arc<Edge>) -> Router {
    Router::new()
        .merge(namespace::routes())
        .fallback(calls::handle)
        .layer(CatchPanicLayer::custom(panicked))
        .with_state(edge)
}

fn panicked(_: Box<dyn Any + Send>) -> Response {
    errors::ApiError::server(
        StatusCode::INTERNAL_SERVER_ERROR,
        "internal_error",
        "Offpeak failed in a way that it should not. Its log says more.",
    )
    .into_response()
}
