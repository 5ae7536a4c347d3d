//! A day of everything: calls, faults, cancellations and deaths, all drawn from
//! one seed. The same seed is the same day, step by step.

use std::time::Duration;

use offpeak::{
    model::request::OnLate,
    simulator::{Fault, Kind, Lane, Operation},
};
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};

use super::{
    asking::{Ask, HOUR, MINUTE, SECOND, ask, seeds},
    world::{Allow, World, refusal},
};

const CALLS: usize = 30;

#[tokio::test(start_paused = true)]
async fn all_holds_on_any_day() {
    for seed in seeds(0..2) {
        day(seed).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_is_the_same_day() {
    let (one, two) = (day(77).await, day(77).await);
    for (number, (a, b)) in one.iter().zip(&two).enumerate() {
        assert_eq!(a, b, "step {number}");
    }
    assert_eq!(one.len(), two.len());
}

async fn day(seed: u64) -> Vec<String> {
    let mut random = StdRng::seed_from_u64(seed);
    let steps = Some(random.random_range(5..80));
    let mut world = World::seeded(seed, steps, |settings, provider| {
        settings.packing.max_lines = 6;
        // Creates that overlap would be ordered by the machine's threads.
        settings.submit.max_concurrent = 1;
        provider.latency.turnaround_sigma = 1.0;
        provider.latency.stalled_share = 0.05;
    })
    .await;
    for number in 0..CALLS {
        if random.random_bool(0.4) {
            world.sim.inject(fault(&mut random));
        }
        let call = call(&mut random, number);
        let steps = Some(random.random_range(5..80));
        if let Some(key) = world.try_ask(&call, steps).await
            && random.random_bool(0.05)
        {
            world.try_cancel(key, steps).await;
        }
        let pause = Duration::from_secs(random.random_range(0..1_800));
        world.live_on(pause, steps).await;
    }
    for _ in 0..20 {
        let steps = Some(random.random_range(5..200));
        world.live_on(20 * MINUTE, steps).await;
    }
    world.restart(None).await;
    world.note_all("sk-test").await;
    world.note_all("sk-other").await;
    let allow = Allow {
        lost_files: false,
        unaccounted: true,
        endless: false,
        twins: false,
    };
    world.finish_allowing(allow).await;
    for request in world.sim.log().requests {
        let bought = request.runs.get(&Lane::Batch).copied().unwrap_or(0);
        assert!(bought <= 1, "seed {seed}: run in two batches: {request:?}");
    }
    world.diary()
}

fn call(random: &mut StdRng, number: usize) -> Ask {
    let words = [
        "",
        "",
        "",
        "",
        "slow=30m",
        "never",
        "missing",
        "status=400",
        "flaky=1",
    ];
    let on_late = [OnLate::Rescue, OnLate::Rescue, OnLate::Wait, OnLate::Fail];
    let mut call = ask(format!("q{number}"))
        .on_late(*on_late.choose(random).unwrap())
        .within(Duration::from_secs(random.random_range(20..30_000)));
    if random.random_bool(0.3) {
        call = call.webhook();
    }
    // Nobody rescues these: they must be able to end.
    if call.on_late != OnLate::Wait {
        call = call.sim(words.choose(random).unwrap());
    }
    match random.random_bool(0.3) {
        true => call.key("sk-other"),
        false => call,
    }
}

fn fault(random: &mut StdRng) -> Fault {
    use Operation as On;
    let anywhere = [
        On::UploadFile,
        On::CreateBatch,
        On::GetBatch,
        On::ListBatches,
        On::CancelBatch,
        On::FileContent,
        On::DeleteFile,
        On::Chat,
    ];
    let status = [429, 500, 502, 503].choose(random).copied().unwrap();
    let on_any = [
        refusal(status, (status == 429).then_some(40)),
        Kind::Reset,
        Kind::ReplyLost,
        Kind::Delay { by: 90 * SECOND },
        Kind::SlowBody { over: MINUTE },
        Kind::Truncated,
        Kind::StatusAfter { status: 500 },
        Kind::Hang,
        Kind::HangAfter,
    ];
    let on_batches = [
        Kind::MissingLines { lines: 2 },
        Kind::EmptyErrorFileId,
        Kind::WrongCounts,
        Kind::Expire { within: 2 * HOUR },
        Kind::Fail {
            code: "invalid_request".into(),
        },
        Kind::Fail {
            code: "token_limit_exceeded".into(),
        },
        Kind::Slow { by: 5 * HOUR },
        Kind::SlowFinalizing { by: HOUR },
        Kind::Vanish { lasting: MINUTE },
        Kind::Unlisted { lasting: MINUTE },
    ];
    match random.random_range(0..10) {
        0..5 => {
            let on = *anywhere.choose(random).unwrap();
            match on_any.choose(random).unwrap().clone() {
                // An error that is billed: nobody but the provider knows.
                Kind::StatusAfter { .. } if on == On::Chat => Fault::once(on, Kind::Reset),
                kind => Fault::once(on, kind),
            }
        }
        5..9 => Fault::once(On::CreateBatch, on_batches.choose(random).unwrap().clone()),
        _ => Fault::once(On::CancelBatch, Kind::SlowCancel { by: HOUR }),
    }
}
