//! What every store must do, run by each of them.

use std::{ops::Bound, time::Duration};

use bytes::Bytes;

use super::{MemoryStore, OpenError, Settings, SledStore};
use crate::{
    model::{
        attempt::{Attempt, AttemptId, AttemptState, Lane},
        batch::{Batch, BatchEvent, BatchState},
        endpoint::Endpoint,
        hook::TurnedOff,
        id::{
            BatchId, CallDigest, CredentialId, DestinationId, ReceiverId, RequestId, RequestKey,
            TenantId,
        },
        issued::{IssuedKey, samples::issued},
        ledger::{LedgerKey, LedgerRow},
        request::{
            Bucket, Cohort, Destination, Entry, Framing, Guarantee, LiveQueue, OnLate, Outcome,
            Place, Request, Shape, Source, State, Usage,
        },
        shadow::{ShadowKey, ShadowRow},
        time::Timestamp,
    },
    ports::{
        Admission, Admitted, Content, Delivery, DeliveryCounts, DeliveryStatus, Ending, Idempotent,
        Kept, KeyOwner, Learned, LearnedKey, LedgerEntry, LedgerRows, Relocation, Replan, Settled,
        Store, StoreError, TenantMove, Unbooked,
    },
};

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

pub fn at(seconds: u64) -> Timestamp {
    NOW + Duration::from_secs(seconds)
}

/// The `n`-th request of tenant `t`.
pub fn request(t: u8, n: u64) -> Request {
    let tenant = TenantId([t; 16]);
    let deadline = at(3600 + n);
    Request {
        key: RequestKey {
            tenant,
            id: RequestId::new(at(n), u128::from(n) << 64),
        },
        endpoint: Endpoint::ChatCompletions,
        model: "gpt-4o-mini".into(),
        credential: CredentialId([t; 16]),
        cohort: Cohort {
            destination: DestinationId([t; 16]),
            on_late: OnLate::Rescue,
            guarantee: Guarantee::Firm,
            bucket: Bucket {
                start: NOW,
                width_log2: 24,
            },
        },
        admitted: at(n),
        deadline,
        on_late: OnLate::Rescue,
        tag: Some("nightly".into()),
        webhook: None,
        idempotency: None,
        digest: CallDigest([n as u8; 16]),
        held: false,
        shape: Shape::Plain,
        line_bytes: 2000 + n as u32,
        inputs: 1,
        lane: Lane::Batch,
        reason: "cheapest".into(),
    }
}

pub fn admission(request: &Request, body: &[u8]) -> Admission {
    Admission {
        request: request.clone(),
        body: Bytes::copy_from_slice(body),
        place: Place::Queue(request.cohort),
        destination: Destination {
            id: request.cohort.destination,
            tenant: request.key.tenant,
            credential: request.credential,
            endpoint: request.endpoint,
            model: request.model.clone(),
        },
        credential: Bytes::from_static(b"sealed"),
        body_digest: CallDigest([1; 16]),
        idempotency_horizon: NOW,
    }
}

fn outcome(finished: Timestamp) -> Outcome {
    Outcome {
        state: State::Succeeded,
        status: 200,
        finished,
        source: Source::Offpeak,
        framing: Framing::Json,
        reason: "answered".into(),
        provider_request: None,
        usage: Usage::default(),
        bill: None,
    }
}

fn one_more(request: &Request) -> LedgerEntry {
    LedgerEntry {
        key: LedgerKey {
            tenant: request.key.tenant,
            hour: 1,
            lane: Some(Lane::Batch),
            model: request.model.clone(),
            tag: request.tag.clone(),
        },
        row: LedgerRow {
            requests: 1,
            ..LedgerRow::default()
        },
    }
}

pub fn ending(request: &Request, places: &[Place], finished: Timestamp, answer: &[u8]) -> Ending {
    Ending {
        key: request.key,
        places: places.to_vec(),
        outcome: outcome(finished),
        answer: Bytes::copy_from_slice(answer),
        ledger: one_more(request),
        attempt: None,
    }
}

pub fn batch_id(n: u64) -> BatchId {
    BatchId::new(at(n), u128::from(n) << 64)
}

pub fn batch(request: &Request, n: u64) -> Batch {
    let to = Destination {
        id: request.cohort.destination,
        tenant: request.key.tenant,
        credential: request.credential,
        endpoint: request.endpoint,
        model: request.model.clone(),
    };
    Batch {
        earliest_deadline: request.deadline,
        ..Batch::new(batch_id(n), request.cohort, to, at(n), "linger".into())
    }
}

pub fn attempt(id: AttemptId, state: AttemptState) -> Attempt {
    Attempt {
        id,
        lane: Lane::Flex,
        remote: None,
        started: NOW,
        state,
        ended: None,
        note: String::new(),
        usage: Usage::default(),
        bill: None,
        reserved: None,
        most: None,
        from: None,
    }
}

pub fn from_queue(request: &Request, to: Place) -> Relocation {
    Relocation {
        entry: request.entry(),
        from: Place::Queue(request.cohort),
        to,
    }
}

pub async fn admit(store: &dyn Store, request: &Request, body: &[u8]) {
    let admitted = store.admit(admission(request, body)).await.unwrap();
    assert_eq!(admitted, Admitted::New);
}

/// With a credential that opens.
pub async fn admit_with(store: &dyn Store, request: &Request, body: &[u8], credential: Bytes) {
    let admission = Admission {
        credential,
        ..admission(request, body)
    };
    assert_eq!(store.admit(admission).await.unwrap(), Admitted::New);
}

pub async fn settle(
    store: &dyn Store,
    request: &Request,
    finished: Timestamp,
    answer: &[u8],
) -> u64 {
    let places = [Place::Queue(request.cohort)];
    let ending = ending(request, &places, finished, answer);
    match each(store.settle(vec![ending]).await)[..] {
        [Settled::Now { sequence, .. }] => sequence,
        ref other => panic!("{other:?}"),
    }
}

/// None of them failed.
pub fn each<T>(results: Vec<Result<T, StoreError>>) -> Vec<T> {
    results.into_iter().map(Result::unwrap).collect()
}

pub async fn content(store: &dyn Store, request: &Request) -> Option<Content> {
    let stored = store.load(request.key).await.unwrap()?;
    assert_eq!(stored.request, *request);
    Some(stored.content)
}

/// Pseudo-random bytes that nothing compresses.
fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

