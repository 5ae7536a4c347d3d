//! Drawn damage: what opens holds all that was acknowledged, and what does not says so.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use rand::{Rng as _, RngExt as _, SeedableRng as _, rngs::StdRng};

use super::{
    super::{
        OpenError, SledStore,
        conformance::{
            admission, admit, at, batch_id, content, ending, from_queue, ledger_of, open, request,
            settings, settle,
        },
        records::{self, chunk, feed, idempotency, ledger, meta, queue},
        staging::Step,
    },
    check, salvage,
};
use crate::{
    model::{
        id::{CallDigest, RequestKey},
        request::{Place, Request},
    },
    ports::{Admitted, Content, Store, StoreError},
};

/// A store that was closed or killed, and what it had acknowledged.
struct Image {
    dir: tempfile::TempDir,
    acknowledged: Vec<(Request, Option<Content>)>,
    killed: bool,
    /// Where payloads end in the log.
    payloads: BTreeMap<RequestKey, usize>,
}

/// Some hundred requests, of which some end and some are erased; restarted in between,
/// so that sled has a snapshot and a log behind it.
async fn image(seed: u64, killed: bool) -> Image {
    let dir = tempfile::tempdir().unwrap();
    let mut draw = StdRng::seed_from_u64(seed);
    let mut requests = Vec::new();
    let mut store = open(dir.path());
    for n in 0..240 {
        if n == 100 {
            drop(store);
            store = open(dir.path());
        }
        let asked = request(1 + draw.random_range(0..3u8), n);
        let length = if draw.random_ratio(1, 12) {
            draw.random_range(4001..90_000)
        } else {
            draw.random_range(1..3000)
        };
        admit(&store, &asked, &noise(&mut draw, length)).await;
        if draw.random_ratio(1, 3) {
            let moved = from_queue(&asked, Place::Line(batch_id(1)));
            assert!(store.relocate(vec![moved]).await.pop().unwrap().unwrap());
        }
        if draw.random_ratio(1, 2) {
            let length = draw.random_range(1..6000);
            settle(&store, &asked, at(n), &noise(&mut draw, length)).await;
            if draw.random_ratio(1, 8) {
                assert!(store.erase(asked.key).await.unwrap());
            }
        }
        requests.push(asked);
    }
    let mut acknowledged = Vec::new();
    for asked in requests {
        let found = content(&store, &asked).await;
        acknowledged.push((asked, found));
    }
    // All is synced and nothing is written: a copy is what a kill leaves.
    let dir = match killed {
        true => copied(dir.path()),
        false => dir,
    };
    drop(store);
    Image {
        payloads: payloads(dir.path(), &acknowledged),
        dir,
        acknowledged,
        killed,
    }
}

fn noise(draw: &mut StdRng, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    draw.fill_bytes(&mut bytes);
    bytes
}

fn copied(dir: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for path in files(dir) {
        let to = copy.path().join(path.strip_prefix(dir).unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(&path, to).unwrap();
    }
    copy
}

fn files(below: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(below).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path),
        }
    }
    found.sort();
    found
}

/// One file of the database is not as it was any more. Returns what was done.
fn damage(dir: &Path, draw: &mut StdRng) -> String {
    let mut files = files(dir);
    files.retain(|path| fs::metadata(path).unwrap().len() > 0);
    let log = dir.join("store").join("db");
    let path = match draw.random_ratio(2, 3) {
        true => log,
        false => files[draw.random_range(0..files.len())].clone(),
    };
    let mut bytes = fs::read(&path).unwrap();
    let before = bytes.clone();
    let at = draw.random_range(0..bytes.len());
    let mut over = |length: usize, with: &mut dyn FnMut(u8) -> u8| {
        let end = (at + length).min(bytes.len());
        bytes[at..end]
            .iter_mut()
            .for_each(|byte| *byte = with(*byte));
    };
    let what = match draw.random_range(0..5) {
        0 => {
            over(1, &mut |byte| byte ^ 0x10);
            "a bit"
        }
        1 => {
            over(8, &mut |byte| byte ^ 0x5a);
            "8 bytes"
        }
        2 => {
            over(512, &mut |_| 0);
            "512 bytes zeroed"
        }
        3 => {
            over(4096, &mut |_| 0xff);
            "4096 bytes of ones"
        }
        _ => {
            bytes.truncate(at);
            "cut"
        }
    };
    let same = if bytes == before { " (the same)" } else { "" };
    fs::write(&path, bytes).unwrap();
    let name = path.file_name().unwrap().to_str().unwrap();
    format!("{name}, {what} at {at}{same}")
}

