//! A provider that never answers what the janitor asks it: the rest of the house is
//! kept in time.

use offpeak::simulator::{Kind, Operation};
use tokio::time::Instant;

use super::{
    asking::{HOUR, MINUTE, SECOND, ask},
    world::{World, refusal, succeeded},
};

const MANY: u32 = 1_000_000;
/// How many keys have work: serial looks of ten minutes each would take hours.
const KEYS: usize = 20;
/// Of one kind that run at the same time.
const AT_A_TIME: u64 = 16;

async fn looks(world: &World, operation: Operation) -> u64 {
    let log = world.sim.log();
    log.operations.get(&operation).copied().unwrap_or(0)
}

/// A call of another key is answered, and its files are deleted, within two minutes.
async fn another_is_served(world: &World) {
    let key = world.ask(&ask("another").key("sk-other")).await;
    succeeded(&world.outcome(key).await);
    world.pass(2 * MINUTE).await;
    let batches = world.batches().await;
    let own = batches.iter().filter(|batch| batch.tenant == key.tenant);
    for batch in own {
        assert!(batch.litter.is_empty(), "{batch:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_that_hangs_holds_up_nothing_else() {
    let world = World::with(|settings, _| settings.retention.results = 9 * HOUR).await;
    world.faults(Operation::ListBatches, Kind::Hang, MANY);
    let call = |n| ask(format!("q{n}")).key(&format!("sk-{n}"));
    let keys = world.ask_many(KEYS, call).await;
    world.all_done(&keys).await.iter().for_each(succeeded);
    world.pass(2 * MINUTE).await;
    let begun = looks(&world, Operation::ListBatches).await;
    assert_eq!(begun, AT_A_TIME, "each of them hangs");
    another_is_served(&world).await;

    // Ten minutes each, one after the other, of each key.
    let before = looks(&world, Operation::ListBatches).await;
    world.pass(2 * HOUR).await;
    let in_two_hours = looks(&world, Operation::ListBatches).await - before;
    assert!(in_two_hours <= AT_A_TIME * 13, "{in_two_hours} looks");

    world.pass(7 * HOUR).await;
    for key in keys {
        let stored = world.engine().head(key).await.unwrap();
        assert!(stored.is_none(), "kept for too long");
    }
}

#[tokio::test(start_paused = true)]
async fn deletes_that_hang_hold_up_nothing_else() {
    let world = World::with(|settings, _| settings.retention.results = 9 * HOUR).await;
    world.faults(Operation::DeleteFile, Kind::Hang, MANY);
    let call = |n| ask(format!("q{n}")).key(&format!("sk-{n}"));
    let keys = world.ask_many(KEYS, call).await;
    world.all_done(&keys).await.iter().for_each(succeeded);
    world.pass(9 * HOUR + 3 * MINUTE).await;
    for key in &keys {
        let stored = world.engine().head(*key).await.unwrap();
        assert!(stored.is_none(), "kept for too long");
    }
    let littered = |batches: Vec<offpeak::model::batch::Batch>| {
        let littered = batches.iter().filter(|batch| !batch.litter.is_empty());
        littered.count()
    };
    assert_eq!(littered(world.batches().await), KEYS);
    world.sim.clear_faults();
    world.pass(HOUR).await;
    assert_eq!(littered(world.batches().await), 0);
}

#[tokio::test(start_paused = true)]
async fn a_look_up_of_a_model_that_hangs_holds_up_nothing_else() {
    let world = World::new().await;
    world.faults(Operation::Any, refusal(401, None), MANY);
    let call = |n| ask(format!("q{n}")).key(&format!("sk-{n}"));
    let keys = world.ask_many(KEYS, call).await;
    world.pass(30 * SECOND).await;
    assert_eq!(world.engine().refusals_of(None).len(), KEYS);
    world.sim.clear_faults();
    world.faults(Operation::GetModel, Kind::Hang, MANY);
    another_is_served(&world).await;

    // Whether they work is not told, in two rounds of ten minutes: they are let through.
    world.pass(20 * MINUTE).await;
    assert!(world.engine().refusals_of(None).is_empty());
    world.all_done(&keys).await.iter().for_each(succeeded);
    world.sim.clear_faults();
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_does_not_wait_for_them() {
    let mut world = World::new().await;
    world.faults(Operation::ListBatches, Kind::Hang, MANY);
    let key = world.ask(&ask("one")).await;
    succeeded(&world.outcome(key).await);
    world.pass(2 * MINUTE).await;
    assert_eq!(looks(&world, Operation::ListBatches).await, 1);
    let began = Instant::now();
    world.engine().stop(HOUR).await;
    // Of the world's own time.
    assert!(began.elapsed() < SECOND, "{:?}", began.elapsed());
    world.sim.clear_faults();
    world.restart(None).await;
    world.finish().await;
}
