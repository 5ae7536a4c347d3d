//! The provider's own bill and our ledger agree to the last picodollar, by key, model and
//! lane. The provider's prices are a list of its own.

use std::collections::BTreeMap;

use offpeak::{
    engine::Settings,
    ledger::{Metered, Prices, Tier},
    model::{
        attempt::Lane,
        endpoint::Endpoint,
        ledger::LedgerRow,
        money::Usd,
        request::{OnLate, Outcome, Source, State, Usage},
    },
    simulator::{self, Kind, Operation, Tariff, key_id},
};
use serde_json::json;

use super::{
    asking::{Ask, HOUR, MINUTE, SECOND, ask, credential},
    world::{World, refusal, succeeded},
};

const KEYS: [&str; 2] = ["sk-test", "sk-other"];
/// A prompt above it is dearer, where the model has such prices.
const LONG: &str = "prompt=272001";

/// Key, model and lane.
type Row = (String, String, String);

/// What is charged, and for which tokens.
#[derive(Debug, Default, PartialEq)]
struct Charge {
    pico_usd: i128,
    usage: Usage,
}

/// Half of the prompts are found in a cache, in part, and in part written to it; each
/// model has batches or another cheap lane.
async fn world(change: impl FnOnce(&mut Settings, &mut simulator::Settings)) -> World {
    World::with(|settings, sim| {
        sim.cache.share = 0.5;
        sim.latency.flex_sigma = 0.0;
        sim.latency.background_sigma = 0.0;
        sim.latency.background_8h_median = 3 * HOUR;
        sim.latency.background_2h_median = 40 * MINUTE;
        let ladder = &mut settings.ladder;
        ladder.background_may_store = true;
        ladder.batch.models = ["gpt-6-*", "gpt-5.4", "gpt-5", "gpt-4o-mini", "text-*"]
            .map(str::to_owned)
            .to_vec();
        ladder.background_8h.median = 3 * HOUR;
        for lane in [&mut ladder.background_8h, &mut ladder.background_2h] {
            lane.models = vec!["gpt-4.1".into()];
        }
        change(settings, sim);
    })
    .await
}

fn to(model: &str, text: String) -> Ask {
    Ask {
        model: model.into(),
        ..ask(text)
    }
}

/// By the key that pays.
fn charged(world: &World) -> BTreeMap<Row, Charge> {
    let rows = world.sim.bill().rows.into_iter().map(|row| {
        let lane = json!(row.lane).as_str().unwrap().to_owned();
        let charge = Charge {
            pico_usd: row.pico_usd.into(),
            usage: Usage {
                input: row.prompt_tokens,
                cached: row.cached_tokens,
                cache_write: row.written_tokens,
                output: row.completion_tokens,
            },
        };
        ((row.key, row.model, lane), charge)
    });
    rows.collect()
}

async fn booked(world: &World) -> BTreeMap<Row, Charge> {
    let mut booked: BTreeMap<Row, Charge> = BTreeMap::new();
    for key in KEYS {
        let tenant = world.engine().caller(credential(key)).tenant;
        for (row, sums) in world.rows_of(tenant).await {
            if sums.usage == Usage::default() {
                assert_eq!(sums.paid.as_pico(), 0, "{row:?} {sums:?}");
                continue;
            }
            let lane = row.lane.expect("what has tokens had a lane").to_string();
            let charge = booked.entry((key_id(key), row.model, lane)).or_default();
            charge.pico_usd += sums.paid.as_pico();
            charge.usage += sums.usage;
        }
    }
    booked
}

/// Everything that was bought, and what it is known by.
async fn agree(world: &World) -> LedgerRow {
    let (charged, booked) = (charged(world), booked(world).await);
    assert_eq!(booked, charged);
    let ledger = world.ledger().await;
    assert_eq!((ledger.unpriced, ledger.unaccounted), (0, 0), "{ledger:?}");
    ledger
}

