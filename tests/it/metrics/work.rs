//! A server that has done all kinds of work.

use std::{future::Future, sync::Arc, time::Duration};

use axum::Router;
use http::StatusCode;
use serde_json::json;
use tokio::{net::TcpListener, sync::Notify, task::JoinSet, time::timeout};

use super::scrape::{Scrape, scrape};
use crate::app::{self, HANG, TestApp};

pub const CHAT: &str = "POST /v1/chat/completions";
pub const SIX_HOURS: &str = "offpeak-deadline: 6h";
pub const ASYNC: &str = "prefer: respond-async";

/// The tenants, models and tags that callers of this test think up all have it in them.
pub const MADE_UP: &str = "thought-up";

pub fn chat(model: &str, question: &str) -> String {
    json!({"model": model, "messages": [{"role": "user", "content": question}]}).to_string()
}

/// Of each kind some; what [`Worked`] says of it.
pub struct Worked {
    pub app: TestApp,
    pub scrape: Scrape,
    _receivers: JoinSet<std::io::Result<()>>,
}

/// Four requests are admitted and succeed, three of them in one batch; one call is refused;
/// two calls pass through.
pub async fn worked() -> Worked {
    worked_before(app::provider()).await
}

/// The same in front of another provider.
pub async fn worked_before(provider: offpeak::simulator::Settings) -> Worked {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let heard = Arc::new(Notify::new());
    let router = Router::new()
        .route("/gone", axum::routing::post(async || StatusCode::GONE))
        .fallback({
            let heard = heard.clone();
            async move || {
                heard.notify_one();
                StatusCode::NO_CONTENT
            }
        });
    let mut receivers = JoinSet::new();
    receivers.spawn(async move { axum::serve(listener, router).await });

    let settings = [
        ("OFFPEAK_WEBHOOK__ALLOW", origin.as_str()),
        ("OFFPEAK_PACKING__LINGER", "1h"),
    ];
    let app = TestApp::against(provider, &settings).await;
    let mut caller = app.caller().await;
    for to in [format!("{origin}/taken"), format!("{origin}/gone")] {
        let hook = format!("offpeak-webhook: {to}");
        let tag = format!("offpeak-tag: {MADE_UP}");
        let headers = [SIX_HOURS, ASYNC, hook.as_str(), &tag];
        let body = chat("gpt-4o-mini", &format!("by webhook {to}"));
        assert_eq!(caller.call(CHAT, &headers, body).await.status(), 202);
    }
    let once = [SIX_HOURS, ASYNC, "idempotency-key: once"];
    for _ in 0..2 {
        let body = chat("gpt-4o-mini", "only once");
        assert_eq!(caller.call(CHAT, &once, body).await.status(), 202);
    }
    // An `OpenAI-Beta` is for a live call.
    let live = [SIX_HOURS, "openai-beta: live=v1"];
    let answer = caller
        .call(CHAT, &live, chat("gpt-4o-mini", "at once"))
        .await;
    assert_eq!(answer.status(), 200);
    let refused = caller.call(CHAT, &["offpeak-deadline: 0s"], "{}").await;
    assert_eq!(refused.error_code(), "invalid_deadline");
    let token = format!("authorization: Bearer {}", app.admin_token());
    let flushed = caller
        .call("POST /offpeak/admin/flush", &[&token], "")
        .await;
    assert_eq!(flushed.status(), 200);

    let passed = caller
        .call(CHAT, &[], chat("gpt-4o-mini", "straight through"))
        .await;
    assert_eq!(passed.status(), 200);
    let passed = caller.call("GET /v1/models/no-such-model", &[], "").await;
    assert_eq!(passed.status(), 404);

    within("the webhook", heard.notified()).await;
    let scrape = until(&app, |scrape| {
        scrape.sum("offpeak_webhooks_ended_total") == 2.0
            && scrape.sum("offpeak_batches_ended_total") == 1.0
    })
    .await;
    Worked {
        app,
        scrape,
        _receivers: receivers,
    }
}

/// Scrapes until it is so.
pub async fn until(app: &TestApp, so: impl Fn(&Scrape) -> bool) -> Scrape {
    let looking = async {
        loop {
            let scrape = scrape(app).await;
            if so(&scrape) {
                return scrape;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within("what is to be counted", looking).await
}

async fn within<T>(what: &str, doing: impl Future<Output = T>) -> T {
    timeout(HANG, doing)
        .await
        .unwrap_or_else(|_| panic!("{what}: a hang"))
}
