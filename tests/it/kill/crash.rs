//! `kill -9` under load, again and again: nothing that was acknowledged is lost,
//! and nothing is submitted twice.
//!
//! `OFFPEAK_KILL_CYCLES=100` kills more often, `OFFPEAK_KILL_SEED=7` elsewhere.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use offpeak::simulator::{Fault, Kind, Log, LoggedRequest, Operation, Simulator};
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use serde_json::Value;
use tokio::{task::JoinSet, time::Instant};

use super::{
    caller::{Call, Client, Mode},
    hooks::Hooks,
    load::{Done, Feed, KEYS, Load},
    number_from, pico_usd,
    process::{Revived, Setup, Up},
    provider::{Point, Provider, quick},
    soon,
};

const CALLERS: usize = 120;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_to_kills_and_nothing_is_submitted_twice() {
    let cycles = number_from("OFFPEAK_KILL_CYCLES").unwrap_or(10);
    let seed = number_from("OFFPEAK_KILL_SEED").unwrap_or(1);
    let dir = tempfile::tempdir().unwrap();
    let mut settings = quick();
    // Some batches stall, so that some calls are rescued.
    settings.latency.stalled_share = 0.1;
    let provider = Provider::start(settings).await;
    // What was created shows in the list half a second later, so that a search
    // after a crash may look too early.
    let by = Duration::from_secs(50);
    provider.simulator.inject(Fault {
        times: u32::MAX,
        ..Fault::once(Operation::ListBatches, Kind::Lag { by })
    });
    let hooks = Hooks::start(provider.trap.clone()).await;
    let setup = Setup::new(&provider.upstream(), &dir.path().join("data")).with(
        "OFFPEAK_WEBHOOK__ALLOW",
        hooks.url.trim_end_matches("/hook"),
    );
    let server = Arc::new(Revived::start(setup, &dir.path().join("stderr")).await);
    let load = Load::new(
        server.clone(),
        Client::new(provider.trap.clone()),
        &hooks.url,
    );
    for key in KEYS {
        let secret = load.get_json(key, "/offpeak/v1/webhook-secret").await;
        hooks.add_secret(secret["secret"].as_str().unwrap());
    }

    let began = Instant::now();
    let mut feeds = JoinSet::new();
    for key in KEYS {
        feeds.spawn(read_feed(load.clone(), Feed::new(key)));
    }
    let mut callers = load.callers(CALLERS);
    tokio::select! {
        () = kill_again_and_again(cycles, seed, &provider, &server) => {}
        Some(ended) = callers.join_next() => ended.unwrap(),
    }
    let killed = began.elapsed();
    load.end();
    while let Some(ended) = soon("the callers", callers.join_next()).await {
        ended.unwrap();
    }
    // A request of which nobody knows goes on too: its 202 was lost.
    let mut end = End::default();
    for key in KEYS {
        await_idle(&load, key).await;
    }
    feeds.shutdown().await;
    for key in KEYS {
        let mut feed = Feed::new(key);
        while feed.read(&load, 0).await > 0 {}
        for (request, tag) in feed.seen {
            end.by_tag.entry(tag).or_default().insert(request);
        }
    }
    let done = std::mem::take(&mut *load.done.lock());
    let log = provider.simulator.log();
    end.check_calls(&done);
    end.check_submissions(&log);
    let unaccounted = end.check_runs(&load, &done, &log).await;
    check_money(&load, &provider, unaccounted).await;
    check_webhooks(&hooks, &done).await;
    check_files(&provider, &load, &log, cycles).await;
    check_log(&server.log());
    println!(
        "{cycles} kills in {killed:?}: {} calls, {} batches, {unaccounted} unaccounted; all in {:?}",
        done.len(),
        log.batches.len(),
        began.elapsed()
    );
}

async fn kill_again_and_again(cycles: u64, seed: u64, provider: &Provider, server: &Revived) {
    let mut chance = StdRng::seed_from_u64(seed);
    for cycle in 0..cycles {
        let point = *Point::ALL.choose(&mut chance).unwrap();
        let spare = chance.random_range(0..40);
        println!("kill {cycle} at {point:?} after {spare}");
        provider.trap.arm(point, spare, 1500, server.pid());
        provider.trap.sprung().await;
        server.ended().await;
        server.again().await;
    }
}

