//! Callers: what an application sends, what it reads, and that it sends a call
//! again when its connection breaks.

use std::sync::Arc;

use http::{HeaderMap, Method, StatusCode};
use offpeak::simulator::{answer_mark, fingerprint};
use serde_json::{Value, json};

use super::{
    process::Up,
    provider::{Point, SEED, Trap},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Async,
    /// With an Idempotency-Key.
    Keyed,
    Held,
    Stream,
    Wait,
    Webhook,
    /// Responses in background mode.
    Background,
    Embeddings,
}

#[derive(Clone, Debug)]
pub struct Call {
    pub number: usize,
    pub key: &'static str,
    pub mode: Mode,
    pub body: String,
    pub headers: Vec<(&'static str, String)>,
}

impl Call {
    pub fn new(number: usize, key: &'static str, model: &str, mode: Mode, deadline: &str) -> Self {
        let question = format!("Call {number} of the load, please.");
        let mut body = match mode {
            Mode::Background => json!({"model": model, "input": question, "background": true}),
            Mode::Embeddings => json!({"model": "text-embedding-3-small", "input": question}),
            _ => json!({"model": model, "messages": [{"role": "user", "content": question}]}),
        };
        if mode == Mode::Stream {
            body["stream"] = true.into();
            // What streams live is billed by the usage that it tells.
            body["stream_options"] = serde_json::json!({"include_usage": true});
        }
        if mode != Mode::Embeddings {
            body["metadata"] = json!({"sim": "tokens=40"});
        }
        let mut headers = vec![
            ("authorization", format!("Bearer {key}")),
            ("content-type", "application/json".to_owned()),
            ("offpeak-deadline", deadline.to_owned()),
            ("offpeak-tag", format!("call-{number}")),
        ];
        match mode {
            Mode::Async | Mode::Embeddings => headers.push(("prefer", "respond-async".into())),
            Mode::Keyed => headers.extend([
                ("prefer", "respond-async".to_owned()),
                ("idempotency-key", format!("key-{number}")),
            ]),
            Mode::Wait => headers.push(("prefer", "wait=1".into())),
            Mode::Held | Mode::Stream | Mode::Webhook | Mode::Background => {}
        }
        Call {
            number,
            key,
            mode,
            body: body.to_string(),
            headers,
        }
    }

    /// The simulator's steering words, in place of the ordinary ones.
    pub fn steered(self, words: &str) -> Self {
        self.with("metadata", json!({"sim": words}))
    }

    /// With this field in its body.
    pub fn with(mut self, name: &str, value: Value) -> Self {
        let mut body: Value = serde_json::from_str(&self.body).unwrap();
        body[name] = value;
        self.body = body.to_string();
        self
    }

    /// The same without a deadline: it passes through.
    pub fn straight(mut self) -> Self {
        self.headers
            .retain(|(name, _)| !name.starts_with("offpeak"));
        self
    }

    /// A longer question.
    pub fn padded(self, bytes: usize) -> Self {
        self.with("user", "x".repeat(bytes).into())
    }

    pub fn path(&self) -> &'static str {
        match self.mode {
            Mode::Background => "/v1/responses",
            Mode::Embeddings => "/v1/embeddings",
            _ => "/v1/chat/completions",
        }
    }

    /// A call that is sent again finds its request: there is one of it only.
    pub fn is_found_again(&self) -> bool {
        matches!(self.mode, Mode::Keyed | Mode::Held | Mode::Stream)
    }

    pub fn fingerprint(&self) -> String {
        fingerprint(&self.body).unwrap()
    }

    /// Whether `body` is the answer to this call, and not to another one.
    pub fn is_answered_by(&self, body: &str) -> bool {
        let Ok(body) = serde_json::from_str::<Value>(body) else {
            return false;
        };
        match self.mode {
            Mode::Embeddings => body["data"][0]["embedding"].is_array(),
            _ => body.to_string().contains(&self.mark()),
        }
    }

    fn mark(&self) -> String {
        answer_mark(SEED, &self.body).unwrap()
    }
}

