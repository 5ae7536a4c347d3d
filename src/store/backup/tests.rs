//! Backups under load, and what becomes of spoiled ones.

use std::{
    fs, io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::{BadBackup, RestoreError, restore};
use crate::{
    ports::{Content, Store},
    store::{
        SledStore, check,
        conformance::{admit, at, content, open, request, settle},
    },
};

async fn taken(store: &SledStore) -> Vec<u8> {
    taken_as(store, async || ()).await
}

/// Waits for `between` behind each part.
async fn taken_as(store: &SledStore, between: impl AsyncFn()) -> Vec<u8> {
    let (out, mut parts) = mpsc::channel::<io::Result<Bytes>>(1);
    let collect = async {
        let mut whole = Vec::new();
        while let Some(part) = parts.recv().await {
            whole.extend_from_slice(&part.unwrap());
            between().await;
        }
        whole
    };
    tokio::join!(store.backup(out), collect).1
}

/// Requests are admitted, ended and erased while it is taken, so that pairs of one
/// commit are read at different instants.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_under_load_is_one_instant() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(open(dir.path()));
    for n in 0..3000 {
        if n % 3 == 0 {
            admit(&*store, &request(1, n), &[n as u8; 900]).await;
        }
    }
    let stop = Arc::new(AtomicBool::new(false));
    let next = Arc::new(AtomicU64::new(0));
    let mut load = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (store, stop, next) = (store.clone(), stop.clone(), next.clone());
        load.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let n = next.fetch_add(1, Ordering::Relaxed);
                let asked = request(1, n);
                if n % 3 != 0 {
                    admit(&*store, &asked, &[n as u8; 5000]).await;
                }
                if n % 3 != 0 || n < 3000 {
                    settle(&*store, &asked, at(n), &[n as u8; 9000]).await;
                }
                if n.is_multiple_of(5) && n % 3 != 0 {
                    store.erase(asked.key).await.unwrap();
                }
            }
        });
    }
    while next.load(Ordering::Relaxed) < 50 {
        tokio::task::yield_now().await;
    }
    let before = next.load(Ordering::Relaxed);
    let some_more = async || {
        let seen = next.load(Ordering::Relaxed);
        while next.load(Ordering::Relaxed) < seen + 10 {
            tokio::task::yield_now().await;
        }
    };
    let backup = taken_as(&store, some_more).await;
    let after = next.load(Ordering::Relaxed);
    stop.store(true, Ordering::Relaxed);
    load.join_all().await;
    assert!(after > before + 100, "there was load: {before} to {after}");

    let other = tempfile::tempdir().unwrap();
    let end = restore(other.path(), &backup[..]).unwrap();
    assert!(end.commits > 0, "{end:?}");
    assert!(check(other.path()).unwrap().sound);
    let restored = open(other.path());
    let queued = restored.scan_queue(None, usize::MAX).await.unwrap();
    for n in (0..3000).step_by(3) {
        let asked = request(1, n);
        let is_queued = queued.iter().any(|(_, entry)| entry.key == asked.key);
        match content(&restored, &asked).await {
            Some(Content::Open { body }) => assert!(is_queued && body == vec![n as u8; 900]),
            Some(Content::Done { answer, .. }) => {
                assert!(!is_queued && answer == vec![n as u8; 9000]);
            }
            None => panic!("{n} was acknowledged before the backup began"),
        }
    }
    let ended = before.saturating_sub(8);
    for n in (1..ended).filter(|n| n % 3 != 0 && !n.is_multiple_of(5)) {
        let found = content(&restored, &request(1, n)).await;
        assert!(matches!(found, Some(Content::Done { .. })), "{n}");
    }
}

#[tokio::test]
async fn a_spoiled_backup_is_refused_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for n in 0..40 {
        admit(&store, &request(1, n), &[n as u8; 700]).await;
    }
    let backup = taken(&store).await;
    let to = tempfile::tempdir().unwrap();
    let place = to.path().join("restored");
    let refused = |bytes: &[u8]| {
        let error = restore(&place, bytes).expect_err("it is spoiled");
        assert!(!place.exists(), "{error}: something is left behind");
        error
    };
    for length in [
        0,
        5,
        15,
        23,
        30,
        backup.len() / 2,
        backup.len() - 33,
        backup.len() - 1,
    ] {
        let error = refused(&backup[..length]);
        let cut = matches!(error, RestoreError::Backup(BadBackup::Cut(_)));
        assert!(cut, "{length}: {error}");
    }
    for at in (0..backup.len())
        .step_by(613)
        .chain(backup.len() - 40..backup.len())
    {
        let mut flipped = backup.clone();
        flipped[at] ^= 0x40;
        let error = refused(&flipped);
        assert!(matches!(error, RestoreError::Backup(_)), "{at}: {error}");
    }
    let more = [&backup[..], b"x"].concat();
    refused(&more);
    let other = refused(b"a file of another program altogether");
    assert!(
        matches!(other, RestoreError::Backup(BadBackup::Other)),
        "{other}"
    );
    restore(&place, &backup[..]).unwrap();
}

#[tokio::test]
async fn only_an_empty_directory_is_filled() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    admit(&store, &request(1, 1), b"1").await;
    let backup = taken(&store).await;
    let full = restore(dir.path(), &backup[..]).unwrap_err();
    assert!(full.to_string().contains("store"), "{full}");
    assert!(content(&store, &request(1, 1)).await.is_some());

    let to = tempfile::tempdir().unwrap();
    fs::write(to.path().join("master.key"), b"key").unwrap();
    fs::create_dir(to.path().join("store.restoring")).unwrap();
    fs::write(to.path().join("store.restoring").join("db"), b"half").unwrap();
    restore(to.path(), &backup[..]).unwrap();
    assert!(content(&open(to.path()), &request(1, 1)).await.is_some());
}

#[tokio::test]
async fn one_backup_is_taken_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for n in 0..600 {
        admit(&store, &request(1, n), &[1; 2000]).await;
    }
    let (out, mut parts) = mpsc::channel::<io::Result<Bytes>>(1);
    let meanwhile = async {
        parts.recv().await.unwrap().unwrap();
        let (out, mut refused) = mpsc::channel(1);
        store.backup(out).await;
        let error = refused.recv().await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ResourceBusy);
        assert!(refused.recv().await.is_none());
        while let Some(part) = parts.recv().await {
            part.unwrap();
        }
    };
    tokio::join!(store.backup(out), meanwhile);
    let end = restore(&dir.path().join("restored"), &taken(&store).await[..]);
    end.unwrap();
}

/// Whoever takes it goes away in the middle; nothing is recorded any more.
#[tokio::test]
async fn a_backup_that_nobody_takes_ends() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for n in 0..600 {
        admit(&store, &request(1, n), &[1; 2000]).await;
    }
    let (out, mut parts) = mpsc::channel::<io::Result<Bytes>>(1);
    let leave = async {
        parts.recv().await.unwrap().unwrap();
        drop(parts);
    };
    tokio::join!(store.backup(out), leave);
    assert!(store.redo.is_idle());
}
