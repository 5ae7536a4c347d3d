//! Second batches of the same lines that the provider makes all the same: seen,
//! cancelled, and shown as paid twice.

use offpeak::{
    model::{
        batch::{BatchState, Left},
        request::Source,
    },
    simulator::{Kind, Operation},
};

use super::{
    asking::{HOUR, MINUTE, SECOND, ask},
    world::{Allow, World, succeeded},
};

const TWINS: Allow = Allow {
    lost_files: false,
    unaccounted: false,
    endless: false,
    twins: true,
};

/// A batch that is not on the list for longer than the visibility window: its create
/// is made again, and both run.
async fn lost_and_found(hidden_minutes: u32, lines_take_hours: u32) -> World {
    let world = World::with(|_, provider| {
        provider.latency.turnaround_median = lines_take_hours * HOUR;
    })
    .await;
    world.fault(Operation::CreateBatch, Kind::ReplyLost);
    let by = hidden_minutes * MINUTE;
    world.faults(Operation::ListBatches, Kind::Lag { by }, 1_000);
    let keys = world
        .ask_many(3, |n| ask(format!("q{n}")).within(20 * HOUR))
        .await;
    for outcome in world.all_done(&keys).await {
        succeeded(&outcome);
        assert!(matches!(outcome.source, Source::Batch(_)), "{outcome:?}");
    }
    world
}

#[tokio::test(start_paused = true)]
async fn a_create_that_was_given_up_and_runs_is_cancelled() {
    let world = lost_and_found(10, 3).await;
    world.finish_allowing(TWINS).await;
    let log = world.sim.log();
    let statuses: Vec<_> = log.batches.iter().map(|batch| batch.status).collect();
    assert_eq!(statuses, ["cancelled", "completed"]);
    assert_eq!(world.left().await, [Left::Twin]);
    assert_eq!(world.ledger().await.paid_twice, 0, "it had run nothing");
}

#[tokio::test(start_paused = true)]
async fn a_create_that_was_given_up_and_ran_is_paid_twice_and_said_so() {
    // Its lines end before it is found: their answers come first, and count.
    let world = lost_and_found(7 * 60, 5).await;
    world.finish_allowing(TWINS).await;
    let log = world.sim.log();
    let statuses: Vec<_> = log.batches.iter().map(|batch| batch.status).collect();
    assert_eq!(statuses, ["completed", "completed"]);
    let ledger = world.ledger().await;
    assert_eq!(ledger.paid_twice, 3, "{ledger:?}");
}

#[tokio::test(start_paused = true)]
async fn a_create_that_was_given_up_and_never_showed_is_forgotten() {
    let world = World::new().await;
    world.fault(Operation::CreateBatch, Kind::Reset);
    let key = world.ask(&ask("once").within(8 * HOUR)).await;
    world.outcome(key).await;
    let lost = world.batch_that(|batch| batch.twin_of.is_some()).await;
    assert_eq!(lost.state, BatchState::Lost);
    let before = world.sim.log().operations[&Operation::ListBatches];
    world.finish().await;
    let lists = world.sim.log().operations[&Operation::ListBatches] - before;
    assert!(lists <= 14, "{lists} looks in a day");
    let lost = world.batch_that(|batch| batch.twin_of.is_some()).await;
    assert_eq!(lost.state, BatchState::Abandoned);
}

#[tokio::test(start_paused = true)]
async fn the_search_for_a_lost_create_goes_on_after_a_kill() {
    let mut world = World::with(|_, provider| {
        provider.latency.turnaround_median = 3 * HOUR;
    })
    .await;
    world.fault(Operation::CreateBatch, Kind::ReplyLost);
    let by = 10 * MINUTE;
    world.faults(Operation::ListBatches, Kind::Lag { by }, 1_000);
    world.ask(&ask("twice").within(20 * HOUR)).await;
    world
        .batch_that(|batch| batch.state == BatchState::Lost)
        .await;
    world.restart(None).await;
    world.finish_allowing(TWINS).await;
    assert_eq!(world.sim.log().batches[0].status, "cancelled");
}

/// One lost create, which shows after the window. Dies after so many steps.
async fn hidden(die_after: Option<u32>) -> World {
    let world = World::seeded(5, die_after, |_, provider| {
        provider.latency.turnaround_median = 3 * HOUR;
    })
    .await;
    world.fault(Operation::CreateBatch, Kind::ReplyLost);
    let by = 10 * MINUTE;
    world.faults(Operation::ListBatches, Kind::Lag { by }, 1_000);
    world
}