async fn a_request_is_open_and_then_done(store: &dyn Store) {
    let asked = request(1, 1);
    let key = asked.key;
    assert_eq!(content(store, &asked).await, None);
    admit(store, &asked, b"{\"body\":1}").await;

    let body = Bytes::from_static(b"{\"body\":1}");
    assert_eq!(content(store, &asked).await, Some(Content::Open { body }));
    let queue = Place::Queue(asked.cohort);
    assert_eq!(store.place(key, &[]).await.unwrap(), Some(queue));
    assert_eq!(
        store.queued(asked.cohort, 9).await.unwrap(),
        [asked.entry()]
    );
    let stranger = RequestKey {
        tenant: TenantId([2; 16]),
        ..key
    };
    assert_eq!(store.load(stranger).await.unwrap(), None);
    assert!(!store.erase(key).await.unwrap(), "it is open");

    let sequence = settle(store, &asked, at(9), b"answer").await;
    let done = Content::Done {
        outcome: outcome(at(9)),
        answer: Bytes::from_static(b"answer"),
    };
    assert_eq!(content(store, &asked).await, Some(done));
    assert_eq!(store.place(key, &[]).await.unwrap(), None);
    assert_eq!(store.queued(asked.cohort, 9).await.unwrap(), []);
    let again = ending(&asked, &[queue], at(99), b"other");
    assert_eq!(
        each(store.settle(vec![again]).await),
        [Settled::Before(outcome(at(9)))]
    );
    let page = store.feed(key.tenant, 0, 9).await.unwrap();
    assert_eq!(page.floor, 0);
    assert!(sequence < page.ceiling);
    assert_eq!(page.entries.len(), 1);
    assert_eq!(
        (page.entries[0].sequence, page.entries[0].key),
        (sequence, key)
    );
    let ledger = ledger_of(store, key.tenant, 0).await;
    assert_eq!(ledger, [(one_more(&asked).key, one_more(&asked).row)]);
    assert_eq!(ledger_of(store, key.tenant, 1).await, ledger);
    assert_eq!(ledger_of(store, key.tenant, 2).await, []);

    assert!(store.erase(key).await.unwrap());
    assert_eq!(content(store, &asked).await, None);
    assert_eq!(store.feed(key.tenant, 0, 9).await.unwrap().entries, []);
    assert!(!store.erase(key).await.unwrap(), "it is unknown");
    let unknown = ending(&asked, &[queue], at(99), b"other");
    assert_eq!(each(store.settle(vec![unknown]).await), [Settled::Unknown]);
}

async fn large_payloads_come_back_whole(store: &dyn Store) {
    for (n, length) in [4000, 4001, 64_000, 64_001, 8 << 20]
        .into_iter()
        .enumerate()
    {
        let asked = request(1, n as u64);
        let body = noise(length);
        admit(store, &asked, &body).await;
        let body = Bytes::from(body);
        let open = Content::Open { body: body.clone() };
        assert!(
            content(store, &asked).await == Some(open),
            "{length} of body"
        );

        let answer = body.slice(1..);
        settle(store, &asked, at(9), &answer).await;
        let Some(Content::Done { answer: read, .. }) = content(store, &asked).await else {
            panic!("it is done");
        };
        assert!(read == answer, "{length} of answer");
        a_large_answer_is_read_in_parts(store, &asked, &answer).await;
    }
    let listed = store.list(TenantId([1; 16]), None, 2).await.unwrap();
    let ids: Vec<_> = listed.iter().map(|stored| stored.request.key.id).collect();
    assert_eq!(ids, [request(1, 4).key.id, request(1, 3).key.id]);
    assert_eq!(store.purge(at(10), 9).await.unwrap(), 5);
}

async fn a_large_answer_is_read_in_parts(store: &dyn Store, asked: &Request, answer: &Bytes) {
    let length = answer.len() as u64;
    for (short, kept) in [
        (length, Kept::Short(answer.clone())),
        (length - 1, Kept::Long(length)),
    ] {
        let outline = store.outline(asked.key, short).await.unwrap().unwrap();
        assert_eq!(outline.request, *asked);
        let ending = outline.ending.unwrap();
        assert!(ending == (outcome(at(9)), kept), "{length}, {short}");
    }
    for most in [999, 64_000, usize::MAX] {
        // From within a chunk, and from the end of one.
        for from in [0, 1, 3_999, 4_000]
            .into_iter()
            .filter(|_| most > 999 || length < 9_999)
        {
            let mut read = Vec::new();
            loop {
                let at = (from + read.len()) as u64;
                let part = store.answer_part(asked.key, at, most).await.unwrap();
                let part = part.unwrap();
                assert!(part.len() <= most);
                if part.is_empty() {
                    break;
                }
                read.extend_from_slice(&part);
            }
            let left = answer.get(from..).unwrap_or_default();
            assert!(read == left, "{length} from {from}, {most} at once");
        }
    }
    for behind in [length, length + 1, u64::MAX] {
        let part = store.answer_part(asked.key, behind, 10).await.unwrap();
        assert_eq!(part.unwrap(), Bytes::new());
    }
}

async fn parts_are_of_what_has_ended_and_is_there(store: &dyn Store) {
    let asked = request(1, 1);
    let read = async |from| store.answer_part(asked.key, from, 9).await.unwrap();
    assert_eq!(read(0).await, None, "it is unknown");
    assert_eq!(store.outline(asked.key, 9).await.unwrap(), None);
    admit(store, &asked, b"body").await;
    assert_eq!(read(0).await, None, "it is open");
    let open = store.outline(asked.key, 9).await.unwrap().unwrap();
    assert_eq!((open.request, open.ending), (asked.clone(), None));
    settle(store, &asked, at(9), &noise(100_000)).await;
    assert_eq!(read(50_000).await.unwrap(), noise(100_000)[50_000..50_009]);
    assert!(store.erase(asked.key).await.unwrap());
    assert_eq!(read(50_009).await, None, "it was erased since");
}

async fn one_of_two_moves_finds_it_gone(store: &dyn Store) {
    let asked = request(1, 1);
    let (first, second) = (Place::Line(batch_id(1)), Place::Line(batch_id(2)));
    admit(store, &asked, b"1").await;
    let (a, b) = tokio::join!(
        store.relocate(vec![from_queue(&asked, first)]),
        store.relocate(vec![from_queue(&asked, second)]),
    );
    let moved = (each(a)[0], each(b)[0]);
    assert!(moved.0 ^ moved.1, "{moved:?}");
    let batches = [batch_id(1), batch_id(2)];
    let place = store.place(asked.key, &batches).await.unwrap().unwrap();
    assert_eq!(place, if moved.0 { first } else { second });
    let lines = store.lines(batch_id(1), None, 9).await.unwrap().len()
        + store.lines(batch_id(2), None, 9).await.unwrap().len();
    assert_eq!(lines, 1);

    let to_live = Relocation {
        entry: asked.entry(),
        from: place,
        to: Place::Live,
    };
    assert_eq!(
        each(store.relocate(vec![to_live, to_live]).await),
        [true, false]
    );
    let entry = asked.entry();
    let live = |from| store.live(entry.live_queue(), from, 9);
    let at = (entry.deadline, entry.key);
    assert_eq!(live(Bound::Unbounded).await.unwrap(), [entry]);
    assert_eq!(live(Bound::Included(at)).await.unwrap(), [entry]);
    assert_eq!(live(Bound::Excluded(at)).await.unwrap(), []);
    let batch = match place {
        Place::Line(batch) => Some(batch),
        _ => None,
    };
    assert_eq!(store.scan_live(None, 9).await.unwrap(), [(entry, batch)]);
    assert_eq!(store.scan_live(Some(entry), 9).await.unwrap(), []);
    assert_eq!(store.taken_out_of(entry).await.unwrap(), batch);
    let other = LiveQueue {
        on_late: OnLate::Fail,
        ..entry.live_queue()
    };
    let others = store.live(other, Bound::Unbounded, 9).await.unwrap();
    assert_eq!(others, []);
}

