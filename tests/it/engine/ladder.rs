//! The lanes between a batch and an ordinary call: flex, and background responses.

use std::time::Duration;

use offpeak::{
    engine::{Believed, Call, Settings},
    model::{
        attempt::{Attempt, AttemptState, Lane},
        batch::Batch,
        endpoint::Endpoint,
        id::RequestKey,
        money::Usd,
        request::{Outcome, Source, State},
    },
    simulator::{self, Fault, Kind, Operation},
};
use serde_json::{Value, json};

use super::{
    asking::{Ask, HOUR, MINUTE, SECOND, ask},
    crash::How,
    world::{Allow, LIVE, World, succeeded},
};

const FLEX: Source = Source::Live(Lane::Flex);
const TWO_HOURS: Source = Source::Live(Lane::Background2h);
const EIGHT_HOURS: Source = Source::Live(Lane::Background8h);

/// A chat call to a model that has flex.
fn flexible(text: impl Into<String>) -> Ask {
    Ask {
        model: "o3".into(),
        ..ask(text).within(10 * MINUTE).sim("tokens=5")
    }
}

/// A call to the Responses API, and what it says of `store`.
fn response(text: &str, store: Option<bool>, sim: &str) -> Ask {
    let mut body = json!({"model": "gpt-4.1", "input": text, "metadata": {"sim": sim}});
    if let Some(store) = store {
        body["store"] = Value::Bool(store);
    }
    Ask {
        model: "gpt-4.1".into(),
        endpoint: Endpoint::Responses,
        body: Some(body.to_string()),
        ..ask(text)
    }
}

async fn world(change: impl FnOnce(&mut Settings, &mut simulator::Settings)) -> World {
    World::with(|settings, sim| {
        sim.latency.flex_sigma = 0.0;
        sim.latency.background_sigma = 0.0;
        // Too slow to be worth a try with three hours left.
        settings.ladder.background_8h.median = 5 * HOUR;
        change(settings, sim);
    })
    .await
}

/// One whose provider takes no batches, so that others are the cheapest.
async fn without_batches(consent: bool) -> World {
    world(|settings, sim| background(settings, sim, consent)).await
}

fn background(settings: &mut Settings, sim: &mut simulator::Settings, consent: bool) {
    settings.ladder.batch.models.clear();
    settings.ladder.background_8h.median = 6 * HOUR;
    settings.ladder.background_may_store = consent;
    sim.latency.background_8h_median = 3 * HOUR;
    sim.latency.background_2h_median = 40 * MINUTE;
}

/// One that has only the window of two hours, and the consent to use it.
async fn with_two_hours() -> World {
    world(|settings, sim| {
        background(settings, sim, true);
        settings.ladder.background_8h.models.clear();
    })
    .await
}

fn in_time(outcome: &Outcome, key: RequestKey, within: Duration) {
    succeeded(outcome);
    let took = key.id.born().until(outcome.finished);
    assert!(took <= within, "{took:?}: {outcome:?}");
}

/// Asks, and is answered in time.
async fn answered(world: &World, call: &Ask, within: Duration) -> Outcome {
    let key = world.ask(call).await;
    let outcome = world.outcome(key).await;
    in_time(&outcome, key, within);
    outcome
}

fn limit_of(world: &World, model: &str) -> u32 {
    let scopes = world.engine().live_scopes();
    let scope = scopes.iter().find(|scope| scope.model == model);
    scope.expect("calls were made").limit
}

#[tokio::test(start_paused = true)]
async fn a_short_deadline_is_met_at_half_price() {
    let world = world(|_, _| {}).await;
    let keys = world.ask_many(20, |n| flexible(format!("q{n}"))).await;
    world.pass(SECOND).await;
    let view = world.engine().view(keys[0]).await.unwrap().unwrap();
    assert_eq!(view.lane(), Lane::Flex);
    for key in &keys {
        let outcome = world.outcome(*key).await;
        in_time(&outcome, *key, 10 * MINUTE);
        assert_eq!(outcome.source, FLEX, "{}", outcome.reason);
        assert!(outcome.reason.starts_with("flex, 10m left"), "{outcome:?}");
    }
    world.finish().await;
    let ledger = world.ledger().await;
    assert_eq!(ledger.paid.as_pico() * 2, ledger.standard.as_pico());
    assert_eq!(world.sim.bill().calls(simulator::Lane::Flex), 20);
}

