//! Calls that run now.

use offpeak::{
    engine::TapEvent,
    model::{
        attempt::AttemptState,
        request::{OnLate, State},
    },
    simulator::{Kind, Lane, Operation},
};

use super::{
    asking::{Ask, HOUR, MINUTE, SECOND, ask},
    crash::How,
    world::{Allow, LIVE, World, refusal, succeeded},
};

fn soon(text: &str) -> Ask {
    ask(text).within(10 * MINUTE)
}

#[tokio::test(start_paused = true)]
async fn too_close_for_a_batch() {
    let world = World::live_only(|_, _| {}).await;
    let outcome = world.outcome(world.ask(&soon("now")).await).await;
    succeeded(&outcome);
    assert_eq!(outcome.source, LIVE);
    world.finish().await;
    assert_eq!(world.sim.bill().calls(Lane::Standard), 1);
}

#[tokio::test(start_paused = true)]
async fn errors_that_pass_are_tried_again() {
    for code in [429, 500, 503] {
        let world = World::live_only(|_, _| {}).await;
        world.faults(Operation::Chat, refusal(code, None), 3);
        let key = world.ask(&soon("flaky")).await;
        succeeded(&world.outcome(key).await);
        let attempts = world.store.attempts(key).await.unwrap();
        assert_eq!(attempts.len(), 1, "tries that cost nothing leave nothing");
        assert_eq!(world.sim.log().operations[&Operation::Chat], 4);
        world.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_error_before_the_deadline_is_the_answer() {
    let world = World::live_only(|_, _| {}).await;
    world.faults(Operation::Chat, refusal(500, None), 1_000);
    let key = world.ask(&soon("broken")).await;
    let outcome = world.outcome(key).await;
    assert_eq!((outcome.state, outcome.status), (State::Failed, 500));
    let took = key.id.born().until(outcome.finished);
    assert!((10 * MINUTE..11 * MINUTE).contains(&took), "{took:?}");
    assert_eq!(world.store.attempts(key).await.unwrap().len(), 1);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_minutes_is_waited_out() {
    let world = World::live_only(|_, _| {}).await;
    world.faults(Operation::Chat, refusal(503, None), 15);
    let key = world.ask(&soon("patient")).await;
    let outcome = world.outcome(key).await;
    succeeded(&outcome);
    assert!(key.id.born().until(outcome.finished) > 2 * MINUTE);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn after_the_deadline_only_so_many_tries() {
    let world = World::live_only(|_, _| {}).await;
    world.faults(Operation::Chat, refusal(429, None), 1_000);
    let outcome = world
        .outcome(world.ask(&soon("late").within(SECOND)).await)
        .await;
    assert_eq!((outcome.state, outcome.status), (State::Failed, 429));
    world.finish().await;
    assert_eq!(world.sim.log().operations[&Operation::Chat], 5);
}

#[tokio::test(start_paused = true)]
async fn who_would_rather_fail_does_so_when_its_batch_was_refused() {
    let busy = refusal(503, None);
    for (chat, down) in [
        (busy.clone(), false),
        (refusal(429, Some(3000)), false),
        (busy, true),
    ] {
        let world = World::new().await;
        world.faults(Operation::UploadFile, refusal(403, None), 1_000);
        world.faults(Operation::Chat, chat, 1_000_000);
        let call = ask("no batch").within(HOUR).on_late(OnLate::Fail);
        let key = world.ask(&call).await;
        world.pass(2 * MINUTE).await;
        assert!(world.sim.log().operations[&Operation::Chat] > 0, "live");
        if down {
            world.line.go_down(2 * HOUR);
        }
        let (outcome, answer) = world.done(key).await;
        assert_eq!((outcome.state, outcome.status), (State::Failed, 504));
        assert!(answer.contains("deadline_exceeded"), "{answer}");
        let took = key.id.born().until(outcome.finished);
        assert!((HOUR..HOUR + 2 * SECOND).contains(&took), "{took:?}");
        let (lost_files, unaccounted) = (down, down);
        world
            .finish_allowing(Allow {
                lost_files,
                unaccounted,
                ..Allow::default()
            })
            .await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_would_rather_wait_goes_live_where_no_batch_is_taken() {
    for on_late in [OnLate::Wait, OnLate::Fail] {
        let world = World::new().await;
        world.faults(Operation::UploadFile, refusal(403, None), 1_000);
        let call = ask("no batch").on_late(on_late);
        let outcome = world.outcome(world.ask(&call).await).await;
        succeeded(&outcome);
        assert_eq!(outcome.source, LIVE);
        assert!(outcome.reason.contains("refused the batch"), "{outcome:?}");
        world.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_wants_us_slower_is_obeyed() {
    let world = World::live_only(|_, _| {}).await;
    world.faults(Operation::Chat, refusal(429, Some(20)), 8);
    let key = world.ask(&soon("patient")).await;
    let outcome = world.outcome(key).await;
    succeeded(&outcome);
    let took = key.id.born().until(outcome.finished);
    assert!((160 * SECOND..170 * SECOND).contains(&took), "{took:?}");
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn what_no_waiting_cures_ends_at_once() {
    for (code, name, told) in [
        (429, Some("insufficient_quota"), "429 insufficient_quota; "),
        (401, None, "401 invalid_api_key; "),
        (400, None, "400 invalid_value; "),
    ] {
        let world = World::live_only(|_, _| {}).await;
        let spent = Kind::Status {
            status: code,
            retry_after_seconds: None,
            code: name.map(str::to_owned),
        };
        world.faults(Operation::Chat, spent, 100);
        let outcome = world.outcome(world.ask(&soon("spent")).await).await;
        assert_eq!((outcome.state, outcome.status), (State::Failed, code));
        let why = format!("the provider answered {told}");
        assert!(outcome.reason.starts_with(&why), "{}", outcome.reason);
        world.finish().await;
        assert_eq!(world.sim.log().operations[&Operation::Chat], 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_nobody_saw_end_is_unaccounted() {
    let world = World::live_only(|_, _| {}).await;
    world.fault(Operation::Chat, Kind::ReplyLost);
    let key = world.ask(&soon("lost")).await;
    succeeded(&world.outcome(key).await);
    let attempts = world.store.attempts(key).await.unwrap();
    let states: Vec<AttemptState> = attempts.iter().map(|attempt| attempt.state).collect();
    assert_eq!(states, [AttemptState::Unaccounted, AttemptState::Answered]);
    world.finish_allowing(Allow::UNACCOUNTED).await;
    assert_eq!(world.ledger().await.unaccounted, 1);
    assert_eq!(world.sim.bill().calls(Lane::Standard), 2);
}

#[tokio::test(start_paused = true)]
async fn calls_that_are_always_lost_are_not_bought_for_ever() {
    let world = World::live_only(|_, _| {}).await;
    world.faults(Operation::Chat, Kind::ReplyLost, 1_000_000);
    // Nor where the disk has no room for its end.
    world.trouble.on("settle", How::Refuse, 3);
    let key = world.ask(&soon("lost")).await;
    let (outcome, answer) = world.done(key).await;
    assert_eq!((outcome.state, outcome.status), (State::Failed, 502));
    assert!(answer.contains("upstream_lost"), "{answer}");
    assert!(
        outcome.finished < key.id.born() + 5 * MINUTE,
        "no need to wait"
    );
    assert_eq!(world.sim.bill().calls(Lane::Standard), 5);
    assert_eq!(world.ledger().await.unaccounted, 5);
    world.finish_allowing(Allow::UNACCOUNTED).await;
}

#[tokio::test(start_paused = true)]
async fn only_so_many_at_a_time_the_earliest_deadline_first() {
    let world = World::with(|settings, _| settings.live.max_concurrent = 3).await;
    world.engine().pause();
    let keys = world
        .ask_many(12, |n| {
            let within = 2 * HOUR - SECOND * n as u32;
            ask(format!("q{n}")).sim("slow=60s").within(within)
        })
        .await;
    let outcomes = world.all_done(&keys).await;
    for pair in outcomes.windows(2) {
        assert!(
            pair[0].finished + 5 * SECOND >= pair[1].finished,
            "out of order"
        );
    }
    let first = outcomes
        .iter()
        .map(|outcome| outcome.finished)
        .min()
        .unwrap();
    let last = outcomes
        .iter()
        .map(|outcome| outcome.finished)
        .max()
        .unwrap();
    assert!(first.until(last) >= 180 * SECOND, "four rounds of three");
    world.engine().resume();
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_streaming_caller_gets_the_stream() {
    let world = World::live_only(|_, _| {}).await;
    let mut call = soon("stream me").held();
    call.stream = true;
    let mut admitted = world.admit(&call).await;
    let mut tap = admitted.hold.tap().expect("it goes live at once");
    let mut events = String::new();
    let mut bytes = Vec::new();
    while let Some(event) = tap.next().await {
        match event {
            TapEvent::Begin { .. } => events.push('b'),
            TapEvent::Chunk(chunk) => bytes.extend_from_slice(&chunk),
            TapEvent::End => events.push('e'),
            TapEvent::Broken => events.push('x'),
        }
    }
    assert_eq!(events, "be");
    let (outcome, answer) = world.done(admitted.request.key).await;
    succeeded(&outcome);
    assert_eq!(answer.as_bytes(), bytes);
    assert!(answer.contains("[DONE]"));
    admitted.hold.delivered(world.engine());
    drop(tap);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_tap_ends_with_its_request() {
    let world = World::live_only(|settings, _| settings.live.max_concurrent = 1).await;
    world.ask(&soon("in the way").sim("slow=60s")).await;
    world.pass(SECOND).await;
    let mut call = soon("never run").held();
    call.stream = true;
    let mut admitted = world.admit(&call).await;
    let mut tap = admitted.hold.tap().unwrap();
    world.engine().cancel(admitted.request.key).await.unwrap();
    assert!(tap.next().await.is_none());
    admitted.hold.delivered(world.engine());
    world.finish().await;
}
