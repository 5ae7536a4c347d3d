//! One HTTP exchange: time limits, and whose fault a failure is.

use std::{error::Error, time::Duration};

use bytes::{Bytes, BytesMut};
use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri,
    header::{CONTENT_TYPE, DATE, RETRY_AFTER, USER_AGENT},
};
use http_body_util::{BodyExt, Empty, Full, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{self, Client, connect::capture_connection},
    rt::{TokioExecutor, TokioTimer},
};
use jiff::fmt::rfc2822;
use tokio::time::{Instant, timeout, timeout_at};

use super::connect::{BoxError, Connector, Dial};
use crate::{
    model::time::Timestamp,
    ports::{Credential, ProviderError},
};

/// An error body is for people; more than this of it helps nobody.
const ERROR_BODY: usize = 64 * 1024;
/// A control reply: at most 100 batch objects of a few KB.
const CONTROL_BODY: usize = 8 * 1024 * 1024;
/// A stored answer: the engine takes no larger one from a live call.
const ANSWER_BODY: usize = 256 * 1024 * 1024;
/// Idle connections are dropped before providers drop them (60 s and more),
/// because a call sent into a closing connection is a lost one.
const POOL_IDLE: Duration = Duration::from_secs(30);
/// Stands for "no limit" where an instant is needed.
pub(super) const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);
const AGENT: &str = concat!("offpeak/", env!("CARGO_PKG_VERSION"));

pub(super) type Body = UnsyncBoxBody<Bytes, BoxError>;

pub(super) fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

pub(super) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

pub(super) struct Transport<D> {
    client: Client<Connector<D>, Body>,
    /// Without a slash at its end.
    base: String,
    read_timeout: Duration,
}

/// What to send, but for the credential.
pub(super) struct Call {
    pub method: Method,
    /// Below the base URL, starting with a slash, escaped.
    pub path: String,
    /// Escaped, without the question mark.
    pub query: Option<String>,
    pub content_type: Option<&'static str>,
    pub body: Body,
}

impl<D: Dial> Transport<D> {
    pub fn new(base: String, connector: Connector<D>, read_timeout: Duration) -> Self {
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(POOL_IDLE)
            .pool_timer(TokioTimer::new())
            .build(connector);
        Transport {
            client,
            base,
            read_timeout,
        }
    }

    /// The base URL, without a slash at its end.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Sends a control call; the head of its success, or its refusal.
    pub async fn control(
        &self,
        by: &Credential,
        call: Call,
    ) -> Result<Response<Incoming>, ProviderError> {
        let limit = from_now(self.read_timeout);
        let response = self.head(by, call, move || limit).await?;
        self.accept(response).await
    }

    /// Sends a call; the head of whatever is answered by `deadline`, which may
    /// move while the call is under way.
    pub async fn head(
        &self,
        by: &Credential,
        call: Call,
        deadline: impl Fn() -> Instant + Send,
    ) -> Result<Response<Incoming>, ProviderError> {
        let mut request = self.request(by, call)?;
        let connection = capture_connection(&mut request);
        let mut response = std::pin::pin!(self.client.request(request));
        loop {
            let limit = deadline();
            match timeout_at(limit, &mut response).await {
                Ok(result) => return result.map_err(|error| classify(&error)),
                Err(_) if deadline() > limit => {}
                Err(_) => {
                    let sent = connection.connection_metadata().is_some();
                    return Err(if sent {
                        ProviderError::Lost("no answer in time".to_owned())
                    } else {
                        ProviderError::Unreachable("no connection in time".to_owned())
                    });
                }
            }
        }
    }

