//! `offpeak submit`: whatever interrupts it, no line is bought twice, and the output is
//! complete and in the order of the input.

use rustix::process::Signal;
use serde_json::Value;

use super::{
    World,
    job::{Job, Point, check_bought_once},
};
use crate::kill::pico_usd;

async fn interrupted_and_resumed(lines: usize) {
    let world = World::start(&[]).await;
    let job = Job::new(&world, lines);
    // While it sends, and while it collects; asked to stop, and killed.
    let moments = [
        (Point::Taken(1), Signal::INT),
        (Point::Taken(lines / 7), Signal::KILL),
        (Point::Taken(lines / 3), Signal::INT),
        (Point::Taken(lines * 3 / 4), Signal::KILL),
        (Point::Ended(1), Signal::KILL),
        (Point::Ended(lines / 3), Signal::INT),
        (Point::Ended(lines * 2 / 3), Signal::KILL),
    ];
    for (point, signal) in moments {
        let said = job.interrupted(&["--wait"], point, signal).await;
        if signal == Signal::INT {
            assert_eq!(said.code, Some(3), "{point:?}: {said:?}");
            assert!(said.err.contains("The same command goes on"), "{said:?}");
        } else {
            assert_eq!(said.code, None, "{said:?}");
        }
        assert!(!job.out().exists(), "an output that is not whole");
    }
    let said = job.run(&["--wait", "--json"]).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    job.check_output();
    check_bought_once(&world, lines).await;
    let summary: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(summary["succeeded"], lines);
    let paid = pico_usd(summary["paid_usd"].as_str().unwrap());
    assert_eq!(paid, world.provider.simulator.bill().total_pico_usd);

    // Said again, it buys nothing.
    let again = job.run(&["--wait"]).await;
    assert_eq!(again.code, Some(0), "{again:?}");
    check_bought_once(&world, lines).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interrupted_at_any_moment_and_resumed_it_buys_no_line_twice() {
    interrupted_and_resumed(1_500).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_lines_interrupted_and_resumed() {
    interrupted_and_resumed(10_000).await;
}
