use proptest::{prelude::*, sample::Index};

use super::*;
use crate::{
    engine::scope::{Account, ScopeKey},
    model::{
        attempt::Lane,
        batch::{Batch, BatchState},
        endpoint::Endpoint,
        id::{BatchId, CredentialId, DestinationId, RequestId, RequestKey},
        request::{Bucket, Destination, Guarantee, OnLate},
        time::Timestamp,
    },
};

/// Of two keys.
const DESTINATION: DestinationId = DestinationId([1; 16]);
const OTHER: DestinationId = DestinationId([11; 16]);
const TENANT: TenantId = TenantId([2; 16]);

fn summary() -> Summary {
    let defaults: toml::Table = include_str!("../../../config/default.toml")
        .parse()
        .unwrap();
    let packing = defaults["packing"].clone().try_into().unwrap();
    let watch = defaults["watch"].clone().try_into().unwrap();
    let mut summary = Summary::with(&packing, &watch, Arc::default());
    for (id, credential) in [(DESTINATION, 3), (OTHER, 4)] {
        let destination = Destination {
            id,
            tenant: TENANT,
            credential: CredentialId([credential; 16]),
            endpoint: Endpoint::ChatCompletions,
            model: "m".into(),
        };
        summary.destinations.know(&destination);
    }
    summary
}

/// The credential's organization becomes known.
fn learn(summary: &mut Summary, credential: u8) {
    let credential = CredentialId([credential; 16]);
    let news = summary
        .organizations
        .learn(credential, "org-1", Timestamp::ZERO);
    assert!(news);
    summary.regroup(credential, Timestamp::ZERO);
}

fn scope_of(summary: &Summary, batch: &Batch) -> ScopeKey {
    summary.organizations.scope(&Account::from(batch))
}

pub fn entry(number: u8, firm: bool, line_bytes: u32) -> Entry {
    let deadline = Timestamp::from_secs(1_000_000);
    Entry {
        key: RequestKey {
            tenant: TENANT,
            id: RequestId::from_bytes([number; 16]),
        },
        cohort: Cohort {
            destination: DESTINATION,
            on_late: OnLate::Rescue,
            guarantee: match firm {
                true => Guarantee::Firm,
                false => Guarantee::BestEffort,
            },
            bucket: Bucket {
                start: deadline,
                width_log2: 10,
            },
        },
        lane: Lane::Batch,
        deadline,
        line_bytes,
        inputs: 1,
    }
}

fn place(entry: &Entry, number: u8) -> Place {
    match number {
        0 => Place::Queue(entry.cohort),
        1 => Place::Line(BatchId::MIN),
        _ => Place::Live,
    }
}

fn batch(number: u8, cohort: Cohort) -> Batch {
    let to = Destination {
        id: cohort.destination,
        tenant: TENANT,
        credential: CredentialId([3; 16]),
        endpoint: Endpoint::ChatCompletions,
        model: "m".into(),
    };
    let id = BatchId::from_bytes([number; 16]);
    Batch {
        state: BatchState::Submitted,
        lines: 1,
        bytes: 1,
        inputs: 1,
        ..Batch::new(id, cohort, to, Timestamp::ZERO, String::new())
    }
}

/// All that is counted, but for what is only a bound.
#[derive(Debug, PartialEq)]
struct Told {
    counts: Counts,
    queue: Vec<(Cohort, i64, i64, i64)>,
    live: BTreeMap<LiveQueue, (i64, i64)>,
    demands: String,
    open: open::Counted,
}

fn told(summary: &Summary) -> Told {
    let queue = summary.queue.iter();
    let live = summary.live_queues.iter();
    Told {
        counts: summary.counts(),
        queue: queue
            .map(|(cohort, it)| (*cohort, it.lines, it.bytes, it.inputs))
            .collect(),
        live: live
            .map(|(queue, lines)| (*queue, (lines.count, lines.bytes)))
            .collect(),
        demands: format!("{:?}", summary.demands),
        open: summary.open.counted(),
    }
}

