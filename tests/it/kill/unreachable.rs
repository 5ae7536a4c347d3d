//! A provider that is not there, or takes connections and says nothing.

use std::sync::Arc;

use http::StatusCode;
use tokio::{net::TcpListener, task::JoinSet};

use super::{
    caller::{Call, Client, Mode},
    load::{Done, KEYS, Load},
    process::{Revived, Setup},
    provider::{Provider, quick},
    soon,
};

const MODEL: &str = "gpt-4o-mini";

/// In the queue, in batches, and live.
fn calls(from: usize) -> impl Iterator<Item = Call> {
    (from..from + 18).map(|number| {
        let mode = [Mode::Async, Mode::Held, Mode::Background][number % 3];
        let deadline = ["1s", "4s", "5m"][number / 3 % 3];
        Call::new(number, KEYS[number % 2], MODEL, mode, deadline)
    })
}

struct Scene {
    provider: Arc<Provider>,
    server: Arc<Revived>,
    load: Arc<Load>,
    _dir: tempfile::TempDir,
}

async fn scene() -> Scene {
    let dir = tempfile::tempdir().unwrap();
    let provider = Provider::start(quick()).await;
    let setup = Setup::new(&provider.upstream(), &dir.path().join("data"))
        .with("OFFPEAK_ADMIN_TOKEN", ADMIN)
        .with("OFFPEAK_UPSTREAM__READ_TIMEOUT", "1s")
        .with("OFFPEAK_UPSTREAM__UPLOAD_TIMEOUT", "1s")
        .with("OFFPEAK_LIVE__TIMEOUT", "1s");
    let server = Arc::new(Revived::start(setup, &dir.path().join("stderr")).await);
    let load = Load::new(server.clone(), Client::new(provider.trap.clone()), "");
    Scene {
        provider,
        server,
        load,
        _dir: dir,
    }
}

impl Scene {
    /// Sends the calls, and returns when the server has taken all of them in.
    async fn take_in(&self, tasks: &mut JoinSet<Done>, from: usize) {
        for call in calls(from) {
            let load = self.load.clone();
            tasks.spawn(async move { load.see_through(call).await });
        }
        self.until("all calls to be taken in", |status| {
            let open = status["requests"]["open"].as_u64().unwrap();
            open >= tasks.len() as u64
        })
        .await;
    }

    async fn until(&self, what: &str, mut condition: impl FnMut(&serde_json::Value) -> bool) {
        let up = self.server.up();
        let fulfilled = async {
            loop {
                let reply = self
                    .load
                    .client
                    .get(&up, ADMIN, "/offpeak/admin/status", 0)
                    .await;
                let reply = reply.unwrap();
                assert_eq!(reply.status, StatusCode::OK, "{}", reply.body);
                if condition(&serde_json::from_str(&reply.body).unwrap()) {
                    return;
                }
            }
        };
        soon(what, fulfilled).await;
    }

    async fn all_answered(&self, mut tasks: JoinSet<Done>) {
        while let Some(done) = soon("all answers", tasks.join_next()).await {
            let done = done.unwrap();
            assert_eq!((done.breaks, done.requests.len()), (0, 1), "{done:?}");
        }
        let log = self.provider.simulator.log();
        assert_eq!(log.overlapping(), Vec::<&str>::new());
        let told = self.server.log();
        assert!(!told.contains("panicked"), "{told}");
    }
}

const ADMIN: &str = "the operators' token";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_taken_in_waits_for_a_provider_that_is_gone() {
    let scene = scene().await;
    let mut tasks = JoinSet::new();
    scene.provider.die().await;
    scene.take_in(&mut tasks, 0).await;
    scene
        .until("a batch that failed", |status| {
            let batches = status["batches"].as_array().unwrap();
            batches
                .iter()
                .any(|batch| batch["tries"].as_u64() >= Some(2))
        })
        .await;
    scene.provider.revive().await;
    scene.all_answered(tasks).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_at_a_provider_that_goes_away_for_a_while_are_harvested() {
    let scene = scene().await;
    let mut tasks = JoinSet::new();
    scene.take_in(&mut tasks, 0).await;
    scene
        .provider
        .until("a batch", |simulator| !simulator.log().batches.is_empty())
        .await;
    scene.provider.die().await;
    scene
        .until("a poll that failed", |status| {
            let batches = status["batches"].as_array().unwrap();
            batches.iter().any(|batch| batch["last_error"].is_string())
        })
        .await;
    scene.provider.revive().await;
    scene.all_answered(tasks).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_says_nothing_blocks_nobody_for_ever() {
    let scene = scene().await;
    let mut tasks = JoinSet::new();
    scene.provider.die().await;
    let address = scene.provider.upstream();
    let address = address
        .trim_start_matches("http://")
        .trim_end_matches("/v1");
    let silent = TcpListener::bind(address).await.unwrap();
    let mut connections = Vec::new();
    let listening = async {
        while connections.len() < 40 {
            connections.push(silent.accept().await.unwrap());
        }
    };
    tokio::join!(
        soon("forty connections", listening),
        scene.take_in(&mut tasks, 0)
    );
    drop((silent, connections));
    scene.provider.revive().await;
    scene.all_answered(tasks).await;
}