async fn another_lane_is_chosen_where_it_moves(store: &dyn Store) {
    for (n, length) in [1, 4001, 200_000].into_iter().enumerate() {
        let mut asked = request(1, n as u64);
        asked.lane = Lane::Flex;
        let body = Bytes::from(noise(length));
        let mut admission = admission(&asked, &body);
        admission.place = Place::Live;
        store.admit(admission).await.unwrap();
        let queue = Place::Queue(asked.cohort);
        let replan = Replan {
            relocation: Relocation {
                entry: asked.entry(),
                from: Place::Live,
                to: queue,
            },
            lane: Lane::Batch,
            reason: "no capacity".into(),
        };
        assert!(store.replan(replan.clone()).await.unwrap());
        assert!(!store.replan(replan.clone()).await.unwrap(), "it is gone");
        let replanned = Request {
            lane: Lane::Batch,
            reason: "no capacity".into(),
            ..asked.clone()
        };
        let head = store.head(asked.key).await.unwrap().unwrap();
        assert_eq!((head.request, head.outcome), (replanned.clone(), None));
        assert!(content(store, &replanned).await == Some(Content::Open { body }));
        assert_eq!(store.scan_live(None, 9).await.unwrap(), []);
        let queued = store.queued(asked.cohort, 9).await.unwrap();
        assert_eq!(queued, [replanned.entry()]);
        settle(store, &replanned, at(9), b"answer").await;
        assert!(!store.replan(replan).await.unwrap(), "it has ended");
    }
    let unknown = Replan {
        relocation: from_queue(&request(1, 99), Place::Live),
        lane: Lane::Batch,
        reason: String::new(),
    };
    assert!(!store.replan(unknown).await.unwrap());
}

async fn of_two_endings_one_counts(store: &dyn Store) {
    let asked = request(1, 1);
    admit(store, &asked, b"1").await;
    let places = [Place::Queue(asked.cohort)];
    let (a, b) = tokio::join!(
        store.settle(vec![ending(&asked, &places, at(1), b"a")]),
        store.settle(vec![ending(&asked, &places, at(2), b"b")]),
    );
    let (a, b) = (each(a).remove(0), each(b).remove(0));
    let finished = match (&a, &b) {
        (Settled::Now { .. }, Settled::Before(outcome)) => outcome.finished,
        (Settled::Before(outcome), Settled::Now { .. }) => outcome.finished,
        other => panic!("{other:?}"),
    };
    let Some(Content::Done { outcome, .. }) = content(store, &asked).await else {
        panic!("it is done");
    };
    assert_eq!(outcome.finished, finished);
    let ledger = ledger_of(store, asked.key.tenant, 0).await;
    assert_eq!(ledger[0].1.requests, 1);
    assert_eq!(
        store
            .feed(asked.key.tenant, 0, 9)
            .await
            .unwrap()
            .entries
            .len(),
        1
    );
}

/// Whoever settles looked for the place before; it may have moved since.
async fn an_ending_finds_a_request_that_has_moved(store: &dyn Store) {
    let asked = request(1, 1);
    admit(store, &asked, b"1").await;
    store.put_batch(&batch(&asked, 7)).await.unwrap();
    let line = Place::Line(batch_id(7));
    let (moved, settled) = tokio::join!(
        store.relocate(vec![from_queue(&asked, line)]),
        store.settle(vec![ending(
            &asked,
            &[Place::Queue(asked.cohort)],
            at(1),
            b"a"
        )]),
    );
    assert!(matches!(each(settled)[..], [Settled::Now { .. }]));
    each(moved);
    assert_eq!(store.lines(batch_id(7), None, 9).await.unwrap(), []);
    assert_eq!(store.queued(asked.cohort, 9).await.unwrap(), []);
    let late = each(store.relocate(vec![from_queue(&asked, line)]).await);
    assert_eq!(late, [false], "what has ended moves nowhere");
}

async fn many_are_claimed_at_once(store: &dyn Store) {
    let asked: Vec<Request> = (0..450).map(|n| request(1, n)).collect();
    for asked in &asked {
        admit(store, asked, b"1").await;
    }
    let place = Place::Line(batch_id(1));
    let moves = asked.iter().map(|asked| from_queue(asked, place)).collect();
    assert_eq!(each(store.relocate(moves).await), vec![true; 450]);
    let lines = store.lines(batch_id(1), None, 400).await.unwrap();
    let rest = store
        .lines(batch_id(1), Some(lines[399].key.id), 400)
        .await
        .unwrap();
    let all: Vec<_> = lines.into_iter().chain(rest).collect();
    let expected: Vec<_> = asked.iter().map(Request::entry).collect();
    assert_eq!(all, expected, "in the order of the file");

    let mut endings: Vec<_> = asked
        .iter()
        .map(|asked| ending(asked, &[place], at(1), b"answer"))
        .collect();
    endings.push(ending(&asked[0], &[place], at(1), b"answer"));
    let settled = each(store.settle(endings).await);
    let sequences: Vec<u64> = settled
        .iter()
        .filter_map(|settled| match settled {
            Settled::Now { sequence, .. } => Some(*sequence),
            _ => None,
        })
        .collect();
    assert_eq!(sequences.len(), 450);
    assert!(sequences.is_sorted_by(|a, b| a < b));
    assert_eq!(
        ledger_of(store, asked[0].key.tenant, 0).await[0].1.requests,
        450
    );
    assert_eq!(store.lines(batch_id(1), None, 9).await.unwrap(), []);
}

async fn queues_are_scanned_in_pages(store: &dyn Store) {
    let mut expected = Vec::new();
    for t in 1..4 {
        for n in 0..5 {
            let mut asked = request(t, n);
            asked.cohort.bucket.width_log2 = 20 + (n % 2) as u8;
            admit(store, &asked, b"1").await;
            expected.push((asked.cohort, asked.entry()));
        }
    }
    expected.sort_by_key(|(cohort, entry)| (*cohort, entry.key));
    let mut seen: Vec<(Cohort, Entry)> = Vec::new();
    loop {
        let after = seen.last().map(|(cohort, entry)| (*cohort, entry.key));
        let page = store.scan_queue(after, 4).await.unwrap();
        if page.is_empty() {
            break;
        }
        seen.extend(page);
    }
    assert_eq!(seen, expected);
    assert_eq!(store.destinations().await.unwrap().len(), 3);
    let listed = store
        .list(TenantId([2; 16]), Some(request(2, 3).key.id), 2)
        .await
        .unwrap();
    let ids: Vec<_> = listed.iter().map(|stored| stored.request.key).collect();
    assert_eq!(ids, [request(2, 2).key, request(2, 1).key]);
}

