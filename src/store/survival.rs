//! What a store on disk goes through: kills, full disks, damaged files.

use std::{
    env, fs,
    io::{BufRead, BufReader, ErrorKind},
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use futures_util::{FutureExt as _, future::join_all};
use parking_lot::Mutex;
use proptest::prelude::*;

use super::{
    KvStore, OpenError, SledStore,
    changes::payload,
    codec::{Kind, seal},
    conformance::{
        admission, admit, at, batch_id, content, ending, open, request, settings, settle,
    },
    kv::{Batch, End, Kv, Pair, Span},
    memory::MemoryKv,
    records::{chunk::Side, meta},
    sled::SledKv,
    staging::{Staging, Step, least_free},
    writer::{Horizon, Writer},
};
use crate::{
    model::request::{Entry, Place, Request},
    ports::{Admitted, Content, Relocation, Settled, Store, StoreError},
};

const CHILD: &str = "OFFPEAK_TEST_KILLED_CHILD";

/// The child admits and settles, and says so when it is told so.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by acknowledged_work_survives_a_kill, as a process to kill"]
async fn killed_child() {
    let given = env::var(CHILD).expect("the parent says where, and where to begin");
    let (dir, first) = given.split_once('|').expect("two words");
    let store = Arc::new(open(Path::new(dir)));
    let next = Arc::new(AtomicU64::new(first.parse().expect("a number")));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let (store, next) = (store.clone(), next.clone());
        tasks.spawn(async move {
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                // Some are large enough for chunks.
                let body = vec![n as u8; if n.is_multiple_of(50) { 200_000 } else { 2000 }];
                admit(&*store, &request(1, n), &body).await;
                println!("\nadmitted {n}");
                if n.is_multiple_of(3) {
                    settle(&*store, &request(1, n), at(n), &body[1..]).await;
                    println!("\nsettled {n}");
                }
            }
        });
    }
    tasks.join_all().await;
}

#[tokio::test]
async fn acknowledged_work_survives_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    for first in [0, 1_000_000, 2_000_000] {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "store::survival::killed_child"])
            .args(["--ignored", "--nocapture", "--quiet"])
            .env(CHILD, format!("{}|{first}", dir.path().display()))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut said = Vec::new();
        for line in lines {
            let line = line.unwrap();
            if let Some((what, n)) = line.split_once(' ')
                && let Ok(n) = n.parse::<u64>()
            {
                said.push((what.to_owned(), n));
            }
            if said.len() == 400 {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(said.len() >= 400, "it worked until it was killed");

        let store = open(dir.path());
        let left = store.scan_queue(None, usize::MAX).await.unwrap();
        for (what, n) in said {
            let asked = request(1, n);
            let found = content(&store, &asked).await;
            match what.as_str() {
                "settled" => assert!(matches!(found, Some(Content::Done { .. })), "{n}"),
                _ => assert!(found.is_some(), "{n}"),
            }
            let open = matches!(found, Some(Content::Open { .. }));
            let queued = left.iter().any(|(_, entry)| entry.key == asked.key);
            assert_eq!(open, queued, "{n}");
        }
    }
}

/// A disk that fails when it is told to.
#[derive(Default)]
struct Disk {
    map: MemoryKv,
    fails: AtomicBool,
    panics: AtomicBool,
    /// A commit breaks off within.
    tears: AtomicBool,
    is_torn: AtomicBool,
    sync: Mutex<Sync>,
    free: AtomicU64,
    /// Of 64 commits in a row, those that fail.
    failing: AtomicU64,
    commits: AtomicU64,
}

/// What becomes of a sync.
#[derive(Clone, Copy, Default)]
enum Sync {
    #[default]
    Done,
    Fails,
    Panics,
}

impl Kv for Arc<Disk> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.map.get(key)
    }

    fn scan(&self, span: &Span, from: End, limit: usize) -> Result<Vec<Pair>, StoreError> {
        self.map.scan(span, from, limit)
    }

    fn apply(&self, batch: Batch) -> Result<(), StoreError> {
        assert!(!self.panics.load(Ordering::SeqCst), "as the test wants it");
        let commit = self.commits.fetch_add(1, Ordering::SeqCst) % 64;
        let failing = self.failing.load(Ordering::SeqCst) >> commit & 1 == 1;
        if failing || self.fails.load(Ordering::SeqCst) {
            return Err(StoreError::Io(ErrorKind::StorageFull.into()));
        }
        if self.tears.load(Ordering::SeqCst) {
            self.is_torn.store(true, Ordering::SeqCst);
            self.map.apply(batch.into_iter().take(1).collect())?;
            return Err(StoreError::Io(ErrorKind::StorageFull.into()));
        }
        self.map.apply(batch)
    }

    fn how_many(&self, kind: Kind) -> usize {
        self.map.how_many(kind)
    }

    fn is_torn(&self) -> bool {
        self.is_torn.load(Ordering::SeqCst)
    }

    fn sync(&self) -> Result<(), StoreError> {
        let sync = *self.sync.lock();
        match sync {
            Sync::Done => self.map.sync(),
            Sync::Fails => Err(StoreError::Io(ErrorKind::StorageFull.into())),
            Sync::Panics => panic!("as the test wants it"),
        }
    }

    fn disk_bytes(&self) -> Result<u64, StoreError> {
        self.map.disk_bytes()
    }

    fn free_bytes(&self) -> Result<u64, StoreError> {
        Ok(self.free.load(Ordering::SeqCst))
    }
}

