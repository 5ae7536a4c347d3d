//! A server in the place of an Offpeak: it says what a test tells it to.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{Response, StatusCode},
};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use offpeak::model::{id::RequestId, time::Timestamp};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    task::{JoinSet, yield_now},
    time::sleep,
};

pub struct Scripted {
    pub base: String,
    calls: Arc<Mutex<Vec<Call>>>,
    _serving: JoinSet<()>,
}

#[derive(Clone, Debug)]
pub struct Call {
    pub method: String,
    pub path: String,
    pub query: String,
    /// How many calls of this method and path there were before.
    pub nth: usize,
}

impl Call {
    pub fn after(&self) -> Option<&str> {
        let mut pairs = self.query.split('&');
        pairs.find_map(|pair| pair.strip_prefix("after="))
    }
}

impl Scripted {
    pub async fn start<F>(answer: F) -> Scripted
    where
        F: Fn(&Call) -> Response<Body> + Clone + Send + Sync + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let calls: Arc<Mutex<Vec<Call>>> = Arc::default();
        let heard = calls.clone();
        let router = Router::new().fallback(move |request: Request| {
            let mut heard = heard.lock();
            let (method, path) = (
                request.method().to_string(),
                request.uri().path().to_owned(),
            );
            let is_same = |call: &&Call| call.method == method && call.path == path;
            let call = Call {
                nth: heard.iter().filter(is_same).count(),
                query: request.uri().query().unwrap_or_default().to_owned(),
                method,
                path,
            };
            heard.push(call.clone());
            let response = answer(&call);
            async { response }
        });
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Scripted {
            base: format!("http://{address}"),
            calls,
            _serving: serving,
        }
    }

    /// The calls to this path.
    pub fn calls(&self, method: &str, path: &str) -> Vec<Call> {
        let calls = self.calls.lock();
        let of = |call: &&Call| call.method == method && call.path == path;
        calls.iter().filter(of).cloned().collect()
    }
}

pub const RESULTS: &str = "/offpeak/v1/results";
pub const CHAT: &str = "/v1/chat/completions";

/// A feed without an end, each place in it given by its cursor.
pub fn cursor(place: usize) -> String {
    format!("place-{place}")
}

pub fn id(number: usize) -> RequestId {
    // Of a random number the upper 80 bits count.
    let random = (1 + number as u128) << 48;
    RequestId::new(Timestamp::from_secs(1_795_348_800), random)
}

/// The number of the request that this path asks for.
pub fn asked(call: &Call, most: usize) -> Option<usize> {
    let name = call.path.strip_prefix("/offpeak/v1/requests/")?;
    (0..most).find(|number| id(*number).to_string() == name)
}

/// A call that was taken in.
pub fn taken(number: usize) -> Response<Body> {
    let response = Response::builder()
        .status(StatusCode::ACCEPTED)
        .header("offpeak-request-id", id(number).to_string());
    response.body(Body::from("{}")).unwrap()
}

pub fn refusal(status: u16, code: &str) -> Response<Body> {
    let body = json!({"error": {"code": code, "message": format!("It is {code}.")}});
    let response = Response::builder().status(status);
    response.body(Body::from(body.to_string())).unwrap()
}

pub fn known() -> Response<Body> {
    Response::new(Body::from("{}"))
}

/// A page, whose cursor is that of `end`.
pub fn page(end: usize, lines: &[String]) -> Response<Body> {
    let response = Response::builder().header("offpeak-cursor", cursor(end));
    response.body(Body::from(lines.concat())).unwrap()
}

/// A page that breaks off after these lines.
pub fn cut(end: usize, lines: Vec<String>) -> Response<Body> {
    let lines = lines.into_iter().map(|line| Ok(Bytes::from(line)));
    // What was said goes out before.
    let broken = async {
        yield_now().await;
        Err(io::Error::other("broken off"))
    };
    let body = Body::from_stream(stream::iter(lines).chain(stream::once(broken)));
    let response = Response::builder().header("offpeak-cursor", cursor(end));
    response.body(body).unwrap()
}

/// An answer that is begun and not ended.
pub fn hanging() -> Response<Body> {
    Response::new(Body::from_stream(stream::pending::<io::Result<Bytes>>()))
}

/// A page that goes on for ever, with the same line.
pub fn endless(line: String) -> Response<Body> {
    let lines = stream::repeat(Bytes::from(line)).then(|line| async {
        sleep(Duration::from_millis(20)).await;
        io::Result::Ok(line)
    });
    let response = Response::builder().header("offpeak-cursor", cursor(1));
    response.body(Body::from_stream(lines)).unwrap()
}

/// The feed's line at `place`: the answer to request `number`.
pub fn line(place: usize, number: usize) -> String {
    let line: Value = json!({
        "cursor": cursor(place), "id": id(number).to_string(), "endpoint": CHAT, "tag": null,
        "status_code": 200, "status": "succeeded", "finished_at": "2026-11-28T12:00:00.000Z",
        "provider_request_id": null, "cost_usd": "0.1", "saved_usd": "0.1",
        "response": {"answer": number},
    });
    format!("{line}\n")
}
