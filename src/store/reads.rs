//! Reads, straight from the map.

use std::ops::Bound;

use bytes::{Bytes, BytesMut};

use super::{
    kv::{End, Kv, Span},
    records::{
        attempt, batch, chunk, credential, delivery, destination, feed, idempotency, issued,
        learned, ledger, line, live, meta, orphan, placed, queue,
        request::{self, Payload},
        shadow, tenant, unbooked,
    },
};
use crate::{
    model::{
        attempt::{Attempt, AttemptId},
        batch::Batch,
        id::{BatchId, CallDigest, CredentialId, RequestId, RequestKey, TenantId},
        issued::IssuedKey,
        ledger::{LedgerKey, LedgerRow},
        request::{Cohort, Destination, Entry, LiveQueue, Place},
        shadow::{ShadowKey, ShadowRow},
        time::Timestamp,
    },
    ports::{
        Content, Delivery, DeliveryStatus, FeedPage, Head, Idempotent, Learned, StoreError, Stored,
        Unbooked,
    },
};

type Read<T> = Result<T, StoreError>;

pub fn head(kv: &impl Kv, key: RequestKey) -> Read<Option<Head>> {
    one(kv, &request::key(key), decode_head)
}

fn decode_head(name: &[u8], value: &Bytes) -> Read<Head> {
    let (head, _) = request::decode(name, value)?;
    Ok(Head {
        request: head.request,
        outcome: head.done.map(|done| done.outcome),
    })
}

pub fn load(kv: &impl Kv, key: RequestKey) -> Read<Option<Stored>> {
    let name = request::key(key);
    // A record can change while its chunks are read; then it is read again.
    loop {
        let Some(value) = kv.get(&name)? else {
            return Ok(None);
        };
        match stored(kv, &name, &value) {
            Err(error) if kv.get(&name)?.as_ref() == Some(&value) => return Err(error),
            Err(_) => {}
            Ok(stored) => return Ok(Some(stored)),
        }
    }
}

fn stored(kv: &impl Kv, name: &[u8], value: &Bytes) -> Read<Stored> {
    let (head, inline) = request::decode(name, value)?;
    let side = match head.done {
        Some(_) => chunk::Side::Answer,
        None => chunk::Side::Body,
    };
    let payload = match head.payload {
        Payload::Inline => inline,
        Payload::Chunked { chunks } => joined(kv, head.request.key, side, chunks)?,
    };
    let content = match head.done {
        Some(done) => Content::Done {
            outcome: done.outcome,
            answer: payload,
        },
        None => Content::Open { body: payload },
    };
    Ok(Stored {
        request: head.request,
        content,
    })
}

fn joined(kv: &impl Kv, key: RequestKey, side: chunk::Side, chunks: u32) -> Read<Bytes> {
    let mut whole = BytesMut::new();
    for number in 0..chunks {
        let name = chunk::key(key, side, number);
        let value = kv
            .get(&name)?
            .ok_or_else(|| chunk::KIND.corrupt(&name, "it is missing"))?;
        whole.extend_from_slice(&chunk::decode(&name, &value)?);
    }
    Ok(whole.freeze())
}

pub fn place(kv: &impl Kv, key: RequestKey, batches: &[BatchId]) -> Read<Option<Place>> {
    let name = request::key(key);
    let Some(value) = kv.get(&name)? else {
        return Ok(None);
    };
    let (head, _) = request::decode(&name, &value)?;
    if head.done.is_some() {
        return Ok(None);
    }
    let entry = head.request.entry();
    let lines = batches.iter().map(|batch| Place::Line(*batch));
    let usual = [Place::Queue(head.request.cohort), Place::Live];
    for place in usual.into_iter().chain(lines) {
        if kv.get(&placed(&place, &entry).0)?.is_some() {
            return Ok(Some(place));
        }
    }
    Ok(None)
}

pub fn list(
    kv: &impl Kv,
    tenant: TenantId,
    before: Option<RequestId>,
    limit: usize,
) -> Read<Vec<Head>> {
    let page = kv.scan(&request::of_tenant(tenant, before), End::Back, limit)?;
    let heads = page.iter().map(|(name, value)| decode_head(name, value));
    heads.collect()
}

pub fn by_idempotency(
    kv: &impl Kv,
    tenant: TenantId,
    digest: CallDigest,
) -> Read<Option<Idempotent>> {
    let name = idempotency::key(tenant, digest);
    one(kv, &name, idempotency::decode)
}

pub fn unreleased(kv: &impl Kv) -> Read<Vec<(CallDigest, RequestKey)>> {
    let mut held = all(kv, &orphan::all(), usize::MAX, orphan::decode)?;
    held.sort_by_key(|(_, request)| request.id);
    Ok(held)
}

pub fn attempts(kv: &impl Kv, key: RequestKey) -> Read<Vec<Attempt>> {
    let span = attempt::of_request(key);
    all(kv, &span, usize::MAX, attempt::decode)
}

pub fn unbooked(kv: &impl Kv, of: Option<RequestKey>) -> Read<Vec<Unbooked>> {
    let calls = kv.scan(&unbooked::calls(of), End::Front, usize::MAX)?;
    let calls = calls
        .iter()
        .map(|(name, value)| unbooked::decode_call(name, value));
    calls.collect()
}

pub fn open_attempts(kv: &impl Kv) -> Read<Vec<(RequestKey, AttemptId)>> {
    all(kv, &attempt::all_open(), usize::MAX, attempt::decode_open)
}

