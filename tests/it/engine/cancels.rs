//! What a cancel brings, and what is learned of it.

use std::time::Duration;

use offpeak::{
    engine::Believed,
    simulator::{Kind, Operation},
};

use super::{
    asking::{HOUR, MINUTE, SECOND, ask},
    world::{World, succeeded},
};

/// Batches that would end from 12 to 18 minutes from their creation, each of them
/// with half an hour: all of it in the cancel, where the provider lets it.
async fn cancelled_in_the_middle(world: &World, waves: usize) {
    for wave in 0..waves {
        for by in 12..18 {
            world.fault(Operation::CreateBatch, Kind::Slow { by: by * MINUTE });
        }
        let asks = |n: usize| ask(format!("wave {wave} {n}")).within(30 * MINUTE);
        for key in world.ask_many(30, asks).await {
            succeeded(&world.outcome(key).await);
        }
        world.pass(HOUR).await;
    }
}

async fn provider(in_flight: Duration) -> World {
    let world = World::with(|settings, sim| {
        settings.packing.max_lines = 5;
        sim.latency.turnaround_median = SECOND;
        sim.latency.cancel_in_flight = in_flight;
    })
    .await;
    let slow = Kind::SlowCancel { by: 10 * MINUTE };
    world.faults(Operation::CancelBatch, slow, 1000);
    world
}

fn finishing(world: &World) -> f64 {
    let known = world.engine().turnaround(None);
    let known = known.iter().find(|it| it.what == "finished-in-cancel");
    match known.map(|it| &it.believed) {
        Some(Believed::Share { learned, .. }) => *learned,
        _ => panic!("nothing was learned of cancels"),
    }
}

/// Batches that were cancelled so far.
fn cancelled(world: &World) -> usize {
    let log = world.sim.log();
    let cancelled = log.batches.iter();
    cancelled.filter(|it| it.status == "cancelled").count()
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_stops_at_a_cancel_is_given_more_time() {
    let world = provider(Duration::ZERO).await;
    cancelled_in_the_middle(&world, 1).await;
    assert!(cancelled(&world) > 2, "to be finished in the cancel");
    assert!(finishing(&world) < 0.75, "{}", finishing(&world));
    cancelled_in_the_middle(&world, 2).await;
    let later = cancelled(&world);
    cancelled_in_the_middle(&world, 1).await;
    assert_eq!(
        cancelled(&world),
        later,
        "they end in time where they are left alone"
    );
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn one_that_goes_on_keeps_its_name() {
    let world = provider(HOUR).await;
    cancelled_in_the_middle(&world, 4).await;
    assert!(finishing(&world) > 0.9, "{}", finishing(&world));
    world.finish().await;
}
