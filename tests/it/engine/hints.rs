//! The provider says that a batch has ended.

use offpeak::{
    model::{batch::BatchState, request::OnLate},
    simulator::Operation,
};

use super::{
    asking::{HOUR, MINUTE, SECOND, ask},
    world::World,
};

fn polls(world: &World) -> u64 {
    let log = world.sim.log();
    log.operations
        .get(&Operation::GetBatch)
        .copied()
        .unwrap_or(0)
}

async fn rarely_polled() -> World {
    World::with(|settings, _| {
        settings.watch.poll_interval = HOUR;
        settings.watch.poll_max = HOUR;
    })
    .await
}

/// With the hint the harvest begins at once; without it the poll is an hour away.
#[tokio::test(start_paused = true)]
async fn a_hint_brings_the_harvest_forward() {
    for hinted in [true, false] {
        let world = rarely_polled().await;
        let key = world.ask(&ask("one")).await;
        let batch = world.submitted().await;
        world.pass(10 * MINUTE).await;
        let before = polls(&world);
        if hinted {
            let id = batch.provider_id.as_deref().unwrap();
            assert!(world.engine().hear_of_batch(id));
        }
        world.pass(5 * SECOND).await;
        let head = world.store.head(key).await.unwrap().unwrap();
        assert_eq!(head.outcome.is_some(), hinted);
        assert_eq!(polls(&world) - before, u64::from(hinted));
        world.finish().await;
    }
}

/// A false one costs a poll, one of nobody's batch none; and a thousand are no more
/// than the budget of polls.
#[tokio::test(start_paused = true)]
async fn a_false_hint_costs_a_poll() {
    let world = rarely_polled().await;
    world
        .ask(&ask("one").sim("slow=5h").on_late(OnLate::Wait))
        .await;
    let batch = world.submitted().await;
    let id = batch.provider_id.as_deref().unwrap();
    world.pass(MINUTE).await;
    let before = polls(&world);
    assert!(!world.engine().hear_of_batch("batch_of_nobody"));
    assert!(!world.engine().hear_of_batch(""));
    world.pass(SECOND).await;
    assert_eq!(polls(&world), before);
    assert!(world.engine().hear_of_batch(id));
    world.pass(MINUTE).await;
    assert_eq!(polls(&world), before + 1);

    let followed = (0..1000)
        .filter(|_| world.engine().hear_of_batch(id))
        .count();
    assert_eq!(followed, 500);
    world.pass(MINUTE).await;
    // They came before the look, and it was one for all of them.
    assert_eq!(polls(&world), before + 2);
    world.finish().await;
    let ended = &world.batches().await[0];
    assert_eq!(ended.state, BatchState::Settled);
    assert!(!world.engine().hear_of_batch(id), "nobody watches it");
}

/// One that comes while a look is under way is not forgotten with it.
#[tokio::test(start_paused = true)]
async fn a_hint_during_a_look_is_followed_by_another() {
    let world = rarely_polled().await;
    world
        .ask(&ask("one").sim("slow=5h").on_late(OnLate::Wait))
        .await;
    let batch = world.submitted().await;
    let id = batch.provider_id.as_deref().unwrap();
    world.pass(MINUTE).await;
    let before = polls(&world);
    let slow = offpeak::simulator::Kind::Delay { by: 10 * SECOND };
    world.fault(Operation::GetBatch, slow);
    assert!(world.engine().hear_of_batch(id));
    world.pass(5 * SECOND).await;
    assert!(world.engine().hear_of_batch(id));
    world.pass(MINUTE).await;
    assert_eq!(polls(&world), before + 2);
    world.finish().await;
}

/// One that overtakes the answer to the create is followed once that has come.
#[tokio::test(start_paused = true)]
async fn a_hint_before_the_create_is_answered_is_kept() {
    for early in ["the batch", "batch_of_nobody"] {
        let world = rarely_polled().await;
        let late = offpeak::simulator::Kind::SlowBody { over: 20 * SECOND };
        world.fault(Operation::CreateBatch, late);
        world
            .ask(&ask("one").sim("slow=5h").on_late(OnLate::Wait))
            .await;
        world.batch_that(|batch| batch.create_sent.is_some()).await;
        world.pass(10 * SECOND).await;
        let made = world.sim.log().batches[0].id.clone();
        let named = if early == "the batch" { &made } else { early };
        assert!(!world.engine().hear_of_batch(named), "not watched yet");
        let batch = world.submitted().await;
        assert_eq!(batch.provider_id.as_ref(), Some(&made));
        world.pass(SECOND).await;
        assert_eq!(polls(&world), u64::from(named == made));
        world.finish().await;
    }
}
