//! Live capacity that is short, and shared.

use std::time::Duration;

use offpeak::{
    engine::Settings,
    model::{
        batch::{Batch, BatchState},
        endpoint::Endpoint,
    },
    simulator::{Kind, Lane, Operation},
};
use serde_json::json;

use super::{
    asking::{Ask, HOUR, MINUTE, SECOND, ask},
    deadlines::{CALL, admit_many, few_at_a_time, is_firm, keys},
    world::{LIVE, World, refusal, succeeded},
};

fn one_at_a_time(settings: &mut Settings) {
    settings.live.max_concurrent = 1;
    settings.live.start_concurrent = 1;
    settings.live.expected = CALL;
}

fn never(number: usize) -> Ask {
    ask(format!("q{number}"))
        .sim("never slow=30s")
        .within(50 * MINUTE)
}

/// A call that is batched nowhere, and shares its scope with those that are.
fn unbatched(number: usize) -> Ask {
    let call = ask(format!("r{number}")).within(HOUR);
    let body = json!({"model": call.model, "input": call.text,
        "metadata": {"sim": "slow=30s"}});
    Ask {
        endpoint: Endpoint::Responses,
        body: Some(body.to_string()),
        ..call
    }
}

/// When the last batch is left, while so many other calls wait for a provider that
/// wants none for ten minutes. They are due later.
async fn left_beside(others: usize) -> Duration {
    let world = World::with(|settings, _| {
        settings.ladder.batch.endpoints = vec!["/v1/chat/completions".into()];
        one_at_a_time(settings);
    })
    .await;
    let pause = refusal(429, Some(600));
    world.fault(Operation::Responses, pause);
    let calls = admit_many(&world, 25, never).await;
    let others = admit_many(&world, others, unbatched).await;
    for (request, outcome) in others.iter().chain(&calls).zip(
        world
            .all_done(&[keys(&others), keys(&calls)].concat())
            .await,
    ) {
        succeeded(&outcome);
        assert!(is_firm(request), "{request:?}");
        assert!(outcome.finished <= request.deadline, "{outcome:?}");
    }
    world.finish().await;
    let batches = world.batches().await;
    let left = batches.iter().filter_map(|batch| batch.cancel_sent).max();
    calls[0].admitted.until(left.expect("they hang"))
}

#[tokio::test(start_paused = true)]
async fn a_batch_makes_room_for_what_waits_to_run_live_and_is_due_later() {
    let (alone, beside) = (left_beside(0).await, left_beside(50).await);
    assert!(beside + 20 * MINUTE < alone, "{beside:?}, {alone:?} alone");
}

/// At the latest start of all of them, and not of each by itself.
#[tokio::test(start_paused = true)]
async fn a_cancel_that_hangs_is_not_waited_for_by_any_of_them() {
    let world = few_at_a_time(1).await;
    world.faults(
        Operation::CancelBatch,
        Kind::SlowCancel { by: 5 * HOUR },
        1_000,
    );
    let requests = admit_many(&world, 50, never).await;
    for (request, outcome) in requests.iter().zip(world.all_done(&keys(&requests)).await) {
        succeeded(&outcome);
        assert!(is_firm(request) && outcome.source == LIVE, "{outcome:?}");
        assert!(outcome.finished <= request.deadline, "{outcome:?}");
    }
    world.finish().await;
}

/// There is time for a cancel, though not for all of it to run live: nothing is paid
/// twice.
#[tokio::test(start_paused = true)]
async fn where_capacity_falls_a_batch_is_cancelled_all_the_same() {
    let world = World::with(|settings, sim| {
        settings.live.max_concurrent = 4;
        settings.live.start_concurrent = 4;
        // It is waited for until then.
        settings.ladder.batch.median = 84 * MINUTE;
        settings.ladder.batch.p90 = 95 * MINUTE;
        settings.rescue.prior_weight = 1e6;
        sim.latency.cancel_in_flight = HOUR;
        sim.latency.cancel = 5 * MINUTE;
    })
    .await;
    world.fault(Operation::CreateBatch, Kind::Slow { by: 80 * MINUTE });
    let call = |n: usize| ask(format!("q{n}")).within(2 * HOUR);
    let requests = admit_many(&world, 100, call).await;
    let ends = world.now() + 87 * MINUTE;
    world.pass(85 * MINUTE).await;
    let falls = world.now();
    let overload = refusal(503, None);
    world.faults(Operation::Chat, overload, 6);
    let soon = world.ask(&ask("soon").within(2 * MINUTE)).await;
    succeeded(&world.outcome(soon).await);
    assert!(world.now() < ends, "the lines have not ended");
    for outcome in world.all_done(&keys(&requests)).await {
        succeeded(&outcome);
    }
    world.finish().await;
    let batches = world.batches().await;
    let asked = batches[0].cancel_sent.expect("it is cancelled");
    assert!(falls < asked && asked < ends, "{batches:?}");
    let bill = world.sim.bill();
    assert_eq!(
        (bill.calls(Lane::Batch), bill.calls(Lane::Standard)),
        (100, 1)
    );
}

/// Lines that come back and cannot all be in time wait for a batch, or for room.
#[tokio::test(start_paused = true)]
async fn what_comes_back_without_a_promise_does_not_go_live_all_at_once() {
    let world = World::with(|settings, _| {
        one_at_a_time(settings);
        // Nobody leaves before it expires.
        settings.ladder.batch.median = 40 * MINUTE;
        settings.ladder.batch.p90 = 43 * MINUTE;
    })
    .await;
    let within = 43 * MINUTE;
    world.faults(Operation::CreateBatch, Kind::Expire { within }, 2);
    let requests = admit_many(&world, 150, never).await;
    let rest = requests.iter().filter(|it| !is_firm(it)).count() as u64;
    assert!(rest >= 70, "{rest} without a promise");
    let expired = |batch: &Batch| batch.state == BatchState::Settled && batch.cancel_sent.is_none();
    let expired = world.batch_that(expired).await;
    assert_eq!(u64::from(expired.lines), rest);
    world.pass(SECOND).await;
    let counts = world.engine().counts();
    assert_eq!((counts.queued, counts.live + counts.in_batches), (0, rest));
    // An ordinary call takes two minutes at worst, and half a minute in the mean.
    let left = expired.settled.unwrap().until(expired.earliest_deadline);
    let room = left.saturating_sub(2 * MINUTE).as_secs() / CALL.as_secs();
    assert!(
        counts.live.abs_diff(room) <= 2,
        "{counts:?}, {room} have room"
    );
    world.finish().await;
}
