//! Calls without a deadline: straight to the upstream and back, bytes as they
//! come, with nothing read, stored or copied on the way (DESIGN.md §1). Only in shadow
//! mode (`watch`) the end of an answer is copied aside, for what it says of its cost; and
//! where callers present keys that we issued (`gate`), those are looked up in memory and
//! the upstream's put in their place. Where somebody watches, some calls are told of when
//! they are over (`traced`).
//!
//! Unchanged: method, path (less the base path, see [`Target`]), query, every
//! end-to-end header with its duplicates, body, status, reason phrase, and the
//! upstream's own errors. Changed: `Host` is the upstream's, hop-by-hop fields
//! end here (so `Upgrade` does too), and `Expect: 100-continue` is answered
//! here, when the upstream begins to take the body.
//!
//! Nothing but connecting and silence within the caller's body has a time limit. A caller who leaves closes the
//! upstream's connection; an upstream that breaks off mid-answer breaks the
//! caller's connection off, never ending the answer cleanly.

mod body;
mod connection;
mod gate;
mod headers;
mod target;
mod traced;
mod upload;
mod watch;

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use axum::response::IntoResponse;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body::Body as _;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use tower::ServiceExt;
use url::Url;

use super::{errors, memory::Memory, starting};
use crate::{
    engine::{Caller, Engine},
    metrics::{Passed, Passing, Tally},
    ports::Traces,
};

pub use self::{
    body::{Body, BoxError, RequestBody, Sent, UpstreamBody},
    gate::{BadPath, Paths},
    target::{BadBase, Target},
    upload::{Stalled, Upload},
};
use self::{
    connection::{Connection, Pool},
    gate::Gate,
    headers::{has_plain_coding, strip_hop_by_hop},
    traced::Traced,
    watch::Watch,
};

#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The most that name resolution, TCP and TLS may take together.
    #[serde(with = "crate::model::time::human")]
    pub connect_timeout: Duration,
    /// How long an idle upstream connection may be used again. Best below the
    /// upstream's own limit.
    #[serde(with = "crate::model::time::human")]
    pub idle_timeout: Duration,
    /// The most idle upstream connections that a worker thread keeps.
    pub max_idle: usize,
}

/// Forwards calls to one upstream.
pub struct Passthrough {
    target: Arc<Target>,
    connector: HttpsConnector<HttpConnector>,
    settings: Settings,
    pool: Arc<Pool>,
    /// Whether callers present keys that we issued. Nothing passes before these are known.
    guarded: bool,
    lookouts: Arc<OnceLock<Lookouts>>,
    /// None where nobody watches.
    traces: Option<Arc<dyn Traces>>,
    passed: Arc<Passed>,
    /// This thread's.
    tally: Arc<Tally>,
}

/// What looks at calls that pass, once the store is open.
struct Lookouts {
    watch: Option<Watch>,
    gate: Option<Gate>,
}

