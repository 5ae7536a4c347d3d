//! Batches that fail because of some of their lines: those get the provider's error,
//! the others their answers.

use offpeak::{
    model::{
        money::Usd,
        request::{OnLate, Outcome, Source, State},
    },
    simulator::{Kind, Lane, Operation},
};

use super::{
    asking::{Ask, HOUR, MINUTE, ask},
    world::{LIVE, World, refusal, succeeded},
};

/// The provider tells that lines were bad, and not which.
async fn nameless() -> World {
    World::with(|_, provider| provider.names_lines = false).await
}

fn bad(text: impl Into<String>) -> Ask {
    ask(text).sim("invalid")
}

/// So many calls of which every `one_in`th is bad.
async fn some_bad(world: &World, calls: usize, one_in: usize) -> (Vec<Outcome>, Vec<Outcome>) {
    let is_bad = |n: usize| n % one_in == one_in / 2;
    let ask = |n| match is_bad(n) {
        true => bad(format!("q{n}")),
        false => ask(format!("q{n}")),
    };
    let keys = world.ask_many(calls, ask).await;
    let outcomes = world.all_done(&keys).await.into_iter().enumerate();
    let (bad, good): (Vec<_>, Vec<_>) = outcomes.partition(|(n, _)| is_bad(*n));
    let outcomes = |some: Vec<(usize, Outcome)>| some.into_iter().map(|(_, one)| one).collect();
    (outcomes(good), outcomes(bad))
}

fn refused(outcome: &Outcome) {
    assert_eq!((outcome.state, outcome.status), (State::Failed, 400));
}

