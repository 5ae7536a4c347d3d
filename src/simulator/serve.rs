//! The router on connections that can be cut: a response marked [`Cut`] becomes an
//! error of the HTTP service, and hyper closes the connection without a byte.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::Router;
use http::Request;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::{Simulator, front::Cut};

/// Serves until `stop`; then every connection is dropped at once.
pub async fn serve(listener: TcpListener, simulator: Arc<Simulator>, stop: CancellationToken) {
    let router = simulator.router();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%error, "no TCP_NODELAY");
                    }
                    connections.spawn(serve_router(stream, router.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "the simulator cannot accept");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }
    connections.shutdown().await;
}

/// Serves one connection, such as a half of `tokio::io::duplex`, until it closes.
pub async fn serve_connection<I>(io: I, simulator: Arc<Simulator>)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    serve_router(io, simulator.router()).await;
}

#[derive(Debug, thiserror::Error)]
#[error("the connection is cut by a scripted fault")]
struct CutHere;

async fn serve_router<I>(io: I, router: Router)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let router = router.clone();
        async move {
            let response = router
                .oneshot(request)
                .await
                .unwrap_or_else(|never: Infallible| match never {});
            match response.extensions().get::<Cut>() {
                Some(Cut) => Err(CutHere),
                None => Ok(response),
            }
        }
    });
    let serving = auto::Builder::new(TokioExecutor::new());
    if let Err(error) = serving.serve_connection(TokioIo::new(io), service).await {
        tracing::debug!(error = %error, "a connection to the simulator ended");
    }
}