async fn an_idempotency_key_is_held_until_long_after_the_end(store: &dyn Store) {
    let digest = CallDigest([5; 16]);
    let with_key = |n| Request {
        idempotency: Some(digest),
        ..request(1, n)
    };
    let (first, second) = (with_key(1), with_key(2));
    let held = Idempotent {
        request: first.key.id,
        body_digest: CallDigest([1; 16]),
    };
    admit(store, &first, b"1").await;
    let tenant = first.key.tenant;
    assert_eq!(
        store.by_idempotency(tenant, digest).await.unwrap(),
        Some(held)
    );
    assert_eq!(
        store
            .by_idempotency(TenantId([2; 16]), digest)
            .await
            .unwrap(),
        None
    );
    let refused = store.admit(admission(&second, b"2")).await.unwrap();
    assert_eq!(refused, Admitted::Known(held));
    assert_eq!(content(store, &second).await, None);

    settle(store, &first, at(10), b"answer").await;
    let admit_after = async |horizon| {
        let mut admission = admission(&second, b"2");
        admission.idempotency_horizon = horizon;
        store.admit(admission).await.unwrap()
    };
    assert_eq!(admit_after(at(10)).await, Admitted::Known(held));
    assert_eq!(admit_after(at(11)).await, Admitted::New);
    let newer = Idempotent {
        request: second.key.id,
        ..held
    };
    assert_eq!(store.purge(at(11), 9).await.unwrap(), 1);
    assert_eq!(
        store.by_idempotency(tenant, digest).await.unwrap(),
        Some(newer)
    );
    settle(store, &second, at(12), b"answer").await;
    assert_eq!(store.purge(at(13), 9).await.unwrap(), 1);
    assert_eq!(store.by_idempotency(tenant, digest).await.unwrap(), None);
}

async fn held_requests_wait_for_release(store: &dyn Store) {
    let held = |n| Request {
        held: true,
        ..request(1, n)
    };
    for n in [2, 1, 3] {
        admit(store, &held(n), b"1").await;
    }
    let name = |n| (held(n).digest, held(n).key);
    assert_eq!(
        store.unreleased().await.unwrap(),
        [name(1), name(2), name(3)]
    );
    store.release(held(2).key, held(2).digest).await.unwrap();
    assert_eq!(store.unreleased().await.unwrap(), [name(1), name(3)]);
    settle(store, &held(1), at(1), b"a").await;
    assert_eq!(store.unreleased().await.unwrap(), [name(1), name(3)]);
    assert_eq!(store.purge(at(2), 9).await.unwrap(), 1);
    assert_eq!(store.unreleased().await.unwrap(), [name(3)]);
}

async fn attempts_are_accounted_once(store: &dyn Store) {
    let asked = request(1, 1);
    let key = asked.key;
    admit(store, &asked, b"1").await;
    let (live, batch) = (AttemptId::Live(1), AttemptId::Batch(batch_id(1)));
    let put = |id, state| store.put_attempt(key, attempt(id, state));
    put(live, AttemptState::Open).await.unwrap();
    put(AttemptId::Live(2), AttemptState::Open).await.unwrap();
    put(AttemptId::Live(2), AttemptState::Ended).await.unwrap();
    assert_eq!(store.open_attempts().await.unwrap(), [(key, live)]);
    assert_eq!(store.attempts(key).await.unwrap().len(), 2);

    let mut last = ending(&asked, &[Place::Queue(asked.cohort)], at(1), b"a");
    last.attempt = Some(attempt(live, AttemptState::Answered));
    each(store.settle(vec![last]).await);
    assert_eq!(store.open_attempts().await.unwrap(), []);

    let late = || store.account(key, attempt(batch, AttemptState::Late), one_more(&asked));
    assert!(late().await.unwrap());
    assert!(!late().await.unwrap());
    assert_eq!(ledger_of(store, key.tenant, 0).await[0].1.requests, 2);
    let states: Vec<_> = store
        .attempts(key)
        .await
        .unwrap()
        .iter()
        .map(|a| a.state)
        .collect();
    assert_eq!(
        states,
        [
            AttemptState::Late,
            AttemptState::Answered,
            AttemptState::Ended
        ]
    );
    assert_eq!(store.purge(at(2), 9).await.unwrap(), 1);
    assert_eq!(store.attempts(key).await.unwrap(), []);
}

async fn what_is_owed_of_an_erased_request_is_booked_once(store: &dyn Store) {
    let asked = request(1, 1);
    let key = asked.key;
    let at_work = Batch {
        id: batch_id(1),
        state: BatchState::Submitted,
        ..batch(&asked, 1)
    };
    store.put_batch(&at_work).await.unwrap();
    admit(store, &asked, b"1").await;
    let live = |number, state| attempt(AttemptId::Live(number), state);
    let put = |attempt| store.put_attempt(key, attempt);
    for number in 1..=3 {
        assert!(put(live(number, AttemptState::Open)).await.unwrap());
    }
    assert!(put(live(3, AttemptState::Ended)).await.unwrap());
    settle(store, &asked, at(9), b"answer").await;
    assert!(store.erase(key).await.unwrap());

    assert_eq!(store.attempts(key).await.unwrap(), []);
    assert_eq!(store.open_attempts().await.unwrap(), []);
    let owed = |number| Unbooked {
        entry: asked.entry(),
        model: asked.model.clone(),
        tag: asked.tag.clone(),
        attempt: live(number, AttemptState::Open),
    };
    assert_eq!(store.unbooked(None).await.unwrap(), [owed(1), owed(2)]);
    assert_eq!(store.unbooked(Some(key)).await.unwrap(), [owed(1), owed(2)]);
    let other = Some(request(1, 2).key);
    assert_eq!(store.unbooked(other).await.unwrap(), []);

    // Of one more is heard, and it cost nothing.
    let seen = Attempt {
        remote: Some("resp_1".into()),
        ..live(2, AttemptState::Open)
    };
    assert!(put(seen.clone()).await.unwrap());
    assert_eq!(store.unbooked(None).await.unwrap()[1].attempt, seen);
    assert!(put(live(2, AttemptState::Ended)).await.unwrap());
    assert!(!put(live(2, AttemptState::Open)).await.unwrap(), "unknown");
    assert_eq!(store.unbooked(None).await.unwrap(), [owed(1)]);

    let line = attempt(AttemptId::Batch(at_work.id), AttemptState::Late);
    for late in [live(1, AttemptState::Late), line] {
        let account = || store.account(key, late.clone(), one_more(&asked));
        assert!(account().await.unwrap());
        assert!(!account().await.unwrap());
    }
    assert_eq!(ledger_of(store, key.tenant, 0).await[0].1.requests, 3);
    assert_eq!(store.unbooked(None).await.unwrap(), []);
    assert_eq!(store.attempts(key).await.unwrap(), []);
}

