//! A disk that is full: calls with a deadline are refused for the moment, what
//! was taken in is answered, and everything else goes on. A write that fails although
//! there seemed to be room ends the process.

use std::{fs, path::Path, sync::Arc, time::Duration};

use http::StatusCode;
use offpeak::simulator::{Fault, Kind, Operation, Simulator};
use rustix::process::{Resource, Rlimit, prlimit};
use serde_json::Value;
use tokio::task::JoinSet;

use super::{
    caller::{Call, Client, Mode},
    disk::Disk,
    load::Load,
    process::{Revived, Setup},
    provider::{Provider, quick},
    soon,
};

const KEY: &str = "sk-north.one";
const MODEL: &str = "gpt-4o-mini";

/// Each may have half of what the one before has left.
const KEYS: [&str; 10] = [
    KEY,
    "sk-north.2",
    "sk-north.3",
    "sk-north.4",
    "sk-north.5",
    "sk-north.6",
    "sk-north.7",
    "sk-north.8",
    "sk-north.9",
    "sk-north.10",
];

struct Scene {
    provider: Arc<Provider>,
    server: Arc<Revived>,
    load: Arc<Load>,
}

async fn scene(disk: &Path, stderr: &Path, reserve: &str) -> Scene {
    let provider = Provider::start(quick()).await;
    let mut setup = Setup::new(&provider.upstream(), &disk.join("data"))
        .with("OFFPEAK_STORE__RESERVE_BYTES", reserve);
    setup.outlives_large_files = true;
    let server = Arc::new(Revived::start(setup, stderr).await);
    let load = Load::new(server.clone(), Client::new(provider.trap.clone()), "");
    Scene {
        provider,
        server,
        load,
    }
}

impl Scene {
    /// Takes calls in until one is refused that is not its key's fault; the others are
    /// seen through.
    async fn until_refused(&self, tasks: &mut JoinSet<()>) -> Value {
        let up = self.server.up();
        let mut keys = KEYS.iter();
        let mut key = keys.next().unwrap();
        for number in 0..2000 {
            let call = Call::new(number, key, MODEL, Mode::Keyed, "10m").padded(100_000);
            let reply = self.load.client.send(&up, &call, 0).await.unwrap();
            match reply.status {
                StatusCode::ACCEPTED => {
                    let load = self.load.clone();
                    // Its key finds the same request.
                    tasks.spawn(async move {
                        let done = load.see_through(call).await;
                        assert_eq!(done.requests.len(), 1);
                    });
                }
                // It leaves to others as much of the disk as it takes.
                StatusCode::TOO_MANY_REQUESTS => {
                    assert!(reply.body.contains("tenant_queue_full"), "{}", reply.body);
                    key = keys.next().expect("ten of them fill it");
                }
                status => {
                    assert!(status.is_server_error(), "{status} {}", reply.body);
                    assert!(reply.headers.contains_key("retry-after"), "{reply:?}");
                    assert!(!reply.headers.contains_key("x-should-retry"), "{reply:?}");
                    let error: Value = serde_json::from_str(&reply.body).unwrap();
                    let error = error["error"].clone();
                    for name in ["message", "type", "param", "code"] {
                        assert!(error.get(name).is_some(), "{error}");
                    }
                    return error;
                }
            }
        }
        panic!("the disk is not full");
    }

    /// No file of the server's grows beyond these bytes: what its log is written with
    /// fails, while the disk has room.
    fn limit_files(&self, bytes: u64) {
        let limit = Rlimit {
            current: Some(bytes),
            maximum: None,
        };
        prlimit(Some(self.server.pid()), Resource::Fsize, limit).unwrap();
    }

    async fn passes_through(&self) {
        let call = Call::new(7777, KEY, MODEL, Mode::Held, "1h").straight();
        let reply = self.load.client.send(&self.server.up(), &call, 0).await;
        let reply = reply.unwrap();
        assert_eq!(reply.status, StatusCode::OK, "{}", reply.body);
        assert!(call.is_answered_by(&reply.body));
    }

    async fn readiness(&self) -> (StatusCode, String) {
        let up = self.server.up();
        let reply = self.load.client.get(&up, KEY, "/readyz", 0).await.unwrap();
        (reply.status, reply.body)
    }

    /// Once there is room again.
    async fn takes_calls_again(&self) {
        let call = Call::new(8888, KEY, MODEL, Mode::Held, "10m");
        self.load.see_through(call).await;
    }

