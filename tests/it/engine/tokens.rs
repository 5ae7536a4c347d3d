//! Enqueued tokens: budgets configured and learned, and refusals against them.

use offpeak::{
    model::{
        batch::BatchState,
        request::{OnLate, Source},
    },
    simulator::{Kind, Operation},
};

use super::{
    asking::{Ask, HOUR, MINUTE, SECOND, ask},
    world::{LIVE, World, succeeded},
};

/// Some `tokens` by our count, and some 15 % fewer by the simulator's, which takes
/// four bytes for one.
fn words(number: usize, tokens: usize) -> Ask {
    ask(format!(
        "{number} {}",
        "the cat is on it ".repeat(tokens / 5)
    ))
    .within(20 * HOUR)
}

fn limit(world: &World, status: &str) -> usize {
    let log = world.sim.log();
    log.batches.iter().filter(|b| b.status == status).count()
}

/// The most batches that were on their way at one time, looked at every minute.
async fn most_in_flight(world: &World, time: std::time::Duration) -> usize {
    let mut most = 0;
    let until = world.now() + time;
    while world.now() < until && world.engine().counts().open() > 0 {
        world.pass(MINUTE).await;
        let running = ["validating", "in_progress", "finalizing"];
        most = most.max(running.iter().map(|status| limit(world, status)).sum());
    }
    most
}

#[tokio::test(start_paused = true)]
async fn a_large_cohort_drains_through_a_limit() {
    let world = World::with(|settings, sim| {
        let limits = &mut settings.packing.enqueued_tokens;
        limits.insert("gpt-4o-mini".into(), 90_000);
        sim.limits.enqueued_tokens = 90_000;
    })
    .await;
    let keys = world.ask_many(2_000, |n| words(n, 500)).await;
    let most = most_in_flight(&world, 10 * HOUR).await;
    for outcome in world.all_done(&keys).await {
        succeeded(&outcome);
        assert!(matches!(outcome.source, Source::Batch(_)), "{outcome:?}");
    }
    assert!((3..=4).contains(&most), "{most} batches at a time");
    assert_eq!(limit(&world, "failed"), 0, "batches that were refused");
    world.finish().await;
    let took = keys[0].id.born().until(world.now());
    assert!(took < 4 * HOUR, "{took:?} for what takes 12 turns of 8 min");
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_nobody_configured_is_found() {
    for configured in [None, Some(90_000)] {
        let world = World::with(|settings, sim| {
            let limits = &mut settings.packing.enqueued_tokens;
            limits.extend(configured.map(|limit| ("gpt-4o-mini".into(), limit)));
            sim.limits.enqueued_tokens = 30_000;
        })
        .await;
        let keys = world.ask_many(600, |n| words(n, 500)).await;
        let most = most_in_flight(&world, 15 * HOUR).await;
        for outcome in world.all_done(&keys).await {
            succeeded(&outcome);
            assert!(matches!(outcome.source, Source::Batch(_)), "{outcome:?}");
        }
        assert!(most >= 3, "{configured:?}: {most} batches at a time");
        let (refused, all) = (limit(&world, "failed"), world.sim.log().batches.len());
        let told = format!("{configured:?}: {refused} of {all} batches were refused");
        assert!(refused > 0 && refused * 4 < all && all < 120, "{told}");
        world.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_create_that_is_refused_for_its_tokens_is_packed_anew() {
    for status in [400, 429] {
        let world = World::new().await;
        let refused = Kind::Status {
            status,
            retry_after_seconds: None,
            code: Some("token_limit_exceeded".into()),
        };
        world.faults(Operation::CreateBatch, refused, 2);
        let keys = world.ask_many(8, |n| words(n, 100)).await;
        for outcome in world.all_done(&keys).await {
            succeeded(&outcome);
            assert!(matches!(outcome.source, Source::Batch(_)), "{outcome:?}");
        }
        let lines = world.sim.log().batches.iter().map(|b| b.lines).max();
        assert!(lines.is_some_and(|lines| lines <= 2), "{lines:?}");
        world.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_line_that_no_create_takes_goes_live() {
    let world = World::new().await;
    let refused = Kind::Status {
        status: 400,
        retry_after_seconds: None,
        code: Some("token_limit_exceeded".into()),
    };
    world.faults(Operation::CreateBatch, refused, 5);
    let call = words(0, 500).on_late(OnLate::Wait);
    let outcome = world.outcome(world.ask(&call).await).await;
    succeeded(&outcome);
    assert_eq!(outcome.source, LIVE);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_reserved_is_known_after_a_restart() {
    let mut world = World::with(|settings, sim| {
        let limits = &mut settings.packing.enqueued_tokens;
        limits.insert("gpt-4o-mini".into(), 10_000);
        sim.limits.enqueued_tokens = 10_000;
    })
    .await;
    let keys = world.ask_many(80, |n| words(n, 500)).await;
    for _ in 0..12 {
        world.pass(3 * MINUTE).await;
        world.restart(None).await;
    }
    world.all_done(&keys).await.iter().for_each(succeeded);
    assert_eq!(limit(&world, "failed"), 0, "batches that were refused");
    world.finish().await;
}

/// The provider has done with a batch long before we have read its files.
#[tokio::test(start_paused = true)]
async fn room_is_free_when_a_batch_has_ended_not_when_it_is_harvested() {
    let world = World::with(|settings, sim| {
        let limits = &mut settings.packing.enqueued_tokens;
        limits.insert("gpt-4o-mini".into(), 2_000);
        sim.limits.enqueued_tokens = 2_000;
    })
    .await;
    world.faults(Operation::FileContent, Kind::SlowBody { over: 3 * HOUR }, 4);
    let keys = world.ask_many(8, |n| words(n, 500)).await;
    world.pass(40 * MINUTE).await;
    assert_eq!(world.sim.log().batches.len(), 8);
    world.all_done(&keys).await.iter().for_each(succeeded);
    world.finish().await;
}

/// A line that fits only when nothing else is there is not passed by for ever.
#[tokio::test(start_paused = true)]
async fn room_is_kept_for_a_line_that_needs_all_of_it() {
    let world = World::with(|settings, sim| {
        let limits = &mut settings.packing.enqueued_tokens;
        limits.insert("gpt-4o-mini".into(), 2_000);
        sim.limits.enqueued_tokens = 2_000;
    })
    .await;
    let many = world.ask_many(60, |n| words(n, 400)).await;
    world.pass(MINUTE).await;
    let large = world.ask(&words(0, 1_900).within(10 * HOUR)).await;
    let outcome = world.outcome(large).await;
    assert!(matches!(outcome.source, Source::Batch(_)), "{outcome:?}");
    let took = large.id.born().until(outcome.finished);
    assert!(took < 30 * MINUTE, "{took:?}");
    world.all_done(&many).await.iter().for_each(succeeded);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_counted_without_a_limit() {
    let world = World::new().await;
    world.ask(&ask("uncounted")).await;
    world.pass(10 * SECOND).await;
    let batch = world.batch_that(|b| b.state == BatchState::Submitted).await;
    assert_eq!(batch.tokens, None);
    world.finish().await;
}
