//! The monthly budget of issued keys against the provider's own bill: whatever callers do,
//! what is booked and kept covers what was billed or may be.

use offpeak::{
    engine::{AdmitError, Engine, NewKey, Refused, Spent},
    model::{
        id::{KeyId, RequestKey},
        money::Usd,
        request::{Source, State},
    },
    simulator::{Kind, Operation},
};
use proptest::prelude::*;
use serde_json::json;

use super::{
    asking::{Ask, HOUR, MINUTE, SECOND, ask},
    issued::{issue, issuing, named, upstreams, usd},
    world::{self, World, on_virtual_time, succeeded},
};

/// One that `config/prices.toml` has no price for.
const UNPRICED: &str = world::OF_THE_HOUSE;
const PRICED: &str = "gpt-4o-mini";

async fn budgeted(world: &World, budget: &str) -> (KeyId, String) {
    let wanted = NewKey {
        monthly_budget: Some(usd(budget)),
        ..named("app")
    };
    issue(world, wanted).await
}

fn spent(engine: &Engine, id: KeyId) -> Spent {
    let keys = engine.issued_keys();
    let key = keys.iter().find(|key| key.issued.id == id).unwrap();
    engine.spent_this_month(key)
}

fn covered(engine: &Engine, id: KeyId) -> Usd {
    let spent = spent(engine, id);
    spent.paid + spent.reckoned + spent.reserved
}

/// The provider's own bill.
fn billed(world: &World) -> Usd {
    Usd::from_pico(i128::from(world.sim.bill().total_pico_usd))
}

/// A call that may answer in so many tokens, and does answer in all of them.
fn call(key: &str, model: &str, text: &str, tokens: u64) -> Ask {
    let body = json!({
        "model": model,
        "messages": [{"role": "user", "content": text}],
        "metadata": {"sim": format!("tokens={tokens}")},
        "max_tokens": tokens,
    });
    Ask {
        model: model.into(),
        body: Some(body.to_string()),
        ..ask(text).key(key)
    }
}

/// Takes the call in, where the budget covers it.
async fn admit(world: &World, ask: &Ask) -> Option<RequestKey> {
    match world.engine().admit(ask.call(world.engine())).await {
        Ok(admitted) => {
            world.note(admitted.request.key, &ask.text);
            Some(admitted.request.key)
        }
        Err(AdmitError::Refused(Refused::Budget(_))) => None,
        Err(other) => panic!("{other}"),
    }
}

async fn fill(world: &World, of: impl Fn(usize) -> Ask) -> Vec<RequestKey> {
    let mut taken = Vec::new();
    while let Some(key) = admit(world, &of(taken.len())).await {
        taken.push(key);
        assert!(taken.len() < 1_000, "there is no end to it");
    }
    taken
}

#[tokio::test(start_paused = true)]
async fn a_model_without_a_price_spends_the_budget_at_the_dearest() {
    let mut world = issuing().await;
    let (id, key) = budgeted(&world, "10").await;
    let mut count = 0;
    for round in 0.. {
        assert!(
            round < 20,
            "it costs nothing: {:?}",
            spent(world.engine(), id)
        );
        let of = |number| call(&key, UNPRICED, &format!("{round} {number}"), 1_000);
        let taken = fill(&world, of).await;
        if taken.is_empty() {
            break;
        }
        count += taken.len();
        for outcome in world.all_done(&taken).await {
            succeeded(&outcome);
        }
    }
    let of = spent(world.engine(), id);
    assert!(count >= 15, "{count}");
    assert!(
        billed(&world) > Usd::ZERO && billed(&world) <= of.reckoned,
        "{of:?}"
    );
    // It is in no sum of what was paid, here or there.
    assert_eq!(of.paid, Usd::ZERO);
    let ledger = world.ledger().await;
    assert_eq!((ledger.paid, ledger.standard), (Usd::ZERO, Usd::ZERO));
    assert_eq!(ledger.unpriced, count as u64);
    world.restart(None).await;
    assert_eq!(spent(world.engine(), id), of);
    assert_eq!(
        admit(&world, &call(&key, UNPRICED, "more", 1_000)).await,
        None
    );
    world.at_rest().await;
}

