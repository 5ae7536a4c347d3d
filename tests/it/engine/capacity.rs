//! What can be promised: as much as can run live, whatever it is that binds, and as
//! much as may be paid for.

use std::{sync::Arc, time::Duration};

use offpeak::{
    engine::{AdmitError, Refused, Settings},
    model::{
        attempt::Lane,
        request::{Guarantee, Request},
    },
    simulator::{self, Kind, Operation},
};

use super::{
    asking::{Ask, HOUR, MINUTE, SECOND, ask},
    promises::FOR_EVER,
    world::{World, succeeded},
};

fn is_firm(request: &Request) -> bool {
    request.cohort.guarantee == Guarantee::Firm
}

/// Batches never end here.
fn stall(world: &World) {
    let by = FOR_EVER;
    world.faults(Operation::CreateBatch, Kind::Slow { by }, u32::MAX);
}

async fn admit_all(world: &World, asks: impl IntoIterator<Item = Ask>) -> Vec<Arc<Request>> {
    let mut admitted = Vec::new();
    for ask in asks {
        admitted.push(world.admit(&ask).await.request);
    }
    admitted
}

/// How many were promised; all of them have an answer in time.
async fn kept(world: &World, requests: &[Arc<Request>]) -> usize {
    let mut firm = 0;
    for request in requests.iter().filter(|request| is_firm(request)) {
        let outcome = world.outcome(request.key).await;
        succeeded(&outcome);
        let late = request.deadline.until(outcome.finished);
        assert!(late.is_zero(), "{late:?} late: {outcome:?}");
        firm += 1;
    }
    firm
}

/// So many ordinary calls at a time, of 20 s each and said to take 24.
async fn few(
    at_a_time: u32,
    change: impl FnOnce(&mut Settings, &mut simulator::Settings),
) -> World {
    let world = World::with(|settings, sim| {
        settings.live.max_concurrent = at_a_time;
        settings.live.start_concurrent = at_a_time;
        settings.live.expected = 24 * SECOND;
        sim.latency.live_median = 20 * SECOND;
        change(settings, sim);
    })
    .await;
    stall(&world);
    world
}

/// About a thousand tokens each.
fn long(number: usize) -> Ask {
    let text = format!("q{number:03}{}", " word".repeat(800));
    ask(text).sim("tokens=5").within(40 * MINUTE)
}

/// Of its limits the provider tells with the first answer of a live call.
async fn learn_limits(world: &World) {
    let key = world.ask(&ask("first").within(MINUTE)).await;
    succeeded(&world.outcome(key).await);
}

/// Twelve thousand tokens a minute, less a tenth for calls that pass through and a
/// fifth for what nobody foresees: some eight calls a minute, and hundreds by number. A batch
/// has the first quarter of the time to itself.
async fn few_tokens() -> World {
    let world = World::with(|_, sim| sim.limits.tokens_per_minute = 12_000).await;
    stall(&world);
    learn_limits(&world).await;
    world
}