#[tokio::test]
async fn what_opens_is_whole_and_the_rest_says_so() {
    let mut opened = 0;
    let mut refused = 0;
    for (seed, killed) in [(1, false), (2, true)] {
        let image = image(seed, killed).await;
        for number in 0..60 {
            let dir = copied(image.dir.path());
            let mut draw = StdRng::seed_from_u64(seed * 1000 + number);
            let what = damage(dir.path(), &mut draw);
            let tried = catch_unwind(AssertUnwindSafe(|| SledStore::open(&settings(dir.path()))));
            let tried = tried.unwrap_or_else(|_| panic!("{what}: it panics"));
            match tried {
                Ok(store) => {
                    opened += 1;
                    for (asked, expected) in &image.acknowledged {
                        let found = content(&store, asked).await;
                        assert!(found == *expected, "{what}: {asked:?} is lost");
                    }
                }
                Err(OpenError::Damaged { .. }) => {
                    refused += 1;
                    saved(&image, dir.path(), &what).await;
                }
                Err(other) => panic!("{what}: {other}"),
            }
        }
    }
    assert!(
        opened > 10 && refused > 50,
        "{opened} opened, {refused} refused"
    );
}

/// What a salvage leaves is served, each request once, and as it was or said to be
/// damaged.
async fn saved(image: &Image, dir: &Path, what: &str) {
    let report = check(dir).unwrap_or_else(|error| panic!("{what}: {error}"));
    let log = fs::metadata(dir.join("store").join("db")).unwrap().len() as usize;
    let cut = what.starts_with("db, cut");
    let mut standing = 0;
    let salvaged = salvage(dir, at(5000)).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(report.records, salvaged.found.records, "{what}");
    assert!(salvaged.kept.join("db").exists());
    let store = SledStore::open(&settings(dir)).unwrap_or_else(|error| panic!("{what}: {error}"));
    let places = places(&store).await;
    let mut lost = 0;
    for (asked, expected) in &image.acknowledged {
        let found = content(&store, asked).await;
        let is_open = matches!(found, Some(Content::Open { .. }));
        let is_in = places.get(&asked.key).copied().unwrap_or(0);
        let shown = (&asked.key.id, found.as_ref().map(|_| "there"));
        assert_eq!(
            is_in,
            usize::from(is_open),
            "{what}: the places of {shown:?}"
        );
        // Of a log that was cut off, what stands before that.
        let end = image.payloads.get(&asked.key);
        if !cut || end.is_some_and(|end| *end <= log) {
            standing += 1;
            lost += usize::from(found != *expected);
        }
        if let (Some(Content::Done { outcome, answer }), Some(_)) = (&found, expected)
            && outcome.status == 500
        {
            assert!(String::from_utf8_lossy(answer).contains("storage_damaged"));
        }
    }
    // A page holds 17 records at most; a payload's chunks stand together.
    // Of a killed server's log that is cut off, sled wipes what is left where the end
    // of the log's order stands before the cut: nobody notices before it is opened.
    assert!(
        lost <= 40 || cut && image.killed,
        "{what}: {lost} requests of {standing} are not as they were"
    );
    let again = check(dir);
    assert!(matches!(again, Err(super::SalvageError::InUse { .. })));
    drop(store);
    assert!(check(dir).unwrap().sound, "{what}");
}

/// Where the payloads end in the log that are in one piece and long enough not to be
/// there by chance.
fn payloads(
    dir: &Path,
    acknowledged: &[(Request, Option<Content>)],
) -> BTreeMap<RequestKey, usize> {
    const ENOUGH: usize = 16;
    let log = fs::read(dir.join("store").join("db")).unwrap();
    let payloads = acknowledged.iter().filter_map(|(asked, expected)| {
        let payload = match expected.as_ref()? {
            Content::Open { body } => body,
            Content::Done { answer, .. } => answer,
        };
        let is_whole = (ENOUGH..=chunk::BYTES).contains(&payload.len());
        is_whole.then(|| (&payload[..ENOUGH], (asked.key, payload)))
    });
    let payloads: HashMap<&[u8], (RequestKey, &Bytes)> = payloads.collect();
    let mut ends = BTreeMap::new();
    for (at, window) in log.windows(ENOUGH).enumerate() {
        if let Some((key, payload)) = payloads.get(window)
            && log[at..].starts_with(payload)
        {
            ends.entry(*key).or_insert(at + payload.len());
        }
    }
    ends
}

