use std::{
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::{
    Ended, binary, ended, offpeak,
    provider::{Stub, brisk, counting, http, nothing_is_left},
};
use crate::kill::{
    hooks::Hooks,
    process::{Process, Setup},
    provider::Provider,
};

const KEY: &str = "sk-north.SECRETOFTHECALLER";
/// Nothing listens at port 1.
const NO_SERVER: (&str, &str) = ("OFFPEAK_SERVER__LISTEN", "127.0.0.1:1");

/// The check of that name; what it measured is in it.
fn check(report: &Value, name: &str) -> Value {
    let checks = report["checks"].as_array().unwrap();
    let found = checks.iter().find(|check| check["name"] == name);
    found
        .unwrap_or_else(|| panic!("{name}: {report:#}"))
        .clone()
}

fn verdict(ended: &Ended, name: &str) -> (String, String) {
    let check = check(&ended.json(), name);
    let text = |field: &str| check[field].as_str().unwrap().to_owned();
    (text("verdict"), text("message"))
}

fn is(ended: &Ended, name: &str, expected: &str, says: &str) {
    let (verdict, message) = verdict(ended, name);
    assert_eq!(verdict, expected, "{name}: {message}\n{ended}");
    assert!(message.contains(says), "{name}: {message}");
}

/// With one key, nothing in the data directory, and no server.
async fn doctor(upstream: &str, dir: &Path, more: &[(&str, &str)]) -> Ended {
    let data = dir.join("data");
    let mut environment = vec![
        ("OFFPEAK_UPSTREAM__BASE_URL", upstream),
        ("OFFPEAK_STORE__DATA_DIR", data.to_str().unwrap()),
        ("OFFPEAK_STORE__RESERVE_BYTES", "0"),
        ("OPENAI_API_KEY", KEY),
        NO_SERVER,
    ];
    environment.extend(more);
    offpeak(&["doctor", "--json"], &environment).await
}

async fn server(provider: &Provider, dir: &Path, hooks: &Hooks) -> Process {
    let allow = hooks.url.trim_end_matches("/hook");
    let setup =
        Setup::new(&provider.upstream(), &dir.join("data")).with("OFFPEAK_WEBHOOK__ALLOW", allow);
    setup.start(&dir.join("stderr")).await
}

#[tokio::test]
async fn where_all_is_well_all_is_ok() {
    let dir = tempfile::tempdir().unwrap();
    let provider = Provider::start(brisk()).await;
    let hooks = Hooks::start(provider.trap.clone()).await;
    let server = server(&provider, dir.path(), &hooks).await;
    let listen = server.base.strip_prefix("http://").unwrap();
    let ended = doctor(
        &provider.upstream(),
        dir.path(),
        &[("OFFPEAK_SERVER__LISTEN", listen)],
    )
    .await;
    assert_eq!(ended.code, Some(0), "{ended}");
    for (name, says) in [
        ("settings", "valid"),
        ("upstream", "127.0.0.1"),
        ("clock", "agrees"),
        ("key", "models"),
        ("batches", "read and written"),
        ("files", "read and written"),
        ("data directory", "closed to other users"),
        ("free space", "free"),
        ("master key", "its owner only"),
        ("admin token", "its owner only"),
        ("server", env!("CARGO_PKG_VERSION")),
        ("server ready", "takes calls"),
        ("server state", "0 requests are open"),
        ("dead letters", "No webhook was given up"),
    ] {
        is(&ended, name, "ok", says);
    }
    let measured = |name: &str, of: &str| check(&ended.json(), name)["measured"][of].clone();
    assert!(measured("upstream", "answer_ms").is_number(), "{ended}");
    assert!(measured("disk", "syncs").as_u64().unwrap() >= 5, "{ended}");
    let token = fs::read_to_string(dir.path().join("data/admin.token")).unwrap();
    let key = fs::read_to_string(dir.path().join("data/master.key")).unwrap();
    for secret in [KEY, token.trim(), key.trim()] {
        assert!(!ended.said().contains(secret), "{ended}");
    }
    // No batch and no file came of it.
    assert_eq!(provider.simulator.log().batches.len(), 0);
    nothing_is_left(&provider, KEY).await;
}

#[tokio::test]
async fn a_key_that_the_provider_does_not_know() {
    let dir = tempfile::tempdir().unwrap();
    let provider = Provider::start(brisk()).await;
    let bad = [("OPENAI_API_KEY", "sk-bad-SECRETOFTHECALLER")];
    let ended = doctor(&provider.upstream(), dir.path(), &bad).await;
    assert_eq!(ended.code, Some(1), "{ended}");
    is(&ended, "upstream", "ok", "is reached");
    is(&ended, "key", "failed", "OPENAI_API_KEY is refused (401)");
    is(&ended, "batches", "skipped", "");
    is(&ended, "server", "skipped", "No server runs");
    assert!(!ended.said().contains("SECRETOFTHECALLER"), "{ended}");
    assert!(
        !dir.path().join("data").exists(),
        "it left a directory behind"
    );

    let none = doctor(&provider.upstream(), dir.path(), &[("OPENAI_API_KEY", "")]).await;
    assert_eq!(none.code, Some(0), "{none}");
    is(&none, "key", "skipped", "No key");
}

#[tokio::test]
async fn a_key_that_may_not_use_batches() {
    let dir = tempfile::tempdir().unwrap();
    let provider = Provider::start(brisk()).await;
    let scopes = "You have insufficient permissions for this operation. Missing scopes: \
                  api.batch.write. Check that you have the correct role.";
    let stub = Stub::altering(&provider.simulator, move |call, answer| {
        if call == "POST /v1/batches" {
            answer.status = StatusCode::FORBIDDEN;
            answer.text = json!({"error": {"message": scopes}}).to_string();
        }
        if call == "GET /v1/files" {
            answer.status = StatusCode::UNAUTHORIZED;
            answer.text = json!({"error": {"message": format!("Not for {KEY}.")}}).to_string();
        }
    })
    .await;
    let ended = doctor(&stub.base(), dir.path(), &[]).await;
    assert_eq!(ended.code, Some(1), "{ended}");
    is(&ended, "key", "ok", "is taken");
    is(&ended, "batches", "failed", "lacks api.batch.write");
    is(&ended, "files", "failed", "(401): Not for [masked].");
    assert!(!ended.said().contains(KEY), "{ended}");
}

#[tokio::test]
async fn issued_keys_are_served_by_keys_of_the_environment() {
    let dir = tempfile::tempdir().unwrap();
    let provider = Provider::start(brisk()).await;
    let keys = [
        ("OFFPEAK_AUTH__MODE", "keys"),
        ("OFFPEAK_AUTH__UPSTREAM__DEFAULT__KEY_ENV", "ONE_KEY"),
        ("OFFPEAK_AUTH__UPSTREAM__EU__KEY_ENV", "EU_KEY"),
        ("ONE_KEY", "sk-one-SECRET"),
        ("EU_KEY", "sk-bad-SECRET"),
    ];
    let ended = doctor(&provider.upstream(), dir.path(), &keys).await;
    assert_eq!(ended.code, Some(1), "{ended}");
    is(&ended, "key ONE_KEY", "ok", "is taken");
    is(&ended, "batches ONE_KEY", "ok", "");
    is(&ended, "key EU_KEY", "failed", "is refused");
    assert!(!ended.said().contains("SECRET"), "{ended}");
}

#[tokio::test]
async fn a_clock_that_is_an_hour_off() {
    let dir = tempfile::tempdir().unwrap();
    let provider = Provider::start(brisk()).await;
    #[expect(clippy::disallowed_methods, reason = "the provider's wall clock")]
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let earlier = now - Duration::from_secs(3_600);
    let date = jiff::Timestamp::from_second(earlier.as_secs().try_into().unwrap()).unwrap();
    let date = date.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    let stub = Stub::altering(&provider.simulator, move |_, answer| {
        answer.headers.insert("date", date.parse().unwrap());
    })
    .await;
    let ended = doctor(&stub.base(), dir.path(), &[]).await;
    assert_eq!(ended.code, Some(1), "{ended}");
    is(&ended, "clock", "failed", "ahead of the provider's");
    let off = check(&ended.json(), "clock")["measured"]["off_ms"].as_f64();
    // However slow this test is, no less than that.
    assert!(off.unwrap() > 3_590_000.0, "{ended}");
}

#[tokio::test]
async fn an_upstream_that_is_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let ended = doctor("http://127.0.0.1:1/v1", dir.path(), &[]).await;
    assert_eq!(ended.code, Some(1), "{ended}");
    is(&ended, "upstream", "failed", "127.0.0.1:1 is not reached");
    is(&ended, "clock", "skipped", "");
    is(&ended, "key", "failed", "Nothing answers");
    is(&ended, "data directory", "ok", "not there yet");
    let ended = doctor("http://name.invalid/v1", dir.path(), &[]).await;
    is(
        &ended,
        "upstream",
        "failed",
        "The name name.invalid is not found",
    );
}

