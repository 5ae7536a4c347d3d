//! A data directory that cannot be used: said in one sentence that names it,
//! exit code 2.

use std::{
    fs,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::process::Signal;

use super::{
    caller::{Call, Client, Mode},
    load::Load,
    process::{Process, Refusal, Revived, Setup, Up},
    provider::{Provider, quick},
};

const KEY: &str = "sk-north.one";

/// The one sentence that a start with this directory ends with.
async fn refusal(setup: &Setup) -> String {
    let dir = tempfile::tempdir().unwrap();
    match setup.try_start(&dir.path().join("stderr")).await {
        Ok(_) => panic!("{} is accepted", setup.data_dir.display()),
        Err(refusal) => sentence(setup, &refusal),
    }
}

fn sentence(setup: &Setup, refusal: &Refusal) -> String {
    assert_eq!(refusal.code, Some(2), "{}", refusal.told);
    // It may have told what it does, before it could not.
    let lines = refusal.told.lines().filter(|line| !line.contains(" INFO "));
    let lines: Vec<&str> = lines.collect();
    let [sentence] = lines[..] else {
        panic!("more than a sentence, or less: {}", refusal.told);
    };
    let dir = setup.data_dir.display().to_string();
    assert!(sentence.starts_with("offpeak: "), "{sentence}");
    assert!(sentence.contains(&dir), "{sentence} does not name {dir}");
    sentence.to_owned()
}

/// A database with work in it, closed or killed.
async fn used(dir: &Path, signal: Signal) -> (Setup, Vec<String>) {
    let provider = Provider::start(quick()).await;
    let setup = Setup::new(&provider.upstream(), &dir.join("data"));
    let server = Arc::new(Revived::start(setup.clone(), &dir.join("stderr")).await);
    let load = Load::new(server.clone(), Client::new(provider.trap.clone()), "");
    let mut requests = Vec::new();
    for number in 0..40 {
        let call = Call::new(number, KEY, "gpt-4o-mini", Mode::Async, "1h").padded(40_000);
        let up = server.up();
        let reply = load.client.send(&up, &call, 0).await.unwrap();
        requests.extend(reply.request());
    }
    server.signal(signal);
    server.ended().await;
    assert_eq!(requests.len(), 40);
    (setup, requests)
}

fn database(setup: &Setup) -> PathBuf {
    setup.data_dir.join("store").join("db")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_another_process_uses() {
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup::new("http://127.0.0.1:1/v1", &dir.path().join("data"));
    let first = setup.start(&dir.path().join("stderr")).await;
    let told = refusal(&setup).await;
    assert!(told.contains("in use"), "{told}");
    first.signal(Signal::TERM);
    assert_eq!(first.ended().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_whose_database_was_cut_short() {
    let dir = tempfile::tempdir().unwrap();
    let (setup, _) = used(dir.path(), Signal::TERM).await;
    let length = fs::metadata(database(&setup)).unwrap().len();
    for left in [length / 2, 5, 0] {
        let file = fs::File::options()
            .write(true)
            .open(database(&setup))
            .unwrap();
        file.set_len(left).unwrap();
        let told = refusal(&setup).await;
        assert!(told.contains("damaged"), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_whose_database_has_other_bytes() {
    for signal in [Signal::TERM, Signal::KILL] {
        let dir = tempfile::tempdir().unwrap();
        let (setup, _) = used(dir.path(), signal).await;
        let file = fs::File::options()
            .read(true)
            .write(true)
            .open(database(&setup))
            .unwrap();
        let length = file.metadata().unwrap().len();
        // Everywhere, so that every segment is hit.
        for at in (0..length).step_by(512) {
            file.write_at(&[0x5a; 8], at).unwrap();
        }
        drop(file);
        let told = refusal(&setup).await;
        assert!(told.contains("damaged"), "{told}");
    }
}

/// A few bytes may hit what is not in use. It serves all that was acknowledged, or
/// refuses in a sentence, and never panics.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_whose_database_has_a_few_other_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let (setup, requests) = used(dir.path(), Signal::TERM).await;
    let store = setup.data_dir.join("store");
    let whole: Vec<(PathBuf, Vec<u8>)> = files(&store);
    let length = fs::metadata(database(&setup)).unwrap().len();
    for part in 1..12 {
        fs::remove_dir_all(&store).unwrap();
        for (path, bytes) in &whole {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        let file = fs::File::options()
            .write(true)
            .open(database(&setup))
            .unwrap();
        file.write_at(&[0x5a; 8], length * part / 12).unwrap();
        drop(file);
        let stderr = dir.path().join(format!("stderr-{part}"));
        match setup.try_start(&stderr).await {
            Err(refusal) => {
                sentence(&setup, &refusal);
            }
            Ok(process) => {
                serves(&process, &requests, part).await;
                let log = fs::read_to_string(&stderr).unwrap();
                assert!(!log.contains("panicked"), "part {part}: {log}");
            }
        }
    }
}

fn files(below: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(below).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push((path.clone(), fs::read(&path).unwrap())),
        }
    }
    found
}

async fn serves(process: &Process, requests: &[String], part: u64) {
    let client = Client::new(Default::default());
    let up = Up {
        start: 0,
        base: process.base.as_str().into(),
    };
    for request in requests {
        let path = format!("/v1/chat/completions/{request}");
        let reply = client.get(&up, KEY, &path, 0).await.unwrap();
        assert!(
            reply.status.is_success(),
            "part {part}: {request} is {}: {}",
            reply.status,
            reply.body
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_cannot_be_written() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "not a directory").unwrap();
    // Not even root can make a directory in either.
    for place in [file.join("data"), "/proc/offpeak-data".into()] {
        refusal(&Setup::new("http://127.0.0.1:1/v1", &place)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_with_a_bad_master_key() {
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup::new("http://127.0.0.1:1/v1", &dir.path().join("data"));
    fs::create_dir(&setup.data_dir).unwrap();
    fs::write(setup.data_dir.join("master.key"), "short").unwrap();
    let told = refusal(&setup).await;
    assert!(told.contains("master.key"), "{told}");
}