pub fn scan_queue(
    kv: &impl Kv,
    after: Option<(Cohort, RequestKey)>,
    limit: usize,
) -> Read<Vec<(Cohort, Entry)>> {
    let span = match after {
        Some((cohort, request)) => queue::all().after(&queue::key(&cohort, request)),
        None => queue::all(),
    };
    all(kv, &span, limit, queue::decode)
}

pub fn queued(kv: &impl Kv, cohort: Cohort, limit: usize) -> Read<Vec<Entry>> {
    all(kv, &queue::of_cohort(&cohort), limit, |key, value| {
        queue::decode(key, value).map(|(_, entry)| entry)
    })
}

pub fn live(
    kv: &impl Kv,
    queue: LiveQueue,
    from: Bound<(Timestamp, RequestKey)>,
    limit: usize,
) -> Read<Vec<Entry>> {
    all(kv, &live::of_queue(queue, from), limit, live::decode)
}

pub fn scan_live(kv: &impl Kv, after: Option<Entry>, limit: usize) -> Read<Vec<Entry>> {
    all(kv, &live::all(after.as_ref()), limit, live::decode)
}

pub fn lines(
    kv: &impl Kv,
    batch: BatchId,
    after: Option<RequestId>,
    limit: usize,
) -> Read<Vec<Entry>> {
    all(kv, &line::of_batch(batch, after), limit, |key, value| {
        line::decode(key, value).map(|(_, entry)| entry)
    })
}

pub fn batches(kv: &impl Kv, since: Timestamp) -> Read<Vec<Batch>> {
    let mut batches = all(kv, &batch::all(), usize::MAX, batch::decode)?;
    batches.retain(|batch| {
        let ended = batch.settled.unwrap_or(batch.created);
        batch.state.is_open() || !batch.litter.is_empty() || ended > since
    });
    Ok(batches)
}

pub fn learned(kv: &impl Kv) -> Read<Vec<Learned>> {
    all(kv, &learned::all(), usize::MAX, learned::decode)
}

pub fn shadow(kv: &impl Kv) -> Read<Vec<(ShadowKey, ShadowRow)>> {
    all(kv, &shadow::all(), usize::MAX, shadow::decode)
}

pub fn destinations(kv: &impl Kv) -> Read<Vec<Destination>> {
    all(kv, &destination::all(), usize::MAX, destination::decode)
}

pub fn vault_roots(kv: &impl Kv) -> Read<Option<Vec<u8>>> {
    one(kv, &meta::roots_key(), meta::decode)
}

pub fn tenants(kv: &impl Kv) -> Read<Vec<(TenantId, TenantId)>> {
    all(kv, &tenant::all(), usize::MAX, tenant::decode)
}

pub fn issued_keys(kv: &impl Kv) -> Read<Vec<IssuedKey>> {
    all(kv, &issued::all(), usize::MAX, issued::decode)
}

pub fn batch(kv: &impl Kv, id: BatchId) -> Read<Option<Batch>> {
    one(kv, &batch::key(id), batch::decode)
}

pub fn credential(kv: &impl Kv, id: CredentialId) -> Read<Option<Vec<u8>>> {
    one(kv, &credential::key(id), |key, value| {
        credential::decode(key, value).map(|sealed| sealed.to_vec())
    })
}

pub fn feed(kv: &impl Kv, tenant: TenantId, after: u64, limit: usize) -> Read<FeedPage> {
    let span = feed::of_tenant(tenant, after);
    let entries = all(kv, &span, limit, |key, value| {
        feed::decode(key, value).map(|(entry, _)| entry)
    })?;
    // Read behind the entries: what is purged in between is told.
    let floor = one(kv, &feed::floor_key(tenant), feed::decode_floor)?;
    let ceiling = one(kv, &meta::feed_key(), meta::decode)?;
    Ok(FeedPage {
        entries,
        floor: floor.unwrap_or(0),
        ceiling: ceiling.unwrap_or(meta::FIRST_SEQUENCE),
    })
}

pub fn due_deliveries(kv: &impl Kv, now: Timestamp, limit: usize) -> Read<Vec<Delivery>> {
    all(kv, &delivery::due_by(now), limit, delivery::decode_due)
}

pub fn next_delivery(kv: &impl Kv) -> Read<Option<Timestamp>> {
    let first = all(kv, &delivery::all_due(), 1, delivery::decode_due)?;
    Ok(first.first().map(|delivery| delivery.due))
}

pub fn delivery_status(kv: &impl Kv, key: RequestKey) -> Read<Option<DeliveryStatus>> {
    one(kv, &delivery::status_key(key), delivery::decode_status)
}

pub fn ledger(kv: &impl Kv, tenant: TenantId, since: u32) -> Read<Vec<(LedgerKey, LedgerRow)>> {
    let span = ledger::of_tenant(tenant, since);
    all(kv, &span, usize::MAX, ledger::decode)
}

fn one<T>(
    kv: &impl Kv,
    key: &[u8],
    decode: impl FnOnce(&[u8], &Bytes) -> Read<T>,
) -> Read<Option<T>> {
    kv.get(key)?.map(|value| decode(key, &value)).transpose()
}

fn all<T>(
    kv: &impl Kv,
    span: &Span,
    limit: usize,
    decode: impl Fn(&[u8], &Bytes) -> Read<T>,
) -> Read<Vec<T>> {
    kv.scan(span, End::Front, limit)?
        .iter()
        .map(|(key, value)| decode(key, value))
        .collect()
}
