//! Keys that the provider refuses while there is work for them.

use offpeak::{
    engine::AdmitError,
    model::request::{OnLate, Source, State},
    simulator::{Kind, Operation},
};

use super::{
    asking::{HOUR, MINUTE, ask},
    world::{LIVE, World, succeeded},
};

fn refused() -> Kind {
    Kind::Status {
        status: 401,
        retry_after_seconds: None,
        code: Some("invalid_api_key".into()),
    }
}

/// All calls of the key are answered 401 from here on.
fn revoke(world: &World) {
    world.faults(Operation::Any, refused(), 1_000_000);
}

#[tokio::test(start_paused = true)]
async fn what_a_refused_key_is_to_pay_for_waits_and_goes_on() {
    let world = World::new().await;
    revoke(&world);
    let keys = world.ask_many(4, |n| ask(format!("q{n}"))).await;
    world.pass(HOUR).await;
    for key in &keys {
        let view = world.engine().view(*key).await.unwrap().unwrap();
        assert!(view.outcome.is_none());
        assert!(
            view.reason.starts_with("paused: the provider refuses"),
            "{}",
            view.reason
        );
    }
    let told = world.engine().refusals_of(Some(keys[0].tenant));
    assert_eq!(told.len(), 1);
    world.sim.clear_faults();
    for outcome in world.all_done(&keys).await {
        succeeded(&outcome);
        assert!(matches!(outcome.source, Source::Batch(_)), "{outcome:?}");
    }
    assert!(world.engine().refusals_of(None).is_empty());
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn what_still_waits_at_its_deadline_ends_with_the_provider_s_401() {
    for on_late in [OnLate::Rescue, OnLate::Wait, OnLate::Fail] {
        let world = World::new().await;
        revoke(&world);
        let within = 2 * HOUR;
        let call = |n| ask(format!("q{n}")).within(within).on_late(on_late);
        let keys = world.ask_many(3, call).await;
        let soon = world.ask(&call(9).within(2 * MINUTE)).await;
        for (key, within) in keys
            .iter()
            .map(|key| (key, within))
            .chain([(&soon, 2 * MINUTE)])
        {
            let (outcome, answer) = world.done(*key).await;
            assert_eq!((outcome.state, outcome.status), (State::Failed, 401));
            assert!(answer.contains("invalid_api_key"), "{answer}");
            assert!(outcome.reason.contains("401"), "{}", outcome.reason);
            let took = key.id.born().until(outcome.finished);
            assert!(
                took >= within && took < within + MINUTE,
                "{on_late:?} {took:?}"
            );
        }
        world.sim.clear_faults();
        world.finish().await;
    }
}

/// It stands in batches, in the queue and live: all of it waits.
#[tokio::test(start_paused = true)]
async fn a_key_that_is_revoked_while_its_batch_runs() {
    let world = World::new().await;
    let running = world.ask(&ask("running").within(5 * HOUR)).await;
    world.submitted().await;
    revoke(&world);
    let queued = world.ask(&ask("queued").within(5 * HOUR)).await;
    world.pass(2 * HOUR).await;
    assert_eq!(
        world.sim.bill().calls(offpeak::simulator::Lane::Standard),
        0
    );
    world.sim.clear_faults();
    for key in [running, queued] {
        let outcome = world.outcome(key).await;
        succeeded(&outcome);
        assert!(matches!(outcome.source, Source::Batch(_)), "{outcome:?}");
    }
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_key_is_tried_less_and_less_often() {
    let world = World::new().await;
    revoke(&world);
    world
        .ask_many(50, |n| ask(format!("q{n}")).within(20 * HOUR))
        .await;
    world.pass(10 * MINUTE).await;
    let before: u64 = world.sim.log().operations.values().sum();
    world.pass(10 * HOUR).await;
    let calls = world.sim.log().operations.values().sum::<u64>() - before;
    assert!(calls <= 80, "{calls} calls in ten hours");
    world.sim.clear_faults();
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn others_are_not_concerned() {
    let world = World::new().await;
    let bad = world.ask(&ask("bad").key("sk-bad-key")).await;
    world.pass(MINUTE).await;
    let good = world.ask(&ask("good")).await;
    succeeded(&world.outcome(good).await);
    let told = world.engine().refusals_of(Some(good.tenant));
    assert!(told.is_empty());
    assert_eq!(world.engine().refusals_of(Some(bad.tenant)).len(), 1);
    assert_eq!(world.outcome(bad).await.status, 401);
    world.finish().await;
}

/// It is told at once to whoever calls with it, and mended by whoever calls then.
#[tokio::test(start_paused = true)]
async fn calls_with_a_refused_key_are_refused() {
    let world = World::live_only(|settings, _| settings.admission.model_check = true).await;
    let first = world.ask(&ask("first").within(3 * HOUR)).await;
    succeeded(&world.outcome(first).await);
    let credential = {
        revoke(&world);
        let waits = world.ask(&ask("waits").within(3 * HOUR)).await;
        world.pass(MINUTE).await;
        waits
    };
    let refused = world
        .engine()
        .admit(ask("refused").call(world.engine()))
        .await;
    let Err(AdmitError::Provider { status, .. }) = refused else {
        panic!("it was let in");
    };
    assert_eq!(status, 401);
    world.sim.clear_faults();
    let again = world.ask(&ask("again").within(3 * HOUR)).await;
    for key in [credential, again] {
        let outcome = world.outcome(key).await;
        succeeded(&outcome);
        assert_eq!(outcome.source, LIVE);
    }
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_restart_finds_out_again() {
    let mut world = World::new().await;
    revoke(&world);
    let keys = world.ask_many(3, |n| ask(format!("q{n}"))).await;
    world.pass(HOUR).await;
    world.restart(None).await;
    world.pass(HOUR).await;
    assert_eq!(world.engine().refusals_of(Some(keys[0].tenant)).len(), 1);
    for key in keys {
        assert_eq!(world.outcome(key).await.status, 401);
    }
    world.sim.clear_faults();
    world.finish().await;
}

/// OpenAI answers keys of narrow permissions with 401 ("Missing scopes"), too.
#[tokio::test(start_paused = true)]
async fn a_key_that_may_not_upload_is_not_refused() {
    let world = World::new().await;
    world.faults(Operation::UploadFile, refused(), 1_000);
    let keys = world.ask_many(3, |n| ask(format!("q{n}"))).await;
    for outcome in world.all_done(&keys).await {
        succeeded(&outcome);
        assert_eq!(outcome.source, LIVE);
    }
    assert!(world.engine().refusals_of(None).is_empty());
    world.finish().await;
}

/// Its last word is the answer, at once.
#[tokio::test(start_paused = true)]
async fn a_key_that_may_not_chat_hears_so() {
    let world = World::live_only(|_, _| {}).await;
    world.faults(Operation::Chat, refused(), 1_000);
    let key = world.ask(&ask("no").within(6 * HOUR)).await;
    let outcome = world.outcome(key).await;
    assert_eq!((outcome.state, outcome.status), (State::Failed, 401));
    assert!(key.id.born().until(outcome.finished) < HOUR);
    world.finish().await;
}
