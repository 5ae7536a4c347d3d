//! Receivers of webhooks that fail, are slow, or want no more.

use std::{sync::atomic::Ordering, time::Duration};

use offpeak::{
    engine::{Redelivered, Tested},
    model::{id::RequestKey, time::Timestamp},
    ports::{DeliveryStatus, HookOutcome},
};

use super::{
    asking::{HOUR, MINUTE, SECOND, ask, credential},
    world::World,
};

const DEAD: &str = "https://dead.example/hook";
const FINE: &str = "https://fine.example/hook";
const DELIVERED: HookOutcome = HookOutcome::Delivered { status: 200 };

fn retry() -> HookOutcome {
    HookOutcome::Retry {
        status: None,
        reason: "it did not answer in time".into(),
        after: None,
    }
}

fn gone() -> HookOutcome {
    HookOutcome::Gone {
        reason: "410".into(),
    }
}

async fn many(world: &World, count: usize, key: &str, target: &str) -> Vec<RequestKey> {
    let asked = |number| {
        let text = format!("{target} {number}");
        ask(text).key(key).webhook_to(target)
    };
    world.ask_many(count, asked).await
}

async fn status(world: &World, key: RequestKey) -> DeliveryStatus {
    let status = world.store.delivery_status(key).await.unwrap();
    status.expect("it has a webhook")
}

async fn count(world: &World, keys: &[RequestKey], is: fn(&DeliveryStatus) -> bool) -> usize {
    let mut count = 0;
    for key in keys {
        count += usize::from(is(&status(world, *key).await));
    }
    count
}

fn is_dead(status: &DeliveryStatus) -> bool {
    matches!(status, DeliveryStatus::Dead { .. })
}

fn is_delivered(status: &DeliveryStatus) -> bool {
    matches!(status, DeliveryStatus::Delivered { .. })
}

fn is_pending(status: &DeliveryStatus) -> bool {
    matches!(status, DeliveryStatus::Pending { .. })
}

async fn ended(world: &World, keys: &[RequestKey]) -> Timestamp {
    let outcomes = world.all_done(keys).await;
    let ended = outcomes.iter().map(|outcome| outcome.finished);
    ended.max().unwrap()
}

/// A receiver that never answers has thousands waiting: others, of the same tenant and
/// of another, do not notice; it is asked now and then, by one; what waits is not
/// read over and over, and is a dead letter when its time is up.
#[tokio::test(start_paused = true)]
async fn a_dead_receiver_costs_nobody_anything() {
    let world = World::new().await;
    world.hooks.stand(DEAD, retry(), 15 * SECOND);
    let dead = many(&world, 1500, "sk-test", DEAD).await;
    let own = many(&world, 40, "sk-test", FINE).await;
    let other = many(&world, 40, "sk-other", FINE).await;
    let end = ended(&world, &[dead.clone(), own.clone(), other.clone()].concat()).await;
    world.pass(30 * SECOND).await;
    for others in [&own, &other] {
        assert_eq!(count(&world, others, is_delivered).await, 40);
    }
    assert!(world.hooks.most_at_once(DEAD) <= 8);

    // Once the circuit is open: a probe at a time, as rare as the tries of one event.
    world.pass(MINUTE).await;
    let before = world.hooks.seen_by(DEAD).len();
    assert!(before <= 20, "{before} tries before it was left alone");
    let read = world.trouble.read_deliveries.load(Ordering::Relaxed);
    world
        .pass(Duration::from_secs(end.until(end + 71 * HOUR).as_secs()))
        .await;
    let probes = world.hooks.seen_by(DEAD).len() - before;
    assert!((5..30).contains(&probes), "{probes} probes in three days");
    let read = world.trouble.read_deliveries.load(Ordering::Relaxed) - read;
    assert!(read < 1500, "{read} reads while nothing could be done");
    // No tries are counted that were not made.
    let tries: u32 = futures_util::future::join_all(dead.iter().map(|key| status(&world, *key)))
        .await
        .iter()
        .map(|status| match status {
            DeliveryStatus::Pending { tries, .. } => *tries,
            other => panic!("before its time: {other:?}"),
        })
        .sum();
    assert_eq!(tries as usize, before + probes);
    assert_eq!(world.engine().gauges().receivers, 1);
    let tenant = dead[0].tenant;
    let resting = world.engine().resting(tenant);
    assert_eq!(&*resting[0].target, DEAD);
    assert_eq!(world.engine().resting(other[0].tenant), []);

    world.pass(2 * HOUR).await;
    assert_eq!(count(&world, &dead, is_dead).await, 1500);
    world.finish().await;
}

