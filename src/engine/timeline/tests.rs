//! Records, and the events that they tell of.

use std::time::Duration;

use super::*;
use crate::model::{
    batch::Left,
    endpoint::Endpoint,
    id::{CallDigest, CredentialId, DestinationId, RequestId, RequestKey, TenantId},
    money::Usd,
    request::{
        Bill, Bucket, Cohort, Destination, Framing, Guarantee, OnLate, Request, Shape, Usage,
    },
};

const START: Timestamp = Timestamp::from_secs(1_800_000_000);

fn at(seconds: u64) -> Timestamp {
    START + Duration::from_secs(seconds)
}

fn batch_id(n: u64) -> BatchId {
    BatchId::new(at(n), u128::from(n) << 64)
}

/// Admitted at the second 10.
fn request() -> Request {
    Request {
        key: RequestKey {
            tenant: TenantId([1; 16]),
            id: RequestId::new(at(10), 7),
        },
        endpoint: Endpoint::ChatCompletions,
        model: "gpt-4o-mini".into(),
        credential: CredentialId([1; 16]),
        cohort: Cohort {
            destination: DestinationId([1; 16]),
            on_late: OnLate::Rescue,
            guarantee: Guarantee::Firm,
            bucket: Bucket::of(at(3_600), Duration::from_secs(60)),
        },
        admitted: at(10),
        deadline: at(3_600),
        on_late: OnLate::Rescue,
        tag: None,
        webhook: None,
        idempotency: None,
        digest: CallDigest([1; 16]),
        held: false,
        shape: Shape::Plain,
        line_bytes: 100,
        inputs: 1,
        lane: Lane::Batch,
        reason: "batch: the cheapest".into(),
    }
}

fn view(place: Option<Place>, outcome: Option<Outcome>) -> View {
    let state = match (&outcome, &place) {
        (Some(outcome), _) => outcome.state,
        (None, Some(place)) => State::from(place),
        (None, None) => State::Queued,
    };
    View {
        reason: String::new(),
        request: request(),
        outcome,
        place,
        state,
        attempts: Vec::new(),
        delivery: None,
    }
}

/// Begun at the second `n`, sent five seconds later.
fn batch(n: u64) -> Batch {
    let request = request();
    let to = Destination {
        id: request.cohort.destination,
        tenant: request.key.tenant,
        credential: request.credential,
        endpoint: request.endpoint,
        model: request.model,
    };
    Batch {
        lines: 3,
        submitted: Some(at(n + 5)),
        provider_id: Some(format!("batch_{n}")),
        ..Batch::new(batch_id(n), request.cohort, to, at(n), "3 lines".into())
    }
}

fn attempt(number: u32, started: u64, state: AttemptState, from: Option<u64>) -> Attempt {
    Attempt {
        id: AttemptId::Live(number),
        lane: Lane::Standard,
        remote: None,
        started: at(started),
        state,
        ended: (state != AttemptState::Open).then(|| at(started + 1)),
        note: String::new(),
        usage: Usage::default(),
        bill: None,
        reserved: None,
        most: None,
        from: from.map(batch_id),
    }
}

fn outcome(state: State, finished: u64, source: Source) -> Outcome {
    let paid = Usd::from_pico(2_000_000);
    Outcome {
        state,
        status: 200,
        finished: at(finished),
        source,
        framing: Framing::Json,
        reason: "why".into(),
        provider_request: None,
        usage: Usage::default(),
        bill: (state == State::Succeeded).then_some(Bill {
            paid,
            standard: paid,
        }),
    }
}

/// Seconds, what, which batch, and the provider's name, if any, of each event.
fn told(view: &View, out_of: Option<u64>, batches: &[Batch]) -> Vec<String> {
    let events = timeline(view, out_of.map(batch_id), batches);
    let told = events.iter().map(|event| {
        let at = event
            .at
            .map_or("?".into(), |at| at.since(START).as_secs().to_string());
        let batch = event.batch.map(|id| {
            let known = (0..200).find(|n| batch_id(*n) == id);
            format!(" b{}", known.unwrap())
        });
        let provider = event.provider.as_ref().map(|id| format!(" {id}"));
        let what = serde_json::to_value(event.what).unwrap();
        format!(
            "{at} {}{}{}",
            what.as_str().unwrap(),
            batch.unwrap_or_default(),
            provider.unwrap_or_default()
        )
    });
    told.collect()
}