async fn places(store: &SledStore) -> BTreeMap<RequestKey, usize> {
    let mut places = BTreeMap::new();
    let queued = store.scan_queue(None, usize::MAX).await.unwrap();
    let queued = queued.into_iter().map(|(_, entry)| entry);
    let lines = store.lines(batch_id(1), None, usize::MAX).await.unwrap();
    for entry in queued.chain(lines) {
        *places.entry(entry.key).or_default() += 1;
    }
    places
}

#[tokio::test]
async fn a_sound_database_is_found_to_be_sound() {
    for killed in [false, true] {
        let image = image(3, killed).await;
        let report = check(image.dir.path()).unwrap();
        assert!(report.sound, "{report:?}");
        assert_eq!(Some(report.readable()), report.expected);
        assert!(report.gaps.is_empty() && report.unreadable.is_empty());
        let kept = salvage(image.dir.path(), at(5000)).unwrap();
        let store = open(image.dir.path());
        for (asked, expected) in &image.acknowledged {
            assert_eq!(content(&store, asked).await, *expected, "{kept:?}");
        }
    }
}

#[test]
fn nothing_is_said_of_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let none = check(dir.path()).unwrap_err();
    assert!(matches!(none, super::SalvageError::None { .. }), "{none}");
}

/// Killed after the old one was moved away and before the new one had its place, on a
/// file system that cannot exchange names.
#[tokio::test]
async fn a_salvage_that_was_cut_off_begins_no_empty_database() {
    let dir = tempfile::tempdir().unwrap();
    let at_hand = |name: &str| dir.path().join(name);
    let store = open(dir.path());
    let asked = request(1, 1);
    admit(&store, &asked, b"body").await;
    drop(store);
    let kept = salvage(dir.path(), at(9)).unwrap().kept;
    assert!(!at_hand("store.salvaging").exists());
    fs::rename(at_hand("store"), at_hand("store.salvaging")).unwrap();

    let refused = SledStore::open(&settings(dir.path())).err().unwrap();
    assert!(matches!(refused, OpenError::Leftovers { .. }), "{refused}");
    let told = refused.to_string();
    assert!(told.contains("Rename store.salvaging to `store`"), "{told}");
    let refused = salvage(dir.path(), at(10)).unwrap_err();
    assert!(
        matches!(refused, super::SalvageError::Leftovers { .. }),
        "{refused}"
    );
    assert!(!at_hand("store").exists() && kept.join("db").exists());

    fs::rename(at_hand("store.salvaging"), at_hand("store")).unwrap();
    assert!(content(&open(dir.path()), &asked).await.is_some());
    fs::remove_dir_all(at_hand("store")).unwrap();
    let refused = SledStore::open(&settings(dir.path())).err().unwrap();
    let told = refused.to_string();
    assert!(told.contains("begin with an empty database"), "{told}");
}

async fn spoil(store: &SledStore, name: Vec<u8>) {
    let spoilt = store.change(move |staging| {
        let mut step = Step::default();
        step.put(name, Bytes::from_static(b"\x01spoilt"));
        staging.stage(step)
    });
    spoilt.await.unwrap();
}

/// While it runs: what cannot be read stops nothing beside it.
#[tokio::test]
async fn what_cannot_be_read_is_passed_over_or_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let all: Vec<Request> = (0..4).map(|n| request(1, n)).collect();
    let entries: Vec<_> = all.iter().map(Request::entry).collect();
    for asked in &all {
        admit(&store, asked, b"body").await;
    }
    let cohort = all[0].cohort;
    spoil(&store, queue::key(&cohort, all[1].key)).await;
    assert_eq!(store.queued(cohort, 9).await.unwrap(), entries);
    assert_eq!(store.scan_queue(None, 2).await.unwrap().len(), 2);
    let moved = from_queue(&all[1], Place::Line(batch_id(1)));
    assert!(store.relocate(vec![moved]).await.pop().unwrap().unwrap());
    assert_eq!(
        store.lines(batch_id(1), None, 9).await.unwrap(),
        [entries[1]]
    );

    // Without its record nothing says what the entry held.
    spoil(&store, queue::key(&cohort, all[2].key)).await;
    spoil(&store, records::request::key(all[2].key)).await;
    let left = store.queued(cohort, 2).await.unwrap();
    assert_eq!(
        left,
        [entries[0], entries[3]],
        "those behind it are reached"
    );
    let damaged = store.load(all[2].key).await;
    assert!(matches!(damaged, Err(StoreError::Corrupt(_))));
    let place = Place::Queue(cohort);
    assert!(store.set_aside(entries[2], place).await.unwrap());
    assert!(!store.set_aside(entries[2], place).await.unwrap());
    drop(store);

    let refused = SledStore::open(&settings(dir.path())).err().unwrap();
    let told = refused.to_string();
    assert!(
        told.contains("1 of ") && told.contains("(request "),
        "{told}"
    );
    let salvaged = salvage(dir.path(), at(9)).unwrap();
    assert_eq!(salvaged.found.unreadable.len(), 1);
    let kept = fs::read_to_string(salvaged.unreadable).unwrap();
    assert!(kept.contains("AXNwb2lsdA=="), "{kept}");
    let store = open(dir.path());
    for asked in [&all[0], &all[1], &all[3]] {
        assert!(content(&store, asked).await.is_some());
    }
    assert!(content(&store, &all[2]).await.is_none());
}

