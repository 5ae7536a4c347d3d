//! A provider, a store and an engine that can die and live again; and what must
//! be true when all is done.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use axum::body::Body;
use futures_util::FutureExt;
use http_body_util::BodyExt;
use offpeak::{
    config::Config,
    engine::{
        AdmissionSettings, Admitted, Counts, Engine, HookSettings, Move, MoveError, Moved, OnFull,
        Parts, RetentionSettings, Settings, Upstreams,
    },
    ledger::Prices,
    metrics::Metrics,
    model::{
        attempt,
        batch::{Batch, BatchState, Left},
        id::{RequestKey, TenantId},
        ledger::{LedgerKey, LedgerRow},
        request::{Outcome, Source, State},
        time::Timestamp,
    },
    ports::{Clock, Content, Credential, LedgerRows, Provider, Store, Traces},
    provider::{self, OpenAi},
    simulator::{self, Fault, Kind, Operation, Simulator},
    store::{
        MemoryStore,
        vault::{Roots, Vault},
    },
};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use tower::ServiceExt;
use tracing_subscriber::fmt::{format::Writer, time::FormatTime};

use super::{
    asking::{Ask, HOUR, MINUTE, SECOND, credential},
    crash::{Life, Mortal, Trouble},
    life::{Hooks, Line, Virtual},
};

/// When a world begins, by the provider's clock.
pub const START: Timestamp = Timestamp::from_secs(1_800_000_000);
/// The source of what was answered by an ordinary call.
pub const LIVE: Source = Source::Live(attempt::Lane::Standard);
/// A model whose price only the provider knows.
pub const OF_THE_HOUSE: &str = "house-model";
/// Picodollars. The calls here are short.
const MOST_FOR_A_CALL: i128 = 100_000_000;
/// No scenario takes longer.
const PATIENCE: Duration = Duration::from_secs(10 * 24 * 3600);

pub struct World {
    pub sim: Arc<Simulator>,
    pub store: Arc<dyn Store>,
    pub hooks: Arc<Hooks>,
    pub line: Line,
    pub trouble: Arc<Trouble>,
    pub clock: Arc<dyn Clock>,
    settings: Settings,
    vault: Arc<Vault>,
    engine: Arc<Engine>,
    life: Arc<Life>,
    diary: Vec<String>,
    asked: Mutex<Vec<(RequestKey, String)>>,
    /// Where callers present keys that we issue, from the next start on.
    pub upstreams: Option<Upstreams>,
    /// Who watches, from the next start on.
    pub traces: Option<Arc<dyn Traces>>,
}

/// What a scenario is allowed that is otherwise a mistake.
#[derive(Clone, Copy, Debug, Default)]
pub struct Allow {
    /// Files whose upload's reply was lost stay until they expire.
    pub lost_files: bool,
    /// Answers may be billed that nobody saw.
    pub unaccounted: bool,
    /// The provider's batches may never end.
    pub endless: bool,
    /// The provider may make two batches of the same lines.
    pub twins: bool,
}

impl Allow {
    pub const UNACCOUNTED: Allow = Allow {
        lost_files: false,
        unaccounted: true,
        endless: false,
        twins: false,
    };
}

/// A provider that answers so, has done nothing, and may say when to come back.
pub fn refusal(status: u16, retry_after_seconds: Option<u64>) -> Kind {
    Kind::Status {
        status,
        retry_after_seconds,
        code: None,
    }
}