/// It has a price in ordinary calls, and none in batches; the dearest of all would be
/// fifteen times as much.
#[tokio::test(start_paused = true)]
async fn a_lane_without_a_price_spends_the_budget_at_the_models_own() {
    const MODEL: &str = "gpt-4-1106-preview";
    let mut world = World::with(|_, provider| {
        let sold = provider.models["gpt-4-turbo"];
        provider.models.insert(MODEL.into(), sold);
    })
    .await;
    world.upstreams = Some(upstreams(&[("default", "sk-acme.upstream")]));
    world.restart(None).await;
    let (id, key) = budgeted(&world, "10").await;
    let one = call(&key, MODEL, "in a batch", 10_000);
    let one = admit(&world, &one).await.unwrap();
    let kept = spent(world.engine(), id).reserved;
    let outcome = world.outcome(one).await;
    succeeded(&outcome);
    assert!(matches!(outcome.source, Source::Batch(_)), "{outcome:?}");
    assert_eq!(outcome.bill, None);
    // $10 and $30 a million tokens: twice what the batch was sold at.
    let usage = outcome.usage;
    let own = Usd::from_pico(10_000_000).times(usage.input)
        + Usd::from_pico(30_000_000).times(usage.output);
    let of = spent(world.engine(), id);
    assert_eq!((of.paid, of.reckoned), (Usd::ZERO, own));
    assert_eq!(own, billed(&world).times(2));
    assert!(own <= kept, "{own} of {kept}");
    world.restart(None).await;
    assert_eq!(spent(world.engine(), id), of);
    assert_eq!(world.ledger().await.unpriced, 1);
}

/// More rows of one month than are read together.
#[tokio::test(start_paused = true)]
async fn every_row_of_the_month_is_read_back() {
    const MODELS: usize = 520;
    let of = |number: usize| format!("a-model-{number}");
    let mut world = World::with(|_, provider| {
        let sold = provider.models["gpt-4o"];
        let models = (0..MODELS).map(|number| (of(number), sold));
        provider.models.extend(models);
    })
    .await;
    world.upstreams = Some(upstreams(&[("default", "sk-acme.upstream")]));
    world.restart(None).await;
    let (id, key) = budgeted(&world, "1000").await;
    let mut taken = Vec::new();
    for number in 0..MODELS {
        let one = call(&key, &of(number), "at once", 10).within(MINUTE);
        taken.push(admit(&world, &one).await.unwrap());
    }
    world.all_done(&taken).await.iter().for_each(succeeded);
    let before = spent(world.engine(), id);
    assert!(before.reckoned > Usd::ZERO);
    world.restart(None).await;
    assert_eq!(spent(world.engine(), id), before);
}

#[tokio::test(start_paused = true)]
async fn what_is_cancelled_or_erased_keeps_its_money_while_its_batch_runs() {
    let mut world = issuing().await;
    let (id, key) = budgeted(&world, "0.05").await;
    let of = |number: usize| call(&key, PRICED, &format!("q{number}"), 10_000);
    let taken = fill(&world, of).await;
    assert!(taken.len() >= 6, "{}", taken.len());
    world.submitted().await;
    let full = spent(world.engine(), id);
    for (number, one) in taken.iter().enumerate() {
        world.engine().cancel(*one).await.unwrap();
        if number % 2 == 0 {
            world.engine().erase(*one).await.unwrap();
        }
        assert_eq!(spent(world.engine(), id), full, "after {number}");
    }
    let again = |number: usize| call(&key, PRICED, &format!("again {number}"), 10_000);
    assert_eq!(admit(&world, &again(0)).await, None);
    world.restart(None).await;
    assert_eq!(spent(world.engine(), id), full);
    assert_eq!(admit(&world, &again(1)).await, None);
    // The batch has ended and is booked: what it did not cost is free again.
    world.pass(HOUR).await;
    let after = spent(world.engine(), id);
    assert_eq!(after.reserved, Usd::ZERO);
    assert_eq!(
        (after.paid, after.paid),
        (billed(&world), world.ledger().await.paid)
    );
    let room = fill(&world, again).await;
    assert!(
        !room.is_empty() && room.len() < taken.len(),
        "{}",
        room.len()
    );
    world.finish().await;
    assert!(billed(&world) <= usd("0.05"), "{}", billed(&world));
}

