//! Until the store is open: it is read whole at a start, which takes a while where much
//! is in it. Calls without a deadline pass meanwhile; all others are told to come back.

use std::time::Duration;

use axum::{
    Router,
    body::Body,
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use http::{Request, StatusCode};

use super::{
    errors::ApiError,
    passthrough::BoxError,
    read::{self, Bounds},
    server::Routers,
};

/// Alive, not ready, and nothing else.
pub fn routers() -> Routers {
    let router = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(not_ready))
        .fallback(refuse::<Body>);
    Routers {
        callers: router.clone(),
        operators: router,
    }
}

async fn not_ready() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, "starting\n").into_response()
}

/// What is read of a refused call's body, so that its caller hears why.
const FORGOTTEN: Bounds = Bounds {
    bytes: 8 << 20,
    time: Duration::from_secs(30),
};

/// 503 `starting`: sent again, the call is taken in.
pub async fn refuse<B>(request: Request<B>) -> Response
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    read::discard(Body::new(request.into_body()), FORGOTTEN).await;
    ApiError::starting().into_response()
}
