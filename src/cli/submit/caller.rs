//! The calls of a run: each line's, and the feed.

use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use http::HeaderMap;
use reqwest::{Response, StatusCode};
use serde_json::{
    Value,
    value::{RawValue, to_raw_value},
};
use tokio::io::AsyncBufRead;
use tokio_util::io::StreamReader;

use super::pace::{Over, Pace};
use crate::{
    cli::{Failure, remote::root_cause},
    model::{body::walk::compact, endpoint::Endpoint, id::RequestId},
};

/// How long the feed is asked to wait.
const WAIT: u64 = 45;
const CONNECT: Duration = Duration::from_secs(10);
/// Silence within an answer, the feed's waiting included.
const SILENCE: Duration = Duration::from_secs(90);
/// What a call may still take once the run is to stop.
const LAST_ANSWERS: Duration = Duration::from_secs(10);

pub struct Caller {
    http: reqwest::Client,
    base: String,
    key: String,
    pub pace: Pace,
}

/// A line on its way.
pub struct Line {
    pub number: u64,
    pub endpoint: Endpoint,
    pub body: Bytes,
    pub idempotency_key: String,
}

/// The headers that all lines of a run share.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    pub deadline: String,
    pub tag: Option<String>,
    pub on_late: Option<String>,
}

/// What became of a call.
#[derive(Debug)]
pub enum Sent {
    Taken(RequestId),
    /// The server refuses this line, now and always.
    Refused(u16, Box<RawValue>),
    /// No line can be sent: the reason, for people.
    Halted(String),
    /// Nothing is known of it.
    Over(Over),
}

/// A look at the feed.
pub enum Page {
    /// The cursor behind it, and its lines.
    Lines(String, Box<dyn AsyncBufRead + Send + Unpin>),
    /// The cursor is older than what is kept.
    Expired,
    /// The cursor was not given out by this server to this key.
    Foreign,
    Halted(String),
}

impl Caller {
    pub fn new(base: &str, key: String, pace: Pace) -> Result<Caller, Failure> {
        // reqwest wants a TLS provider to be there.
        let _another_was_first = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            .read_timeout(SILENCE)
            .build()
            .map_err(|error| Failure::Other(root_cause(&error)))?;
        Ok(Caller {
            http,
            base: base.to_owned(),
            key,
            pace,
        })
    }

    /// Sends a line until the server has said what becomes of it.
    pub async fn send(&self, line: &Line, terms: &Terms) -> Sent {
        let mut tries = 0;
        loop {
            if let Err(over) = self.pace.turn().await {
                return Sent::Over(over);
            }
            let asked = tokio::select! {
                asked = self.post(line, terms) => asked,
                () = self.last_answers() => return Sent::Over(Over::Stopped),
            };
            let lost = match asked {
                Ok(Asked::Answered(sent)) => {
                    self.pace.well();
                    return sent;
                }
                Ok(Asked::Later(wait)) => {
                    self.pace.later(wait, tries);
                    Ok(())
                }
                Ok(Asked::Distress) | Err(_) => self.pace.lost(tries),
            };
            if let Err(over) = lost {
                return Sent::Over(over);
            }
            tries += 1;
        }
    }

    /// What ends behind the cursor, waited for a while; asked until it is told.
    pub async fn feed(&self, cursor: Option<&str>) -> Result<Page, Over> {
        self.page(&format!("limit=1000&wait={WAIT}"), cursor).await
    }

    /// Whether the cursor is of this server and key; its page is not read.
    pub async fn tries(&self, cursor: Option<&str>) -> Result<Page, Over> {
        self.page("limit=1", cursor).await
    }

    async fn page(&self, query: &str, cursor: Option<&str>) -> Result<Page, Over> {
        let mut path = format!("/offpeak/v1/results?{query}");
        if let Some(cursor) = cursor {
            path += &format!("&after={cursor}");
        }
        let reply = self.get(&path).await?;
        let status = reply.status();
        if status.is_success() {
            let cursor = text(reply.headers(), "offpeak-cursor").unwrap_or_default();
            let bytes = reply.bytes_stream().map_err(std::io::Error::other);
            return Ok(Page::Lines(
                cursor,
                Box::new(StreamReader::new(Box::pin(bytes))),
            ));
        }
        self.pace.well();
        let (code, message) = told(&reply.bytes().await.unwrap_or_default());
        Ok(match code.as_str() {
            "cursor_expired" => Page::Expired,
            "invalid_cursor" => Page::Foreign,
            _ => Page::Halted(format!("the feed: {status}: {message}")),
        })
    }