#[tokio::test(start_paused = true)]
async fn a_limit_of_tokens_bounds_what_is_promised() {
    let world = few_tokens().await;
    let requests = admit_all(&world, (0..500).map(long)).await;
    let firm = kept(&world, &requests).await;
    assert!((190..260).contains(&firm), "{firm} firm");
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_was_told_is_known_after_a_quiet_day_and_a_restart() {
    let mut world = few_tokens().await;
    world.pass(24 * HOUR).await;
    world.restart(None).await;
    let requests = admit_all(&world, (0..500).map(long)).await;
    let firm = kept(&world, &requests).await;
    assert!((190..260).contains(&firm), "{firm} firm");
}

/// As many as can be promised and more, all at once: none of them goes live before a batch
/// had its time to answer.
#[tokio::test(start_paused = true)]
async fn a_burst_stays_in_its_batches_for_a_quarter_of_its_time() {
    let world = few(4, |_, _| {}).await;
    let call = |number: usize| ask(format!("q{number:03}")).within(HOUR);
    let requests = admit_all(&world, (0..500).map(call)).await;
    world.pass(14 * MINUTE).await;
    assert_eq!(world.engine().counts().live, 0);
    world.pass(4 * MINUTE).await;
    assert!(world.engine().counts().live > 0, "they hang");
    let firm = kept(&world, &requests).await;
    assert!((300..500).contains(&firm), "{firm} firm");
}

/// Flex serves a few calls at a time, and firm work of the same scope is due just
/// after them in a batch that hangs.
#[tokio::test(start_paused = true)]
async fn flex_calls_make_room_for_firm_work_that_is_still_in_its_batch() {
    let world = few(4, |settings, sim| {
        settings.live.max_flex = 2;
        settings.ladder.batch.endpoints = vec!["/v1/responses".into()];
        settings.ladder.flex.endpoints = vec!["/v1/chat/completions".into()];
        sim.latency.live_median = 23 * SECOND;
        sim.latency.flex_median = 10 * MINUTE;
        sim.latency.flex_sigma = 0.0;
    })
    .await;
    let call = |name: &str, number: usize, within: Duration| Ask {
        model: "o3".into(),
        ..ask(format!("{name}{number:03}"))
            .sim("tokens=5")
            .within(within)
    };
    let batch = (0..100).map(|number| call("batch", number, HOUR).response());
    let mut requests = admit_all(&world, batch).await;
    world.pass(31 * MINUTE).await;
    let flex = (0..95).map(|number| call("flex", number, 28 * MINUTE));
    requests.extend(admit_all(&world, flex).await);
    let chosen = |lane: Lane| requests.iter().filter(|it| it.lane == lane).count();
    assert_eq!((chosen(Lane::Batch), chosen(Lane::Flex)), (100, 95));
    let firm = kept(&world, &requests).await;
    assert!(firm > 170, "{firm} firm");
}

/// Six scopes of two calls at a time each, and two calls in all.
#[tokio::test(start_paused = true)]
async fn all_scopes_share_what_can_run_at_once() {
    let world = few(2, |settings, _| settings.live.max_total = 2).await;
    let call = |number: usize| {
        let key = format!("sk-{}", number % 6);
        ask(format!("q{number:03}")).within(40 * MINUTE).key(&key)
    };
    let requests = admit_all(&world, (0..300).map(call)).await;
    let firm = kept(&world, &requests).await;
    // Four fifths of two calls of 24 s at a time, behind the first quarter of the time.
    assert!((90..125).contains(&firm), "{firm} firm");
}

/// Asked for at the same time, while the provider takes its time to say that it has
/// the model: each that is let in is promised.
#[tokio::test(start_paused = true)]
async fn strict_calls_that_come_together_are_promised_or_refused() {
    let world = few(1, |settings, _| settings.admission.model_check = true).await;
    world.fault(Operation::GetModel, Kind::Slow { by: SECOND });
    let engine = world.engine();
    let calls = (0..100).map(|number| {
        let asked = ask(format!("q{number:03}")).within(30 * MINUTE);
        let call = asked.call(engine);
        engine.admit(offpeak::engine::Call {
            strict: true,
            ..call
        })
    });
    let admitted = futures_util::future::join_all(calls).await;
    let mut firm = 0;
    for admitted in admitted {
        match admitted {
            Ok(admitted) => {
                assert!(is_firm(&admitted.request), "let in without a promise");
                firm += 1;
            }
            Err(AdmitError::Refused(Refused::NotFirm)) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert!((30..49).contains(&firm), "{firm} firm");
}

/// Ten rescues an hour can be paid for.
#[tokio::test(start_paused = true)]
async fn what_the_budget_does_not_cover_is_not_promised() {
    let world = World::with(|settings, _| {
        settings.rescue.budget_usd_per_hour = Some("0.0065".parse().unwrap());
    })
    .await;
    stall(&world);
    let call = |name: &str, number: usize, within: Duration| {
        ask(format!("{name}{number:03}"))
            .sim("tokens=5")
            .within(within)
    };
    let due = |requests: &[Arc<Request>]| {
        let firm = requests.iter().filter(|request| is_firm(request));
        firm.count()
    };
    let first = admit_all(&world, (0..40).map(|n| call("a", n, 2 * HOUR))).await;
    let second = admit_all(&world, (0..40).map(|n| call("b", n, 4 * HOUR))).await;
    // A thousand tokens of output are reckoned with, as long as none was seen.
    assert_eq!(
        (due(&first), due(&second)),
        (10, 10),
        "each hour has its money"
    );
    let direct = world.admit(&call("c", 0, 3 * MINUTE)).await.request;
    assert!(is_firm(&direct), "no rescue");
    for requests in [&[direct][..], &first, &second] {
        kept(&world, requests).await;
    }
}

/// Those that are due first come first: when the first goes into flex, nothing was
/// promised to the others yet.
#[tokio::test(start_paused = true)]
async fn flex_calls_leave_sooner_when_more_is_promised() {
    let world = few(1, |settings, sim| {
        settings.live.expected = 20 * SECOND;
        settings.rescue.reserve = 2 * MINUTE;
        // All of them are in flex at the same time.
        settings.live.start_concurrent = 64;
        sim.latency.live_median = 19 * SECOND;
        sim.latency.flex_median = 14 * MINUTE;
        sim.latency.flex_sigma = 0.0;
    })
    .await;
    let call = |number: usize| Ask {
        model: "o3".into(),
        ..ask(format!("q{number:03}"))
            .sim("tokens=5")
            .within(5 * MINUTE + number as u32 * 10 * SECOND)
    };
    let mut requests = Vec::new();
    for number in 0..30 {
        requests.push(world.admit(&call(number)).await.request);
        world.pass(SECOND).await;
    }
    assert!(requests.iter().all(|it| it.lane == Lane::Flex));
    let firm = kept(&world, &requests).await;
    assert!((12..25).contains(&firm), "{firm} firm");
}

/// A live call names the organization of its key; it is remembered.
#[tokio::test(start_paused = true)]
async fn keys_of_one_organization_share_what_is_promised_after_a_restart() {
    let mut world = few(1, |_, _| {}).await;
    let keys = ["sk-acme.one", "sk-acme.two"];
    for key in keys {
        let live = ask(key).within(MINUTE).key(key);
        succeeded(&world.outcome(world.ask(&live).await).await);
    }
    world.restart(None).await;
    let call = |number: usize| {
        ask(format!("q{number:03}"))
            .within(20 * MINUTE)
            .key(keys[number % 2])
    };
    let requests = admit_all(&world, (0..80).map(call)).await;
    let firm = kept(&world, &requests).await;
    // Four fifths of a call of some 20 s at a time, behind the first quarter of the time; of one key
    // alone as many.
    assert!((25..38).contains(&firm), "{firm} firm");
}