#[tokio::test(start_paused = true)]
async fn every_lane_with_what_a_cache_has_and_takes() {
    let world = world(|_, _| {}).await;
    let mut keys = Vec::new();
    for n in 0..40 {
        let key = KEYS[n % 2];
        let long = match n % 4 {
            0 => format!("{LONG} tokens=9"),
            _ => String::new(),
        };
        for model in ["gpt-6-luna", "gpt-6-sol", "gpt-5.4", "gpt-5", "gpt-4o-mini"] {
            let call = to(model, format!("a question for {model}: {n}"));
            keys.push(world.ask(&call.key(key).sim(&long)).await);
        }
        for model in ["o3", "o4-mini"] {
            let call = to(model, format!("a question for {model}: {n}"));
            keys.push(world.ask(&call.key(key).within(10 * MINUTE)).await);
        }
        for hours in [4, 12] {
            let call = to("gpt-4.1", format!("a response within {hours} h: {n}"));
            keys.push(
                world
                    .ask(&call.key(key).response().within(hours * HOUR))
                    .await,
            );
        }
        // Too close for anything cheap.
        let now = to("gpt-6-sol", format!("at once: {n}"));
        let now = now.key(key).within(20 * SECOND).sim(&long);
        keys.push(world.ask(&now).await);
        let text = json!({"model": "text-embedding-3-small", "input": format!("a text {n}")});
        let text = Ask {
            endpoint: Endpoint::Embeddings,
            body: Some(text.to_string()),
            ..to("text-embedding-3-small", format!("a text {n}"))
        };
        keys.push(world.ask(&text.key(key)).await);
    }
    world.all_done(&keys).await.iter().for_each(succeeded);
    world.finish().await;
    let ledger = agree(&world).await;
    assert_eq!(ledger.succeeded, keys.len() as u64);
    // It was all there: each lane, and in each lane some of every kind of token.
    let mut lanes: BTreeMap<String, Usage> = BTreeMap::new();
    for ((_, _, lane), charge) in charged(&world) {
        *lanes.entry(lane).or_default() += charge.usage;
    }
    let expected = [
        "background-2h",
        "background-8h",
        "batch",
        "flex",
        "standard",
    ];
    assert!(lanes.keys().eq(expected), "{lanes:?}");
    for (lane, usage) in &lanes {
        let Usage {
            cached,
            cache_write,
            output,
            ..
        } = *usage;
        assert!(
            cached > 0 && cache_write > 0 && output > 0,
            "{lane}: {usage:?}"
        );
    }
    assert!(ledger.usage.input > 40 * 272_001, "some were long");
    assert!(ledger.paid < ledger.standard);
}

#[tokio::test(start_paused = true)]
async fn rescues_cancelled_and_expired_batches_and_double_payments() {
    let world = world(|_, _| {}).await;
    let model = |n: usize| ["gpt-6-sol", "gpt-6-luna", "gpt-5.4"][n % 3];
    // Of each batch a part never comes, and is rescued when the batch is cancelled.
    let rescued = async |n: usize| {
        let words = if n < 20 {
            "tokens=50"
        } else {
            "never tokens=60"
        };
        let call = to(model(n), format!("rescued {n}")).sim(words);
        world.ask(&call.key(KEYS[n % 2]).within(3 * HOUR)).await
    };
    // Of callers who would rather wait, whose batch expires with what it has.
    let within = HOUR;
    world.fault(Operation::CreateBatch, Kind::Expire { within });
    let mut keys = Vec::new();
    for n in 0..10 {
        let words = if n < 5 { LONG } else { "slow=2h tokens=40" };
        let call = to("gpt-5", format!("patient {n}")).sim(words);
        keys.push(world.ask(&call.on_late(OnLate::Wait).within(HOUR)).await);
    }
    world.submitted().await;
    for n in 0..40 {
        keys.push(rescued(n).await);
    }
    world.all_done(&keys).await.iter().for_each(succeeded);
    // The cancel goes unanswered, so that a line is run in both lanes.
    let refused = refusal(500, None);
    world.faults(Operation::CancelBatch, refused, 1_000_000);
    world.faults(Operation::CreateBatch, Kind::Slow { by: 4 * HOUR }, 2);
    for n in 0..6 {
        let call = to("gpt-6-sol", format!("twice {n}")).sim(LONG);
        keys.push(world.ask(&call.within(3 * HOUR)).await);
    }
    // What is cancelled or erased while its batch runs is billed all the same.
    let given_up = to("gpt-4o-mini", "given up".into()).key(KEYS[1]);
    let given_up = world.ask(&given_up.sim("slow=10m")).await;
    let erased = world
        .ask(&to("gpt-4o-mini", "erased".into()).sim("slow=10m"))
        .await;
    world.pass(5 * MINUTE).await;
    world.engine().cancel(given_up).await.unwrap();
    world.engine().cancel(erased).await.unwrap();
    world.engine().erase(erased).await.unwrap();
    keys.push(given_up);
    let outcomes = world.all_done(&keys).await;
    world.pass(30 * HOUR).await;
    let ledger = agree(&world).await;

    let is_live = |outcome: &&Outcome| matches!(outcome.source, Source::Live(_));
    let live = outcomes.iter().filter(is_live).count() as u64;
    assert_eq!((live, ledger.rescued), (26, 26), "{ledger:?}");
    assert!(ledger.paid_twice > 0, "{ledger:?}");
    assert!(ledger.late > 0, "{ledger:?}");
    assert_eq!(outcomes.last().unwrap().state, State::Cancelled);
    let batches = world.sim.log().batches;
    for status in ["completed", "cancelled", "expired"] {
        let such = batches.iter().filter(|batch| batch.status == status);
        assert!(such.count() > 0, "{status}: {batches:#?}");
    }
    let waited = outcomes[5].source;
    assert!(matches!(waited, Source::Batch(_)), "{waited:?}");
}

