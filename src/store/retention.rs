//! What is kept on disk over a month.

use std::time::Duration;

use super::{
    conformance::{admit, at, ledger_of, open, request, settle},
    reads,
};
use crate::{
    model::{
        id::TenantId,
        ledger::{LedgerKey, LedgerRow},
    },
    ports::{LedgerEntry, Store},
};

const DAY: u64 = 24 * 3600;
const KEPT: u64 = 7;

/// Prints bytes on disk, a line a day:
/// `cargo test --release --lib a_month -- --ignored --nocapture`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes"]
async fn a_month_of_days_is_flat_after_retention() {
    let requests: u64 = std::env::var("OFFPEAK_TEST_REQUESTS")
        .map_or(5000, |n| n.parse().expect("a number of requests a day"));
    let dir = tempfile::tempdir().unwrap();
    let store = std::sync::Arc::new(open(dir.path()));
    let mut days = Vec::new();
    for day in 0..30 {
        let mut tasks = tokio::task::JoinSet::new();
        for task in 0..32 {
            let store = store.clone();
            tasks.spawn(async move {
                for n in (task..requests).step_by(32) {
                    let asked = request(1 + (n % 8) as u8, day * DAY + n * DAY / requests);
                    admit(&*store, &asked, &[b'q'; 2000]).await;
                    settle(
                        &*store,
                        &asked,
                        at(day * DAY + n * DAY / requests),
                        &[b'a'; 1000],
                    )
                    .await;
                }
            });
        }
        tasks.join_all().await;
        let horizon = at(day * DAY) - Duration::from_secs(KEPT * DAY);
        while store.purge(horizon, 48).await.unwrap() > 0 {}
        store.purge_batches(horizon).await.unwrap();
        let bytes = store.disk_bytes().await.unwrap();
        println!("day {day:2}: {:6.1} MB", bytes as f64 / 1e6);
        days.push(bytes);
    }
    let first = days[8..15].iter().max().unwrap();
    let last = days[23..].iter().max().unwrap();
    assert!(
        *last as f64 <= *first as f64 * 1.25,
        "{first} and then {last}"
    );
}

#[tokio::test]
async fn old_ledger_rows_go_and_new_ones_stay() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for t in 1..4u8 {
        for hour in 1..50 {
            let asked = request(t, u64::from(hour));
            admit(&store, &asked, b"1").await;
            let key = LedgerKey {
                tenant: asked.key.tenant,
                hour,
                lane: None,
                model: "m".into(),
                tag: None,
            };
            let row = LedgerRow {
                requests: 1,
                ..LedgerRow::default()
            };
            let ending = crate::ports::Ending {
                ledger: LedgerEntry { key, row },
                ..super::conformance::ending(&asked, &[], at(1), b"a")
            };
            store.settle(vec![ending]).await.pop().unwrap().unwrap();
        }
    }
    let tenant = |t: u8| Some(TenantId([t; 16]));
    let old = |hour, from, limit| {
        let (rows, next) = reads::old_ledger(&*store.kv, hour, from, limit).unwrap();
        (rows.len(), next)
    };
    assert_eq!(old(30, None, 20), (20, tenant(1)));
    assert_eq!(old(30, None, 40), (40, tenant(2)));
    assert_eq!(old(30, tenant(3), 40), (29, None));
    assert_eq!(old(0, None, 2), (0, tenant(3)), "a tenant costs one row");
    assert_eq!(store.purge_ledger(30, tenant(2)).await.unwrap(), None);
    assert_eq!(old(30, None, 1000), (29, None), "the first tenant's");
    assert_eq!(store.purge_ledger(30, None).await.unwrap(), None);
    assert_eq!(old(30, None, 1000), (0, None));
    for t in 1..4u8 {
        let left = ledger_of(&store, TenantId([t; 16]), 0).await;
        let hours: Vec<u32> = left.iter().map(|(key, _)| key.hour).collect();
        assert_eq!(hours, (30..50).collect::<Vec<u32>>());
    }
}
