//! Every deadline met, whatever the provider's batches do, and at what cost.

use std::{sync::Arc, time::Duration};

use offpeak::{
    engine::Believed,
    model::{
        attempt,
        id::RequestKey,
        request::{Guarantee, Outcome, Request, Source},
        time::Timestamp,
    },
    simulator::{Kind, Lane, Operation},
};

use super::{
    asking::{Ask, HOUR, MINUTE, SECOND, ask},
    life::Machine,
    world::{LIVE, World, succeeded},
};

/// What an ordinary call takes here.
pub const CALL: Duration = Duration::from_secs(31);

pub async fn admit_many(
    world: &World,
    count: usize,
    ask: impl Fn(usize) -> Ask,
) -> Vec<Arc<Request>> {
    let mut admitted = Vec::new();
    for number in 0..count {
        admitted.push(world.admit(&ask(number)).await.request);
    }
    admitted
}

pub fn keys(requests: &[Arc<Request>]) -> Vec<RequestKey> {
    requests.iter().map(|request| request.key).collect()
}

fn cancelled(world: &World) -> usize {
    let log = world.sim.log();
    let cancelled = log.batches.iter().filter(|it| it.status == "cancelled");
    cancelled.count()
}

pub fn is_firm(request: &Request) -> bool {
    request.cohort.guarantee == Guarantee::Firm
}

/// So many calls of half a minute at a time, and batches that never end.
pub async fn few_at_a_time(calls: u32) -> World {
    World::with(|settings, _| {
        settings.live.max_concurrent = calls;
        settings.live.start_concurrent = calls;
        settings.live.expected = CALL;
    })
    .await
}

const AT_A_TIME: u32 = 4;

/// Four scopes, of which two have two endpoints; due between one hour and four.
fn hangs(number: usize) -> Ask {
    let mut call = ask(format!("q{number}")).sim("never slow=30s");
    call.key = ["sk-test", "sk-other"][number % 2].into();
    match number / 2 % 3 {
        0 => call.model = "gpt-4.1".into(),
        1 => call = call.response(),
        _ => {}
    }
    // In no order of their asking.
    let order = (number * 7919 % 300) as u32;
    call.within((1 + order % 4) * HOUR + order * SECOND)
}

#[tokio::test(start_paused = true)]
async fn a_stalled_provider_makes_nobody_late() {
    let world = few_at_a_time(AT_A_TIME).await;
    let requests = admit_many(&world, 300, hangs).await;
    assert!(
        requests.iter().all(|it| is_firm(it)),
        "there is room for all"
    );
    let outcomes = world.all_done(&keys(&requests)).await;
    for (request, outcome) in requests.iter().zip(&outcomes) {
        succeeded(outcome);
        assert_eq!(outcome.source, LIVE);
        let late = request.deadline.until(outcome.finished);
        assert!(late.is_zero(), "{late:?} late: {request:?}");
    }
    in_order(&requests, &outcomes);
    world.finish().await;
    let (log, ledger) = (world.sim.log(), world.ledger().await);
    assert_eq!(cancelled(&world), log.batches.len(), "all are cancelled");
    assert_eq!((ledger.late, ledger.paid_twice), (0, 0));
    assert_eq!(world.sim.bill().calls(Lane::Standard), 300);
    assert_eq!(world.sim.bill().calls(Lane::Batch), 0);
}

/// Of one scope nobody is served before who is due in an earlier bucket, nor in a
/// batch before who is due earlier.
fn in_order(requests: &[Arc<Request>], outcomes: &[Outcome]) {
    let mut served: Vec<_> = requests.iter().zip(outcomes).collect();
    served.sort_by_key(|(_, outcome)| outcome.finished);
    for (index, (one, first)) in served.iter().enumerate() {
        for (other, second) in &served[index + 1..] {
            let one_scope = (&other.model, other.credential) == (&one.model, one.credential);
            let ahead = match other.cohort == one.cohort {
                true => other.deadline < one.deadline,
                false => other.deadline < one.cohort.bucket.start,
            };
            // Two that overlap can end either way round.
            let overtook = first.finished + CALL < second.finished;
            assert!(
                !(one_scope && ahead && overtook),
                "{one:?} {first:?} before {other:?} {second:?}"
            );
        }
    }
}