pub fn settings() -> Settings {
    let config = Config::defaults().unwrap();
    Settings {
        admission: AdmissionSettings {
            endpoints: Vec::new(),
            max_body_bytes: 16 << 20,
            max_open: 1_000_000,
            max_open_per_tenant: 1_000_000,
            max_open_bytes: u64::MAX,
            max_open_bytes_per_tenant: u64::MAX,
            on_full: OnFull::Reject,
            model_check: false,
            model_cache: 10 * MINUTE,
            idempotency_ttl: 24 * HOUR,
        },
        ladder: section(&config, "ladder"),
        packing: section(&config, "packing"),
        submit: section(&config, "submit"),
        watch: section(&config, "watch"),
        rescue: section(&config, "rescue"),
        live: section(&config, "live"),
        webhook: HookSettings {
            max_concurrent: 32,
            max_per_endpoint: 8,
            horizon: 72 * HOUR,
            first_retry: 5 * SECOND,
            max_inline_bytes: 262_144,
            public_url: "http://127.0.0.1:8080".into(),
        },
        retention: RetentionSettings {
            results: 7 * 24 * HOUR,
            ledger: 400 * 24 * HOUR,
            sweep_interval: MINUTE,
        },
        shadow: section(&config, "shadow"),
    }
}

fn section<T: DeserializeOwned>(config: &Config, name: &str) -> T {
    config.section(name).unwrap()
}

impl World {
    /// Lines take seven minutes each, and nothing is left to chance.
    pub async fn new() -> World {
        World::with(|_, _| {}).await
    }

    /// Where no batch is offered, however much time there is.
    pub async fn live_only(change: impl FnOnce(&mut Settings, &mut simulator::Settings)) -> World {
        World::with(|settings, provider| {
            settings.ladder.batch.models.clear();
            change(settings, provider);
        })
        .await
    }

    pub async fn with(change: impl FnOnce(&mut Settings, &mut simulator::Settings)) -> World {
        World::seeded(1, None, change).await
    }

    pub async fn with_clock(
        clock: Arc<dyn Clock>,
        change: impl FnOnce(&mut Settings, &mut simulator::Settings),
    ) -> World {
        World::begin(clock, 1, None, change).await
    }

    /// An engine that dies after `steps` commits and effects.
    pub async fn seeded(
        seed: u64,
        steps: Option<u32>,
        change: impl FnOnce(&mut Settings, &mut simulator::Settings),
    ) -> World {
        let clock = Arc::new(Virtual::new(START, seed));
        World::begin(clock, seed, steps, change).await
    }

    async fn begin(
        clock: Arc<dyn Clock>,
        seed: u64,
        steps: Option<u32>,
        change: impl FnOnce(&mut Settings, &mut simulator::Settings),
    ) -> World {
        // `OFFPEAK_LOG=debug cargo test -- --nocapture` tells what happens, and at
        // which second of the test's own time.
        if let Ok(filter) = std::env::var("OFFPEAK_LOG") {
            let log = tracing_subscriber::fmt().with_timer(Elapsed(Instant::now()));
            let _set_before = log.with_env_filter(filter).try_init();
        }
        let mut settings = settings();
        let mut provider = simulator::Settings {
            seed,
            ..Default::default()
        };
        let sold = provider.models["gpt-4o"];
        provider.models.insert(OF_THE_HOUSE.into(), sold);
        provider.latency.turnaround_sigma = 0.0;
        provider.latency.stalled_share = 0.0;
        provider.latency.live_sigma = 0.0;
        change(&mut settings, &mut provider);
        let sim = Simulator::new(provider, START);
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let vault = Arc::new(Vault::new(&Roots::from([0x11; 32])));
        let hooks = Arc::new(Hooks::default());
        let line = Line::to(sim.clone());
        let life = Life::new(clock.clone(), steps);
        let trouble = Arc::<Trouble>::default();
        let parts = parts(
            &settings, &store, &hooks, &line, &clock, &vault, &life, &trouble,
        );
        let engine = Engine::start(parts).await.unwrap();
        World {
            sim,
            store,
            hooks,
            line,
            trouble,
            clock,
            settings,
            vault,
            engine,
            life,
            diary: Vec::new(),
            asked: Mutex::default(),
            upstreams: None,
            traces: None,
        }
    }

    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Kills the engine where it stands, and starts another on the same store.
    pub async fn restart(&mut self, steps: Option<u32>) {
        self.life.end();
        self.engine.stop(Duration::ZERO).await;
        self.diary.extend(self.life.diary());
        // A start can be cut short too; the next is not.
        let mut steps = steps;
        loop {
            self.life = Life::new(self.clock.clone(), steps);
            let (store, hooks, line) = (&self.store, &self.hooks, &self.line);
            let (clock, vault) = (&self.clock, &self.vault);
            let (settings, life, trouble) = (&self.settings, &self.life, &self.trouble);
            let mut parts = parts(settings, store, hooks, line, clock, vault, life, trouble);
            parts.upstreams = self.upstreams.clone();
            parts.traces = self.traces.clone();
            let life = self.life.clone();
            tokio::select! {
                biased;
                engine = Engine::start(parts) => {
                    self.engine = engine.unwrap();
                    return;
                }
                () = life.ended() => {
                    self.diary.extend(life.diary());
                    steps = None;
                }
            }
        }
    }