/// The files of a batch are read again while it is open.
async fn what_was_booked_before_it_was_erased_is_not_booked_again(store: &dyn Store) {
    let (answered, late) = (request(1, 1), request(1, 2));
    let open = Batch {
        state: BatchState::Submitted,
        ..batch(&answered, 1)
    };
    store.put_batch(&open).await.unwrap();
    for asked in [&answered, &late] {
        admit(store, asked, b"1").await;
    }
    let line = |state| attempt(AttemptId::Batch(open.id), state);
    let mut last = ending(&answered, &[Place::Queue(answered.cohort)], at(1), b"a");
    last.outcome.source = Source::Batch(open.id);
    each(store.settle(vec![last]).await);
    settle(store, &late, at(1), b"a").await;
    let account =
        |asked: &Request| store.account(asked.key, line(AttemptState::Late), one_more(asked));
    assert!(account(&late).await.unwrap());
    for asked in [&answered, &late] {
        assert!(store.erase(asked.key).await.unwrap());
        assert!(!account(asked).await.unwrap(), "it is booked");
    }

    let settled = Batch {
        state: BatchState::Settled,
        settled: Some(at(2)),
        ..open
    };
    store.put_batch(&settled).await.unwrap();
    store.purge_batches(at(3)).await.unwrap();
    assert!(
        account(&late).await.unwrap(),
        "nothing is kept of its lines"
    );
}

async fn webhooks_are_due_until_they_are_delivered(store: &dyn Store) {
    let hooked = |n| Request {
        webhook: Some("billing".into()),
        ..request(1, n)
    };
    for n in [1, 2] {
        admit(store, &hooked(n), b"1").await;
        assert_eq!(store.delivery_status(hooked(n).key).await.unwrap(), None);
        settle(store, &hooked(n), at(n), b"a").await;
    }
    let first = Delivery {
        due: at(1),
        key: hooked(1).key,
        tries: 0,
        first_due: at(1),
        receiver: ReceiverId::of(hooked(1).key.tenant, "billing"),
        ended: at(1),
    };
    assert_eq!(store.next_delivery().await.unwrap(), Some(at(1)));
    assert_eq!(store.due_deliveries(at(0), None, 9).await.unwrap(), []);
    assert_eq!(store.due_deliveries(at(1), None, 9).await.unwrap(), [first]);
    assert_eq!(store.due_deliveries(at(2), None, 9).await.unwrap().len(), 2);

    let failed = DeliveryStatus::Pending {
        next: at(60),
        tries: 1,
        last: Some("503".into()),
    };
    store.record_delivery(first, failed.clone()).await.unwrap();
    assert_eq!(
        store.delivery_status(first.key).await.unwrap(),
        Some(failed)
    );
    let again = Delivery {
        due: at(60),
        tries: 1,
        ..first
    };
    assert_eq!(
        store.due_deliveries(at(60), None, 9).await.unwrap()[1],
        again
    );
    let sent = DeliveryStatus::Delivered {
        at: at(61),
        tries: 2,
    };
    // Told of the first due time, it takes off the later one too.
    store.record_delivery(first, sent.clone()).await.unwrap();
    assert_eq!(
        store.due_deliveries(at(99), None, 9).await.unwrap().len(),
        1
    );
    assert_eq!(store.delivery_status(first.key).await.unwrap(), Some(sent));

    assert_eq!(store.purge(at(3), 9).await.unwrap(), 2);
    assert_eq!(store.next_delivery().await.unwrap(), None);
    assert_eq!(store.delivery_status(first.key).await.unwrap(), None);
    let gone = DeliveryStatus::Pending {
        next: at(70),
        tries: 2,
        last: None,
    };
    store.record_delivery(again, gone).await.unwrap();
    assert_eq!(store.next_delivery().await.unwrap(), None);
}

async fn a_delivery_waits_in_one_place(store: &dyn Store) {
    let hooked = |t, n, target: &str| Request {
        webhook: Some(target.into()),
        ..request(t, n)
    };
    let tenant = TenantId([1; 16]);
    for n in 0..5 {
        let target = format!("https://example.com/hook?n={n}");
        admit(store, &hooked(1, n, &target), b"1").await;
        settle(store, &hooked(1, n, &target), at(n), b"a").await;
        admit(store, &hooked(2, n, &target), b"1").await;
        settle(store, &hooked(2, n, &target), at(n), b"a").await;
    }
    let receiver = ReceiverId::of(tenant, "https://example.com/hook");
    let due = store.due_deliveries(at(9), None, 99).await.unwrap();
    assert_eq!(due.len(), 10);
    let after = due.get(3).map(|it| (it.due, it.key));
    assert_eq!(
        store.due_deliveries(at(9), after, 99).await.unwrap(),
        due[4..]
    );

    // Into the backlog, once; what has left its place meanwhile stays where it is.
    let own: Vec<_> = due.iter().filter(|it| it.receiver == receiver).collect();
    let own: Vec<Delivery> = own.into_iter().copied().collect();
    assert_eq!(own.len(), 5);
    let sent = DeliveryStatus::Delivered {
        at: at(9),
        tries: 1,
    };
    store.record_delivery(own[0], sent).await.unwrap();
    for _ in 0..2 {
        store.shelve_deliveries(own.clone()).await.unwrap();
        assert_eq!(store.backlog(receiver, None, 9).await.unwrap(), own[1..]);
        assert_eq!(
            store.due_deliveries(at(9), None, 99).await.unwrap().len(),
            5
        );
    }
    let after = Some((own[2].ended, own[2].key));
    assert_eq!(store.backlog(receiver, after, 9).await.unwrap(), own[3..]);
    assert_eq!(store.backlogs(None, 9).await.unwrap(), own[1..2]);
    assert_eq!(store.backlogs(Some(receiver), 9).await.unwrap(), []);

    // A try takes it out; a failed one puts it back on the index.
    let status = |key| store.delivery_status(key);
    let again = DeliveryStatus::Pending {
        next: at(60),
        tries: 1,
        last: None,
    };
    store.record_delivery(own[1], again).await.unwrap();
    assert_eq!(store.backlog(receiver, None, 9).await.unwrap(), own[2..]);
    let then = store.due_deliveries(at(60), after, 99).await.unwrap();
    assert_eq!(then.last().unwrap().key, own[1].key);

    // Dead letters are found by receiver, until they are sent again or erased.
    let dead = |key: RequestKey| (receiver, key.id);
    let ends = DeliveryStatus::Dead {
        at: at(61),
        tries: 2,
        last: "410".into(),
    };
    for tried in &own[1..4] {
        store.record_delivery(*tried, ends.clone()).await.unwrap();
    }
    assert_eq!(store.backlog(receiver, None, 9).await.unwrap(), own[4..]);
    let letters = async |of, after, limit| store.dead_letters(tenant, of, after, limit).await;
    let all = [dead(own[1].key), dead(own[2].key), dead(own[3].key)];
    assert_eq!(letters(None, None, 9).await.unwrap(), all);
    assert_eq!(
        letters(Some(receiver), Some(all[0]), 1).await.unwrap(),
        all[1..2]
    );
    let other = ReceiverId::of(tenant, "other");
    assert_eq!(letters(Some(other), None, 9).await.unwrap(), []);
    let foreign = TenantId([2; 16]);
    let none = store.dead_letters(foreign, Some(receiver), None, 9).await;
    assert_eq!(none.unwrap(), []);
    let again = DeliveryStatus::Pending {
        next: at(70),
        tries: 0,
        last: None,
    };
    store.record_delivery(own[1], again.clone()).await.unwrap();
    assert_eq!(letters(None, None, 9).await.unwrap(), all[1..]);
    assert!(store.erase(own[2].key).await.unwrap());
    assert_eq!(letters(None, None, 9).await.unwrap(), all[2..]);
    // And those of a backlog go with their request.
    assert!(store.erase(own[4].key).await.unwrap());
    assert_eq!(store.backlogs(None, 9).await.unwrap(), []);

    let listed = store.deliveries(tenant, None, 9).await.unwrap();
    let ids: Vec<_> = listed.iter().map(|(id, _)| *id).collect();
    assert_eq!(ids, [own[3].key.id, own[1].key.id, own[0].key.id]);
    assert_eq!(listed[1].1, again);
    let older = store.deliveries(tenant, Some(ids[0]), 1).await.unwrap();
    assert_eq!(older, listed[1..2]);
    assert_eq!(status(own[4].key).await.unwrap(), None);
}