fn on(disk: &Arc<Disk>, threads: bool) -> KvStore<Arc<Disk>> {
    let kv = Arc::new(disk.clone());
    let horizon = Arc::new(Horizon::new());
    let staging = Staging::new(kv.clone(), horizon.clone(), 1000).unwrap();
    let redo = staging.redo();
    let writer = match threads {
        true => Writer::threads(kv.clone(), horizon.clone(), staging).unwrap(),
        false => Writer::inline(horizon.clone(), staging),
    };
    KvStore {
        writer,
        kv,
        horizon,
        redo,
        spill: env::temp_dir(),
        reserve: 1000,
        commits: crate::model::durations::Durations::within(super::COMMITS),
    }
}

#[tokio::test]
async fn a_full_disk_refuses_calls_but_still_takes_answers() {
    for threads in [false, true] {
        let disk = Arc::new(Disk::default());
        disk.free.store(10_000, Ordering::SeqCst);
        let store = on(&disk, threads);
        let (first, second) = (request(1, 1), request(1, 2));
        admit(&store, &first, b"1").await;

        disk.free.store(1000, Ordering::SeqCst);
        let refused = store.admit(admission(&second, b"2")).await;
        assert!(matches!(refused, Err(StoreError::Full)), "{refused:?}");
        assert_eq!(content(&store, &second).await, None);
        settle(&store, &first, at(1), b"answer").await;

        disk.free.store(10_000, Ordering::SeqCst);
        admit(&store, &second, b"2").await;
    }
}

#[tokio::test]
async fn a_failed_write_is_told_and_the_next_one_goes_on() {
    for threads in [false, true] {
        let disk = Arc::new(Disk::default());
        disk.free.store(10_000, Ordering::SeqCst);
        let store = on(&disk, threads);
        let (first, second) = (request(1, 1), request(1, 2));
        admit(&store, &first, b"1").await;

        disk.fails.store(true, Ordering::SeqCst);
        let failed = store.admit(admission(&second, b"2")).await;
        assert!(matches!(failed, Err(StoreError::Io(_))), "{failed:?}");
        assert!(content(&store, &first).await.is_some(), "reads go on");

        disk.fails.store(false, Ordering::SeqCst);
        let again = store.admit(admission(&second, b"2")).await.unwrap();
        assert_eq!(again, Admitted::New);
        let before = settle(&store, &first, at(1), b"answer").await;
        assert!(before < settle(&store, &second, at(2), b"answer").await);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// However many changes share a commit or fill several.
    #[test]
    fn what_failed_was_not_made_and_the_others_were(failing: u64, threads: bool) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(results_are_true(failing, threads));
    }
}

async fn results_are_true(failing: u64, threads: bool) {
    let disk = Arc::new(Disk::default());
    disk.free.store(u64::MAX, Ordering::SeqCst);
    let store = on(&disk, threads);
    let payload = |n: u64| vec![7; [1, 9_000, 70_000][n as usize % 3]];
    let place = Place::Line(batch_id(1));
    let all: Vec<Request> = (0..150).map(|n| request(1, n)).collect();
    disk.failing.store(failing, Ordering::SeqCst);

    let admitted = (0..).zip(&all).map(|(n, asked)| {
        let admission = admission(asked, &payload(n));
        store.admit(admission)
    });
    let admitted = succeeded(&all, join_all(admitted).await, |_| true);
    let queued = store.queued(all[0].cohort, usize::MAX).await.unwrap();
    assert_eq!(queued, entries(&admitted));

    let moves = admitted.iter().map(|asked| Relocation {
        entry: asked.entry(),
        from: Place::Queue(asked.cohort),
        to: place,
    });
    let moved = succeeded(&admitted, store.relocate(moves.collect()).await, |moved| {
        moved
    });
    let lines = store.lines(batch_id(1), None, usize::MAX).await.unwrap();
    assert_eq!(lines, entries(&moved));

    let endings = (0..)
        .zip(&moved)
        .map(|(n, asked)| ending(asked, &[place], at(9), &payload(n)));
    let now = |settled| matches!(settled, Settled::Now { place: Some(_), .. });
    let settled = succeeded(&moved, store.settle(endings.collect()).await, now);
    for (n, asked) in (0..).zip(&moved) {
        let answer = match content(&store, asked).await {
            Some(Content::Done { answer, .. }) => Some(answer),
            _ => None,
        };
        let expected = settled.contains(asked).then(|| Bytes::from(payload(n)));
        assert!(answer == expected, "{n}: ended or not, and with its answer");
    }
    let feed = store.feed(all[0].key.tenant, 0, usize::MAX).await.unwrap();
    let mut told: Vec<_> = feed.entries.iter().map(|entry| entry.key).collect();
    told.sort();
    assert_eq!(
        told,
        settled.iter().map(|asked| asked.key).collect::<Vec<_>>()
    );
}

