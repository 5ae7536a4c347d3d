//! Promises that were broken once although the provider kept to its guarantees, each by
//! itself and as small as it was found: all of them where nearly all of the live
//! capacity was promised. What is sure leaves room for them (`Capacity::sure`).

use std::time::Duration;

use super::{
    asking::{MINUTE, SECOND},
    promises::{Case, FOR_EVER, Lines, Offer, play},
};

/// One call at a time, and batches that never end.
const FULL: Case = Case {
    calls: 50,
    over: Duration::from_secs(1200),
    within: (Duration::from_secs(300), Duration::from_secs(1800)),
    lines: Lines::Never(FOR_EVER),
    live: Duration::from_secs(38),
    at_a_time: (1, 1),
    ..Case::EASY
};

async fn is_kept(case: Case, seed: u64) {
    let seen = play(&case, seed).await;
    assert!(seen.firm >= 14, "{seen:#?}");
    assert!(seen.missed.is_empty(), "{seen:#?}");
}

#[tokio::test(start_paused = true)]
async fn two_keys_of_one_organization() {
    let case = Case {
        // What a key alone could be promised fits; twice that does not.
        calls: 60,
        over: Duration::ZERO,
        within: (20 * MINUTE, 20 * MINUTE),
        keys: ["sk-acme.one", "sk-acme.two"],
        live: 30 * SECOND,
        ..FULL
    };
    is_kept(case, 0).await;
}

#[tokio::test(start_paused = true)]
async fn flex_takes_of_the_rate_limit() {
    let case = Case {
        calls: 40,
        over: 5 * MINUTE,
        within: (10 * MINUTE, 20 * MINUTE),
        offer: Offer::Flex(10 * MINUTE, 0.3),
        per_minute: Some(5),
        live: 10 * SECOND,
        ..FULL
    };
    is_kept(case, 0).await;
}

#[tokio::test(start_paused = true)]
async fn an_unpromised_call_is_in_the_way() {
    let case = Case {
        within: (5 * MINUTE, 20 * MINUTE),
        live: 40 * SECOND,
        ..FULL
    };
    is_kept(case, 0).await;
}

#[tokio::test(start_paused = true)]
async fn the_lines_of_one_batch_go_one_by_one() {
    let case = Case {
        calls: 60,
        over: 5 * MINUTE,
        within: (25 * MINUTE, 35 * MINUTE),
        live: 42 * SECOND,
        cancel: 9 * MINUTE,
        ..FULL
    };
    is_kept(case, 3).await;
}

#[tokio::test(start_paused = true)]
async fn a_background_response_is_left_too_late() {
    let case = Case {
        offer: Offer::Background(90 * MINUTE),
        ..FULL
    };
    is_kept(case, 2).await;
}

#[tokio::test(start_paused = true)]
async fn a_flex_call_is_left_too_late() {
    let case = Case {
        offer: Offer::Flex(10 * MINUTE, 0.0),
        ..FULL
    };
    is_kept(case, 2).await;
}

#[tokio::test(start_paused = true)]
async fn calls_take_longer_than_in_the_mean() {
    let case = Case {
        over: Duration::ZERO,
        within: (20 * MINUTE, 40 * MINUTE),
        live: 30 * SECOND,
        live_sigma: 0.3,
        ..FULL
    };
    is_kept(case, 2).await;
}
