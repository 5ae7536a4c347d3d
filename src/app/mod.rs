//! The composition root: the only place that names concrete adapters.

mod auth;
mod clock;
#[cfg(debug_assertions)]
mod rehearsal;
mod settings;
mod warnings;

use std::{
    collections::HashMap,
    fs::{OpenOptions, Permissions},
    io::Write as _,
    net::SocketAddr,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use thiserror::Error;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use url::Url;

pub use auth::{Auth, Mode};
pub use clock::SystemClock;
pub use settings::{Listen, Settings};

use self::auth::BadUpstreamKey;
use crate::{
    delivery::{self, BadSender, Courier},
    edge::{
        self, BadUpstreamSecret, Edge, UpstreamEvents,
        passthrough::{Passthrough, SetupError},
        server::Server,
    },
    engine::{Engine, Parts},
    ledger::{BadPrices, Prices},
    model::secret::Secret,
    ports::{Store, StoreError, Vault as _},
    provider::{self, OpenAi},
    store::{
        OpenError, SledStore,
        vault::{self, BadMasterKey, Locked, MasterKey, Vault},
    },
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

/// What the engine gets to write down what it has in hand, when the connections
/// have used up the grace period.
const LAST_MOMENT: Duration = Duration::from_secs(1);

/// A server that is bound and working, and not yet accepting.
pub struct App {
    server: Server,
    engine: Arc<Engine>,
    /// Tells the edge.
    stopping: CancellationToken,
    address: SocketAddr,
    admin_address: Option<SocketAddr>,
    grace: Duration,
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
    AdminToken(#[source] std::io::Error),
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
    UpstreamSecret(#[from] BadUpstreamSecret),
    #[error(transparent)]
    Prices(#[from] BadPrices),
    #[error("cannot listen on {address}: {error}")]
    Listen {
        address: SocketAddr,
        error: std::io::Error,
    },
}

/// Why a server ended by itself.
#[derive(Debug, Error)]
pub enum RunError {
    #[error(transparent)]
    Serve(#[from] std::io::Error),
    #[error(
        "a write to the database failed, and only a new start tells what became of it: {0}. Nothing that a caller was told is lost; the process ends, to be started again"
    )]
    Store(#[source] StoreError),
}

impl App {
    /// Opens the store, counts what is open, and goes on with it; binds.
    ///
    /// # Errors
    /// Whatever cannot be opened or makes no sense, said so that it can be mended.
    pub async fn start(settings: Settings, secrets: Secrets) -> Result<App, StartError> {
        let warnings = settings.warnings();
        let upstreams = settings.auth.upstreams(&secrets.upstream_keys)?;
        let dir = settings.store.data_dir.clone();
        let store: Arc<dyn Store> = Arc::new(SledStore::open(&settings.store)?);
        let previous = match &secrets.previous_master_key {
            Some(key) => Some(MasterKey::parse(key)?),
            None => MasterKey::load_previous(&dir)?,
        };
        let master = match &secrets.master_key {
            Some(key) => MasterKey::parse(key)?,
            None if previous.is_some() => MasterKey::load_or_create(&dir)?,
            None => kept_key(&dir, &*store).await?,
        };
        let vault = vault::unlock(&*store, &master, previous.as_ref()).await;
        let vault = vault.map_err(|locked| StartError::Vault {
            dir: dir.clone(),
            locked,
        })?;
        let vault = Arc::new(vault);
        let admin_token = admin_token(secrets.admin_token, &dir, &vault)?;
        let upstream: Url = settings.provider.base_url.parse()?;
        let passthrough = Passthrough::new(settings.passthrough, &upstream)?;
        let upstream_events = UpstreamEvents::new(secrets.upstream_webhooks.as_ref())?;
        let sender = delivery::Sender::new(settings.delivery)?;
        let engine = Engine::start(Parts {
            store,
            provider: Arc::new(OpenAi::over_tcp(&settings.provider)?),
            deliver: Arc::new(Courier::new(sender, vault.clone())),
            clock: Arc::new(SystemClock::new()),
            vault,
            prices: Prices::built_in()?,
            settings: settings.engine,
            upstreams,
        })
        .await?;
        let passthrough = passthrough.watched_by(&engine);
        let passthrough = match engine.issues_keys() {
            true => passthrough.guarded_by(
                &engine,
                settings.auth.passthrough_paths,
                settings.edge.body_timeout,
            ),
            false => passthrough,
        };
        let edge = Edge::new(
            engine.clone(),
            passthrough.for_another_worker(),
            settings.edge,
            admin_token,
            upstream_events,
        );
        let stopping = edge.stopping.clone();
        let listen = settings.server.server();
        let routers = edge::routers(&Arc::new(edge), listen.admin_listen.is_some());
        let server = Server::new(listen, passthrough, routers)
            .map_err(|(address, error)| StartError::Listen { address, error })?;
        let bound = |error| StartError::Listen {
            address: settings.server.listen,
            error,
        };
        let address = server.address().map_err(bound)?;
        let admin_address = server.admin_address().map_err(bound)?;
        if let Some(admin) = admin_address {
            tracing::info!("operators are served at http://{admin}, and only there");
        }
        for warning in warnings {
            tracing::warn!("{warning}");
        }
        Ok(App {
            server,
            engine,
            stopping,
            address,
            admin_address,
            grace: settings.server.shutdown_grace,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where operators are served, where that is elsewhere.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin_address
    }

    /// Serves until `stop`, or until the store has failed; then answers what it can within
    /// the grace period. What is left is durable, and goes on at the next start.
    ///
    /// # Errors
    /// When a worker thread cannot be started, or died; when the store has failed.
    pub async fn run(self, stop: CancellationToken) -> Result<(), RunError> {
        let mut serving = pin!(self.server.run(stop.clone()));
        let mut left = self.grace;
        let engine = self.engine.clone();
        let ended = async {
            tokio::select! {
                () = stop.cancelled() => Ok(()),
                error = engine.store_failed() => Err(RunError::Store(error)),
            }
        };
        let served = tokio::select! {
            served = &mut serving => served.map_err(RunError::from),
            ended = ended => {
                if let Err(error) = &ended {
                    tracing::error!("{error}");
                    stop.cancel();
                }
                let stopped = Instant::now();
                self.stopping.cancel();
                let served = serving.await;
                left = left.saturating_sub(stopped.elapsed()).max(LAST_MOMENT);
                ended.and(served.map_err(RunError::from))
            }
        };
        self.engine.stop(left).await;
        served
    }
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
    if std::fs::read_to_string(&path).is_ok_and(|known| known == token) {
        return Ok(Secret::new(token));
    }
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path);
    // A file that was there before keeps its mode unless told otherwise.
    file.and_then(|mut file| {
        file.set_permissions(Permissions::from_mode(0o600))?;
        file.write_all(token.as_bytes())
    })
    .map_err(StartError::AdminToken)?;
    Ok(Secret::new(token))
}