#[tokio::test(start_paused = true)]
async fn a_line_that_left_before_its_batch_was_made_keeps_nothing() {
    let world = issuing().await;
    let (id, key) = budgeted(&world, "0.05").await;
    let one = admit(&world, &call(&key, PRICED, "q", 10_000))
        .await
        .unwrap();
    world.engine().erase(one).await.unwrap();
    let spent = spent(world.engine(), id);
    assert_eq!((spent.paid, spent.reserved), (Usd::ZERO, Usd::ZERO));
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_live_call_keeps_its_money_until_it_has_ended() {
    for erased in [false, true] {
        for killed in [false, true] {
            let mut world = issuing().await;
            let (id, key) = budgeted(&world, "0.008").await;
            let slow = |text: &str| {
                let mut ask = call(&key, PRICED, text, 10_000);
                ask.body = ask
                    .body
                    .map(|body| body.replace("tokens=", "slow=30s,tokens="));
                ask.within(2 * MINUTE)
            };
            let one = admit(&world, &slow("one")).await.unwrap();
            world.pass(5 * SECOND).await;
            assert!(billed(&world) > Usd::ZERO, "it has begun");
            let full = spent(world.engine(), id);
            world.engine().cancel(one).await.unwrap();
            if erased {
                world.engine().erase(one).await.unwrap();
            }
            assert_eq!(spent(world.engine(), id), full);
            if killed {
                world.restart(None).await;
                // Nobody saw its end: it counts as if it had been billed.
                let lost = spent(world.engine(), id);
                assert_eq!((lost.paid, lost.reckoned), (Usd::ZERO, full.reserved));
            }
            assert_eq!(admit(&world, &slow("two")).await, None);
            world.pass(MINUTE).await;
            let after = spent(world.engine(), id);
            assert_eq!(after.reserved, Usd::ZERO);
            assert!(after.paid + after.reckoned >= billed(&world), "{after:?}");
            if !killed {
                assert_eq!((after.paid, after.reckoned), (billed(&world), Usd::ZERO));
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn open_calls_are_reckoned_each_by_its_own_bound() {
    let mut world = issuing().await;
    let (id, key) = budgeted(&world, "0.61").await;
    // 0.06 each, of 100,000 tokens at 0.60 a million.
    let taken = fill(&world, |number| {
        call(&key, PRICED, &format!("{number}"), 100_000)
    })
    .await;
    assert_eq!(taken.len(), 10);
    let full = spent(world.engine(), id);
    assert!(
        full.reserved > usd("0.6") && full.reserved <= usd("0.61"),
        "{full:?}"
    );
    world.restart(None).await;
    assert_eq!(spent(world.engine(), id), full);
    assert_eq!(
        admit(&world, &call(&key, PRICED, "more", 100_000)).await,
        None
    );
    world.all_done(&taken).await;
    world.finish().await;
}

/// The mean is 1,000 tokens where none was seen.
#[tokio::test(start_paused = true)]
async fn of_several_choices_each_is_reckoned() {
    let world = issuing().await;
    let of = |n: u64, key: &str| {
        let body = json!({"model": PRICED, "n": n,
            "messages": [{"role": "user", "content": "hi"}]});
        Ask {
            body: Some(body.to_string()),
            ..ask("hi").key(key)
        }
    };
    let mut kept = Vec::new();
    for n in [1, 20] {
        let (id, key) = budgeted(&world, "1").await;
        admit(&world, &of(n, &key)).await.unwrap();
        kept.push(spent(world.engine(), id).reserved);
    }
    assert!(
        kept[0] >= usd("0.0006") && kept[1] >= usd("0.012"),
        "{kept:?}"
    );
}

/// The batch runs on beside the live calls for its lines, and both may be billed.
#[tokio::test(start_paused = true)]
async fn what_went_live_beside_its_batch_is_kept_for_both() {
    let mut world = World::with(|_, provider| provider.latency.cancel = 6 * HOUR).await;
    world.upstreams = Some(upstreams(&[("default", "sk-acme.upstream")]));
    world.restart(None).await;
    let (id, key) = budgeted(&world, "1").await;
    let mut hung = call(&key, PRICED, "hangs", 10_000);
    hung.body = hung
        .body
        .map(|body| body.replace("tokens=", "slow=300s,never,tokens="));
    let one = admit(&world, &hung.within(2 * HOUR)).await.unwrap();
    let alone = spent(world.engine(), id).reserved;
    let outcome = world.outcome(one).await;
    assert!(matches!(outcome.source, Source::Live(_)), "{outcome:?}");
    assert_eq!(outcome.state, State::Succeeded);
    // Its batch has not ended, and bills what it may have run.
    let beside = spent(world.engine(), id);
    assert!(beside.paid > Usd::ZERO);
    assert_eq!(beside.reserved, alone);
    world.pass(48 * HOUR).await;
    let after = spent(world.engine(), id);
    assert_eq!(after.reserved, Usd::ZERO);
    assert!(after.paid >= billed(&world), "{after:?}");
}

/// A key's tenant may be known before one of its keys has a budget.
#[tokio::test(start_paused = true)]
async fn calls_from_before_the_budget_count_by_their_own_bounds() {
    let mut world = issuing().await;
    let of = |monthly_budget| NewKey {
        tenant: Some("acme".into()),
        monthly_budget,
        ..named("app")
    };
    let (first, key) = issue(&world, of(None)).await;
    admit(&world, &call(&key, PRICED, "before", 100_000))
        .await
        .unwrap();
    let full = spent(world.engine(), first);
    assert!(full.reserved > usd("0.06"), "{full:?}");
    world.restart(None).await;
    let (second, key) = issue(&world, of(Some(usd("0.1")))).await;
    assert_eq!(spent(world.engine(), second), full);
    assert_eq!(
        admit(&world, &call(&key, PRICED, "after", 100_000)).await,
        None
    );
    world.finish().await;
}

#[derive(Clone, Debug)]
enum Step {
    Admit {
        unpriced: bool,
        tokens: u64,
        minutes: u64,
    },
    Cancel(prop::sample::Index),
    Erase(prop::sample::Index),
    Pass {
        seconds: u64,
    },
    Submit,
    LoseAnAnswer,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let admit = (
        any::<bool>(),
        1u64..20_000,
        prop::sample::select(vec![1, 5, 60, 360]),
    );
    prop_oneof![
        6 => admit.prop_map(|(unpriced, tokens, minutes)| Step::Admit { unpriced, tokens, minutes }),
        2 => any::<prop::sample::Index>().prop_map(Step::Cancel),
        2 => any::<prop::sample::Index>().prop_map(Step::Erase),
        3 => (1u64..4_000).prop_map(|seconds| Step::Pass { seconds }),
        2 => Just(Step::Submit),
        1 => Just(Step::LoseAnAnswer),
        1 => Just(Step::Restart),
    ]
}

async fn play(steps: Vec<Step>) {
    let budget = usd("30");
    let mut world = issuing().await;
    let (id, key) = budgeted(&world, "30").await;
    let mut taken = Vec::new();
    for (number, step) in steps.into_iter().enumerate() {
        match step {
            Step::Admit {
                unpriced,
                tokens,
                minutes,
            } => {
                let model = if unpriced { UNPRICED } else { PRICED };
                let ask = call(&key, model, &format!("q{number}"), tokens);
                let ask = ask.within(minutes as u32 * MINUTE);
                if let Some(one) = admit(&world, &ask).await {
                    taken.push(one);
                    let all = covered(world.engine(), id);
                    assert!(all <= budget, "{all} with {}", one.id);
                }
            }
            Step::Cancel(index) if !taken.is_empty() => {
                let one = taken[index.index(taken.len())];
                world.engine().cancel(one).await.unwrap();
            }
            Step::Erase(index) if !taken.is_empty() => {
                let one = taken.swap_remove(index.index(taken.len()));
                world.engine().erase(one).await.unwrap();
            }
            Step::Cancel(_) | Step::Erase(_) => {}
            Step::Pass { seconds } => world.pass(seconds as u32 * SECOND).await,
            Step::Submit => {
                world.engine().flush();
                world.pass(10 * SECOND).await;
            }
            Step::LoseAnAnswer => world.fault(Operation::Chat, Kind::ReplyLost),
            Step::Restart => world.restart(None).await,
        }
        let (covered, billed) = (covered(world.engine(), id), billed(&world));
        assert!(covered >= billed, "{number}: {covered} for {billed}");
    }
    world.sim.clear_faults();
    world.at_rest().await;
    world.check_counts().await;
    let after = spent(world.engine(), id);
    assert_eq!(after.reserved, Usd::ZERO, "nothing is left open");
    assert!(after.paid + after.reckoned >= billed(&world), "{after:?}");
    world.restart(None).await;
    assert_eq!(spent(world.engine(), id), after);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// What is booked and kept covers the bill at any time, and no call is taken in that
    /// passes the budget.
    #[test]
    fn what_is_booked_and_kept_covers_the_bill(steps in prop::collection::vec(step(), 1..40)) {
        on_virtual_time(play(steps));
    }
}
