//! What a provider's bad night may cost.

use offpeak::{
    engine::Window,
    model::{
        batch::Batch,
        id::RequestKey,
        money::Usd,
        request::{OnLate, Outcome, Source},
    },
    simulator::{Kind, Operation},
};
use serde_json::json;

use super::{
    asking::{Ask, HOUR, MINUTE, ask},
    crash::How,
    world::{LIVE, World, refusal, succeeded},
};

fn usd(text: &str) -> Usd {
    text.parse().unwrap()
}

async fn per_day(limit: &str) -> World {
    World::with(|settings, _| settings.rescue.budget_usd_per_day = Some(usd(limit))).await
}

/// A provider whose batches take six hours.
async fn slow(limit: &str) -> World {
    let world = per_day(limit).await;
    world.faults(Operation::CreateBatch, Kind::Slow { by: 6 * HOUR }, 100);
    world
}

fn two_hours(text: impl Into<String>) -> Ask {
    ask(text).within(2 * HOUR)
}

fn split(outcomes: &[Outcome]) -> (Vec<&Outcome>, Vec<&Outcome>) {
    outcomes.iter().partition(|it| it.source == LIVE)
}

async fn reason(world: &World, key: RequestKey) -> String {
    world.engine().view(key).await.unwrap().unwrap().reason
}