/// When it works again, what has gathered comes, at first one at a time.
#[tokio::test(start_paused = true)]
async fn a_receiver_that_works_again_gets_what_has_gathered() {
    let world = World::new().await;
    world.hooks.stand(DEAD, retry(), SECOND);
    let keys = many(&world, 300, "sk-test", DEAD).await;
    ended(&world, &keys).await;
    world.pass(HOUR).await;
    assert_eq!(count(&world, &keys, is_pending).await, 300);
    world.hooks.stand(DEAD, DELIVERED, SECOND);
    let before = world.hooks.seen_by(DEAD).len();
    world.pass(8 * HOUR).await;
    assert_eq!(count(&world, &keys, is_delivered).await, 300);
    let seen = &world.hooks.seen_by(DEAD)[before..];
    let after = |number: usize| seen[0].at.until(seen[number].at).as_millis();
    // One, then one, two, four, and eight a second.
    assert_eq!(after(1), 1000);
    assert!(
        after(2) >= 2000 && after(4) >= 3000,
        "{} {}",
        after(2),
        after(4)
    );
    assert!(world.hooks.most_at_once(DEAD) <= 8);
    let last = after(299);
    assert!((37_000..60_000).contains(&last), "{last}");
    world.finish().await;
    assert_eq!(world.engine().gauges().receivers, 0);
}

/// One that is slow, and takes everything, has its eight places.
#[tokio::test(start_paused = true)]
async fn a_slow_receiver_leaves_places_to_the_others() {
    let world = World::new().await;
    let slow = "https://slow.example/hook";
    world.hooks.stand(slow, DELIVERED, 14 * SECOND);
    let keys = many(&world, 60, "sk-test", slow).await;
    let fine = many(&world, 60, "sk-test", FINE).await;
    ended(&world, &[keys.clone(), fine.clone()].concat()).await;
    world.pass(5 * SECOND).await;
    assert_eq!(count(&world, &fine, is_delivered).await, 60);
    assert_eq!(world.hooks.most_at_once(slow), 8);
    world.finish().await;
    assert_eq!(count(&world, &keys, is_delivered).await, 60);
}

/// Every place is taken by one tenant's many slow receivers: the next place that is
/// free is another's, whatever waits before it.
#[tokio::test(start_paused = true)]
async fn a_place_goes_to_who_has_the_fewest() {
    let world = World::new().await;
    world.hooks.stand("https://slow", DELIVERED, 10 * SECOND);
    let mut slow = Vec::new();
    for number in 0..150 {
        let target = format!("https://slow{number}.example/hook");
        slow.extend(many(&world, 4, "sk-test", &target).await);
    }
    ended(&world, &slow).await;
    assert!(count(&world, &slow, is_pending).await > 500);
    let mut few = Vec::new();
    for other in ["sk-other", "sk-a", "sk-b", "sk-c", "sk-d", "sk-e"] {
        let asked = ask(other).key(other).webhook_to(FINE).within(MINUTE);
        few.push(world.ask(&asked).await);
    }
    ended(&world, &few).await;
    world.pass(11 * SECOND).await;
    assert_eq!(count(&world, &few, is_delivered).await, few.len());
    assert!(count(&world, &slow, is_pending).await > 100);
    world.finish().await;
}