/// More than can run live in time, where every batch takes so much longer.
async fn too_much(slower: Duration) -> (World, Vec<Outcome>) {
    let world = few_at_a_time(2).await;
    world.faults(Operation::CreateBatch, Kind::Slow { by: slower }, 1000);
    let call = |n: usize| ask(format!("q{n}")).sim("slow=30s").within(2 * HOUR);
    let requests = admit_many(&world, 700, call).await;
    let begun = world.now();
    let (firm, rest): (Vec<_>, Vec<_>) = requests.into_iter().partition(|it| is_firm(it));
    // Four fifths of two calls of 31 s at a time, for 90 minutes less two calls.
    assert!((250..=280).contains(&firm.len()), "{} firm", firm.len());
    for (request, outcome) in firm.iter().zip(world.all_done(&keys(&firm)).await) {
        succeeded(&outcome);
        assert!(outcome.finished <= request.deadline, "{outcome:?}");
    }
    world.pass(world.now().until(begun + 2 * HOUR)).await;
    // Nobody leaves a batch to wait in vain.
    while world.engine().counts().open() > 0 {
        let counts = world.engine().counts();
        assert!(counts.live <= 50, "{counts:?}");
        world.pass(MINUTE).await;
    }
    let outcomes = world.all_done(&keys(&rest)).await;
    outcomes.iter().for_each(succeeded);
    world.finish().await;
    (world, outcomes)
}

#[tokio::test(start_paused = true)]
async fn what_nothing_was_promised_to_is_answered_by_a_provider_that_wakes() {
    let (world, rest) = too_much(65 * MINUTE).await;
    let batch = rest.iter().filter(|it| it.source != LIVE).count();
    assert!(batch >= 200, "{batch} of {}", rest.len());
    // Of a batch that went live piece by piece before the provider woke.
    let twice = world.ledger().await.paid_twice;
    assert!(twice * 4 <= rest.len() as u64, "{twice} of {}", rest.len());
}

/// Once all lines of a batch have gone live, it is worth nothing.
#[tokio::test(start_paused = true)]
async fn what_went_live_piece_by_piece_is_not_paid_for_in_its_batch() {
    let (world, rest) = too_much(10 * HOUR).await;
    assert!(rest.iter().all(|outcome| outcome.source == LIVE));
    assert_eq!(world.ledger().await.paid_twice, 0);
    assert_eq!(cancelled(&world), world.sim.log().batches.len());
}

fn learned(world: &World, what: &str) -> Option<(f64, Duration)> {
    let all = world.engine().turnaround(None);
    let one = all.iter().find(|it| it.what == what)?;
    match &one.believed {
        Believed::Time { learned, .. } => Some((one.seen, learned.quantile(0.9)?)),
        Believed::Share { .. } | Believed::Rate { .. } => None,
    }
}

/// What the reason says: how many of a hundred answer in the batch.
fn told(reason: &str) -> u32 {
    let share = reason
        .split_once("left: ")
        .and_then(|it| it.1.split_once(" %"));
    share.map_or(0, |(share, _)| {
        let share = share.trim_start_matches("over ");
        share.parse().unwrap()
    })
}

#[tokio::test(start_paused = true)]
async fn a_cancel_that_takes_25_minutes_is_learned() {
    let world = World::with(|settings, sim| {
        settings.packing.max_lines = 5;
        // Lines go on while it is being cancelled.
        sim.latency.cancel_in_flight = HOUR;
    })
    .await;
    let slow = Kind::SlowCancel { by: 25 * MINUTE };
    world.faults(Operation::CancelBatch, slow, 1000);
    let mut twice = Vec::new();
    for wave in 0..2 {
        // They would end from 15 to 29 minutes from now.
        for by in (8..24).step_by(2) {
            world.fault(Operation::CreateBatch, Kind::Slow { by: by * MINUTE });
        }
        let call = |n: usize| ask(format!("wave {wave} {n}")).within(25 * MINUTE);
        let before = world.ledger().await.paid_twice;
        let requests = admit_many(&world, 40, call).await;
        for (request, outcome) in requests.iter().zip(world.all_done(&keys(&requests)).await) {
            succeeded(&outcome);
            assert!(outcome.finished <= request.deadline, "{outcome:?}");
        }
        world.pass(HOUR).await;
        twice.push(world.ledger().await.paid_twice - before);
        let (seen, p90) = learned(&world, "cancel").unwrap();
        assert!(seen > 5.0, "{seen} cancels");
        // It takes 26 minutes, and is seen up to two minutes later.
        assert!((25 * MINUTE..30 * MINUTE).contains(&p90), "{p90:?}");
    }
    world.finish().await;
    assert!(twice[1] * 2 < twice[0], "paid twice: {twice:?}");
}