    /// Where the feed ends now.
    ///
    /// # Errors
    /// No server there, no Offpeak, or its refusal.
    pub async fn feed_end(&self) -> Result<String, Failure> {
        let url = format!("{}/offpeak/v1/results?after=end", self.base);
        let reply = self.http.get(&url).bearer_auth(&self.key).send().await;
        let reply = reply.map_err(|error| {
            let why = root_cause(&error);
            Failure::Other(format!("no answer from an Offpeak at {}: {why}", self.base))
        })?;
        let status = reply.status();
        match text(reply.headers(), "offpeak-cursor") {
            Some(cursor) if status.is_success() => Ok(cursor),
            _ => {
                let (_, message) = told(&reply.bytes().await.unwrap_or_default());
                Err(Failure::Other(format!("{url}: {status}: {message}")))
            }
        }
    }

    /// Whether the server knows the request.
    pub async fn knows(&self, id: RequestId) -> Result<bool, Over> {
        let reply = self.get(&format!("/offpeak/v1/requests/{id}")).await?;
        self.pace.well();
        if reply.status() != StatusCode::NOT_FOUND {
            return Ok(true);
        }
        // A proxy's own 404 says nothing of the request.
        Ok(told(&reply.bytes().await.unwrap_or_default()).0 != "not_found")
    }

