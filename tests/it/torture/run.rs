//! One run: the scene, its cycles, and its end.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use offpeak::{simulator::Settings, store::rehearsal::DIRECTORY};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use rustix::process::Signal;
use tokio::{task::JoinSet, time::Instant};

use super::{
    books,
    coverage::{self, Coverage, Kept},
    load::{Feed, Load},
    register::Register,
    report::Report,
    story,
    strike::{Strike, Strikes},
    trouble::{self, Full, Troubles},
};
use crate::kill::{
    caller::Client,
    disk::Disk,
    hooks::Hooks,
    load::KEYS,
    process::{Refusal, Revived, Setup},
    provider::{Provider, SEED},
};

const ADMIN: &str = "the operators' token";
/// Callers of every mode, and of the bulk.
const CALLERS: (usize, usize) = (48, 8);
/// Bulk calls a cycle.
const BULK: usize = 700;
/// With more requests open than this, no more bulk is asked for.
const OPEN: usize = 2_500;
/// Of the disk, in megabytes.
const DISK: u32 = 768;
/// Stories that are told.
const STORIES: usize = 6;

/// Batches of a second or two, ordinary calls of 100 ms; flex and background
/// responses between them. In real time, so that the provider's clock is a clock. With
/// every fifth seed it forgets `metadata`.
fn provider(seed: u64) -> Settings {
    let mut settings = Settings {
        seed: SEED,
        speed: 1.0,
        keeps_metadata: !seed.is_multiple_of(5),
        ..Settings::default()
    };
    let millis = Duration::from_millis;
    let latency = &mut settings.latency;
    latency.validation = millis(50);
    latency.turnaround_median = millis(900);
    latency.turnaround_sigma = 0.6;
    latency.stalled_share = 0.0;
    latency.finalizing = millis(50);
    latency.cancel = millis(400);
    latency.cancel_in_flight = millis(50);
    latency.live_median = millis(100);
    latency.live_chunk = millis(2);
    latency.flex_median = millis(300);
    latency.flex_sigma = 0.4;
    latency.background_median = millis(200);
    latency.background_8h_median = millis(500);
    latency.background_2h_median = millis(300);
    latency.background_sigma = 0.4;
    settings.limits.batch_creates_per_hour = 10_000_000;
    settings.limits.uploads_per_minute = 10_000_000;
    settings.limits.flex_shortage = 0.1;
    settings
}

/// The same, as the server is told of it; and patience for a provider that is sick
/// all day.
const LAW: &[(&str, &str)] = &[
    ("OFFPEAK_ADMIN_TOKEN", ADMIN),
    ("OFFPEAK_SERVER__SHUTDOWN_GRACE", "1s"),
    ("OFFPEAK_UPSTREAM__READ_TIMEOUT", "3s"),
    ("OFFPEAK_UPSTREAM__UPLOAD_TIMEOUT", "3s"),
    ("OFFPEAK_SUBMIT__AUDIT_INTERVAL", "2s"),
    // A batch is old at once where the clock was set.
    ("OFFPEAK_WATCH__POLL_MAX", "500ms"),
    ("OFFPEAK_LADDER__BATCH__MEDIAN", "1s"),
    ("OFFPEAK_LADDER__BATCH__P90", "3s"),
    ("OFFPEAK_LADDER__FLEX__MEDIAN", "300ms"),
    ("OFFPEAK_LADDER__FLEX__P90", "600ms"),
    ("OFFPEAK_LADDER__FLEX__REFUSED", "0.1"),
    ("OFFPEAK_LADDER__BACKGROUND-8H__MEDIAN", "500ms"),
    ("OFFPEAK_LADDER__BACKGROUND-8H__P90", "1s"),
    ("OFFPEAK_LADDER__BACKGROUND-2H__MEDIAN", "300ms"),
    ("OFFPEAK_LADDER__BACKGROUND-2H__P90", "700ms"),
    ("OFFPEAK_SUBMIT__MAX_CONCURRENT", "16"),
    ("OFFPEAK_LIVE__TIMEOUT", "3s"),
    ("OFFPEAK_LIVE__ATTEMPTS", "1000"),
    ("OFFPEAK_LIVE__RETRIES_PER_MINUTE", "100000"),
];

