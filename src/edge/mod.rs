//! HTTP in. A call without a deadline goes straight through ([`passthrough`]);
//! the others go to the [`routers`]. [`server`] tells them apart and owns the
//! sockets.

mod ask;
pub mod auth;
mod calls;
pub mod deadline;
pub mod errors;
pub mod hold;
mod kept;
pub mod memory;
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
pub mod starting;
mod stream;
mod stub;
mod trace;
mod waiting;

#[cfg(test)]
mod testing;

use std::{any::Any, sync::Arc, time::Duration};

use axum::{
    Router,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;

use crate::{engine::Engine, model::secret::Secret};
use memory::Memory;
pub use namespace::{BadUpstreamSecret, UpstreamEvents};
use passthrough::Passthrough;
use waiting::Waiting;

/// What the router's handlers share.
pub struct Edge {
    pub engine: Arc<Engine>,
    /// For calls that turn out not to be ours.
    pub passthrough: Passthrough,
    pub settings: Settings,
    /// Opens `/offpeak/admin/…`.
    pub admin_token: Secret,
    pub upstream_events: UpstreamEvents,
    /// Of bodies and answers.
    pub memory: Arc<Memory>,
    waiting: Arc<Waiting>,
    /// What operators' pages are kept told.
    bulletins: namespace::Bulletins,
    /// Cancelled when the process begins to stop: who waits for nothing in
    /// particular is answered, and no more work is asked for.
    pub stopping: CancellationToken,
}

#[derive(Debug, Clone)]
pub struct Settings {
    pub deadline: deadline::Settings,
    pub hold: hold::Settings,
    /// From the head of a call with a deadline to the last byte of its body.
    pub body_timeout: Duration,
    /// Bytes of callers' bodies, and of answers that are held whole, in memory at the
    /// same time.
    pub max_body_memory: u64,
    /// Callers' connections that may be open.
    pub connections: usize,
    /// Where callers reach this server, where that was said; without `/v1`.
    pub base_url: Option<String>,
    /// Operators are served by a listener of their own, and nowhere else.
    pub operators_apart: bool,
}

impl Edge {
    pub fn new(
        engine: Arc<Engine>,
        passthrough: Passthrough,
        settings: Settings,
        memory: Arc<Memory>,
        admin_token: Secret,
        upstream_events: UpstreamEvents,
    ) -> Self {
        Edge {
            engine,
            passthrough,
            memory,
            waiting: Waiting::among(settings.connections),
            settings,
            admin_token,
            upstream_events,
            bulletins: namespace::Bulletins::default(),
            stopping: CancellationToken::new(),
        }
    }

    /// How much of a body is read by ourselves.
    fn body_bounds(&self) -> read::Bounds {
        read::Bounds {
            bytes: self.engine.settings().admission.max_body_bytes,
            time: self.settings.body_timeout,
        }
    }
}

/// What answers where nothing passes straight through. Bodies are bounded where they
/// are read, and nowhere else.
pub fn routers(edge: &Arc<Edge>) -> server::Routers {
    let callers = match edge.settings.operators_apart {
        true => namespace::callers(edge),
        false => namespace::everybody(edge),
    };
    let guarded = |router: Router<Arc<Edge>>| {
        let router = router.layer(CatchPanicLayer::custom(panicked));
        router.with_state(edge.clone())
    };
    server::Routers {
        callers: guarded(callers.fallback(calls::handle)),
        operators: guarded(namespace::operators(edge)),
    }
}

fn panicked(_: Box<dyn Any + Send>) -> Response {
    errors::ApiError::server(
        StatusCode::INTERNAL_SERVER_ERROR,
        "internal_error",
        "Offpeak failed in a way that it should not. Its log says more.",
    )
    .into_response()
}