async fn receivers_are_turned_off_and_secrets_rotated_by_tenant(store: &dyn Store) {
    let off = |tenant: u8, target: &str, since| TurnedOff {
        tenant: TenantId([tenant; 16]),
        receiver: ReceiverId::of(TenantId([tenant; 16]), target),
        target: target.into(),
        since: at(since),
    };
    let (one, two, foreign) = (off(1, "a", 1), off(1, "b", 2), off(2, "a", 3));
    for off in [&one, &two, &foreign] {
        store.turn_off(off.clone()).await.unwrap();
    }
    let is_off = async |off: &TurnedOff| store.turned_off(off.tenant, off.receiver).await.unwrap();
    assert_eq!(is_off(&one).await, Some(one.clone()));
    assert_eq!(store.all_turned_off(one.tenant, 9).await.unwrap().len(), 2);
    assert_eq!(store.all_turned_off(one.tenant, 1).await.unwrap().len(), 1);
    store.turn_on(two.tenant, two.receiver).await.unwrap();
    assert_eq!(is_off(&two).await, None);
    store.purge_turned_off(at(3)).await.unwrap();
    assert_eq!(is_off(&one).await, None);
    assert_eq!(is_off(&foreign).await, Some(foreign.clone()));

    let day = Duration::from_secs(86_400);
    let secrets = store
        .rotate_hook_secret(one.tenant, NOW, day)
        .await
        .unwrap();
    assert_eq!(secrets.valid(NOW), [1, 0]);
    assert_eq!(store.hook_secrets(one.tenant).await.unwrap(), secrets);
    let secrets = store
        .rotate_hook_secret(one.tenant, NOW, day)
        .await
        .unwrap();
    assert_eq!(secrets.valid(NOW), [2, 1, 0]);
    let other = store.hook_secrets(foreign.tenant).await.unwrap();
    assert_eq!(other.valid(NOW), [0]);
}

async fn what_is_old_is_purged_and_the_feed_says_so(store: &dyn Store) {
    let mut last = [0; 3];
    for n in 0..60 {
        for t in [1, 2] {
            admit(store, &request(t, n), b"1").await;
            last[t as usize] = settle(store, &request(t, n), at(n), b"a").await;
        }
    }
    admit(store, &request(1, 100), b"open").await;
    assert_eq!(store.purge(at(0), 1000).await.unwrap(), 0);
    assert_eq!(store.purge(at(59), 10).await.unwrap(), 10);
    assert_eq!(store.purge(at(59), 1000).await.unwrap(), 108);
    assert_eq!(store.purge(at(59), 1000).await.unwrap(), 0);
    for t in [1, 2] {
        let tenant = TenantId([t; 16]);
        let page = store.feed(tenant, 0, 9).await.unwrap();
        let left: Vec<_> = page.entries.iter().map(|entry| entry.sequence).collect();
        assert_eq!(left, [last[t as usize]]);
        assert!(0 < page.floor && page.floor < last[t as usize]);
        assert_eq!(content(store, &request(t, 58)).await, None);
        assert!(content(store, &request(t, 59)).await.is_some());
    }
    assert!(content(store, &request(1, 100)).await.is_some());
    let nobody = store.feed(TenantId([3; 16]), 0, 9).await.unwrap();
    assert_eq!(nobody.floor, 0);
    assert!(last[1].max(last[2]) < nobody.ceiling, "of all tenants");
}

async fn batches_stay_while_somebody_needs_them(store: &dyn Store) {
    let asked = request(1, 1);
    let ended = |n, settled, litter: &[&str]| {
        let mut batch = batch(&asked, n);
        batch.apply(BatchEvent::Abandon).unwrap();
        batch.settled = Some(settled);
        batch.litter = litter.iter().map(|file| String::from(*file)).collect();
        batch
    };
    let open = batch(&asked, 1);
    let (old, littered, recent, lined) = (
        ended(2, at(5), &[]),
        ended(3, at(5), &["file-1"]),
        ended(4, at(50), &[]),
        ended(5, at(5), &[]),
    );
    for batch in [&open, &old, &littered, &recent, &lined] {
        store.put_batch(batch).await.unwrap();
    }
    admit(store, &asked, b"1").await;
    let claim = from_queue(&asked, Place::Line(lined.id));
    assert_eq!(each(store.relocate(vec![claim]).await), [true]);
    let told = store.batches(at(10)).await.unwrap();
    assert_eq!(told, [open.clone(), littered.clone(), recent.clone()]);
    store.purge_batches(at(10)).await.unwrap();
    assert_eq!(
        store.batches(NOW).await.unwrap(),
        [open, littered, recent, lined]
    );
}

async fn credentials_are_kept_until_they_are_dropped(store: &dyn Store) {
    let asked = request(1, 1);
    let id = asked.credential;
    assert_eq!(store.credential(id).await.unwrap(), None);
    admit(store, &asked, b"1").await;
    let mut second = admission(&request(1, 2), b"2");
    second.credential = Bytes::from_static(b"sealed differently");
    store.admit(second).await.unwrap();
    assert_eq!(
        store.credential(id).await.unwrap(),
        Some(b"sealed".to_vec())
    );
    store.drop_credential(id).await.unwrap();
    assert_eq!(store.credential(id).await.unwrap(), None);
}

