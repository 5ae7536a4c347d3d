//! What comes back from a batch, and where it goes.

use std::{sync::Arc, time::Duration};

use offpeak::{
    model::{
        batch::BatchState,
        request::{OnLate, Source, State},
    },
    simulator::{Kind, Lane, Operation},
};

use super::{
    asking::{HOUR, MINUTE, SECOND, ask},
    life::Virtual,
    world::{Allow, LIVE, World, refusal, succeeded},
};

#[tokio::test(start_paused = true)]
async fn a_call_comes_back_at_half_price() {
    let world = World::new().await;
    let key = world.ask(&ask("hello")).await;
    let (outcome, answer) = world.done(key).await;
    succeeded(&outcome);
    assert!(answer.contains("hello"), "{answer}");
    assert!(matches!(outcome.source, Source::Batch(_)));
    let bill = outcome.bill.unwrap();
    assert_eq!(bill.paid.as_pico() * 2, bill.standard.as_pico());
    let minutes = key.id.born().until(outcome.finished).as_secs() / 60;
    assert!((7..10).contains(&minutes), "{minutes} min");
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn cohorts_models_and_tenants_go_their_own_ways() {
    let world = World::new().await;
    for (number, (key, model, hours)) in [
        ("sk-test", "gpt-4o-mini", 6),
        ("sk-test", "gpt-4o-mini", 6),
        ("sk-test", "gpt-4o-mini", 20),
        ("sk-test", "gpt-4.1", 6),
        ("sk-other", "gpt-4o-mini", 6),
    ]
    .into_iter()
    .enumerate()
    {
        let mut call = ask(format!("q{number}")).key(key).within(hours * HOUR);
        call.model = model.into();
        world.ask(&call).await;
    }
    world.finish().await;
    let log = world.sim.log();
    let mut lines: Vec<usize> = log.batches.iter().map(|batch| batch.lines).collect();
    lines.sort_unstable();
    assert_eq!(lines, [1, 1, 1, 2]);
    assert_eq!(world.sim.bill().calls(Lane::Batch), 5);
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_never_larger_than_allowed() {
    let world = World::with(|settings, _| settings.packing.max_lines = 7).await;
    world.ask_many(30, |n| ask(format!("q{n}"))).await;
    world.finish().await;
    let log = world.sim.log();
    let lines: Vec<usize> = log.batches.iter().map(|batch| batch.lines).collect();
    assert_eq!(lines.iter().sum::<usize>(), 30);
    assert!(lines.iter().all(|lines| *lines <= 7), "{lines:?}");
    assert_eq!(lines.len(), 5);
}

#[tokio::test(start_paused = true)]
async fn calls_gather_for_the_linger() {
    let world = World::new().await;
    world.ask(&ask("one")).await;
    world.pass(4 * SECOND).await;
    world.ask(&ask("two")).await;
    world.pass(2 * SECOND).await;
    world.ask(&ask("three")).await;
    world.finish().await;
    let log = world.sim.log();
    let lines: Vec<usize> = log.batches.iter().map(|batch| batch.lines).collect();
    assert_eq!(lines, [2, 1]);
}

#[tokio::test(start_paused = true)]
async fn creates_wait_for_their_budget() {
    let world = World::with(|settings, _| {
        settings.packing.creates_per_hour = 20;
        settings.packing.creates_reserve = 0.0;
    })
    .await;
    // Two at once, then one every three minutes.
    for number in 0..6 {
        world.ask(&ask(format!("q{number}"))).await;
        world.pass(6 * SECOND).await;
    }
    world.finish().await;
    let log = world.sim.log();
    let lines: Vec<usize> = log.batches.iter().map(|batch| batch.lines).collect();
    assert_eq!(lines, [1, 1, 4]);
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_was_set_back_while_we_were_down_stops_no_creates() {
    let mut world = World::new().await;
    world.ask(&ask("before")).await;
    world.pass(MINUTE).await;
    world.clock = Arc::new(Virtual::new(world.clock.now() - 6 * HOUR, 2));
    world.restart(None).await;
    world.ask(&ask("after")).await;
    world.pass(MINUTE).await;
    assert_eq!(world.sim.log().batches.len(), 2);
    world.finish().await;
}

/// Faults that change how a batch is told, not what is in it.
#[tokio::test(start_paused = true)]
async fn odd_batches_are_read_all_the_same() {
    for kind in [
        Kind::EmptyErrorFileId,
        Kind::WrongCounts,
        Kind::SlowFinalizing { by: HOUR },
        Kind::Vanish { lasting: HOUR },
        Kind::Slow { by: HOUR },
    ] {
        let world = World::new().await;
        world.fault(Operation::CreateBatch, kind.clone());
        let keys = world.ask_many(5, |n| ask(format!("q{n}"))).await;
        for outcome in world.all_done(&keys).await {
            assert!(matches!(outcome.source, Source::Batch(_)), "{kind:?}");
        }
        world.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn lines_in_neither_file_go_again() {
    for kind in [
        Kind::MissingLines { lines: 2 },
        Kind::ZeroStatus { lines: 2 },
    ] {
        let world = World::new().await;
        world.fault(Operation::CreateBatch, kind.clone());
        let keys = world.ask_many(5, |n| ask(format!("q{n}"))).await;
        world.all_done(&keys).await.iter().for_each(succeeded);
        assert_eq!(world.sim.log().resubmitted().len(), 2, "{kind:?}");
        world.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_expired_batch_gives_what_it_has() {
    let world = World::new().await;
    let within = HOUR;
    world.fault(Operation::CreateBatch, Kind::Expire { within });
    let keys = world.ask_many(6, |n| ask(format!("q{n}"))).await;
    world.all_done(&keys).await.iter().for_each(succeeded);
    assert_eq!(world.sim.log().resubmitted().len(), 3);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn every_line_failed() {
    let world = World::new().await;
    let keys = world
        .ask_many(3, |n| ask(format!("q{n}")).sim("status=400"))
        .await;
    for outcome in world.all_done(&keys).await {
        assert_eq!((outcome.state, outcome.status), (State::Failed, 400));
        assert!(matches!(outcome.source, Source::Batch(_)));
        let why = "the provider answered 400 invalid_value; batch, ";
        assert!(outcome.reason.starts_with(why), "{}", outcome.reason);
    }
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn lines_that_may_work_another_time_go_again_and_end() {
    for words in ["status=429", "status=500"] {
        let world = World::new().await;
        let fine = world.ask(&ask("fine")).await;
        let odd = world.ask(&ask("odd").sim(words).within(2 * HOUR)).await;
        succeeded(&world.outcome(fine).await);
        let outcome = world.outcome(odd).await;
        assert_eq!(outcome.state, State::Failed);
        assert_eq!(outcome.source, LIVE, "{outcome:?}");
        world.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_the_discount_gets_the_error_in_the_end() {
    let world = World::with(|settings, _| settings.live.give_up_after = HOUR).await;
    let call = ask("odd")
        .sim("status=500")
        .within(HOUR)
        .on_late(OnLate::Wait);
    let outcome = world.outcome(world.ask(&call).await).await;
    assert_eq!((outcome.state, outcome.status), (State::Failed, 500));
    assert!(matches!(outcome.source, Source::Batch(_)));
    assert_eq!(world.sim.bill().calls(Lane::Standard), 0);
    world.finish().await;
}

/// Nobody would ever ask for its lines again: who waits would wait for ever.
#[tokio::test(start_paused = true)]
async fn a_batch_that_never_ends_is_cancelled_and_in_the_end_given_up() {
    for (obeys, hours) in [(true, 26), (false, 52)] {
        let world = World::new().await;
        let by = 1000 * HOUR;
        world.fault(Operation::CreateBatch, Kind::Expire { within: by });
        if !obeys {
            world.fault(Operation::CancelBatch, Kind::SlowCancel { by });
        }
        let waits = |n| ask(format!("q{n}")).within(HOUR).on_late(OnLate::Wait);
        let keys = world.ask_many(2, waits).await;
        let mut took = Vec::new();
        for (key, outcome) in keys.iter().zip(world.all_done(&keys).await) {
            succeeded(&outcome);
            assert!(matches!(outcome.source, Source::Batch(_)), "{outcome:?}");
            took.push(key.id.born().until(outcome.finished));
        }
        let longest = took.into_iter().max().unwrap();
        assert!(
            longest > hours * HOUR && longest < (hours + 4) * HOUR,
            "{longest:?}"
        );
        world
            .finish_allowing(Allow {
                lost_files: !obeys,
                unaccounted: !obeys,
                endless: !obeys,
                twins: false,
            })
            .await;
    }
}

#[tokio::test(start_paused = true)]
async fn too_many_enqueued_tokens_are_waited_for() {
    let world = World::new().await;
    let code = "token_limit_exceeded".into();
    world.faults(Operation::CreateBatch, Kind::Fail { code }, 3);
    let keys = world.ask_many(3, |n| ask(format!("q{n}"))).await;
    for outcome in world.all_done(&keys).await {
        succeeded(&outcome);
        assert!(matches!(outcome.source, Source::Batch(_)), "{outcome:?}");
    }
    // Each refusal halves the next batch: three that were refused, and the lines
    // one by one.
    assert_eq!(world.sim.log().batches.len(), 6);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn result_files_are_asked_for_until_they_come() {
    let world = World::new().await;
    let status = refusal(502, None);
    world.faults(Operation::FileContent, status, 3);
    world.fault(Operation::FileContent, Kind::Truncated);
    world.fault(Operation::FileContent, Kind::Reset);
    let keys = world.ask_many(200, |n| ask(format!("q{n}"))).await;
    world.all_done(&keys).await.iter().for_each(succeeded);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_is_gone_for_good_is_given_up() {
    let world = World::new().await;
    let lasting = 1000 * HOUR;
    world.fault(Operation::CreateBatch, Kind::Vanish { lasting });
    let rescued = world.ask(&ask("rescued")).await;
    world
        .batch_that(|batch| batch.state == BatchState::Submitted)
        .await;
    let waits = ask("waits").on_late(OnLate::Wait).within(HOUR);
    world.fault(Operation::CreateBatch, Kind::Vanish { lasting });
    let waits = world.ask(&waits).await;
    assert_eq!(world.outcome(rescued).await.source, LIVE);
    let outcome = world.outcome(waits).await;
    succeeded(&outcome);
    assert!(outcome.finished.since(waits.id.born()) > 24 * HOUR);
    world.pass(48 * HOUR).await;
    assert_eq!(world.engine().counts().batches, 0);
    world.check_counts().await;
}

#[tokio::test(start_paused = true)]
async fn polls_keep_to_their_budget() {
    let world = World::with(|settings, _| {
        settings.packing.max_lines = 1;
        settings.watch.polls_per_second = 0.5;
    })
    .await;
    world
        .ask_many(50, |n| ask(format!("q{n}")).within(8 * HOUR))
        .await;
    world.pass(10 * MINUTE).await;
    let polls = world.sim.log().operations[&Operation::GetBatch];
    assert!(polls <= 302, "{polls} polls in 600 s");
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn pause_resume_and_flush() {
    let world = World::with(|settings, _| settings.packing.linger = HOUR).await;
    world.engine().pause();
    let key = world.ask(&ask("patient").within(20 * HOUR)).await;
    world.pass(3 * HOUR).await;
    assert_eq!(world.batches().await, []);
    world.engine().resume();
    succeeded(&world.outcome(key).await);
    world.ask(&ask("at once").within(20 * HOUR)).await;
    world.engine().flush();
    world.pass(Duration::from_millis(500)).await;
    assert_eq!(world.sim.log().batches.len(), 2);
    world.finish().await;
}