/// What waits, what waits for another try and what comes later: nothing is sent to a
/// receiver that has answered 410, over restarts, until somebody asks for it.
#[tokio::test(start_paused = true)]
async fn one_that_is_gone_is_off_until_it_is_turned_on() {
    let mut world = World::new().await;
    // Three wait for another try, which is hours away.
    let later = HookOutcome::Retry {
        status: Some(503),
        reason: "come back later".into(),
        after: Some(3 * HOUR),
    };
    world.hooks.stand(DEAD, later, Duration::ZERO);
    let first = many(&world, 3, "sk-test", DEAD).await;
    ended(&world, &first).await;
    world.pass(SECOND).await;
    world.hooks.stand(DEAD, gone(), SECOND);
    let urgent = ask("urgent").webhook_to(DEAD).within(MINUTE);
    let fourth = world.ask(&urgent).await;
    world.outcome(fourth).await;
    world.pass(20 * SECOND).await;
    let told = world.hooks.seen_by(DEAD).len();
    let keys = [first.clone(), vec![fourth]].concat();
    assert_eq!(count(&world, &keys, is_dead).await, 4);

    world.restart(None).await;
    let later = many(&world, 20, "sk-test", DEAD).await;
    let other = many(&world, 1, "sk-other", DEAD).await;
    ended(&world, &later).await;
    ended(&world, &other).await;
    world.pass(10 * SECOND).await;
    assert_eq!(count(&world, &later, is_dead).await, 20);
    let DeliveryStatus::Dead { last, tries, .. } = status(&world, later[0]).await else {
        panic!("it is dead");
    };
    assert!(last.contains("410") && tries == 0, "{last}");
    let seen = world.hooks.seen_by(DEAD);
    // Another tenant's word is its own.
    assert_eq!(seen[told..].len(), 1);
    assert_eq!(seen[told].id, other[0].id.event());
    let tenant = fourth.tenant;
    let off = world.engine().turned_off(tenant, 9).await.unwrap();
    assert_eq!(off.len(), 1);
    assert_eq!(off[0].target, DEAD);

    // A test call that it does not take changes nothing; one that it takes does.
    for (outcome, off) in [(gone(), 1), (retry(), 1), (DELIVERED, 0)] {
        world.hooks.stand(DEAD, outcome, Duration::ZERO);
        let tested = world.engine().test_webhook(tenant, DEAD).await.unwrap();
        assert!(matches!(tested, Tested::Called(_)));
        let still = world.engine().turned_off(tenant, 9).await.unwrap();
        assert_eq!(still.len(), off);
    }
    let test = world.hooks.seen_by(DEAD).pop().unwrap();
    assert!(test.body.contains("offpeak.webhook.test"), "{}", test.body);

    // All its dead letters, by the hand.
    let mut again = 0;
    loop {
        let step = world.engine().redeliver_dead(tenant, DEAD, 10).await;
        let Redelivered { count, has_more } = step.unwrap();
        again += count;
        world.pass(SECOND).await;
        if !has_more {
            break;
        }
    }
    assert_eq!(again, 24);
    let keys = [keys, later].concat();
    assert_eq!(count(&world, &keys, is_delivered).await, 24);
    world.finish().await;
}

/// One that is sent again by hand turns its receiver on, and off where it is gone yet.
#[tokio::test(start_paused = true)]
async fn a_redelivery_asks_a_receiver_that_is_off() {
    let world = World::new().await;
    world.hooks.stand(DEAD, gone(), Duration::ZERO);
    let keys = many(&world, 2, "sk-test", DEAD).await;
    ended(&world, &keys).await;
    world.pass(SECOND).await;
    let told = world.hooks.seen_by(DEAD).len();
    assert!(world.engine().redeliver(keys[0]).await.unwrap());
    world.pass(SECOND).await;
    assert!(is_dead(&status(&world, keys[0]).await));
    assert_eq!(world.hooks.seen_by(DEAD).len(), told + 1);
    let off = world.engine().turned_off(keys[0].tenant, 9).await.unwrap();
    assert_eq!(off.len(), 1);
    world.hooks.take_everything();
    assert!(world.engine().redeliver(keys[0]).await.unwrap());
    world.pass(SECOND).await;
    assert!(is_delivered(&status(&world, keys[0]).await));
    let off = world.engine().turned_off(keys[0].tenant, 9).await.unwrap();
    assert_eq!(off, []);
    world.finish().await;
}

