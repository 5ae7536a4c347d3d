//! How a connection to the provider is made.
//!
//! [`Tcp`] is the real one. Any closure that dials works too, so a test runs the
//! adapter against a server in its own process, on tokio's paused clock:
//!
//! ```ignore
//! let (accept, mut accepted) = tokio::sync::mpsc::channel(16);
//! let provider = OpenAi::new(&settings, move |_to: http::Uri| {
//!     let accept = accept.clone();
//!     async move {
//!         let (ours, theirs) = tokio::io::duplex(64 * 1024);
//!         accept.send(theirs).await?;
//!         Ok::<_, BoxError>(ours)
//!     }
//! })?;
//! // and serve HTTP/1.1 on each stream that arrives at `accepted`.
//! ```

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::BoxFuture;
use http::Uri;
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::{
    client::legacy::connect::{Connected, Connection, HttpConnector},
    rt::TokioIo,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tower::{Service, ServiceExt};

use super::settings::Invalid;

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Keep-alive probes find connections whose other side is gone without a word.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// Opens connections. HTTP/1.1 is spoken on them.
pub trait Dial: Clone + Send + Sync + 'static {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    fn dial(&self, to: Uri) -> BoxFuture<'static, Result<Self::Stream, BoxError>>;
}

impl<F, Dialing, Stream> Dial for F
where
    F: Fn(Uri) -> Dialing + Clone + Send + Sync + 'static,
    Dialing: Future<Output = Result<Stream, BoxError>> + Send + 'static,
    Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = Stream;

    fn dial(&self, to: Uri) -> BoxFuture<'static, Result<Stream, BoxError>> {
        Box::pin(self(to))
    }
}

/// TCP, with TLS for `https` against the system's root certificates.
///
/// HTTP/2 is not offered: hyper's pool keeps one HTTP/2 connection a host, whose
/// bound on streams would be a hidden bound on live calls.
#[derive(Clone)]
pub struct Tcp(HttpsConnector<HttpConnector>);

impl Tcp {
    /// `tls`: whether `https` will be dialled, so that roots are needed.
    pub(super) fn new(tls: bool) -> Result<Tcp, Invalid> {
        let roots = |error: &dyn std::fmt::Display| Invalid::Roots(error.to_string());
        let provider = rustls::crypto::ring::default_provider();
        let config = rustls::ClientConfig::builder_with_provider(provider.into())
            .with_safe_default_protocol_versions()
            .map_err(|error| roots(&error))?;
        let config = if tls {
            config.with_native_roots().map_err(|error| roots(&error))?
        } else {
            config.with_root_certificates(rustls::RootCertStore::empty())
        };

        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(KEEPALIVE));
        Ok(Tcp(HttpsConnectorBuilder::new()
            .with_tls_config(config.with_no_client_auth())
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp)))
    }
}

impl Dial for Tcp {
    type Stream = TokioIo<MaybeHttpsStream<TokioIo<TcpStream>>>;

    fn dial(&self, to: Uri) -> BoxFuture<'static, Result<Self::Stream, BoxError>> {
        let connecting = self.0.clone().oneshot(to);
        Box::pin(async move { Ok(TokioIo::new(connecting.await?)) })
    }
}

/// What hyper's client takes: a [`Dial`] with a time limit.
#[derive(Clone)]
pub(super) struct Connector<D> {
    pub dial: D,
    /// For everything before the connection is usable.
    pub timeout: Duration,
}

impl<D: Dial> Service<Uri> for Connector<D> {
    type Response = TokioIo<HearsOut<D::Stream>>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let dialling = tokio::time::timeout(self.timeout, self.dial.dial(to));
        Box::pin(async move {
            let stream = dialling.await.map_err(|_| "connecting took too long")??;
            Ok(TokioIo::new(HearsOut {
                stream,
                deaf: false,
            }))
        })
    }
}

/// A provider that refuses an upload half way (413, 401) answers and closes.
/// Our next write then fails while its answer waits to be read, and hyper would
/// report the write. Here a write to a closed connection waits instead, and
/// reading tells the end: the answer, or that there is none.
pub(super) struct HearsOut<S> {
    stream: S,
    /// The other side takes no more.
    deaf: bool,
}

impl<S> HearsOut<S> {
    fn written<T>(&mut self, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
        match written {
            Poll::Ready(Err(error))
                if matches!(
                    error.kind(),
                    BrokenPipe | ConnectionAborted | ConnectionReset
                ) =>
            {
                self.deaf = true;
                Poll::Pending
            }
            other => other,
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for HearsOut<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.deaf {
            return Poll::Pending;
        }
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.written(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.deaf {
            return Poll::Pending;
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.written(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.deaf {
            return Poll::Pending;
        }
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.written(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.deaf {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for HearsOut<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl<S> Connection for HearsOut<S> {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}