    /// Lives on; where it dies meanwhile, with `steps` in its next life, and with
    /// more in each after that: a start alone takes some.
    pub async fn live_on(&mut self, time: Duration, mut steps: Option<u32>) {
        let until = Instant::now() + time;
        loop {
            let life = self.life.clone();
            tokio::select! {
                biased;
                () = life.ended() => {
                    self.restart(steps).await;
                    steps = steps.map(|steps| steps * 2);
                }
                () = tokio::time::sleep_until(until) => return,
            }
        }
    }

    /// Kills the engine; [`World::restart`] starts another.
    pub fn end(&self) {
        self.life.end();
    }

    /// Waits for a death that is to come.
    pub async fn die_within(&self, time: Duration) {
        // A life can have fewer steps than it was given.
        let _lived = tokio::time::timeout(time, self.life.ended()).await;
    }

    /// Asks, unless the engine dies before its reply is heard.
    pub async fn try_ask(&mut self, ask: &Ask, steps: Option<u32>) -> Option<RequestKey> {
        let life = self.life.clone();
        let key = life.unless_it_ends(self.ask(ask)).await;
        if key.is_none() {
            self.restart(steps).await;
        }
        key
    }

    pub async fn try_cancel(&mut self, key: RequestKey, steps: Option<u32>) {
        let life = self.life.clone();
        let cancelled = life.unless_it_ends(self.engine.cancel(key)).await;
        if !matches!(cancelled, Some(Ok(_))) {
            self.restart(steps).await;
        }
    }

    pub async fn try_erase(&mut self, key: RequestKey, steps: Option<u32>) {
        let life = self.life.clone();
        let erased = life.unless_it_ends(self.engine.erase(key)).await;
        if !matches!(erased, Some(Ok(_))) {
            self.restart(steps).await;
        }
    }

    /// None where the engine dies before its reply is heard.
    pub async fn try_move(
        &mut self,
        old: Credential,
        new: Credential,
        how: Move,
    ) -> Option<Result<Moved, MoveError>> {
        let (life, engine) = (self.life.clone(), self.engine.clone());
        let caller = engine.caller(new);
        let moved = engine.move_tenant(&caller, &old, how);
        let moved = life.unless_it_ends(moved).await;
        if moved.is_none() {
            self.restart(None).await;
        }
        moved
    }

    pub fn diary(&self) -> Vec<String> {
        let mut diary = self.diary.clone();
        diary.extend(self.life.diary());
        diary
    }

    pub fn fault(&self, on: Operation, kind: Kind) {
        self.sim.inject(Fault::once(on, kind));
    }

    pub fn faults(&self, on: Operation, kind: Kind, times: u32) {
        self.sim.inject(Fault {
            times,
            ..Fault::once(on, kind)
        });
    }

    pub async fn admit(&self, ask: &Ask) -> Admitted {
        let admitted = self.engine.admit(ask.call(&self.engine)).await;
        let admitted = admitted.unwrap_or_else(|error| panic!("{ask:?}: {error}"));
        self.note(admitted.request.key, &ask.text);
        admitted
    }

