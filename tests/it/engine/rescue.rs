//! Leaving a batch that would be late, and what a late answer costs.

use std::time::Duration;

use offpeak::{
    engine::Settings,
    model::{
        batch::{BatchState, Left},
        id::RequestKey,
        request::{OnLate, Source, State},
    },
    simulator::{Kind, Lane, Operation},
};

use super::{
    asking::{HOUR, MINUTE, SECOND, ask},
    world::{Allow, LIVE, World, refusal, succeeded},
};

#[tokio::test(start_paused = true)]
async fn what_was_never_packed_goes_live() {
    let world = World::new().await;
    world.engine().pause();
    let call = ask("stuck").within(2 * HOUR);
    let deadline = world.now() + 2 * HOUR;
    let key = world.ask(&call).await;
    let outcome = world.outcome(key).await;
    succeeded(&outcome);
    assert_eq!(outcome.source, LIVE);
    let attempts = world.store.attempts(key).await.unwrap();
    assert!(attempts.iter().all(|attempt| attempt.from.is_none()));
    assert!(outcome.finished < deadline && outcome.finished + 40 * MINUTE > deadline);
    world.engine().resume();
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_running_batch_is_cancelled_harvested_and_run_live() {
    let world = World::new().await;
    let slow = |n: usize| match n {
        0..3 => ask(format!("quick {n}")),
        _ => ask(format!("slow {n}")).sim("never"),
    };
    let keys = world.ask_many(6, |n| slow(n).within(3 * HOUR)).await;
    let outcomes = world.all_done(&keys).await;
    outcomes.iter().for_each(succeeded);
    for (number, outcome) in outcomes.iter().enumerate() {
        let live = outcome.source == LIVE;
        assert_eq!(live, number >= 3, "{number}: {outcome:?}");
        assert!(outcome.finished <= keys[number].id.born() + 3 * HOUR);
    }
    // A fresh batch is tried while there is time for one.
    let mut left = world.left().await;
    left.dedup();
    assert_eq!(left, [Left::Fresh, Left::Rescue]);
    // Their calls tell which batch they were taken out of: the last that was tried.
    let batches = world.batches().await;
    let last = batches.iter().map(|batch| batch.id).max();
    for key in &keys[3..] {
        let attempts = world.store.attempts(*key).await.unwrap();
        let from: Vec<_> = attempts.iter().map(|attempt| attempt.from).collect();
        assert_eq!(from, [last]);
    }
    let ledger = world.ledger().await;
    assert_eq!((ledger.rescued, ledger.paid_twice, ledger.late), (3, 0, 0));
    // Three with hours left, and three near their deadline.
    let slack = ledger.slack.counts();
    assert_eq!(slack.iter().sum::<u64>(), 6);
    assert_eq!(slack[6], 3, "{slack:?}");
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_cancel_is_not_waited_for() {
    let world = World::new().await;
    world.fault(Operation::CancelBatch, Kind::SlowCancel { by: 5 * HOUR });
    let key = world.ask(&ask("slow").sim("never").within(3 * HOUR)).await;
    let outcome = world.outcome(key).await;
    succeeded(&outcome);
    assert_eq!(outcome.source, LIVE);
    assert!(outcome.finished <= key.id.born() + 3 * HOUR);
    world.finish().await;
    assert_eq!(world.sim.bill().calls(Lane::Batch), 0);
}

/// The cancel goes unanswered, and the line is run in both lanes.
#[tokio::test(start_paused = true)]
async fn an_answer_after_last_call_is_paid_twice_and_counted_once() {
    let world = World::new().await;
    let refused = refusal(500, None);
    world.faults(Operation::CancelBatch, refused, 1_000_000);
    world.fault(Operation::CreateBatch, Kind::Slow { by: 4 * HOUR });
    // The first harvest is cut short after both lines were read, and repeated.
    world.sim.inject(offpeak::simulator::Fault {
        after: 0,
        ..offpeak::simulator::Fault::once(Operation::FileContent, Kind::Truncated)
    });
    let keys = world
        .ask_many(40, |n| ask(format!("slow {n}")).within(3 * HOUR))
        .await;
    for outcome in world.all_done(&keys).await {
        succeeded(&outcome);
        assert_eq!(outcome.source, LIVE);
    }
    world.finish().await;
    let ledger = world.ledger().await;
    assert_eq!((ledger.paid_twice, ledger.rescued), (40, 40));
    assert_eq!(world.sim.bill().calls(Lane::Batch), 40);
}

/// A batch whose lines went live a few at a time, as there was room, has nothing to
/// run for any more.
#[tokio::test(start_paused = true)]
async fn a_batch_that_was_overtaken_line_by_line_is_cancelled() {
    let world = World::with(|settings, _| {
        settings.live.max_concurrent = 1;
        settings.live.start_concurrent = 1;
        settings.live.expected = MINUTE;
    })
    .await;
    world.faults(
        Operation::CreateBatch,
        Kind::Slow { by: 20 * HOUR },
        1_000_000,
    );
    let keys = world
        .ask_many(150, |n| {
            ask(format!("slow {n}")).sim("slow=10s").within(HOUR)
        })
        .await;
    for outcome in world.all_done(&keys).await {
        succeeded(&outcome);
        assert_eq!(outcome.source, LIVE);
    }
    world.pass(HOUR).await;
    let batches = world.sim.log().batches;
    let running = batches.iter().filter(|batch| batch.status != "cancelled");
    assert_eq!(running.count(), 0, "{batches:#?}");
    assert_eq!(world.sim.bill().calls(Lane::Batch), 0);
    assert!(world.left().await.contains(&Left::Overtaken));
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn who_would_rather_wait_is_late_and_cheap() {
    let world = World::new().await;
    let call = ask("slow")
        .sim("slow=5h")
        .within(HOUR)
        .on_late(OnLate::Wait);
    let outcome = world.outcome(world.ask(&call).await).await;
    succeeded(&outcome);
    assert!(matches!(outcome.source, Source::Batch(_)));
    world.finish().await;
    assert_eq!(world.ledger().await.late, 1);
}

#[tokio::test(start_paused = true)]
async fn who_would_rather_fail_does_so_at_the_deadline() {
    let world = World::new().await;
    let fails = |text: &str, within| ask(text).within(within).on_late(OnLate::Fail);
    let fast = world.ask(&fails("fast", HOUR)).await;
    let slow = world
        .ask(&fails("slow", HOUR + MINUTE).sim("slow=5h"))
        .await;
    let slower = world
        .ask(&fails("slower", HOUR + 70 * SECOND).sim("slow=5h"))
        .await;
    world.pass(20 * SECOND).await;
    world.engine().pause();
    let queued = world.ask(&fails("queued", HOUR)).await;
    let soon = world.ask(&fails("soon", HOUR - 7 * SECOND)).await;
    succeeded(&world.outcome(fast).await);
    for (key, within) in [
        (slow, HOUR + MINUTE),
        (slower, HOUR + 70 * SECOND),
        (queued, HOUR),
        (soon, HOUR - 7 * SECOND),
    ] {
        let outcome = world.outcome(key).await;
        assert_eq!((outcome.state, outcome.status), (State::Failed, 504));
        let late = (key.id.born() + within).until(outcome.finished);
        assert!(late <= SECOND, "{late:?} late");
    }
    world.engine().resume();
    world.finish().await;
    assert!(world.left().await.iter().all(|left| *left == Left::Late));
    assert!(
        world
            .sim
            .log()
            .batches
            .iter()
            .all(|batch| batch.status != "in_progress")
    );
}

#[tokio::test(start_paused = true)]
async fn a_rescue_during_an_ambiguous_create() {
    let world = World::with(|settings, _| settings.submit.visibility_window = 20 * HOUR).await;
    // It was created, its reply lost, and it shows in the list after the deadline.
    world.fault(Operation::CreateBatch, Kind::ReplyLost);
    world.faults(Operation::ListBatches, Kind::Lag { by: 4 * HOUR }, 100_000);
    let key = world
        .ask(&ask("hidden").sim("never").within(3 * HOUR))
        .await;
    let outcome = world.outcome(key).await;
    succeeded(&outcome);
    assert_eq!(outcome.source, LIVE);
    assert!(outcome.finished <= key.id.born() + 3 * HOUR);
    world.finish().await;
    let log = world.sim.log();
    assert_eq!(log.batches.len(), 1);
    assert_eq!(log.batches[0].status, "cancelled");
}

#[tokio::test(start_paused = true)]
async fn the_provider_is_dead_for_an_hour() {
    let world = World::new().await;
    world.ask_many(5, |n| ask(format!("before {n}"))).await;
    world.pass(MINUTE).await;
    world.line.go_down(HOUR);
    world.ask_many(5, |n| ask(format!("during {n}"))).await;
    let soon = world.ask(&ask("soon").within(2 * MINUTE)).await;
    succeeded(&world.outcome(soon).await);
    assert_eq!(world.store.attempts(soon).await.unwrap().len(), 1);
    world
        .finish_allowing(Allow {
            unaccounted: true,
            lost_files: true,
            ..Allow::default()
        })
        .await;
    let state = |batch: &offpeak::model::batch::Batch| batch.state == BatchState::Settled;
    assert!(world.batches().await.iter().all(state));
}

fn cancelled(world: &World) -> usize {
    let log = world.sim.log();
    let cancelled = |status| matches!(status, "cancelling" | "cancelled");
    log.batches.iter().filter(|it| cancelled(it.status)).count()
}

/// One batch that hangs, and would be left for a fresh one within half an hour.
async fn hung(change: impl FnOnce(&mut Settings)) -> (World, Vec<RequestKey>) {
    let world = World::with(|settings, _| change(settings)).await;
    world.fault(Operation::CreateBatch, Kind::Slow { by: 40 * HOUR });
    let keys = world.ask_many(10, |n| ask(format!("hangs {n}")).within(3 * HOUR));
    let keys = keys.await;
    world.submitted().await;
    (world, keys)
}

/// It is left for a fresh batch soon, which answers.
async fn goes_into_a_fresh_one(world: &World, keys: &[RequestKey]) {
    world.pass(5 * MINUTE).await;
    assert!(cancelled(world) > 0, "it stays");
    for outcome in world.all_done(keys).await {
        succeeded(&outcome);
        assert!(matches!(outcome.source, Source::Batch(_)), "{outcome:?}");
    }
    assert!(world.left().await.contains(&Left::Fresh));
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_not_left_for_a_fresh_one_during_a_pause() {
    let (world, keys) = hung(|_| {}).await;
    world.engine().pause();
    world.pass(HOUR).await;
    assert_eq!(cancelled(&world), 0);
    world.engine().resume();
    goes_into_a_fresh_one(&world, &keys).await;
}

#[tokio::test(start_paused = true)]
async fn a_pause_that_does_not_end_costs_a_cancel_and_no_deadline() {
    let (world, keys) = hung(|_| {}).await;
    world.engine().pause();
    for outcome in world.all_done(&keys).await {
        succeeded(&outcome);
        assert_eq!(outcome.source, LIVE);
        assert!(outcome.finished <= keys[0].id.born() + 3 * HOUR);
    }
    assert_eq!(world.ledger().await.paid_twice, 0);
    world.engine().resume();
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_not_left_for_a_fresh_one_while_creates_are_put_off() {
    let (world, keys) = hung(|_| {}).await;
    world.pass(10 * MINUTE).await;
    let put_off = Kind::Status {
        status: 429,
        retry_after_seconds: Some(3600),
        code: None,
    };
    world.fault(Operation::CreateBatch, put_off);
    world
        .ask(&ask("later").within(20 * HOUR).on_late(OnLate::Wait))
        .await;
    world.pass(58 * MINUTE).await;
    assert_eq!(cancelled(&world), 0);
    world.pass(MINUTE).await;
    goes_into_a_fresh_one(&world, &keys).await;
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_not_left_for_a_fresh_one_that_there_is_no_room_for() {
    let limited = |settings: &mut Settings| {
        let limits = &mut settings.packing.enqueued_tokens;
        limits.insert("gpt-4o-mini".into(), 4_000);
    };
    let (world, keys) = hung(limited).await;
    // They take the rest, and have all the time in the world.
    let waits = |n: usize| {
        ask(format!("{n} {}", "the cat is on it ".repeat(36)))
            .sim("slow=1h")
            .within(30 * HOUR)
            .on_late(OnLate::Wait)
    };
    world.ask_many(20, waits).await;
    world.pass(HOUR).await;
    assert_eq!(cancelled(&world), 0);
    world.pass(8 * MINUTE).await;
    goes_into_a_fresh_one(&world, &keys).await;
}

/// A batch's own tokens come free when it ends.
#[tokio::test(start_paused = true)]
async fn a_batch_that_takes_all_the_room_is_left_for_a_fresh_one() {
    let world = World::with(|settings, _| {
        let limits = &mut settings.packing.enqueued_tokens;
        limits.insert("gpt-4o-mini".into(), 1_000);
    })
    .await;
    world.fault(Operation::CreateBatch, Kind::Slow { by: 40 * HOUR });
    let large = ask("the cat is on it ".repeat(190)).within(24 * HOUR);
    let key = world.ask(&large).await;
    let outcome = world.outcome(key).await;
    assert!(matches!(outcome.source, Source::Batch(_)), "{outcome:?}");
    world.finish().await;
    assert_eq!(world.sim.log().batches.len(), 2);
}

/// What an ordinary call takes here, one at a time.
const CALL: Duration = Duration::from_secs(31);

/// Each of these batches would fit by itself.
#[tokio::test(start_paused = true)]
async fn no_more_batches_are_cancelled_than_can_run_live() {
    let world = World::with(|settings, _| {
        settings.packing.max_lines = 10;
        settings.live.max_concurrent = 1;
        settings.live.start_concurrent = 1;
        settings.live.expected = CALL;
    })
    .await;
    let begun = world.now();
    // All that can be promised, and comes back from its batches soon.
    let quick = |n: usize| ask(format!("q{n}")).sim("slow=30s").within(3 * HOUR);
    world.ask_many(290, quick).await;
    let never = |n: usize| ask(format!("n{n}")).sim("never slow=30s").within(3 * HOUR);
    let keys = world.ask_many(60, never).await;
    while world.now() < begun + 3 * HOUR {
        world.pass(10 * SECOND).await;
        let room = world.now().until(begun + 3 * HOUR).as_secs() / CALL.as_secs();
        let batches = world.batches().await;
        let leaving = batches
            .iter()
            .filter(|it| it.state == BatchState::Cancelling);
        let lines: u32 = leaving.map(|batch| batch.lines).sum();
        let live = world.engine().counts().live;
        let told = format!("{lines} lines come back, {live} are live");
        assert!(
            u64::from(lines) + live <= room + 2,
            "{told}: room for {room}"
        );
    }
    world.all_done(&keys).await.iter().for_each(succeeded);
    world.finish().await;
}
