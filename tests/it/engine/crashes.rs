//! Killed anywhere, and started again: nothing is lost, and nothing is bought
//! twice by us.

use std::time::Duration;

use offpeak::{
    model::{
        batch::Batch,
        request::{OnLate, Place},
    },
    ports::Relocation,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::{
    asking::{HOUR, MINUTE, ask},
    world::{Allow, World, succeeded},
};

const KILLED: Allow = Allow {
    lost_files: false,
    unaccounted: true,
    endless: false,
    twins: false,
};

async fn work(world: &World) {
    for number in 0..12 {
        let call = ask(format!("q{number}")).webhook();
        let call = match number % 4 {
            0 => call.within(2 * MINUTE),
            1 => call.within(2 * HOUR).sim("never"),
            2 => call.on_late(OnLate::Wait).within(HOUR),
            _ => call,
        };
        world.ask(&call).await;
    }
}

/// Nothing looks at an ended batch again; a start does.
#[tokio::test(start_paused = true)]
async fn a_line_that_was_left_in_an_ended_batch_is_done_after_a_restart() {
    let mut world = World::new().await;
    let first = world.ask(&ask("first")).await;
    succeeded(&world.outcome(first).await);
    let ended = |batch: &Batch| !batch.state.is_open() && batch.litter.is_empty();
    let ended = world.batch_that(ended).await;
    // Long after it, too.
    world.pass(5 * HOUR).await;
    let left = world.admit(&ask("left")).await.request;
    let relocation = Relocation {
        entry: left.entry(),
        from: Place::Queue(left.cohort),
        to: Place::Line(ended.id),
    };
    let moved = world.store.relocate(vec![relocation]).await.remove(0);
    assert!(moved.unwrap());
    world.restart(None).await;
    world.check_counts().await;
    succeeded(&world.outcome(left.key).await);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn killed_at_any_moment() {
    for seed in 0..6 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut world =
            World::seeded(seed, None, |settings, _| settings.packing.max_lines = 3).await;
        work(&world).await;
        for _ in 0..10 {
            let longest: u64 = if random.random_bool(0.5) {
                2_000
            } else {
                900_000
            };
            world
                .pass(Duration::from_millis(random.random_range(0..longest)))
                .await;
            world.restart(None).await;
            world.check_counts().await;
        }
        world.finish_allowing(KILLED).await;
    }
}

/// Dies after its first commit or effect; in another world after its second; …
#[tokio::test(start_paused = true)]
async fn killed_after_every_commit_and_effect() {
    // Every one of the first, in which most happens; then a sample.
    for steps in (1..24).chain((24..80).step_by(7)) {
        let mut world = World::new().await;
        work(&world).await;
        world.restart(Some(steps)).await;
        world.die_within(20 * MINUTE).await;
        world.restart(None).await;
        world.finish_allowing(KILLED).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_graceful_stop_leaves_the_rest_for_the_next_start() {
    let mut world = World::new().await;
    work(&world).await;
    world.pass(5 * MINUTE).await;
    world.engine().stop(Duration::from_secs(20)).await;
    assert_eq!(world.engine().gauges().in_hand, 0);
    world.restart(None).await;
    world.finish().await;
}