    /// A request that must come to its end.
    pub fn note(&self, key: RequestKey, text: &str) {
        let mut asked = self.asked.lock();
        if !asked.iter().any(|(known, _)| *known == key) {
            asked.push((key, text.to_owned()));
        }
    }

    /// Admits a call whose caller does not wait.
    pub async fn ask(&self, ask: &Ask) -> RequestKey {
        self.admit(ask).await.request.key
    }

    /// What is in the store counts, whether or not its caller heard so. Returns how many
    /// requests the key has.
    pub async fn note_all(&self, key: &str) -> usize {
        let tenant = self.engine.caller(credential(key)).tenant;
        let all = self.store.list(tenant, None, usize::MAX).await.unwrap();
        for stored in &all {
            self.note(stored.request.key, "found in the store");
        }
        all.len()
    }

    pub async fn ask_many(&self, count: usize, ask: impl Fn(usize) -> Ask) -> Vec<RequestKey> {
        let mut keys = Vec::new();
        for number in 0..count {
            keys.push(self.ask(&ask(number)).await);
        }
        keys
    }

    /// Waits for a request's end.
    pub async fn done(&self, key: RequestKey) -> (Outcome, String) {
        let mut waiter = self.engine.waiter(key);
        let limit = Instant::now() + PATIENCE;
        loop {
            let stored = self.store.load(key).await.unwrap().expect("it is there");
            if let Content::Done { outcome, answer } = stored.content {
                return (outcome, String::from_utf8(answer.to_vec()).unwrap());
            }
            let woken = tokio::time::timeout_at(limit, waiter.woken()).await;
            assert!(woken.is_ok(), "{} never ended", key.id);
        }
    }

    pub async fn outcome(&self, key: RequestKey) -> Outcome {
        self.done(key).await.0
    }

