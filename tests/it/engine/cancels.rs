//! What a cancel brings, and what is learned of it.

use std::time::Duration;

use offpeak::{
    engine::Believed,
    model::{
        batch::{Batch, BatchState},
        time::Timestamp,
    },
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

/// Until when a batch was being cancelled at the provider, where that takes so much
/// longer, how often it was looked at within each of `spans`, and when it was settled.
async fn looks_at_a_cancel(by: Duration, spans: &[Duration]) -> (Vec<u64>, Duration, Duration) {
    let world = World::new().await;
    world.fault(Operation::CancelBatch, Kind::SlowCancel { by });
    world.ask(&ask("q").sim("never").within(3 * HOUR)).await;
    let cancelling = |batch: &Batch| batch.state == BatchState::Cancelling;
    let asked = world.batch_that(cancelling).await.cancel_sent.unwrap();
    let looks = || world.sim.log().operations[&Operation::GetBatch];
    let mut counts = Vec::new();
    for span in spans {
        let before = looks();
        world.pass(*span).await;
        counts.push(looks() - before);
    }
    world.finish().await;
    let ended = Timestamp::from_secs(world.sim.log().batches[0].ended_at);
    let settled = world.batches().await[0].settled.unwrap();
    (counts, asked.until(ended), asked.until(settled))
}

#[tokio::test(start_paused = true)]
async fn a_cancel_that_takes_long_is_looked_at_less_and_less() {
    let spans = [100 * SECOND, 20 * MINUTE, 2 * HOUR];
    let (looks, ended, seen) = looks_at_a_cancel(5 * HOUR, &spans).await;
    // Every ten seconds, at every tenth of its age, every two minutes.
    for (looks, (least, most)) in looks.into_iter().zip([(9, 10), (25, 28), (60, 61)]) {
        assert!((least..=most).contains(&looks), "{looks} looks");
    }
    assert!(seen <= ended + 121 * SECOND, "{seen:?}, and not {ended:?}");
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_cancel_is_seen_within_a_tenth_of_its_age() {
    for minutes in [0, 3, 10, 25] {
        let (_, ended, seen) = looks_at_a_cancel(minutes * MINUTE, &[]).await;
        let most = ended.mul_f64(1.1).max(ended + 10 * SECOND) + SECOND;
        assert!(seen <= most, "{seen:?}, and not {ended:?}");
    }
}
