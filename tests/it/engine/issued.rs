//! Keys that we issue, in virtual time: what they open and until when, their limits, and
//! the provider's keys behind them.

use std::{collections::BTreeMap, time::Duration};

use offpeak::{
    engine::{AdmitError, Caller, Engine, KeyRefused, NewKey, Refused, Spent, Upstreams},
    model::{
        id::{KeyId, RequestKey},
        money::Usd,
        request::Source,
        secret::Secret,
        time::Timestamp,
    },
    ports::Credential,
    simulator::key_id,
};
use proptest::prelude::*;
use tokio::time::timeout;

use super::{
    asking::{HOUR, MINUTE, SECOND, ask, credential},
    crash::How,
    world::{World, on_virtual_time, succeeded},
};

const DAY: Duration = Duration::from_secs(86_400);

pub fn upstreams(named: &[(&str, &str)]) -> Upstreams {
    let of = |key: &str| Credential {
        headers: vec![("authorization".into(), format!("Bearer {key}"))],
        query: None,
    };
    let named = named.iter();
    named
        .map(|(name, key)| ((*name).to_owned(), of(key)))
        .collect()
}

/// A server that issues keys, for one upstream.
pub async fn issuing() -> World {
    // A model check is where the provider names its organization.
    let mut world = World::with(|settings, _| settings.admission.model_check = true).await;
    world.upstreams = Some(upstreams(&[("default", "sk-acme.upstream")]));
    world.restart(None).await;
    world
}

pub fn named(name: &str) -> NewKey {
    NewKey {
        name: name.into(),
        ..NewKey::default()
    }
}

pub async fn issue(world: &World, wanted: NewKey) -> (KeyId, String) {
    let (key, text) = world.engine().issue(wanted, world.now()).await.unwrap();
    (key.issued.id, text.expose().to_owned())
}

fn who(engine: &Engine, key: &str) -> Result<Caller, KeyRefused> {
    engine.identify(credential(key))
}

