//! What waits in the queue although it could be packed by its age: it goes live in
//! time, whatever it waits for.

use std::time::Duration;

use offpeak::{
    model::{attempt::Lane, id::RequestKey, request::Source},
    simulator::{self, Operation},
};

use super::{
    asking::{Ask, HOUR, SECOND, ask},
    deadlines::{CALL, admit_many, few_at_a_time, is_firm, keys},
    world::{LIVE, World, refusal, succeeded},
};

const WITHIN: Duration = Duration::from_secs(50 * 60);
const CALLS: usize = 3;

/// What keeps calls from being packed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Held {
    Paused,
    CreatesSpent,
    CreatesThrottled,
    TokensTaken,
}

/// A world in which nothing more is packed for the next hour.
async fn held(by: Held) -> World {
    let world = World::with(|settings, _| match by {
        Held::CreatesSpent => {
            settings.packing.creates_per_hour = 1;
            settings.packing.creates_reserve = 0.0;
        }
        Held::TokensTaken => {
            let limit = ("gpt-4o-mini".to_owned(), 100);
            settings.packing.enqueued_tokens = [limit].into();
        }
        Held::Paused | Held::CreatesThrottled => {}
    })
    .await;
    if by == Held::CreatesThrottled {
        let status = refusal(429, Some(3600));
        world.fault(Operation::CreateBatch, status);
    }
    if by == Held::Paused {
        world.engine().pause();
    } else {
        let first = ask("word ".repeat(100)).sim("slow=2h").within(20 * HOUR);
        world.ask(&first).await;
        world.pass(10 * SECOND).await;
    }
    world
}

fn waits(number: usize) -> Ask {
    ask(format!("waits {number}")).within(WITHIN)
}

/// The most that is left when admission takes no batch any more, to a second.
async fn too_little_for_a_batch() -> Duration {
    let world = World::new().await;
    let (mut live, mut batch) = (SECOND, WITHIN);
    while batch - live > SECOND {
        let within = (live + batch) / 2;
        let call = ask(format!("{within:?}")).within(within);
        match world.admit(&call).await.request.lane {
            Lane::Batch => batch = within,
            _ => live = within,
        }
    }
    live
}

fn batches_of(world: &World, key: RequestKey) -> usize {
    let log = world.sim.log();
    let id = key.id.to_string();
    log.custom_ids.get(&id).map_or(0, Vec::len)
}

#[tokio::test(start_paused = true)]
async fn what_waits_goes_live_when_admission_would_send_it_there() {
    let border = too_little_for_a_batch().await;
    for by in [
        Held::Paused,
        Held::CreatesSpent,
        Held::CreatesThrottled,
        Held::TokensTaken,
    ] {
        let world = held(by).await;
        let first = world.admit(&waits(0)).await.request;
        let mut keys = vec![first.key];
        keys.extend(world.ask_many(CALLS - 1, |n| waits(n + 1)).await);
        let leaves = first.cohort.bucket.start - border;
        // Room for one call that is in the way, and for each of them.
        let sooner = 10 * SECOND;
        world
            .pass(world.now().until(leaves - sooner - SECOND))
            .await;
        assert_eq!(world.engine().counts().queued, CALLS as u64, "{by:?}");
        world.pass(sooner + SECOND).await;
        assert_eq!(world.engine().counts().queued, 0, "{by:?}");
        for key in keys {
            let outcome = world.outcome(key).await;
            succeeded(&outcome);
            assert_eq!(outcome.source, LIVE, "{by:?}: {outcome:?}");
            assert!(outcome.finished <= first.deadline, "{by:?}: {outcome:?}");
            assert_eq!(batches_of(&world, key), 0, "{by:?}");
        }
        world.engine().resume();
        world.finish().await;
        let ledger = world.ledger().await;
        assert_eq!(ledger.rescued, CALLS as u64, "{by:?}");
        assert_eq!((ledger.late, ledger.paid_twice), (0, 0), "{by:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_no_budget_covers_waits_to_be_packed() {
    let world = World::with(|settings, _| {
        settings.rescue.budget_usd_per_hour = Some("0".parse().unwrap());
    })
    .await;
    world.engine().pause();
    let keys = world.ask_many(CALLS, waits).await;
    world.pass(2 * WITHIN).await;
    let counts = world.engine().counts();
    assert_eq!((counts.queued, counts.live), (CALLS as u64, 0));
    world.engine().resume();
    for outcome in world.all_done(&keys).await {
        succeeded(&outcome);
        assert!(matches!(outcome.source, Source::Batch(_)), "{outcome:?}");
    }
    world.finish().await;
    assert_eq!(world.sim.bill().calls(simulator::Lane::Standard), 0);
}

/// What nothing was promised to makes room for what is firm, and goes itself only
/// while it can be in time.
#[tokio::test(start_paused = true)]
async fn what_nothing_was_promised_to_waits_for_room() {
    let world = few_at_a_time(1).await;
    world.engine().pause();
    let call = |n: usize| waits(n).sim("slow=30s");
    let requests = admit_many(&world, 150, call).await;
    let (firm, rest): (Vec<_>, Vec<_>) = requests.into_iter().partition(|it| is_firm(it));
    assert!((48..=60).contains(&firm.len()), "{} firm", firm.len());
    let due = rest[0].cohort.bucket.start;
    let mut went = 0;
    while world.now() < due {
        let counts = world.engine().counts();
        let left = world.now().until(due).as_secs_f64() / CALL.as_secs_f64();
        let gone = rest.len().saturating_sub(counts.queued as usize);
        assert!(
            gone <= went || counts.live as f64 <= left,
            "{counts:?}, {left} left"
        );
        went = gone.max(went);
        world.pass(SECOND).await;
    }
    assert!((3..=12).contains(&went), "{went} went live");
    for (request, outcome) in firm.iter().zip(world.all_done(&keys(&firm)).await) {
        assert!(outcome.finished <= request.deadline, "{outcome:?}");
    }
    world.engine().resume();
    world.finish().await;
}
