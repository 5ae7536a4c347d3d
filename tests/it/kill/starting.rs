//! A store that takes long to read: calls pass straight through meanwhile, the others
//! are told to come back, and a stop is heard.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use offpeak::simulator::Operation;
use reqwest::{Client, Response, StatusCode};
use rustix::{
    fs::{CWD, Mode, mkfifoat},
    process::Signal,
};
use serde_json::{Value, json};

use super::{
    apart,
    process::{Loading, Process, Setup},
    provider::{Provider, quick},
    soon,
};

/// The file of a database that is read first. As a pipe it holds up the start until
/// somebody writes into it.
struct Gate {
    file: PathBuf,
    kept: PathBuf,
}

impl Gate {
    fn close(setup: &Setup) -> Gate {
        let file = setup.data_dir.join("store").join("acknowledged");
        let kept = file.with_extension("kept");
        fs::rename(&file, &kept).unwrap();
        mkfifoat(CWD, &file, Mode::RUSR | Mode::WUSR).unwrap();
        Gate { file, kept }
    }

    async fn open(self) {
        let opening = apart("the start to read its mark", move || {
            let mut pipe = fs::File::options().write(true).open(&self.file).unwrap();
            let told = fs::read(&self.kept).unwrap();
            fs::rename(&self.kept, &self.file).unwrap();
            pipe.write_all(&told).unwrap();
        });
        opening.await;
    }
}

async fn used(dir: &Path, setup: &Setup) {
    let process = setup.start(&dir.join("first")).await;
    process.signal(Signal::TERM);
    assert_eq!(process.ended().await.code(), Some(0));
}

/// The one that answers before the store is read, found by what it logs.
async fn early(loading: &Loading) -> String {
    let meanwhile = |log: &str| {
        let (_, address) = log.split_once("pass meanwhile, at ")?;
        address.lines().next().map(str::to_owned)
    };
    soon("the address in the log", loading.until(meanwhile)).await
}

fn http() -> Client {
    // Plain HTTP on loopback, yet reqwest wants a TLS provider to be there.
    let _another_was_first = rustls::crypto::ring::default_provider().install_default();
    Client::builder().no_proxy().build().unwrap()
}

async fn call(http: &Client, base: &str, key: &str, deadline: Option<&str>) -> Response {
    let body = json!({
        "model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Now?"}],
    });
    let mut call = http
        .post(format!("{base}/v1/chat/completions"))
        .bearer_auth(key)
        .json(&body);
    if let Some(deadline) = deadline {
        call = call
            .header("offpeak-deadline", deadline)
            .header("prefer", "respond-async");
    }
    soon("an answer", call.send()).await.unwrap()
}

async fn assert_starting(refused: Response) {
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.headers()["retry-after"], "5");
    assert!(!refused.headers().contains_key("x-should-retry"));
    let body: Value = refused.json().await.unwrap();
    assert_eq!(body["error"]["code"], "starting");
    assert_eq!(body["error"]["type"], "api_error");
    assert!(body["error"]["param"].is_null());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_without_a_deadline_pass_while_the_store_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let provider = Provider::start(quick()).await;
    let setup = Setup::new(&provider.upstream(), &dir.path().join("data"));
    used(dir.path(), &setup).await;
    let gate = Gate::close(&setup);
    let loading = setup.load(&dir.path().join("second"));
    let base = early(&loading).await;

    let http = http();
    assert_eq!(call(&http, &base, "sk-one", None).await.status(), 200);
    let chats = provider.simulator.log().operations[&Operation::Chat];
    assert_eq!(chats, 1);
    assert_starting(call(&http, &base, "sk-one", Some("6h")).await).await;
    for (path, status, body) in [
        ("healthz", StatusCode::OK, "ok\n"),
        ("readyz", StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
    ] {
        let told = http.get(format!("{base}/{path}")).send().await.unwrap();
        assert_eq!(told.status(), status, "{path}");
        assert_eq!(told.text().await.unwrap(), body);
    }
    for path in [
        "metrics",
        "offpeak/v1/requests",
        "offpeak/admin/status",
        "v1/responses/op_1",
    ] {
        assert_starting(http.get(format!("{base}/{path}")).send().await.unwrap()).await;
    }

    gate.open().await;
    let process: Process = loading.loaded().await;
    assert_eq!(process.base, base);
    // The connections from before are served on.
    let taken = call(&http, &base, "sk-one", Some("6h")).await;
    assert_eq!(taken.status(), StatusCode::ACCEPTED);
    let ready = http.get(format!("{base}/readyz")).send().await.unwrap();
    assert_eq!(ready.status(), StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_passes_whose_key_is_not_known_yet() {
    let dir = tempfile::tempdir().unwrap();
    let provider = Provider::start(quick()).await;
    let setup = Setup::new(&provider.upstream(), &dir.path().join("data"))
        .with("OFFPEAK_AUTH__MODE", "keys")
        .with("OFFPEAK_AUTH__UPSTREAM__DEFAULT__KEY_ENV", "OPENAI_API_KEY")
        .with("OPENAI_API_KEY", "sk-house");
    used(dir.path(), &setup).await;
    let gate = Gate::close(&setup);
    let loading = setup.load(&dir.path().join("second"));
    let base = early(&loading).await;

    let http = http();
    assert_starting(call(&http, &base, "ofp_unknown", None).await).await;
    gate.open().await;
    let _process = loading.loaded().await;
    let refused = call(&http, &base, "ofp_unknown", None).await;
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    assert!(provider.simulator.log().operations.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_is_heard_while_the_store_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup::new("http://127.0.0.1:1/v1", &dir.path().join("data"));
    used(dir.path(), &setup).await;
    let _gate = Gate::close(&setup);
    let loading = setup.load(&dir.path().join("second"));
    early(&loading).await;
    loading.signal(Signal::TERM);
    let refusal = loading.refused().await;
    assert_eq!(refusal.code, Some(0), "{}", refusal.told);
}