    async fn all_answered(&self, mut tasks: JoinSet<()>) {
        assert!(!tasks.is_empty());
        while let Some(done) = soon("all answers", tasks.join_next()).await {
            done.unwrap();
        }
        assert_eq!(
            self.provider.simulator.log().overlapping(),
            Vec::<&str>::new()
        );
        let log = self.server.log();
        assert!(!log.contains("panicked"), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn within_the_reserve_only_answers_are_written() {
    let Some(disk) = Disk::mount(64) else { return };
    let dir = tempfile::tempdir().unwrap();
    let scene = scene(&disk.path, &dir.path().join("stderr"), "0").await;
    assert_eq!(scene.readiness().await, (StatusCode::OK, "ready\n".into()));
    let filler = disk.fill(38_000_000);
    let mut tasks = JoinSet::new();
    let error = scene.until_refused(&mut tasks).await;
    assert_eq!(error["code"], "storage_full");
    let full = (StatusCode::SERVICE_UNAVAILABLE, "the disk is full\n".into());
    assert_eq!(scene.readiness().await, full);
    scene.passes_through().await;
    // All of them, although the disk stays as full as it is.
    scene.all_answered(tasks).await;
    fs::remove_file(filler).unwrap();
    scene.takes_calls_again().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_others_fill_to_the_last_byte_delays_answers_only() {
    let Some(disk) = Disk::mount(64) else { return };
    let dir = tempfile::tempdir().unwrap();
    let scene = scene(&disk.path, &dir.path().join("stderr"), "0").await;
    let mut tasks = JoinSet::new();
    for number in 0..30 {
        let mode = [Mode::Held, Mode::Async, Mode::Stream][number % 3];
        let call = Call::new(number, KEY, MODEL, mode, "10m").steered("slow=60s");
        let load = scene.load.clone();
        tasks.spawn(async move {
            let done = load.see_through(call).await;
            assert_eq!((done.requests.len(), done.breaks), (1, 0));
        });
    }
    scene
        .provider
        .until("all lines in batches", |simulator| {
            simulator.log().custom_ids.len() == 30
        })
        .await;
    let filler = disk.fill(0);
    let error = scene.until_refused(&mut tasks).await;
    assert_eq!(error["code"], "storage_full");
    // Their results are there to be read, and cannot be kept.
    scene
        .provider
        .until("a harvest", |simulator| {
            let operations = simulator.log().operations;
            operations.contains_key(&Operation::FileContent)
        })
        .await;
    scene.passes_through().await;
    fs::remove_file(filler).unwrap();
    scene.takes_calls_again().await;
    scene.all_answered(tasks).await;
}

/// What was taken in, and what passes through while the process ends, is answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_write_ends_the_process_and_the_next_one_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let scene = scene(dir.path(), &dir.path().join("stderr"), "0").await;
    let up = scene.server.up();
    let mut tasks = JoinSet::new();
    for number in 3000..3010 {
        let call = Call::new(number, KEY, MODEL, Mode::Async, "10m").steered("slow=60s");
        let load = scene.load.clone();
        tasks.spawn(async move {
            let done = load.see_through(call).await;
            assert_eq!(done.requests.len(), 1);
        });
    }
    scene
        .provider
        .until("all lines in batches", |simulator| {
            simulator.log().custom_ids.len() == 10
        })
        .await;
    // Two seconds at its speed.
    let by = Duration::from_secs(200);
    let late = Fault::once(Operation::Chat, Kind::Delay { by });
    scene.provider.simulator.inject(late);
    let straight = Call::new(7777, KEY, MODEL, Mode::Held, "1h").straight();
    let mut passing = {
        let (client, call, up) = (scene.load.client.clone(), straight.clone(), up.clone());
        JoinSet::from_iter([async move { client.send(&up, &call, 0).await.unwrap() }])
    };
    let is_called = |simulator: &Simulator| {
        let operations = simulator.log().operations;
        operations.contains_key(&Operation::Chat)
    };
    scene.provider.until("the call", is_called).await;

    scene.limit_files(256 << 10);
    let error = scene.until_refused(&mut tasks).await;
    assert_eq!(error["code"], "storage_failed");
    let reply = passing.join_next().await.unwrap().unwrap();
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.body);
    assert!(straight.is_answered_by(&reply.body));
    let ended = scene.server.ended().await;
    assert_eq!(ended.code(), Some(2), "{}", scene.server.log());
    let told = scene.server.log();
    assert!(
        told.contains("offpeak: a write to the database failed"),
        "{told}"
    );

    scene.server.again().await;
    scene.takes_calls_again().await;
    scene.all_answered(tasks).await;
}
