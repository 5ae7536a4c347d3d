//! The store alone: accepts, and a million requests from admission to purge.
//!
//! ```text
//! cargo bench --bench store -- accept            512 tasks, 2 KB bodies, 10 s
//! cargo bench --bench store -- depth [REQUESTS]  fill, claim, settle, purge, reopen
//! ```
//!
//! `OFFPEAK_BENCH_DIR` says where the database stands, `OFFPEAK_BENCH_CACHE` how
//! many bytes sled may cache.

use std::{
    env, fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use offpeak::{
    model::{
        attempt::Lane,
        endpoint::Endpoint,
        id::{BatchId, CallDigest, CredentialId, DestinationId, RequestId, RequestKey, TenantId},
        ledger::{LedgerKey, LedgerRow},
        request::{
            Bucket, Cohort, Destination, Entry, Framing, Guarantee, OnLate, Outcome, Place,
            Request, Shape, Source, State, Usage,
        },
        time::Timestamp,
    },
    ports::{Admission, Ending, LedgerEntry, Relocation, Settled, Store},
    store::{Settings, SledStore},
};
use tokio::{task::JoinSet, time::Instant};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Callers at a time: as in the bench of the whole server, and as many as leave
/// a commit's own time to be seen.
const ACCEPT_TASKS: u64 = 512;
const DEPTH_TASKS: u64 = 64;
const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
const TENANT: TenantId = TenantId([1; 16]);
const BATCH: u64 = 1000;
/// An empty store and a full one take turns of this many requests.
const TURN: u64 = 20_000;
const TURNS: u64 = 7;

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = env::args()
        .skip(1)
        .filter(|a| !a.starts_with("--"))
        .collect();
    let dir = env::var_os("OFFPEAK_BENCH_DIR")
        .map_or_else(|| env::temp_dir().join("offpeak-bench"), PathBuf::from);
    if dir.exists() {
        fs::remove_dir_all(&dir).expect("an old database can be removed");
    }
    match arguments.first().map(String::as_str) {
        Some("depth") => {
            let requests = arguments
                .get(1)
                .and_then(|n| n.parse().ok())
                .unwrap_or(1_000_000);
            depth(&dir, requests).await;
        }
        _ => accept(&dir).await,
    }
    fs::remove_dir_all(&dir).expect("the database can be removed");
}

fn open(dir: &Path) -> Arc<SledStore> {
    let cache_bytes = env::var("OFFPEAK_BENCH_CACHE")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(16 << 20);
    let settings = Settings {
        data_dir: dir.to_path_buf(),
        cache_bytes,
        reserve_bytes: 64 << 20,
        verify_at_start: true,
    };
    Arc::new(SledStore::open(&settings).expect("the store opens"))
}

async fn accept(dir: &Path) {
    let store = open(dir);
    let requests = 200_000;
    let watch = Watch::start(dir);
    let admitted = fill(&store, ACCEPT_TASKS, 0..requests).await;
    admitted.report("admit", &watch);
    let line = Place::Line(batch_of(0));
    let settled = settle(&store, 0..requests, |n| queued(n).from, line).await;
    settled.report("settle", &watch);
}