/// Some are rescued, the others stay in their batch, late and flagged.
async fn run_out(world: &mut World, restart: bool) {
    let limit = usd("0.001");
    let keys = world.ask_many(300, |n| two_hours(format!("q{n}"))).await;
    let direct = world.ask(&ask("direct").within(MINUTE)).await;
    succeeded(&world.outcome(direct).await);
    assert_eq!(world.ledger().await.rescue_paid, Usd::ZERO, "no rescue");
    let before = reason(world, keys[299]).await;
    assert!(before.starts_with("batch, 2h left: "), "{before}");
    world.pass(3 * HOUR).await;
    let spent = world.ledger().await.rescue_paid;
    assert!(spent <= limit && spent > usd("0.0009"), "{spent} spent");
    assert_eq!(world.engine().rescue_budgets_spent(), 1);
    let mut told = String::new();
    for key in &keys {
        if world
            .store
            .head(*key)
            .await
            .unwrap()
            .unwrap()
            .outcome
            .is_none()
        {
            told = reason(world, *key).await;
        }
    }
    assert!(
        told.starts_with(
            "stays cheap and may be late: the rescue budget of $0.001 per day is spent \
             or committed until "
        ),
        "{told}"
    );
    if restart {
        world.restart(None).await;
        world.pass(HOUR).await;
    }
    let budget = world.engine().rescue_budget(keys[0].tenant);
    assert_eq!(budget.len(), 1);
    assert_eq!((budget[0].window, budget[0].spent), (Window::Day, spent));
    assert_eq!(budget[0].reserved, Usd::ZERO);
    assert!(budget[0].exhausted, "{budget:?}");

    let outcomes = world.all_done(&keys).await;
    outcomes.iter().for_each(succeeded);
    let (live, late) = split(&outcomes);
    assert!(live.len() > 20 && late.len() > 20, "{} live", live.len());
    for outcome in late {
        assert!(outcome.reason.contains("rescue budget"), "{outcome:?}");
    }
    assert_eq!(world.ledger().await.rescue_paid, spent, "it has stopped");
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn spending_stops_at_the_budget_and_nothing_is_lost() {
    run_out(&mut slow("0.001").await, false).await;
}

#[tokio::test(start_paused = true)]
async fn a_restart_does_not_forget_what_was_spent() {
    run_out(&mut slow("0.001").await, true).await;
}

#[tokio::test(start_paused = true)]
async fn what_the_budget_covers_is_rescued_as_ever() {
    let world = per_day("1").await;
    let never = |n: usize| ask(format!("q{n}")).sim("never").within(2 * HOUR);
    let keys = world.ask_many(50, never).await;
    for (key, outcome) in keys.iter().zip(world.all_done(&keys).await) {
        succeeded(&outcome);
        assert!(outcome.finished <= key.id.born() + 2 * HOUR);
    }
    world.finish().await;
    let ledger = world.ledger().await;
    assert_eq!((ledger.rescued, ledger.paid_twice, ledger.late), (50, 0, 0));
    assert_eq!(ledger.rescue_paid, ledger.paid);
    assert_eq!(world.engine().rescue_budgets_spent(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_rescues_cost_is_told_without_a_budget_too() {
    let world = World::new().await;
    let never = |n: usize| ask(format!("q{n}")).sim("never").within(2 * HOUR);
    let keys = world.ask_many(20, never).await;
    let direct = world.ask(&ask("direct").within(MINUTE)).await;
    let in_batch = world.ask(&ask("in a batch")).await;
    for key in [direct, in_batch] {
        succeeded(&world.outcome(key).await);
    }
    let paid = |outcomes: &[Outcome]| -> Usd {
        let bills = outcomes.iter().map(|outcome| outcome.bill.unwrap().paid);
        bills.sum()
    };
    let rescued = paid(&world.all_done(&keys).await);
    world.finish().await;
    let ledger = world.ledger().await;
    assert_eq!((ledger.rescued, ledger.rescue_paid), (20, rescued));
    assert!(ledger.rescue_paid > Usd::ZERO && ledger.rescue_paid < ledger.paid);
    assert_eq!(world.engine().rescue_budget(direct.tenant), []);
}

#[tokio::test(start_paused = true)]
async fn what_was_never_answered_is_rescued_when_the_budget_is_renewed() {
    let world = World::with(|settings, _| {
        settings.rescue.budget_usd_per_hour = Some(usd("0.00065"));
    })
    .await;
    let never = |n: usize| ask(format!("q{n}")).sim("never").within(2 * HOUR);
    let keys = world.ask_many(300, never).await;
    let begun = world.now();
    let mut hours = 0;
    while world.engine().counts().open() > 0 {
        let before = world.ledger().await.rescue_paid;
        world.pass(HOUR).await;
        hours += 1;
        let spent = world.ledger().await.rescue_paid - before;
        assert!(spent <= usd("0.00065"), "{spent} in an hour");
        assert!(hours < 20, "{:?}", world.engine().counts());
    }
    assert!(begun + 3 * HOUR < world.now(), "one budget was enough");
    let outcomes = world.all_done(&keys).await;
    outcomes.iter().for_each(succeeded);
    let (live, _) = split(&outcomes);
    assert_eq!(live.len(), 300);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn one_that_is_too_dear_for_the_budget_stays_behind_alone() {
    let world = slow("0.01").await;
    let body = json!({
        "model": "gpt-4o-mini", "max_tokens": 100_000,
        "messages": [{"role": "user", "content": "dear"}],    });
    let mut dear = two_hours("dear");
    dear.body = Some(body.to_string());
    let dear = world.ask(&dear).await;
    let keys = world.ask_many(5, |n| two_hours(format!("q{n}"))).await;
    world.pass(2 * HOUR).await;
    for outcome in world.all_done(&keys).await {
        assert_eq!(outcome.source, LIVE, "{outcome:?}");
        assert_eq!(outcome.state, offpeak::model::request::State::Succeeded);
    }
    let outcome = world.outcome(dear).await;
    succeeded(&outcome);
    assert!(matches!(outcome.source, Source::Batch(_)), "{outcome:?}");
    let creates = world.sim.log().operations[&Operation::CreateBatch];
    assert!(creates <= 10, "{creates} batches");
    world.finish().await;
}

/// What its last call made live, and is too dear for, comes back while its batch is
/// being settled, after that was read for what is left in it.
#[tokio::test(start_paused = true)]
async fn what_comes_back_while_its_batch_ends_is_not_left_in_it() {
    let world = slow("0.01").await;
    let dear = too_dear(&world).await;
    let ended = "put_batch that ended";
    world.trouble.on(ended, How::Slow(3 * HOUR), 1);
    world.pass(2 * HOUR).await;
    let running = running(&world).await;
    assert_eq!(running.len(), 1, "its end is being written");
    let lines = world.store.lines(running[0].id, None, 9).await.unwrap();
    assert_eq!(lines, [], "what is left in it has been read");
    succeeded(&world.outcome(dear).await);
    world.finish().await;
}

/// The same where the process dies before that.
#[tokio::test(start_paused = true)]
async fn a_restart_puts_a_refused_rescue_into_no_second_batch() {
    let mut world = slow("0.01").await;
    let dear = too_dear(&world).await;
    world.fault(Operation::CancelBatch, Kind::SlowCancel { by: 5 * HOUR });
    world.pass(30 * MINUTE).await;
    assert_eq!(world.engine().counts().live, 1, "its last call");
    world.restart(None).await;
    world.pass(MINUTE).await;
    let running = running(&world).await;
    assert_eq!(running.len(), 1);
    let lines = world.store.lines(running[0].id, None, 9).await.unwrap();
    assert_eq!(lines.len(), 1, "it is where it was");
    succeeded(&world.outcome(dear).await);
    world.finish().await;
}

async fn running(world: &World) -> Vec<Batch> {
    let mut batches = world.batches().await;
    batches.retain(|batch| batch.state.is_open());
    batches
}

/// A request that waits in a batch for its last call, a minute from here, and is too dear
/// for a rescue; that is found out an hour later.
async fn too_dear(world: &World) -> RequestKey {
    let dear = of_tokens("dear", 100_000).within(2 * HOUR);
    let dear = world.ask(&dear).await;
    world.pass(117 * MINUTE).await;
    world.trouble.on("live", How::Slow(HOUR), 1);
    dear
}

/// A call whose answer may have so many tokens, of $0.60 a million.
fn of_tokens(text: &str, tokens: u32) -> Ask {
    let body = json!({
        "model": "gpt-4o-mini", "max_tokens": tokens,
        "messages": [{"role": "user", "content": text}],
    });
    Ask {
        body: Some(body.to_string()),
        ..ask(text)
    }
}

#[tokio::test(start_paused = true)]
async fn a_dear_rescue_that_has_to_wait_holds_up_no_cheap_ones() {
    let world = World::with(|settings, _| {
        settings.rescue.budget_usd_per_day = Some(usd("0.1"));
        settings.live.timeout = 10 * HOUR;
    })
    .await;
    world.faults(Operation::CreateBatch, Kind::Slow { by: 30 * HOUR }, 1_000);
    let due = |minutes: u32| 2 * HOUR + minutes * MINUTE;
    // $0.09 are kept for it, and it takes its time: the next of $0.02 has to wait.
    world.fault(Operation::Chat, Kind::Delay { by: 4 * HOUR });
    let long = world.ask(&of_tokens("long", 150_000).within(due(0))).await;
    let dear = world.ask(&of_tokens("dear", 33_000).within(due(10))).await;
    let cheap = |n: usize| ask(format!("q{n}")).within(due(20 + n as u32));
    let keys = world.ask_many(10, cheap).await;
    for (n, key) in keys.iter().enumerate() {
        let outcome = world.outcome(*key).await;
        succeeded(&outcome);
        assert_eq!(outcome.source, LIVE);
        let within = key.id.born().until(outcome.finished);
        assert!(within <= due(20 + n as u32), "{n} after {within:?}");
    }
    let open = world.store.head(dear).await.unwrap().unwrap();
    assert_eq!(open.outcome, None, "its money is not there yet");
    let long = world.outcome(long).await;
    let dear = world.outcome(dear).await;
    assert_eq!((long.source, dear.source), (LIVE, LIVE));
    let waited = long.finished.until(dear.finished);
    assert!(waited < MINUTE, "{waited:?} after its money came back");
    world.finish().await;
    assert_eq!(world.engine().rescue_budgets_spent(), 0);
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_money_and_is_cancelled_makes_way() {
    let world = World::with(|settings, _| {
        settings.rescue.budget_usd_per_day = Some(usd("0.1"));
        settings.live.timeout = 10 * HOUR;
    })
    .await;
    world.faults(Operation::CreateBatch, Kind::Slow { by: 30 * HOUR }, 1_000);
    world.fault(Operation::Chat, Kind::Delay { by: 4 * HOUR });
    let due = |minutes: u32| 2 * HOUR + minutes * MINUTE;
    world.ask(&of_tokens("long", 80_000).within(due(0))).await;
    let first = world
        .ask(&of_tokens("first", 150_000).within(due(10)))
        .await;
    // Beside what the first in line waits for there is no room for it.
    let next = world.ask(&of_tokens("next", 60_000).within(due(20))).await;
    world.pass(due(20)).await;
    assert_eq!(world.engine().counts().live, 3);
    world.engine().cancel(first).await.unwrap();
    world.pass(MINUTE).await;
    assert_eq!(world.outcome(next).await.source, LIVE);
    assert_eq!(world.engine().counts().live, 1, "the long one runs");
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn who_would_rather_wait_is_not_stopped_by_it() {
    let world = per_day("0").await;
    let refused = refusal(403, None);
    world.faults(Operation::UploadFile, refused, 1_000);
    let key = world.ask(&ask("no batch").on_late(OnLate::Wait)).await;
    succeeded(&world.outcome(key).await);
    world.finish().await;
    // There was no hurry: nothing was rescued, and nothing paid for it.
    let ledger = world.ledger().await;
    assert_eq!((ledger.rescued, ledger.rescue_paid), (0, Usd::ZERO));
}