#[tokio::test]
async fn a_server_that_was_named_has_to_be_there() {
    let dir = tempfile::tempdir().unwrap();
    let provider = Provider::start(brisk()).await;
    let data = dir.path().join("data");
    let environment = [
        ("OFFPEAK_UPSTREAM__BASE_URL", &*provider.upstream()),
        ("OFFPEAK_STORE__DATA_DIR", data.to_str().unwrap()),
    ];
    let args = ["doctor", "--json", "--url", "http://127.0.0.1:1"];
    let ended = offpeak(&args, &environment).await;
    assert_eq!(ended.code, Some(1), "{ended}");
    is(
        &ended,
        "server",
        "failed",
        "No server answers at http://127.0.0.1:1",
    );
    // What answers there is the provider.
    let other = provider.upstream().replace("/v1", "");
    let ended = offpeak(&["doctor", "--json", "--url", &other], &environment).await;
    is(&ended, "server", "failed", "is no Offpeak");
}

#[tokio::test]
async fn a_file_in_the_place_of_the_data_directory() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("data"), "in the way").unwrap();
    let provider = Provider::start(brisk()).await;
    let ended = doctor(&provider.upstream(), dir.path(), &[]).await;
    assert_eq!(ended.code, Some(1), "{ended}");
    is(&ended, "data directory", "failed", "is no directory");
    let kept = fs::read_to_string(dir.path().join("data")).unwrap();
    assert_eq!(kept, "in the way");
}