fn reasons(view: &View, batches: &[Batch], what: Happened) -> Vec<String> {
    let events = timeline(view, None, batches).into_iter();
    let events = events.filter(|event| event.what == what);
    events.filter_map(|event| event.reason).collect()
}

#[test]
fn a_line_of_a_batch_is_packed_sent_and_answered() {
    let queued = view(Some(Place::Queue(request().cohort)), None);
    assert_eq!(told(&queued, None, &[]), ["10 admitted"]);
    // A batch that was begun before it came.
    let placed = view(Some(Place::Line(batch_id(9))), None);
    let filling = Batch {
        submitted: None,
        provider_id: None,
        ..batch(9)
    };
    assert_eq!(
        told(&placed, None, &[filling]),
        ["10 admitted", "10 packed b9"]
    );
    let answered = outcome(State::Succeeded, 60, Source::Batch(batch_id(12)));
    let answered = view(None, Some(answered));
    assert_eq!(
        told(&answered, None, &[batch(12)]),
        [
            "10 admitted",
            "12 packed b12",
            "17 submitted b12 batch_12",
            "60 answered b12 batch_12"
        ]
    );
    // Long after, the batch is not known any more, and the request is.
    assert_eq!(
        told(&answered, None, &[]),
        ["10 admitted", "60 answered b12"]
    );
    let events = timeline(&answered, None, &[]);
    assert_eq!(events[0].reason.as_deref(), Some("batch: the cheapest"));
    assert_eq!(events[1].cost, Some(Usd::from_pico(2_000_000)));
}

#[test]
fn a_rescue_names_the_batch_and_how_it_was_left() {
    let source = Source::Live(Lane::Standard);
    let mut rescued = view(None, Some(outcome(State::Succeeded, 105, source)));
    let late = Attempt {
        id: AttemptId::Batch(batch_id(12)),
        lane: Lane::Batch,
        ended: Some(at(120)),
        bill: rescued.outcome.as_ref().unwrap().bill,
        ..attempt(1, 17, AttemptState::Late, None)
    };
    rescued.attempts = vec![
        attempt(1, 100, AttemptState::Ended, Some(12)),
        attempt(2, 103, AttemptState::Answered, Some(12)),
        late,
    ];
    rescued.attempts[0].note = "answered 503".into();
    let cancelled = Batch {
        cancel_sent: Some(at(90)),
        left: Some(Left::Rescue),
        ..batch(12)
    };
    assert_eq!(
        told(&rescued, None, std::slice::from_ref(&cancelled)),
        [
            "10 admitted",
            "12 packed b12",
            "17 submitted b12 batch_12",
            "90 rescued b12 batch_12",
            "100 attempt_started",
            "101 attempt_ended",
            "103 attempt_started",
            "105 answered",
            "120 attempt_ended b12",
        ]
    );
    let why = reasons(&rescued, &[cancelled], Happened::Rescued);
    assert_eq!(
        why,
        ["its batch was cancelled: its lines are called live, to be in time"]
    );
    let ended = reasons(&rescued, &[], Happened::AttemptEnded);
    assert_eq!(ended[0], "it ended without an answer: answered 503");
    assert!(ended[1].contains("paid twice"), "{ended:?}");

    // Overtaken: it goes live first, and the batch is cancelled behind it.
    let behind = Batch {
        cancel_sent: Some(at(101)),
        ..batch(12)
    };
    let out = told(&rescued, None, std::slice::from_ref(&behind));
    assert_eq!(out[3], "100 rescued b12 batch_12");
    let why = reasons(&rescued, &[behind], Happened::Rescued);
    assert!(why[0].contains("too short for a cancel"), "{why:?}");
    let purged = reasons(&rescued, &[], Happened::Rescued);
    assert_eq!(purged, ["taken out of its batch"]);
}