#[tokio::test(start_paused = true)]
async fn what_flex_refuses_is_answered_at_once_on_the_next_rung() {
    let world = world(|settings, _| settings.ladder.batch.models.clear()).await;
    world.faults(Operation::Chat, Kind::FlexShortage, 1_000);
    let keys = world.ask_many(40, |n| flexible(format!("q{n}"))).await;
    for key in &keys {
        let outcome = world.outcome(*key).await;
        in_time(&outcome, *key, MINUTE);
        assert_eq!(outcome.source, LIVE);
        let attempts = world.store.attempts(*key).await.unwrap();
        assert_eq!(attempts.len(), 1, "what is refused leaves nothing");
    }
    // Ordinary calls were never pushed back.
    assert!(limit_of(&world, "o3") >= 16);
    let known = world.engine().turnaround(None);
    let refusals = known.iter().find(|it| it.what == "flex-refused").unwrap();
    // Those that came later were told by the first, and did not ask.
    assert!(refusals.seen >= 9.0, "{}", refusals.seen);
    let Believed::Share { learned, .. } = refusals.believed else {
        panic!("refusals are a share");
    };
    assert!(learned > 0.4, "{learned}");
    world.finish().await;
    let ledger = world.ledger().await;
    // No budget could stop that, and none pays for it.
    assert_eq!((ledger.rescued, ledger.rescue_paid), (40, Usd::ZERO));
}

/// One whose batches are fast, and that has no room in flex.
async fn short_of_flex(change: impl FnOnce(&mut Settings, &mut simulator::Settings)) -> World {
    let world = world(|settings, sim| {
        sim.latency.turnaround_median = 2 * MINUTE;
        change(settings, sim);
    })
    .await;
    world.faults(Operation::Chat, Kind::FlexShortage, 1_000);
    world
}

fn flex_attempts(attempts: &[Attempt]) -> usize {
    let flex = attempts.iter().filter(|it| it.lane == Lane::Flex);
    flex.count()
}

#[tokio::test(start_paused = true)]
async fn what_flex_refuses_goes_into_a_batch_that_is_in_time() {
    let world = short_of_flex(|_, _| {}).await;
    let call = |n: usize| flexible(format!("q{n}")).within(30 * MINUTE);
    // The rescuer has a turn whenever a batch is sealed: nothing is taken out again.
    let mut keys = Vec::new();
    for n in 0..10 {
        keys.push(world.ask(&call(n)).await);
        world.pass(SECOND).await;
    }
    let held = world.admit(&call(10).held()).await;
    keys.push(held.request.key);
    let planned = &held.request.reason;
    assert!(planned.starts_with("flex, 30m left"), "{planned}");
    world.pass(10 * SECOND).await;
    for key in &keys {
        let view = world.engine().view(*key).await.unwrap().unwrap();
        assert_eq!(view.lane(), Lane::Batch, "{}", view.reason);
        assert!(view.reason.starts_with("batch, 29m "), "{}", view.reason);
        for part in ["(planned: flex, 30m left", "flex had no capacity for it"] {
            assert!(view.reason.contains(part), "{}", view.reason);
        }
    }
    for key in &keys {
        let outcome = world.outcome(*key).await;
        in_time(&outcome, *key, 30 * MINUTE);
        assert!(matches!(outcome.source, Source::Batch(_)), "{outcome:?}");
        let attempts = world.store.attempts(*key).await.unwrap();
        assert_eq!(flex_attempts(&attempts), 1, "{attempts:?}");
    }
    held.hold.delivered(world.engine());
    world.finish().await;
    let ledger = world.ledger().await;
    assert_eq!(ledger.paid.as_pico() * 2, ledger.standard.as_pico());
    assert_eq!((ledger.rescued, ledger.paid_twice), (0, 0));
    assert_eq!(world.sim.log().operations[&Operation::Chat], 11);
}