/// What a caller has read when its connection ended well.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: String,
}

impl Reply {
    /// `op_…`.
    pub fn request(&self) -> Option<String> {
        request_id(&self.headers)
    }
}

fn request_id(headers: &HeaderMap) -> Option<String> {
    let id = headers.get("offpeak-request-id")?;
    Some(id.to_str().unwrap().to_owned())
}

/// The connection broke.
#[derive(Debug)]
pub struct Broken {
    /// The request that the head named before that.
    pub request: Option<String>,
}

#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    trap: Arc<Trap>,
}

impl Client {
    pub fn new(trap: Arc<Trap>) -> Self {
        // So that a broken connection is always this call's own.
        Client::keeping(trap, 0)
    }

    /// One that keeps so many connections for its next calls.
    pub fn keeping(trap: Arc<Trap>, idle: usize) -> Self {
        // reqwest wants a TLS provider to be there, for plain HTTP too.
        let _another_was_first = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .no_proxy()
            .pool_max_idle_per_host(idle)
            .build()
            .unwrap();
        Client { http, trap }
    }

    /// Sends the call for the `tries`-th time, from 0.
    pub async fn send(&self, up: &Up, call: &Call, tries: usize) -> Result<Reply, Broken> {
        let mut request = self.http.post(format!("{}{}", up.base, call.path()));
        for (name, value) in &call.headers {
            request = request.header(*name, value);
        }
        // SDKs count their re-sends; the libraries on top of them do not.
        if call.number.is_multiple_of(2) {
            request = request.header("x-stainless-retry-count", tries.min(2));
        }
        self.read(request.body(call.body.clone())).await
    }

    /// A call without a body.
    pub async fn ask(
        &self,
        up: &Up,
        key: &str,
        method: Method,
        path: &str,
    ) -> Result<Reply, Broken> {
        let request = self.http.request(method, format!("{}{path}", up.base));
        self.read(request.bearer_auth(key)).await
    }

    /// `wait`: the seconds of a long poll.
    pub async fn get(&self, up: &Up, key: &str, path: &str, wait: u32) -> Result<Reply, Broken> {
        let mut request = self.http.get(format!("{}{path}", up.base));
        if wait > 0 {
            request = request.header("prefer", format!("wait={wait}"));
        }
        self.read(request.bearer_auth(key)).await
    }

    async fn read(&self, request: reqwest::RequestBuilder) -> Result<Reply, Broken> {
        let broken = |request| move |_: reqwest::Error| Broken { request };
        let mut response = request.send().await.map_err(broken(None))?;
        let (status, headers) = (response.status(), response.headers().clone());
        let mut body = Vec::new();
        while let Some(piece) = response
            .chunk()
            .await
            .map_err(broken(request_id(&headers)))?
        {
            body.extend_from_slice(&piece);
            self.trap.pass(Point::Dripped);
        }
        self.trap.pass(match status {
            StatusCode::ACCEPTED => Point::Acknowledged,
            _ => Point::Answered,
        });
        let mut body = String::from_utf8(body).unwrap();
        if is_stream(&headers) {
            let Some(whole) = assemble(&body) else {
                panic!("a stream that ended well, but not with [DONE]: {body}");
            };
            body = whole;
        }
        Ok(Reply {
            status,
            headers,
            body,
        })
    }
}

fn is_stream(headers: &HeaderMap) -> bool {
    headers
        .get("content-type")
        .is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"))
}

/// A streamed answer's text as a JSON string, or its error event; none where it
/// was cut.
fn assemble(stream: &str) -> Option<String> {
    let mut text = String::new();
    let mut done = false;
    for event in stream
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
    {
        if event == "[DONE]" {
            done = true;
            continue;
        }
        let chunk: Value = serde_json::from_str(event).ok()?;
        if !chunk["error"].is_null() {
            return Some(chunk.to_string());
        }
        text.push_str(
            chunk["choices"][0]["delta"]["content"]
                .as_str()
                .unwrap_or(""),
        );
    }
    done.then(|| Value::from(text).to_string())
}
