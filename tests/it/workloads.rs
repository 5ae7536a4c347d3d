//! The workloads of `offpeak simulate` in small, on real sockets and a hundred
//! times faster: nothing that is firm is late, nothing is lost, and the ledger is
//! the provider's bill.

mod books;
mod calls;

use std::time::Duration;

use offpeak::simulator::{Fault, Kind, Operation, Settings};

use self::{
    books::{Books, check},
    calls::{Workload, play},
};
use crate::app::TestApp;

const SECOND: Duration = Duration::from_secs(1);
const SPEED: f64 = 100.0;

/// A batch takes 0.7 s, nine of ten less than 1 s; an ordinary call 30 ms.
fn provider() -> Settings {
    let mut settings = Settings {
        seed: SEED,
        speed: SPEED,
        ..Settings::default()
    };
    let real = |millis: u64| Duration::from_millis(millis).mul_f64(SPEED);
    let latency = &mut settings.latency;
    latency.turnaround_median = real(600);
    latency.turnaround_sigma = 0.3;
    latency.stalled_share = 0.0;
    latency.cancel = real(600);
    latency.live_median = real(30);
    latency.flex_median = real(200);
    latency.flex_sigma = 0.4;
    settings.limits.batch_creates_per_hour = 10_000_000;
    settings.limits.uploads_per_minute = 10_000_000;
    settings
}

const SEED: u64 = 5;

/// The same law, as the server is told of it. A busy machine takes longer now and
/// then than the simulator does: the reserve keeps a second for an ordinary call,
/// and weighs enough to be believed after many quick ones.
const LAW: [(&str, &str); 19] = [
    ("OFFPEAK_SERVER__WORKERS", "1"),
    ("OFFPEAK_PACKING__LINGER", "100ms"),
    ("OFFPEAK_PACKING__CREATES_PER_HOUR", "1000000"),
    ("OFFPEAK_WATCH__POLL_INTERVAL", "100ms"),
    ("OFFPEAK_WATCH__POLL_MAX", "100ms"),
    ("OFFPEAK_WATCH__POLLS_PER_SECOND", "200"),
    ("OFFPEAK_LADDER__BATCH__MEDIAN", "700ms"),
    ("OFFPEAK_LADDER__BATCH__P90", "1s"),
    ("OFFPEAK_LADDER__BATCH__NEVER", "0.02"),
    ("OFFPEAK_LADDER__FLEX__MEDIAN", "200ms"),
    ("OFFPEAK_LADDER__FLEX__P90", "350ms"),
    ("OFFPEAK_LADDER__FLEX__REFUSED", "0.1"),
    ("OFFPEAK_RESCUE__RESERVE", "6s"),
    ("OFFPEAK_RESCUE__PRIOR_WEIGHT", "200"),
    ("OFFPEAK_RESCUE__REPLAN", "200ms"),
    ("OFFPEAK_LIVE__EXPECTED", "200ms"),
    ("OFFPEAK_LIVE__RETRY_BASE", "100ms"),
    ("OFFPEAK_LIVE__RETRY_MAX", "500ms"),
    ("OFFPEAK_HOLD__DRIP_AFTER", "45s"),
];

async fn against(provider: Settings, more: &[(&str, &str)]) -> TestApp {
    TestApp::against(provider, &[&LAW, more].concat()).await
}

/// All of it, in front of this provider.
async fn through(workload: Workload, provider: Settings) -> Books {
    let app = against(provider, &[]).await;
    let done = play(&app, &workload).await;
    let books = check(&app, done).await;
    app.finish().await;
    books
}