pub struct Run {
    seed: u64,
    chance: StdRng,
    dir: tempfile::TempDir,
    disk: Option<Disk>,
    data_dir: PathBuf,
    rehearsal: PathBuf,
    provider: Arc<Provider>,
    hooks: Arc<Hooks>,
    load: Arc<Load>,
    callers: JoinSet<()>,
    feeds: JoinSet<()>,
    next: Strike,
    /// Bytes of the log that have been read.
    read: usize,
    kept: Option<Kept>,
    cycles: u64,
    strikes: Strikes,
    coverage: Coverage,
    began: Instant,
    resident: u64,
}

impl Run {
    pub async fn begin(seed: u64) -> Run {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::mount(DISK);
        let above = disk.as_ref().map_or(dir.path(), |disk| &disk.path);
        let data_dir = above.join("data");
        let rehearsal = dir.path().join("rehearsal");
        fs::create_dir(&rehearsal).unwrap();
        let provider = Provider::start(provider(seed)).await;
        let hooks = Hooks::start(provider.trap.clone()).await;
        let mut setup = Setup::new(&provider.upstream(), &data_dir)
            .with(DIRECTORY, rehearsal.to_str().unwrap())
            .with(
                "OFFPEAK_WEBHOOK__ALLOW",
                hooks.url.trim_end_matches("/hook"),
            );
        for (name, value) in LAW {
            setup = setup.with(name, value);
        }
        let server = Arc::new(Revived::start(setup, &dir.path().join("stderr")).await);
        let resident = resident(&server);
        let client = Client::new(provider.trap.clone());
        let pooled = Client::keeping(provider.trap.clone(), 64);
        let register = Register::new(seed, &hooks.url);
        let load = Load::new(server, register, client, pooled);
        for key in KEYS {
            let secret = load.get_json(key, "/offpeak/v1/webhook-secret").await;
            hooks.add_secret(secret["secret"].as_str().unwrap());
        }
        let mut feeds = JoinSet::new();
        for key in KEYS {
            feeds.spawn(Feed::new(key).read_on(load.clone()));
        }
        Run {
            seed,
            chance: StdRng::seed_from_u64(seed),
            callers: load.callers(CALLERS.0, CALLERS.1),
            feeds,
            dir,
            disk,
            data_dir,
            rehearsal,
            provider,
            hooks,
            load,
            next: Strike::Instant(Duration::from_secs(1)),
            read: 0,
            kept: None,
            cycles: 0,
            strikes: Strikes::default(),
            coverage: Coverage::default(),
            began: Instant::now(),
            resident,
        }
    }

    /// Requests that callers were told of.
    pub fn acknowledged(&self) -> u64 {
        self.load.register.books(|books| books.acknowledged)
    }

