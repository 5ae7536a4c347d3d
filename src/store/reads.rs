//! Reads, straight from the map.

use std::ops::Bound;

use bytes::{Bytes, BytesMut};

use super::{
    kv::{End, Kv, Span},
    records::{
        attempt, batch, chunk, credential, delivery, destination, feed, hook_secrets, idempotency,
        issued, learned, ledger, line, live, meta, orphan, placed, queue, receiver,
        request::{self, Payload},
        shadow, tenant, unbooked,
    },
};
use crate::{
    model::{
        attempt::{Attempt, AttemptId},
        batch::Batch,
        hook::{Secrets, TurnedOff},
        id::{BatchId, CallDigest, CredentialId, ReceiverId, RequestId, RequestKey, TenantId},
        issued::IssuedKey,
        request::{Cohort, Destination, Entry, LiveQueue, Place},
        shadow::{ShadowKey, ShadowRow},
        time::Timestamp,
    },
    ports::{
        Content, Delivery, DeliveryStatus, FeedPage, Head, Idempotent, Kept, KeyOwner, Learned,
        Outline, StoreError, Stored, Unbooked,
    },
};

pub(super) type Read<T> = Result<T, StoreError>;

/// Pairs that are read at a time where there may be many.
const PAGE: usize = 256;

pub fn head(kv: &impl Kv, key: RequestKey) -> Read<Option<Head>> {
    one(kv, &request::key(key), decode_head)
}

