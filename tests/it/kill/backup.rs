//! `offpeak backup` of a server under load, and what `offpeak restore` makes of it.

use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use http::StatusCode;
use rustix::process::Signal;
use serde_json::Value;

use super::{
    apart,
    caller::{Call, Client, Mode},
    load::Load,
    process::{Revived, Setup},
    provider::{Provider, quick},
    soon,
};

const KEY: &str = "sk-north.one";

pub fn offpeak(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_offpeak"));
    command.args(args).env_clear().output().unwrap()
}

fn told(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8(both).unwrap()
}

fn shown(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Every request that was acknowledged before the backup began is in it once, and ends
/// with its own answer on the restored server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_under_load_goes_on_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let provider = Provider::start(quick()).await;
    let setup = Setup::new(&provider.upstream(), &dir.path().join("data"));
    let server = Arc::new(Revived::start(setup.clone(), &dir.path().join("stderr")).await);
    let client = Client::new(provider.trap.clone());
    let mut acknowledged = Vec::new();
    for number in 0..60 {
        let call = Call::new(number, KEY, "gpt-4o-mini", Mode::Async, "1h").padded(3000);
        let reply = client.send(&server.up(), &call, 0).await.unwrap();
        acknowledged.push((call, reply.request().unwrap()));
    }
    let (over, next) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(60)),
    );
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (client, server) = (client.clone(), server.clone());
        let (over, next) = (over.clone(), next.clone());
        callers.spawn(async move {
            while !over.load(Ordering::Relaxed) {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let call = Call::new(number, KEY, "gpt-4o-mini", Mode::Async, "1h").padded(9000);
                client.send(&server.up(), &call, 0).await.unwrap();
            }
        });
    }
    let begun = next.load(Ordering::Relaxed);
    let file = dir.path().join("offpeak.backup");
    let (base, data) = (server.up().base.to_string(), setup.data_dir.clone());
    let to = file.clone();
    let taking = apart("the backup", move || {
        offpeak(&[
            "backup",
            shown(&to),
            "--url",
            &base,
            "--data-dir",
            shown(&data),
        ])
    });
    let taken = taking.await;
    assert!(taken.status.success(), "{}", told(&taken));
    let ended = next.load(Ordering::Relaxed);
    assert!(ended > begun + 4, "there was load: {begun} to {ended}");
    over.store(true, Ordering::Relaxed);
    soon("the callers", callers.join_all()).await;
    server.signal(Signal::KILL);
    server.ended().await;

    let elsewhere = dir.path().join("elsewhere");
    let made = offpeak(&["restore", shown(&file), "--data-dir", shown(&elsewhere)]);
    assert!(made.status.success(), "{}", told(&made));
    fs::copy(
        setup.data_dir.join("master.key"),
        elsewhere.join("master.key"),
    )
    .unwrap();
    let sound = offpeak(&["store", "check", "--data-dir", shown(&elsewhere)]);
    assert_eq!(sound.status.code(), Some(0), "{}", told(&sound));
    let setup = Setup::new(&provider.upstream(), &elsewhere);
    let server = Arc::new(Revived::start(setup, &dir.path().join("stderr-2")).await);
    let load = Load::new(server.clone(), Client::new(provider.trap.clone()), "");
    for (call, request) in &acknowledged {
        let reply = loop {
            let path = format!("{}/{request}", call.path());
            let reply = load.get(KEY, &path, 30).await;
            if reply.status != StatusCode::ACCEPTED {
                break reply;
            }
        };
        assert_eq!(reply.status, StatusCode::OK, "{request}: {}", reply.body);
        assert!(call.is_answered_by(&reply.body), "{request}");
    }
    let mut listed = Vec::new();
    let mut after = String::new();
    loop {
        let page = load
            .get_json(KEY, &format!("/offpeak/v1/requests?limit=100{after}"))
            .await;
        let data = page["data"].as_array().unwrap();
        listed.extend(
            data.iter()
                .map(|one| one["id"].as_str().unwrap().to_owned()),
        );
        match &page["next"] {
            Value::String(cursor) => after = format!("&after={cursor}"),
            _ => break,
        }
    }
    let once: BTreeSet<&String> = listed.iter().collect();
    assert_eq!(once.len(), listed.len(), "each once");
    for (_, request) in &acknowledged {
        assert!(once.contains(request), "{request} is listed");
    }
}

