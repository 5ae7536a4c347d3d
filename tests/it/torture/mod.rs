//! The torture run: the real binary is loaded through every answer mode, killed at
//! instants, effects and commits, and given a sick provider, a clock that is set and
//! a full disk; and nothing is lost, told twice or paid for unseen (docs/torture.md).
//!
//! `OFFPEAK_TORTURE_CYCLES=500 OFFPEAK_TORTURE_SEED=1` make the long one; with
//! `OFFPEAK_TORTURE_REQUESTS=200000` it goes on until so many are acknowledged.

mod books;
mod coverage;
mod load;
mod plan;
mod register;
mod report;
mod run;
mod story;
mod strike;
mod trouble;

use run::Run;

use crate::kill::number_from;

/// From here on every state of the three machines must have been struck.
const LONG: u64 = 100;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_paid_for_unseen_whatever_happens() {
    let cycles = number_from("OFFPEAK_TORTURE_CYCLES").unwrap_or(15);
    let seed = number_from("OFFPEAK_TORTURE_SEED").unwrap_or(1);
    let requests = number_from("OFFPEAK_TORTURE_REQUESTS").unwrap_or(0);
    let mut run = Run::begin(seed).await;
    for cycle in 0.. {
        let is_enough = cycle >= cycles && run.acknowledged() >= requests;
        if is_enough || !run.cycle(cycle, cycles).await {
            break;
        }
    }
    let report = run.end().await;
    println!("{report}");
    assert_eq!(report.violations, 0, "seed {seed}: see above");
    if cycles >= LONG {
        assert_eq!(report.never_struck(), Vec::<&str>::new(), "states");
    }
}