async fn what_was_learned_is_written_over_and_forgotten(store: &dyn Store) {
    let learned = |what: &str, known: &'static [u8]| Learned {
        key: LearnedKey {
            owner: request(1, 1).credential,
            model: "gpt-4o-mini".into(),
            what: what.into(),
        },
        known: Bytes::from_static(known),
    };
    store.put_learned(learned("batch", b"1")).await.unwrap();
    store.put_learned(learned("batch", b"2")).await.unwrap();
    store.put_learned(learned("cancel", b"3")).await.unwrap();
    let mut all = store.learned().await.unwrap();
    all.sort_by(|a, b| a.key.what.cmp(&b.key.what));
    assert_eq!(all, [learned("batch", b"2"), learned("cancel", b"3")]);
    store
        .forget_learned(learned("batch", b"").key)
        .await
        .unwrap();
    assert_eq!(store.learned().await.unwrap(), [learned("cancel", b"3")]);
}

async fn shadow_rows_are_written_over_and_removed(store: &dyn Store) {
    let key = |day| ShadowKey {
        tenant: request(1, 1).key.tenant,
        day,
        deadline: Duration::from_secs(3600),
        model: Some("gpt-4o-mini".into()),
    };
    let row = |calls| ShadowRow {
        calls,
        ..ShadowRow::default()
    };
    for rows in [
        vec![(key(1), Some(row(1))), (key(2), Some(row(5)))],
        vec![(key(1), Some(row(2)))],
        vec![(key(2), None), (key(3), None)],
    ] {
        for written in store.put_shadow(rows).await {
            written.unwrap();
        }
    }
    assert_eq!(store.shadow().await.unwrap(), [(key(1), row(2))]);
}

async fn a_tenant_moves_in_one_write(store: &dyn Store) {
    let asked = request(1, 1);
    admit(store, &asked, b"1").await;
    let dropped = CredentialId([9; 16]);
    let owner = |tenant, kept| KeyOwner { tenant, kept };
    let keys = vec![
        (TenantId([7; 16]), owner(asked.key.tenant, false)),
        (asked.key.tenant, owner(TenantId([8; 16]), true)),
    ];
    let moving = TenantMove {
        keys: keys.clone(),
        credentials: vec![
            (asked.credential, Bytes::from_static(b"sealed anew")),
            (dropped, Bytes::from_static(b"of a credential that is gone")),
        ],
    };
    store.move_tenant(moving).await.unwrap();
    let mut known = store.tenants().await.unwrap();
    known.sort_by_key(|(_, owner)| owner.kept);
    assert_eq!(known, keys);
    let sealed = store.credential(asked.credential).await.unwrap();
    assert_eq!(sealed.as_deref(), Some(&b"sealed anew"[..]));
    assert_eq!(store.credential(dropped).await.unwrap(), None);
}

async fn an_issued_key_is_written_over_and_stays(store: &dyn Store) {
    let (older, newer) = (issued(1, at(0)), issued(2, at(1)));
    store.put_issued(&newer).await.unwrap();
    store.put_issued(&older).await.unwrap();
    assert_eq!(
        store.issued().await.unwrap(),
        [older.clone(), newer.clone()]
    );
    let revoked = IssuedKey {
        revoked: Some(at(5)),
        ..older
    };
    store.put_issued(&revoked).await.unwrap();
    assert_eq!(store.issued().await.unwrap(), [revoked, newer]);
}

async fn a_batch_is_found_by_its_id(store: &dyn Store) {
    let one = batch(&request(1, 1), 1);
    assert_eq!(store.batch(one.id).await.unwrap(), None);
    store.put_batch(&one).await.unwrap();
    assert_eq!(store.batch(one.id).await.unwrap(), Some(one));
}

/// Three tenants' requests, each of an id of its own: one's are all newer than most of
/// the others'.
fn of_three_tenants() -> Vec<Request> {
    let turns = (0..60).map(|n| request(1 + (n % 2) as u8, n));
    let late = (50..90).map(|n| request(3, 2 * n + 1));
    turns.chain(late).collect()
}

async fn requests_of_all_tenants_are_read_newest_first(store: &dyn Store) {
    let mut all = of_three_tenants();
    for request in &all {
        admit(store, request, b"1").await;
    }
    all.sort_by_key(|request| std::cmp::Reverse(request.key.id));
    let all: Vec<RequestKey> = all.iter().map(|request| request.key).collect();
    for limit in [1, 7, 16, 17, 100, 1000] {
        let (mut read, mut before) = (Vec::new(), None);
        loop {
            let page = store.newest(before, limit).await.unwrap();
            before = page.last().map(|head| head.request.key.id);
            read.extend(page.iter().map(|head| head.request.key));
            if page.len() < limit {
                break;
            }
        }
        assert_eq!(read, all, "{limit} at a time");
    }
    assert_eq!(store.newest(None, 0).await.unwrap(), []);
    for key in &all {
        assert_eq!(store.find(key.id).await.unwrap(), Some(*key));
    }
    assert_eq!(store.find(request(1, 1000).key.id).await.unwrap(), None);
}

async fn endings_of_all_tenants_are_read_from_the_last(store: &dyn Store) {
    let mut ended = Vec::new();
    for request in of_three_tenants() {
        admit(store, &request, b"1").await;
        let sequence = settle(store, &request, at(5), b"a").await;
        ended.push((sequence, request.key));
    }
    // What is open has not ended.
    admit(store, &request(4, 1), b"1").await;
    ended.reverse();
    for of in [None, Some(TenantId([2; 16])), Some(TenantId([4; 16]))] {
        let expected: Vec<_> = ended
            .iter()
            .filter(|(_, key)| of.is_none_or(|of| key.tenant == of))
            .copied()
            .collect();
        for limit in [1, 16, 33, 1000] {
            let (mut read, mut before) = (Vec::new(), None);
            loop {
                let page = store.recent(of, before, limit).await.unwrap();
                before = page.last().map(|entry| entry.sequence);
                read.extend(page.iter().map(|entry| (entry.sequence, entry.key)));
                if page.len() < limit {
                    break;
                }
            }
            assert_eq!(read, expected, "{limit} at a time");
        }
    }
}

/// All of a tenant's rows from the hour `since` on.
pub async fn ledger_of(
    store: &dyn Store,
    tenant: TenantId,
    since: u32,
) -> Vec<(LedgerKey, LedgerRow)> {
    let rows = LedgerRows::of_tenant(tenant, since);
    store.ledger_page(&rows, None, usize::MAX).await.unwrap()
}

async fn dead_letters_of_all_tenants_are_counted_and_read_in_pages(store: &dyn Store) {
    let none = DeliveryCounts::default();
    assert_eq!(store.delivery_counts(), none);
    let mut dead = Vec::new();
    for n in 0..12u64 {
        let tenant = 1 + (n % 3) as u8;
        let target = format!("https://example.com/{}", n % 2);
        let hooked = Request {
            webhook: Some(target.clone()),
            ..request(tenant, n)
        };
        admit(store, &hooked, b"1").await;
        settle(store, &hooked, at(n), b"a").await;
        let due = store.due_deliveries(at(n), None, 99).await.unwrap();
        let due = due.into_iter().find(|due| due.key == hooked.key).unwrap();
        match n {
            0 => {}
            1 => store.shelve_deliveries(vec![due]).await.unwrap(),
            _ => {
                let status = DeliveryStatus::Dead {
                    at: at(n),
                    tries: 3,
                    last: "410".into(),
                };
                store.record_delivery(due, status).await.unwrap();
                dead.push((ReceiverId::of(hooked.key.tenant, &target), hooked.key));
            }
        }
    }
    dead.sort_by_key(|(receiver, key)| (key.tenant, *receiver, key.id));
    for limit in [1, 4, 99] {
        let mut read: Vec<(ReceiverId, RequestKey)> = Vec::new();
        loop {
            let after = read.last().copied();
            let page = store.all_dead_letters(after, limit).await.unwrap();
            read.extend(&page);
            if page.len() < limit {
                break;
            }
        }
        assert_eq!(read, dead, "{limit} at a time");
    }
    let counts = DeliveryCounts {
        pending: 2,
        dead: 10,
    };
    assert_eq!(store.delivery_counts(), counts);
}

