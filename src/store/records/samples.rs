//! Arbitrary records, for round trips.

use proptest::{option, prelude::*};

use super::request::{Done, Head, Payload};
use crate::model::{
    attempt::{Attempt, AttemptId, AttemptState, Lane},
    batch::{Batch, BatchState, Left},
    endpoint::Endpoint,
    id::{BatchId, CallDigest, CredentialId, DestinationId, RequestId, RequestKey, TenantId},
    ledger::LedgerKey,
    money::Usd,
    request::{
        Bill, Bucket, Cohort, Destination, Entry, Framing, Guarantee, OnLate, Outcome, Request,
        Shape, Source, State, Usage,
    },
    time::Timestamp,
};

pub fn time() -> impl Strategy<Value = Timestamp> {
    (1u64..u64::MAX).prop_map(Timestamp::from_millis)
}

pub fn request_key() -> impl Strategy<Value = RequestKey> {
    any::<([u8; 16], [u8; 16])>().prop_map(|(tenant, id)| RequestKey {
        tenant: TenantId(tenant),
        id: RequestId::from_bytes(id),
    })
}

pub fn cohort() -> impl Strategy<Value = Cohort> {
    let on_late = prop::sample::select(vec![OnLate::Rescue, OnLate::Wait, OnLate::Fail]);
    let guarantee = prop::sample::select(vec![Guarantee::Firm, Guarantee::BestEffort]);
    (any::<[u8; 16]>(), on_late, guarantee, time(), 0u8..63).prop_map(
        |(destination, on_late, guarantee, start, width_log2)| Cohort {
            destination: DestinationId(destination),
            on_late,
            guarantee,
            bucket: Bucket { start, width_log2 },
        },
    )
}

pub fn entry() -> impl Strategy<Value = Entry> {
    let numbers = any::<(u32, u32)>();
    (request_key(), cohort(), lane(), time(), numbers).prop_map(
        |(key, cohort, lane, deadline, (line_bytes, inputs))| Entry {
            key,
            cohort,
            lane,
            deadline,
            line_bytes,
            inputs,
        },
    )
}

pub fn destination() -> impl Strategy<Value = Destination> {
    (any::<([u8; 16], [u8; 16], [u8; 16], String)>(), endpoint()).prop_map(
        |((id, tenant, credential, model), endpoint)| Destination {
            id: DestinationId(id),
            tenant: TenantId(tenant),
            credential: CredentialId(credential),
            endpoint,
            model,
        },
    )
}

pub fn ledger_key() -> impl Strategy<Value = LedgerKey> {
    let words = prop::sample::select(vec!["", "a", "ab", "b"]);
    let tag = option::of(words.clone().prop_map(String::from));
    let lane = option::of(lane());
    (any::<[u8; 1]>(), 0u32..2, lane, words, tag).prop_map(|(tenant, hour, lane, model, tag)| {
        LedgerKey {
            tenant: TenantId([tenant[0] & 1; 16]),
            hour,
            lane,
            model: model.into(),
            tag,
        }
    })
}

pub fn head() -> impl Strategy<Value = Head> {
    let done = (outcome(), any::<u64>()).prop_map(|(outcome, sequence)| Done { outcome, sequence });
    let payload = option::of(any::<u32>()).prop_map(|chunks| match chunks {
        Some(chunks) => Payload::Chunked { chunks },
        None => Payload::Inline,
    });
    (request(), option::of(done), payload).prop_map(|(request, done, payload)| Head {
        request,
        done,
        payload,
    })
}

pub fn attempt() -> impl Strategy<Value = Attempt> {
    let id = prop_oneof![
        any::<[u8; 16]>().prop_map(|id| AttemptId::Batch(BatchId::from_bytes(id))),
        any::<u32>().prop_map(AttemptId::Live),
    ];
    let state = prop::sample::select(vec![
        AttemptState::Open,
        AttemptState::Answered,
        AttemptState::Ended,
        AttemptState::Late,
        AttemptState::Unaccounted,
    ]);
    let times = (time(), option::of(time()));
    let texts = any::<(String, Option<String>)>();
    (id, lane(), state, times, texts, usage(), bill()).prop_map(
        |(id, lane, state, (started, ended), (note, remote), usage, bill)| Attempt {
            id,
            lane,
            remote,
            started,
            state,
            ended,
            note,
            usage,
            bill,
            reserved: bill.map(|bill| bill.paid),
            most: bill.map(|bill| bill.standard),
            from: bill.map(|bill| BatchId::from_bytes(bill.paid.as_pico().to_be_bytes())),
        },
    )
}