#[test]
fn batches_are_found_by_whom_they_are_for() {
    let mut summary = summary();
    let (firm, other) = (entry(0, true, 1).cohort, entry(0, false, 1).cohort);
    let all = [batch(1, firm), batch(2, firm), batch(3, other)];
    for batch in all.clone() {
        summary.track(batch, Timestamp::ZERO);
    }
    let [first, second, third] = all;
    let scope = scope_of(&summary, &first);
    let running = |summary: &Summary| summary.running(&scope, Timestamp::ZERO).len();
    let elsewhere = Batch {
        model: "n".into(),
        ..batch(4, firm)
    };
    summary.track(elsewhere.clone(), Timestamp::ZERO);
    let of_scope = |summary: &Summary, batch: &Batch| -> Vec<BatchId> {
        let scope = scope_of(summary, batch);
        let batches = summary.batches.of_scope(&scope);
        batches.map(|tracked| tracked.batch.id).collect()
    };
    assert_eq!(of_scope(&summary, &first), [first.id, second.id, third.id]);
    assert_eq!(of_scope(&summary, &elsewhere), [elsewhere.id]);
    summary.batches.remove(&elsewhere.id);
    assert_eq!(summary.batches_of(&firm), [first.id, second.id]);
    assert_eq!(summary.batches_of(&other), [third.id]);
    assert_eq!(running(&summary), 3);

    let settled = Batch {
        state: BatchState::Settled,
        litter: vec!["file-1".into()],
        ..second.clone()
    };
    summary.track(settled, Timestamp::ZERO);
    assert_eq!(summary.batches_of(&firm), [first.id]);
    assert_eq!(running(&summary), 2);

    summary.batches.remove(&first.id);
    summary.batches.remove(&third.id);
    assert_eq!(summary.batches_of(&firm), []);
    assert_eq!(running(&summary), 0);
    assert!(summary.has_work(TENANT), "its file is not deleted yet");
    summary.batches.remove(&second.id);
    assert!(!summary.has_work(TENANT));
}

#[test]
fn a_credential_is_needed_by_its_own_work_only() {
    let mut summary = summary();
    let (ours, others) = (CredentialId([3; 16]), CredentialId([4; 16]));
    let waits = entry(1, false, 1);
    let needed = |summary: &Summary| {
        assert!(!summary.needs(others), "nothing goes to OTHER");
        assert_eq!(summary.needs(ours), summary.has_work(TENANT));
        summary.needs(ours)
    };
    assert!(!needed(&summary));

    summary.enter(&place(&waits, 0), &waits);
    assert!(needed(&summary), "a request is open");
    let remote = summary.mention_remote(waits.cohort.destination);
    summary.exit(&place(&waits, 0), &waits);
    assert!(needed(&summary), "its response is to be cancelled");
    drop(remote);
    assert!(!needed(&summary));

    let runs = batch(1, waits.cohort);
    summary.track(runs.clone(), Timestamp::ZERO);
    assert!(needed(&summary), "a batch runs");
    let settled = Batch {
        state: BatchState::Settled,
        litter: vec!["file-1".into()],
        ..runs.clone()
    };
    summary.track(settled, Timestamp::ZERO);
    assert!(needed(&summary), "its file is not deleted yet");
    summary.batches.remove(&runs.id);
    assert!(!needed(&summary));
}

#[test]
fn an_overtaken_line_goes_back_into_its_batch_while_that_runs() {
    let mut summary = summary();
    let lines: Vec<Entry> = (0..4).map(|number| entry(number, true, 1)).collect();
    let cohort = lines[0].cohort;
    let (first, second) = (batch(1, cohort), batch(2, cohort));
    summary.track(first.clone(), Timestamp::ZERO);
    summary.track(second.clone(), Timestamp::ZERO);

    summary.enter(&Place::Live, &lines[0]);
    summary.overtake(first.id, &lines[..3]);
    assert!(summary.is_awaited(first.id) && !summary.is_awaited(second.id));
    assert_eq!(summary.back_from_live(&lines[1]), Place::Line(first.id));
    assert_eq!(summary.back_from_live(&lines[1]), Place::Queue(cohort));
    summary.exit(&Place::Live, &lines[0]);
    assert!(summary.is_awaited(first.id), "the third has no answer yet");

    // It never has, as far as is told here.
    summary.batches.remove(&first.id);
    summary.overtake(second.id, &lines[3..]);
    assert!(!summary.is_awaited(first.id));
    assert_eq!(summary.back_from_live(&lines[2]), Place::Queue(cohort));
    assert_eq!(summary.back_from_live(&lines[3]), Place::Line(second.id));
    assert!(!summary.is_awaited(second.id));
}

