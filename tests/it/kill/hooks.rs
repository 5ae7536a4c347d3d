//! A caller's own server, which receives webhooks.

use std::{collections::HashMap, sync::Arc};

use axum::{Router, extract::State, routing::post};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;
use serde_json::Value;
use standardwebhooks::Webhook;
use tokio::{net::TcpListener, sync::watch, task::JoinSet};

use super::provider::{Point, Trap};

/// One webhook as it came.
#[derive(Debug, Clone)]
pub struct Received {
    /// `webhook-id`.
    pub id: String,
    /// `data.id`, the request's.
    pub request: String,
    /// By the secret of one of the tenants: which.
    pub signed_by: Option<usize>,
    pub event: Value,
}

pub struct Hooks {
    pub url: String,
    secrets: Mutex<Vec<Webhook>>,
    trap: Arc<Trap>,
    received: Mutex<Vec<Received>>,
    count: watch::Sender<usize>,
    serving: Mutex<JoinSet<()>>,
}

impl Hooks {
    pub async fn start(trap: Arc<Trap>) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let hooks = Arc::new(Hooks {
            url: format!("http://{}/hook", listener.local_addr().unwrap()),
            secrets: Mutex::default(),
            trap,
            received: Mutex::default(),
            count: watch::Sender::new(0),
            serving: Mutex::default(),
        });
        let router = Router::new()
            .route("/hook", post(receive))
            .with_state(hooks.clone());
        hooks.serving.lock().spawn(async move {
            axum::serve(listener, router).await.unwrap();
        });
        hooks
    }

    pub fn add_secret(&self, secret: &str) {
        self.secrets.lock().push(Webhook::new(secret).unwrap());
    }

    /// Waits until a webhook has come for each of `requests`.
    pub async fn all_of(&self, requests: &[String]) {
        let mut count = self.count.subscribe();
        let complete = count.wait_for(|_| {
            let by_request = self.by_request();
            requests.iter().all(|id| by_request.contains_key(id))
        });
        super::soon("all webhooks", complete).await.unwrap();
    }

    pub fn by_request(&self) -> HashMap<String, Vec<Received>> {
        let mut by_request: HashMap<String, Vec<Received>> = HashMap::new();
        for received in self.received.lock().iter() {
            by_request
                .entry(received.request.clone())
                .or_default()
                .push(received.clone());
        }
        by_request
    }
}

/// Every fifth delivery is refused at first: it must come again.
async fn receive(State(hooks): State<Arc<Hooks>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let event: Value = serde_json::from_slice(&body).unwrap_or_default();
    let verified = |secret: &Webhook| is_signed_by(secret, &headers, &body);
    let number = {
        let signed_by = hooks.secrets.lock().iter().position(verified);
        let mut received = hooks.received.lock();
        received.push(Received {
            id: text(headers.get("webhook-id").map(|value| value.as_bytes())),
            request: text(event["data"]["id"].as_str().map(str::as_bytes)),
            signed_by,
            event,
        });
        received.len()
    };
    hooks.trap.pass(Point::Hooked);
    hooks.count.send_replace(number);
    match number % 5 {
        0 => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::NO_CONTENT,
    }
}

/// At whatever time: the clock of the sender may be set to another one.
fn is_signed_by(secret: &Webhook, headers: &HeaderMap, body: &[u8]) -> bool {
    let named = |name: &str| headers.get(name)?.to_str().ok();
    let given = || {
        let at = named("webhook-timestamp")?.parse().ok()?;
        let signature = secret.sign(named("webhook-id")?, at, body).ok()?;
        let mut signatures = named("webhook-signature")?.split(' ');
        Some(signatures.any(|given| given == signature))
    };
    given().unwrap_or(false)
}

fn text(bytes: Option<&[u8]>) -> String {
    String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned()
}