fn succeeded<T>(
    asked: &[Request],
    results: Vec<Result<T, StoreError>>,
    expected: impl Fn(T) -> bool,
) -> Vec<Request> {
    assert_eq!(asked.len(), results.len());
    let kept = asked.iter().zip(results).filter_map(|(asked, result)| {
        let result = result.ok()?;
        assert!(expected(result), "{asked:?}");
        Some(asked.clone())
    });
    kept.collect()
}

fn entries(asked: &[Request]) -> Vec<Entry> {
    asked.iter().map(Request::entry).collect()
}

/// What fails for good: nobody knows what is on the disk.
const BREAKS: [fn(&Disk); 4] = [
    |disk| disk.tears.store(true, Ordering::SeqCst),
    |disk| disk.panics.store(true, Ordering::SeqCst),
    |disk| *disk.sync.lock() = Sync::Fails,
    |disk| *disk.sync.lock() = Sync::Panics,
];

#[tokio::test]
async fn after_a_failed_write_nothing_is_written_and_nothing_new_is_told() {
    for breaks in BREAKS {
        let disk = Arc::new(Disk::default());
        disk.free.store(10_000, Ordering::SeqCst);
        let store = on(&disk, true);
        let (first, second) = (request(1, 1), request(1, 2));
        admit(&store, &first, b"1").await;
        assert!(store.failed().now_or_never().is_none());

        breaks(&disk);
        store.admit(admission(&second, b"2")).await.unwrap_err();
        store.failed().await;
        // As if the disk were well again.
        disk.tears.store(false, Ordering::SeqCst);
        disk.panics.store(false, Ordering::SeqCst);
        *disk.sync.lock() = Sync::Done;
        let commits = disk.commits.load(Ordering::SeqCst);
        for _ in 0..2 {
            store.admit(admission(&second, b"2")).await.unwrap_err();
        }
        assert_eq!(disk.commits.load(Ordering::SeqCst), commits);
        let told = store.head(second.key).await;
        assert!(told.is_err(), "it may be gone with the process: {told:?}");
    }
}

