//! The master key, and changing it, on the real binary.

use std::{fs, path::Path, sync::Arc};

use rustix::process::Signal;

use super::{
    caller::{Call, Client, Mode},
    load::Load,
    process::{Revived, Setup},
    provider::{Provider, quick},
};

const KEY: &str = "sk-north.one";
const FIRST: &str = "1111111111111111111111111111111111111111111111111111111111111111";
const SECOND: &str = "2222222222222222222222222222222222222222222222222222222222222222";

fn setup(provider: &Provider, dir: &Path) -> Setup {
    // Nothing is packed before the next start.
    let patient = ("OFFPEAK_PACKING__LINGER", "1h");
    Setup::new(&provider.upstream(), &dir.join("data")).with(patient.0, patient.1)
}

async fn refused(setup: &Setup, stderr: &Path) -> String {
    match setup.try_start(stderr).await {
        Ok(_) => panic!("it started"),
        Err(refusal) => {
            assert_eq!(refusal.code, Some(2));
            refusal.told
        }
    }
}

/// Takes a call in, kills the server, and starts it with each of `setups` in turn.
async fn killed_with_work(first: Setup, dir: &Path, trap: &Provider) -> String {
    let server = Arc::new(Revived::start(first, &dir.join("stderr")).await);
    let load = Load::new(server.clone(), Client::new(trap.trap.clone()), "");
    let call = Call::new(1, KEY, "gpt-4o-mini", Mode::Keyed, "2h");
    let reply = load.client.send(&server.up(), &call, 0).await.unwrap();
    server.signal(Signal::KILL);
    server.ended().await;
    reply.request().unwrap()
}

/// The call that was taken in is answered, and the data directory holds neither the
/// caller's key nor a master key.
async fn answered(setup: Setup, dir: &Path, provider: &Provider, id: &str) {
    let setup = setup.with("OFFPEAK_PACKING__LINGER", "100ms");
    let server = Arc::new(Revived::start(setup, &dir.join("stderr")).await);
    let load = Load::new(server.clone(), Client::new(provider.trap.clone()), "");
    let path = format!("/v1/chat/completions/{id}");
    loop {
        let reply = load.get(KEY, &path, 30).await;
        match reply.status.as_u16() {
            200 => break,
            202 => {}
            status => panic!("{status} {}", reply.body),
        }
    }
    server.signal(Signal::TERM);
    server.ended().await;
}

#[tokio::test]
async fn a_master_key_of_the_environment_is_changed() {
    let dir = tempfile::tempdir().unwrap();
    let provider = Provider::start(quick()).await;
    let with = |key: &str| setup(&provider, dir.path()).with("OFFPEAK_MASTER_KEY", key);
    let id = killed_with_work(with(FIRST), dir.path(), &provider).await;
    let told = refused(&with(SECOND), &dir.path().join("refused")).await;
    assert!(told.contains("another master key"), "{told}");
    assert!(told.contains("OFFPEAK_PREVIOUS_MASTER_KEY"), "{told}");
    assert!(!told.contains(SECOND) && !told.contains(FIRST), "{told}");
    let changed = with(SECOND).with("OFFPEAK_PREVIOUS_MASTER_KEY", FIRST);
    answered(changed, dir.path(), &provider, &id).await;
    refused(&with(FIRST), &dir.path().join("refused again")).await;
    answered(with(SECOND), dir.path(), &provider, &id).await;
}

#[tokio::test]
async fn a_master_key_file_is_changed() {
    let dir = tempfile::tempdir().unwrap();
    let provider = Provider::start(quick()).await;
    let plain = || setup(&provider, dir.path());
    let id = killed_with_work(plain(), dir.path(), &provider).await;
    let data = dir.path().join("data");
    let first = fs::read_to_string(data.join("master.key")).unwrap();
    fs::rename(data.join("master.key"), data.join("master.key.previous")).unwrap();
    answered(plain(), dir.path(), &provider, &id).await;
    let second = fs::read_to_string(data.join("master.key")).unwrap();
    assert_ne!(first, second);
    fs::remove_file(data.join("master.key.previous")).unwrap();
    answered(plain(), dir.path(), &provider, &id).await;
}

#[tokio::test]
async fn no_master_key_is_made_where_another_is_to_be_brought_back() {
    let dir = tempfile::tempdir().unwrap();
    let provider = Provider::start(quick()).await;
    let plain = || setup(&provider, dir.path());
    let id = killed_with_work(plain(), dir.path(), &provider).await;
    let key = dir.path().join("data").join("master.key");
    let aside = dir.path().join("aside");
    fs::rename(&key, &aside).unwrap();
    let told = refused(&plain(), &dir.path().join("refused")).await;
    assert!(told.contains("bring back master.key"), "{told}");
    assert!(!key.exists());
    fs::rename(&aside, &key).unwrap();
    answered(plain(), dir.path(), &provider, &id).await;
}