#[tokio::test]
async fn a_low_limit_of_open_files() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let environment = [
        ("OFFPEAK_UPSTREAM__BASE_URL", "http://127.0.0.1:1/v1"),
        ("OFFPEAK_STORE__DATA_DIR", data.to_str().unwrap()),
        NO_SERVER,
    ];
    let script = "ulimit -n 512; exec \"$0\" doctor --json";
    let args = ["-c", script, env!("CARGO_BIN_EXE_offpeak")];
    let child = binary("/bin/sh", &args, &environment).spawn().unwrap();
    let ended = ended(child).await;
    is(
        &ended,
        "open files",
        "warning",
        "512 files may be open, so that 128 connections",
    );
}

#[tokio::test]
async fn a_server_that_is_paused() {
    let dir = tempfile::tempdir().unwrap();
    let provider = Provider::start(brisk()).await;
    let hooks = Hooks::start(provider.trap.clone()).await;
    let server = server(&provider, dir.path(), &hooks).await;
    let token = fs::read_to_string(dir.path().join("data/admin.token")).unwrap();
    let pause = format!("{}/offpeak/admin/pause", server.base);
    let paused = http()
        .post(&pause)
        .bearer_auth(&token)
        .send()
        .await
        .unwrap();
    assert_eq!(paused.status(), 200);
    let listen = server.base.strip_prefix("http://").unwrap();
    let listen = ("OFFPEAK_SERVER__LISTEN", listen);
    let ended = doctor(&provider.upstream(), dir.path(), &[listen]).await;
    assert_eq!(ended.code, Some(0), "{ended}");
    is(&ended, "paused", "warning", "are paused");

    let other = [listen, ("OFFPEAK_ADMIN_TOKEN", "adm-SECRET")];
    let ended = doctor(&provider.upstream(), dir.path(), &other).await;
    is(
        &ended,
        "server state",
        "warning",
        "does not know the admin token",
    );
    assert!(!ended.said().contains("adm-SECRET"), "{ended}");
}