#[tokio::test(start_paused = true)]
async fn a_bad_line_loses_only_itself() {
    for (world, is_named) in [(World::new().await, true), (nameless().await, false)] {
        let (good, bad) = some_bad(&world, 5, 5).await;
        good.iter().for_each(succeeded);
        bad.iter().for_each(refused);
        for outcome in &bad {
            let by_batch = matches!(outcome.source, Source::Batch(_));
            assert_eq!(by_batch, is_named, "{outcome:?}");
        }
        assert_eq!(world.sim.bill().calls(Lane::Batch), 4);
        assert_eq!(world.sim.bill().calls(Lane::Standard), 0);
        world.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_bad_line_hears_the_provider_s_own_error() {
    for world in [World::new().await, nameless().await] {
        world.ask(&ask("good")).await;
        let (_, answer) = world.done(world.ask(&bad("bad")).await).await;
        assert!(answer.contains("invalid_value"), "{answer}");
        world.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn halves_find_bad_lines_that_are_not_named() {
    let world = nameless().await;
    let (good, bad) = some_bad(&world, 400, 200).await;
    assert_eq!(bad.len(), 2);
    good.iter().for_each(succeeded);
    bad.iter().for_each(refused);
    for outcome in &good {
        assert!(matches!(outcome.source, Source::Batch(_)), "{outcome:?}");
    }
    // Of two bad lines in 400: two ways of nine halvings each, the first in common.
    let batches = world.sim.log().batches.len();
    assert!((20..=36).contains(&batches), "{batches}");
    world.finish().await;
}

/// Where most lines are bad, halving costs more than it saves.
#[tokio::test(start_paused = true)]
async fn halving_is_bounded() {
    let world = nameless().await;
    let (good, bad) = some_bad(&world, 200, 2).await;
    good.iter().for_each(succeeded);
    assert!(bad.iter().all(|outcome| outcome.status == 400));
    let batches = world.sim.log().batches.len();
    assert!(batches <= 65, "{batches}");
    let live = |outcome: &&Outcome| outcome.source == LIVE;
    assert!(good.iter().filter(live).count() > 0);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn halving_is_bounded_over_restarts() {
    let mut world = nameless().await;
    let ask = |n| match n % 2 {
        0 => bad(format!("q{n}")).on_late(OnLate::Wait),
        _ => ask(format!("q{n}")).on_late(OnLate::Wait),
    };
    let keys = world.ask_many(64, ask).await;
    for _ in 0..30 {
        world.pass(MINUTE).await;
        world.restart(None).await;
    }
    for outcome in world.all_done(&keys).await {
        assert!(matches!(outcome.status, 200 | 400), "{outcome:?}");
    }
    let batches = world.sim.log().batches.len();
    assert!(batches <= 65, "{batches}");
    world.finish().await;
}

/// With little time left each line goes by itself, and is in time.
#[tokio::test(start_paused = true)]
async fn the_others_do_not_miss_their_deadline_over_it() {
    let world = World::with(|_, provider| {
        provider.names_lines = false;
        provider.latency.validation = 8 * MINUTE;
    })
    .await;
    let within = HOUR;
    let mut keys = world
        .ask_many(60, |n| ask(format!("q{n}")).within(within))
        .await;
    keys.push(world.ask(&bad("bad").within(within)).await);
    for (key, outcome) in keys.iter().zip(world.all_done(&keys).await) {
        assert!(matches!(outcome.status, 200 | 400), "{outcome:?}");
        assert!(key.id.born().until(outcome.finished) <= within, "late");
    }
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_fails_for_no_line_is_halved_and_answered() {
    let world = World::new().await;
    let code = "invalid_request".into();
    world.fault(Operation::CreateBatch, Kind::Fail { code });
    let keys = world.ask_many(3, |n| ask(format!("q{n}"))).await;
    for outcome in world.all_done(&keys).await {
        succeeded(&outcome);
        assert!(matches!(outcome.source, Source::Batch(_)), "{outcome:?}");
    }
    assert_eq!(world.sim.log().batches.len(), 3);
    world.finish().await;
}

/// Most batches of quiet traffic have one line.
#[tokio::test(start_paused = true)]
async fn one_line_whose_batch_fails_for_a_passing_reason_gets_its_answer() {
    let internal_error = || Kind::Fail {
        code: "internal_error".into(),
    };
    for on_late in [OnLate::Rescue, OnLate::Wait, OnLate::Fail] {
        for (failures, batches) in [(1, 2), (2, 2)] {
            let world = World::new().await;
            world.faults(Operation::CreateBatch, internal_error(), failures);
            let key = world.ask(&ask("alone").on_late(on_late)).await;
            let outcome = world.outcome(key).await;
            succeeded(&outcome);
            let live = outcome.source == LIVE;
            assert_eq!(live, failures == batches, "{on_late:?}: {outcome:?}");
            assert_eq!(world.sim.log().batches.len() as u32, batches);
            world.finish().await;
        }
    }
}

/// A call that is not paid for would spoil one batch after the other.
#[tokio::test(start_paused = true)]
async fn a_nameless_bad_line_without_a_rescue_budget_ends_all_the_same() {
    let world = World::with(|settings, provider| {
        provider.names_lines = false;
        settings.rescue.budget_usd_per_day = Some(Usd::ZERO);
    })
    .await;
    let (good, bad) = some_bad(&world, 5, 5).await;
    good.iter().for_each(succeeded);
    bad.iter().for_each(refused);
    assert!(matches!(bad[0].source, Source::Batch(_)), "{bad:?}");
    world.finish().await;
}

/// What is said of all lines alike is not to be found in a half.
#[tokio::test(start_paused = true)]
async fn what_no_halving_cures_goes_live_at_once() {
    for code in ["model_not_found", "insufficient_quota"] {
        let world = World::new().await;
        let code = code.to_owned();
        world.fault(Operation::CreateBatch, Kind::Fail { code });
        let keys = world.ask_many(3, |n| ask(format!("q{n}"))).await;
        for outcome in world.all_done(&keys).await {
            succeeded(&outcome);
            assert_eq!(outcome.source, LIVE);
        }
        assert_eq!(world.sim.log().batches.len(), 1);
        world.finish().await;
    }
}

/// The provider takes files only without some line; halves tell which.
#[tokio::test(start_paused = true)]
async fn a_file_that_is_refused_is_halved() {
    for status in [400, 413, 422] {
        let world = World::new().await;
        world.fault(Operation::UploadFile, refusal(status, None));
        let keys = world.ask_many(4, |n| ask(format!("q{n}"))).await;
        for outcome in world.all_done(&keys).await {
            succeeded(&outcome);
            assert!(matches!(outcome.source, Source::Batch(_)), "{outcome:?}");
        }
        assert_eq!(world.sim.log().batches.len(), 2);
        world.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_input_file_that_vanished_says_nothing_of_its_lines() {
    let world = World::new().await;
    // The create is held up until the file has gone.
    world.fault(Operation::CreateBatch, Kind::Delay { by: 2 * MINUTE });
    let keys = world.ask_many(3, |n| ask(format!("q{n}"))).await;
    world.pass(MINUTE).await;
    world.remove_files("sk-test").await;
    for outcome in world.all_done(&keys).await {
        succeeded(&outcome);
        assert!(matches!(outcome.source, Source::Batch(_)), "{outcome:?}");
    }
    assert_eq!(world.sim.log().batches.len(), 2);
    world.finish().await;
}