pub(super) fn decode_head(name: &[u8], value: &Bytes) -> Read<Head> {
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

pub fn outline(kv: &impl Kv, key: RequestKey, short: u64) -> Read<Option<Outline>> {
    let name = request::key(key);
    let Some(value) = kv.get(&name)? else {
        return Ok(None);
    };
    let (head, inline) = request::decode(&name, &value)?;
    let Some(done) = head.done else {
        let request = head.request;
        return Ok(Some(Outline {
            request,
            ending: None,
        }));
    };
    let length = match head.payload {
        Payload::Inline => inline.len() as u64,
        Payload::Chunked { chunks } => {
            let last = chunks.saturating_sub(1);
            let Some(part) = chunk_of(kv, key, last)? else {
                return gone(kv, key).map(|()| None);
            };
            u64::from(last) * chunk::BYTES as u64 + part.len() as u64
        }
    };
    let answer = match head.payload {
        _ if length > short => Kept::Long(length),
        Payload::Inline => Kept::Short(inline),
        Payload::Chunked { .. } => match answer_part(kv, key, 0, length as usize)? {
            Some(whole) => Kept::Short(whole),
            None => return Ok(None),
        },
    };
    Ok(Some(Outline {
        request: head.request,
        ending: Some((done.outcome, answer)),
    }))
}

pub fn answer_part(kv: &impl Kv, key: RequestKey, from: u64, most: usize) -> Read<Option<Bytes>> {
    let name = request::key(key);
    let Some(value) = kv.get(&name)? else {
        return Ok(None);
    };
    let (head, inline) = request::decode(&name, &value)?;
    if head.done.is_none() {
        return Ok(None);
    }
    let behind = |bytes: &Bytes, from: usize| bytes.slice(from.min(bytes.len())..);
    let Payload::Chunked { chunks } = head.payload else {
        let mut part = behind(&inline, usize::try_from(from).unwrap_or(usize::MAX));
        part.truncate(most);
        return Ok(Some(part));
    };
    let mut part = BytesMut::new();
    let mut at = from;
    while part.len() < most {
        let number = u32::try_from(at / chunk::BYTES as u64).unwrap_or(u32::MAX);
        if number >= chunks {
            break;
        }
        let Some(chunk) = chunk_of(kv, key, number)? else {
            return gone(kv, key).map(|()| None);
        };
        let mut rest = behind(&chunk, (at % chunk::BYTES as u64) as usize);
        rest.truncate(most - part.len());
        if rest.is_empty() {
            break;
        }
        at += rest.len() as u64;
        part.extend_from_slice(&rest);
    }
    Ok(Some(part.freeze()))
}

/// A part of an answer, which does not change any more once it is there.
fn chunk_of(kv: &impl Kv, key: RequestKey, number: u32) -> Read<Option<Bytes>> {
    one(
        kv,
        &chunk::key(key, chunk::Side::Answer, number),
        chunk::decode,
    )
}

/// A chunk is missing, because the request was erased since.
///
/// # Errors
/// Where it was not.
fn gone(kv: &impl Kv, key: RequestKey) -> Read<()> {
    let name = request::key(key);
    match kv.get(&name)? {
        None => Ok(()),
        Some(_) => Err(chunk::KIND.corrupt(&name, "a part of its answer is missing")),
    }
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
    let span = request::of_tenant(tenant, before);
    readable_from(kv, &span, End::Back, limit, decode_head)
}

pub fn by_idempotency(
    kv: &impl Kv,
    tenant: TenantId,
    digest: CallDigest,
) -> Read<Option<Idempotent>> {
    let name = idempotency::key(tenant, digest);
    // What cannot be read is no answer: the call is taken in anew.
    match one(kv, &name, idempotency::decode) {
        Err(StoreError::Corrupt(damage)) => {
            tracing::error!(%damage, "an idempotency key is passed over");
            Ok(None)
        }
        known => known,
    }
}

pub fn unreleased(kv: &impl Kv) -> Read<Vec<(CallDigest, RequestKey)>> {
    let mut held = readable(kv, &orphan::all(), usize::MAX, orphan::decode)?;
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
    readable(kv, &attempt::all_open(), usize::MAX, attempt::decode_open)
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
    readable(kv, &span, limit, |key, value| {
        let entry = queue::decode(key, value).map(|(_, entry)| entry);
        let entry = or_remade(kv, key, queue::request_of(key), entry)?;
        Ok((entry.cohort, entry))
    })
}

pub fn queued(kv: &impl Kv, cohort: Cohort, limit: usize) -> Read<Vec<Entry>> {
    readable(kv, &queue::of_cohort(&cohort), limit, |key, value| {
        let entry = queue::decode(key, value).map(|(_, entry)| entry);
        or_remade(kv, key, queue::request_of(key), entry)
    })
}

pub fn live(
    kv: &impl Kv,
    queue: LiveQueue,
    from: Bound<(Timestamp, RequestKey)>,
    limit: usize,
) -> Read<Vec<Entry>> {
    readable(kv, &live::of_queue(queue, from), limit, |key, value| {
        let entry = live::decode(key, value).map(|(entry, _)| entry);
        or_remade(kv, key, live::request_of(key), entry)
    })
}

pub fn scan_live(
    kv: &impl Kv,
    after: Option<Entry>,
    limit: usize,
) -> Read<Vec<(Entry, Option<BatchId>)>> {
    readable(kv, &live::all(after.as_ref()), limit, |key, value| {
        let read = live::decode(key, value);
        let batch = read.as_ref().ok().and_then(|(_, batch)| *batch);
        let entry = read.map(|(entry, _)| entry);
        let entry = or_remade(kv, key, live::request_of(key), entry)?;
        Ok((entry, batch))
    })
}

/// What cannot be read names none.
pub fn taken_out_of(kv: &impl Kv, entry: &Entry) -> Read<Option<BatchId>> {
    let name = live::key(entry);
    let batch = |value| live::decode(&name, &value).ok()?.1;
    Ok(kv.get(&name)?.and_then(batch))
}

pub fn lines(
    kv: &impl Kv,
    batch: BatchId,
    after: Option<RequestId>,
    limit: usize,
) -> Read<Vec<Entry>> {
    readable(kv, &line::of_batch(batch, after), limit, |key, value| {
        let entry = line::decode(key, value).map(|(_, entry)| entry);
        or_remade(kv, key, line::request_of(key), entry)
    })
}

/// One key of each is read, and no more.
pub fn batches_with_lines(kv: &impl Kv) -> Read<Vec<BatchId>> {
    let mut found = Vec::new();
    let mut span = Span::prefix(&[line::KIND.tag]);
    while let [(key, _)] = &kv.scan(&span, End::Front, 1)?[..] {
        let batch = line::batch_of(key)?;
        span.from = line::of_batch(batch, None).to;
        found.push(batch);
    }
    Ok(found)
}

pub fn batches(kv: &impl Kv, since: Timestamp) -> Read<Vec<Batch>> {
    let mut batches = readable(kv, &batch::all(), usize::MAX, batch::decode)?;
    batches.retain(|batch| {
        let ended = batch.settled.unwrap_or(batch.created);
        batch.state.is_open() || !batch.litter.is_empty() || ended > since
    });
    Ok(batches)
}

pub fn newest_batches(kv: &impl Kv, limit: usize) -> Read<Vec<Batch>> {
    readable_from(kv, &batch::all(), End::Back, limit, batch::decode)
}

pub fn learned(kv: &impl Kv) -> Read<Vec<Learned>> {
    readable(kv, &learned::all(), usize::MAX, learned::decode)
}

pub fn shadow(kv: &impl Kv) -> Read<Vec<(ShadowKey, ShadowRow)>> {
    all(kv, &shadow::all(), usize::MAX, shadow::decode)
}

pub fn destinations(kv: &impl Kv) -> Read<Vec<Destination>> {
    readable(kv, &destination::all(), usize::MAX, destination::decode)
}

pub fn vault_roots(kv: &impl Kv) -> Read<Option<Vec<u8>>> {
    one(kv, &meta::roots_key(), meta::decode)
}

pub fn tenants(kv: &impl Kv) -> Read<Vec<(TenantId, KeyOwner)>> {
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
    let entries = readable(kv, &span, limit, |key, value| {
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

pub fn due_deliveries(
    kv: &impl Kv,
    now: Timestamp,
    after: Option<(Timestamp, RequestKey)>,
    limit: usize,
) -> Read<Vec<Delivery>> {
    let named = |key| received_by(kv, key);
    readable(kv, &delivery::due_by(now, after), limit, |key, value| {
        delivery::decode_due(key, value, named)
    })
}

/// Receiver and end of a request; of an erased one, whatever.
fn received_by(kv: &impl Kv, key: RequestKey) -> Read<(ReceiverId, Timestamp)> {
    let head = head(kv, key)?;
    let told = head.and_then(|head| {
        let target = head.request.webhook?;
        Some((ReceiverId::of(key.tenant, &target), head.outcome?.finished))
    });
    Ok(told.unwrap_or((ReceiverId::of(key.tenant, ""), Timestamp::ZERO)))
}

pub fn next_delivery(kv: &impl Kv) -> Read<Option<Timestamp>> {
    let first = readable(kv, &delivery::all_due(), 1, |key, _| delivery::due_of(key))?;
    Ok(first.first().map(|(due, _)| *due))
}

pub fn backlog(
    kv: &impl Kv,
    receiver: ReceiverId,
    after: Option<(Timestamp, RequestKey)>,
    limit: usize,
) -> Read<Vec<Delivery>> {
    let span = delivery::backlog(receiver, after);
    readable(kv, &span, limit, delivery::decode_backlog)
}

pub fn backlogs(kv: &impl Kv, mut after: Option<ReceiverId>, limit: usize) -> Read<Vec<Delivery>> {
    let mut fronts = Vec::new();
    while fronts.len() < limit {
        let span = delivery::backlogs(after);
        let Some(front) = all(kv, &span, 1, delivery::decode_backlog)?.pop() else {
            break;
        };
        after = Some(front.receiver);
        fronts.push(front);
    }
    Ok(fronts)
}

pub fn deliveries(
    kv: &impl Kv,
    tenant: TenantId,
    before: Option<RequestId>,
    limit: usize,
) -> Read<Vec<(RequestId, DeliveryStatus)>> {
    let span = delivery::statuses(tenant, before);
    readable_from(kv, &span, End::Back, limit, delivery::decode_stood)
}

pub fn dead_letters(
    kv: &impl Kv,
    tenant: TenantId,
    of: Option<ReceiverId>,
    after: Option<(ReceiverId, RequestId)>,
    limit: usize,
) -> Read<Vec<(ReceiverId, RequestId)>> {
    let span = delivery::dead(tenant, of, after);
    let dead = all(kv, &span, limit, delivery::decode_dead)?.into_iter();
    Ok(dead.map(|(receiver, key)| (receiver, key.id)).collect())
}

pub fn turned_off(kv: &impl Kv, tenant: TenantId, of: ReceiverId) -> Read<Option<TurnedOff>> {
    one(kv, &receiver::key(tenant, of), receiver::decode)
}

pub fn all_turned_off(kv: &impl Kv, tenant: TenantId, limit: usize) -> Read<Vec<TurnedOff>> {
    all(kv, &receiver::of_tenant(tenant), limit, receiver::decode)
}

pub fn hook_secrets(kv: &impl Kv, tenant: TenantId) -> Read<Secrets> {
    let secrets = one(kv, &hook_secrets::key(tenant), hook_secrets::decode)?;
    Ok(secrets.unwrap_or_default())
}

pub fn delivery_status(kv: &impl Kv, key: RequestKey) -> Read<Option<DeliveryStatus>> {
    one(kv, &delivery::status_key(key), delivery::decode_status)
}

/// The keys of receivers that were turned off before `horizon`.
pub fn turned_off_before(kv: &impl Kv, horizon: Timestamp) -> Read<Vec<Bytes>> {
    let mut before = Vec::new();
    let mut span = receiver::all();
    loop {
        let page = kv.scan(&span, End::Front, PAGE)?;
        let Some((last, _)) = page.last() else {
            return Ok(before);
        };
        span = span.after(last);
        for (name, value) in page {
            if receiver::decode(&name, &value)?.since < horizon {
                before.push(name);
            }
        }
    }
}

/// The keys of rows of hours before `hour`, of the tenants from `from` on, and the tenant
/// to go on with when they are gone. Looks at `limit` rows.
pub fn old_ledger(
    kv: &impl Kv,
    hour: u32,
    from: Option<TenantId>,
    limit: usize,
) -> Read<(Vec<Bytes>, Option<TenantId>)> {
    let mut old = Vec::new();
    let mut looked = 0;
    let mut span = from.map_or_else(ledger::all, ledger::from);
    loop {
        // A tenant's rows stand in the order of their hours: the first tells of all.
        let first = kv.scan(&span, End::Front, 1)?;
        let Some((name, _)) = first.first() else {
            return Ok((old, None));
        };
        let (tenant, at) = ledger::tenant_and_hour(name)?;
        if looked >= limit {
            return Ok((old, Some(tenant)));
        }
        if at >= hour {
            looked += 1;
        } else {
            let rows = kv.scan(&ledger::before(tenant, hour), End::Front, limit - looked)?;
            looked += rows.len();
            old.extend(rows.into_iter().map(|(name, _)| name));
            if looked >= limit {
                return Ok((old, Some(tenant)));
            }
        }
        span = span.after(&ledger::last_of(tenant));
    }
}

fn one<T>(
    kv: &impl Kv,
    key: &[u8],
    decode: impl FnOnce(&[u8], &Bytes) -> Read<T>,
) -> Read<Option<T>> {
    kv.get(key)?.map(|value| decode(key, &value)).transpose()
}

pub(super) fn all<T>(
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

/// As [`all`]: a record that cannot be read is told and passed over, so that those
/// behind it are reached.
pub(super) fn readable<T>(
    kv: &impl Kv,
    span: &Span,
    limit: usize,
    decode: impl Fn(&[u8], &Bytes) -> Read<T>,
) -> Read<Vec<T>> {
    readable_from(kv, span, End::Front, limit, decode)
}

pub(super) fn readable_from<T>(
    kv: &impl Kv,
    span: &Span,
    from: End,
    limit: usize,
    decode: impl Fn(&[u8], &Bytes) -> Read<T>,
) -> Read<Vec<T>> {
    let mut found = Vec::new();
    let mut span = span.clone();
    loop {
        let wanted = limit - found.len();
        let page = kv.scan(&span, from, wanted)?;
        for (key, value) in &page {
            match decode(key, value) {
                Ok(read) => found.push(read),
                Err(StoreError::Corrupt(damage)) => {
                    tracing::error!(%damage, "a record is passed over");
                }
                Err(error) => return Err(error),
            }
        }
        match page.last() {
            Some((last, _)) if page.len() == wanted && found.len() < limit => {
                span = match from {
                    End::Front => span.after(last),
                    End::Back => span.before(last),
                };
            }
            _ => return Ok(found),
        }
    }
}

/// What a place holds, made again of its request's record where it cannot be read.
fn or_remade(kv: &impl Kv, name: &[u8], of: Option<RequestKey>, entry: Read<Entry>) -> Read<Entry> {
    let (Err(StoreError::Corrupt(_)), Some(of)) = (&entry, of) else {
        return entry;
    };
    let Ok(Some(head)) = head(kv, of) else {
        return entry;
    };
    let remade = head.request.entry();
    let kinds = [Place::Queue(remade.cohort), Place::Live];
    let here = name.first() == Some(&line::KIND.tag)
        || kinds.iter().any(|place| placed(place, &remade).0 == name);
    match here && head.outcome.is_none() {
        true => Ok(remade),
        false => entry,
    }
}