/// Of one request: firm or not, its bytes, where it goes one after the other, and
/// whether it ends there.
fn life() -> impl Strategy<Value = (bool, u32, Vec<u8>, bool)> {
    let places = prop::collection::vec(0u8..3, 1..5);
    (any::<bool>(), 1u32..4, places, any::<bool>())
}

#[test]
fn what_is_of_one_organization_is_found_together_once_that_is_known() {
    let mut summary = summary();
    let cohort = entry(0, true, 1).cohort;
    let other = Batch {
        credential: CredentialId([4; 16]),
        ..batch(2, cohort)
    };
    let first = batch(1, cohort);
    for batch in [&first, &other] {
        summary.track(batch.clone(), Timestamp::ZERO);
    }
    let found = |summary: &Summary, batch: &Batch| -> Vec<BatchId> {
        let scope = scope_of(summary, batch);
        let found = summary.batches.of_scope(&scope);
        found.map(|tracked| tracked.batch.id).collect()
    };
    let now = Timestamp::from_secs(1_000_000);
    let taken = |summary: &mut Summary, credential: u8| {
        summary.creates(CredentialId([credential; 16])).clone()
    };
    // All of a burst: 180 of 1,800 an hour.
    for _ in 0..180 {
        assert!(summary.creates(first.credential).take(now));
    }
    learn(&mut summary, 3);
    assert_eq!(found(&summary, &first), [first.id]);
    assert!(taken(&mut summary, 4).ready_at() <= now, "not theirs yet");
    learn(&mut summary, 4);
    for batch in [&first, &other] {
        assert_eq!(found(&summary, batch), [first.id, other.id]);
    }
    assert!(taken(&mut summary, 4).ready_at() > now);
    summary.batches.remove(&first.id);
    assert_eq!(found(&summary, &first), [other.id]);
}

proptest! {
    /// Each is counted in first; what it does then is told in any order.
    #[test]
    fn at_rest_it_equals_a_rescan(
        lives in prop::collection::vec(life(), 1..8),
        order in prop::collection::vec(any::<Index>(), 64),
    ) {
        let (mut summary, mut rescan) = (summary(), summary());
        for credential in [3, 4] {
            learn(&mut rescan, credential);
        }
        type Telling = Box<dyn FnOnce(&mut Summary)>;
        let mut tellings: Vec<Telling> = Vec::new();
        for (number, (firm, bytes, places, ends)) in lives.into_iter().enumerate() {
            let mut entry = entry(number as u8, firm, bytes);
            entry.cohort.destination = [DESTINATION, OTHER][number % 2];
            entry.key.tenant = [TENANT, TenantId([7; 16])][number % 3 / 2];
            let places: Vec<Place> = places.into_iter().map(|it| place(&entry, it)).collect();
            summary.enter(&places[0], &entry);
            for pair in places.windows(2) {
                let (from, to) = (pair[0], pair[1]);
                tellings.push(Box::new(move |summary| summary.shift(&entry, &from, &to)));
            }
            let last = places[places.len() - 1];
            match ends {
                true => tellings.push(Box::new(move |summary| summary.exit(&last, &entry))),
                false => rescan.enter(&last, &entry),
            }
        }
        for credential in [3, 4] {
            tellings.push(Box::new(move |summary| learn(summary, credential)));
        }
        for index in order {
            if !tellings.is_empty() {
                tellings.swap_remove(index.index(tellings.len()))(&mut summary);
            }
        }
        prop_assert!(tellings.is_empty());
        prop_assert_eq!(told(&summary), told(&rescan));
    }
}
