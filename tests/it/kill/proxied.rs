//! A proxy in the environment.

use futures_util::FutureExt;
use http::StatusCode;
use serde_json::json;
use tokio::net::TcpListener;

use super::{
    hooks::Hooks,
    process::Setup,
    provider::{Provider, quick},
    soon,
};

/// It would connect where no guard looks: webhooks, and all else, go without it.
#[tokio::test]
async fn a_proxy_of_the_environment_is_not_used() {
    let dir = tempfile::tempdir().unwrap();
    let provider = Provider::start(quick()).await;
    let hooks = Hooks::start(provider.trap.clone()).await;
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", proxy.local_addr().unwrap());
    let origin = hooks.url.trim_end_matches("/hook");
    let setup = Setup::new(&provider.upstream(), &dir.path().join("data"))
        .with("OFFPEAK_WEBHOOK__ALLOW", origin)
        .with("HTTP_PROXY", &address)
        .with("http_proxy", &address)
        .with("HTTPS_PROXY", &address)
        .with("https_proxy", &address)
        .with("ALL_PROXY", &address)
        .with("all_proxy", &address);
    let server = setup.start(&dir.path().join("stderr")).await;
    // Plain HTTP on loopback, yet reqwest wants a TLS provider to be there.
    let _another_was_first = rustls::crypto::ring::default_provider().install_default();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let call = http
        .post(format!("{}/v1/chat/completions", server.base))
        .bearer_auth("sk-proxied")
        .header("Offpeak-Deadline", "5m")
        .header("Offpeak-Webhook", &hooks.url)
        .json(&json!({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "x"}]}));
    let answer = soon("the call", call.send()).await.unwrap();
    assert_eq!(answer.status(), StatusCode::ACCEPTED);
    let id = answer.headers()["offpeak-request-id"].to_str().unwrap();
    hooks.all_of(&[id.to_owned()]).await;
    assert!(proxy.accept().now_or_never().is_none(), "somebody used it");
}
