//! Tenants that move to another key with work to be done.

use offpeak::{
    engine::{Caller, Engine, Move, MoveError, Moved},
    model::{
        batch::Batch,
        request::{Source, State},
    },
    ports::Content,
    simulator::{Kind, Operation, key_id},
};

use super::{
    asking::{HOUR, MINUTE, SECOND, ask, credential},
    crash::How,
    world::{Allow, World, succeeded},
};

const OLD: &str = "sk-test";
const NEW: &str = "sk-other";

fn caller(engine: &Engine, key: &str) -> Caller {
    engine.caller(credential(key))
}

async fn move_away(world: &World, keep: bool) -> Result<Moved, MoveError> {
    move_from_to(world, OLD, NEW, keep).await
}

async fn move_from_to(world: &World, old: &str, new: &str, keep: bool) -> Result<Moved, MoveError> {
    let caller = caller(world.engine(), new);
    let old = credential(old);
    let how = Move {
        keep_previous: keep,
        force: false,
    };
    world.engine().move_tenant(&caller, &old, how).await
}

/// The provider refuses the old key, and only that.
fn revoke(world: &World) {
    world.sim.revoke(OLD);
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_refused_key_is_done_with_the_new_one() {
    let mut world = World::new().await;
    revoke(&world);
    let keys = world.ask_many(4, |n| ask(format!("q{n}"))).await;
    world.pass(HOUR).await;
    let moved = move_away(&world, false).await.unwrap();
    assert_eq!(moved.open_requests, 4);
    // A kill right after it.
    world.restart(None).await;
    for key in &keys {
        let outcome = world.outcome(*key).await;
        succeeded(&outcome);
        assert!(matches!(outcome.source, Source::Batch(_)), "{outcome:?}");
    }
    assert_eq!(caller(world.engine(), NEW).tenant, keys[0].tenant);
    let by: Vec<String> = world
        .sim
        .log()
        .batches
        .into_iter()
        .map(|it| it.key)
        .collect();
    assert_eq!(by, [key_id(NEW)]);
    // The old key may not even list what it has left.
    let allow = Allow {
        lost_files: true,
        ..Allow::default()
    };
    world.finish_allowing(allow).await;
}

/// Whoever has found the old key neither sees anything nor has anything paid for.
#[tokio::test(start_paused = true)]
async fn the_old_key_is_nobody_s() {
    for restarts in [false, true] {
        let mut world = World::new().await;
        let first = world.ask(&ask("first")).await;
        world.outcome(first).await;
        // It waits, so that what is sealed of the old key is still there.
        let waits = world.ask(&ask("waits").within(20 * HOUR)).await;
        move_away(&world, false).await.unwrap();
        if restarts {
            world.restart(None).await;
        }
        let theirs = world.ask(&ask("theirs").key(OLD)).await;
        let ours = world.ask(&ask("ours").key(NEW)).await;
        assert_ne!(theirs.tenant, first.tenant);
        assert_eq!(ours.tenant, first.tenant);
        let keys = [first, waits, theirs, ours];
        world.all_done(&keys).await.iter().for_each(succeeded);
        let rows = world.sim.bill().rows;
        let calls = |key: &str| {
            let its = rows.iter().filter(|row| row.key == key_id(key));
            its.map(|row| row.calls).sum::<u64>()
        };
        assert_eq!((calls(OLD), calls(NEW)), (2, 2), "each paid for its own");
        world.finish().await;
    }
}

/// Keys of one project own its batches together.
#[tokio::test(start_paused = true)]
async fn a_batch_that_runs_is_followed_with_the_new_key() {
    let (old, new) = ("sk-acme.web.one", "sk-acme.web.two");
    let mut world = World::new().await;
    let keys = world.ask_many(3, |n| ask(format!("q{n}")).key(old)).await;
    world.submitted().await;
    world.sim.revoke(old);
    let moved = move_from_to(&world, old, new, false).await.unwrap();
    assert_eq!(moved.open_requests, 3);
    world.restart(None).await;
    for outcome in world.all_done(&keys).await {
        succeeded(&outcome);
        assert!(matches!(outcome.source, Source::Batch(_)), "{outcome:?}");
    }
    assert_eq!(world.sim.log().batches.len(), 1);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_previous_key_that_is_kept_goes_on() {
    let mut world = World::new().await;
    let first = world.ask(&ask("first")).await;
    move_away(&world, true).await.unwrap();
    for restarts in [false, true] {
        if restarts {
            world.restart(None).await;
        }
        for key in [OLD, NEW] {
            assert_eq!(caller(world.engine(), key).tenant, first.tenant);
        }
    }
    succeeded(&world.outcome(first).await);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_in_use_takes_nobody_else_s_place() {
    let world = World::new().await;
    let old = world.ask(&ask("old")).await;
    let new = world.ask(&ask("new").key(NEW)).await;
    let refused = move_away(&world, false).await;
    assert!(matches!(refused, Err(MoveError::InUse)), "{refused:?}");
    for key in [old, new] {
        assert_eq!(world.outcome(key).await.state, State::Succeeded);
    }
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_move_during_its_calls_loses_none() {
    let world = World::with(|settings, _| settings.packing.max_lines = 2).await;
    world.faults(Operation::UploadFile, Kind::Delay { by: MINUTE }, 3);
    let (old, new) = ("sk-acme.web.one", "sk-acme.web.two");
    let keys = world.ask_many(9, |n| ask(format!("q{n}")).key(old)).await;
    world.pass(30 * SECOND).await;
    move_from_to(&world, old, new, false).await.unwrap();
    for key in &keys {
        let stored = world.store.load(*key).await.unwrap().unwrap();
        assert!(matches!(
            stored.content,
            Content::Open { .. } | Content::Done { .. }
        ));
    }
    world.all_done(&keys).await.iter().for_each(succeeded);
    world.finish().await;
}

/// What runs could not be followed, and would be done a second time.
#[tokio::test(start_paused = true)]
async fn a_key_of_another_project_is_refused_while_a_batch_runs() {
    let world = World::new().await;
    let key = world.ask(&ask("runs")).await;
    world.submitted().await;
    let moved = move_away(&world, false).await;
    assert!(matches!(moved, Err(MoveError::OtherProject)), "{moved:?}");
    succeeded(&world.outcome(key).await);
    move_away(&world, false).await.unwrap();
    world.finish().await;
}

/// Nobody knows yet whether there is a batch: it would run and be billed, and nobody see it.
#[tokio::test(start_paused = true)]
async fn a_key_of_another_project_is_refused_while_a_create_is_looked_for() {
    let world = World::new().await;
    world.fault(Operation::CreateBatch, Kind::ReplyLost);
    let by = MINUTE;
    world.faults(Operation::ListBatches, Kind::Lag { by }, 1_000);
    let (old, new) = ("sk-acme.web.one", "sk-acme.web.two");
    let key = world.ask(&ask("lost").key(old)).await;
    let sent = |batch: &Batch| batch.create_sent.is_some();
    let batch = world.batch_that(sent).await;
    assert_eq!(batch.provider_id, None);
    let moved = move_from_to(&world, old, NEW, false).await;
    assert!(matches!(moved, Err(MoveError::OtherProject)), "{moved:?}");
    move_from_to(&world, old, new, false).await.unwrap();
    succeeded(&world.outcome(key).await);
    assert_eq!(world.sim.log().batches.len(), 1);
    world.finish().await;
}

/// Keys that are none lock nobody out, and are not tried without end.
#[tokio::test(start_paused = true)]
async fn keys_that_are_refused_count_as_no_moves() {
    let world = World::new().await;
    let (old, new) = ("sk-acme.web.one", "sk-acme.web.two");
    let key = world.ask(&ask("waits").key(old).within(20 * HOUR)).await;
    for round in 0..3 {
        for number in 0..6 {
            let tried = move_from_to(&world, old, "sk-bad-key", false).await;
            let refused = matches!(tried, Err(MoveError::Refused { .. }));
            assert!(refused, "{round} {number}: {tried:?}");
        }
        let Err(MoveError::TooFast { wait }) = move_from_to(&world, old, new, false).await else {
            panic!("without end");
        };
        assert!(wait <= 10 * SECOND, "{wait:?}");
        world.pass(MINUTE).await;
    }
    for number in 0..10 {
        let (from, to) = match number % 2 {
            0 => (old, new),
            _ => (new, old),
        };
        let moved = move_from_to(&world, from, to, false).await;
        assert!(moved.is_ok(), "{number}: {moved:?}");
        world.pass(10 * SECOND).await;
    }
    let moved = move_from_to(&world, old, new, false).await;
    assert!(matches!(moved, Err(MoveError::TooMany)), "{moved:?}");
    succeeded(&world.outcome(key).await);
    world.finish().await;
}

/// It may have leaked; that is why there is another.
#[tokio::test(start_paused = true)]
async fn a_key_that_is_kept_moves_nothing() {
    let mut world = World::new().await;
    let first = world.ask(&ask("first")).await;
    move_away(&world, true).await.unwrap();
    for restarts in [false, true] {
        if restarts {
            world.restart(None).await;
        }
        let stolen = move_from_to(&world, OLD, "sk-thief", false).await;
        assert!(matches!(stolen, Err(MoveError::Kept)), "{stolen:?}");
    }
    succeeded(&world.outcome(first).await);
    world.finish().await;
}

/// What is durable is known here too, whether or not its caller has waited for it.
#[tokio::test(start_paused = true)]
async fn a_move_whose_caller_hangs_up_is_made_whole() {
    let mut world = World::new().await;
    let (old, new) = ("sk-acme.web.one", "sk-acme.web.two");
    let waits = world.ask(&ask("waits").key(old).within(20 * HOUR)).await;
    world
        .trouble
        .on("move_tenant", How::LateReply(10 * SECOND), 1);
    let left = tokio::time::timeout(SECOND, move_from_to(&world, old, new, false)).await;
    assert!(left.is_err(), "{left:?}");
    world.pass(MINUTE).await;
    for restarts in [false, true] {
        if restarts {
            world.restart(None).await;
        }
        assert_eq!(caller(world.engine(), new).tenant, waits.tenant);
        assert_ne!(caller(world.engine(), old).tenant, waits.tenant);
    }
    succeeded(&world.outcome(waits).await);
    world.finish().await;
}
