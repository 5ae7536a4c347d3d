//! Cancelling, erasing, joining and taking over.

use offpeak::{
    engine::{AdmitError, Cancelled, Erased, Refused},
    model::{
        id::RequestKey,
        request::{Place, State},
    },
    simulator::Lane,
};

use super::{
    asking::{HOUR, MINUTE, SECOND, ask},
    world::{World, succeeded},
};

async fn place(world: &World, key: RequestKey) -> Option<Place> {
    world.engine().view(key).await.unwrap().unwrap().place
}

async fn cancel(world: &World, key: RequestKey) {
    let cancelled = world.engine().cancel(key).await.unwrap();
    assert!(matches!(cancelled, Cancelled::Yes));
    let outcome = world.outcome(key).await;
    assert_eq!((outcome.state, outcome.status), (State::Cancelled, 410));
    world.check_counts().await;
}

#[tokio::test(start_paused = true)]
async fn a_call_can_be_cancelled_wherever_it_is() {
    let world = World::new().await;
    let queued = world.ask(&ask("queued")).await;
    assert!(matches!(place(&world, queued).await, Some(Place::Queue(_))));
    cancel(&world, queued).await;

    let in_batch = world.ask(&ask("in a batch")).await;
    world.submitted().await;
    assert!(matches!(
        place(&world, in_batch).await,
        Some(Place::Line(_))
    ));
    cancel(&world, in_batch).await;

    let live = world.ask(&ask("live").within(MINUTE).sim("slow=30s")).await;
    world.pass(SECOND).await;
    assert_eq!(place(&world, live).await, Some(Place::Live));
    cancel(&world, live).await;

    let done = world.ask(&ask("done").within(MINUTE)).await;
    succeeded(&world.outcome(done).await);
    let too_late = world.engine().cancel(done).await.unwrap();
    assert!(matches!(too_late, Cancelled::TooLate(_)));
    world.finish().await;
    // What ran all the same is paid for, and nothing is said to be paid twice.
    let ledger = world.ledger().await;
    assert_eq!(
        (ledger.requests, ledger.succeeded, ledger.paid_twice),
        (4, 1, 0)
    );
    assert_eq!(world.sim.bill().calls(Lane::Batch), 1);
}

