//! A caller's key, its bodies and our own secrets are in no log, no error, no metric
//! and no file, whatever happens.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use http::StatusCode;
use offpeak::simulator::{Fault, Kind, Operation};
use rustix::process::Signal;

use super::{
    caller::{Call, Client, Mode},
    hooks::Hooks,
    load::Load,
    process::{Revived, Setup},
    provider::{Provider, quick},
};

const KEY: &str = "sk-north.SECRETOFTHECALLER";
const REVOKED: &str = "sk-bad-SECRETOFTHECALLER";
const MASTER: &str = "5ec2e75ec2e75ec2e75ec2e75ec2e75ec2e75ec2e75ec2e75ec2e75ec2e75ec2";
const ADMIN: &str = "adm-SECRETOFTHEOPERATOR";
const QUESTION: &str = "the private question";

/// Every file below, with its bytes.
fn files(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files.extend(self::files(&path)),
            false => files.push((path.clone(), fs::read(&path).unwrap())),
        }
    }
    files
}

fn holds(text: &[u8], secret: &str) -> bool {
    text.windows(secret.len())
        .any(|window| window == secret.as_bytes())
}

#[tokio::test]
async fn secrets_are_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    let provider = Provider::start(quick()).await;
    let hooks = Hooks::start(provider.trap.clone()).await;
    let data = dir.path().join("data");
    let setup = Setup::new(&provider.upstream(), &data)
        .with("OFFPEAK_LOG", "trace")
        .with("OFFPEAK_MASTER_KEY", MASTER)
        .with("OFFPEAK_ADMIN_TOKEN", ADMIN)
        .with(
            "OFFPEAK_WEBHOOK__ALLOW",
            hooks.url.trim_end_matches("/hook"),
        );
    let server = Arc::new(Revived::start(setup, &dir.path().join("stderr")).await);
    let load = Load::new(server.clone(), Client::new(provider.trap.clone()), "");
    let webhook_secret = load.get_json(KEY, "/offpeak/v1/webhook-secret").await;
    let webhook_secret = webhook_secret["secret"].as_str().unwrap().to_owned();
    hooks.add_secret(&webhook_secret);

    let mut told: Vec<String> = Vec::new();
    let send = async |call: Call| load.client.send(&server.up(), &call, 0).await.unwrap();
    let call = |number, mode, deadline: &str| {
        let mut call = Call::new(number, KEY, "gpt-4o-mini", mode, deadline);
        call.body = call.body.replace("of the load", QUESTION);
        call
    };
    // Errors of ours and of the provider, live and in batches.
    let mut bad = call(1, Mode::Async, "1h");
    bad.body = bad.body.replace("messages", "massages");
    told.push(send(bad).await.body);
    let mut revoked = call(2, Mode::Async, "1h");
    revoked.headers[0].1 = format!("Bearer {REVOKED}");
    told.push(send(revoked).await.body);
    for (on, kind) in [
        (Operation::UploadFile, Kind::Reset),
        (Operation::CreateBatch, Kind::ReplyLost),
        (Operation::FileContent, Kind::Truncated),
        (Operation::Chat, Kind::Reset),
    ] {
        provider.simulator.inject(Fault::once(on, kind));
    }
    let mut hooked = call(3, Mode::Webhook, "30s");
    hooked.headers.push(("offpeak-webhook", hooks.url.clone()));
    let waits = send(hooked).await;
    let id = waits.request().unwrap();
    told.push(
        send(call(4, Mode::Held, "3s"))
            .await
            .body
            .replace(QUESTION, ""),
    );
    told.push(
        send(call(5, Mode::Held, "10s").straight())
            .await
            .body
            .replace(QUESTION, ""),
    );
    told.push(
        send(call(6, Mode::Held, "20s"))
            .await
            .body
            .replace(QUESTION, ""),
    );
    hooks.all_of(std::slice::from_ref(&id)).await;
    for path in [
        "/metrics",
        "/healthz",
        "/offpeak/v1/requests",
        "/offpeak/v1/turnaround",
    ] {
        told.push(load.get(KEY, path, 0).await.body);
    }
    told.push(
        load.get(KEY, &format!("/offpeak/v1/requests/{id}"), 0)
            .await
            .body,
    );
    told.push(load.get(KEY, "/offpeak/admin/status", 0).await.body);
    let status = load.get(ADMIN, "/offpeak/admin/status", 0).await;
    assert_eq!(status.status, StatusCode::OK);
    told.push(status.body);
    // What is open now is in the files when it dies.
    let open = send(call(7, Mode::Async, "6h")).await;
    assert_eq!(open.status, StatusCode::ACCEPTED);
    server.signal(Signal::KILL);
    server.ended().await;

    let log = server.log();
    assert!(log.contains("TRACE"), "the log tells nothing");
    let secrets = ["SECRETOFTHECALLER", MASTER, ADMIN, &webhook_secret];
    for secret in secrets {
        let line = log.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{secret} is in the log");
        for text in &told {
            assert!(!text.contains(secret), "{secret} is told: {text}");
        }
        for (path, bytes) in files(&data) {
            assert!(!holds(&bytes, secret), "{secret} is in {}", path.display());
        }
    }
    let line = log.lines().find(|line| line.contains(QUESTION));
    assert_eq!(line, None, "a body is in the log");
    // The search finds what is there.
    let stored = files(&data);
    assert!(stored.iter().any(|(_, bytes)| holds(bytes, "gpt-4o-mini")));
}