async fn spoiled(of: usize, spoilt: impl Fn(&[Request]) -> Vec<u8>) -> (SledStore, Vec<Request>) {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let all: Vec<Request> = (0..of as u64).map(|n| request(1, n)).collect();
    for (n, asked) in (0..).zip(&all) {
        admit(&store, asked, b"body").await;
        settle(&store, asked, at(n), b"answer").await;
    }
    spoil(&store, spoilt(&all)).await;
    (store, all)
}

fn keys(all: &[&Request]) -> Vec<RequestKey> {
    all.iter().map(|asked| asked.key).collect()
}

#[tokio::test]
async fn a_feed_and_a_list_pass_over_what_cannot_be_read() {
    let second = feed::key(request(1, 0).key.tenant, meta::FIRST_SEQUENCE + 1);
    let (store, all) = spoiled(4, |_| second.clone()).await;
    let tenant = all[0].key.tenant;
    let page = store.feed(tenant, 0, 2).await.unwrap();
    let told: Vec<_> = page.entries.iter().map(|entry| entry.key).collect();
    assert_eq!(told, keys(&[&all[0], &all[2]]));

    spoil(&store, records::request::key(all[2].key)).await;
    let listed = store.list(tenant, None, 2).await.unwrap();
    let listed: Vec<_> = listed.iter().map(|head| head.request.key).collect();
    assert_eq!(listed, keys(&[&all[3], &all[1]]));
}

#[tokio::test]
async fn what_cannot_be_read_is_purged_with_what_stands_beside_it() {
    let second = feed::key(request(1, 0).key.tenant, meta::FIRST_SEQUENCE + 1);
    let entry = spoiled(4, |_| second.clone()).await;
    let record = spoiled(4, |all| records::request::key(all[1].key)).await;
    for (store, all) in [entry, record] {
        let tenant = all[0].key.tenant;
        // All but the last one have grown old.
        store.purge(at(3), 9).await.unwrap();
        let left = store.feed(tenant, 0, 9).await.unwrap();
        let left: Vec<_> = left.entries.iter().map(|entry| entry.key).collect();
        assert_eq!(left, keys(&[&all[3]]));
        for gone in [&all[0], &all[2]] {
            assert_eq!(content(&store, gone).await, None);
        }
        store.purge(at(9), 9).await.unwrap();
        assert!(store.feed(tenant, 0, 9).await.unwrap().entries.is_empty());
        assert_eq!(content(&store, &all[3]).await, None);
    }
}

#[tokio::test]
async fn an_ending_is_booked_although_its_ledger_row_cannot_be_read() {
    let row = ending(&request(1, 0), &[], at(0), b"answer").ledger.key;
    let (store, all) = spoiled(1, |_| ledger::key(&row)).await;
    let tenant = all[0].key.tenant;
    assert_eq!(ledger_of(&store, tenant, 0).await, []);
    let next = request(1, 7);
    admit(&store, &next, b"body").await;
    settle(&store, &next, at(0), b"answer").await;
    let rows = ledger_of(&store, tenant, 0).await;
    assert_eq!((rows.len(), rows[0].1.requests), (1, 1));
}

#[tokio::test]
async fn an_idempotency_key_of_what_cannot_be_read_is_free() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let keyed = |n| Request {
        idempotency: Some(CallDigest([7; 16])),
        ..request(1, n)
    };
    for (spoilt, next) in [
        (records::request::key(keyed(0).key), 1),
        (
            idempotency::key(keyed(1).key.tenant, CallDigest([7; 16])),
            2,
        ),
    ] {
        let before = store.admit(admission(&keyed(next - 1), b"body")).await;
        assert_eq!(before.unwrap(), Admitted::New);
        spoil(&store, spoilt).await;
        let again = store.admit(admission(&keyed(next), b"body")).await;
        assert_eq!(again.unwrap(), Admitted::New);
        spoil(&store, records::request::key(keyed(next).key)).await;
    }
}
