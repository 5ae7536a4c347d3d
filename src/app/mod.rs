//! The composition root: the only place that names concrete adapters.

mod auth;
mod check;
mod clock;
mod prices;
#[cfg(debug_assertions)]
mod rehearsal;
mod settings;
mod warnings;

use std::{
    collections::HashMap,
    fs::{self, OpenOptions, Permissions},
    future::pending,
    io::{self, Write as _},
    net::SocketAddr,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use thiserror::Error;
use tokio::{
    task::{JoinSet, spawn_blocking},
    time::{Instant, sleep},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use url::Url;

pub use auth::{Auth, Mode};
pub use check::check;
pub use clock::SystemClock;
pub use prices::prices;
pub use settings::{Listen, Settings};

use self::auth::BadUpstreamKey;
use crate::{
    delivery::{self, BadSender, Courier},
    edge::{
        self, BadUpstreamSecret, Edge, UpstreamEvents,
        memory::Memory,
        passthrough::{Passthrough, SetupError},
        server::{self, Desk, Server},
    },
    engine::{Engine, Parts},
    metrics::{CountedDelivery, CountedProvider, Metrics},
    model::secret::Secret,
    ports::{Store, StoreError, Traces, Vault as _},
    provider::{self, OpenAi},
    store::{
        self, OpenError, SledStore,
        vault::{self, BadMasterKey, Locked, MasterKey, Vault},
    },
    traces::{BadExporter, BadVariable, Otlp},
};

/// Secrets of the installation, from the environment.
#[derive(Default)]
pub struct Secrets {
    /// `OFFPEAK_MASTER_KEY`; without it, a file in the data directory.
    pub master_key: Option<Secret>,
    /// `OFFPEAK_PREVIOUS_MASTER_KEY`, where the master key is changed; without it, a file
    /// in the data directory, if it is there.
    pub previous_master_key: Option<Secret>,
    /// `OFFPEAK_ADMIN_TOKEN`; without it, a file in the data directory.
    pub admin_token: Option<Secret>,
    /// By variable: the provider's keys that `[auth.upstream]` names.
    pub upstream_keys: HashMap<String, Secret>,
    /// `OFFPEAK_UPSTREAM_WEBHOOK_SECRET`; without it the provider's events are not taken.
    pub upstream_webhooks: Option<Secret>,
}

/// A start that takes longer says why.
const LONG: Duration = Duration::from_secs(1);

/// What the engine gets to write down what it has in hand, when the connections
/// have used up the grace period.
const LAST_MOMENT: Duration = Duration::from_secs(1);

/// What sending the last spans may take of the grace period.
const LAST_SPANS: Duration = Duration::from_secs(5);

/// A running server.
pub struct App {
    serving: Serving,
    engine: Arc<Engine>,
    /// None where nobody watches.
    traces: Option<Arc<Otlp>>,
    /// Tells the edge.
    stopping: CancellationToken,
    stop: CancellationToken,
    grace: Duration,
}

/// Its listeners and worker threads, which end when this is dropped.
struct Serving {
    server: JoinSet<io::Result<()>>,
    address: SocketAddr,
    admin_address: Option<SocketAddr>,
    _closing: DropGuard,
}

#[derive(Debug, Error)]
pub enum StartError {
    #[error(transparent)]
    Store(#[from] OpenError),
    #[error("the store cannot be read: {0}")]
    Read(#[from] StoreError),
    #[error(transparent)]
    MasterKey(#[from] BadMasterKey),
    #[error("{}: {locked}", dir.display())]
    Vault { dir: PathBuf, locked: Locked },
    #[error("the admin token file: {0}")]
    AdminToken(#[source] io::Error),
    #[error("upstream.base_url is no URL such as https://api.openai.com/v1: {0}")]
    Upstream(#[from] url::ParseError),
    #[error(transparent)]
    Provider(#[from] provider::settings::Invalid),
    #[error(transparent)]
    Passthrough(#[from] SetupError),
    #[error("webhook: {0}")]
    Delivery(#[from] BadSender),
    #[error(transparent)]
    UpstreamKey(#[from] BadUpstreamKey),
    #[error(transparent)]
    Serve(#[from] io::Error),
    #[error(transparent)]
    UpstreamSecret(#[from] BadUpstreamSecret),
    #[error(transparent)]
    Traces(#[from] BadExporter),
    #[error(transparent)]
    Variable(#[from] BadVariable),
    #[error("cannot listen on {address}: {error}")]
    Listen {
        address: SocketAddr,
        error: io::Error,
    },
    /// It was asked to, which is no failure.
    #[error("stopped while it was starting")]
    Stopped,
}

/// Why a server ended by itself.
#[derive(Debug, Error)]
pub enum RunError {
    #[error(transparent)]
    Serve(#[from] io::Error),
    #[error(
        "a write to the database failed, and only a new start tells what became of it: {0}. Nothing that a caller was told is lost; the process ends, to be started again"
    )]
    Store(#[source] StoreError),
}

impl App {
    /// Binds, and lets calls without a deadline pass; opens the store, counts what is
    /// open, and goes on with it; then takes all calls. Serves until `stop`.
    ///
    /// # Errors
    /// Whatever cannot be opened or makes no sense, said so that it can be mended.
    pub async fn start(
        settings: Settings,
        secrets: Secrets,
        stop: CancellationToken,
    ) -> Result<App, StartError> {
        let warnings = settings.warnings();
        let clock = Arc::new(SystemClock::new());
        let traces = Otlp::start(&settings.traces, clock.clone())?;
        let told = traces.clone().map(|traces| traces as Arc<dyn Traces>);
        let passthrough = passthrough(&settings)?.traced(told.clone());
        let upstreams = settings.auth.upstreams(&secrets.upstream_keys)?;
        let upstream_events = UpstreamEvents::new(secrets.upstream_webhooks.as_ref())?;
        let sender = delivery::Sender::new(settings.delivery)?;
        let provider = Arc::new(OpenAi::over_tcp(&settings.provider)?);
        let metrics = Arc::new(Metrics::new(passthrough.passed()));
        let desk = Arc::new(Desk::new(edge::starting::routers()));
        let mut listen = settings.server.server();
        listen.max_connections = listen.connections();
        let connections = listen.max_connections;
        let mut serving = Serving::begin(listen, passthrough.for_another_worker(), &desk, &stop)?;
        for warning in warnings {
            tracing::warn!("{warning}");
        }
        let opened = async {
            let dir = settings.store.data_dir.clone();
            let store: Arc<dyn Store> = Arc::new(opened(settings.store).await?);
            let vault = Arc::new(unlocked(&secrets, &dir, &*store).await?);
            let admin_token = admin_token(secrets.admin_token, &dir, &vault)?;
            let courier = Arc::new(Courier::new(sender, vault.clone()));
            let engine = Engine::start(Parts {
                store,
                provider: Arc::new(CountedProvider::new(provider, metrics.clone())),
                deliver: Arc::new(CountedDelivery::new(courier, metrics.clone())),
                clock,
                vault,
                prices: settings.prices,
                metrics,
                traces: told,
                settings: settings.engine,
                upstreams,
            });
            Ok::<_, StartError>((engine.await?, admin_token))
        };
        let opened = tokio::select! {
            opened = opened => Some(opened?),
            () = stop.cancelled() => None,
            () = said(serving.address) => unreachable!("it only tells"),
        };
        let Some((engine, admin_token)) = opened else {
            serving.ended().await?;
            last_spans(traces.as_deref(), LAST_SPANS).await;
            return Err(StartError::Stopped);
        };
        let paths = &settings.auth.passthrough_paths;
        let memory = Memory::new(settings.edge.max_body_memory);
        passthrough.open(&engine, paths, settings.edge.body_timeout, &memory);
        let edge = Edge::new(
            engine.clone(),
            passthrough,
            edge::Settings {
                connections,
                operators_apart: serving.admin_address.is_some(),
                ..settings.edge
            },
            memory,
            admin_token,
            upstream_events,
        );
        let stopping = edge.stopping.clone();
        desk.open(edge::routers(&Arc::new(edge)));
        Ok(App {
            serving,
            engine,
            traces,
            stopping,
            stop,
            grace: settings.server.shutdown_grace,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.serving.address
    }

    /// Where operators are served, where that is elsewhere.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.serving.admin_address
    }

    /// Serves until it is to stop, or until the store has failed; then answers what it can
    /// within the grace period. What is left is durable, and goes on at the next start.
    ///
    /// # Errors
    /// When a worker thread cannot be started, or died; when the store has failed.
    pub async fn run(mut self) -> Result<(), RunError> {
        let mut left = self.grace;
        let ended = async {
            tokio::select! {
                () = self.stop.cancelled() => Ok(()),
                error = self.engine.store_failed() => Err(RunError::Store(error)),
            }
        };
        let served = tokio::select! {
            served = self.serving.ended() => served.map_err(RunError::from),
            ended = ended => {
                if let Err(error) = &ended {
                    tracing::error!("{error}");
                    self.stop.cancel();
                }
                let stopped = Instant::now();
                self.stopping.cancel();
                let served = self.serving.ended().await;
                left = left.saturating_sub(stopped.elapsed()).max(LAST_MOMENT);
                ended.and(served.map_err(RunError::from))
            }
        };
        let stopping = Instant::now();
        self.engine.stop(left).await;
        let left = left.saturating_sub(stopping.elapsed());
        last_spans(self.traces.as_deref(), left).await;
        served
    }
}

impl Serving {
    /// Binds, and serves until `stop`.
    fn begin(
        settings: server::Settings,
        passthrough: Passthrough,
        desk: &Arc<Desk>,
        stop: &CancellationToken,
    ) -> Result<Serving, StartError> {
        let listen = |address, error| StartError::Listen { address, error };
        let at = settings.listen;
        let server = Server::new(settings, passthrough, desk.clone())
            .map_err(|(address, error)| listen(address, error))?;
        let address = server.address().map_err(|error| listen(at, error))?;
        let admin_address = server.admin_address().map_err(|error| listen(at, error))?;
        if let Some(admin) = admin_address {
            tracing::info!("operators are served at http://{admin}, and only there");
        }
        let closing = stop.child_token();
        let mut running = JoinSet::new();
        running.spawn(server.run(closing.clone()));
        Ok(Serving {
            server: running,
            address,
            admin_address,
            _closing: closing.drop_guard(),
        })
    }

    async fn ended(&mut self) -> io::Result<()> {
        match self.server.join_next().await {
            Some(ended) => ended.map_err(io::Error::other)?,
            None => Ok(()),
        }
    }
}

/// Sends what there is still to tell, in what is `left` of the grace period.
async fn last_spans(traces: Option<&Otlp>, left: Duration) {
    if let Some(traces) = traces {
        traces.finish(left.min(LAST_SPANS)).await;
    }
}

fn passthrough(settings: &Settings) -> Result<Passthrough, StartError> {
    let upstream: Url = settings.provider.base_url.parse()?;
    let passthrough = Passthrough::new(settings.passthrough.clone(), &upstream)?;
    Ok(match settings.auth.mode {
        Mode::PassThrough => passthrough,
        Mode::Keys => passthrough.guarded(),
    })
}

/// Tells who waits for a start that takes long. Never ends.
async fn said(address: SocketAddr) {
    sleep(LONG).await;
    tracing::info!(
        "the store is being read; calls without a deadline pass meanwhile, at http://{address}"
    );
    pending().await
}

/// Beside what serves, because it reads everything.
async fn opened(settings: store::Settings) -> Result<SledStore, StartError> {
    let opened = spawn_blocking(move || SledStore::open(&settings)).await;
    Ok(opened.map_err(|died| StartError::Read(StoreError::Io(io::Error::other(died))))??)
}

async fn unlocked(secrets: &Secrets, dir: &Path, store: &dyn Store) -> Result<Vault, StartError> {
    let previous = match &secrets.previous_master_key {
        Some(key) => Some(MasterKey::parse(key)?),
        None => MasterKey::load_previous(dir)?,
    };
    let master = match &secrets.master_key {
        Some(key) => MasterKey::parse(key)?,
        None if previous.is_some() => MasterKey::load_or_create(dir)?,
        None => kept_key(dir, store).await?,
    };
    let vault = vault::unlock(store, &master, previous.as_ref()).await;
    vault.map_err(|locked| StartError::Vault {
        dir: dir.to_path_buf(),
        locked,
    })
}

/// The master key of the data directory. Where something was sealed with one, none is
/// made: it would be in the way of the one that has to be brought back.
async fn kept_key(dir: &Path, store: &dyn Store) -> Result<MasterKey, StartError> {
    if !vault::is_sealed(store).await? {
        return Ok(MasterKey::load_or_create(dir)?);
    }
    MasterKey::load(dir)?.ok_or_else(|| StartError::Vault {
        dir: dir.to_path_buf(),
        locked: Locked::NoKey,
    })
}

/// Without one from the environment: derived from the master key, and written to
/// a file that only its owner can read, for the operator to find.
fn admin_token(given: Option<Secret>, dir: &Path, vault: &Vault) -> Result<Secret, StartError> {
    if let Some(token) = given {
        return Ok(token);
    }
    let bytes = vault.fingerprint("admin token", &[]);
    let token: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let path = dir.join("admin.token");
    if fs::read_to_string(&path).is_ok_and(|known| known == token) {
        closed(&path).map_err(StartError::AdminToken)?;
        return Ok(Secret::new(token));
    }
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&path);
    file.and_then(|mut file| {
        closed(&path)?;
        file.write_all(token.as_bytes())
    })
    .map_err(StartError::AdminToken)?;
    Ok(Secret::new(token))
}

/// A file that was there before keeps its mode unless told otherwise.
fn closed(path: &Path) -> io::Result<()> {
    match fs::metadata(path)?.permissions().mode() & 0o077 {
        0 => Ok(()),
        _ => fs::set_permissions(path, Permissions::from_mode(0o600)),
    }
}