/// Reads the feed while the load lasts, through all kills; the assertions are
/// in the reading.
async fn read_feed(load: Arc<Load>, mut feed: Feed) {
    loop {
        feed.read(&load, 30).await;
    }
}

/// Waits until the tenant has nothing open, by the feed's own news.
async fn await_idle(load: &Load, key: &'static str) {
    let idle = async {
        let mut feed = Feed::new(key);
        loop {
            let open = open_requests(load, key).await;
            if open == 0 {
                return;
            }
            while feed.read(load, 1).await > 0 {}
        }
    };
    soon("the end of all requests", idle).await;
}

async fn open_requests(load: &Load, key: &str) -> usize {
    let mut open = 0;
    for status in ["queued", "in_progress"] {
        let mut next = String::new();
        loop {
            let path = format!("/offpeak/v1/requests?status={status}&limit=100{next}");
            let page = load.get_json(key, &path).await;
            open += page["data"].as_array().unwrap().len();
            if page["has_more"] != true {
                break;
            }
            next = format!("&after={}", page["next"].as_str().unwrap());
        }
    }
    open
}

/// What there is in the end.
#[derive(Default)]
struct End {
    /// The feed's finished requests, by the tag that names their call.
    by_tag: BTreeMap<String, BTreeSet<String>>,
}

impl End {
    fn of(&self, call: &Call) -> &BTreeSet<String> {
        let tag = format!("call-{}", call.number);
        let found = self.by_tag.get(&tag);
        found.unwrap_or_else(|| panic!("no request of {call:?} in the feed"))
    }

    /// What callers were told of is in the feed, and a call that finds its
    /// request again made one only.
    fn check_calls(&self, done: &[Done]) {
        for done in done {
            let requests = self.of(&done.call);
            assert!(
                done.requests.is_subset(requests),
                "{done:?} is told as {requests:?}"
            );
            let most = match done.call.is_found_again() {
                true => 1,
                // A 202 that was lost leaves a request behind that nobody knows.
                false => 1 + done.breaks,
            };
            assert!(requests.len() <= most, "{done:?} made {requests:?}");
        }
        let tags: BTreeSet<String> = done.iter().map(|done| tag(&done.call)).collect();
        let known: BTreeSet<String> = self.by_tag.keys().cloned().collect();
        assert_eq!(known, tags);
    }

    fn check_submissions(&self, log: &Log) {
        assert_eq!(log.overlapping(), Vec::<&str>::new(), "in two batches");
        let mut metadata = BTreeSet::new();
        for batch in &log.batches {
            let new = metadata.insert(batch.metadata.to_string());
            assert!(new, "created twice: {batch:?}");
            assert!(batch.lines > 0, "did not validate: {batch:?}");
        }
    }

    /// Each request ran once, and beyond that only as often as it says itself.
    /// Returns how many live calls nobody saw end.
    async fn check_runs(&self, load: &Load, done: &[Done], log: &Log) -> usize {
        let runs: HashMap<&str, &LoggedRequest> = log
            .requests
            .iter()
            .map(|request| (request.fingerprint.as_str(), request))
            .collect();
        let mut unaccounted = 0;
        for Done { call, .. } in done {
            let mut explained = 0;
            let mut lost = 0;
            let mut views = Vec::new();
            for id in self.of(call) {
                let path = format!("/offpeak/v1/requests/{id}");
                let view = load.get_json(call.key, &path).await;
                assert_eq!(view["status"], "succeeded", "{view}");
                explained += 1 + attempts(&view, "late");
                lost += attempts(&view, "unaccounted");
                assert_eq!(attempts(&view, "open"), 0, "{view}");
                views.push(view);
            }
            let seen = runs[call.fingerprint().as_str()];
            let ran = seen.runs.values().sum::<u32>() as usize;
            assert!(
                (explained..=explained + lost).contains(&ran),
                "ran {ran} times: {seen:?}\n{views:#?}"
            );
            unaccounted += lost;
        }
        unaccounted
    }
}

fn tag(call: &Call) -> String {
    format!("call-{}", call.number)
}

fn attempts(view: &Value, state: &str) -> usize {
    let attempts = view["attempts"].as_array().unwrap().iter();
    attempts.filter(|attempt| attempt["state"] == state).count()
}