/// A redelivery to one that rests is its next probe.
#[tokio::test(start_paused = true)]
async fn a_redelivery_asks_a_receiver_that_rests() {
    let world = World::new().await;
    world.hooks.stand(DEAD, retry(), Duration::ZERO);
    let keys = many(&world, 20, "sk-test", DEAD).await;
    ended(&world, &keys).await;
    world.pass(3 * HOUR).await;
    let seen = world.hooks.seen_by(DEAD).len();
    world.hooks.take_everything();
    assert!(world.engine().redeliver(keys[7]).await.unwrap());
    world.pass(10 * SECOND).await;
    let seen = world.hooks.seen_by(DEAD).split_off(seen);
    assert!(!seen.is_empty(), "it was asked at once");
    assert!(is_delivered(&status(&world, keys[7]).await));
    world.finish().await;
}

/// While one receiver takes its time, what another one is due is not kept waiting.
#[tokio::test(start_paused = true)]
async fn a_slow_attempt_keeps_no_other_try_waiting() {
    const SLOW: &str = "https://slow.example/hook";
    let world = World::new().await;
    world.hooks.stand(SLOW, DELIVERED, 10 * MINUTE);
    world.hooks.stand(DEAD, retry(), Duration::ZERO);
    let slow = many(&world, 1, "sk-test", SLOW).await;
    let failing = many(&world, 1, "sk-test", DEAD).await;
    ended(&world, &[slow.clone(), failing].concat()).await;
    world.pass(30 * SECOND).await;
    assert!(is_pending(&status(&world, slow[0]).await), "it is in hand");
    let seen = world.hooks.seen_by(DEAD);
    assert!(seen.len() > 1, "its second try waits");
    let wait = seen[0].at.until(seen[1].at);
    assert!((3 * SECOND..8 * SECOND).contains(&wait), "{wait:?}");
    world.hooks.stand(DEAD, DELIVERED, Duration::ZERO);
    world.finish().await;
}

/// A backlog is on disk: the next life goes on with it, with the same ids and in the
/// same order, one at first.
#[tokio::test(start_paused = true)]
async fn a_backlog_outlives_the_process() {
    let mut world = World::new().await;
    world.hooks.stand(DEAD, retry(), SECOND);
    let keys = many(&world, 100, "sk-test", DEAD).await;
    ended(&world, &keys).await;
    world.pass(2 * HOUR).await;
    world.restart(None).await;
    let before = world.hooks.seen_by(DEAD).len();
    world.hooks.stand(DEAD, DELIVERED, SECOND);
    world.pass(MINUTE).await;
    assert_eq!(count(&world, &keys, is_delivered).await, 100);
    let seen = world.hooks.seen_by(DEAD).split_off(before);
    assert_eq!(seen.len(), 100, "each once");
    assert_eq!(seen[0].at.until(seen[1].at).as_millis(), 1000);
    world.finish().await;
}

/// It dies after each commit in turn, with receivers that fail, are gone and work
/// again: each event arrives, or is a dead letter that says why.
#[tokio::test(start_paused = true)]
async fn a_crash_after_every_commit_loses_no_webhook() {
    for steps in 1..40 {
        let mut world = World::new().await;
        world.hooks.stand(DEAD, retry(), SECOND);
        world.hooks.stand("https://gone.example", gone(), SECOND);
        let dead = many(&world, 15, "sk-test", DEAD).await;
        let gone = many(&world, 3, "sk-test", "https://gone.example/hook").await;
        let fine = many(&world, 3, "sk-test", FINE).await;
        ended(&world, &[dead.clone(), gone.clone(), fine.clone()].concat()).await;
        world.restart(Some(steps)).await;
        world.live_on(10 * MINUTE, Some(steps)).await;
        world.hooks.stand(DEAD, DELIVERED, SECOND);
        world.live_on(9 * HOUR, Some(steps)).await;
        world.finish().await;
        assert_eq!(count(&world, &gone, is_dead).await, 3, "{steps}");
        assert_eq!(count(&world, &dead, is_delivered).await, 15, "{steps}");
        assert_eq!(count(&world, &fine, is_delivered).await, 3, "{steps}");
        for seen in world.hooks.seen() {
            let all = [&dead[..], &gone, &fine].concat();
            assert!(all.iter().any(|key| key.id.event() == seen.id));
        }
    }
}