const STEADY: Workload = Workload {
    calls: 120,
    model: "gpt-4o-mini",
    arrival: |number| 2 * SECOND * number / 120,
    deadline: |_| 10 * SECOND,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steady() {
    let books = through(STEADY, provider()).await;
    assert_eq!(books.firm, STEADY.calls);
    assert!(books.batches >= 5, "not one after the other: {books:?}");
    books.cost_at_most(0.6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bursty() {
    let bursts = Workload {
        calls: 240,
        arrival: |number| SECOND * (number % 3),
        ..STEADY
    };
    let books = through(bursts, provider()).await;
    assert_eq!(books.firm, bursts.calls);
    assert!(books.batches >= 3 && books.largest >= 20, "{books:?}");
    books.cost_at_most(0.6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn midnight() {
    let midnight = Workload {
        calls: 300,
        arrival: |_| Duration::ZERO,
        ..STEADY
    };
    let books = through(midnight, provider()).await;
    assert_eq!(books.firm, midnight.calls);
    assert!(books.largest >= 50, "they did not come at once: {books:?}");
    books.cost_at_most(0.6);
}

/// From what is rescued where a batch takes long, to much later. Each has batches of
/// its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mixed_deadlines() {
    let mixed = Workload {
        calls: 200,
        arrival: |number| 2 * SECOND * number / 200,
        deadline: |number| [4, 5, 6, 9, 13, 20][number as usize % 6] * SECOND,
        ..STEADY
    };
    let books = through(mixed, provider()).await;
    assert_eq!(books.firm, mixed.calls);
    assert!(books.batches >= 6, "{books:?}");
    books.cost_at_most(0.8);
}

/// Every batch that is created in the meantime never ends.
fn stall(app: &TestApp) {
    let by = Duration::from_secs(86_400);
    app.simulator.inject(Fault {
        times: u32::MAX,
        ..Fault::once(Operation::CreateBatch, Kind::Slow { by })
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_batch_moves_for_a_while() {
    let app = against(provider(), &[]).await;
    stall(&app);
    let over = async {
        tokio::time::sleep(SECOND).await;
        app.simulator.clear_faults();
        app.simulator.log().batches.len()
    };
    let (done, hung) = tokio::join!(play(&app, &STEADY), over);
    let books = check(&app, done).await;
    let log = app.simulator.log();
    app.finish().await;
    assert_eq!(books.firm, STEADY.calls);
    assert!(hung > 0 && books.batches > hung, "{hung} hung: {books:?}");
    let (hung, _) = log.batches.split_at(hung);
    assert!(hung.iter().all(|batch| batch.status == "cancelled"));
    assert!(books.by("batch") > 0, "it was not gone back to: {books:?}");
    books.cost_at_most(0.9);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_batch_ever_moves() {
    // All of it runs at the last moment: two seconds for an ordinary call.
    let patient = [("OFFPEAK_RESCUE__RESERVE", "12s")];
    let app = against(provider(), &patient).await;
    stall(&app);
    let workload = Workload {
        calls: 60,
        ..STEADY
    };
    let done = play(&app, &workload).await;
    let books = check(&app, done).await;
    app.finish().await;
    assert_eq!(books.firm, workload.calls);
    assert_eq!(books.rescued, workload.calls);
    assert!(books.batches > 0 && books.cancelled == books.batches);
    assert_eq!(books.by("standard"), u64::from(workload.calls));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_that_finish_together() {
    let mut provider = provider();
    provider.latency.line_correlation = 1.0;
    provider.latency.turnaround_sigma = 0.7;
    let app = against(provider, &[]).await;
    // Some never end, whatever the others' luck.
    let by = Duration::from_secs(86_400);
    app.simulator.inject(Fault {
        times: 5,
        ..Fault::once(Operation::CreateBatch, Kind::Slow { by })
    });
    let done = play(&app, &STEADY).await;
    let books = check(&app, done).await;
    app.finish().await;
    assert_eq!(books.firm, STEADY.calls);
    assert!(books.cancelled > 0 && books.largest > 1, "{books:?}");
    assert_eq!(books.in_part, 0, "all or nothing: {books:?}");
    books.cost_at_most(0.8);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_that_finish_apart() {
    let mut provider = provider();
    provider.latency.line_correlation = 0.0;
    provider.latency.turnaround_sigma = 1.0;
    let books = through(STEADY, provider).await;
    assert_eq!(books.firm, STEADY.calls);
    assert!(books.in_part > 0, "no batch was left half-way: {books:?}");
    books.cost_at_most(0.8);
}

/// What has not ended when a batch is cancelled never does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_stops_at_a_cancel() {
    let mut provider = provider();
    provider.latency.line_correlation = 0.5;
    provider.latency.turnaround_sigma = 0.7;
    provider.latency.cancel_in_flight = Duration::ZERO;
    let app = against(provider, &[]).await;
    let by = Duration::from_secs(86_400);
    app.simulator.inject(Fault {
        times: 3,
        ..Fault::once(Operation::CreateBatch, Kind::Slow { by })
    });
    let done = play(&app, &STEADY).await;
    let books = check(&app, done).await;
    app.finish().await;
    assert_eq!(books.firm, STEADY.calls);
    assert!(books.cancelled >= 3, "{books:?}");
    books.cost_at_most(0.8);
}

/// From what is too little for a batch to more than any takes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_slack_alone() {
    let short = Workload {
        calls: 40,
        arrival: |number| SECOND * number / 40,
        ..STEADY
    };
    for (alone, most) in [
        (
            Workload {
                deadline: |_| 3 * SECOND,
                ..short
            },
            1.0,
        ),
        (
            Workload {
                deadline: |_| 4 * SECOND,
                ..short
            },
            1.0,
        ),
        (
            Workload {
                deadline: |_| 6 * SECOND,
                ..short
            },
            0.75,
        ),
        (
            Workload {
                deadline: |_| 10 * SECOND,
                ..short
            },
            0.6,
        ),
        (
            Workload {
                deadline: |_| 20 * SECOND,
                ..short
            },
            0.6,
        ),
    ] {
        let books = through(alone, provider()).await;
        let slack = (alone.deadline)(0);
        assert_eq!(books.firm, alone.calls, "{slack:?}");
        books.cost_at_most(most);
    }
}

/// Some twelve calls a second can run live, far fewer than are asked for, and no
/// batch moves: what was promised is in time, and not all was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn little_can_run_live() {
    let small = [
        ("OFFPEAK_LIVE__MAX_CONCURRENT", "4"),
        ("OFFPEAK_LIVE__START_CONCURRENT", "4"),
        ("OFFPEAK_LIVE__EXPECTED", "900ms"),
    ];
    let mut provider = provider();
    provider.latency.live_median = Duration::from_millis(300).mul_f64(SPEED);
    provider.latency.live_sigma = 0.1;
    let app = against(provider, &small).await;
    stall(&app);
    let workload = Workload {
        calls: 90,
        arrival: |_| Duration::ZERO,
        deadline: |_| 5 * SECOND,
        ..STEADY
    };
    let done = play(&app, &workload).await;
    let books = check(&app, done).await;
    app.finish().await;
    let promised = 1..workload.calls;
    assert!(promised.contains(&books.firm), "{books:?}");
    assert!(books.late >= 20, "there was room for all: {books:?}");
    assert!(books.late <= workload.calls - books.firm, "{books:?}");
    assert_eq!(books.by("standard"), u64::from(workload.calls));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flex_is_offered() {
    let flex = Workload {
        model: "o3",
        deadline: |_| 6 * SECOND,
        ..STEADY
    };
    let mut provider = provider();
    provider.limits.flex_shortage = 0.1;
    let books = through(flex, provider).await;
    assert_eq!(books.firm, flex.calls);
    assert!(books.by("flex") >= 10, "{books:?}");
    // What is not answered in the batch or by flex is little.
    books.cost_at_most(0.75);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flex_is_not_offered() {
    let bare = Workload {
        deadline: |_| 6 * SECOND,
        ..STEADY
    };
    let books = through(bare, provider()).await;
    assert_eq!(books.firm, bare.calls);
    assert_eq!(books.by("flex"), 0);
    books.cost_at_most(0.6);
}