#[tokio::test(start_paused = true)]
async fn a_hung_batch_is_left_for_a_fresh_one_that_answers() {
    let world = World::new().await;
    world.fault(Operation::CreateBatch, Kind::Slow { by: 40 * HOUR });
    let call = |n: usize| ask(format!("q{n}")).within(24 * HOUR);
    let requests = admit_many(&world, 20, call).await;
    for (request, outcome) in requests.iter().zip(world.all_done(&keys(&requests)).await) {
        succeeded(&outcome);
        assert!(matches!(outcome.source, Source::Batch(_)), "{outcome:?}");
        assert!(outcome.finished <= request.deadline, "{outcome:?}");
    }
    world.finish().await;
    let log = world.sim.log();
    let ends: Vec<_> = log.batches.iter().map(|batch| batch.status).collect();
    assert_eq!(ends, ["cancelled", "completed"]);
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_never_answers_is_not_asked_for_ever() {
    let world = World::new().await;
    let call = ask("never").sim("never").within(24 * HOUR);
    let request = world.admit(&call).await.request;
    let outcome = world.outcome(request.key).await;
    succeeded(&outcome);
    assert_eq!(outcome.source, LIVE);
    assert!(outcome.finished <= request.deadline, "{outcome:?}");
    world.finish().await;
    let batches = world.sim.log().batches.len();
    assert!((2..=12).contains(&batches), "{batches} batches");
}

#[tokio::test(start_paused = true)]
async fn what_was_learned_moves_the_choice_and_outlives_a_restart() {
    let mut world = World::with(|_, sim| sim.latency.turnaround_median = 30 * SECOND).await;
    let lane = async |world: &World, text: &str, within| {
        let request = world.admit(&ask(text).within(within)).await.request;
        (request.lane, told(&request.reason))
    };
    let fresh = lane(&world, "fresh", 3 * MINUTE).await;
    assert_eq!(fresh, (attempt::Lane::Standard, 0));
    for number in 0..60 {
        world.ask(&ask(format!("quick {number}"))).await;
        world.pass(2 * MINUTE).await;
    }
    for restarted in [false, true] {
        if restarted {
            world.pass(5 * MINUTE).await;
            world.restart(None).await;
        }
        let (seen, _) = learned(&world, "batch").unwrap();
        assert!(seen > 50.0, "{seen} batches");
        for (within, least) in [(3, 70), (6, 80)] {
            let name = format!("quick {restarted} {within}");
            let (lane, share) = lane(&world, &name, within * MINUTE).await;
            assert_eq!(lane, attempt::Lane::Batch);
            assert!(share >= least, "{share} of a hundred in {within} min");
        }
    }
    world.faults(Operation::CreateBatch, Kind::Slow { by: 6 * HOUR }, 1000);
    let slow = Kind::SlowCancel { by: 25 * MINUTE };
    world.faults(Operation::CancelBatch, slow, 1000);
    for number in 0..40 {
        let call = ask(format!("stalled {number}")).within(2 * HOUR);
        world.ask(&call).await;
        world.pass(2 * MINUTE).await;
    }
    let (_, share) = lane(&world, "stalled", 6 * MINUTE).await;
    assert!(share < 60, "{share} of a hundred after a stall");
    world.finish().await;
}

/// Work with a clock that is set meanwhile, twice.
async fn set_meanwhile(change: impl AsyncFn(&World, &Machine)) {
    let machine = Arc::new(Machine::new(Timestamp::from_secs(1_800_000_000), 1));
    let world = World::with_clock(machine.clone(), |_, _| {}).await;
    // An hour less is the last moment.
    let quick = |n: usize| ask(format!("quick {n}")).within(64 * MINUTE);
    let never = |n: usize| ask(format!("never {n}")).sim("never").within(3 * HOUR);
    let quick = admit_many(&world, 20, quick).await;
    world.pass(MINUTE).await;
    change(&world, &machine).await;
    // Whoever sleeps is woken.
    world.ask(&ask("another").within(20 * HOUR)).await;
    for (request, outcome) in quick.iter().zip(world.all_done(&keys(&quick)).await) {
        succeeded(&outcome);
        assert!(matches!(outcome.source, Source::Batch(_)), "{outcome:?}");
        assert!(outcome.finished <= request.deadline, "{outcome:?}");
    }
    let live = world.sim.bill().calls(Lane::Standard);
    assert_eq!(live, 0, "a rescue wave");
    let never = admit_many(&world, 20, never).await;
    world.pass(MINUTE).await;
    change(&world, &machine).await;
    for (request, outcome) in never.iter().zip(world.all_done(&keys(&never)).await) {
        succeeded(&outcome);
        assert_eq!(outcome.source, LIVE);
        assert!(outcome.finished <= request.deadline, "{outcome:?}");
    }
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_an_hour_starts_no_rescue() {
    set_meanwhile(async |_, machine| machine.jump_forward(HOUR)).await;
    set_meanwhile(async |_, machine| machine.jump_back(HOUR)).await;
    set_meanwhile(async |world, machine| {
        machine.jump_forward(HOUR);
        world.pass(3 * MINUTE).await;
        machine.jump_back(HOUR);
    })
    .await;
}
