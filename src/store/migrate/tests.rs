//! What earlier versions wrote is served by this one. Each of `fixtures` was written by a
//! version of that format.

use std::{fs, io, path::Path};

use super::{
    super::{
        OpenError, SledStore,
        codec::Kind,
        conformance::{
            admit, at, attempt, batch, batch_id, content, ledger_of, open, request, settings,
            settle,
        },
        kv::{Batch, End, Kv, Span},
        records::{self, meta},
        sled::SledKv,
        tally::Tally,
    },
    advance, earlier,
};
use crate::{
    model::{
        attempt::{Attempt, AttemptId, AttemptState, Lane},
        batch::Batch as Job,
        ledger::{LedgerRow, Slack},
        money::Usd,
        request::{Bill, Framing, Outcome, Source, State, Usage},
    },
    ports::{Content, Store as _, Unbooked},
};

macro_rules! fixture {
    ($name:literal, $dir:expr, [$($file:literal),*]) => {{
        let store = $dir.join("store");
        fs::create_dir_all(&store).unwrap();
        let log = include_bytes!(concat!("../fixtures/", $name, "/db.gz"));
        let mut unpacked = fs::File::create(store.join("db")).unwrap();
        io::copy(&mut flate2::read::GzDecoder::new(&log[..]), &mut unpacked).unwrap();
        $(
            let file = include_bytes!(concat!("../fixtures/", $name, "/", $file));
            fs::write(store.join($file), file).unwrap();
        )*
        fs::write(store.join("created"), b"").unwrap();
    }};
}

/// Written by the version before the tally.
fn format_2(dir: &Path) {
    fixture!("format-2", dir, ["conf", "closed"]);
}

/// By the one before the budgets' amounts.
fn format_3(dir: &Path) {
    fixture!("format-3", dir, ["conf", "closed", "acknowledged"]);
}

/// By the one before the tokens written to a cache.
fn format_4(dir: &Path) {
    fixture!("format-4", dir, ["conf", "closed", "acknowledged"]);
}

fn opened(dir: &Path) -> SledKv {
    SledKv::open(&dir.join("store"), 1 << 20).unwrap()
}

/// Twelve requests: the first five have ended, the eleventh is a line of a batch.
async fn serves_format_2(store: &SledStore) {
    for n in 0..12u64 {
        let asked = request(1 + (n % 2) as u8, n);
        match content(store, &asked).await {
            Some(Content::Done { answer, .. }) if n < 5 => {
                let length = if n == 4 { 9000 } else { 20 };
                assert_eq!(answer, vec![b'a' + n as u8; length]);
            }
            Some(Content::Open { body }) if n >= 5 => assert_eq!(body, vec![n as u8; 300]),
            other => panic!("{n}: {other:?}"),
        }
    }
    let left = store.scan_queue(None, usize::MAX).await.unwrap();
    assert_eq!(left.len(), 6);
    let lines = store.lines(batch_id(1), None, 9).await.unwrap();
    assert_eq!(lines, [request(1, 10).entry()]);
    let batches = store.batches(at(0)).await.unwrap();
    assert_eq!(batches.len(), 2, "{batches:?}");
    assert!(batches.iter().all(|batch| batch.twin_of.is_none()));
    assert!(batches.iter().all(|batch| batch.most.is_none()));
    let rows = ledger_of(store, request(1, 0).key.tenant, 0).await;
    assert!(!rows.is_empty());
    assert!(rows.iter().all(|(_, row)| row.reckoned == Usd::ZERO));
}

#[tokio::test]
async fn a_database_of_format_2_is_migrated() {
    let dir = tempfile::tempdir().unwrap();
    format_2(dir.path());
    serves_format_2(&open(dir.path())).await;
    let store = open(dir.path());
    serves_format_2(&store).await;
    admit(&store, &request(1, 99), b"more").await;
    drop(store);
    assert!(super::super::check(dir.path()).unwrap().sound);
}

/// For a backup before an upgrade.
#[tokio::test]
async fn a_database_of_an_earlier_format_can_be_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    format_2(dir.path());
    for _ in 0..2 {
        let refused = SledStore::open_unchanged(&settings(dir.path()));
        let refused = refused.err().expect("it would be changed");
        let told = refused.to_string();
        assert!(
            told.contains("has format 2, this version reads 5"),
            "{told}"
        );
    }
    let store = open(dir.path());
    serves_format_2(&store).await;
    drop(store);
    assert!(SledStore::open_unchanged(&settings(dir.path())).is_ok());
}