    pub async fn all_done(&self, keys: &[RequestKey]) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        for key in keys {
            outcomes.push(self.outcome(*key).await);
        }
        outcomes
    }

    pub async fn pass(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    pub async fn batches(&self) -> Vec<Batch> {
        self.store.batches(Timestamp::ZERO).await.unwrap()
    }

    /// Why batches were left, the oldest's first.
    pub async fn left(&self) -> Vec<Left> {
        let mut batches = self.batches().await;
        batches.sort_by_key(|batch| batch.id);
        batches.iter().filter_map(|batch| batch.left).collect()
    }

    /// Waits until some batch is like this.
    pub async fn batch_that(&self, is: impl Fn(&Batch) -> bool) -> Batch {
        for _ in 0..1_000_000 {
            if let Some(batch) = self.batches().await.into_iter().find(&is) {
                return batch;
            }
            self.pass(Duration::from_millis(100)).await;
        }
        panic!("no such batch: {:?}", self.batches().await);
    }

    pub async fn submitted(&self) -> Batch {
        self.batch_that(|batch| batch.state == BatchState::Submitted)
            .await
    }

    fn tenants(&self) -> BTreeSet<TenantId> {
        let asked = self.asked.lock();
        asked.iter().map(|(key, _)| key.tenant).collect()
    }

    /// The tenant's whole ledger.
    pub async fn rows_of(&self, tenant: TenantId) -> Vec<(LedgerKey, LedgerRow)> {
        let rows = LedgerRows::of_tenant(tenant, 0);
        let page = self.store.ledger_page(&rows, None, usize::MAX);
        page.await.unwrap()
    }

    /// All ledgers, added up.
    pub async fn ledger(&self) -> LedgerRow {
        let mut sum = LedgerRow::default();
        for tenant in self.tenants() {
            for (_, row) in self.rows_of(tenant).await {
                sum.add(&row);
            }
        }
        sum
    }

    /// Runs until nothing is left to do; then everything must be in order.
    pub async fn finish(&self) {
        self.finish_allowing(Allow::default()).await;
    }

    pub async fn finish_allowing(&self, allow: Allow) {
        self.at_rest().await;
        self.check_counts().await;
        self.check_feed().await;
        self.check_provider(allow).await;
        self.check_money(allow).await;
    }

    /// Runs until nothing is left to do.
    pub async fn at_rest(&self) {
        let asked = self.asked.lock().clone();
        for (key, _) in &asked {
            if self.store.load(*key).await.unwrap().is_some() {
                self.done(*key).await;
            }
        }
        let limit = self.now() + PATIENCE;
        while self.is_busy().await {
            assert!(
                self.now() < limit,
                "never at rest: {:#?}",
                self.batches().await
            );
            self.pass(MINUTE).await;
        }
    }

    async fn is_busy(&self) -> bool {
        let counts = self.engine.counts();
        let open = |batch: &Batch| batch.state.is_open() || !batch.litter.is_empty();
        counts.open() > 0
            || self.batches().await.iter().any(open)
            || self.store.next_delivery().await.unwrap().is_some()
            || !self.store.backlogs(None, 1).await.unwrap().is_empty()
            || self.engine.gauges().in_hand > 0
            || self.engine.gauges().backing_off > 0
    }

    /// The summary equals a rescan of the store.
    pub async fn check_counts(&self) {
        let queued = self.store.scan_queue(None, usize::MAX).await.unwrap();
        let live = self.store.scan_live(None, usize::MAX).await.unwrap();
        let mut rescan = Counts {
            queued: queued.len() as u64,
            live: live.len() as u64,
            ..Counts::default()
        };
        for batch in self.batches().await {
            let lines = self.store.lines(batch.id, None, usize::MAX).await.unwrap();
            if batch.state.is_open() {
                rescan.batches += 1;
            } else {
                assert!(lines.is_empty(), "lines in an ended batch: {batch:?}");
            }
            rescan.in_batches += lines.len() as u64;
        }
        assert_eq!(self.engine.counts(), rescan, "the summary is not the store");
    }

    /// Every request ended exactly once, and nothing is kept for it in memory.
    async fn check_feed(&self) {
        let mut seen: BTreeMap<RequestKey, u32> = BTreeMap::new();
        for tenant in self.tenants() {
            let feed = self.store.feed(tenant, 0, usize::MAX).await.unwrap();
            for entry in feed.entries {
                *seen.entry(entry.key).or_default() += 1;
            }
        }
        let asked = self.asked.lock().clone();
        for (key, text) in asked {
            let stored = self.store.load(key).await.unwrap();
            let times = seen.get(&key).copied().unwrap_or(0);
            assert_eq!(times, u32::from(stored.is_some()), "{text}: in the feed");
        }
        assert_eq!(self.store.open_attempts().await.unwrap(), []);
        let gauges = self.engine.gauges();
        assert_eq!(gauges.backing_off, 0, "{gauges:?}");
        assert_eq!(gauges.taps, 0, "{gauges:?}");
        assert_eq!(gauges.waiting, 0, "{gauges:?}");
        assert_eq!(gauges.unflushed, 0, "{gauges:?}");
    }

    async fn check_provider(&self, allow: Allow) {
        let log = self.sim.log();
        let two = log.overlapping();
        assert!(
            allow.endless || allow.twins || two.is_empty(),
            "two batches at a time: {two:?}"
        );
        let running = |status: &str| {
            matches!(
                status,
                "validating" | "in_progress" | "finalizing" | "cancelling"
            )
        };
        let open: Vec<_> = log.batches.iter().filter(|b| running(b.status)).collect();
        assert!(
            allow.endless || open.is_empty(),
            "batches that nobody watches: {open:#?}"
        );
        if !allow.lost_files {
            for key in ["sk-test", "sk-other", "sk-acme.web.two"] {
                assert_eq!(self.files(key).await, "[]", "files left at the provider");
            }
        }
    }

    /// Deletes all of a key's files at the provider, as somebody else with it might.
    pub async fn remove_files(&self, key: &str) {
        let files: Vec<serde_json::Value> = serde_json::from_str(&self.files(key).await).unwrap();
        for file in files {
            let path = format!("/v1/files/{}", file["id"].as_str().unwrap());
            let request = http::Request::delete(path)
                .header("authorization", format!("Bearer {key}"))
                .body(Body::empty())
                .unwrap();
            let response = self.sim.router().oneshot(request).await.unwrap();
            assert!(response.status().is_success());
        }
    }

    async fn files(&self, key: &str) -> String {
        let request = http::Request::get("/v1/files")
            .header("authorization", format!("Bearer {key}"))
            .body(Body::empty())
            .unwrap();
        let response = self.sim.router().oneshot(request).await.unwrap();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        body["data"].to_string()
    }

    /// `ledger ≤ bill ≤ ledger + unaccounted`.
    async fn check_money(&self, allow: Allow) {
        let ledger = self.ledger().await;
        let bill = self.sim.bill();
        let billed = i128::from(bill.total_pico_usd);
        let paid = ledger.paid.as_pico();
        assert!(paid <= billed, "we say {ledger:?}, they say {bill:?}");
        if allow.unaccounted {
            let unseen = i128::from(ledger.unaccounted) * MOST_FOR_A_CALL;
            assert!(billed <= paid + unseen, "{ledger:?} {bill:?}");
        } else {
            assert_eq!(ledger.unaccounted, 0, "{ledger:?}");
            assert_eq!(paid, billed, "we say {ledger:?}, they say {bill:?}");
        }
        let asked = self.asked.lock().len() as u64;
        assert_eq!(ledger.requests, asked, "requests in the ledger: {ledger:?}");
    }
}

