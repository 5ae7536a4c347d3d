//! Uploading and creating, once.

use std::sync::Arc;

use axum::body::Body;
use offpeak::{
    model::{
        batch::Batch,
        request::{OnLate, Source, State},
    },
    simulator::{Kind, Operation},
};
use serde_json::json;
use tower::ServiceExt;

use super::{
    asking::{HOUR, MINUTE, SECOND, ask},
    life::Virtual,
    world::{START, World, refusal, succeeded},
};

#[tokio::test(start_paused = true)]
async fn a_lost_create_is_adopted_and_never_repeated() {
    for kind in [
        Kind::ReplyLost,
        Kind::StatusAfter { status: 500 },
        Kind::HangAfter,
    ] {
        let world = World::new().await;
        world.fault(Operation::CreateBatch, kind.clone());
        world.faults(Operation::ListBatches, Kind::Lag { by: MINUTE }, 1000);
        let keys = world.ask_many(3, |n| ask(format!("q{n}"))).await;
        world.all_done(&keys).await.iter().for_each(succeeded);
        world.finish().await;
        assert_eq!(world.sim.log().batches.len(), 1, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_create_is_looked_for_less_and_less() {
    // How long it does not show, when it is found, and how often the list was read.
    for (seconds, found, lists) in [(0, 1, 1), (2, 2, 2), (3, 4, 3), (20, 32, 6), (70, 120, 8)] {
        let world = World::new().await;
        world.fault(Operation::CreateBatch, Kind::ReplyLost);
        let by = seconds * SECOND;
        world.faults(Operation::ListBatches, Kind::Lag { by }, 1000);
        world.ask(&ask("hidden")).await;
        let batch = world.submitted().await;
        let sent = batch.create_sent.unwrap();
        let took = sent.until(batch.submitted.unwrap()).as_secs();
        assert_eq!(took, found, "hidden for {seconds} s");
        let log = world.sim.log();
        assert_eq!(log.operations[&Operation::ListBatches], lists);
        world.finish().await;
        assert_eq!(world.sim.log().batches.len(), 1);
    }
}

/// Others with the same key make more batches than a page of the list holds. Where our
/// clock was ahead, all of them would seem to be older than our create.
#[tokio::test(start_paused = true)]
async fn a_lost_create_is_found_behind_others_whichever_clock_is_ahead() {
    for ours in [START, START + HOUR, START - HOUR] {
        let world = World::with_clock(Arc::new(Virtual::new(ours, 1)), |_, _| {}).await;
        world.fault(Operation::CreateBatch, Kind::ReplyLost);
        world.faults(Operation::ListBatches, refusal(503, None), 1_000);
        let key = world.ask(&ask("lost")).await;
        let is_sent = |batch: &Batch| batch.create_sent.is_some();
        world.batch_that(is_sent).await;
        world.pass(SECOND).await;
        assert_eq!(world.sim.log().batches.len(), 1, "it was made");
        for _ in 0..150 {
            make_another(&world).await;
        }
        world.sim.clear_faults();
        succeeded(&world.outcome(key).await);
        world.finish().await;
        let log = world.sim.log();
        assert_eq!(log.batches.len(), 151, "ours is {ours}");
        assert_eq!(log.batches[0].status, "completed");
    }
}

/// Of a file that is not there: it fails, and costs nothing.
async fn make_another(world: &World) {
    let body = json!({
        "input_file_id": "file-none",
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
    });
    let request = http::Request::post("/v1/batches")
        .header("authorization", "Bearer sk-test")
        .header("content-type", "application/json")
        .body(Body::from(body.to_string()))
        .unwrap();
    let response = world.sim.router().oneshot(request).await.unwrap();
    assert!(response.status().is_success(), "{response:?}");
}

/// A rescue waits for it: it is cancelled as soon as it is found.
#[tokio::test(start_paused = true)]
async fn a_lost_create_that_is_wanted_back_is_looked_for_often() {
    let world = World::with(|settings, _| settings.submit.visibility_window = 20 * HOUR).await;
    world.fault(Operation::CreateBatch, Kind::ReplyLost);
    world.faults(Operation::ListBatches, Kind::Lag { by: 30 * HOUR }, 1_000);
    let lists = || world.sim.log().operations[&Operation::ListBatches];
    let key = world.ask(&ask("hidden").within(2 * HOUR)).await;
    world.pass(HOUR).await;
    assert!((60..=70).contains(&lists()), "{} in an hour", lists());
    world.outcome(key).await;
    let before = lists();
    world.pass(10 * MINUTE).await;
    let looks = lists() - before;
    assert!((59..=61).contains(&looks), "{looks} in ten minutes");
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_create_that_never_happened_is_made_again_with_a_new_file() {
    for kind in [Kind::Reset, Kind::Hang] {
        let world = World::new().await;
        world.fault(Operation::CreateBatch, kind.clone());
        let keys = world.ask_many(3, |n| ask(format!("q{n}"))).await;
        world.all_done(&keys).await.iter().for_each(succeeded);
        world.finish().await;
        let log = world.sim.log();
        assert_eq!(log.batches.len(), 1, "{kind:?}");
        assert_eq!(log.operations[&Operation::UploadFile], 2, "{kind:?}");
        // Within the window, and a dozen times in the day after it.
        assert!(
            log.operations[&Operation::ListBatches] <= 8 + 14,
            "{kind:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_upload_is_made_again() {
    let world = World::new().await;
    world.fault(Operation::UploadFile, Kind::ReplyLost);
    let keys = world.ask_many(3, |n| ask(format!("q{n}"))).await;
    world.all_done(&keys).await.iter().for_each(succeeded);
    world.finish().await;
    assert_eq!(world.sim.log().batches.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_provider_says_when_to_come_back() {
    for on in [Operation::UploadFile, Operation::CreateBatch] {
        let world = World::new().await;
        let status = refusal(429, Some(300));
        world.fault(on, status);
        let key = world.ask(&ask("patient")).await;
        world.pass(290 * SECOND).await;
        assert_eq!(world.sim.log().operations[&on], 1);
        let outcome = world.outcome(key).await;
        assert!(matches!(outcome.source, Source::Batch(_)));
        world.finish().await;
        assert_eq!(world.sim.log().operations[&on], 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_revoked_key_ends_what_it_was_to_pay_for() {
    for on_late in [OnLate::Rescue, OnLate::Wait] {
        let world = World::new().await;
        let call = ask("nobody pays").key("sk-bad-key").on_late(on_late);
        let (outcome, answer) = world.done(world.ask(&call).await).await;
        assert_eq!((outcome.state, outcome.status), (State::Failed, 401));
        assert!(answer.contains("Incorrect API key"), "{answer}");
        world.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn lines_cancelled_while_their_file_is_sent() {
    let world = World::new().await;
    world.fault(Operation::UploadFile, Kind::Delay { by: 2 * MINUTE });
    let keys = world.ask_many(4, |n| ask(format!("q{n}"))).await;
    world.pass(MINUTE).await;
    world.engine().cancel(keys[1]).await.unwrap();
    let outcomes = world.all_done(&keys).await;
    assert_eq!(outcomes[1].state, State::Cancelled);
    assert_eq!(
        outcomes
            .iter()
            .filter(|o| o.state == State::Succeeded)
            .count(),
        3
    );
    world.finish().await;
    // It was in the file already: paid for nothing, and said so.
    assert_eq!(world.ledger().await.paid_twice, 0);
}

#[tokio::test(start_paused = true)]
async fn a_long_harvest_does_not_hold_up_submitting() {
    let world = World::with(|settings, _| settings.packing.max_lines = 1).await;
    world.ask_many(8, |n| ask(format!("q{n}"))).await;
    world.pass(5 * MINUTE).await;
    world.faults(Operation::FileContent, Kind::SlowBody { over: 2 * HOUR }, 8);
    world.pass(30 * MINUTE).await;
    let late = world.ask(&ask("late").within(4 * HOUR)).await;
    world.pass(30 * SECOND).await;
    assert_eq!(
        world.sim.log().batches.len(),
        9,
        "submitted while eight are harvested"
    );
    world.outcome(late).await;
    world.finish().await;
}