/// A data directory with open requests in it, of a server that was stopped and that no
/// provider answered, and a backup.
async fn stopped(dir: &Path) -> (Setup, Vec<String>, Vec<u8>) {
    let setup = Setup::new("http://127.0.0.1:1/v1", &dir.join("data"));
    let server = Arc::new(Revived::start(setup.clone(), &dir.join("stderr")).await);
    let client = Client::new(Default::default());
    let mut requests = Vec::new();
    for number in 0..40 {
        let call = Call::new(number, KEY, "gpt-4o-mini", Mode::Async, "1h").padded(40_000);
        let reply = client.send(&server.up(), &call, 0).await.unwrap();
        requests.extend(reply.request());
    }
    server.signal(Signal::TERM);
    server.ended().await;
    let file = dir.join("offpeak.backup");
    let taken = offpeak(&["backup", shown(&file), "--data-dir", shown(&setup.data_dir)]);
    assert!(taken.status.success(), "{}", told(&taken));
    (setup, requests, fs::read(file).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spoiled_backup_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let (setup, _, backup) = stopped(dir.path()).await;
    let (file, to) = (dir.path().join("spoiled"), dir.path().join("restored"));
    let mut flipped = backup.clone();
    flipped[backup.len() / 2] ^= 1;
    for (bytes, expected) in [
        (&backup[..backup.len() / 2], "cut off"),
        (&flipped, "damaged"),
        (
            b"something else, and not a backup at all",
            "no backup of Offpeak",
        ),
    ] {
        fs::write(&file, bytes).unwrap();
        let refused = offpeak(&["restore", shown(&file), "--data-dir", shown(&to)]);
        assert_eq!(refused.status.code(), Some(2));
        assert!(told(&refused).contains(expected), "{}", told(&refused));
        assert!(!to.exists());
    }
    fs::write(&file, &backup).unwrap();
    let full = offpeak(&[
        "restore",
        shown(&file),
        "--data-dir",
        shown(&setup.data_dir),
    ]);
    assert_eq!(full.status.code(), Some(2));
    assert!(told(&full).contains("not empty"), "{}", told(&full));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_that_is_killed_leaves_nothing_half() {
    let dir = tempfile::tempdir().unwrap();
    let (_, _, backup) = stopped(dir.path()).await;
    let to = dir.path().join("restored");
    let mut child = Command::new(env!("CARGO_BIN_EXE_offpeak"))
        .args(["restore", "-", "--data-dir", shown(&to)])
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // More than a pipe holds: what is written has been read.
    stdin.write_all(&backup[..backup.len() - 200_000]).unwrap();
    assert!(to.join("store.restoring").exists(), "it is at work");
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!to.join("store").exists());
    let file = dir.path().join("offpeak.backup");
    let again = offpeak(&["restore", shown(&file), "--data-dir", shown(&to)]);
    assert!(again.status.success(), "{}", told(&again));
    let sound = offpeak(&["store", "check", "--json", "--data-dir", shown(&to)]);
    let report: Value = serde_json::from_slice(&sound.stdout).unwrap();
    assert_eq!(report["sound"], true, "{report}");
    assert!(!to.join("store.restoring").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_database_is_saved_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (setup, requests, _) = stopped(dir.path()).await;
    let log = setup.data_dir.join("store").join("db");
    let mut bytes = fs::read(&log).unwrap();
    // In every version of that body's page.
    let text = b"Call 20 of the load";
    let found: Vec<usize> = (0..bytes.len() - text.len())
        .filter(|at| bytes[*at..].starts_with(text))
        .collect();
    assert!(!found.is_empty());
    for at in found {
        bytes[at] ^= 0x5a;
    }
    fs::write(&log, bytes).unwrap();
    let data = shown(&setup.data_dir);
    let looked = offpeak(&["store", "check", "--data-dir", data]);
    assert_eq!(looked.status.code(), Some(1), "{}", told(&looked));
    let stderr = dir.path().join("refused");
    let refused = setup.try_start(&stderr).await.err().expect("it is damaged");
    assert!(
        refused.told.contains("offpeak store salvage"),
        "{}",
        refused.told
    );
    let saved = offpeak(&["store", "salvage", "--json", "--data-dir", data]);
    assert!(saved.status.success(), "{}", told(&saved));
    let report: Value = serde_json::from_slice(&saved.stdout).unwrap();
    assert!(
        Path::new(report["kept"].as_str().unwrap())
            .join("db")
            .exists()
    );

    let server = setup.start(&dir.path().join("stderr-2")).await;
    let client = Client::new(Default::default());
    let up = super::process::Up {
        start: 0,
        base: server.base.as_str().into(),
    };
    let mut served = 0;
    for request in &requests {
        let path = format!("/v1/chat/completions/{request}");
        let reply = client.get(&up, KEY, &path, 0).await.unwrap();
        let damaged =
            reply.body.contains("storage_damaged") || reply.status == StatusCode::NOT_FOUND;
        assert!(
            reply.status.is_success() || damaged,
            "{request}: {}",
            reply.body
        );
        served += usize::from(reply.status.is_success());
    }
    assert!(
        served >= requests.len() - 17,
        "{served} of {}",
        requests.len()
    );
}
