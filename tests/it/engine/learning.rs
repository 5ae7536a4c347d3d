//! What is learned of how long things take, and what nobody saw and is not.

use offpeak::{
    engine::Believed,
    model::{
        batch::{Batch, BatchState},
        request::OnLate,
    },
    policy::turnaround::Curve,
    simulator::{Kind, Operation},
};

use super::{
    asking::{Ask, HOUR, MINUTE, ask},
    world::{Allow, World, succeeded},
};

/// How much of it was seen, and what is believed.
fn learned(world: &World, what: &str) -> (f64, Curve) {
    let all = world.engine().turnaround(None);
    match all.into_iter().find(|it| it.what == what) {
        Some(it) => match it.believed {
            Believed::Time { learned, .. } => (it.seen, learned),
            Believed::Share { .. } | Believed::Rate { .. } => panic!("{what} takes no time"),
        },
        None => panic!("nothing was learned of {what}"),
    }
}

/// Whether both say the same, but for what has faded between them.
fn assert_same(what: &str, before: &(f64, Curve), after: &(f64, Curve)) {
    let off = (after.0 - before.0).abs() / before.0;
    assert!(
        off < 0.02,
        "{what}: {} seen, and then {}",
        before.0,
        after.0
    );
    for age in [MINUTE, 10 * MINUTE, HOUR, 3 * HOUR, 12 * HOUR] {
        let runs = |curve: &Curve| curve.survival(age.as_secs_f64());
        let (before, after) = (runs(&before.1), runs(&after.1));
        let told = format!("{what}: {before} run longer than {age:?}, and then {after}");
        assert!((after - before).abs() < 0.02, "{told}");
    }
}

/// Stays in its batch, however slow that is.
fn patient(text: String) -> Ask {
    ask(text).within(20 * HOUR).on_late(OnLate::Wait)
}

#[tokio::test(start_paused = true)]
async fn what_ended_long_before_a_restart_is_not_learned_again() {
    let mut world = World::with(|settings, _| settings.packing.max_lines = 2).await;
    let half = |n: usize| match n % 2 {
        1 if n > 10 => patient(format!("slow {n}")).sim("slow=5h"),
        _ => patient(format!("quick {n}")),
    };
    world.ask_many(40, half).await;
    world.pass(3 * HOUR).await;
    let (lines, whole) = (learned(&world, "batch"), learned(&world, "whole-batch"));
    world.restart(None).await;
    world.pass(2 * MINUTE).await;
    assert_same("batch", &lines, &learned(&world, "batch"));
    assert_same("whole-batch", &whole, &learned(&world, "whole-batch"));
    // What ends before our eyes is learned as ever.
    world.pass(3 * HOUR).await;
    let (seen, _) = learned(&world, "batch");
    assert!(seen > lines.0 + 5.0, "{seen} after {}", lines.0);
    world.finish().await;
}

/// Batches that are at the provider when we start, and end before we get there.
async fn ended_unseen(world: &mut World) {
    world.line.go_down(3 * HOUR);
    world.restart(None).await;
    world.pass(3 * HOUR + 10 * MINUTE).await;
}

#[tokio::test(start_paused = true)]
async fn what_ended_while_nobody_looked_tells_no_time() {
    let mut world = World::with(|settings, _| settings.packing.max_lines = 1).await;
    let quick = world.ask_many(10, |n| patient(format!("quick {n}")));
    quick.await;
    world.pass(20 * MINUTE).await;
    let slow = |n: usize| patient(format!("slow {n}")).sim("slow=1h");
    let slow = world.ask_many(20, slow).await;
    world.pass(HOUR).await;
    let (lines, whole) = (learned(&world, "batch"), learned(&world, "whole-batch"));
    ended_unseen(&mut world).await;
    for outcome in world.all_done(&slow).await {
        succeeded(&outcome);
    }
    for (what, (before, _)) in [("batch", lines), ("whole-batch", whole)] {
        let (seen, _) = learned(&world, what);
        assert!(seen <= before, "{what}: {seen} seen after {before}");
    }
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_cancel_that_ended_while_nobody_looked_tells_no_time() {
    let mut world = World::new().await;
    let slow = Kind::SlowCancel { by: 30 * MINUTE };
    world.faults(Operation::CancelBatch, slow, 1000);
    let half = |n: usize| match n % 2 {
        0 => ask(format!("quick {n}")).within(3 * HOUR),
        _ => ask(format!("never {n}")).sim("never").within(3 * HOUR),
    };
    world.ask_many(20, half).await;
    let cancelling = |batch: &Batch| batch.state == BatchState::Cancelling;
    world.batch_that(cancelling).await;
    world.pass(2 * MINUTE).await;
    let (before, _) = learned(&world, "batch");
    ended_unseen(&mut world).await;
    world.finish().await;
    let known = world.engine().turnaround(None);
    assert!(!known.iter().any(|it| it.what == "cancel"), "nobody saw it");
    // Half of it has been learned already; of the other half, that it took longer.
    let (seen, _) = learned(&world, "batch");
    assert!(seen <= 2.0 * before, "{seen} seen after {before}");
}

#[tokio::test(start_paused = true)]
async fn ordinary_calls_whose_answers_are_lost_took_as_long_at_least() {
    let soon = |text: String| ask(text).within(HOUR);
    for kind in [Kind::HangAfter, Kind::StatusAfter { status: 504 }] {
        let world = World::live_only(|settings, _| settings.live.timeout = 5 * MINUTE).await;
        // A gateway waits for as long.
        if kind != Kind::HangAfter {
            world.faults(Operation::Chat, Kind::Delay { by: 5 * MINUTE }, 8);
        }
        world.faults(Operation::Chat, kind, 8);
        let keys = world.ask_many(8, |n| soon(format!("q{n}"))).await;
        world.all_done(&keys).await.iter().for_each(succeeded);
        let (seen, curve) = learned(&world, "standard");
        assert!(seen > 15.0, "{seen} calls");
        let slow = curve.survival(4.0 * 60.0);
        assert!(slow > 0.3, "{slow} take longer than 4 minutes");
        let unaccounted = true;
        let allow = Allow {
            unaccounted,
            ..Allow::default()
        };
        world.finish_allowing(allow).await;
    }
}

#[tokio::test(start_paused = true)]
async fn cancels_that_hang_are_heard_before_they_end() {
    let world = World::with(|settings, _| {
        settings.packing.max_lines = 1;
        settings.watch.poll_interval = MINUTE;
    })
    .await;
    let never = |n: usize| ask(format!("never {n}")).sim("never").within(3 * HOUR);
    world.ask(&never(0)).await;
    world.pass(2 * HOUR).await;
    let (seen, quick) = learned(&world, "cancel");
    assert!(quick.survival(1800.0) < 0.01, "after {seen} cancels");
    let slow = Kind::SlowCancel { by: 90 * MINUTE };
    world.faults(Operation::CancelBatch, slow, 1000);
    world.ask_many(8, never).await;
    world.pass(75 * MINUTE).await;
    let (still, slow) = learned(&world, "cancel");
    assert!(still <= seen, "none of them has ended");
    let runs = slow.survival(1800.0);
    assert!(runs > 0.5, "{runs} run longer than half an hour");
    world.finish().await;
}