    /// One life and its end. False where something is wrong, and the run is over.
    pub async fn cycle(&mut self, cycle: u64, cycles: u64) -> bool {
        self.load.register.books(|books| books.cycle = cycle);
        self.cycles = cycle + 1;
        if self.load.register.open() + self.load.bulk.available_permits() < OPEN {
            self.load.bulk.add_permits(BULK);
        }
        let (strike, trap) = (self.next, self.provider.trap.clone());
        let troubles = Troubles::draw(&mut self.chance);
        let shown = format!("{strike:?}{troubles}");
        let (outlived, beside) = match troubles.full() {
            Some(full) if full.is_outlived => (Some(full), None),
            beside => (None, beside),
        };
        let ended = {
            let fill = async |full: Option<Full>| {
                if let (Some(full), Some(disk)) = (full, &self.disk)
                    && let Err(what) = full.happen(disk, &self.load).await
                {
                    self.load.register.violation(None, what);
                }
            };
            let happening = async {
                tokio::join!(
                    troubles.happen(self.provider.clone(), &self.rehearsal),
                    fill(beside),
                    books::check_ledger(&self.load, &self.provider),
                );
            };
            let left = self.chance.random_range(0..BULK);
            let striking = async {
                fill(outlived).await;
                if strike.is_patient() {
                    self.load.bulk_down_to(left).await;
                    self.load.open_down_to(OPEN / 2).await;
                }
                strike.carry_out(&self.load.server, &trap).await
            };
            tokio::pin!(happening, striking);
            tokio::select! {
                ended = &mut striking => ended,
                () = &mut happening => striking.await,
            }
        };
        trouble::relieve(&self.provider, self.disk.as_ref()).await;
        match ended {
            Ok(kind) => self.strikes.count(kind),
            Err(status) if status.code() == Some(2) && self.found_no_room() => {
                self.strikes
                    .count("by itself, after a write on a full disk");
            }
            Err(status) => {
                let what = format!("the process ended by itself: {status}");
                self.load.register.violation(None, what);
            }
        }
        self.look_at_what_is_left().await;
        trouble::between_lives(&mut self.chance, &self.rehearsal);
        self.next = Strike::draw(&mut self.chance);
        if self.load.register.open() > OPEN / 2 && !self.next.is_patient() {
            // A machine that lags behind gets time to catch up.
            self.next = Strike::Instant(Duration::from_secs(1));
        }
        self.start().await;
        let (acknowledged, violations) = self
            .load
            .register
            .books(|books| (books.acknowledged, books.violations.len()));
        println!(
            "{:4}/{cycles} {:6.0?} {acknowledged:7} acknowledged, {:5} open, {violations} violations; {shown}",
            cycle + 1,
            self.began.elapsed(),
            self.load.register.open(),
        );
        while let Some(ended) = self.callers.try_join_next() {
            ended.unwrap();
        }
        violations == 0
    }

    /// Whether this life says that it ends because its disk was full.
    fn found_no_room(&self) -> bool {
        let log = self.load.server.log();
        let mut told = log[self.read..].lines();
        told.any(|line| line.starts_with("offpeak: a write") && books::is_full(line))
    }

    /// Starts the next life, which may be over before it has begun.
    async fn start(&mut self) {
        loop {
            self.next.prepare(&self.rehearsal);
            match self.load.server.try_again().await {
                Ok(()) => return,
                Err(Refusal { code: None, .. }) => {
                    self.strikes.count("while it started");
                    self.look_at_what_is_left().await;
                    self.next = Strike::draw(&mut self.chance);
                }
                Err(Refusal { code, told }) => {
                    let last: Vec<&str> = told.lines().rev().take(20).collect();
                    panic!("it does not start: {code:?}\n{}", last.join("\n"));
                }
            }
        }
    }

    async fn look_at_what_is_left(&mut self) {
        let kept = coverage::read(&self.data_dir, &self.dir.path().join("copy")).await;
        self.coverage.add(&kept.states);
        self.load.register.check_kept(&kept);
        self.kept = Some(kept);
        let log = self.load.server.log();
        if let Some(line) = books::bad_line(&log[self.read..]) {
            self.load.register.violation(None, line);
        }
        self.read = log.len();
    }