#[tokio::test]
async fn a_migration_that_was_killed_goes_on() {
    // What is on disk after each of its commits, and before the last.
    for chunks in 0..9 {
        let dir = tempfile::tempdir().unwrap();
        format_4(dir.path());
        let kv = opened(dir.path());
        let mut format = 4;
        for _ in 0..chunks {
            format = advance(&kv, format, 4).unwrap();
        }
        assert_eq!(format, 4, "it is not done after {chunks} chunks");
        let killed = tempfile::tempdir().unwrap();
        fs::create_dir(killed.path().join("store")).unwrap();
        for entry in fs::read_dir(dir.path().join("store")).unwrap() {
            let entry = entry.unwrap();
            if entry.path().is_file() {
                let to = killed.path().join("store").join(entry.file_name());
                fs::copy(entry.path(), to).unwrap();
            }
        }
        serves_format_4(&open(killed.path())).await;
        assert!(
            super::super::check(killed.path()).unwrap().sound,
            "{chunks} chunks"
        );
    }
}

/// It left records of two formats, and says only how far it came.
#[tokio::test]
async fn a_migration_that_an_earlier_version_left_half_done_is_begun_anew() {
    let dir = tempfile::tempdir().unwrap();
    format_4(dir.path());
    let kv = opened(dir.path());
    let everything = Span {
        from: Vec::new(),
        to: vec![u8::MAX],
    };
    let all = kv.scan(&everything, End::Front, 1_000).unwrap();
    let (middle, _) = &all[all.len() * 3 / 4];
    let half = (middle.to_vec(), Tally::default());
    let changes = [
        (meta::migrating_key(), Some(meta::encode(&half))),
        (meta::format_key(), Some(meta::encode(&3u32))),
    ];
    kv.apply(changes.into()).unwrap();
    kv.sync().unwrap();
    drop(kv);
    let store = open(dir.path());
    serves_format_4(&store).await;
    drop(store);
    assert!(super::super::check(dir.path()).unwrap().sound);
}

fn tally_of(kv: &SledKv) -> Tally {
    let key = meta::tally_key();
    meta::decode(&key, &kv.get(&key).unwrap().unwrap()).unwrap()
}

#[tokio::test]
async fn a_database_from_before_the_amounts_is_migrated() {
    let dir = tempfile::tempdir().unwrap();
    format_3(dir.path());
    for _ in 0..2 {
        let store = open(dir.path());
        let (kept, erased) = (request(1, 1), request(1, 2));
        let expected = attempt(AttemptId::Live(1), AttemptState::Open);
        let attempts = store.attempts(kept.key).await.unwrap();
        assert_eq!(attempts, std::slice::from_ref(&expected));
        let unbooked = store.unbooked(Some(erased.key)).await.unwrap();
        assert_eq!(unbooked.len(), 1);
        assert_eq!(unbooked[0].attempt, expected);
        let found = store.batch(batch_id(1)).await.unwrap();
        assert_eq!(found, Some(batch(&kept, 1)));
        let rows = ledger_of(&store, kept.key.tenant, 0).await;
        let told: Vec<_> = rows.iter().map(|(_, row)| row.requests).collect();
        assert_eq!(told, [1]);
    }
    assert!(super::super::check(dir.path()).unwrap().sound);
}

/// Tallied anew, what is missing would never be missed.
#[tokio::test]
async fn a_damaged_database_is_not_migrated() {
    let dir = tempfile::tempdir().unwrap();
    format_4(dir.path());
    let kv = opened(dir.path());
    let before = tally_of(&kv);
    let lost = records::request::key(request(1, 1).key);
    // The second time nothing is there, and nothing is counted out.
    for _ in 0..2 {
        kv.resume(before);
        kv.apply([(lost.clone(), None)].into()).unwrap();
    }
    kv.sync().unwrap();
    drop(kv);
    let refused = SledStore::open(&settings(dir.path())).err().unwrap();
    assert!(matches!(refused, OpenError::Damaged { .. }), "{refused}");
}

fn usage(n: u64) -> Usage {
    Usage {
        input: 1_000 + n,
        cached: 300 + n,
        cache_write: 0,
        output: 50_000 + n,
    }
}

fn bill(n: u64) -> Bill {
    Bill {
        paid: Usd::from_pico(1_000_000_000 + i128::from(n)),
        standard: Usd::from_pico(2_000_000_000 + i128::from(n)),
    }
}

