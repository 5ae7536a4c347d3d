//! The whole application on real sockets: a simulator and a server on free ports,
//! a store in a directory of its own, time short.

use std::{collections::HashMap, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use offpeak::{
    app::{App, RunError, Secrets, Settings},
    config::Config,
    model::{secret::Secret, time::Timestamp},
    simulator::{self, Simulator},
};
use tokio::{net::TcpListener, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::wire::Caller;

/// A hang is a failure: nothing in these tests takes long.
pub const HANG: Duration = Duration::from_secs(60);

/// Stopped with [`TestApp::finish`], which says whether anything was left undone.
pub struct TestApp {
    pub address: SocketAddr,
    /// Where operators are served, where that is elsewhere.
    pub admin_address: Option<SocketAddr>,
    pub simulator: Arc<Simulator>,
    directory: tempfile::TempDir,
    settings: Vec<(String, String)>,
    /// What stands in the server's environment for `[auth.upstream]`, from its next
    /// start on.
    pub upstream_keys: HashMap<String, String>,
    stop: CancellationToken,
    server: JoinSet<Result<(), RunError>>,
    provider: JoinSet<()>,
    finished: bool,
}

impl TestApp {
    pub async fn start() -> TestApp {
        TestApp::with(&[]).await
    }

    /// With settings over the short ones, by their environment names.
    pub async fn with(settings: &[(&str, &str)]) -> TestApp {
        TestApp::against(provider(), settings).await
    }

    /// In front of another provider than the quick one.
    pub async fn against(provider: simulator::Settings, settings: &[(&str, &str)]) -> TestApp {
        TestApp::keyed(provider, settings, &[]).await
    }

    /// With the provider's keys by their variables.
    pub async fn with_keys(settings: &[(&str, &str)], keys: &[(&str, &str)]) -> TestApp {
        TestApp::keyed(provider(), settings, keys).await
    }

    async fn keyed(
        provider: simulator::Settings,
        settings: &[(&str, &str)],
        keys: &[(&str, &str)],
    ) -> TestApp {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream = format!("http://{}/v1", listener.local_addr().unwrap());
        let simulator = Simulator::new(provider, now());
        let stop = CancellationToken::new();
        let mut serving = JoinSet::new();
        serving.spawn(simulator::serve(listener, simulator.clone(), stop.clone()));
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().to_str().unwrap().to_owned();
        let mut all = short();
        all.push(("OFFPEAK_UPSTREAM__BASE_URL".into(), upstream));
        all.push(("OFFPEAK_STORE__DATA_DIR".into(), data));
        for (name, value) in settings {
            all.push(((*name).to_owned(), (*value).to_owned()));
        }
        let mut app = TestApp {
            address: ([127, 0, 0, 1], 0).into(),
            admin_address: None,
            simulator,
            directory,
            settings: all,
            upstream_keys: keys
                .iter()
                .map(|(name, key)| ((*name).to_owned(), (*key).to_owned()))
                .collect(),
            stop: CancellationToken::new(),
            server: JoinSet::new(),
            provider: serving,
            finished: false,
        };
        app.serve().await;
        app
    }

    pub async fn serve(&mut self) {
        let config = Config::load(None, self.settings.clone(), &[]).unwrap();
        let settings = Settings::read(&config).unwrap();
        let keys = self.upstream_keys.iter();
        let secrets = Secrets {
            upstream_keys: keys
                .map(|(name, key)| (name.clone(), Secret::new(key.as_str())))
                .collect(),
            ..Secrets::default()
        };
        self.stop = CancellationToken::new();
        let app = App::start(settings, secrets, self.stop.clone()).await;
        let app = app.unwrap();
        self.address = app.address();
        self.admin_address = app.admin_address();
        self.server.spawn(app.run());
    }

    /// Stops gracefully and starts again on the same data.
    pub async fn restart(&mut self) {
        self.end().await;
        self.serve().await;
    }

    pub async fn end(&mut self) {
        self.stop.cancel();
        let ended = timeout(HANG, self.server.join_next()).await;
        ended.expect("a hang").unwrap().unwrap().unwrap();
    }

    /// Everything that is kept.
    pub fn data_dir(&self) -> &Path {
        self.directory.path()
    }

    /// What an operator reads in the data directory.
    pub fn admin_token(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("admin.token")).unwrap()
    }

    /// A new connection.
    pub async fn caller(&self) -> Caller {
        Caller::connect(self.address).await
    }

    /// How often a question with `text` in it was answered, and so paid.
    pub fn runs_of(&self, text: &str) -> u32 {
        self.simulator.log().runs_of(text)
    }

    /// Stops, and checks what must always hold.
    pub async fn finish(mut self) {
        self.end().await;
        let log = self.simulator.log();
        assert_eq!(log.overlapping(), [""; 0], "lines in two batches");
        assert!(self.directory.path().join("master.key").exists());
        self.provider.shutdown().await;
        self.finished = true;
    }
}

impl Drop for TestApp {
    fn drop(&mut self) {
        self.stop.cancel();
        if !std::thread::panicking() {
            assert!(self.finished, "a test ends its application with finish()");
        }
    }
}

/// A provider that does everything within milliseconds, but for what a request
/// itself asks for (`slow=1s`, `never`).
pub fn provider() -> simulator::Settings {
    let mut settings = simulator::Settings {
        keep_bodies: true,
        ..Default::default()
    };
    let latency = &mut settings.latency;
    for duration in [
        &mut latency.validation,
        &mut latency.finalizing,
        &mut latency.cancel,
        &mut latency.cancel_in_flight,
        &mut latency.live_chunk,
    ] {
        *duration = Duration::from_millis(1);
    }
    latency.turnaround_median = Duration::from_millis(5);
    latency.live_median = Duration::from_millis(5);
    latency.turnaround_sigma = 0.0;
    latency.stalled_share = 0.0;
    settings
}

/// A day played in seconds.
fn short() -> Vec<(String, String)> {
    let settings = [
        ("SERVER__LISTEN", "127.0.0.1:0"),
        ("SERVER__WORKERS", "1"),
        ("SERVER__SHUTDOWN_GRACE", "100ms"),
        ("STORE__RESERVE_BYTES", "0"),
        ("PACKING__LINGER", "10ms"),
        ("WATCH__POLL_INTERVAL", "20ms"),
        ("WATCH__POLL_MAX", "20ms"),
        ("WATCH__POLLS_PER_SECOND", "1000"),
        ("RESCUE__RESERVE", "5s"),
        ("LIVE__RETRY_BASE", "10ms"),
        ("SUBMIT__RETRY_BASE", "10ms"),
        ("HOLD__DRIP_INTERVAL", "50ms"),
        ("HOLD__HEARTBEAT", "50ms"),
    ];
    let named = |(name, value): (&str, &str)| (format!("OFFPEAK_{name}"), value.to_owned());
    settings.into_iter().map(named).collect()
}

#[expect(clippy::disallowed_methods, reason = "the simulator is told the time")]
fn now() -> Timestamp {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    Timestamp::from_millis(since.as_millis() as u64)
}