/// The store fails while a delivery is moved into the backlog, before and after it is
/// written: it is sent all the same.
#[tokio::test(start_paused = true)]
async fn a_move_that_fails_loses_nothing() {
    use super::crash::How;
    for how in [How::Refuse, How::FailAfter, How::Panic] {
        let world = World::new().await;
        world.hooks.stand(FINE, DELIVERED, SECOND);
        world.trouble.on("shelve", how, 2);
        let keys = many(&world, 50, "sk-test", FINE).await;
        ended(&world, &keys).await;
        world.pass(MINUTE).await;
        assert_eq!(count(&world, &keys, is_delivered).await, 50, "{how:?}");
        assert_eq!(world.hooks.seen_by(FINE).len(), 50, "{how:?}: each once");
        world.finish().await;
    }
}

/// What became of a try cannot be written: what was sent out of a backlog is sent
/// again, under the same name.
#[tokio::test(start_paused = true)]
async fn a_try_that_is_not_recorded_is_made_again() {
    use super::crash::How;
    for how in [How::Refuse, How::Panic] {
        let world = World::new().await;
        world.hooks.stand(FINE, DELIVERED, SECOND);
        let keys = many(&world, 12, "sk-test", FINE).await;
        ended(&world, &keys).await;
        // Eight are on their way, and the rest in the backlog by now.
        world.pass(SECOND / 2).await;
        world.trouble.on("record_delivery", how, 12);
        // A panic is nobody's signal: the next turn looks.
        world.pass(5 * MINUTE).await;
        assert_eq!(count(&world, &keys, is_delivered).await, 12, "{how:?}");
        assert_eq!(world.hooks.seen_by(FINE).len(), 24, "{how:?}");
        world.finish().await;
    }
}

/// The new secret signs at once; the one before for a day more, or no more.
#[tokio::test(start_paused = true)]
async fn a_secret_is_rotated() {
    let mut world = World::new().await;
    let tenant = world.engine().caller(credential("sk-test")).tenant;
    let sign_with = async |world: &World| {
        let tested = world.engine().test_webhook(tenant, FINE).await.unwrap();
        assert!(matches!(tested, Tested::Called(_)));
        world.hooks.seen().pop().unwrap().secrets
    };
    assert_eq!(sign_with(&world).await, [0]);
    world
        .engine()
        .rotate_webhook_secret(tenant, false)
        .await
        .unwrap();
    assert_eq!(sign_with(&world).await, [1, 0]);
    world.restart(None).await;
    world.pass(23 * HOUR).await;
    let key = many(&world, 1, "sk-test", FINE).await[0];
    world.outcome(key).await;
    world.pass(SECOND).await;
    assert_eq!(world.hooks.seen().pop().unwrap().secrets, [1, 0]);
    world.pass(HOUR).await;
    assert_eq!(sign_with(&world).await, [1]);
    world
        .engine()
        .rotate_webhook_secret(tenant, true)
        .await
        .unwrap();
    assert_eq!(sign_with(&world).await, [2]);
    let secrets: Vec<_> = (0..3)
        .map(|n| world.engine().webhook_secret(tenant, n))
        .collect();
    assert!(secrets[0] != secrets[1] && secrets[1] != secrets[2]);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn test_calls_are_few() {
    let world = World::new().await;
    let tenant = |key| world.engine().caller(credential(key)).tenant;
    let test = async |key, target| {
        world
            .engine()
            .test_webhook(tenant(key), target)
            .await
            .unwrap()
    };
    for _ in 0..5 {
        assert!(matches!(test("sk-test", FINE).await, Tested::Called(_)));
    }
    let Tested::TooMany { retry_after } = test("sk-test", FINE).await else {
        panic!("one too many");
    };
    assert!(retry_after <= 6 * SECOND);
    assert!(matches!(test("sk-other", FINE).await, Tested::Called(_)));
    let refused = test("sk-other", "http://127.0.0.1/").await;
    assert!(matches!(refused, Tested::Refused(_)), "{refused:?}");
    world.pass(retry_after).await;
    assert!(matches!(test("sk-test", FINE).await, Tested::Called(_)));
    assert_eq!(world.hooks.seen().len(), 7);
}