/// Tomorrow's run of the same job wants an answer of its own.
#[tokio::test(start_paused = true)]
async fn an_answer_is_collected_until_an_hour_after_the_deadline() {
    for (minutes, taken_over) in [(50, true), (70, false)] {
        let world = World::new().await;
        let call = ask("nightly").held().within(2 * HOUR);
        let first = world.admit(&call).await.request.key;
        succeeded(&world.outcome(first).await);
        let again = first.id.born() + 2 * HOUR + minutes * MINUTE;
        world.pass(world.now().until(again)).await;
        let second = world.admit(&call).await.request.key;
        assert_eq!(second == first, taken_over, "after {minutes} minutes");
        assert_eq!(world.engine().gauges().held, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_erased_is_gone() {
    let world = World::new().await;
    let done = world.ask(&ask("done").within(MINUTE)).await;
    world.outcome(done).await;
    let queued = world.ask(&ask("queued").held()).await;
    for key in [done, queued] {
        assert_eq!(world.engine().erase(key).await.unwrap(), Erased::Yes);
        assert_eq!(world.engine().erase(key).await.unwrap(), Erased::Unknown);
        assert!(world.engine().head(key).await.unwrap().is_none());
    }
    world.finish().await;
    assert_eq!(world.engine().gauges().held, 0);
}

#[tokio::test(start_paused = true)]
async fn one_idempotency_key_is_one_request() {
    let world = World::new().await;
    let call = ask("once").idempotent("k1");
    let engine = world.engine();
    let both = [
        engine.admit(call.call(engine)),
        engine.admit(call.call(engine)),
    ];
    let both = futures_util::future::join_all(both).await;
    let keys: Vec<_> = both
        .into_iter()
        .map(|admitted| admitted.unwrap().request.key)
        .collect();
    assert_eq!(keys[0], keys[1]);
    world.note(keys[0], "once");
    let again = world.admit(&call).await;
    assert!(again.joined && again.request.key == keys[0]);
    drop(again);

    let other = ask("something else").idempotent("k1");
    let refused = engine.admit(other.call(engine)).await;
    let reused = Refused::IdempotencyReused;
    let Err(AdmitError::Refused(refusal)) = refused else {
        panic!("{reused}")
    };
    assert_eq!(refusal.to_string(), reused.to_string());

    let of_another_tenant = call.clone().key("sk-other");
    assert_ne!(world.ask(&of_another_tenant).await, keys[0]);
    world.all_done(&keys).await;
    let finished = world.outcome(keys[0]).await.finished;
    let ttl = 24 * HOUR;
    for (later, joined) in [(ttl - SECOND, true), (ttl, true), (ttl + SECOND, false)] {
        world.pass(world.now().until(finished + later)).await;
        assert_eq!(world.admit(&call).await.joined, joined, "{later:?}");
    }
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_comes_back_finds_the_request() {
    let mut world = World::new().await;
    let call = ask("held").held();
    let first = world.admit(&call).await;
    let key = first.request.key;
    world.pass(SECOND).await;
    // Equal calls on purpose stay separate.
    let other = world.admit(&call).await;
    assert!(!other.joined && other.request.key != key);
    // A re-send replaces the call right before it, although it is still there.
    let mut resent = call.clone();
    resent.retry = 1;
    let second = world.admit(&resent).await;
    assert!(second.joined && second.request.key == key);
    assert!(!first.hold.is_current() && second.hold.is_current());
    drop((first, second));
    // An orphan is taken over once, by anybody who calls the same.
    let third = world.admit(&call).await;
    assert_eq!(third.request.key, key);
    // After a restart every held request is an orphan.
    std::mem::forget(third);
    world.restart(None).await;
    let back = world.admit(&call).await;
    assert_eq!(back.request.key, key);
    succeeded(&world.outcome(key).await);
    back.hold.delivered(world.engine());
    other.hold.delivered(world.engine());
    world.finish().await;
    // Noted in the background.
    world.pass(SECOND).await;
    assert_eq!(world.store.unreleased().await.unwrap(), []);
    // What was delivered is never joined.
    world.restart(None).await;
    let fresh = world.admit(&resent).await;
    assert!(!fresh.joined);
    world.outcome(fresh.request.key).await;
    fresh.hold.delivered(world.engine());
    world.finish().await;
    assert_eq!(world.engine().gauges().held, 0);
}

#[tokio::test(start_paused = true)]
async fn full_is_an_answer() {
    let world = World::with(|settings, _| settings.admission.max_open = 2).await;
    world.ask_many(2, |n| ask(format!("q{n}"))).await;
    let engine = world.engine();
    let refused = engine.admit(ask("one too many").call(engine)).await;
    let full = matches!(
        refused,
        Err(AdmitError::Refused(Refused::QueueFull(full))) if full.requests == 2
    );
    assert!(full);
    world.finish().await;
    world.ask(&ask("room again")).await;
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn callers_at_the_same_time_do_not_get_past_a_bound() {
    // Between the first look and the last one the provider is asked.
    let world = World::with(|settings, _| {
        settings.admission.max_open_per_tenant = 3;
        settings.admission.model_check = true;
    })
    .await;
    let engine = world.engine();
    let calls = (0..20).map(|n| {
        let call = ask(format!("q{n}")).call(engine);
        let engine = engine.clone();
        async move { engine.admit(call).await }
    });
    let answers = futures_util::future::join_all(calls).await;
    let admitted: Vec<_> = answers.into_iter().filter_map(Result::ok).collect();
    assert_eq!(admitted.len(), 3);
    assert_eq!(engine.counts().open(), 3);
    world.note_all("sk-test").await;
    drop(admitted);
    world.finish().await;
    // Who was refused holds nothing: no promise, and no place.
    let gauges = engine.gauges();
    assert_eq!((gauges.held, engine.counts().open()), (0, 0));
}