/// Why nothing can be forwarded at all.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error(transparent)]
    Base(#[from] BadBase),
    #[error("no trusted root certificates: {0}")]
    Roots(#[from] std::io::Error),
    #[error(transparent)]
    Tls(#[from] rustls::Error),
}

impl Passthrough {
    /// `upstream` is a base URL such as `https://api.openai.com/v1`; see
    /// [`Target`] for the mapping of paths. For https it reads the system's
    /// root certificates (or `SSL_CERT_FILE`).
    pub fn new(settings: Settings, upstream: &Url) -> Result<Passthrough, SetupError> {
        let target = Target::new(upstream)?;
        let passed = Arc::<Passed>::default();
        Ok(Passthrough {
            tally: passed.tally(),
            passed,
            connector: connector(&target)?,
            target: Arc::new(target),
            pool: Arc::new(Pool::new(settings.max_idle, settings.idle_timeout)),
            settings,
            guarded: false,
            lookouts: Arc::default(),
            traces: None,
        })
    }

    /// Lets only calls pass whose caller presents a key that we issued, and so none
    /// before [`open`](Self::open).
    pub fn guarded(self) -> Passthrough {
        let guarded = true;
        Passthrough { guarded, ..self }
    }

    /// Tells of calls there.
    pub fn traced(self, traces: Option<Arc<dyn Traces>>) -> Passthrough {
        Passthrough { traces, ..self }
    }

    /// From now on `engine` is told of what passes, where it counts that; and its keys
    /// open these paths, where they are asked for. Once only, for all workers.
    pub fn open(
        &self,
        engine: &Arc<Engine>,
        paths: &Paths,
        body_timeout: Duration,
        memory: &Arc<Memory>,
    ) {
        let gate = || Gate::new(engine, paths.clone(), body_timeout, memory.clone());
        let first = self.lookouts.set(Lookouts {
            watch: Watch::new(engine),
            gate: self.guarded.then(gate),
        });
        debug_assert!(first.is_ok(), "a server opens once");
    }

    /// The same upstream with connections of its own, for another thread.
    pub fn for_another_worker(&self) -> Passthrough {
        Passthrough {
            target: self.target.clone(),
            connector: self.connector.clone(),
            pool: Arc::new(Pool::new(
                self.settings.max_idle,
                self.settings.idle_timeout,
            )),
            settings: self.settings.clone(),
            guarded: self.guarded,
            lookouts: self.lookouts.clone(),
            traces: self.traces.clone(),
            passed: self.passed.clone(),
            tally: self.passed.tally(),
        }
    }

    /// What is counted of the calls, of all workers together.
    pub fn passed(&self) -> &Arc<Passed> {
        &self.passed
    }

    /// Sends `request` upstream and answers with what comes back, or with an
    /// error of our own in OpenAI's shape when nothing does.
    ///
    /// A call is sent a second time only when not a byte of it was written the
    /// first time, so the upstream never runs it twice for us.
    pub async fn forward<B>(&self, request: Request<B>) -> Response<Body>
    where
        RequestBody: From<B>,
    {
        let passing = self.tally.begin();
        let mut request = request.map(RequestBody::from);
        let lookouts = self.lookouts.get();
        let caller = match lookouts.and_then(|lookouts| lookouts.gate.as_ref()) {
            None if self.guarded => {
                return starting::refuse(request).await.map(Body::Router);
            }
            None => None,
            Some(gate) => match Box::pin(gate.admit(request)).await {
                Ok((admitted, caller)) => {
                    request = admitted;
                    Some(caller)
                }
                Err(error) => return error.into_response().map(Body::Router),
            },
        };
        match self.try_forward(request, caller, passing).await {
            Ok(response) => response,
            Err(failure) => failure.into_response(),
        }
    }

    /// How long an idle upstream connection may be used again.
    pub fn idle_timeout(&self) -> Duration {
        self.settings.idle_timeout
    }

    /// Closes upstream connections that have been idle for too long.
    pub fn sweep(&self) {
        self.pool.sweep();
    }

    async fn try_forward(
        &self,
        mut request: Request<RequestBody>,
        caller: Option<Caller>,
        mut passing: Passing,
    ) -> Result<Response<Body>, Failure> {
        let watch = self.lookouts.get().and_then(|it| it.watch.as_ref());
        let call = watch.and_then(|watch| watch.call(&request, caller));
        let traces = self.traces.as_ref();
        let mut traced = traces.and_then(|traces| Traced::begin(traces, &request));
        self.prepare(&mut request)?;
        let request = request.map(|body| Sent::new(body, passing.sending()));
        let (connection, mut response) = self.exchange(request).await?;
        passing.answered(response.status());
        if let Some(traced) = &mut traced {
            traced.answered(response.status());
        }
        let observer = call.and_then(|call| call.answered(&response));
        strip_hop_by_hop(response.headers_mut());
        // An upstream on HTTP/1.0 is no reason to speak it to the caller.
        *response.version_mut() = Version::HTTP_11;
        Ok(response.map(|body| {
            Body::Raw(UpstreamBody::new(
                body,
                connection,
                self.pool.clone(),
                observer,
                traced,
                passing,
            ))
        }))
    }

    fn prepare(&self, request: &mut Request<RequestBody>) -> Result<(), Failure> {
        if request.method() == Method::CONNECT {
            return Err(Failure::Tunnel);
        }
        if !has_plain_coding(request.headers()) {
            return Err(Failure::Coding);
        }
        if let Some(uri) = self.target.map(request.uri()).map_err(Failure::Path)? {
            *request.uri_mut() = uri;
        }
        *request.version_mut() = Version::HTTP_11;
        let unframed = !request.body().is_end_stream();
        let headers = request.headers_mut();
        strip_hop_by_hop(headers);
        headers.insert(header::HOST, self.target.host().clone());
        if unframed {
            headers.remove(header::EXPECT);
            // hyper sends no body of unknown length on a GET unless told to.
            if !headers.contains_key(header::CONTENT_LENGTH)
                && !headers.contains_key(header::TRANSFER_ENCODING)
                && request.body().size_hint().exact().is_none()
            {
                request.headers_mut().insert(
                    header::TRANSFER_ENCODING,
                    HeaderValue::from_static("chunked"),
                );
            }
        }
        Ok(())
    }

    async fn exchange(
        &self,
        mut request: Request<Sent>,
    ) -> Result<(Box<Connection>, Response<hyper::body::Incoming>), Failure> {
        while let Some(mut connection) = self.pool.take() {
            match connection.send(request).await {
                Ok(response) => return Ok((connection, response)),
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(Failure::from(error.into_error())),
                },
            }
        }
        // Boxed, because most calls find a connection, and each has the room for this.
        let mut connection = Box::pin(self.connect()).await?;
        match connection.send(request).await {
            Ok(response) => Ok((connection, response)),
            Err(error) => Err(Failure::from(error.into_error())),
        }
    }

    async fn connect(&self) -> Result<Box<Connection>, Failure> {
        let connecting = self.connector.clone().oneshot(self.target.origin().clone());
        let io = tokio::time::timeout(self.settings.connect_timeout, connecting)
            .await
            .map_err(|_| Failure::Unreachable("connecting took too long".into()))?
            .map_err(|error| Failure::Unreachable(root_cause(&*error)))?;
        Ok(Connection::open(io).await?)
    }
}

fn connector(target: &Target) -> Result<HttpsConnector<HttpConnector>, SetupError> {
    let mut tcp = HttpConnector::new();
    tcp.set_nodelay(true);
    tcp.enforce_http(false);
    let provider = rustls::crypto::ring::default_provider();
    let builder = HttpsConnectorBuilder::new();
    let builder = match target.origin().scheme_str() {
        Some("https") => builder.with_provider_and_native_roots(provider)?,
        // A machine without certificates may still have a plain upstream.
        _ => builder.with_tls_config(
            rustls::ClientConfig::builder_with_provider(Arc::new(provider))
                .with_safe_default_protocol_versions()?
                .with_root_certificates(rustls::RootCertStore::empty())
                .with_no_client_auth(),
        ),
    };
    Ok(builder.https_or_http().enable_http1().wrap_connector(tcp))
}

/// Why there is no answer of the upstream's to give.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("the upstream cannot be reached: {0}")]
    Unreachable(String),
    /// It was sent, and may have run.
    #[error("the upstream closed the connection without an answer: {0}")]
    Disconnected(String),
    #[error("the upstream's answer is not HTTP: {0}")]
    NotHttp(String),
    #[error("the request's body broke off or is malformed: {0}")]
    RequestBody(String),
    #[error("{0}. Send the call again")]
    Stalled(String),
    #[error("the request's path cannot be sent upstream: {0}")]
    Path(http::Error),
    #[error("CONNECT is not served here")]
    Tunnel,
    #[error("this Transfer-Encoding is not understood. Accepted: chunked")]
    Coding,
}