pub fn usd(text: &str) -> Usd {
    text.parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn keys_of_one_tenant_are_one_and_others_are_apart() {
    let world = issuing().await;
    let of = |name: &str, tenant: Option<&str>| NewKey {
        tenant: tenant.map(Into::into),
        ..named(name)
    };
    let (_, one) = issue(&world, of("one", Some("acme"))).await;
    let (_, two) = issue(&world, of("two", Some("acme"))).await;
    let (_, other) = issue(&world, of("other", Some("zeta"))).await;
    let (_, own) = issue(&world, of("own", None)).await;
    let [one_is, two_is, other_is, own_is] =
        [&one, &two, &other, &own].map(|key| who(world.engine(), key).unwrap());
    assert_eq!(one_is.tenant, two_is.tenant);
    assert_eq!(one_is.credential, two_is.credential);
    for apart in [&other_is, &own_is] {
        assert_ne!(one_is.tenant, apart.tenant);
        assert_ne!(one_is.credential, apart.credential);
        assert_eq!(
            one_is.presented, apart.presented,
            "one upstream does the work"
        );
    }
    // Who presents the upstream's own key, or a tenant's name, is nobody.
    for guess in ["sk-acme.upstream", "acme", ""] {
        assert_eq!(who(world.engine(), guess).err(), Some(KeyRefused::Unknown));
    }
    let keys = [
        world.ask(&ask("a").key(&one)).await,
        world.ask(&ask("b").key(&two)).await,
        world.ask(&ask("c").key(&other)).await,
    ];
    for key in &keys {
        succeeded(&world.outcome(*key).await);
    }
    let list = async |caller: &Caller| -> Vec<RequestKey> {
        let listed = world.engine().list(caller.tenant, None, 10).await.unwrap();
        listed.into_iter().map(|head| head.request.key).collect()
    };
    assert_eq!(list(&one_is).await, [keys[1], keys[0]]);
    assert_eq!(list(&two_is).await, [keys[1], keys[0]]);
    assert_eq!(list(&other_is).await, [keys[2]]);
    assert_eq!(list(&own_is).await, []);
    // Two tenants are never in one batch; what is learned of the organization is one.
    let batches = world.batches().await;
    assert!(batches.iter().all(|batch| batch.lines < 3), "{batches:?}");
    let learned = |caller: &Caller| {
        let told = world.engine().turnaround(Some(caller.tenant));
        let owners = told.into_iter().map(|row| row.owner);
        owners.collect::<std::collections::BTreeSet<_>>()
    };
    assert!(!learned(&one_is).is_empty());
    assert_eq!(learned(&one_is), learned(&other_is));
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn what_waits_goes_on_with_the_key_of_the_next_start() {
    for submitted in [false, true] {
        let mut world = World::new().await;
        world.upstreams = Some(upstreams(&[("default", "sk-acme.web.old"), ("x", "sk-x")]));
        world.restart(None).await;
        let (_, key) = issue(&world, named("app")).await;
        let waits = world.ask(&ask("waits").key(&key)).await;
        if submitted {
            world.submitted().await;
        }
        // Its neighbour's key is another one too, and of no concern.
        world.upstreams = Some(upstreams(&[("default", "sk-acme.web.new"), ("x", "sk-y")]));
        world.sim.revoke("sk-acme.web.old");
        world.restart(None).await;
        // Within the batch's ordinary time: nothing waited for a refused key.
        world.pass(HOUR).await;
        let outcome = world.outcome(waits).await;
        succeeded(&outcome);
        assert!(matches!(outcome.source, Source::Batch(_)), "{outcome:?}");
        assert!(world.engine().refusals_of(None).is_empty());
        let after = world.ask(&ask("after").key(&key)).await;
        assert_eq!(after.tenant, waits.tenant);
        succeeded(&world.outcome(after).await);
        world.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_whose_upstream_is_gone_opens_nothing_until_it_is_back() {
    let mut world = issuing().await;
    let (_, key) = issue(&world, named("app")).await;
    world.upstreams = Some(upstreams(&[("eu", "sk-eu")]));
    world.restart(None).await;
    let gone = KeyRefused::NoUpstream("default".into());
    assert_eq!(who(world.engine(), &key).err(), Some(gone));
    world.upstreams = Some(upstreams(&[("default", "sk-acme.upstream")]));
    world.restart(None).await;
    assert!(who(world.engine(), &key).is_ok());
}

#[tokio::test(start_paused = true)]
async fn so_many_calls_a_minute() {
    let world = issuing().await;
    let with_rate = |rate: Option<u32>| NewKey {
        requests_per_minute: rate,
        ..named("app")
    };
    for (rate, at_once, wait) in [(1, 1, 60 * SECOND), (30, 30, 2 * SECOND)] {
        let (_, key) = issue(&world, with_rate(Some(rate))).await;
        let (_, neighbour) = issue(&world, with_rate(Some(rate))).await;
        let caller = who(world.engine(), &key).unwrap();
        let turn = |caller: &Caller| world.engine().take_turn(caller);
        for _ in 0..at_once {
            assert_eq!(turn(&caller), Ok(()));
        }
        assert_eq!(turn(&caller), Err(wait));
        // Whoever presents it is the same caller; who presents another is not.
        assert_eq!(turn(&who(world.engine(), &key).unwrap()), Err(wait));
        assert_eq!(turn(&who(world.engine(), &neighbour).unwrap()), Ok(()));
        world.pass(wait).await;
        assert_eq!(turn(&caller), Ok(()));
        assert_eq!(turn(&caller), Err(wait));
    }
    let (_, free) = issue(&world, with_rate(None)).await;
    let free = who(world.engine(), &free).unwrap();
    assert!((0..10_000).all(|_| world.engine().take_turn(&free).is_ok()));
}

/// A prompt long enough for what it costs to be near what is kept for it.
fn long(number: usize) -> String {
    format!("q{number} {}", "word ".repeat(6_000))
}

/// Asks until the budget is met; how many were taken in, and what was refused.
async fn ask_until_met(world: &World, key: &str, most: usize) -> (Vec<RequestKey>, AdmitError) {
    let mut taken = Vec::new();
    for number in 0..most {
        let call = ask(long(number)).key(key).call(world.engine());
        match world.engine().admit(call).await {
            Ok(admitted) => {
                world.note(admitted.request.key, "within the budget");
                taken.push(admitted.request.key);
            }
            Err(refused) => return (taken, refused),
        }
    }
    panic!("{most} calls fit into the budget");
}

#[tokio::test(start_paused = true)]
async fn a_month_s_budget_is_kept_and_renewed() {
    let mut world = issuing().await;
    let budget = usd("0.05");
    let wanted = NewKey {
        monthly_budget: Some(budget),
        tenant: Some("acme".into()),
        ..named("app")
    };
    let (id, key) = issue(&world, wanted).await;
    let known = |world: &World| {
        let keys = world.engine().issued_keys();
        let key = keys.iter().find(|key| key.issued.id == id).unwrap();
        assert!(!key.issued.passthrough, "what passes is not counted");
        let Spent {
            paid,
            reckoned,
            reserved,
        } = world.engine().spent_this_month(key);
        assert_eq!(reckoned, Usd::ZERO, "every answer has a price");
        (paid, reserved)
    };
    // What is open is kept at its ordinary price.
    let (first, refused) = ask_until_met(&world, &key, 1_000).await;
    let (paid, reserved) = known(&world);
    assert_eq!(paid, Usd::ZERO);
    assert!(
        first.len() > 5 && reserved <= budget,
        "{} {reserved}",
        first.len()
    );
    let AdmitError::Refused(Refused::Budget(exceeded)) = refused else {
        panic!("{refused}");
    };
    assert_eq!((exceeded.budget, exceeded.reserved), (budget, reserved));
    let february = Timestamp::from_secs(1_801_440_000);
    assert_eq!(exceeded.renewed, february, "{}", exceeded.renewed);
    // A refused call has kept nothing, nor has a kill forgotten anything.
    world.restart(None).await;
    assert_eq!(known(&world), (paid, reserved));

    // Done, they cost less than was kept, so that there is room for more; and so on.
    let mut count = first.len();
    let mut keys = first;
    for _ in 0..50 {
        world.all_done(&keys).await;
        let (paid, reserved) = known(&world);
        assert_eq!(reserved, Usd::ZERO);
        assert_eq!(paid, world.ledger().await.paid);
        assert!(paid <= budget, "{paid}");
        keys = ask_until_met(&world, &key, 1_000).await.0;
        if keys.is_empty() {
            break;
        }
        count += keys.len();
    }
    assert!(keys.is_empty(), "it was never met");
    let (spent, _) = known(&world);
    assert!(spent > usd("0.04") && count > 30, "{spent} for {count}");
    world.restart(None).await;
    assert_eq!(known(&world), (spent, Usd::ZERO));
    assert!(ask_until_met(&world, &key, 1).await.0.is_empty());

    // Another tenant's money is another's; a key of the same tenant has its own bound
    // on the same sum.
    let more = NewKey {
        monthly_budget: Some(spent + usd("0.01")),
        tenant: Some("acme".into()),
        ..named("more")
    };
    let (_, more) = issue(&world, more).await;
    let (taken, refused) = ask_until_met(&world, &more, 1_000).await;
    assert!(!taken.is_empty());
    assert!(matches!(
        refused,
        AdmitError::Refused(Refused::Budget(exceeded)) if exceeded.paid == spent
    ));
    let (_, other) = issue(
        &world,
        NewKey {
            monthly_budget: Some(budget),
            ..named("other")
        },
    )
    .await;
    assert!(!ask_until_met(&world, &other, 1_000).await.0.is_empty());
    world.all_done(&taken).await;

    // The last instant of January, and the first of February.
    world.pass(world.now().until(february) - SECOND).await;
    assert!(ask_until_met(&world, &key, 1).await.0.is_empty());
    world.pass(SECOND).await;
    assert_eq!(known(&world).0, Usd::ZERO);
    world.ask(&ask("february").key(&key)).await;
    world.finish().await;
}

/// Calls that come at once do not pass a budget together.
#[tokio::test(start_paused = true)]
async fn a_budget_is_not_passed_by_calls_that_come_together() {
    let world = issuing().await;
    let one_by_one = |budget| NewKey {
        monthly_budget: Some(budget),
        ..named("app")
    };
    let (_, key) = issue(&world, one_by_one(usd("0.02"))).await;
    let (alone, _) = ask_until_met(&world, &key, 1_000).await;
    let (_, key) = issue(&world, one_by_one(usd("0.02"))).await;
    let calls = (0..3 * alone.len()).map(|number| {
        let call = ask(long(number)).key(&key).call(world.engine());
        world.engine().admit(call)
    });
    let taken: Vec<_> = futures_util::future::join_all(calls).await;
    let taken: Vec<RequestKey> = taken
        .into_iter()
        .filter_map(|admitted| Some(admitted.ok()?.request.key))
        .collect();
    for key in &taken {
        world.note(*key, "one of many");
    }
    assert!(
        !taken.is_empty() && taken.len() <= alone.len() + 1,
        "{}",
        taken.len()
    );
    world.finish().await;
}

#[derive(Clone, Debug)]
enum Step {
    Create { expires_in_minutes: Option<u64> },
    Revoke(prop::sample::Index),
    Pass { minutes: u64 },
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => prop::option::of(1u64..90).prop_map(|expires_in_minutes| Step::Create { expires_in_minutes }),
        2 => any::<prop::sample::Index>().prop_map(Step::Revoke),
        2 => (1u64..60).prop_map(|minutes| Step::Pass { minutes }),
        1 => Just(Step::Restart),
    ]
}

/// What is expected of a key.
struct Expected {
    text: Secret,
    expires: Option<Timestamp>,
    revoked: bool,
}

async fn play(steps: Vec<Step>) {
    let mut world = issuing().await;
    let mut expected: BTreeMap<KeyId, Expected> = BTreeMap::new();
    for step in steps {
        match step {
            Step::Create { expires_in_minutes } => {
                let after = |minutes: u64| world.now() + minutes as u32 * MINUTE;
                let expires = expires_in_minutes.map(after);
                let wanted = NewKey {
                    expires,
                    ..named("app")
                };
                let (key, text) = world.engine().issue(wanted, world.now()).await.unwrap();
                let revoked = false;
                let is = Expected {
                    text,
                    expires,
                    revoked,
                };
                expected.insert(key.issued.id, is);
            }
            Step::Revoke(index) if !expected.is_empty() => {
                let id = *expected.keys().nth(index.index(expected.len())).unwrap();
                assert!(world.engine().revoke(id).await.unwrap().is_some());
                expected.get_mut(&id).unwrap().revoked = true;
            }
            Step::Revoke(_) => {
                let nobody = world.engine().revoke(KeyId::MIN).await.unwrap();
                assert!(nobody.is_none());
            }
            Step::Pass { minutes } => world.pass(minutes as u32 * MINUTE).await,
            Step::Restart => world.restart(None).await,
        }
        let stored = world.store.issued().await.unwrap();
        let known = world.engine().issued_keys();
        let known: Vec<_> = known.iter().map(|key| key.issued.clone()).collect();
        assert_eq!(known, stored);
        assert_eq!(known.len(), expected.len());
        for (id, is) in &expected {
            let found = who(world.engine(), is.text.expose());
            match (is.revoked, is.expires) {
                (true, _) => assert!(matches!(found, Err(KeyRefused::Revoked(_))), "{id}"),
                (false, Some(at)) if at <= world.now() => {
                    assert_eq!(found.err(), Some(KeyRefused::Expired(at)));
                }
                (false, _) => assert_eq!(found.unwrap().key.unwrap().issued.id, *id),
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// Whatever the order, the map equals the store, and each key is what became of it.
    #[test]
    fn the_map_equals_the_store(steps in prop::collection::vec(step(), 1..16)) {
        on_virtual_time(play(steps));
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_issued_is_told_by_its_field() {
    let mut world = World::new().await;
    let refused = world
        .engine()
        .issue(named("app"), world.now())
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("pass-through"), "{refused}");
    world.upstreams = Some(upstreams(&[("eu", "sk-eu"), ("us", "sk-us")]));
    world.restart(None).await;
    let good = NewKey {
        upstream: Some("eu".into()),
        ..named("app")
    };
    let long = "x".repeat(129);
    let now = world.now();
    let cases: Vec<(&str, NewKey)> = vec![
        (
            "name",
            NewKey {
                name: String::new(),
                ..good.clone()
            },
        ),
        (
            "name",
            NewKey {
                name: " app".into(),
                ..good.clone()
            },
        ),
        (
            "name",
            NewKey {
                name: "a\nb".into(),
                ..good.clone()
            },
        ),
        (
            "name",
            NewKey {
                name: long,
                ..good.clone()
            },
        ),
        (
            "tenant",
            NewKey {
                tenant: Some(String::new()),
                ..good.clone()
            },
        ),
        (
            "upstream",
            NewKey {
                upstream: None,
                ..good.clone()
            },
        ),
        (
            "upstream",
            NewKey {
                upstream: Some("asia".into()),
                ..good.clone()
            },
        ),
        (
            "expires",
            NewKey {
                expires: Some(now),
                ..good.clone()
            },
        ),
        (
            "expires",
            NewKey {
                expires: Some(now + 3_654 * DAY),
                ..good.clone()
            },
        ),
        (
            "models",
            NewKey {
                models: vec![String::new()],
                ..good.clone()
            },
        ),
        (
            "models",
            NewKey {
                models: vec!["g*t".into()],
                ..good.clone()
            },
        ),
        (
            "models",
            NewKey {
                models: vec!["gpt 5".into()],
                ..good.clone()
            },
        ),
        (
            "budget",
            NewKey {
                monthly_budget: Some(usd("-1")),
                ..good.clone()
            },
        ),
        (
            "requests",
            NewKey {
                requests_per_minute: Some(0),
                ..good.clone()
            },
        ),
    ];
    for (field, wanted) in cases {
        let refused = world
            .engine()
            .issue(wanted.clone(), world.now())
            .await
            .unwrap_err();
        let offpeak::engine::IssueError::Bad { field: found, .. } = &refused else {
            panic!("{refused}");
        };
        assert!(found.starts_with(field), "{wanted:?}: {refused}");
    }
    assert!(world.engine().issued_keys().is_empty());
    let (_, text) = issue(&world, good).await;
    assert_eq!((text.len(), &text[..4]), (47, "ofp_"));
    let printed = format!("{:?}", world.engine().issued_keys());
    assert!(
        !printed.contains(&text) && !printed.contains("sk-"),
        "{printed}"
    );
    assert_ne!(key_id(&text), key_id("sk-eu"));
}

/// An operator who hangs up has revoked it all the same, and at once.
#[tokio::test(start_paused = true)]
async fn a_key_is_revoked_and_issued_whole_whoever_waits_for_it() {
    let world = issuing().await;
    let (id, text) = issue(&world, named("app")).await;
    let late = || {
        world
            .trouble
            .on("put_issued", How::LateReply(10 * SECOND), 1);
    };
    late();
    let left = timeout(SECOND, world.engine().revoke(id)).await;
    assert!(left.is_err());
    late();
    let left = timeout(SECOND, world.engine().issue(named("other"), world.now())).await;
    assert!(left.is_err());
    world.pass(MINUTE).await;
    let found = who(world.engine(), &text);
    assert!(matches!(found, Err(KeyRefused::Revoked(_))), "{found:?}");
    let stored = world.store.issued().await.unwrap();
    let known = world.engine().issued_keys();
    let known: Vec<_> = known.iter().map(|key| key.issued.clone()).collect();
    assert_eq!(known, stored);
    assert_eq!(known.len(), 2);
}