    /// Lets everything come to its end, and holds it all against each other.
    pub async fn end(mut self) -> Report {
        self.load.end();
        let load = self.load.clone();
        // Work whose deadline is far, because the clock was set, ends too.
        self.again_at(29, Signal::KILL).await;
        self.see_out().await;
        // A create that was given up is looked out for at every start.
        self.again_at(180, Signal::TERM).await;
        self.see_out().await;
        let money = books::check_bill(&load, &self.provider).await;
        books::check_list(&load).await;
        let webhooks = books::check_webhooks(&load, &self.hooks).await;
        let files_left = books::check_files(&load, &self.provider).await;
        self.check_rest().await;
        let resident = (self.resident, resident(&load.server));
        self.feeds.shutdown().await;
        load.server.signal(Signal::TERM);
        load.server.ended().await;
        self.look_at_what_is_left().await;
        let kept = self.kept.take().unwrap();
        let log = self.provider.simulator.log();
        load.register.check_calls();
        books::check_submissions(&load, &log, &kept);
        books::check_runs(&load, &log, &kept);
        self.load.server.again().await;
        let violations = load.register.books(|books| books.violations.clone());
        for violation in violations.iter().take(STORIES) {
            let text = load.server.log();
            let story = story::of(violation, &load, &kept, &log, &text).await;
            println!("\nseed {}, {story}", self.seed);
        }
        if !violations.is_empty() {
            println!("kept for you: {}", self.dir.keep().display());
        }
        let twins = kept.batches.iter().filter(|batch| batch.twin_of.is_some());
        let (acknowledged, requests) = load
            .register
            .books(|books| (books.acknowledged, books.requests.len()));
        Report {
            seed: self.seed,
            cycles: self.cycles,
            took: self.began.elapsed(),
            acknowledged,
            requests,
            webhooks,
            violations: violations.len(),
            strikes: self.strikes,
            coverage: self.coverage,
            money,
            batches: log.batches.len(),
            twins: twins.filter(|twin| twin.provider_id.is_some()).count(),
            files_left,
            resident,
            full_disks: self.disk.is_some(),
        }
    }

    /// A life without an end of its own, with the wall set.
    async fn again_at(&mut self, minutes: i64, signal: Signal) {
        self.load.server.signal(signal);
        self.load.server.ended().await;
        self.look_at_what_is_left().await;
        trouble::set_clock(&self.rehearsal, minutes);
        self.next = Strike::Instant(Duration::ZERO);
        self.start().await;
    }

    /// Until all callers have gone, all requests have ended and all of it was told.
    async fn see_out(&mut self) {
        let load = &self.load;
        let callers = &mut self.callers;
        let mut told = String::new();
        let idle = books::until(async || {
            while let Some(ended) = callers.try_join_next() {
                ended.unwrap();
            }
            let status = load.get_json(ADMIN, "/offpeak/admin/status").await;
            told = status.to_string();
            let is_lost = |batch: &serde_json::Value| batch["state"] == "lost";
            callers.is_empty()
                && status["requests"]["open"] == 0
                && status["batches"]
                    .as_array()
                    .is_some_and(|open| open.iter().all(is_lost))
                && load.register.open() == 0
        });
        if !idle.await {
            let callers = callers.len();
            let open = load.register.open();
            let what = format!("{callers} callers and {open} requests wait, and {told}");
            load.register.violation(None, what);
            load.register.check_calls();
        }
    }

    /// Nothing is counted that is not there.
    async fn check_rest(&self) {
        let path = "/metrics";
        let reply = self.load.ask(ADMIN, http::Method::GET, path).await;
        let open = reply.body.lines().filter(|line| {
            line.starts_with("offpeak_open_requests{") && !line.ends_with(" 0")
                || line.starts_with("offpeak_open_batches{")
                    && !line.contains("lost")
                    && !line.ends_with(" 0")
        });
        let open: Vec<&str> = open.collect();
        if !open.is_empty() {
            let what = format!("at rest: {}", open.join(", "));
            self.load.register.violation(None, what);
        }
    }
}

/// In MiB.
fn resident(server: &Revived) -> u64 {
    let path = format!("/proc/{}/status", server.pid().as_raw_nonzero());
    let status = fs::read_to_string(Path::new(&path)).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kib.unwrap_or_default() / 1024
}