/// Its engine would live on in this test's next world.
impl Drop for World {
    fn drop(&mut self) {
        self.life.end();
        // The first poll says stop; what hangs is not waited for.
        let _hanging = self.engine.stop(Duration::ZERO).now_or_never();
    }
}

struct Elapsed(Instant);

impl FormatTime for Elapsed {
    fn format_time(&self, w: &mut Writer<'_>) -> std::fmt::Result {
        write!(w, "{:9.3}", self.0.elapsed().as_secs_f64())
    }
}

/// For properties, whose cases are no async functions.
pub fn on_virtual_time(test: impl Future<Output = ()>) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().start_paused(true).build();
    runtime.unwrap().block_on(test);
}

pub fn succeeded(outcome: &Outcome) {
    assert_eq!(outcome.state, State::Succeeded, "{outcome:?}");
}

#[expect(clippy::too_many_arguments, reason = "what a world is made of")]
fn parts(
    settings: &Settings,
    store: &Arc<dyn Store>,
    hooks: &Arc<Hooks>,
    line: &Line,
    clock: &Arc<dyn Clock>,
    vault: &Arc<Vault>,
    life: &Arc<Life>,
    trouble: &Arc<Trouble>,
) -> Parts {
    let upstream = provider::Settings {
        base_url: "http://provider.test/v1".into(),
        connect_timeout: 10 * SECOND,
        read_timeout: 10 * MINUTE,
        upload_timeout: 10 * MINUTE,
        input_expires_after: 24 * 7 * HOUR,
        output_expires_after: 24 * 7 * HOUR,
    };
    let line = line.clone();
    let openai = OpenAi::new(&upstream, move |_to: http::Uri| line.clone().dial()).unwrap();
    let provider: Arc<dyn Provider> = Arc::new(openai);
    Parts {
        store: Arc::new(Mortal {
            inner: store.clone(),
            life: life.clone(),
            trouble: trouble.clone(),
        }),
        provider: Arc::new(Mortal {
            inner: provider,
            life: life.clone(),
            trouble: trouble.clone(),
        }),
        deliver: hooks.clone(),
        clock: clock.clone(),
        vault: vault.clone(),
        prices: Prices::built_in().unwrap(),
        metrics: Arc::new(Metrics::new(&Arc::default())),
        traces: None,
        settings: settings.clone(),
        upstreams: None,
    }
}