#[tokio::test]
async fn what_was_synced_before_a_failure_is_told() {
    let disk = Arc::new(Disk::default());
    disk.free.store(10_000, Ordering::SeqCst);
    let store = on(&disk, true);
    let first = request(1, 1);
    admit(&store, &first, b"1").await;
    *disk.sync.lock() = Sync::Fails;
    // It changes nothing, and its sync fails.
    store.erase(request(1, 2).key).await.unwrap_err();
    assert!(content(&store, &first).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_failed_store_ends_when_the_disk_has_room() {
    let disk = Arc::new(Disk::default());
    disk.free.store(10_000, Ordering::SeqCst);
    let store = on(&disk, true);
    *disk.sync.lock() = Sync::Fails;
    disk.free.store(least_free(1000) - 1, Ordering::SeqCst);
    store.erase(request(1, 1).key).await.unwrap_err();
    let hour = std::time::Duration::from_secs(3600);
    let early = tokio::time::timeout(hour, store.failed()).await;
    assert!(early.is_err(), "there is no room to start again");
    disk.free.store(least_free(1000), Ordering::SeqCst);
    let told = store.failed().await;
    assert!(matches!(told, StoreError::Io(_)), "{told}");
}

#[tokio::test]
async fn no_chunk_outlives_its_request() {
    let disk = Arc::new(Disk::default());
    disk.free.store(u64::MAX, Ordering::SeqCst);
    let store = on(&disk, false);
    admit(&store, &request(1, 1), b"small").await;
    let before = disk.disk_bytes().unwrap();
    for (n, length) in [(2, 4001), (3, 64_000), (4, 64_001)] {
        let asked = request(1, n);
        admit(&store, &asked, &vec![7; length]).await;
        let open = disk.disk_bytes().unwrap();
        settle(&store, &asked, at(9), b"a short answer").await;
        let settled = disk.disk_bytes().unwrap();
        assert!(
            settled + length as u64 <= open + 1000,
            "its body of {length} is gone"
        );
        assert!(store.erase(asked.key).await.unwrap());
    }
    let left = disk.disk_bytes().unwrap();
    assert!(left < before + 1000, "{left} bytes of {before}");
}

#[tokio::test]
async fn chunks_that_nothing_names_are_swept() {
    let disk = Arc::new(Disk::default());
    disk.free.store(u64::MAX, Ordering::SeqCst);
    let store = on(&disk, false);
    let (kept, lost) = (request(1, 1), request(1, 2));
    let large = Bytes::from(vec![7; 300_000]);
    admit(&store, &kept, &large).await;
    let before = disk.disk_bytes().unwrap();
    let swept = store.change(move |staging| {
        // As if the process died between the journal and the record.
        let never = &mut Step::default();
        payload::write(staging, never, lost.key, Side::Body, &large)?;
        payload::write(staging, never, kept.key, Side::Answer, &large)?;
        payload::sweep(staging)
    });
    assert_eq!(swept.await.unwrap(), 2);
    assert_eq!(disk.disk_bytes().unwrap(), before);
    assert!(content(&store, &request(1, 1)).await.is_some());
}

#[tokio::test]
async fn a_database_with_other_segments_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    let older = sled::Config::new()
        .path(dir.path().join("store"))
        .segment_size(2 << 20);
    drop(older.open().unwrap());
    // Its threads may hold the lock for a moment longer.
    let log = fs::File::open(dir.path().join("store/db")).unwrap();
    rustix::fs::flock(&log, rustix::fs::FlockOperation::LockExclusive).unwrap();
    rustix::fs::flock(&log, rustix::fs::FlockOperation::Unlock).unwrap();
    let asked = request(1, 1);
    admit(&open(dir.path()), &asked, b"1").await;
    assert!(content(&open(dir.path()), &asked).await.is_some());
}

#[tokio::test]
async fn a_format_of_another_version_is_refused() {
    for (format, told) in [
        (1u32, "has format 1, this version writes 5"),
        (6, "has format 6, this version knows up to 5"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        drop(open(dir.path()));
        let kv = SledKv::open(&dir.path().join("store"), 1 << 20).unwrap();
        kv.apply([(meta::format_key(), Some(seal(&format)))].into())
            .unwrap();
        kv.sync().unwrap();
        drop(kv);
        let refused = SledStore::open(&settings(dir.path())).err().unwrap();
        assert!(
            matches!(
                (&refused, format),
                (OpenError::Older { found: 1, .. }, 1) | (OpenError::Newer { found: 6, .. }, 6)
            ),
            "{refused}"
        );
        assert!(refused.to_string().contains(told), "{refused}");
    }
}

async fn a_store_of(requests: u64, dir: &Path) {
    let store = Arc::new(open(dir));
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..requests {
        let store = store.clone();
        tasks.spawn(async move { admit(&*store, &request(1, n), &[n as u8; 2000]).await });
    }
    tasks.join_all().await;
}

/// Nothing is lost in silence: it does not open, and says where and what to do.
#[tokio::test]
async fn damaged_files_are_told() {
    let cut: fn(&mut Vec<u8>) = |file| file.truncate(file.len() / 2);
    let end_cut: fn(&mut Vec<u8>) = |file| file.truncate(file.len() - 1_000_000);
    let emptied: fn(&mut Vec<u8>) = |file| file.clear();
    let garbled: fn(&mut Vec<u8>) = |file| file.iter_mut().for_each(|byte| *byte ^= 0x5a);
    for (name, damage) in [
        ("cut", cut),
        ("end cut", end_cut),
        ("emptied", emptied),
        ("garbled", garbled),
    ] {
        let dir = tempfile::tempdir().unwrap();
        a_store_of(3000, dir.path()).await;
        let path = dir.path().join("store/db");
        let mut file = fs::read(&path).unwrap();
        damage(&mut file);
        fs::write(&path, file).unwrap();
        let Err(refused) = SledStore::open(&settings(dir.path())) else {
            panic!("{name}: it opened");
        };
        let told = refused.to_string();
        assert!(
            matches!(refused, OpenError::Damaged { .. }),
            "{name}: {told}"
        );
        assert!(
            told.contains(&dir.path().display().to_string()),
            "{name}: {told}"
        );
    }
}
