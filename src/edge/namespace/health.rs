//! What a supervisor reads: `/healthz`, `/readyz`. No credentials.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use http::StatusCode;
use tokio::time::timeout;

use crate::{edge::Edge, ports::StoreError};

pub fn routes() -> Router<Arc<Edge>> {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
}

/// A store that takes longer to change nothing is not answering.
const PATIENCE: Duration = Duration::from_secs(2);

/// Ready to take calls with a deadline. The others need only the process.
async fn ready(State(edge): State<Arc<Edge>>) -> Response {
    if edge.stopping.is_cancelled() {
        return not_ready("stopping\n");
    }
    match timeout(PATIENCE, edge.engine.check_store()).await {
        Ok(Ok(())) => "ready\n".into_response(),
        Ok(Err(StoreError::Full)) => not_ready("the disk is full\n"),
        Ok(Err(error)) => {
            tracing::error!(%error, "not ready");
            not_ready("the store fails\n")
        }
        Err(_) => not_ready("the store does not answer\n"),
    }
}

fn not_ready(why: &'static str) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, why).into_response()
}
