//! The use cases (admit, answer, cancel) and the reconcilers that carry requests
//! to their one ending.
//!
//! A reconciler is an idempotent turn: it looks at what is due, acts, and says
//! when to look again. It is woken by that timer or by a signal, it has no input,
//! and the first turn after a crash is the same code as any other. The store is
//! the truth; `summary::Summary` is what it says, counted.

mod across;
mod admit;
mod answer;
mod audit;
mod budgets;
mod cancel;
mod counted;
mod courier;
mod credentials;
mod damaged;
mod drive;
mod errands;
mod fill;
mod harvester;
mod hints;
mod hold;
mod holders;
mod inflight;
mod janitor;
mod join;
mod keys;
mod limits;
mod live;
mod models;
mod moving;
mod packer;
mod persist;
mod plans;
mod poison;
mod recovery;
mod refusals;
mod rescuer;
mod reserves;
mod scope;
mod settings;
mod settling;
mod shadow;
mod submitter;
mod summary;
mod taps;
mod timeline;
mod tokens;
mod traces;
mod turnaround;
mod upload;
mod waiters;
mod watcher;

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument;

pub use crate::policy::{budget::Window, turnaround::Curve};
pub use across::{Edges, Progress};
pub use admit::{AdmitError, Admitted, Call, Refused};
pub use answer::{FeedError, View};
pub use budgets::BudgetView;
pub use cancel::{Cancelled, Erased};
pub use courier::{Redelivered, Resting, Tested, event_body};
pub use credentials::Caller;
pub use hold::Hold;
pub use inflight::Gauges;
pub use keys::{IssueError, Key, KeyRefused, NewKey, REPLACED, Spent, Upstreams};
pub use live::LiveScope;
pub use moving::{Move, MoveError, Moved};
pub use refusals::Refusal;
pub use scope::Owner;
pub use settings::{
    AdmissionSettings, HookSettings, OnFull, RetentionSettings, Settings, ShadowSettings,
};
pub use settling::error_body;
pub use shadow::{Coding, Excerpt, Passed, Whose};
pub use summary::{Counts, Full};
pub use taps::{Tap, TapEvent};
pub use turnaround::{Believed, Turnaround};
pub use waiters::Waiter;

use crate::{
    ledger::Prices,
    metrics::Metrics,
    model::{
        batch::Batch,
        id::{RequestId, RequestKey, TenantId},
        time::Timestamp,
    },
    policy::{circuit, retry::LiveSettings},
    ports::{Clock, Deliver, Provider, Store, StoreError, Traces, Vault},
};

/// What the engine is made of.
pub struct Parts {
    pub store: Arc<dyn Store>,
    pub provider: Arc<dyn Provider>,
    pub deliver: Arc<dyn Deliver>,
    pub clock: Arc<dyn Clock>,
    pub vault: Arc<dyn Vault>,
    pub prices: Prices,
    pub metrics: Arc<Metrics>,
    /// None where nobody watches.
    pub traces: Option<Arc<dyn Traces>>,
    pub settings: Settings,
    /// Where callers present keys that we issue; else they present the provider's.
    pub upstreams: Option<Upstreams>,
}

pub struct Engine {
    store: Arc<dyn Store>,
    provider: Arc<dyn Provider>,
    deliver: Arc<dyn Deliver>,
    clock: Arc<dyn Clock>,
    vault: Arc<dyn Vault>,
    prices: Prices,
    metrics: Arc<Metrics>,
    tracing: Option<traces::Tracing>,
    settings: Settings,