impl From<hyper::Error> for Failure {
    fn from(error: hyper::Error) -> Failure {
        let cause = root_cause(&error);
        match () {
            () if error.is_canceled() => Failure::Unreachable(cause),
            () if error.is_parse() => Failure::NotHttp(cause),
            () if Stalled::is_in(&error) => Failure::Stalled(cause),
            () if error.is_user() => Failure::RequestBody(cause),
            () => Failure::Disconnected(cause),
        }
    }
}

impl Failure {
    /// OpenAI's error object, all four keys present (WIRE.md §3).
    fn into_response(self) -> Response<Body> {
        use StatusCode as Status;
        let (status, kind, code) = match &self {
            Failure::Unreachable(_) => (Status::BAD_GATEWAY, "api_error", "upstream_unreachable"),
            Failure::Disconnected(_) => (Status::BAD_GATEWAY, "api_error", "upstream_disconnected"),
            Failure::NotHttp(_) => (
                Status::BAD_GATEWAY,
                "api_error",
                "upstream_invalid_response",
            ),
            Failure::RequestBody(_) => (
                Status::BAD_REQUEST,
                "invalid_request_error",
                "unreadable_body",
            ),
            Failure::Stalled(_) => (
                Status::REQUEST_TIMEOUT,
                "invalid_request_error",
                "request_timeout",
            ),
            Failure::Path(_) => (Status::URI_TOO_LONG, "invalid_request_error", "bad_path"),
            Failure::Tunnel => (
                Status::METHOD_NOT_ALLOWED,
                "invalid_request_error",
                "method_not_supported",
            ),
            Failure::Coding => (
                Status::NOT_IMPLEMENTED,
                "invalid_request_error",
                "unsupported_transfer_encoding",
            ),
        };
        tracing::debug!(%status, code, "{self}");
        let error = serde_json::json!({"error": {
            "message": self.to_string(), "type": kind, "param": null, "code": code,
        }});
        errors::json(status, error.to_string()).map(Body::from)
    }
}

fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests;
