//! Records that cannot be read any more, while the engine runs: what they were of is
//! given up, and what stands beside it goes on.

use offpeak::{
    model::request::{OnLate, Source},
    ports::StoreError,
    simulator::Lane,
};

use super::{
    asking::{HOUR, MINUTE, ask},
    crash::How,
    world::{World, succeeded},
};

#[tokio::test(start_paused = true)]
async fn a_line_whose_request_cannot_be_read_stops_no_harvest() {
    let world = World::new().await;
    let keys = world
        .ask_many(3, |n| ask(format!("line {n}")).within(3 * HOUR))
        .await;
    let batch = world.submitted().await;
    assert_eq!(batch.lines, 3);
    world.trouble.spoil(keys[1]);
    for key in [keys[0], keys[2]] {
        let outcome = world.outcome(key).await;
        succeeded(&outcome);
        assert_eq!(outcome.source, Source::Batch(batch.id));
    }
    world.batch_that(|batch| !batch.state.is_open()).await;
    assert_eq!(world.engine().counts().open(), 0);
    world.check_counts().await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_keeps_nothing_from_failing_at_its_deadline() {
    let world = World::new().await;
    let fails = |n| {
        ask(format!("line {n}"))
            .within(3 * HOUR)
            .on_late(OnLate::Fail)
            .sim("never")
    };
    let keys = world.ask_many(3, fails).await;
    world.submitted().await;
    world.trouble.spoil(keys[0]);
    world.pass(4 * HOUR).await;
    for key in &keys[1..] {
        let outcome = world.store.head(*key).await.unwrap().unwrap().outcome;
        assert_eq!(outcome.expect("its deadline has passed").status, 504);
    }
    assert_eq!(world.engine().counts().open(), 0);
    world.check_counts().await;
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_request_cannot_be_read_is_taken_in_anew() {
    let world = World::new().await;
    let call = ask("sent again").held().within(5 * MINUTE);
    let first = world.admit(&call).await.request.key;
    world.trouble.spoil(first);
    let again = world.engine().admit(call.call(world.engine())).await;
    let again = again.unwrap_or_else(|error| panic!("{error}"));
    assert!(!again.joined && again.request.key != first);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_not_written_is_no_damage_of_its_request() {
    let world = World::new().await;
    world.trouble.on("settle", How::Corrupt, 1);
    let key = world.ask(&ask("sound").within(5 * MINUTE)).await;
    succeeded(&world.outcome(key).await);
    assert!(world.sim.bill().calls(Lane::Standard) <= 2);
}

#[tokio::test(start_paused = true)]
async fn a_list_is_told_without_what_cannot_be_read() {
    let world = World::new().await;
    let keys = world
        .ask_many(3, |n| ask(format!("call {n}")).within(5 * MINUTE))
        .await;
    world.all_done(&keys).await;
    world.trouble.spoil_attempts(keys[1]);
    let listed = world.engine().list(keys[0].tenant, None, 9).await.unwrap();
    let listed: Vec<_> = listed.iter().map(|view| view.request.key).collect();
    assert_eq!(listed, [keys[2], keys[0]]);
    let told = world.engine().view(keys[1]).await;
    assert!(matches!(told, Err(StoreError::Corrupt(_))));
}

/// One thing that the house is kept of fails, and what comes after it is done.
#[tokio::test(start_paused = true)]
async fn a_purge_that_fails_stops_no_other_work_of_the_house() {
    let world = World::new().await;
    world.trouble.on("purge", How::Corrupt, 1_000_000);
    let key = world.ask(&ask("line").within(3 * HOUR)).await;
    succeeded(&world.outcome(key).await);
    world
        .batch_that(|batch| !batch.state.is_open() && batch.litter.is_empty())
        .await;
    let credential = world.engine().caller(super::asking::credential("sk-test"));
    for _ in 0..100 {
        if world
            .store
            .credential(credential.credential)
            .await
            .unwrap()
            .is_none()
        {
            return;
        }
        world.pass(MINUTE).await;
    }
    panic!("its credential is never dropped");
}