async fn depth(dir: &Path, requests: u64) {
    let store = open(dir);
    let watch = Watch::start(dir);
    let tenth = requests / 10;
    let first = fill(&store, DEPTH_TASKS, 0..tenth).await;
    first.report("fill, first tenth", &watch);
    for n in 1..10 {
        let part = fill(&store, DEPTH_TASKS, n * tenth..(n + 1) * tenth).await;
        part.report("fill, next tenth", &watch);
    }
    drop(Arc::into_inner(store).expect("nobody else holds it"));
    let began = Instant::now();
    let store = open(dir);
    let opened = began.elapsed();
    let mut after = None;
    let mut seen = 0;
    loop {
        let page = store
            .scan_queue(after, 5000)
            .await
            .expect("the queue can be read");
        let Some((cohort, entry)) = page.last() else {
            break;
        };
        after = Some((*cohort, entry.key));
        seen += page.len();
    }
    println!(
        "reopen with {seen} queued: {opened:?}, with the scan of the queue {:?}",
        began.elapsed()
    );
    watch.report("reopened");
    let requests = beside_empty(dir, &store, requests).await;

    let began = Instant::now();
    let mut latencies = Vec::new();
    for batch in 0..requests / BATCH {
        let moves: Vec<Relocation> = (batch * BATCH..(batch + 1) * BATCH).map(queued).collect();
        let at = Instant::now();
        let moved = store.relocate(moves).await;
        assert!(moved.into_iter().all(|moved| moved.expect("it is claimed")));
        latencies.push(at.elapsed());
    }
    Phase {
        count: requests,
        took: began.elapsed(),
        latencies,
    }
    .report("claim, 1000 a call", &watch);

    let line = |n| Place::Line(batch_of(n));
    settle(&store, 0..requests, line, Place::Live)
        .await
        .report("settle, 50 a call", &watch);

    let began = Instant::now();
    let mut latencies = Vec::new();
    let mut purged = 0;
    loop {
        let at = Instant::now();
        let count = store
            .purge(Timestamp::MAX, 50)
            .await
            .expect("they can be purged");
        if count == 0 {
            break;
        }
        latencies.push(at.elapsed());
        purged += count as u64;
    }
    assert_eq!(purged, requests);
    Phase {
        count: purged,
        took: began.elapsed(),
        latencies,
    }
    .report("purge, 50 a call", &watch);

    beside_empty(dir, &store, requests).await;
    watch.report("the end");
}

/// The accept rate of an empty store against this one, in turns: a disk and a
/// host that others use change theirs by half within a minute. Returns the
/// number behind the last request.
async fn beside_empty(dir: &Path, store: &Arc<SledStore>, from: u64) -> u64 {
    let mut ratios = Vec::new();
    for turn in 0..TURNS {
        let aside = dir.with_extension("empty");
        let empty = open(&aside);
        let fresh = fill(&empty, DEPTH_TASKS, 0..TURN).await;
        drop(Arc::into_inner(empty).expect("nobody else holds it"));
        fs::remove_dir_all(&aside).expect("it can be removed");
        let start = from + turn * TURN;
        let full = fill(store, DEPTH_TASKS, start..start + TURN).await;
        ratios.push(fresh.rate() / full.rate());
    }
    ratios.sort_by(f64::total_cmp);
    println!(
        "accept rate of an empty store / of this one, {TURNS} turns of {TURN}: median {:.2}, {:.2} to {:.2}",
        ratios[ratios.len() / 2],
        ratios[0],
        ratios[ratios.len() - 1]
    );
    from + TURNS * TURN
}

async fn fill(store: &Arc<SledStore>, callers: u64, range: std::ops::Range<u64>) -> Phase {
    let count = range.end - range.start;
    let next = Arc::new(AtomicU64::new(range.start));
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..callers {
        let (store, next, end) = (store.clone(), next.clone(), range.end);
        tasks.spawn(async move {
            let mut latencies = Vec::new();
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= end {
                    return latencies;
                }
                let admission = admission(n);
                let at = Instant::now();
                store.admit(admission).await.expect("it is admitted");
                latencies.push(at.elapsed());
            }
        });
    }
    let probe = Probe::start(store);
    let latencies = tasks.join_all().await.into_iter().flatten().collect();
    let took = began.elapsed();
    probe.report().await;
    Phase {
        count,
        took,
        latencies,
    }
}