/// The live call is refused as one that nothing would help, and is not billed; then the
/// batch answers all the same.
#[tokio::test(start_paused = true)]
async fn what_a_batch_answers_behind_an_error_is_paid_once() {
    let world = world(|_, _| {}).await;
    let refused = refusal(500, None);
    world.faults(Operation::CancelBatch, refused, 1_000_000);
    world.fault(Operation::CreateBatch, Kind::Slow { by: 4 * HOUR });
    world.faults(Operation::Chat, refusal(400, None), 3);
    let keys = world
        .ask_many(3, |n| to("gpt-4o-mini", format!("q{n}")).within(3 * HOUR))
        .await;
    for outcome in world.all_done(&keys).await {
        assert_eq!((outcome.state, outcome.status), (State::Failed, 400));
        assert!(!outcome.was_billed());
    }
    world.finish().await;
    let ledger = agree(&world).await;
    assert!(ledger.paid > Usd::ZERO);
    assert_eq!((ledger.paid_twice, ledger.succeeded), (0, 0), "{ledger:?}");
    // Refused, they were answered in a dearer lane, and that cost nothing.
    assert_eq!((ledger.rescued, ledger.rescue_paid), (3, Usd::ZERO));
}

/// The same tokens, priced by both lists: in every lane and tier, long and not.
#[test]
fn the_provider_sells_at_the_prices_we_know() {
    let prices = Prices::built_in().unwrap();
    for (name, model) in &simulator::Settings::default().models {
        let usual = (model.standard, model.batch, model.flex, model.priority);
        let mut sizes = vec![(10_000, usual)];
        match &model.long {
            None => sizes.push((1_000_000, usual)),
            Some(long) => {
                let rates = (long.standard, long.batch, long.flex, long.priority);
                sizes.extend([(long.above, usual), (long.above + 1, rates)]);
            }
        }
        for (input, (standard, batch, flex, priority)) in sizes {
            let usage = Usage {
                input,
                cached: 1_001,
                cache_write: 503,
                output: 207,
            };
            let sold = |tariff: Tariff| {
                let Tariff(fresh, cached, written, output) = tariff;
                let fresh = (usage.input - usage.cached - usage.cache_write) * fresh;
                let rest = usage.cached * cached + usage.cache_write * written;
                i128::from(fresh + rest + usage.output * output)
            };
            let ours = |lane, tier| {
                let answer = Metered {
                    usage,
                    tier,
                    known: true,
                    ..Metered::default()
                };
                let bill = prices.bill_of(name, lane, &answer);
                bill.map(|bill| bill.paid.as_pico())
            };
            for (lane, tier, theirs) in [
                (Lane::Standard, Tier::Default, Some(sold(standard))),
                (Lane::Batch, Tier::Default, Some(sold(batch))),
                (Lane::Flex, Tier::Flex, flex.map(sold)),
                (Lane::Standard, Tier::Priority, priority.map(sold)),
                (
                    Lane::Background8h,
                    Tier::Default,
                    Some(sold(standard) * 6 / 10),
                ),
                (
                    Lane::Background2h,
                    Tier::Default,
                    Some(sold(standard) * 7 / 10),
                ),
            ] {
                let at = format!("{name}, {input} tokens: {lane} {tier:?}");
                assert_eq!(ours(lane, tier), theirs, "{at}");
            }
        }
    }
}
