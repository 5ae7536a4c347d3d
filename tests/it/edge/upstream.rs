//! An upstream whose base URL is wrong is told at admission; one that only lacks
//! the paths of models is not taken for such.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Json, Router,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::{Method, StatusCode, Uri};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};

use super::{CHAT, SIX_HOURS, chat};
use crate::app::TestApp;

/// An upstream that is no simulator.
struct Upstream {
    address: SocketAddr,
    /// Calls that were made but for those about models.
    worked: Arc<AtomicUsize>,
    _serving: JoinSet<()>,
}

impl Upstream {
    /// What `paths` does not have, `missing` answers.
    async fn with(paths: Router, missing: fn(Method, Uri) -> Response) -> Upstream {
        let worked = Arc::new(AtomicUsize::new(0));
        let count = worked.clone();
        let fallback = move |method: Method, uri: Uri| {
            if !uri.path().contains("/models") {
                count.fetch_add(1, Ordering::Relaxed);
            }
            let answer = missing(method, uri);
            async move { answer }
        };
        let router = paths.fallback(fallback);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Upstream {
            address,
            worked,
            _serving: serving,
        }
    }

    async fn app(&self, path: &str) -> TestApp {
        let base = format!("http://{}{path}", self.address);
        TestApp::with(&[("OFFPEAK_UPSTREAM__BASE_URL", &base)]).await
    }
}

fn unknown_url(method: Method, uri: Uri) -> Response {
    let message = format!("Unknown request URL: {method} {}.", uri.path());
    let error = json!({"message": message, "type": "invalid_request_error",
        "param": null, "code": "unknown_url"});
    (StatusCode::NOT_FOUND, Json(json!({"error": error}))).into_response()
}

/// As FastAPI says it, and vLLM with it.
fn not_found(_: Method, _: Uri) -> Response {
    (StatusCode::NOT_FOUND, Json(json!({"detail": "Not Found"}))).into_response()
}

fn models() -> Router {
    Router::new().route(
        "/v1/models",
        get(async || Json(json!({"object": "list", "data": []}))),
    )
}

async fn answer() -> Json<Value> {
    Json(
        json!({"id": "chatcmpl-1", "object": "chat.completion", "created": 1,
        "model": "gpt-4o-mini", "choices": [],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}}),
    )
}

async fn warning(app: &TestApp) -> Value {
    let token = format!("authorization: Bearer {}", app.admin_token());
    let mut caller = app.caller().await;
    let line = "GET /offpeak/admin/status";
    let answer = caller.call(line, &[&token], "").await;
    answer.json()["upstream_warning"].clone()
}

#[tokio::test]
async fn a_base_url_without_its_v1_is_refused_before_anything_is_taken_in() {
    type Case = (Router, fn(Method, Uri) -> Response);
    let cases: [Case; 2] = [(Router::new(), unknown_url), (models(), not_found)];
    for (paths, missing) in cases {
        let upstream = Upstream::with(paths, missing).await;
        let app = upstream.app("/").await;
        let mut caller = app.caller().await;
        let headers = &[SIX_HOURS, "prefer: respond-async"];
        let answer = caller.call(CHAT, headers, chat("nowhere", "")).await;
        assert_eq!(
            (answer.status(), answer.error_code().as_str()),
            (404, "unknown_upstream_url"),
            "{}",
            answer.text()
        );
        assert_eq!(answer.head.value("x-should-retry"), "false");
        let message = answer.json()["error"]["message"].to_string();
        let (base, meant) = (
            format!("http://{} ", upstream.address),
            format!("http://{}/v1.", upstream.address),
        );
        assert!(
            message.contains(&base) && message.contains(&meant),
            "{message}"
        );
        assert!(warning(&app).await.to_string().contains(&meant));
        let listed = caller.call("GET /offpeak/v1/requests", &[], "").await;
        assert_eq!(listed.json()["data"], json!([]));
        assert_eq!(upstream.worked.load(Ordering::Relaxed), 0);
        app.finish().await;
    }
}

#[tokio::test]
async fn an_upstream_that_only_lacks_the_paths_of_models_works() {
    type Case = (&'static str, fn(Method, Uri) -> Response);
    // Below /v1 even OpenAI's words show only that there is no such path.
    let cases: [Case; 3] = [("", not_found), ("/v1", not_found), ("/v1", unknown_url)];
    for (path, missing) in cases {
        let paths = Router::new().route(&format!("{path}/chat/completions"), post(answer));
        let upstream = Upstream::with(paths, missing).await;
        let app = upstream.app(path).await;
        assert_eq!(warning(&app).await, Value::Null);
        let mut caller = app.caller().await;
        let soon = &["offpeak-deadline: 1s"];
        let answer = caller.call(CHAT, soon, chat("works", "")).await;
        assert_eq!(
            (answer.status(), answer.head.value("offpeak-lane")),
            (200, "standard"),
            "{path}: {}",
            answer.text()
        );
        let warning = warning(&app).await.to_string();
        assert!(warning.contains("GET /models/gpt-4o-mini"), "{warning}");
        app.finish().await;
    }
}