async fn settle(
    store: &Arc<SledStore>,
    range: std::ops::Range<u64>,
    place: impl Fn(u64) -> Place,
    other: Place,
) -> Phase {
    let count = range.end - range.start;
    let answer = Bytes::from(noise(1024, 0));
    let probe = Probe::start(store);
    let began = Instant::now();
    let mut latencies = Vec::new();
    for part in range.step_by(50) {
        let endings = (part..part + 50)
            .map(|n| ending(n, vec![place(n), other], answer.clone()))
            .collect();
        let at = Instant::now();
        let settled = store.settle(endings).await;
        assert!(
            settled
                .iter()
                .all(|one| matches!(one, Ok(Settled::Now { .. })))
        );
        latencies.push(at.elapsed());
    }
    let took = began.elapsed();
    probe.report().await;
    Phase {
        count,
        took,
        latencies,
    }
}

struct Phase {
    count: u64,
    took: Duration,
    latencies: Vec<Duration>,
}

/// One caller beside the load, who writes a small record every 5 ms: what a
/// commit takes, apart from the queue of the load itself.
struct Probe {
    stop: Arc<AtomicBool>,
    task: JoinSet<Vec<Duration>>,
}

impl Probe {
    fn start(store: &Arc<SledStore>) -> Probe {
        let stop = Arc::new(AtomicBool::new(false));
        let mut task = JoinSet::new();
        let (store, stopped) = (store.clone(), stop.clone());
        task.spawn(async move {
            let mut latencies = Vec::new();
            let key = RequestKey {
                tenant: TENANT,
                id: RequestId::MIN,
            };
            while !stopped.load(Ordering::Relaxed) {
                let at = Instant::now();
                store
                    .release(key, CallDigest([0; 16]))
                    .await
                    .expect("it is released");
                latencies.push(at.elapsed());
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            latencies
        });
        Probe { stop, task }
    }

    async fn report(self) {
        self.stop.store(true, Ordering::Relaxed);
        let latencies = self.task.join_all().await.concat();
        println!("{:24} {}", "  a small commit beside", quantiles(latencies));
    }
}

fn quantiles(mut latencies: Vec<Duration>) -> String {
    latencies.sort();
    let quantile = |part: f64| latencies[((latencies.len() - 1) as f64 * part) as usize];
    format!(
        "p50 {:>8.2?}  p99 {:>8.2?}  max {:>8.2?}",
        quantile(0.5),
        quantile(0.99),
        quantile(1.0)
    )
}

impl Phase {
    fn rate(&self) -> f64 {
        self.count as f64 / self.took.as_secs_f64()
    }

    fn report(&self, name: &str, watch: &Watch) {
        println!(
            "{name:24} {:>8.0}/s  {:>5.1} µs of CPU each  {}",
            self.rate(),
            watch.processor().as_secs_f64() * 1e6 / self.count as f64,
            quantiles(self.latencies.clone()),
        );
        watch.report(name);
    }
}

/// What the process and its database weigh.
struct Watch {
    dir: PathBuf,
    /// CPU time at the last report, in clock ticks of 10 ms.
    ticks: AtomicU64,
}

impl Watch {
    fn start(dir: &Path) -> Watch {
        Watch {
            dir: dir.to_path_buf(),
            ticks: AtomicU64::new(ticks()),
        }
    }

    /// CPU time since it was last asked for.
    fn processor(&self) -> Duration {
        let ticks = ticks();
        let last = self.ticks.swap(ticks, Ordering::Relaxed);
        Duration::from_millis((ticks - last) * 10)
    }

    fn report(&self, name: &str) {
        let status = fs::read_to_string("/proc/self/status").expect("linux tells of processes");
        let field = |field: &str| {
            let line = status.lines().find(|line| line.starts_with(field));
            let number = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
            number.unwrap_or(0) / 1024
        };
        println!(
            "{name:24} RSS {} MB, at most {} MB; disk {} MB",
            field("VmRSS:"),
            field("VmHWM:"),
            bytes_below(&self.dir) >> 20,
        );
    }
}

fn ticks() -> u64 {
    let stat = fs::read_to_string("/proc/self/stat").expect("linux tells of processes");
    let fields = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace();
    fields
        .skip(11)
        .take(2)
        .filter_map(|ticks| ticks.parse::<u64>().ok())
        .sum()
}

fn bytes_below(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(about) if about.is_dir() => bytes_below(&entry.path()),
            Ok(about) => about.len(),
            Err(_) => 0,
        })
        .sum()
}

fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let mut hash = blake3::Hasher::new();
    hash.update(&seed.to_le_bytes());
    hash.finalize_xof().fill(&mut bytes);
    bytes
}

fn key_of(n: u64) -> RequestKey {
    // Some 20 a millisecond, in random order within it.
    let mut random = [0; 16];
    random.copy_from_slice(&noise(16, n));
    RequestKey {
        tenant: TENANT,
        id: RequestId::new(
            NOW + Duration::from_millis(n / 20),
            u128::from_be_bytes(random),
        ),
    }
}

fn batch_of(n: u64) -> BatchId {
    BatchId::new(
        NOW + Duration::from_secs(n / BATCH),
        u128::from(n / BATCH) << 64,
    )
}

fn entry_of(n: u64) -> Entry {
    Entry {
        key: key_of(n),
        cohort: cohort(),
        lane: Lane::Batch,
        deadline: NOW + Duration::from_millis(3_600_000 + n),
        line_bytes: 2100,
        inputs: 1,
    }
}

fn cohort() -> Cohort {
    Cohort {
        destination: DestinationId([2; 16]),
        on_late: OnLate::Rescue,
        guarantee: Guarantee::Firm,
        bucket: Bucket {
            start: NOW,
            width_log2: 20,
        },
    }
}

fn admission(n: u64) -> Admission {
    let entry = entry_of(n);
    let credential = CredentialId([3; 16]);
    let request = Request {
        key: entry.key,
        endpoint: Endpoint::ChatCompletions,
        model: "gpt-4o-mini".into(),
        credential,
        cohort: cohort(),
        admitted: entry.key.id.born(),
        deadline: entry.deadline,
        on_late: OnLate::Rescue,
        tag: Some("nightly-eval".into()),
        webhook: None,
        idempotency: None,
        digest: CallDigest([4; 16]),
        held: false,
        shape: Shape::Plain,
        line_bytes: entry.line_bytes,
        inputs: entry.inputs,
        lane: Lane::Batch,
        reason: "the cheapest lane that meets the deadline".into(),
    };
    Admission {
        body: Bytes::from(noise(2048, n)),
        place: Place::Queue(request.cohort),
        destination: Destination {
            id: request.cohort.destination,
            tenant: TENANT,
            credential,
            endpoint: request.endpoint,
            model: request.model.clone(),
        },
        credential: Bytes::from_static(b"sealed"),
        body_digest: CallDigest([4; 16]),
        idempotency_horizon: NOW,
        request,
    }
}

fn queued(n: u64) -> Relocation {
    Relocation {
        entry: entry_of(n),
        from: Place::Queue(cohort()),
        to: Place::Line(batch_of(n)),
    }
}

fn ending(n: u64, places: Vec<Place>, answer: Bytes) -> Ending {
    Ending {
        key: key_of(n),
        places,
        outcome: Outcome {
            state: State::Succeeded,
            status: 200,
            finished: NOW + Duration::from_millis(10_000_000 + n),
            source: Source::Batch(batch_of(n)),
            framing: Framing::Json,
            reason: "answered by its batch".into(),
            provider_request: Some("req_0123456789abcdef0123456789abcdef".into()),
            usage: Usage {
                input: 500,
                output: 200,
                ..Usage::default()
            },
            bill: None,
        },
        answer,
        ledger: LedgerEntry {
            key: LedgerKey {
                tenant: TENANT,
                hour: 480_000,
                lane: Some(Lane::Batch),
                model: "gpt-4o-mini".into(),
                tag: Some("nightly-eval".into()),
            },
            row: LedgerRow {
                requests: 1,
                ..LedgerRow::default()
            },
        },
        attempt: None,
    }
}