    organizations: Arc<scope::Organizations>,
    summary: Mutex<summary::Summary>,
    turnarounds: turnaround::Turnarounds,
    plans: plans::Plans,
    whole_pace: plans::WholePace,
    /// None where calls that pass through are not counted.
    shadow: Option<shadow::Shadow>,
    credentials: credentials::Credentials,
    /// None where callers present keys of the provider's.
    keys: Option<keys::Keys>,
    audits: audit::Audits,
    house: Mutex<janitor::House>,
    refusals: refusals::Refusals,
    tenants: moving::Tenants,
    models: models::Models,
    holders: Arc<holders::Holders>,
    waiters: Arc<waiters::Waiters>,
    taps: taps::Taps,
    signals: drive::Signals,
    inflight: Inflights,
    receivers: Arc<courier::Receivers>,
    search: Mutex<courier::Search>,
    test_calls: courier::TestCalls,
    hints: hints::Hints,
    /// Each harvest holds some megabytes of answers.
    harvests: Semaphore,
    backlog: live::Backlog,
    backoffs: live::Backoffs,
    scopes: Arc<live::Scopes>,
    /// The same for calls on the flex tier, whose capacity is another.
    flex_scopes: Arc<live::Scopes>,
    kept_scopes: live::Kept,
    /// A permit for each open background response.
    background: Arc<Semaphore>,
    budgets: Arc<budgets::Budgets>,
    reserves: reserves::Reserves,
    /// Requests whose acknowledgement is not on the wire yet.
    unflushed: inflight::Mentions<RequestKey>,
    disk_bytes: AtomicU64,
    /// Requests that have ended since the start.
    endings: AtomicU64,
    paused: AtomicBool,
    flushing: AtomicBool,

    tasks: TaskTracker,
    runtime: tokio::runtime::Handle,
    stop: CancellationToken,
}

/// Batches that are harvested at the same time: hundreds can end together when a
/// provider comes back.
const HARVESTS: usize = 8;

/// With fewer bytes to spare on the disk large calls are refused already.
const LITTLE: u64 = 1 << 20;

/// What the reconcilers have in hand.
#[derive(Default)]
struct Inflights {
    /// A batch's next step, whichever it is: one at a time.
    batches: inflight::Inflight<crate::model::id::BatchId>,
    /// Those of them that upload or create.
    submits: inflight::Inflight<crate::model::id::BatchId>,
    live: inflight::Inflight<RequestKey>,
    deliveries: inflight::Inflight<RequestKey>,
    errands: errands::Errands,
}

impl Engine {
    /// Reads what is open from the store and starts the reconcilers.
    pub async fn start(parts: Parts) -> Result<Arc<Engine>, StoreError> {
        let shadow = parts.settings.shadow.deadline.map(shadow::Shadow::new);
        let (shadow, inbox) = shadow.unzip();
        let (tracing, ended) = parts.traces.map(traces::Tracing::new).unzip();
        let organizations: Arc<scope::Organizations> = Arc::default();
        let reserves = reserves::Reserves::default();
        let summary =
            summary::Summary::new(&parts.settings, organizations.clone(), reserves.clone());
        let scopes =
            |settings: &LiveSettings| Arc::new(live::Scopes::new(settings, organizations.clone()));
        let engine = Arc::new(Engine {
            summary: Mutex::new(summary),
            turnarounds: turnaround::Turnarounds::new(organizations.clone()),
            plans: plans::Plans::default(),
            whole_pace: plans::WholePace::default(),
            shadow,
            credentials: credentials::Credentials::default(),
            keys: parts.upstreams.map(keys::Keys::new),
            audits: audit::Audits::default(),
            house: Mutex::default(),
            refusals: refusals::Refusals::default(),
            tenants: moving::Tenants::default(),
            models: models::Models::default(),
            holders: Arc::default(),
            waiters: Arc::default(),
            taps: taps::Taps::default(),
            signals: drive::Signals::default(),
            inflight: Inflights::default(),
            receivers: courier::Receivers::new(
                circuit::Bounds {
                    most: parts.settings.webhook.max_per_endpoint,
                    backoff: parts.settings.webhook.backoff(),
                },
                parts.settings.webhook.max_concurrent.max(1),
            ),
            search: Mutex::default(),
            test_calls: courier::TestCalls::default(),
            hints: hints::Hints::default(),
            harvests: Semaphore::new(HARVESTS),
            backlog: live::Backlog::default(),
            backoffs: live::Backoffs::default(),
            budgets: Arc::new(budgets::Budgets::new(parts.settings.rescue.budget())),
            reserves,
            scopes: scopes(&parts.settings.live),
            flex_scopes: scopes(&parts.settings.live.flex()),
            kept_scopes: live::Kept::default(),
            organizations,
            background: Arc::new(Semaphore::new(
                parts.settings.live.max_background.max(1) as usize
            )),
            unflushed: inflight::Mentions::default(),
            disk_bytes: AtomicU64::new(0),
            endings: AtomicU64::new(0),
            paused: AtomicBool::new(false),
            flushing: AtomicBool::new(false),
            tasks: TaskTracker::new(),
            runtime: tokio::runtime::Handle::current(),
            stop: CancellationToken::new(),
            store: parts.store,
            provider: parts.provider,
            deliver: parts.deliver,
            clock: parts.clock,
            vault: parts.vault,
            prices: parts.prices,
            metrics: parts.metrics,
            tracing,
            settings: parts.settings,
        });
        if let Some(ended) = ended {
            engine.tell_endings(ended);
        }
        engine.recall_tenants().await?;
        engine.recall().await?;
        engine.recall_keys().await?;
        engine.recover().await?;
        engine.recall_spending().await?;
        if let Some(inbox) = inbox {
            engine.watch_passed(inbox).await?;
        }
        engine.drive_all();
        Ok(engine)
    }

