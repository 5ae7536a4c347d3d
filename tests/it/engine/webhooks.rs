//! Results that are delivered.

use std::sync::Arc;

use offpeak::{
    model::{request::OnLate, time::Timestamp},
    ports::{Clock, DeliveryStatus, HookOutcome},
};

use super::{
    asking::{HOUR, MINUTE, SECOND, ask},
    life::Machine,
    world::World,
};

fn retry() -> HookOutcome {
    HookOutcome::Retry {
        status: Some(500),
        reason: "500".into(),
        after: None,
    }
}

#[tokio::test(start_paused = true)]
async fn a_webhook_arrives_and_is_the_same_at_every_try() {
    let world = World::new().await;
    world.hooks.answer_with([retry(), retry()]);
    let key = world.ask(&ask("tell me").webhook()).await;
    world.finish().await;
    let ids = world.hooks.ids();
    assert_eq!(ids, [key.id.event(), key.id.event(), key.id.event()]);
    let times = world.hooks.times();
    let waits: Vec<u64> = times
        .windows(2)
        .map(|pair| pair[0].until(pair[1]).as_secs())
        .collect();
    assert!(
        (3..7).contains(&waits[0]) && (15..25).contains(&waits[1]),
        "{waits:?}"
    );
    let bodies = world.hooks.bodies();
    assert!(bodies.iter().all(|body| *body == bodies[0]));
    assert!(
        bodies[0].contains(r#""type":"offpeak.request.succeeded""#),
        "{}",
        bodies[0]
    );
    let event: serde_json::Value = serde_json::from_str(&bodies[0]).unwrap();
    let bill = world.outcome(key).await.bill.unwrap();
    assert!(bill.paid < bill.standard);
    let saved = (bill.standard - bill.paid).to_string();
    assert_eq!(event["data"]["cost_usd"], bill.paid.to_string());
    assert_eq!(event["data"]["saved_usd"], saved);
    assert_eq!(world.hooks.bills(), [Some(bill); 3]);
    let status = world.store.delivery_status(key).await.unwrap();
    assert!(matches!(
        status,
        Some(DeliveryStatus::Delivered { tries: 3, .. })
    ));
}

/// Receivers hold its time against their own clock.
#[tokio::test(start_paused = true)]
async fn a_webhook_is_signed_by_the_wall_clock_however_that_was_set() {
    for forward in [true, false] {
        let machine = Arc::new(Machine::new(Timestamp::from_secs(1_800_000_000), 1));
        let world = World::with_clock(machine.clone(), |_, _| {}).await;
        world.ask(&ask("tell me").webhook()).await;
        match forward {
            true => machine.jump_forward(HOUR),
            false => machine.jump_back(HOUR),
        }
        let before = machine.wall();
        world.finish().await;
        let (at, after) = (world.hooks.times()[0], machine.wall());
        assert!(before <= at && at <= after, "{before} {at} {after}");
        let told = machine.now();
        let apart = told.until(after).max(after.until(told));
        assert!(
            apart > 30 * MINUTE,
            "engine's own time is {told} at {after}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_can_be_sent_again() {
    let world = World::new().await;
    world.hooks.answer_with((0..100).map(|_| retry()));
    let key = world.ask(&ask("tell me").webhook()).await;
    world.finish().await;
    let status = world.store.delivery_status(key).await.unwrap();
    assert!(
        matches!(status, Some(DeliveryStatus::Dead { .. })),
        "{status:?}"
    );
    let tries = world.hooks.ids().len();
    assert!((10..40).contains(&tries), "{tries}");
    world.hooks.take_everything();
    assert!(world.engine().redeliver(key).await.unwrap());
    world.finish().await;
    let status = world.store.delivery_status(key).await.unwrap();
    assert!(
        matches!(status, Some(DeliveryStatus::Delivered { .. })),
        "{status:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_target_that_is_gone_is_left_alone() {
    let world = World::new().await;
    let reason = "410".to_owned();
    world.hooks.answer_with([HookOutcome::Gone { reason }]);
    let call = ask("late").webhook().on_late(OnLate::Fail).within(MINUTE);
    world.ask(&call).await;
    world.finish().await;
    assert_eq!(world.hooks.ids().len(), 1);
    assert!(world.hooks.bodies()[0].contains("offpeak.request.failed"));
}

/// One caller who is slow to take its answer does not keep the others waiting.
#[tokio::test(start_paused = true)]
async fn never_before_its_own_acknowledgement() {
    let world = World::new().await;
    let held = world
        .admit(&ask("held").held().webhook().within(MINUTE))
        .await;
    let plain = world.ask(&ask("plain").webhook().within(MINUTE)).await;
    let key = held.request.key;
    while world.hooks.ids().is_empty() || world.store.delivery_status(key).await.unwrap().is_none()
    {
        world.pass(SECOND / 10).await;
    }
    assert_eq!(world.hooks.ids(), [plain.id.event()]);
    held.hold.delivered(world.engine());
    world.pass(SECOND).await;
    assert_eq!(world.hooks.ids(), [plain.id.event(), key.id.event()]);
    world.finish().await;
}

/// Callers whose connections are stalled are waited for, but not for ever, and
/// however many they are, who is due behind them is not kept waiting.
#[tokio::test(start_paused = true)]
async fn stalled_acknowledgements_hold_up_nobody() {
    let world = World::new().await;
    let mut stalled = Vec::new();
    for number in 0..300 {
        let text = format!("stalled {number}");
        stalled.push(world.admit(&ask(&text).held().webhook()).await);
    }
    let plain = world.ask(&ask("plain").webhook()).await;
    world.pass(24 * HOUR).await;
    let (ids, times) = (world.hooks.ids(), world.hooks.times());
    assert_eq!(ids[0], plain.id.event());
    assert_eq!(ids.len(), 301, "those that are stalled are told in the end");
    let wait = times[0].until(times[1]);
    assert!((4 * SECOND..8 * SECOND).contains(&wait), "{wait:?}");
    drop(stalled);
    world.finish().await;
}