    fn request(&self, by: &Credential, call: Call) -> Result<Request<Body>, ProviderError> {
        let query = match (call.query, by.query.clone()) {
            (Some(own), Some(theirs)) => Some(format!("{own}&{theirs}")),
            (own, theirs) => own.or(theirs),
        };
        let mut uri = format!("{}{}", self.base, call.path);
        if let Some(query) = query {
            uri.push('?');
            uri += &query;
        }
        // The query may hold a key, so the error does not show it.
        let uri: Uri = uri
            .parse()
            .map_err(|error| ProviderError::Local(format!("not a usable URL: {error}")))?;

        let mut request = Request::new(call.body);
        *request.method_mut() = call.method;
        *request.uri_mut() = uri;
        let headers = request.headers_mut();
        for (name, value) in &by.headers {
            let unusable =
                || ProviderError::Local(format!("the credential's header `{name}` is not usable"));
            let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| unusable())?;
            let mut value = HeaderValue::from_str(value).map_err(|_| unusable())?;
            value.set_sensitive(true);
            headers.append(key, value);
        }
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        if let Some(content_type) = call.content_type {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        Ok(request)
    }

    /// Turns an error status into the refusal it is.
    pub async fn accept(
        &self,
        response: Response<Incoming>,
    ) -> Result<Response<Incoming>, ProviderError> {
        if response.status().is_success() {
            return Ok(response);
        }
        let (head, body) = response.into_parts();
        // The status is the news: a body that breaks off is shown as far as it came.
        let (body, _) = self.gather(body, ERROR_BODY).await;
        Err(refusal(head.status, &head.headers, body))
    }

    /// The body of a success.
    pub async fn body(&self, response: Response<Incoming>) -> Result<Bytes, ProviderError> {
        self.whole(response, CONTROL_BODY).await
    }

    /// The body of a success that may hold an answer.
    pub async fn answer(&self, response: Response<Incoming>) -> Result<Bytes, ProviderError> {
        self.whole(response, ANSWER_BODY).await
    }

    async fn whole(
        &self,
        response: Response<Incoming>,
        limit: usize,
    ) -> Result<Bytes, ProviderError> {
        match self.gather(response.into_body(), limit).await {
            (body, End::Whole) => Ok(body),
            (_, End::Broken(error)) => Err(error),
            (_, End::TooLong) => Err(ProviderError::Malformed(format!(
                "longer than {limit} bytes"
            ))),
        }
    }

    /// Reads a success whose body does not matter, so that the connection can
    /// carry another call.
    pub async fn drain(&self, response: Response<Incoming>) {
        let (_, end) = self.gather(response.into_body(), ERROR_BODY).await;
        if let End::Broken(error) = end {
            tracing::debug!(%error, "the rest of a success was not readable");
        }
    }

    async fn gather(&self, body: Incoming, limit: usize) -> (Bytes, End) {
        let mut pieces = pieces(body, self.read_timeout);
        let mut gathered = BytesMut::new();
        while let Some(piece) = pieces.next().await {
            match piece {
                Ok(piece) => {
                    let room = limit - gathered.len();
                    gathered.extend_from_slice(&piece[..piece.len().min(room)]);
                    if piece.len() > room {
                        return (gathered.freeze(), End::TooLong);
                    }
                }
                Err(error) => return (gathered.freeze(), End::Broken(error)),
            }
        }
        (gathered.freeze(), End::Whole)
    }

    /// A body as it comes. A body cut short, or silent for too long, ends in an
    /// error, and so tells itself from one that is complete.
    pub fn pieces(&self, body: Incoming) -> BoxStream<'static, Result<Bytes, ProviderError>> {
        pieces(body, self.read_timeout)
    }
}

enum End {
    Whole,
    TooLong,
    Broken(ProviderError),
}

/// The instant after `span`, however long that is.
pub(super) fn from_now(span: Duration) -> Instant {
    Instant::now() + span.min(FOREVER)
}

