//! Providers that are not as they should be, in front of the simulator or in its place.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::Request,
    http::{Response, StatusCode},
    middleware::{Next, from_fn},
    response::IntoResponse,
};
use offpeak::simulator::{Settings, Simulator};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::{net::TcpListener, task::JoinSet};

use crate::kill::provider::Provider;

/// In real time, as its `Date` is, and with nothing to wait for.
pub fn brisk() -> Settings {
    let mut settings = Settings::default();
    let latency = &mut settings.latency;
    latency.validation = Duration::from_millis(200);
    latency.turnaround_median = Duration::from_millis(200);
    latency.turnaround_sigma = 0.0;
    latency.stalled_share = 0.0;
    latency.finalizing = Duration::from_millis(200);
    latency.cancel = Duration::from_millis(200);
    latency.live_median = Duration::ZERO;
    latency.live_chunk = Duration::ZERO;
    settings
}

/// A server that ends with this.
pub struct Stub {
    pub address: SocketAddr,
    _serving: JoinSet<()>,
}

impl Stub {
    pub async fn start(router: Router) -> Stub {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Stub {
            address,
            _serving: serving,
        }
    }

    /// The simulator, its answers changed on their way.
    pub async fn altering<F>(simulator: &Arc<Simulator>, alter: F) -> Stub
    where
        F: Fn(&str, &mut Parts) + Clone + Send + Sync + 'static,
    {
        let changed = from_fn(move |request: Request, next: Next| {
            let alter = alter.clone();
            async move {
                let call = format!("{} {}", request.method(), request.uri().path());
                let (mut head, body) = next.run(request).await.into_parts();
                let bytes = to_bytes(body, usize::MAX).await.unwrap();
                let mut parts = Parts {
                    status: head.status,
                    headers: head.headers.clone(),
                    text: String::from_utf8(bytes.to_vec()).unwrap(),
                };
                alter(&call, &mut parts);
                head.status = parts.status;
                head.headers = parts.headers;
                head.headers.remove("content-length");
                Response::from_parts(head, Body::from(parts.text))
            }
        });
        Stub::start(simulator.router().layer(changed)).await
    }

    pub fn base(&self) -> String {
        format!("http://{}/v1", self.address)
    }
}

/// An answer that may be changed.
pub struct Parts {
    pub status: StatusCode,
    pub headers: axum::http::HeaderMap,
    pub text: String,
}

impl Parts {
    pub fn json(&mut self, change: impl FnOnce(&mut Value)) {
        let mut body: Value = serde_json::from_str(&self.text).unwrap();
        change(&mut body);
        self.text = body.to_string();
    }
}

/// One that answers everything alike, and counts.
pub async fn counting(calls: Arc<Mutex<Vec<String>>>) -> Stub {
    let counted = move |request: Request| {
        let call = format!("{} {}", request.method(), request.uri().path());
        calls.lock().push(call);
        async { StatusCode::OK.into_response() }
    };
    Stub::start(Router::new().fallback(counted)).await
}

/// That nothing of `key` is left there: no file, and no batch that goes on.
pub async fn nothing_is_left(provider: &Provider, key: &str) {
    let files = http().get(format!("{}/files", provider.upstream()));
    let files = files.bearer_auth(key).send().await.unwrap();
    let files: Value = files.json().await.unwrap();
    assert_eq!(files["data"], serde_json::json!([]), "{files}");
    let ended = ["completed", "cancelled", "failed", "expired"];
    for batch in provider.simulator.log().batches {
        assert!(
            ended.contains(&batch.status),
            "{}: {}",
            batch.id,
            batch.status
        );
    }
}

/// As an SDK would call.
pub fn http() -> reqwest::Client {
    // Plain HTTP on loopback, yet reqwest wants a TLS provider to be there.
    let _another_was_first = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().unwrap()
}
