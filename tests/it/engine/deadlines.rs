//! Every deadline met, whatever the provider's batches do, and at what cost.

use std::sync::Arc;

use offpeak::{
    model::{
        endpoint::Endpoint,
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
const CALL: std::time::Duration = std::time::Duration::from_secs(31);

async fn admit_many(world: &World, count: usize, ask: impl Fn(usize) -> Ask) -> Vec<Arc<Request>> {
    let mut admitted = Vec::new();
    for number in 0..count {
        admitted.push(world.admit(&ask(number)).await.request);
    }
    admitted
}

fn keys(requests: &[Arc<Request>]) -> Vec<RequestKey> {
    requests.iter().map(|request| request.key).collect()
}

fn cancelled(world: &World) -> usize {
    let log = world.sim.log();
    let cancelled = log.batches.iter().filter(|it| it.status == "cancelled");
    cancelled.count()
}

fn is_firm(request: &Request) -> bool {
    request.cohort.guarantee == Guarantee::Firm
}

/// So many calls of half a minute at a time, and batches that never end.
async fn few_at_a_time(calls: u32) -> World {
    World::with(|settings, _| {
        settings.live.max_concurrent = calls;
        settings.live.start_concurrent = calls;
        settings.live.expected = CALL;
    })
    .await
}

const AT_A_TIME: u32 = 4;

/// Four scopes of two endpoints each, due between one hour and four.
fn hangs(number: usize) -> Ask {
    let mut call = ask(format!("q{number}")).sim("never slow=30s");
    call.model = ["gpt-4o-mini", "gpt-4o"][number % 2].into();
    call.key = ["sk-test", "sk-other"][number / 2 % 2].into();
    if number / 4 % 2 == 1 {
        call.endpoint = Endpoint::Responses;
        let body = serde_json::json!({"model": call.model, "input": call.text,
            "metadata": {"sim": call.sim}});
        call.body = Some(body.to_string());
    }
    // In no order of their asking.
    call.within(HOUR + (number * 7919 % 400) as u32 * 27 * SECOND)
}

#[tokio::test(start_paused = true)]
async fn a_stalled_provider_makes_nobody_late() {
    let world = few_at_a_time(AT_A_TIME).await;
    let requests = admit_many(&world, 400, hangs).await;
    assert!(requests.iter().all(|it| is_firm(it)), "there is room for all");
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
    assert_eq!(world.sim.bill().calls(Lane::Standard), 400);
    assert_eq!(world.sim.bill().calls(Lane::Batch), 0);
}

/// Of one scope, whoever is due later does not begin while another waits whose
/// bucket of deadlines is before its own.
fn in_order(requests: &[Arc<Request>], outcomes: &[Outcome]) {
    let all = requests.iter().zip(outcomes);
    let mut all: Vec<_> = all.collect();
    all.sort_by_key(|(_, outcome)| outcome.finished);
    let mut out = 0;
    for (index, (later, ended)) in all.iter().enumerate() {
        for (sooner, after) in &all[index + 1..] {
            let one_scope =
                sooner.model == later.model && sooner.credential == later.credential;
            if one_scope && sooner.deadline < later.deadline && ended.finished + CALL < after.finished {
                println!("{:?} {:?} {:?}", ended.finished.until(after.finished), sooner.deadline.until(later.deadline), after.finished.until(sooner.deadline));
                out += 1;
            }
        }
    }
    assert_eq!(out, 0, "out of order");
}

#[tokio::test(start_paused = true)]
async fn more_than_fits_costs_the_promised_nothing_and_the_rest_its_batches_nothing() {
    let world = few_at_a_time(2).await;
    world.faults(Operation::CreateBatch, Kind::Slow { by: 6 * HOUR }, 1000);
    let late = |n: usize| ask(format!("q{n}")).sim("slow=30s").within(2 * HOUR);
    let requests = admit_many(&world, 700, late).await;
    let (firm, rest): (Vec<Arc<Request>>, Vec<Arc<Request>>) = requests.into_iter().partition(|it| is_firm(it));
    println!("{} firm {} rest", firm.len(), rest.len());
    for (request, outcome) in firm.iter().zip(world.all_done(&keys(&firm)).await) {
        succeeded(&outcome);
        assert!(outcome.finished <= request.deadline, "{outcome:?}");
    }
    println!("cancelled {} of {}", cancelled(&world), world.sim.log().batches.len());
    println!("{:?}", world.engine().counts());
    world.sim.clear_faults();
    let outcomes = world.all_done(&keys(&rest)).await;
    outcomes.iter().for_each(succeeded);
    let live = outcomes.iter().filter(|it| it.source == LIVE).count();
    let last = outcomes.iter().map(|it| it.finished).max().unwrap();
    println!("live {live} of {} last {:?}", rest.len(), rest[0].deadline.until(last));
    println!("cancelled {} of {}", cancelled(&world), world.sim.log().batches.len());
    world.finish().await;
    println!("{:?}", world.ledger().await);
    println!("{:?}", world.sim.bill());
    panic!();
}

fn p90(world: &World, what: &str) -> Option<std::time::Duration> {
    let all = world.engine().turnaround();
    let one = all.iter().find(|it| it.what == what)?;
    one.learned.quantile(0.9)
}

#[tokio::test(start_paused = true)]
async fn a_cancel_that_takes_25_minutes_is_learned() {
    let world = World::with(|settings, sim| {
        settings.packing.max_lines = 5;
        // Lines go on while it is being cancelled.
        sim.latency.cancel_in_flight = HOUR;
    })
    .await;
    world.faults(Operation::CancelBatch, Kind::SlowCancel { by: 25 * MINUTE }, 1000);
    let mut twice = Vec::new();
    for wave in 0..2 {
        // They would end from ten minutes before the deadline to half an hour after it.
        let slow = |n: usize| {
            let by = 163 + n;
            ask(format!("wave {wave} {n}")).sim(&format!("slow={by}m")).within(3 * HOUR)
        };
        let before = world.ledger().await.paid_twice;
        let requests = admit_many(&world, 40, slow).await;
        for (request, outcome) in requests.iter().zip(world.all_done(&keys(&requests)).await) {
            succeeded(&outcome);
            assert!(outcome.finished <= request.deadline, "{outcome:?}");
        }
        world.pass(HOUR).await;
        twice.push(world.ledger().await.paid_twice - before);
        println!("{twice:?} {:?}", p90(&world, "cancel"));
    }
    world.finish().await;
    panic!();
}

#[tokio::test(start_paused = true)]
async fn a_hung_batch_is_left_for_a_fresh_one_that_answers() {
    let world = World::new().await;
    world.fault(Operation::CreateBatch, Kind::Slow { by: 20 * HOUR });
    let requests = admit_many(&world, 20, |n| ask(format!("q{n}")).within(24 * HOUR)).await;
    let outcomes = world.all_done(&keys(&requests)).await;
    for (request, outcome) in requests.iter().zip(outcomes) {
        succeeded(&outcome);
        assert!(matches!(outcome.source, Source::Batch(_)), "{outcome:?}");
        println!("{:?}", request.admitted.until(outcome.finished));
    }
    world.finish().await;
    println!("{:?}", world.sim.log().batches);
    panic!();
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_never_answers_is_asked_ever_more_rarely() {
    let world = World::new().await;
    let request = admit_many(&world, 1, |n| ask(format!("q{n}")).sim("never").within(24 * HOUR)).await;
    let outcome = world.outcome(request[0].key).await;
    world.finish().await;
    println!("{outcome:?} {:?}", outcome.finished.until(request[0].deadline));
    for batch in world.sim.log().batches {
        println!("{} {} {}", batch.created_at, batch.ended_at - batch.created_at, batch.status);
    }
    panic!();
}

#[tokio::test(start_paused = true)]
async fn what_was_learned_moves_the_choice_and_outlives_a_restart() {
    let mut world = World::with(|_, sim| sim.latency.turnaround_median = 30 * SECOND).await;
    let lane = async |world: &World, text: &str, within| {
        let request = world.admit(&ask(text).within(within)).await.request;
        println!("{text}: {}", request.reason);
        request.lane
    };
    lane(&world, "fresh 3", 3 * MINUTE).await;
    lane(&world, "fresh 6", 6 * MINUTE).await;
    for number in 0..60 {
        world.ask(&ask(format!("quick {number}"))).await;
        world.pass(2 * MINUTE).await;
    }
    lane(&world, "quick 3", 3 * MINUTE).await;
    lane(&world, "quick 6", 6 * MINUTE).await;
    world.pass(5 * MINUTE).await;
    world.restart(None).await;
    for it in world.engine().turnaround() { println!("{} {} {:?}", it.what, it.seen, it.learned.quantile(0.9)); }
    lane(&world, "quick 3 restarted", 3 * MINUTE).await;
    lane(&world, "quick 6 restarted", 6 * MINUTE).await;
    world.faults(Operation::CreateBatch, Kind::Slow { by: 6 * HOUR }, 1000);
    for number in 0..60 {
        world.ask(&ask(format!("stalled {number}")).within(2 * HOUR)).await;
        world.pass(2 * MINUTE).await;
    }
    world.pass(HOUR).await;
    lane(&world, "stalled 3", 3 * MINUTE).await;
    lane(&world, "stalled 6", 6 * MINUTE).await;
    panic!();
}

/// The same work with a clock that is set meanwhile, and without.
async fn with_a_clock_that_is_set(change: impl AsyncFnOnce(&World, &Machine)) -> (usize, u64) {
    let machine = Arc::new(Machine::new(Timestamp::from_secs(1_800_000_000), 1));
    let world = World::with_clock(machine.clone(), |_, _| {}).await;
    // Those of the first batch are there in 57 minutes; nobody else ever answers.
    let call = |n: usize| match n % 2 {
        0 => ask(format!("q{n}")).sim("slow=50m").within(90 * MINUTE),
        _ => ask(format!("q{n}")).sim("never").within(5 * HOUR),
    };
    let requests = admit_many(&world, 40, call).await;
    world.pass(10 * MINUTE).await;
    change(&world, &machine).await;
    for (n, (request, outcome)) in (0..).zip(requests.iter().zip(world.all_done(&keys(&requests)).await)) {
        succeeded(&outcome);
        assert_eq!(outcome.source == LIVE, n % 2 == 1, "{n}: {outcome:?}");
        assert!(outcome.finished <= request.deadline, "{outcome:?}");
    }
    world.finish().await;
    println!("{:#?}", world.sim.log().batches);
    (cancelled(&world), world.sim.bill().calls(Lane::Standard))
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_an_hour_starts_no_rescue() {
    let still = with_a_clock_that_is_set(async |_, _| {}).await;
    let forward = with_a_clock_that_is_set(async |_, machine| machine.jump_forward(HOUR)).await;
    let back = with_a_clock_that_is_set(async |_, machine| machine.jump_back(HOUR)).await;
    let both = with_a_clock_that_is_set(async |world, machine| {
        machine.jump_forward(HOUR);
        world.pass(20 * MINUTE).await;
        machine.jump_back(HOUR);
    }).await;
    println!("{still:?} {forward:?} {back:?} {both:?}");
    panic!();
}