#[test]
fn a_rescue_is_told_before_its_first_call() {
    let live = view(Some(Place::Live), None);
    let cancelled = Batch {
        cancel_sent: Some(at(90)),
        ..batch(12)
    };
    let out = told(&live, Some(12), std::slice::from_ref(&cancelled));
    assert_eq!(out[3..], ["90 rescued b12 batch_12"]);
    // Once a call has begun from there it is told of that, once.
    let mut live = live;
    live.attempts = vec![attempt(1, 100, AttemptState::Open, Some(12))];
    let out = told(&live, Some(12), &[cancelled]);
    assert_eq!(out[3..], ["90 rescued b12 batch_12", "100 attempt_started"]);
    // Nobody wrote down when.
    live.attempts.clear();
    let out = told(&live, Some(12), &[]);
    assert_eq!(out, ["10 admitted", "? rescued b12"]);
}

#[test]
fn an_ending_of_another_kind_says_so() {
    for (state, source, expected) in [
        (State::Cancelled, Source::Offpeak, "50 cancelled"),
        (State::Failed, Source::Offpeak, "50 failed"),
        (State::Failed, Source::Live(Lane::Standard), "50 failed"),
        (State::Failed, Source::Batch(batch_id(12)), "50 failed b12"),
    ] {
        let ended = view(None, Some(outcome(state, 50, source)));
        assert_eq!(told(&ended, None, &[]).last().unwrap(), expected);
    }
    let lost = AttemptState::Unaccounted;
    let mut ended = view(None, Some(outcome(State::Failed, 50, Source::Offpeak)));
    ended.attempts = vec![attempt(1, 40, lost, None)];
    let why = reasons(&ended, &[], Happened::AttemptEnded);
    assert!(why[0].contains("may have been billed"), "{why:?}");
}

#[test]
fn only_an_answer_beside_another_was_paid_twice() {
    for (ended, twice) in [
        (
            outcome(State::Succeeded, 50, Source::Live(Lane::Flex)),
            true,
        ),
        (outcome(State::Cancelled, 50, Source::Offpeak), false),
        // An error of the provider's, which it does not bill.
        (
            outcome(State::Failed, 50, Source::Live(Lane::Standard)),
            false,
        ),
    ] {
        let state = ended.state;
        let mut ended = view(None, Some(ended));
        ended.attempts = vec![attempt(1, 60, AttemptState::Late, None)];
        ended.attempts[0].note = "answered after the request had ended".into();
        let why = reasons(&ended, &[], Happened::AttemptEnded);
        assert_eq!(why[0].contains("paid twice"), twice, "{state:?}: {why:?}");
        assert_eq!(why[0].contains("paid for nothing"), !twice, "{why:?}");
    }
}

#[test]
fn a_delivery_is_told_by_its_last_try() {
    let ended = |delivery| View {
        delivery,
        ..view(
            None,
            Some(outcome(State::Succeeded, 50, Source::Live(Lane::Flex))),
        )
    };
    let pending = |tries, last: Option<&str>| DeliveryStatus::Pending {
        next: at(99),
        tries,
        last: last.map(Into::into),
    };
    for (delivery, last) in [
        (pending(0, None), "50 answered"),
        (pending(2, Some("503")), "? delivery_failed"),
        (
            DeliveryStatus::Delivered {
                at: at(60),
                tries: 1,
            },
            "60 delivered",
        ),
        (
            DeliveryStatus::Dead {
                at: at(70),
                tries: 9,
                last: "410".into(),
            },
            "70 dead_letter",
        ),
    ] {
        let told = told(&ended(Some(delivery)), None, &[]);
        assert_eq!(told.last().unwrap(), last);
    }
    let failed = ended(Some(pending(2, Some("503"))));
    let why = reasons(&failed, &[], Happened::DeliveryFailed);
    assert!(
        why[0].starts_with("503 (after 2 tries; the next is at "),
        "{why:?}"
    );
}
