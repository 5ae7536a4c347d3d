//! A batch that hangs, where there is time for another.

use offpeak::{
    model::request::Source,
    simulator::{Kind, Lane, Operation},
};

use super::{
    asking::{HOUR, MINUTE, SECOND, ask},
    world::{World, succeeded},
};

/// A fresh batch is no rescue: nothing is paid for it, so no budget keeps a batch
/// that hangs.
#[tokio::test(start_paused = true)]
async fn no_budget_is_needed_to_leave_one_for_a_fresh_one() {
    let world = World::with(|settings, _| {
        settings.rescue.budget_usd_per_day = Some("0".parse().unwrap());
    })
    .await;
    world.fault(Operation::CreateBatch, Kind::Slow { by: 40 * HOUR });
    let keys = world
        .ask_many(20, |n| ask(format!("q{n}")).within(24 * HOUR))
        .await;
    for (key, outcome) in keys.iter().zip(world.all_done(&keys).await) {
        succeeded(&outcome);
        assert!(matches!(outcome.source, Source::Batch(_)), "{outcome:?}");
        assert!(outcome.finished <= key.id.born() + 24 * HOUR, "{outcome:?}");
    }
    world.finish().await;
    let ends: Vec<_> = world.sim.log().batches.iter().map(|it| it.status).collect();
    assert_eq!(ends, ["cancelled", "completed"]);
    let bill = world.sim.bill();
    assert_eq!(
        (bill.calls(Lane::Batch), bill.calls(Lane::Standard)),
        (20, 0)
    );
}

/// Where the plan would try one after the other for as long as there is time, each is
/// waited for a quarter of what half of them take, doubled for each before it.
#[tokio::test(start_paused = true)]
async fn each_is_waited_for_twice_as_long_as_the_one_before() {
    let world = World::with(|settings, _| {
        let batch = &mut settings.ladder.batch;
        batch.median = 4 * MINUTE;
        batch.p90 = 250 * SECOND;
        batch.never = 0.3;
        // Nothing is learned of those that never end.
        settings.rescue.prior_weight = 1e6;
    })
    .await;
    let call = ask("never").sim("never").within(6 * HOUR);
    succeeded(&world.outcome(world.ask(&call).await).await);
    world.finish().await;
    let mut batches = world.batches().await;
    batches.sort_by_key(|batch| batch.created);
    let ages = batches.iter().map(|batch| {
        let asked = batch.cancel_sent.expect("none of them ended");
        batch.created.until(asked).as_secs()
    });
    let ages: Vec<u64> = ages.collect();
    // The first and the last are left where the plan leaves them.
    let doubled = |three: &[u64]| {
        let patience = [990, 1_980, 3_960];
        let mut pairs = three.iter().zip(patience);
        pairs.all(|(age, least)| (least..least * 6 / 5).contains(age))
    };
    assert!(ages.windows(3).any(doubled), "{ages:?}");
}
