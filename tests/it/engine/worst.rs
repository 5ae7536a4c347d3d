//! What a store and a provider can do at their worst.

use std::sync::atomic::Ordering;

use offpeak::{
    engine::AdmitError,
    model::request::{OnLate, Source, State},
    ports::Content,
    simulator::{Kind, Lane, Operation},
};

use super::{
    asking::{HOUR, MINUTE, SECOND, ask},
    crash::How,
    world::{LIVE, World, refusal, succeeded},
};

#[tokio::test(start_paused = true)]
async fn an_answer_that_the_store_cannot_take_is_not_bought_again() {
    let world = World::new().await;
    world.trouble.on("settle", How::Refuse, 20);
    let key = world.ask(&ask("dear").within(5 * MINUTE)).await;
    succeeded(&world.outcome(key).await);
    assert_eq!(world.sim.bill().calls(Lane::Standard), 1);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_was_written_although_it_failed_is_paid_once() {
    let world = World::new().await;
    world.trouble.on("settle", How::FailAfter, 1);
    let key = world.ask(&ask("in doubt").within(5 * MINUTE)).await;
    succeeded(&world.outcome(key).await);
    world.pass(MINUTE).await;
    let ledger = world.ledger().await;
    assert_eq!((ledger.requests, ledger.paid_twice), (1, 0));
    assert_eq!(world.sim.bill().calls(Lane::Standard), 1);
}

#[tokio::test(start_paused = true)]
async fn what_a_gateway_gave_up_on_is_bounded_and_told_as_unaccounted() {
    for (times, state) in [(2, State::Succeeded), (15, State::Failed)] {
        let world = World::new().await;
        world.faults(Operation::Chat, Kind::StatusAfter { status: 504 }, times);
        let key = world.ask(&ask("slow gateway").within(5 * MINUTE)).await;
        let outcome = world.outcome(key).await;
        assert_eq!(outcome.state, state);
        let calls = world.sim.bill().calls(Lane::Standard);
        assert_eq!(calls, if times == 2 { 3 } else { 5 });
        assert_eq!(world.ledger().await.unaccounted, u64::from(times.min(5)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_never_fits_the_enqueued_tokens_is_made_smaller() {
    let world = World::with(|_, sim| sim.limits.enqueued_tokens = 300).await;
    let words = "word ".repeat(50);
    let keys = world
        .ask_many(20, |n| {
            ask(format!("{n} {words}"))
                .on_late(OnLate::Wait)
                .within(HOUR)
        })
        .await;
    world.pass(12 * HOUR).await;
    let creates = world.sim.log().operations[&Operation::CreateBatch];
    assert!(creates < 60, "{creates} creates");
    for key in keys {
        let outcome = world.store.head(key).await.unwrap().unwrap().outcome;
        let outcome = outcome.expect("answered in 12 h");
        assert!(matches!(outcome.source, Source::Batch(_)), "{outcome:?}");
    }
    // What alone is too much never fits.
    let long = ask("word ".repeat(500)).on_late(OnLate::Wait).within(HOUR);
    let outcome = world.outcome(world.ask(&long).await).await;
    assert_eq!(outcome.source, LIVE);
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_panics_is_taken_again() {
    let world = World::new().await;
    world.trouble.on("queued", How::Panic, 1);
    let key = world.ask(&ask("unlucky").within(3 * HOUR)).await;
    let outcome = world.outcome(key).await;
    assert!(matches!(outcome.source, Source::Batch(_)), "{outcome:?}");
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn one_damaged_cohort_does_not_stop_the_others() {
    let world = World::new().await;
    let damaged = world.admit(&ask("damaged")).await;
    *world.trouble.damaged.lock() = Some(damaged.request.cohort);
    let packed = ask("packed").on_late(OnLate::Wait).within(20 * HOUR);
    let packed = world.ask(&packed).await;
    world.pass(7 * HOUR).await;
    let rescued = world
        .ask(&ask("rescued").within(2 * HOUR).sim("never"))
        .await;
    for key in [packed, rescued] {
        let outcome = world.outcome(key).await;
        succeeded(&outcome);
        assert_eq!(outcome.source == LIVE, key == rescued);
    }
    let deadline = rescued.id.born() + 2 * HOUR;
    assert!(world.outcome(rescued).await.finished < deadline);
}

#[tokio::test(start_paused = true)]
async fn a_lost_create_is_not_looked_for_for_ever() {
    for code in [401, 404, 405] {
        let world = World::new().await;
        world.fault(Operation::CreateBatch, Kind::Reset);
        world.faults(Operation::ListBatches, refusal(code, None), 1_000_000);
        let rescued = world.ask(&ask("rescued").within(3 * HOUR)).await;
        succeeded(&world.outcome(rescued).await);
        world.fault(Operation::CreateBatch, Kind::Reset);
        let waits = ask("waits").on_late(OnLate::Wait).within(HOUR);
        let waits = world.ask(&waits).await;
        world.pass(72 * HOUR).await;
        let stored = world.store.load(waits).await.unwrap().unwrap();
        let done = matches!(stored.content, Content::Done { .. });
        let counts = world.engine().counts();
        assert!(done && counts.batches == 0, "{code}: {done}, {counts:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_admission_that_was_written_although_it_failed_is_bought_once() {
    let world = World::new().await;
    world.trouble.on("admit", How::FailAfter, 1);
    let call = ask("in doubt").held().within(5 * MINUTE);
    let engine = world.engine();
    let refused = engine.admit(call.call(engine)).await;
    assert!(matches!(refused, Err(AdmitError::Store(_))));
    // As an SDK does after a 5xx.
    let mut resent = call.clone();
    resent.retry = 1;
    let again = world.admit(&resent).await;
    succeeded(&world.outcome(again.request.key).await);
    world.pass(HOUR).await;
    assert_eq!(world.sim.bill().calls(Lane::Standard), 1);
}

/// The same, where it waits to be packed: nobody knows of it until a restart.
#[tokio::test(start_paused = true)]
async fn an_admission_that_was_written_although_it_failed_ends() {
    let world = World::new().await;
    world.trouble.on("admit", How::FailAfter, 1);
    let call = ask("in doubt").within(3 * HOUR);
    let engine = world.engine();
    let refused = engine.admit(call.call(engine)).await;
    assert!(matches!(refused, Err(AdmitError::Store(_))));
    world.pass(24 * HOUR).await;
    assert_eq!(world.store.scan_queue(None, 9).await.unwrap(), []);
}

/// Nor can the store say for a while what became of it.
#[tokio::test(start_paused = true)]
async fn an_admission_in_doubt_is_counted_right_once_that_is_known() {
    for (how, within) in [
        (How::FailAfter, 6 * HOUR),
        (How::FailAfter, 5 * MINUTE),
        (How::Refuse, 6 * HOUR),
        (How::Refuse, 5 * MINUTE),
    ] {
        let world = World::new().await;
        world.engine().pause();
        world.trouble.on("admit", how, 1);
        world.trouble.on("head", How::Refuse, 4);
        let call = ask("in doubt").within(within);
        let engine = world.engine();
        let refused = engine.admit(call.call(engine)).await;
        assert!(matches!(refused, Err(AdmitError::Store(_))));
        world.pass(MINUTE).await;
        world.check_counts().await;
        world.engine().resume();
        world.note_all("sk-test").await;
        world.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn dropping_many_credentials_holds_up_no_admission() {
    let world = World::new().await;
    for number in 0..40 {
        let call = ask(format!("q{number}")).key(&format!("sk-{number}"));
        world.ask(&call.within(5 * MINUTE)).await;
    }
    world.trouble.on("drop_credential", How::Slow(SECOND), 1000);
    world.pass(MINUTE + 5 * SECOND).await;
    let asked = world.now();
    world.ask(&ask("in between")).await;
    let took = asked.until(world.now());
    assert!(took <= 2 * SECOND, "admitted after {took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_rescue_does_not_wait_behind_the_polls_of_others() {
    let world = World::with(|settings, _| {
        settings.packing.max_lines = 1;
        settings.watch.polls_per_second = 0.1;
    })
    .await;
    world
        .ask_many(200, |n| {
            ask(format!("q{n}")).within(20 * HOUR).sim("slow=10h")
        })
        .await;
    world.pass(10 * MINUTE).await;
    let soon = world.ask(&ask("soon").within(2 * HOUR).sim("never")).await;
    let outcome = world.outcome(soon).await;
    assert_eq!(outcome.source, LIVE);
    assert!(outcome.finished <= soon.id.born() + 2 * HOUR, "{outcome:?}");
    // Its batch was cancelled in time, behind two thousand polls that were due.
    assert_eq!(world.ledger().await.paid_twice, 0);
    let cancels = world.sim.log().operations[&Operation::CancelBatch];
    assert!(cancels > 0);
}

#[tokio::test(start_paused = true)]
async fn who_would_rather_fail_does_so_although_a_live_call_hangs() {
    let world = World::new().await;
    world.faults(Operation::UploadFile, refusal(403, None), 1_000);
    world.faults(Operation::Chat, Kind::Hang, 1_000);
    let within = 25 * MINUTE;
    let call = ask("hangs").within(within).on_late(OnLate::Fail);
    let key = world.ask(&call).await;
    let outcome = world.outcome(key).await;
    assert_eq!((outcome.state, outcome.status), (State::Failed, 504));
    let late = (key.id.born() + within).until(outcome.finished);
    assert!(late <= 2 * SECOND, "{late:?} late");
}

#[tokio::test(start_paused = true)]
async fn those_who_would_rather_fail_are_not_read_at_every_turn() {
    let world = World::live_only(|_, _| {}).await;
    let call = |n| ask(format!("q{n}")).within(HOUR).on_late(OnLate::Fail);
    let keys = world.ask_many(400, call).await;
    world.all_done(&keys).await.iter().for_each(succeeded);
    let read = world.trouble.read_live.load(Ordering::Relaxed);
    assert!(read < 40 * 400, "{read} entries read for 400 calls");
    world.finish().await;
}

/// Also those whose calls were on their way at the deadline, and came to nothing.
#[tokio::test(start_paused = true)]
async fn those_who_would_rather_fail_do_so_each_at_its_own_time() {
    let world = World::live_only(|settings, _| settings.live.max_concurrent = 2).await;
    world.faults(Operation::Chat, refusal(503, None), 1_000);
    let within = |n: usize| 10 * MINUTE + n as u32 * 20 * SECOND;
    // The latest comes first.
    let call = |n: usize| {
        ask(format!("q{n}"))
            .within(within(29 - n))
            .on_late(OnLate::Fail)
    };
    let keys = world.ask_many(30, call).await;
    for (n, key) in keys.iter().enumerate() {
        let outcome = world.outcome(*key).await;
        assert_eq!((outcome.state, outcome.status), (State::Failed, 504));
        let late = (key.id.born() + within(29 - n)).until(outcome.finished);
        assert!(late <= 2 * SECOND, "{n}: {late:?} late");
    }
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_erased_during_a_live_call_leaves_nothing() {
    let world = World::new().await;
    let call = ask("erased").within(5 * MINUTE).sim("slow=30s status=503");
    let key = world.ask(&call).await;
    world.pass(SECOND).await;
    world.engine().erase(key).await.unwrap();
    world.pass(5 * MINUTE).await;
    assert_eq!(world.store.attempts(key).await.unwrap(), []);
}