#[tokio::test(start_paused = true)]
async fn what_hung_in_flex_goes_into_a_batch_that_is_in_time() {
    let world = world(|settings, sim| {
        // Given up early, because it answers soon if it does.
        let flex = &mut settings.ladder.flex;
        (flex.median, flex.p90, flex.never) = (10 * SECOND, 20 * SECOND, 0.3);
        sim.latency.turnaround_median = 2 * MINUTE;
    })
    .await;
    world.faults(Operation::Chat, Kind::Hang, 3);
    let call = |n: usize| flexible(format!("q{n}")).within(12 * MINUTE);
    let keys = world.ask_many(3, call).await;
    for key in &keys {
        let outcome = world.outcome(*key).await;
        in_time(&outcome, *key, 12 * MINUTE);
        assert!(matches!(outcome.source, Source::Batch(_)), "{outcome:?}");
        assert!(outcome.reason.contains("given up after"), "{outcome:?}");
    }
    let unaccounted = true;
    world
        .finish_allowing(Allow {
            unaccounted,
            ..Allow::default()
        })
        .await;
    assert_eq!(world.ledger().await.unaccounted, 3);
}

#[tokio::test(start_paused = true)]
async fn what_a_background_lane_does_not_answer_goes_into_a_batch() {
    let world = world(|settings, sim| {
        background(settings, sim, true);
        settings.ladder.background_2h.models.clear();
        // Slower than they are: the background is tried first.
        let batch = &mut settings.ladder.batch;
        batch.models = vec!["*".into()];
        (batch.median, batch.p90) = (5 * HOUR, 20 * HOUR);
    })
    .await;
    let within = 8 * HOUR;
    let call = response("q", None, "flaky=1").within(within);
    let key = world.ask(&call).await;
    let planned = world.engine().view(key).await.unwrap().unwrap();
    assert_eq!(planned.lane(), Lane::Background8h, "{}", planned.reason);
    let outcome = world.outcome(key).await;
    in_time(&outcome, key, within);
    assert!(matches!(outcome.source, Source::Batch(_)), "{outcome:?}");
    let reason = &outcome.reason;
    assert!(reason.contains("background-8h ended as failed"), "{reason}");
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn what_came_out_of_a_batch_does_not_go_back_into_one() {
    let world = short_of_flex(|_, _| {}).await;
    world.faults(Operation::CreateBatch, Kind::Slow { by: 30 * HOUR }, 1_000);
    for within in [30 * MINUTE, 3 * HOUR] {
        let call = |n: usize| flexible(format!("{within:?} {n}")).within(within);
        let keys = world.ask_many(5, call).await;
        for key in &keys {
            let outcome = world.outcome(*key).await;
            in_time(&outcome, *key, within);
            assert_eq!(outcome.source, LIVE, "{outcome:?}");
            assert!(
                outcome.reason.starts_with("rescued: the batch"),
                "{outcome:?}"
            );
            let attempts = world.store.attempts(*key).await.unwrap();
            let last = attempts.last().unwrap().started;
            let later = |batch: &Batch| batch.created >= last;
            assert!(!world.batches().await.iter().any(later), "{attempts:?}");
        }
    }
    world.finish().await;
    assert_eq!(world.ledger().await.rescued, 10);
}

#[tokio::test(start_paused = true)]
async fn who_must_be_live_goes_into_no_batch() {
    let world = short_of_flex(|_, _| {}).await;
    let ask = flexible("live only").within(30 * MINUTE);
    let call = Call {
        live_only: Some("n is set".into()),
        ..ask.call(world.engine())
    };
    let key = world.engine().admit(call).await.unwrap().request.key;
    world.note(key, "live only");
    assert_eq!(world.outcome(key).await.source, LIVE);
    world.finish().await;
    assert_eq!(world.batches().await.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_kill_on_the_way_from_flex_to_a_batch_loses_nothing() {
    let killed = Allow {
        lost_files: false,
        unaccounted: true,
        endless: false,
        twins: false,
    };
    for steps in 1..16 {
        let mut world = short_of_flex(|_, _| {}).await;
        let call = |n: usize| flexible(format!("q{n}")).within(30 * MINUTE);
        let keys = world.ask_many(3, call).await;
        world.restart(Some(steps)).await;
        world.die_within(20 * SECOND).await;
        world.restart(None).await;
        world.check_counts().await;
        for key in keys {
            in_time(&world.outcome(key).await, key, 30 * MINUTE);
        }
        world.finish_allowing(killed).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_on_the_way_to_a_batch_is_asked_again() {
    let world = short_of_flex(|_, _| {}).await;
    world.trouble.on("replan", How::Refuse, 2);
    let call = |n: usize| flexible(format!("q{n}")).within(30 * MINUTE);
    for key in world.ask_many(3, call).await {
        let outcome = world.outcome(key).await;
        in_time(&outcome, key, 30 * MINUTE);
        assert!(matches!(outcome.source, Source::Batch(_)), "{outcome:?}");
    }
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_model_that_has_no_flex_after_all_is_answered() {
    let world = world(|settings, _| {
        settings.ladder.batch.models.clear();
        settings.ladder.flex.models = vec!["gpt-4.1".into()];
    })
    .await;
    let call = Ask {
        model: "gpt-4.1".into(),
        ..flexible("no such tier")
    };
    let outcome = answered(&world, &call, MINUTE).await;
    assert!(outcome.reason.contains("flex answered 400"), "{outcome:?}");
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn the_tier_that_was_served_is_the_one_that_is_paid() {
    let world = world(|_, _| {}).await;
    world.fault(Operation::Chat, Kind::FlexAsDefault);
    let outcome = world.outcome(world.ask(&flexible("dearer")).await).await;
    succeeded(&outcome);
    assert_eq!(outcome.source, LIVE);
    assert!(outcome.reason.contains("billed as standard"), "{outcome:?}");
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn flex_that_hangs_is_left_in_time() {
    let world = world(|_, _| {}).await;
    world.faults(Operation::Chat, Kind::HangAfter, 3);
    let keys = world.ask_many(3, |n| flexible(format!("q{n}"))).await;
    for key in &keys {
        let outcome = world.outcome(*key).await;
        in_time(&outcome, *key, 10 * MINUTE);
        assert_eq!(outcome.source, LIVE);
        assert!(outcome.reason.contains("given up after"), "{outcome:?}");
        let attempts = world.store.attempts(*key).await.unwrap();
        let tried: Vec<_> = attempts.iter().map(|it| (it.lane, it.state)).collect();
        let unseen = (Lane::Flex, AttemptState::Unaccounted);
        assert_eq!(tried, [unseen, (Lane::Standard, AttemptState::Answered)]);
    }
    world.finish_allowing(Allow::UNACCOUNTED).await;
    assert_eq!(world.ledger().await.unaccounted, 3);
}

#[tokio::test(start_paused = true)]
async fn flex_takes_no_room_from_ordinary_calls() {
    let world = world(|settings, sim| {
        settings.live.max_concurrent = 1;
        sim.latency.flex_median = 4 * MINUTE;
    })
    .await;
    let slow = |n| flexible(format!("q{n}")).within(20 * MINUTE);
    let keys = world.ask_many(5, slow).await;
    world.pass(MINUTE).await;
    let close = world.ask(&flexible("close").within(30 * SECOND)).await;
    let outcome = world.outcome(close).await;
    in_time(&outcome, close, 30 * SECOND);
    assert_eq!(outcome.source, LIVE);
    for key in keys {
        let outcome = world.outcome(key).await;
        in_time(&outcome, key, 20 * MINUTE);
        assert_eq!(outcome.source, FLEX, "{}", outcome.reason);
    }
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_flex_is_answered_in_time() {
    let world = world(|settings, _| settings.live.max_flex = 1).await;
    let keys = world.ask_many(40, |n| flexible(format!("q{n}"))).await;
    let outcomes = world.all_done(&keys).await;
    for (key, outcome) in keys.iter().zip(&outcomes) {
        in_time(outcome, *key, 10 * MINUTE);
    }
    let cheap = outcomes.iter().filter(|it| it.source == FLEX).count();
    assert!((3..=9).contains(&cheap), "{cheap} of a minute each");
    // Calls that were given up in time for an ordinary one may be billed.
    world.finish_allowing(Allow::UNACCOUNTED).await;
    assert!(world.ledger().await.unaccounted <= 4);
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_streams_is_told_by_the_answer() {
    let world = world(|settings, _| settings.ladder.batch.models.clear()).await;
    let mut call = flexible("stream me").held();
    call.stream = true;
    let mut admitted = world.admit(&call).await;
    let mut tap = admitted.hold.tap().unwrap();
    assert!(tap.next().await.is_none(), "it is not streamed");
    let (outcome, answer) = world.done(admitted.request.key).await;
    assert_eq!(outcome.source, FLEX);
    assert!(answer.starts_with('{'), "{answer}");
    admitted.hold.delivered(world.engine());

    world.fault(Operation::Chat, Kind::FlexShortage);
    let mut call = flexible("stream me live").held();
    call.stream = true;
    let mut admitted = world.admit(&call).await;
    let mut tap = admitted.hold.tap().unwrap();
    while tap.next().await.is_some() {}
    let (outcome, answer) = world.done(admitted.request.key).await;
    assert_eq!(outcome.source, LIVE);
    assert!(answer.contains("[DONE]"), "{answer}");
    admitted.hold.delivered(world.engine());
    drop(tap);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_background_response_is_used_with_consent() {
    for (consent, store, within, source) in [
        (false, None, 3 * HOUR, LIVE),
        (false, Some(true), 3 * HOUR, TWO_HOURS),
        (true, None, 3 * HOUR, TWO_HOURS),
        (true, Some(false), 3 * HOUR, LIVE),
        (true, None, 12 * HOUR, EIGHT_HOURS),
        (false, Some(true), 12 * HOUR, EIGHT_HOURS),
    ] {
        let world = without_batches(consent).await;
        let key = world.ask(&response("q", store, "").within(within)).await;
        world.pass(MINUTE).await;
        let view = world.engine().view(key).await.unwrap().unwrap();
        let outcome = world.outcome(key).await;
        in_time(&outcome, key, within);
        assert_eq!(outcome.source, source, "{consent} {store:?}: {outcome:?}");
        assert_eq!(Some(view.lane()), source.lane());
        assert!(outcome.bill.is_some());
        world.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_background_response_is_not_asked_for_all_the_time() {
    let world = without_batches(true).await;
    world.ask(&response("q", None, "").within(12 * HOUR)).await;
    world.finish().await;
    let looks = world.sim.log().operations[&Operation::GetResponse];
    assert!((60..200).contains(&looks), "{looks} in three hours");
}

#[tokio::test(start_paused = true)]
async fn a_window_that_overruns_is_left_in_time() {
    for within in [150 * MINUTE, 3 * HOUR] {
        let world = with_two_hours().await;
        let by = 10 * HOUR;
        world.faults(Operation::Responses, Kind::Overrun { by }, 1);
        let outcome = answered(&world, &response("late", None, "").within(within), within).await;
        assert_eq!(outcome.source, LIVE);
        assert!(outcome.reason.contains("given up after"), "{outcome:?}");
        world.finish().await;
        let log = world.sim.log();
        assert_eq!(log.operations[&Operation::CancelResponse], 1);
        assert_eq!(world.sim.bill().calls(simulator::Lane::Background2h), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_background_response_that_fails_is_answered_on_the_next_rung() {
    let world = with_two_hours().await;
    let call = response("flaky", None, "flaky=1").within(3 * HOUR);
    let outcome = answered(&world, &call, 3 * HOUR).await;
    assert_ne!(outcome.source, TWO_HOURS);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn an_open_background_response_survives_a_kill() {
    let mut world = with_two_hours().await;
    let key = world.ask(&response("q", None, "").within(3 * HOUR)).await;
    world.pass(10 * MINUTE).await;
    world.restart(None).await;
    let view = world.engine().view(key).await.unwrap().unwrap();
    assert_eq!(view.lane(), Lane::Background2h);
    let outcome = world.outcome(key).await;
    assert_eq!(outcome.source, TWO_HOURS);
    let took = key.id.born().until(outcome.finished);
    assert!(took < 45 * MINUTE, "{took:?}");
    world.finish().await;
    assert_eq!(world.sim.log().operations[&Operation::Responses], 1);
}

#[tokio::test(start_paused = true)]
async fn a_create_that_nobody_saw_is_unaccounted() {
    let world = with_two_hours().await;
    world.fault(Operation::Responses, Kind::ReplyLost);
    let call = response("lost", None, "tokens=5").within(3 * HOUR);
    let outcome = answered(&world, &call, 3 * HOUR).await;
    assert_eq!(outcome.source, LIVE);
    world.finish_allowing(Allow::UNACCOUNTED).await;
    assert_eq!(world.ledger().await.unaccounted, 1);
}

#[tokio::test(start_paused = true)]
async fn who_cancels_pays_for_no_background_response() {
    for erased in [false, true] {
        let world = without_batches(true).await;
        let key = world.ask(&response("q", None, "").within(3 * HOUR)).await;
        world.pass(10 * MINUTE).await;
        if erased {
            world.engine().erase(key).await.unwrap();
        } else {
            world.engine().cancel(key).await.unwrap();
            assert_eq!(world.outcome(key).await.state, State::Cancelled);
        }
        world.pass(3 * HOUR).await;
        let log = world.sim.log();
        assert_eq!(log.operations[&Operation::CancelResponse], 1);
        assert_eq!(world.sim.bill().total_pico_usd, 0);
        assert_eq!(world.engine().gauges().backing_off, 0);
        world.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_cancel_during_a_look_goes_out_behind_it() {
    let world = without_batches(true).await;
    let late = Kind::Delay { by: 20 * SECOND };
    world.faults(Operation::GetResponse, late, 1_000);
    let looks = || {
        world
            .sim
            .log()
            .operations
            .get(&Operation::GetResponse)
            .copied()
    };
    let key = world.ask(&response("q", None, "").within(3 * HOUR)).await;
    world.pass(10 * MINUTE).await;
    let before = looks();
    while looks() == before {
        world.pass(SECOND).await;
    }
    world.engine().cancel(key).await.unwrap();
    world.pass(25 * SECOND).await;
    let cancels = world
        .sim
        .log()
        .operations
        .get(&Operation::CancelResponse)
        .copied();
    assert_eq!(cancels, Some(1));
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_cancel_that_is_not_heard_is_sent_again() {
    for erased in [false, true] {
        let world = without_batches(true).await;
        world.faults(Operation::CancelResponse, Kind::Reset, 3);
        let key = world.ask(&response("q", None, "").within(3 * HOUR)).await;
        world.pass(10 * MINUTE).await;
        match erased {
            true => drop(world.engine().erase(key).await.unwrap()),
            false => drop(world.engine().cancel(key).await.unwrap()),
        }
        world.pass(3 * HOUR).await;
        assert_eq!(world.sim.bill().total_pico_usd, 0, "erased: {erased}");
        world.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_stalls_is_rescued_into_the_background() {
    let world = world(|settings, _| {
        settings.ladder.background_may_store = true;
        // What hangs is believed at once: no fresh batch is worth a try.
        settings.rescue.prior_weight = 0.2;
        settings.rescue.budget_usd_per_day = Some("1".parse().unwrap());
    })
    .await;
    world.sim.inject(Fault {
        times: 100,
        ..Fault::once(Operation::CreateBatch, Kind::Slow { by: 30 * HOUR })
    });
    let within = 5 * HOUR;
    let call = |n: usize| response(&format!("q{n}"), None, "").within(within);
    let keys = world.ask_many(3, call).await;
    for key in &keys {
        let outcome = world.outcome(*key).await;
        in_time(&outcome, *key, within);
        assert_eq!(outcome.source, TWO_HOURS, "{outcome:?}");
        let reason = &outcome.reason;
        assert!(reason.starts_with("rescued: the batch"), "{reason}");
        assert!(reason.contains("background-2h, "), "{reason}");
    }
    world.finish().await;
    let ledger = world.ledger().await;
    assert_eq!((ledger.rescued, ledger.rescue_paid), (3, ledger.paid));
    let spent = world.engine().rescue_budget(keys[0].tenant)[0].spent;
    assert_eq!(spent, ledger.paid, "what it cost, not what it might have");
}

#[tokio::test(start_paused = true)]
async fn looks_that_hang_take_no_control_calls_from_others() {
    let world = world(|settings, sim| {
        background(settings, sim, true);
        settings.watch.polls_per_second = 0.1;
        settings.watch.poll_age_share = 0.0;
    })
    .await;
    world.faults(Operation::GetResponse, Kind::Hang, 9);
    let call = |n: usize| response(&format!("q{n}"), None, "").within(12 * HOUR);
    world.ask_many(10, call).await;
    let looks = || world.sim.log().operations[&Operation::GetResponse];
    world.pass(3 * MINUTE).await;
    let before = looks();
    world.pass(6 * MINUTE).await;
    let looks = looks() - before;
    assert!(looks > 25, "{looks} at the one that answers");
    world.finish().await;
}
