//! What is paid for a request that its caller has erased meanwhile: the ledger has
//! it, once, and nothing else is kept.

use std::time::Duration;

use offpeak::{
    model::{endpoint::Endpoint, id::RequestKey, money::Usd},
    simulator::{Kind, Lane, Operation},
};
use serde_json::json;

use super::{
    asking::{Ask, HOUR, MINUTE, SECOND, ask},
    world::{Allow, World, refusal},
};

async fn erase(world: &World, key: RequestKey) {
    let open = world.store.head(key).await.unwrap().unwrap();
    assert_eq!(open.outcome, None, "it has ended before");
    world.engine().erase(key).await.unwrap();
}

/// It was paid for, and nothing was saved with it.
async fn paid_for_nothing(world: &World, key: RequestKey) {
    let ledger = world.ledger().await;
    assert!(ledger.paid > Usd::ZERO, "{ledger:?}");
    assert_eq!(ledger.standard, Usd::ZERO, "{ledger:?}");
    assert_eq!((ledger.requests, ledger.succeeded), (1, 0), "{ledger:?}");
    nothing_is_kept(world, key).await;
}

async fn nothing_is_kept(world: &World, key: RequestKey) {
    assert_eq!(world.store.attempts(key).await.unwrap(), []);
    assert!(world.store.head(key).await.unwrap().is_none());
}

fn live_call() -> Ask {
    ask("live").within(5 * MINUTE).sim("slow=30s")
}

#[tokio::test(start_paused = true)]
async fn a_live_call() {
    let world = World::new().await;
    let key = world.ask(&live_call()).await;
    world.pass(SECOND).await;
    erase(&world, key).await;
    world.finish().await;
    paid_for_nothing(&world, key).await;
}

#[tokio::test(start_paused = true)]
async fn a_live_call_that_nobody_saw_end() {
    let world = World::new().await;
    world.fault(Operation::Chat, Kind::ReplyLost);
    let key = world.ask(&live_call()).await;
    world.pass(SECOND).await;
    erase(&world, key).await;
    world.finish_allowing(Allow::UNACCOUNTED).await;
    assert_eq!(world.ledger().await.unaccounted, 1);
    nothing_is_kept(&world, key).await;
}

#[tokio::test(start_paused = true)]
async fn a_live_call_and_then_offpeak_is_killed() {
    let mut world = World::new().await;
    let key = world.ask(&live_call()).await;
    world.pass(SECOND).await;
    erase(&world, key).await;
    world.restart(None).await;
    world.restart(None).await;
    world.finish_allowing(Allow::UNACCOUNTED).await;
    assert_eq!(world.ledger().await.unaccounted, 1);
    nothing_is_kept(&world, key).await;
}

#[tokio::test(start_paused = true)]
async fn a_line_of_a_batch() {
    let world = World::new().await;
    let key = world.ask(&ask("batched")).await;
    world.submitted().await;
    erase(&world, key).await;
    world.finish().await;
    paid_for_nothing(&world, key).await;
}

/// They were answered live before their batch was, whose file is read twice.
#[tokio::test(start_paused = true)]
async fn lines_of_a_batch_whose_requests_had_an_answer() {
    let world = World::new().await;
    let refused = refusal(500, None);
    world.faults(Operation::CancelBatch, refused, 1_000_000);
    world.fault(Operation::CreateBatch, Kind::Slow { by: 4 * HOUR });
    world.fault(Operation::FileContent, Kind::Truncated);
    let asks = |n: usize| ask(format!("rescued {n}")).within(3 * HOUR);
    let keys = world.ask_many(120, asks).await;
    world.all_done(&keys).await;
    for key in &keys {
        world.engine().erase(*key).await.unwrap();
    }
    world.finish().await;
    assert_eq!(world.sim.bill().calls(Lane::Batch), 120);
    assert!(world.sim.log().operations[&Operation::FileContent] > 1);
    for key in &keys {
        nothing_is_kept(&world, *key).await;
    }
}

/// Erased between two readings of the same file, too.
#[tokio::test(start_paused = true)]
async fn a_harvest_that_was_killed_books_each_line_once() {
    for steps in 1..20 {
        let mut world = World::with(|settings, _| settings.packing.max_lines = 4).await;
        let keys = world.ask_many(4, |n| ask(format!("line {n}"))).await;
        world.submitted().await;
        erase(&world, keys[0]).await;
        world.restart(Some(steps)).await;
        world.die_within(20 * MINUTE).await;
        world.restart(None).await;
        for key in &keys[1..3] {
            world.engine().erase(*key).await.unwrap();
        }
        world.finish_allowing(Allow::default()).await;
        assert_eq!(world.ledger().await.unaccounted, 0, "{steps}");
        for key in &keys[..3] {
            nothing_is_kept(&world, *key).await;
        }
    }
}

const DONE_AFTER: Duration = Duration::from_secs(40 * 60);

async fn in_background() -> (World, RequestKey) {
    let world = World::with(|settings, sim| {
        sim.latency.background_sigma = 0.0;
        sim.latency.background_2h_median = DONE_AFTER;
        settings.ladder.batch.models.clear();
        settings.ladder.background_8h.models.clear();
        settings.ladder.background_may_store = true;
    })
    .await;
    let body = json!({"model": "gpt-4.1", "input": "q", "metadata": {"sim": ""}});
    let response = Ask {
        model: "gpt-4.1".into(),
        endpoint: Endpoint::Responses,
        body: Some(body.to_string()),
        ..ask("q").within(3 * HOUR)
    };
    let key = world.ask(&response).await;
    (world, key)
}

#[tokio::test(start_paused = true)]
async fn a_background_response_that_is_there() {
    let (world, key) = in_background().await;
    // It is erased before it is looked at.
    world.fault(Operation::CancelResponse, Kind::Reset);
    world.pass(DONE_AFTER + 5 * SECOND).await;
    erase(&world, key).await;
    world.finish().await;
    paid_for_nothing(&world, key).await;
}

#[tokio::test(start_paused = true)]
async fn a_background_response_and_then_offpeak_is_killed() {
    for (at, done) in [(DONE_AFTER / 4, false), (DONE_AFTER - SECOND, true)] {
        let (mut world, key) = in_background().await;
        // Whoever is killed here has not cancelled it.
        world.faults(Operation::CancelResponse, Kind::Reset, 2);
        world.pass(at).await;
        erase(&world, key).await;
        world.pass(2 * SECOND).await;
        world.restart(None).await;
        world.finish().await;
        assert_eq!(world.ledger().await.paid > Usd::ZERO, done);
        nothing_is_kept(&world, key).await;
    }
}