/// Ledger ≤ bill ≤ ledger + unaccounted.
async fn check_money(load: &Load, provider: &Provider, unaccounted: usize) {
    let (mut paid, mut lost, mut rescued) = (0, 0, 0);
    for key in KEYS {
        let savings = load.get_json(key, "/offpeak/v1/savings").await;
        paid += pico_usd(savings["total"]["paid_usd"].as_str().unwrap());
        lost += savings["total"]["unaccounted"].as_u64().unwrap();
        rescued += savings["total"]["rescued"].as_u64().unwrap();
        assert_eq!(savings["total"]["unpriced"], 0);
    }
    let bill = provider.simulator.bill();
    let dearest = bill.rows.iter().map(|row| row.pico_usd / row.calls * 2);
    let most = paid + lost * dearest.max().unwrap();
    assert_eq!(lost, unaccounted as u64);
    assert!(rescued > 0, "the load was too easy");
    assert!(
        (paid..=most).contains(&bill.total_pico_usd),
        "{paid} ≤ {} ≤ {most}",
        bill.total_pico_usd
    );
}

/// At least once for each request that asked for one, always with the same id,
/// and signed with its tenant's secret.
async fn check_webhooks(hooks: &Hooks, done: &[Done]) {
    let with_hook = done.iter().filter(|done| done.call.mode == Mode::Webhook);
    let mut expected = HashMap::new();
    for done in with_hook {
        for request in &done.requests {
            expected.insert(request.clone(), &done.call);
        }
    }
    let requests: Vec<String> = expected.keys().cloned().collect();
    hooks.all_of(&requests).await;
    let mut ids: HashMap<String, String> = HashMap::new();
    for (request, received) in hooks.by_request() {
        for hook in &received {
            let tenant = hook.signed_by.expect("a valid signature");
            let first = ids
                .entry(hook.id.clone())
                .or_insert_with(|| request.clone());
            assert_eq!(*first, request, "one id, two requests: {hook:?}");
            assert_eq!(hook.id, received[0].id, "one request, two ids");
            assert_eq!(hook.event["id"].as_str(), Some(hook.id.as_str()));
            assert_eq!(hook.event["type"], "offpeak.request.succeeded");
            if let Some(call) = expected.get(&request) {
                assert_eq!(KEYS[tenant], call.key);
                assert!(call.is_answered_by(&hook.event["data"]["response"].to_string()));
            }
        }
    }
    assert!(!requests.is_empty(), "no webhook was asked for");
}

/// Every file of a batch is deleted. A kill within an upload leaves a file of
/// which we know nothing; it expires by itself.
async fn check_files(provider: &Provider, load: &Load, log: &Log, kills: u64) {
    let inputs: BTreeSet<&str> = log
        .batches
        .iter()
        .map(|batch| batch.input_file_id.as_str())
        .collect();
    let up = Up {
        start: 0,
        base: provider.upstream().trim_end_matches("/v1").into(),
    };
    let deleted = async {
        loop {
            let before = deletions(&provider.simulator);
            let left = files(load, &up).await;
            let known = |file: &&Value| {
                let id = file["id"].as_str().unwrap();
                file["purpose"] != "batch" || inputs.contains(id)
            };
            if left.iter().filter(known).count() == 0 {
                return left;
            }
            let more = |simulator: &Simulator| deletions(simulator) > before;
            provider.until("a deletion", more).await;
        }
    };
    let left = soon("the deletion of the provider's files", deleted).await;
    assert!(left.len() as u64 <= kills, "left behind: {left:?}");
    for file in left {
        assert!(file["expires_at"].is_number(), "{file}");
    }
}

fn deletions(simulator: &Simulator) -> u64 {
    let operations = simulator.log().operations;
    operations
        .get(&Operation::DeleteFile)
        .copied()
        .unwrap_or_default()
}

async fn files(load: &Load, provider: &Up) -> Vec<Value> {
    let mut files = Vec::new();
    for key in KEYS {
        let reply = load
            .client
            .get(provider, key, "/v1/files", 0)
            .await
            .unwrap();
        let list: Value = serde_json::from_str(&reply.body).unwrap();
        files.extend(list["data"].as_array().unwrap().iter().cloned());
    }
    files
}

/// No panic, no illegal transition, no record that cannot be read.
fn check_log(log: &str) {
    for line in log.lines() {
        let bad = ["panicked", "illegal", "corrupt", "ERROR"];
        assert!(!bad.iter().any(|word| line.contains(word)), "{line}");
    }
}