/// Killed when half of the giving up is written, and down until the batch shows: both
/// who look for it would find it.
#[tokio::test(start_paused = true)]
async fn a_create_that_is_half_given_up_is_adopted_once() {
    let call = ask("once").within(20 * HOUR);
    let whole = hidden(None).await;
    whole.ask(&call).await;
    whole
        .batch_that(|batch| batch.state == BatchState::Lost)
        .await;
    let diary = whole.diary();
    let given_up = diary.iter().position(|step| step.ends_with(" Lost"));
    let step = u32::try_from(given_up.unwrap() + 1).unwrap();

    let mut world = hidden(Some(step)).await;
    let key = world.ask(&call).await;
    world.die_within(HOUR).await;
    world.pass(15 * MINUTE).await;
    world.restart(None).await;
    succeeded(&world.outcome(key).await);
    world.finish_allowing(TWINS).await;
    let log = world.sim.log();
    let statuses: Vec<_> = log.batches.iter().map(|batch| batch.status).collect();
    assert_eq!(statuses, ["completed"]);
    let ledger = world.ledger().await;
    assert_eq!(ledger.paid_twice, 0, "{ledger:?}");
}

/// A gateway that tries again: both batches show, and one reply.
#[tokio::test(start_paused = true)]
async fn of_one_create_that_makes_two_batches_one_is_cancelled() {
    // With its tag, and where that is forgotten.
    for keeps_metadata in [true, false] {
        let world = World::with(|_, provider| {
            provider.latency.turnaround_median = 3 * HOUR;
            provider.keeps_metadata = keeps_metadata;
        })
        .await;
        world.fault(Operation::CreateBatch, Kind::Twice);
        let key = world.ask(&ask("twice").within(20 * HOUR)).await;
        succeeded(&world.outcome(key).await);
        world.finish_allowing(TWINS).await;
        let log = world.sim.log();
        let statuses: Vec<_> = log.batches.iter().map(|batch| batch.status).collect();
        assert_eq!(statuses, ["cancelled", "completed"]);
        assert_eq!(world.ledger().await.paid_twice, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn of_two_batches_that_both_ran_the_second_is_paid_twice() {
    // They are over before the list is read, and where the tag is forgotten only the
    // file tells whose they were.
    for keeps_metadata in [true, false] {
        let world = World::with(|_, provider| provider.keeps_metadata = keeps_metadata).await;
        world.fault(Operation::CreateBatch, Kind::Twice);
        let keys = world.ask_many(4, |n| ask(format!("q{n}"))).await;
        world.all_done(&keys).await.iter().for_each(succeeded);
        world.pass(HOUR).await;
        world.finish_allowing(TWINS).await;
        let ledger = world.ledger().await;
        assert_eq!(ledger.paid_twice, 4, "{keeps_metadata}: {ledger:?}");
    }
}

/// It was down when the list should have been read.
#[tokio::test(start_paused = true)]
async fn the_second_of_two_batches_is_found_after_hours_of_standstill() {
    let mut world = World::new().await;
    world.fault(Operation::CreateBatch, Kind::Twice);
    let keys = world.ask_many(4, |n| ask(format!("q{n}"))).await;
    world.all_done(&keys).await.iter().for_each(succeeded);
    world.end();
    world.pass(5 * HOUR).await;
    world.restart(None).await;
    world.pass(HOUR).await;
    world.finish_allowing(TWINS).await;
    let ledger = world.ledger().await;
    assert_eq!(ledger.paid_twice, 4, "{ledger:?}");
}

/// As a proxy in front of the provider may do: the tag is gone, the file is not.
#[tokio::test(start_paused = true)]
async fn a_lost_create_without_its_tag_is_adopted_by_its_file() {
    let world = World::with(|_, provider| provider.keeps_metadata = false).await;
    world.fault(Operation::CreateBatch, Kind::ReplyLost);
    let keys = world.ask_many(3, |n| ask(format!("q{n}"))).await;
    world.all_done(&keys).await.iter().for_each(succeeded);
    world.finish().await;
    assert_eq!(world.sim.log().batches.len(), 1);
}

/// Held up on its way, a create arrives when it has been given up. Its file is gone.
#[tokio::test(start_paused = true)]
async fn a_create_that_arrives_too_late_costs_nothing() {
    for (by, batches) in [(MINUTE, 1), (3 * MINUTE, 2), (HOUR, 2)] {
        let world = World::new().await;
        world.fault(Operation::CreateBatch, Kind::Late { by });
        let keys = world.ask_many(3, |n| ask(format!("q{n}"))).await;
        world.all_done(&keys).await.iter().for_each(succeeded);
        world.finish_allowing(TWINS).await;
        let log = world.sim.log();
        assert_eq!(log.batches.len(), batches, "{by:?}");
        assert_eq!(world.sim.bill().calls(offpeak::simulator::Lane::Batch), 3);
        assert_eq!(world.ledger().await.paid_twice, 0);
        world.pass(SECOND).await;
    }
}