fn pieces(body: Incoming, silence: Duration) -> BoxStream<'static, Result<Bytes, ProviderError>> {
    stream::unfold(Some(body), move |body| async move {
        let mut body = body?;
        loop {
            return match timeout(silence, body.frame()).await {
                Ok(None) => None,
                Ok(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => Some((Ok(data), Some(body))),
                    Err(_trailers) => continue,
                },
                Ok(Some(Err(error))) => Some((Err(ProviderError::Lost(chain(&error))), None)),
                Err(_) => {
                    let silent = "the body fell silent".to_owned();
                    Some((Err(ProviderError::Lost(silent)), None))
                }
            };
        }
    })
    .boxed()
}

/// hyper says `canceled` only of a request that it hands back unsent.
fn classify(error: &legacy::Error) -> ProviderError {
    let unsent = error
        .source()
        .and_then(|source| source.downcast_ref::<hyper::Error>())
        .is_some_and(hyper::Error::is_canceled);
    if error.is_connect() || unsent {
        ProviderError::Unreachable(chain(error))
    } else {
        ProviderError::Lost(chain(error))
    }
}

/// An error with its causes.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    text
}

fn refusal(status: StatusCode, headers: &HeaderMap, body: Bytes) -> ProviderError {
    let should_retry = match text(headers, "x-should-retry") {
        Some("true") => Some(true),
        Some("false") => Some(false),
        _ => None,
    };
    ProviderError::Refused {
        status: status.as_u16(),
        body,
        retry_after: retry_after(headers),
        should_retry,
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    Some(headers.get(name)?.to_str().ok()?.trim())
}

/// The sender's clock (RFC 9110 §6.6.1), in whole seconds.
pub(super) fn date(headers: &HeaderMap) -> Option<Timestamp> {
    let date = parse_date(text(headers, DATE.as_str())?)?;
    let millis = u64::try_from(date.as_millisecond()).ok()?;
    Some(Timestamp::from_millis(millis))
}

fn parse_date(text: &str) -> Option<jiff::Timestamp> {
    rfc2822::DateTimeParser::new().parse_timestamp(text).ok()
}

/// `retry-after-ms` is the finer one (WIRE.md §3). A date counts from the
/// answer's own `Date`, so that no clock needs to agree with the provider's.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let number = |text: &str| text.parse::<f64>().ok();
    if let Some(millis) = text(headers, "retry-after-ms").and_then(number) {
        return Duration::try_from_secs_f64(millis / 1000.0).ok();
    }
    let value = text(headers, RETRY_AFTER.as_str())?;
    if let Some(seconds) = number(value) {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let then = parse_date(value)?;
    let now = parse_date(text(headers, DATE.as_str())?)?;
    let wait = then.duration_since(now);
    Some(Duration::try_from(wait).unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_to_come_back() {
        for (headers, expected) in [
            (&[("retry-after", "7")][..], Some(7_000)),
            (&[("retry-after", "0.5")], Some(500)),
            (
                &[("retry-after", "7"), ("retry-after-ms", "120")],
                Some(120),
            ),
            (
                &[
                    ("retry-after", "Sun, 06 Nov 1994 08:50:07 GMT"),
                    ("date", "Sun, 06 Nov 1994 08:49:37 GMT"),
                ],
                Some(30_000),
            ),
            (
                &[
                    ("retry-after", "Sun, 06 Nov 1994 08:49:07 GMT"),
                    ("date", "Sun, 06 Nov 1994 08:49:37 GMT"),
                ],
                Some(0),
            ),
            (&[("retry-after", "Sun, 06 Nov 1994 08:50:07 GMT")], None),
            (&[("retry-after", "-1")], None),
            (&[("retry-after", "NaN")], None),
            (&[("retry-after", "soon")], None),
            (&[], None),
        ] {
            let map: HeaderMap = headers
                .iter()
                .map(|&(name, value)| {
                    (
                        HeaderName::from_static(name),
                        HeaderValue::from_static(value),
                    )
                })
                .collect();
            let expected = expected.map(Duration::from_millis);
            assert_eq!(retry_after(&map), expected, "{headers:?}");
        }
    }
}
