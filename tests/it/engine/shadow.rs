//! Shadow mode: what calls that passed through would have cost with a deadline.

use std::time::Duration;

use offpeak::{
    engine::{Passed, Whose},
    model::{
        endpoint::Endpoint,
        money::Usd,
        shadow::{ShadowKey, ShadowRow},
    },
};

use super::{
    asking::{HOUR, MINUTE, SECOND, ask, credential},
    world::World,
};

const KEY: &str = "sk-passing";

async fn world(deadline: Duration) -> World {
    World::with(|settings, _| settings.shadow.deadline = Some(deadline)).await
}

/// An answer of 1,000 tokens in and 200 out has passed.
fn pass(world: &World, model: &str, cached: u64) {
    pass_with(world, model, serde_json::json!({"cached_tokens": cached}));
}

fn pass_with(world: &World, model: &str, details: serde_json::Value) {
    let answer = serde_json::json!({
        "model": model,
        "usage": {
            "prompt_tokens": 1000,
            "completion_tokens": 200,
            "prompt_tokens_details": details,
        },
    });
    let mut excerpt = world.engine().excerpt(false, None).unwrap();
    assert!(excerpt.push(answer.to_string().as_bytes()));
    world.engine().passed(Passed {
        whose: Whose::Presents(credential(KEY)),
        endpoint: Endpoint::ChatCompletions,
        streamed: false,
        answer: Some(excerpt),
    });
}

async fn sums(world: &World) -> ShadowRow {
    let mut sums = ShadowRow::default();
    for (_, row) in world.engine().shadow(None).await.unwrap().1 {
        sums.add(&row);
    }
    sums
}

#[tokio::test(start_paused = true)]
async fn what_is_saved_grows_with_the_deadline() {
    let mut before = Usd::from_pico(270_000_000);
    for (deadline, least, most, rescued, missed) in [
        (SECOND, 270, 270, 0..1, 1_000_000..1_000_001),
        (20 * MINUTE, 150, 220, 100_000..600_000, 1_000..6_000),
        (6 * HOUR, 135, 140, 0..50_000, 0..500),
    ] {
        let world = world(deadline).await;
        pass(&world, "gpt-4o-mini-2024-07-18", 0);
        let row = sums(&world).await;
        let micros = Usd::from_pico(1_000_000);
        assert_eq!(row.plain.cost, micros.times(270));
        let expected = row.plain.expected;
        assert!(expected >= micros.times(least), "{deadline:?}: {expected}");
        assert!(expected <= micros.times(most), "{deadline:?}: {expected}");
        assert!(rescued.contains(&row.plain.rescued_micro), "{row:?}");
        assert!(missed.contains(&row.plain.missed_micro), "{row:?}");
        assert!(expected <= before);
        before = expected;
    }
}

#[tokio::test(start_paused = true)]
async fn cached_tokens_that_a_batch_bills_in_full_are_reckoned_in_full() {
    let world = world(6 * HOUR).await;
    pass(&world, "gpt-4o-mini", 1000);
    let row = sums(&world).await;
    // 1000 × 0.075 + 200 × 0.60 and, in a batch, 1000 × 0.075 + 200 × 0.30, a million.
    let micros = |micros| Usd::from_pico(1_000_000).times(micros);
    assert_eq!(row.plain.cost, micros(195));
    assert!(row.plain.expected >= micros(135) && row.plain.expected < micros(140));
}

#[tokio::test(start_paused = true)]
async fn what_the_ledger_would_not_bill_is_unpriced() {
    use serde_json::json;
    let world = world(6 * HOUR).await;
    let long_kept = json!({"cache_write_tokens": 9,
        "cache_write_tokens_details": {"ttl_12h_tokens": 9}});
    for (model, details, unpriced) in [
        ("gpt-4o-mini", json!({"audio_tokens": 1}), 1),
        // A model without a rate for what is kept for longer, and one with it.
        ("gpt-5.5", long_kept.clone(), 2),
        ("gpt-6-sol", long_kept, 2),
        ("gpt-4o-mini", json!({"audio_tokens": 0}), 2),
    ] {
        pass_with(&world, model, details);
        assert_eq!(sums(&world).await.unpriced, unpriced, "{model}");
    }
    let row = sums(&world).await;
    // 991 × 2 + 9 × 5 + 200 × 10, and 1000 × 0.15 + 200 × 0.60, a million.
    let cost = Usd::from_pico(1_000_000).times(991 * 2 + 45 + 2_000 + 270);
    assert_eq!((row.calls, row.unread, row.plain.cost), (4, 0, cost));
}

#[tokio::test(start_paused = true)]
async fn what_was_learned_decides() {
    // Batches take moments at this provider, which nobody believes at first.
    let world = World::with(|settings, provider| {
        settings.shadow.deadline = Some(10 * MINUTE);
        provider.latency.turnaround_median = SECOND;
    })
    .await;
    pass(&world, "gpt-4o-mini-2024-07-18", 0);
    let before = sums(&world).await.plain;
    for number in 0..60 {
        let one = ask(format!("{number}")).key(KEY);
        let key = world.ask(&one).await;
        world.outcome(key).await;
    }
    world.pass(MINUTE).await;
    pass(&world, "gpt-4o-mini-2024-07-18", 0);
    let both = sums(&world).await.plain;
    assert!(both.expected - before.expected < before.expected);
}

#[tokio::test(start_paused = true)]
async fn sums_are_written_down_now_and_then() {
    let mut world = world(6 * HOUR).await;
    for _ in 0..3 {
        pass(&world, "gpt-4o-mini", 0);
    }
    world.pass(MINUTE + SECOND).await;
    pass(&world, "gpt-4o-mini", 0);
    assert_eq!(sums(&world).await.calls, 4);
    // All that a kill would leave.
    let kept = world.store.shadow().await.unwrap();
    assert_eq!(kept[0].1.calls, 3);
    world.restart(None).await;
    pass(&world, "gpt-4o-mini", 0);
    assert!(sums(&world).await.calls >= 4);
}

#[tokio::test(start_paused = true)]
async fn what_finds_the_queue_full_is_unread() {
    let world = world(6 * HOUR).await;
    // Nobody reads meanwhile: all of this is one thread.
    for _ in 0..9_000 {
        pass(&world, "gpt-4o-mini", 0);
    }
    let sums = sums(&world).await;
    assert_eq!((sums.calls, sums.unread), (9_000, 9_000 - 8_192));
}

#[tokio::test(start_paused = true)]
async fn what_is_long_past_is_forgotten_and_another_deadline_is_not_told() {
    let mut world = world(6 * HOUR).await;
    let today = world.now().as_hours() / 24;
    let key = |day, hours| ShadowKey {
        tenant: world.engine().caller(credential(KEY)).tenant,
        day,
        deadline: hours * HOUR,
        model: None,
    };
    let row = ShadowRow {
        calls: 1,
        ..ShadowRow::default()
    };
    let (old, told, other) = (key(today - 93, 6), key(today - 92, 6), key(today, 5));
    let rows = [&old, &told, &other].map(|key| (key.clone(), Some(row.clone())));
    for written in world.store.put_shadow(rows.to_vec()).await {
        written.unwrap();
    }
    world.restart(None).await;
    world.pass(MINUTE).await;
    assert_eq!(sums(&world).await.calls, 1);
    let kept = world.store.shadow().await.unwrap().into_iter();
    let kept: Vec<ShadowKey> = kept.map(|(key, _)| key).collect();
    assert_eq!(kept, [told, other]);
}