#[tokio::test]
async fn a_receiver_is_reached_and_takes_a_test_event() {
    let dir = tempfile::tempdir().unwrap();
    let provider = Provider::start(brisk()).await;
    let hooks = Hooks::start(provider.trap.clone()).await;
    let server = server(&provider, dir.path(), &hooks).await;
    let data = dir.path().join("data");
    let (upstream, allow) = (provider.upstream(), hooks.url.trim_end_matches("/hook"));
    let environment = [
        ("OFFPEAK_UPSTREAM__BASE_URL", upstream.as_str()),
        ("OFFPEAK_STORE__DATA_DIR", data.to_str().unwrap()),
        ("OFFPEAK_WEBHOOK__ALLOW", allow),
        ("OPENAI_API_KEY", KEY),
    ];
    let base = server.base.as_str();
    let look = async |target: &str, environment: &[(&str, &str)]| {
        let args = ["doctor", "--json", "--url", base, "--webhook", target];
        offpeak(&args, environment).await
    };
    let ended = look(&hooks.url, &environment).await;
    is(
        &ended,
        "webhook",
        "ok",
        "127.0.0.1 may be called and is reached",
    );
    is(&ended, "webhook test", "skipped", "No call with a deadline");

    let call = http()
        .post(format!("{base}/v1/chat/completions"))
        .bearer_auth(KEY)
        .header("Offpeak-Deadline", "1h")
        .header("Prefer", "respond-async")
        .json(&json!({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "x"}]}));
    assert_eq!(call.send().await.unwrap().status(), 202);
    let ended = look(&hooks.url, &environment).await;
    is(&ended, "webhook test", "ok", "took a test event (204)");

    // Without the exception it is not called, nor by the server where it is elsewhere.
    let strict = environment
        .into_iter()
        .filter(|it| it.0 != "OFFPEAK_WEBHOOK__ALLOW");
    let ended = look(&hooks.url, &strict.collect::<Vec<_>>()).await;
    is(&ended, "webhook", "failed", "must be https");
    let ended = look("https://10.0.0.1/hook", &environment).await;
    is(&ended, "webhook", "failed", "not public (private)");
    is(&ended, "webhook test", "failed", "cannot be used");
    let ended = look(&format!("{allow}1/"), &environment).await;
    assert_eq!(ended.code, Some(1), "{ended}");
}

#[tokio::test]
async fn settings_that_are_not_valid_send_no_key_anywhere() {
    let dir = tempfile::tempdir().unwrap();
    let calls = Arc::default();
    let stub = counting(Arc::clone(&calls)).await;
    let typo = [("OFFPEAK_UPSTREAM__BASE_ULR", "https://elsewhere.example/v1")];
    let ended = doctor(&stub.base(), dir.path(), &typo).await;
    assert_eq!(ended.code, Some(1), "{ended}");
    is(&ended, "settings", "failed", "OFFPEAK_UPSTREAM__BASE_ULR");
    is(&ended, "upstream", "skipped", "not valid");
    is(&ended, "key", "skipped", "not valid");
    assert_eq!(*calls.lock(), [""; 0]);
    // And where they are, it is called.
    doctor(&stub.base(), dir.path(), &[]).await;
    assert!(calls.lock().contains(&"GET /v1/models".to_owned()));
}