    /// Whether it knows one of them.
    pub async fn knows_any(&self, ids: &[RequestId]) -> Result<bool, Over> {
        for id in ids {
            if self.knows(*id).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Asks until there is an answer that is none of distress. Who reads it says that it
    /// was well.
    async fn get(&self, path: &str) -> Result<Response, Over> {
        let mut tries = 0;
        loop {
            self.pace.turn().await?;
            let call = self.http.get(format!("{}{path}", self.base));
            let reply = tokio::select! {
                reply = call.bearer_auth(&self.key).send() => reply,
                () = self.pace.stop.cancelled() => return Err(Over::Stopped),
            };
            match reply {
                Ok(reply) if reply.status() == StatusCode::TOO_MANY_REQUESTS => {
                    self.pace.later(retry_after(reply.headers()), tries);
                }
                Ok(reply) if reply.status().is_server_error() => {
                    match retry_after(reply.headers()) {
                        None => self.pace.lost(tries)?,
                        wait => self.pace.later(wait, tries),
                    }
                }
                Ok(reply) => {
                    // A key that has nothing to wait for is answered at once.
                    if let Some(wait) = retry_after(reply.headers()) {
                        self.pace.later(Some(wait), tries);
                    }
                    return Ok(reply);
                }
                Err(_) => self.pace.lost(tries)?,
            }
            tries += 1;
        }
    }

    async fn last_answers(&self) {
        self.pace.stop.cancelled().await;
        tokio::time::sleep(LAST_ANSWERS).await;
    }

    async fn post(&self, line: &Line, terms: &Terms) -> reqwest::Result<Asked> {
        let mut call = self
            .http
            .post(format!("{}{}", self.base, line.endpoint.path()))
            .bearer_auth(&self.key)
            .header("content-type", "application/json")
            .header("prefer", "respond-async")
            .header("offpeak-deadline", &terms.deadline)
            .header("idempotency-key", &line.idempotency_key);
        for (name, value) in [
            ("offpeak-tag", &terms.tag),
            ("offpeak-on-late", &terms.on_late),
        ] {
            if let Some(value) = value {
                call = call.header(name, value);
            }
        }
        let reply = call.body(line.body.clone()).send().await?;
        let (status, headers) = (reply.status(), reply.headers().clone());
        // Its answer, where it is there already, is in the feed like all others.
        if let Some(id) = text(&headers, "offpeak-request-id").and_then(|id| id.parse().ok()) {
            return Ok(Asked::Answered(Sent::Taken(id)));
        }
        let body = reply.bytes().await?;
        Ok(judged(status, &headers, &body))
    }
}

#[derive(Debug)]
enum Asked {
    Answered(Sent),
    /// It asks to wait.
    Later(Option<Duration>),
    Distress,
}

/// Refusals that hold for all lines of a run.
const OF_ALL: [&str; 8] = [
    "not_deferrable",
    "invalid_deadline",
    "deadline_too_short",
    "invalid_header",
    "unknown_header",
    "unknown_upstream_url",
    "invalid_api_key",
    "budget_exceeded",
];

/// An answer that names no request: nothing was taken in.
fn judged(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Asked {
    let (code, message) = told(body);
    let halted = || {
        let why = format!("the server refuses these lines: {status}: {message}");
        Asked::Answered(Sent::Halted(why))
    };
    match status {
        status if status.is_success() => {
            let why = match text(headers, "offpeak-reason").as_deref() {
                Some("not-deferrable") => "is its endpoint not among admission.endpoints?",
                _ => "is --url that of an Offpeak?",
            };
            let why = format!("a line was answered at once, and not taken in: {why}");
            Asked::Answered(Sent::Halted(why))
        }
        _ if OF_ALL.contains(&code.as_str()) => halted(),
        StatusCode::UNAUTHORIZED => halted(),
        StatusCode::FORBIDDEN if !code.starts_with("model_") => halted(),
        StatusCode::TOO_MANY_REQUESTS => Asked::Later(retry_after(headers)),
        StatusCode::REQUEST_TIMEOUT => Asked::Distress,
        status if status.is_server_error() => match retry_after(headers) {
            None => Asked::Distress,
            wait => Asked::Later(wait),
        },
        // A proxy's own word, as while what is behind it starts again.
        status if is_of_others(&code, &message) && status != StatusCode::PAYLOAD_TOO_LARGE => {
            Asked::Distress
        }
        status => Asked::Answered(Sent::Refused(status.as_u16(), on_one_line(body))),
    }
}

/// An error's code and message, in OpenAI's shape.
fn told(body: &[u8]) -> (String, String) {
    let error: Value = serde_json::from_slice(body).unwrap_or_default();
    let field = |name: &str| error["error"][name].as_str().unwrap_or_default().to_owned();
    (field("code"), field("message"))
}

/// Offpeak's errors have a message at least, and so have the provider's.
fn is_of_others(code: &str, message: &str) -> bool {
    code.is_empty() && message.is_empty()
}

/// What is no JSON is a string.
fn on_one_line(body: &[u8]) -> Box<RawValue> {
    let json = serde_json::from_slice::<&RawValue>(body).ok();
    let compacted = json.and_then(|json| {
        let mut line = Vec::new();
        compact(json.get(), &mut line);
        RawValue::from_string(String::from_utf8(line).ok()?).ok()
    });
    compacted.unwrap_or_else(|| {
        let text = String::from_utf8_lossy(body);
        to_raw_value(&text).unwrap_or_else(|_| RawValue::NULL.to_owned())
    })
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: u64 = text(headers, "retry-after")?.parse().ok()?;
    Some(Duration::from_secs(seconds.min(3600)))
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_refusal_means() {
        let table = [
            (400, "missing_required_parameter", "refused"),
            (404, "model_not_found", "refused"),
            (413, "request_too_large", "refused"),
            (422, "idempotency_key_reused", "refused"),
            (403, "model_not_allowed", "refused"),
            (403, "passthrough_not_allowed", "halted"),
            (400, "invalid_deadline", "halted"),
            (401, "invalid_api_key", "halted"),
            (404, "unknown_upstream_url", "halted"),
            (429, "budget_exceeded", "halted"),
            (400, "not_deferrable", "halted"),
            (200, "", "halted"),
            (429, "queue_full", "later 7"),
            (408, "request_timeout", "distress"),
            (503, "starting", "later 7"),
            (507, "storage_full", "later 7"),
        ];
        let mut headers = HeaderMap::new();
        headers.insert("retry-after", http::HeaderValue::from_static("7"));
        for (status, code, expected) in table {
            let body = format!("{{\n\"error\":{{\"code\":\"{code}\",\"message\":\"m\"}}}}");
            let status = StatusCode::from_u16(status).unwrap();
            let meant = match judged(status, &headers, body.as_bytes()) {
                Asked::Answered(Sent::Refused(given, body)) => {
                    assert_eq!(given, status.as_u16());
                    assert!(!body.get().contains('\n'), "{body}");
                    "refused".into()
                }
                Asked::Answered(Sent::Halted(_)) => "halted".into(),
                Asked::Later(wait) => format!("later {}", wait.unwrap().as_secs()),
                Asked::Distress => "distress".into(),
                other => panic!("{other:?}"),
            };
            assert_eq!(meant, expected, "{status} {code}");
        }
        let silent = judged(StatusCode::SERVICE_UNAVAILABLE, &HeaderMap::new(), b"");
        assert!(matches!(silent, Asked::Distress), "{silent:?}");
        let proxys = judged(
            StatusCode::NOT_FOUND,
            &HeaderMap::new(),
            b"404 page not found\n",
        );
        assert!(matches!(proxys, Asked::Distress), "{proxys:?}");
    }

    #[test]
    fn an_answer_that_was_bought_at_once_is_explained() {
        let mut headers = HeaderMap::new();
        for expected in ["of an Offpeak?", "admission.endpoints"] {
            let judged = judged(StatusCode::OK, &headers, b"{}");
            let Asked::Answered(Sent::Halted(why)) = judged else {
                panic!("{judged:?}");
            };
            assert!(why.contains(expected), "{why}");
            let reason = http::HeaderValue::from_static("not-deferrable");
            headers.insert("offpeak-reason", reason);
        }
    }
}
