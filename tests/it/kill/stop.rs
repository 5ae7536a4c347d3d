//! SIGTERM: what can be answered within the grace is, the rest goes on after
//! the restart, and its callers find it again.

use std::{sync::Arc, time::Duration};

use http::StatusCode;
use offpeak::simulator::{Fault, Kind, Operation, Simulator};
use rustix::process::Signal;
use tokio::task::JoinSet;

use super::{
    caller::{Call, Client, Mode},
    load::{Feed, Load},
    process::{Revived, Setup},
    provider::{Provider, quick},
    soon,
};

const KEY: &str = "sk-north.one";
const MODEL: &str = "gpt-4o-mini";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_answers_what_it_can_and_leaves_the_rest_to_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let provider = Provider::start(quick()).await;
    let setup = Setup::new(&provider.upstream(), &dir.path().join("data"))
        .with("OFFPEAK_SERVER__SHUTDOWN_GRACE", "3s");
    let server = Arc::new(Revived::start(setup, &dir.path().join("stderr")).await);
    let client = Client::new(provider.trap.clone());
    let load = Load::new(server.clone(), client.clone(), "");

    // Two seconds and ten, once they are in batches.
    let held = |number, model: &str, sim: &str| {
        let mode = [Mode::Held, Mode::Stream, Mode::Wait][number % 3];
        Call::new(number, KEY, model, mode, "5m").steered(sim)
    };
    // Of two models, so that they share no batch.
    let soon_done: Vec<Call> = (0..6).map(|n| held(n, MODEL, "slow=100s")).collect();
    let late: Vec<Call> = (6..12)
        // Not the one that is answered 202 after a second.
        .map(|n| held(if n % 3 == 2 { n + 10 } else { n }, "gpt-4.1", "slow=900s"))
        .collect();
    let (mut early, mut waiting) = (JoinSet::new(), JoinSet::new());
    for (calls, tasks) in [(&soon_done, &mut early), (&late, &mut waiting)] {
        for call in calls {
            let (load, call) = (load.clone(), call.clone());
            tasks.spawn(async move { load.see_through(call).await });
        }
    }
    provider
        .until("all lines in batches", |sim| submitted(sim) == 12)
        .await;
    // A stream that passes through, and takes a second.
    let over = Duration::from_secs(100);
    let slow = Kind::SlowBody { over };
    provider
        .simulator
        .inject(Fault::once(Operation::Chat, slow));
    let mut through = JoinSet::new();
    let (up, call) = (
        server.up(),
        Call::new(99, KEY, MODEL, Mode::Stream, "1h").straight(),
    );
    through.spawn(async move {
        let reply = client.send(&up, &call, 0).await.expect("a whole stream");
        assert!(call.is_answered_by(&reply.body), "{}", reply.body);
    });
    provider
        .until("the call that passes through", |sim| {
            sim.log().operations.contains_key(&Operation::Chat)
        })
        .await;

    server.signal(Signal::TERM);
    let status = server.ended().await;
    assert_eq!(status.code(), Some(0), "{}", server.log());
    // It did not wait for them: they had their grace.
    assert_eq!(runs(&provider.simulator, &late), vec![0; 6]);
    soon("the stream", through.join_next())
        .await
        .unwrap()
        .unwrap();
    // Answered by the process that was stopped, but for those with a 202.
    let held_ones = soon_done.iter().filter(|call| call.mode != Mode::Wait);
    for _ in held_ones {
        let done = soon("an answer within the grace", early.join_next()).await;
        assert_eq!(done.unwrap().unwrap().breaks, 0);
    }

    server.again().await;
    for mut tasks in [early, waiting] {
        while let Some(done) = soon("the answer after the restart", tasks.join_next()).await {
            let done = done.unwrap();
            assert_eq!(done.requests.len(), 1, "{done:?}");
        }
    }
    assert_eq!(runs(&provider.simulator, &soon_done), vec![1; 6]);
    assert_eq!(runs(&provider.simulator, &late), vec![1; 6]);
    assert_eq!(provider.simulator.log().overlapping(), Vec::<&str>::new());
    let mut feed = Feed::new(KEY);
    while feed.read(&load, 0).await > 0 {}
    assert_eq!(feed.seen.len(), 12);
    let log = server.log();
    assert!(!log.contains("panicked"), "{log}");
    assert!(!log.contains('\x1b'), "colours in a file: {log}");
}

fn submitted(simulator: &Simulator) -> usize {
    simulator.log().custom_ids.len()
}

/// How often each call ran.
fn runs(simulator: &Simulator, calls: &[Call]) -> Vec<u32> {
    let log = simulator.log();
    let of = |call: &Call| {
        let seen = log.requests.iter();
        seen.filter(|seen| seen.fingerprint == call.fingerprint())
            .flat_map(|seen| seen.runs.values())
            .sum()
    };
    calls.iter().map(of).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_server_stops_at_once_and_the_next_one_knows_its_answers() {
    let dir = tempfile::tempdir().unwrap();
    let provider = Provider::start(quick()).await;
    let setup = Setup::new(&provider.upstream(), &dir.path().join("data"))
        .with("OFFPEAK_SERVER__SHUTDOWN_GRACE", "1h");
    let server = Arc::new(Revived::start(setup, &dir.path().join("stderr")).await);
    let load = Load::new(server.clone(), Client::new(provider.trap.clone()), "");
    let done = load
        .see_through(Call::new(1, KEY, MODEL, Mode::Async, "5m"))
        .await;
    let request = done.requests.first().unwrap();
    for _ in 0..2 {
        server.signal(Signal::INT);
        assert_eq!(server.ended().await.code(), Some(0), "{}", server.log());
        server.again().await;
        let path = format!("/v1/chat/completions/{request}");
        let reply = load.get(KEY, &path, 0).await;
        assert_eq!(reply.status, StatusCode::OK);
        assert!(done.call.is_answered_by(&reply.body));
    }
}
