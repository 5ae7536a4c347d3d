//! Removing finished requests with all that belongs to them, and ended batches.

use std::time::Duration;

use super::{
    super::{
        kv::Kv,
        records::{
            batch,
            chunk::Side,
            delivery, feed, idempotency, line, orphan,
            request::{self, Done, Head},
        },
        staging::{Staging, Step},
    },
    payload, read_request, unbooked,
};
use crate::{
    model::{
        id::{ReceiverId, RequestKey, TenantId},
        time::Timestamp,
    },
    ports::{DeliveryStatus, StoreError},
};

pub fn erase<K: Kv>(staging: &mut Staging<K>, key: RequestKey) -> Result<bool, StoreError> {
    let Some((head, _)) = read_request(staging, key)? else {
        return Ok(false);
    };
    let Some(done) = &head.done else {
        return Ok(false);
    };
    remove(staging, &head, done, Step::default())?;
    Ok(true)
}

/// Removes at most `limit` requests that finished before `horizon`, of the
/// tenants from `from` on. Returns how many, and the tenant to go on with.
pub fn purge<K: Kv>(
    staging: &mut Staging<K>,
    horizon: Timestamp,
    from: Option<TenantId>,
    limit: usize,
) -> Result<(usize, Option<TenantId>), StoreError> {
    let mut removed = 0;
    let mut span = match from {
        Some(tenant) => feed::of_tenant(tenant, 0),
        None => feed::all(),
    };
    span.to = feed::all().to;
    loop {
        let page = staging.scan(&span, limit - removed)?;
        let Some((name, _)) = page.first() else {
            return Ok((removed, None));
        };
        let tenant = feed::tenant_of(name)?;
        let mut kept = false;
        for (name, value) in &page {
            if feed::tenant_of(name)? != tenant {
                break;
            }
            match feed::decode(name, value) {
                Ok((_, finished)) if finished >= horizon => {
                    kept = true;
                    break;
                }
                Ok((entry, _)) => purge_one(staging, entry.key, entry.sequence)?,
                Err(damage) => forget(staging, name, &damage)?,
            }
            removed += 1;
        }
        if removed >= limit {
            return Ok((removed, Some(tenant)));
        }
        // What follows in this tenant's feed finished later.
        if kept {
            span = feed::behind(tenant);
        }
    }
}

fn purge_one<K: Kv>(
    staging: &mut Staging<K>,
    key: RequestKey,
    sequence: u64,
) -> Result<(), StoreError> {
    let entry = || {
        let mut step = Step::default();
        step.put(feed::floor_key(key.tenant), feed::encode_floor(sequence));
        step.delete(feed::key(key.tenant, sequence));
        step
    };
    let purged = match read_request(staging, key) {
        Ok(Some((head, _))) => match &head.done {
            Some(done) => remove(staging, &head, done, entry()),
            None => {
                tracing::error!(id = %key.id, "open, and in the feed; it stays, and its entry goes");
                staging.stage(entry())
            }
        },
        Ok(None) => staging.stage(entry()),
        Err(error) => Err(error),
    };
    match purged {
        Err(StoreError::Corrupt(damage)) => {
            tracing::error!(id = %key.id, %damage, "what can be found of it is purged");
            let mut step = entry();
            step.delete(request::key(key));
            staging.stage(step)
        }
        purged => purged,
    }
}

/// The entry of nobody knows which request. The feed's floor stays: nobody was told of it.
fn forget<K: Kv>(
    staging: &mut Staging<K>,
    name: &[u8],
    damage: &StoreError,
) -> Result<(), StoreError> {
    tracing::error!(%damage, "it is purged");
    let mut step = Step::default();
    step.delete(name.to_vec());
    staging.stage(step)
}

/// Removes a request with all that belongs to it.
fn remove<K: Kv>(
    staging: &mut Staging<K>,
    head: &Head,
    done: &Done,
    mut step: Step,
) -> Result<(), StoreError> {
    let request = &head.request;
    let key = request.key;
    step.delete(request::key(key));
    step.delete(feed::key(key.tenant, done.sequence));
    if let Some(digest) = request.idempotency {
        let name = idempotency::key(key.tenant, digest);
        if let Some(value) = staging.get(&name)?
            && idempotency::decode(&name, &value)?.request == key.id
        {
            step.delete(name);
        }
    }
    if request.held {
        step.delete(orphan::key(request.digest, key));
    }
    if let Some(target) = &request.webhook {
        let receiver = ReceiverId::of(key.tenant, target);
        let ended = done.outcome.finished;
        step.delete(delivery::backlog_key(receiver, ended, key));
        step.delete(delivery::dead_key(receiver, key));
        let name = delivery::status_key(key);
        if let Some(value) = staging.get(&name)?
            && let DeliveryStatus::Pending { next, .. } = delivery::decode_status(&name, &value)?
        {
            step.delete(delivery::due_key(next, key));
        }
        step.delete(name);
    }
    unbooked::leave(staging, &mut step, request, &done.outcome)?;
    payload::disown(&mut step, key, Side::Answer, head.payload);
    staging.stage(step)?;
    payload::remove(staging, key, Side::Answer, head.payload)
}

/// How long files at the provider can outlive a batch that has ended: they are given
/// thirty days at most.
const LITTER: Duration = Duration::from_secs(31 * 24 * 3600);

/// Removes ended batches. One that still has lines stays, and for a month one that has
/// litter: they would be forgotten with it.
pub fn purge_batches<K: Kv>(
    staging: &mut Staging<K>,
    horizon: Timestamp,
) -> Result<(), StoreError> {
    for (name, value) in staging.scan(&batch::all(), usize::MAX)? {
        let batch = match batch::decode(&name, &value) {
            Ok(batch) => batch,
            Err(damage) => {
                tracing::error!(%damage, "a batch is passed over");
                continue;
            }
        };
        let ended = batch.settled.unwrap_or(batch.created);
        let littered = !batch.litter.is_empty() && ended + LITTER >= horizon;
        if batch.state.is_open() || littered || ended >= horizon {
            continue;
        }
        if staging.scan(&line::of_batch(batch.id, None), 1)?.is_empty() {
            unbooked::forget_lines(staging, batch.id)?;
            let mut step = Step::default();
            step.delete(name.to_vec());
            staging.stage(step)?;
        }
    }
    Ok(())
}