async fn the_ledger_is_read_in_pages_by_tenant_and_hour(store: &dyn Store) {
    let mut all = Vec::new();
    for (t, n) in (1..4u8).flat_map(|t| (0..40u64).map(move |n| (t, n))) {
        let asked = request(t, n);
        admit(store, &asked, b"1").await;
        let key = LedgerKey {
            tenant: asked.key.tenant,
            hour: 1 + (n / 4) as u32,
            lane: [None, Some(Lane::Batch)][n as usize % 2],
            model: format!("model {}", n % 4),
            tag: None,
        };
        let row = LedgerRow {
            requests: n,
            ..LedgerRow::default()
        };
        let ledger = LedgerEntry {
            key: key.clone(),
            row: row.clone(),
        };
        let ending = Ending {
            ledger,
            ..ending(&asked, &[Place::Queue(asked.cohort)], at(1), b"a")
        };
        store.settle(vec![ending]).await.pop().unwrap().unwrap();
        all.push((key, row));
    }
    for (of, hours) in [
        (None, 0..u32::MAX),
        (None, 3..5),
        (None, 11..12),
        (Some(TenantId([2; 16])), 0..u32::MAX),
        (Some(TenantId([2; 16])), 10..11),
        (Some(TenantId([9; 16])), 0..u32::MAX),
    ] {
        let mut expected: Vec<_> = all
            .iter()
            .filter(|(key, _)| of.is_none_or(|of| of == key.tenant) && hours.contains(&key.hour))
            .cloned()
            .collect();
        let rows = LedgerRows { of, hours };
        for limit in [1, 3, 40, 1000] {
            let mut read: Vec<(LedgerKey, LedgerRow)> = Vec::new();
            loop {
                let after = read.last().map(|(key, _)| key);
                let page = store.ledger_page(&rows, after, limit).await.unwrap();
                let last = page.len() < limit;
                read.extend(page);
                if last {
                    break;
                }
            }
            let by_hour = |(key, _): &(LedgerKey, LedgerRow)| (key.tenant, key.hour);
            assert!(
                read.is_sorted_by_key(by_hour),
                "{rows:?}, {limit} at a time"
            );
            expected.sort_by(|a, b| a.0.cmp(&b.0));
            read.sort_by(|a, b| a.0.cmp(&b.0));
            assert_eq!(read, expected, "{rows:?}, {limit} at a time");
        }
    }
}

async fn batches_are_listed_newest_first(store: &dyn Store) {
    for n in 0..5 {
        let mut one = batch(&request(1, n), n);
        if n % 2 == 0 {
            one.state = BatchState::Settled;
        }
        store.put_batch(&one).await.unwrap();
    }
    let newest = store.newest_batches(3).await.unwrap();
    let ids: Vec<BatchId> = newest.iter().map(|batch| batch.id).collect();
    assert_eq!(ids, [4, 3, 2].map(batch_id));
    assert_eq!(store.newest_batches(9).await.unwrap().len(), 5);
}

macro_rules! conformance {
    ($($test:ident)*) => {
        mod in_memory {
            $(
                #[tokio::test(start_paused = true)]
                async fn $test() {
                    super::$test(&super::MemoryStore::new()).await;
                }
            )*
        }
        mod on_sled {
            $(
                #[tokio::test]
                async fn $test() {
                    let dir = tempfile::tempdir().unwrap();
                    super::$test(&super::open(dir.path())).await;
                }
            )*
        }
    };
}

conformance! {
    a_request_is_open_and_then_done
    large_payloads_come_back_whole
    parts_are_of_what_has_ended_and_is_there
    one_of_two_moves_finds_it_gone
    another_lane_is_chosen_where_it_moves
    of_two_endings_one_counts
    an_ending_finds_a_request_that_has_moved
    many_are_claimed_at_once
    queues_are_scanned_in_pages
    an_idempotency_key_is_held_until_long_after_the_end
    held_requests_wait_for_release
    attempts_are_accounted_once
    what_is_owed_of_an_erased_request_is_booked_once
    what_was_booked_before_it_was_erased_is_not_booked_again
    webhooks_are_due_until_they_are_delivered
    a_delivery_waits_in_one_place
    receivers_are_turned_off_and_secrets_rotated_by_tenant
    what_is_old_is_purged_and_the_feed_says_so
    batches_stay_while_somebody_needs_them
    credentials_are_kept_until_they_are_dropped
    a_tenant_moves_in_one_write
    a_batch_is_found_by_its_id
    batches_are_listed_newest_first
    requests_of_all_tenants_are_read_newest_first
    endings_of_all_tenants_are_read_from_the_last
    dead_letters_of_all_tenants_are_counted_and_read_in_pages
    the_ledger_is_read_in_pages_by_tenant_and_hour
    an_issued_key_is_written_over_and_stays
    what_was_learned_is_written_over_and_forgotten
    shadow_rows_are_written_over_and_removed
}

pub fn settings(dir: &std::path::Path) -> Settings {
    Settings {
        data_dir: dir.to_path_buf(),
        cache_bytes: 16 << 20,
        reserve_bytes: 1 << 20,
        verify_at_start: true,
    }
}

pub fn open(dir: &std::path::Path) -> SledStore {
    SledStore::open(&settings(dir)).unwrap()
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (request(1, 1), request(1, 2));
    let large = noise(1 << 20);
    let store = open(dir.path());
    admit(&store, &one, &large).await;
    admit(&store, &two, b"2").await;
    let sequence = settle(&store, &two, at(3), &large).await;
    drop(store);

    let store = open(dir.path());
    let body = Bytes::from(large.clone());
    assert!(content(&store, &one).await == Some(Content::Open { body: body.clone() }));
    assert!(matches!(
        content(&store, &two).await,
        Some(Content::Done { answer, .. }) if answer == body
    ));
    assert_eq!(store.queued(one.cohort, 9).await.unwrap(), [one.entry()]);
    assert!(settle(&store, &one, at(4), b"a").await > sequence);
}

#[tokio::test]
async fn a_directory_in_use_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let _store = open(dir.path());
    let second = SledStore::open(&settings(dir.path())).err().unwrap();
    assert!(matches!(second, OpenError::InUse { .. }), "{second}");
}
