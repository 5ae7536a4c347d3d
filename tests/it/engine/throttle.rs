//! A provider that pushes back: by scope, and never more than it bears.

use offpeak::{engine::LiveScope, model::endpoint::Endpoint, simulator::Operation};

use super::{
    asking::{Ask, MINUTE, SECOND, ask},
    world::{LIVE, World, refusal, succeeded},
};

fn soon(text: String) -> Ask {
    ask(text).within(20 * MINUTE)
}

fn embedding(number: usize) -> Ask {
    let model = "text-embedding-3-small";
    let body = format!(r#"{{"model":"{model}","input":"text {number}"}}"#);
    let mut call = soon(format!("e{number}"));
    (call.model, call.body, call.endpoint) = (model.into(), Some(body), Endpoint::Embeddings);
    call
}

fn chats(world: &World) -> u64 {
    let log = world.sim.log();
    log.operations.get(&Operation::Chat).copied().unwrap_or(0)
}

fn scope(world: &World, model: &str) -> LiveScope {
    let mut scopes = world.engine().live_scopes().into_iter();
    scopes.find(|scope| scope.model == model).unwrap()
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_during_a_pause_and_all_is_answered_in_time() {
    let world = World::live_only(|settings, _| settings.live.start_concurrent = 8).await;
    world.faults(Operation::Chat, refusal(429, Some(60)), 20);
    let keys = world.ask_many(100, |n| soon(format!("q{n}"))).await;
    world.pass(SECOND).await;
    let sent = chats(&world);
    assert!((1..=8).contains(&sent), "{sent} before the first refusal");
    world.pass(58 * SECOND).await;
    assert_eq!(chats(&world), sent, "during the pause");
    for (key, outcome) in keys.iter().zip(world.all_done(&keys).await) {
        succeeded(&outcome);
        assert!(outcome.finished <= key.id.born() + 20 * MINUTE);
    }
    assert_eq!(chats(&world), 120);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_scope_that_is_throttled_delays_no_other() {
    let world = World::live_only(|_, _| {}).await;
    world.fault(Operation::Embeddings, refusal(429, Some(600)));
    let throttled = world
        .ask_many(500, |n| embedding(n).within(15 * MINUTE))
        .await;
    world.pass(SECOND).await;
    let keys = world.ask_many(20, |n| soon(format!("q{n}"))).await;
    for outcome in world.all_done(&keys).await {
        succeeded(&outcome);
        assert!(outcome.finished < keys[0].id.born() + 10 * SECOND, "waited");
    }
    for (key, outcome) in throttled.iter().zip(world.all_done(&throttled).await) {
        succeeded(&outcome);
        assert!(outcome.finished <= key.id.born() + 15 * MINUTE);
    }
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn one_scope_of_two_queues_goes_by_deadline() {
    let world = World::live_only(|settings, _| settings.live.max_concurrent = 1).await;
    let in_the_way = soon("in the way".into()).sim("slow=30s");
    let first = world.ask(&in_the_way.within(MINUTE)).await;
    world.pass(SECOND).await;
    // Even ones are chats, odd ones responses; the later asked, the sooner due.
    let keys = world
        .ask_many(10, |n| {
            let mut call = soon(format!("q{n}")).within(15 * MINUTE - n as u32 * SECOND);
            if n % 2 == 1 {
                call.endpoint = Endpoint::Responses;
                call.body = Some(format!(r#"{{"model":"gpt-4o-mini","input":"q{n}"}}"#));
            }
            call
        })
        .await;
    let outcomes = world.all_done(&keys).await;
    for pair in outcomes.windows(2) {
        assert!(pair[0].finished > pair[1].finished, "out of order");
    }
    succeeded(&world.outcome(first).await);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_limit_falls_with_refusals_and_recovers() {
    let world = World::live_only(|_, _| {}).await;
    let slow = |n: usize| soon(format!("q{n}")).sim("slow=5s");
    let keys = world.ask_many(200, slow).await;
    world.all_done(&keys).await;
    assert_eq!(scope(&world, "gpt-4o-mini").limit, 64);
    world.faults(Operation::Chat, refusal(503, None), 30);
    let keys = world.ask_many(40, slow).await;
    world.pass(SECOND).await;
    let fallen = scope(&world, "gpt-4o-mini");
    assert!(fallen.limit < 64, "{fallen:?}");
    world.all_done(&keys).await;
    let more = |n: usize| slow(n + 1_000);
    let keys = world.ask_many(2_000, more).await;
    for outcome in world.all_done(&keys).await {
        succeeded(&outcome);
    }
    let recovered = scope(&world, "gpt-4o-mini");
    assert_eq!(recovered.limit, 64, "{recovered:?}");
    assert_eq!(recovered.in_flight, 0);
    // 64 calls at a time, of a little under six seconds each.
    assert!((9.0..13.0).contains(&recovered.capacity), "{recovered:?}");
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_sick_provider_is_not_stormed() {
    let world = World::live_only(|_, _| {}).await;
    world.faults(Operation::Chat, refusal(500, None), 1_000_000);
    let keys = world.ask_many(60, |n| soon(format!("q{n}"))).await;
    world.pass(10 * MINUTE).await;
    let sent = chats(&world);
    assert!(
        (150..=171).contains(&sent),
        "60, ten, and ten a minute: {sent}"
    );
    world.sim.clear_faults();
    for (key, outcome) in keys.iter().zip(world.all_done(&keys).await) {
        succeeded(&outcome);
        assert!(outcome.finished <= key.id.born() + 20 * MINUTE);
    }
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn rate_limits_are_kept_and_a_share_is_left_to_others() {
    let world = World::live_only(|_, sim| sim.limits.requests_per_minute = 60).await;
    let keys = world.ask_many(150, |n| soon(format!("q{n}"))).await;
    let outcomes = world.all_done(&keys).await;
    outcomes.iter().for_each(succeeded);
    assert_eq!(chats(&world), 150, "none was refused");
    let last = outcomes.iter().map(|outcome| outcome.finished).max();
    let took = keys[0].id.born().until(last.unwrap());
    assert!(took < 2 * MINUTE, "as fast as it may be: {took:?}");
    // 54 of the 60 at once, then one a second.
    assert!(took > 90 * SECOND, "six are left to others: {took:?}");
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn keys_of_one_organization_share_what_it_may() {
    let world = World::live_only(|_, _| {}).await;
    let of = |key: &str, n: usize| soon(format!("{key} {n}")).key(key);
    for key in ["sk-acme.one", "sk-acme.two"] {
        succeeded(&world.outcome(world.ask(&of(key, 0)).await).await);
    }
    let scopes = world.engine().live_scopes();
    assert_eq!(scopes.len(), 1, "{scopes:?}");
    assert_eq!(scopes[0].organization.as_deref(), Some("org-acme"));
    world.fault(Operation::Chat, refusal(429, Some(60)));
    let refused = world.ask(&of("sk-acme.one", 1)).await;
    world.pass(SECOND).await;
    let other = world.ask(&of("sk-acme.two", 1)).await;
    let begun = world.now();
    for key in [refused, other] {
        let outcome = world.outcome(key).await;
        assert_eq!(outcome.source, LIVE);
        assert!(
            outcome.finished > begun + 58 * SECOND,
            "the pause is theirs"
        );
    }
}