    /// Stops the reconcilers and waits for what they have in hand, at most until
    /// `patience` ends. What is cut off is durable and goes on after a restart.
    pub async fn stop(&self, patience: std::time::Duration) {
        self.stop.cancel();
        self.tasks.close();
        let stopped = async {
            if let Err(error) = self.memorise().await {
                tracing::warn!(%error, "what was learned last is not kept");
            }
            self.tasks.wait().await;
            self.endings_told().await;
        };
        if tokio::time::timeout(patience, stopped).await.is_err() {
            tracing::warn!(
                tasks = self.tasks.len(),
                "stopped with work in hand; it goes on after a restart"
            );
        }
    }

    /// Does it to its end, also where whoever waits for it leaves: what is durable is
    /// known here too.
    async fn whole<T, E>(
        &self,
        doing: impl Future<Output = Result<T, E>> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let done = self.tasks.spawn(doing.in_current_span()).await;
        done.unwrap_or_else(|_died| Err(StoreError::Closed.into()))
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    pub fn counts(&self) -> Counts {
        self.summary.lock().counts()
    }

    /// What is kept in memory for callers and for work in hand.
    pub fn gauges(&self) -> Gauges {
        let inflight = &self.inflight;
        Gauges {
            in_hand: inflight.batches.len() + inflight.live.len() + inflight.deliveries.len(),
            held: self.holders.len(),
            waiting: self.waiters.len(),
            taps: self.taps.len(),
            backing_off: self.backoffs.len(),
            unflushed: self.unflushed.len(),
            receivers: self.receivers.len(),
        }
    }

    /// Batches that have not ended, in no order.
    pub fn open_batches(&self) -> Vec<Batch> {
        let summary = self.summary.lock();
        let batches = summary.batches.values().map(|tracked| &tracked.batch);
        batches
            .filter(|batch| batch.state.is_open())
            .cloned()
            .collect()
    }

    /// Requests that have ended since the start.
    pub fn endings(&self) -> u64 {
        self.endings.load(Ordering::Relaxed)
    }

    /// Bytes on disk, as last measured.
    pub fn disk_bytes(&self) -> u64 {
        self.disk_bytes.load(Ordering::Relaxed)
    }

    /// A change that changes nothing, through the store's writer and its sync, and a look
    /// whether the disk has room for admissions.
    ///
    /// # Errors
    /// When no call with a deadline could be taken in.
    pub async fn check_store(&self) -> Result<(), StoreError> {
        let nobodys = RequestKey {
            tenant: TenantId([0; 16]),
            id: RequestId::MIN,
        };
        self.store.erase(nobodys).await?;
        match self.store.spare_bytes().await? {
            0..LITTLE => Err(StoreError::Full),
            _ => Ok(()),
        }
    }

    /// Returns when the store has failed for good and a new process could go on: nothing
    /// that has a deadline is done in this one any more.
    pub async fn store_failed(&self) -> StoreError {
        self.store.failed().await
    }

    /// Stops packing and submitting, never rescue.
    pub fn pause(&self) {
        self.paused.store(true, Ordering::Relaxed);
    }

    pub fn resume(&self) {
        self.paused.store(false, Ordering::Relaxed);
        self.signals.packer.notify_one();
        self.signals.submitter.notify_one();
        self.signals.rescuer.notify_one();
    }

    /// Packs everything that waits, now.
    pub fn flush(&self) {
        self.flushing.store(true, Ordering::Relaxed);
        self.signals.packer.notify_one();
    }

    pub fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Relaxed)
    }
}