/// Eight requests, and all kinds of records that count tokens.
async fn serves_format_4(store: &SledStore) {
    let live = |n, state| Attempt {
        lane: Lane::Standard,
        note: "rescued".into(),
        usage: usage(n),
        bill: Some(bill(n)),
        reserved: Some(Usd::from_pico(7)),
        most: Some(Usd::from_pico(9)),
        ..attempt(AttemptId::Live(1), state)
    };
    let attempts = async |n| store.attempts(request(1, n).key).await.unwrap();
    for n in 0..4 {
        let is_live = n == 2;
        let expected = Outcome {
            state: State::Succeeded,
            status: 200,
            finished: at(100 + n),
            source: match is_live {
                true => Source::Live(Lane::Standard),
                false => Source::Batch(batch_id(1)),
            },
            framing: match is_live {
                true => Framing::EventStream,
                false => Framing::Json,
            },
            reason: "answered".into(),
            provider_request: Some(format!("req_{n}")),
            usage: usage(n),
            bill: (n != 3).then(|| bill(n)),
        };
        // The second is in chunks.
        let expected = Content::Done {
            outcome: expected,
            answer: vec![b'a' + n as u8; if n == 1 { 90_000 } else { 20 }].into(),
        };
        assert_eq!(content(store, &request(1, n)).await, Some(expected), "{n}");
    }
    assert_eq!(attempts(2).await, [live(2, AttemptState::Answered)]);
    assert_eq!(attempts(4).await, [live(4, AttemptState::Open)]);
    let open = (request(1, 4).key, AttemptId::Live(1));
    assert_eq!(store.open_attempts().await.unwrap(), [open]);
    let erased = request(1, 5);
    assert_eq!(content(store, &erased).await, None);
    let owed = Unbooked {
        entry: erased.entry(),
        model: erased.model.clone(),
        tag: erased.tag.clone(),
        attempt: live(5, AttemptState::Open),
    };
    assert_eq!(store.unbooked(None).await.unwrap(), [owed]);
    let line = request(1, 6);
    let job = Job {
        most: Some(Usd::from_pico(11)),
        ..batch(&line, 1)
    };
    assert_eq!(store.batch(job.id).await.unwrap(), Some(job));
    let lines = store.lines(batch_id(1), None, 9).await.unwrap();
    assert_eq!(lines, [line.entry()]);
    for n in [4, 6, 7] {
        let body = vec![n as u8; 300].into();
        let found = content(store, &request(1, n)).await;
        assert_eq!(found, Some(Content::Open { body }));
    }

    let rows = ledger_of(store, erased.key.tenant, 2).await;
    let row = |of: &[u64]| {
        let mut sum = LedgerRow::default();
        for n in of.iter().copied() {
            let bill = if n == 3 { Bill::default() } else { bill(n) };
            sum.add(&LedgerRow {
                requests: 1,
                succeeded: 1,
                unpriced: u64::from(n == 3),
                usage: usage(n),
                paid: bill.paid,
                standard: bill.standard,
                rescue_paid: Usd::from_pico(5),
                reckoned: Usd::from_pico(6),
                ..LedgerRow::default()
            });
        }
        sum
    };
    let rows: Vec<_> = rows
        .iter()
        .map(|(key, row)| (key.lane, row.clone()))
        .collect();
    let expected = [
        (Some(Lane::Batch), row(&[0, 1, 3])),
        (Some(Lane::Standard), row(&[2])),
    ];
    assert_eq!(rows, expected);
    assert!(rows.iter().all(|(_, row)| row.slack == Slack::default()));
}

#[tokio::test]
async fn a_database_from_before_cache_writes_is_migrated() {
    let dir = tempfile::tempdir().unwrap();
    format_4(dir.path());
    serves_format_4(&open(dir.path())).await;
    let store = open(dir.path());
    serves_format_4(&store).await;
    settle(&store, &request(1, 7), at(9), b"answer").await;
    drop(store);
    assert!(super::super::check(dir.path()).unwrap().sound);
}

/// A chunk's records are made anew in the commit that notes it, so that none is twice.
#[tokio::test]
async fn what_does_not_count_tokens_is_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    format_4(dir.path());
    let kv = opened(dir.path());
    let everything = Span {
        from: Vec::new(),
        to: vec![u8::MAX],
    };
    let mut renewed = Batch::new();
    for (key, value) in kv.scan(&everything, End::Front, 1_000).unwrap() {
        if let Some(value) = earlier::renewed(&key, &value) {
            renewed.insert(key.to_vec(), Some(value));
        }
    }
    let of = |kind: Kind| renewed.keys().filter(|key| key[0] == kind.tag).count();
    assert_eq!(of(records::request::KIND), 4, "those that have ended");
    assert_eq!(of(records::attempt::KIND), 2);
    assert_eq!(of(records::unbooked::CALL), 1);
    assert_eq!(of(records::ledger::KIND), 3);
    assert_eq!(of(records::batch::KIND), 1);
    assert_eq!(renewed.len(), 11);
}