pub fn batch() -> impl Strategy<Value = Batch> {
    let state = prop::sample::select(vec![
        BatchState::Filling,
        BatchState::Sealed,
        BatchState::Uploaded,
        BatchState::Submitted,
        BatchState::Cancelling,
        BatchState::Settled,
        BatchState::Abandoned,
        BatchState::Lost,
    ]);
    let names = any::<([u8; 16], [u8; 16], [u8; 16])>();
    let texts = any::<(Option<String>, Option<String>, Option<String>, Vec<String>)>();
    (
        names,
        cohort(),
        endpoint(),
        state,
        texts,
        option::of(time()),
        time(),
    )
        .prop_map(
            |((id, tenant, credential), cohort, endpoint, state, texts, settled, created)| Batch {
                id: BatchId::from_bytes(id),
                cohort,
                tenant: TenantId(tenant),
                credential: CredentialId(credential),
                endpoint,
                model: "m".into(),
                state,
                created,
                reason: "linger".into(),
                lines: 3,
                bytes: 4,
                inputs: 5,
                tokens: Some(6),
                earliest_deadline: created,
                input_file: texts.0,
                create_sent: settled,
                provider_id: texts.1,
                submitted: settled,
                cancel_sent: None,
                provider_status: texts.2,
                settled,
                answered: 2,
                litter: texts.3,
                tries: 1,
                last_error: None,
                twin_of: None,
                part_of: None,
                most: settled.map(|at| Usd::from_pico(at.as_millis().into())),
                left: settled.map(|_| Left::Overdue),
            },
        )
}

fn request() -> impl Strategy<Value = Request> {
    let shape = prop_oneof![
        Just(Shape::Plain),
        any::<bool>().prop_map(|include_usage| Shape::Stream { include_usage }),
        Just(Shape::Background),
    ];
    let texts = any::<(String, Option<String>, Option<String>, Option<[u8; 16]>)>();
    (
        entry(),
        endpoint(),
        cohort(),
        texts,
        shape,
        lane(),
        any::<bool>(),
    )
        .prop_map(
            |(entry, endpoint, cohort, (model, tag, webhook, digest), shape, lane, held)| Request {
                key: entry.key,
                endpoint,
                model,
                credential: CredentialId([7; 16]),
                cohort,
                admitted: Timestamp::from_secs(1),
                deadline: entry.deadline,
                on_late: cohort.on_late,
                tag,
                webhook,
                idempotency: digest.map(CallDigest),
                digest: CallDigest([9; 16]),
                held,
                shape,
                line_bytes: entry.line_bytes,
                inputs: entry.inputs,
                lane,
                reason: "cheapest".into(),
            },
        )
}

fn outcome() -> impl Strategy<Value = Outcome> {
    let state = prop::sample::select(vec![State::Succeeded, State::Failed, State::Cancelled]);
    let source = prop_oneof![
        any::<[u8; 16]>().prop_map(|id| Source::Batch(BatchId::from_bytes(id))),
        lane().prop_map(Source::Live),
        Just(Source::Offpeak),
    ];
    let texts = any::<(String, Option<String>)>();
    (state, any::<u16>(), time(), source, texts, usage(), bill()).prop_map(
        |(state, status, finished, source, (reason, provider_request), usage, bill)| Outcome {
            framing: Framing::Json,
            state,
            status,
            finished,
            source,
            reason,
            provider_request,
            usage,
            bill,
        },
    )
}

fn usage() -> impl Strategy<Value = Usage> {
    any::<[u64; 4]>().prop_map(|[input, cached, cache_write, output]| Usage {
        input,
        cached,
        cache_write,
        output,
    })
}

fn bill() -> impl Strategy<Value = Option<Bill>> {
    option::of(any::<(i128, i128)>().prop_map(|(paid, standard)| Bill {
        paid: Usd::from_pico(paid),
        standard: Usd::from_pico(standard),
    }))
}

fn endpoint() -> impl Strategy<Value = Endpoint> {
    prop::sample::select(Endpoint::ALL.to_vec())
}

fn lane() -> impl Strategy<Value = Lane> {
    prop::sample::select(Lane::ALL.to_vec())
}
