//! Recording how deliveries of webhooks go, and what is known of their receivers.

use std::time::Duration;

use super::super::{
    kv::Kv,
    records::{delivery, hook_secrets, receiver, request},
    staging::{Staging, Step},
};
use crate::{
    model::{hook::Secrets, id::TenantId, time::Timestamp},
    ports::{Delivery, DeliveryStatus, StoreError},
};

/// A request is due at most once: whatever its status says is due goes too.
pub fn record<K: Kv>(
    staging: &mut Staging<K>,
    tried: &Delivery,
    status: &DeliveryStatus,
) -> Result<(), StoreError> {
    let key = tried.key;
    let name = delivery::status_key(key);
    let mut step = Step::default();
    step.delete(delivery::due_key(tried.due, key));
    step.delete(delivery::backlog_key(tried.receiver, tried.ended, key));
    let was = match staging.get(&name)? {
        Some(value) => Some(delivery::decode_status(&name, &value)?),
        None => None,
    };
    match was {
        Some(DeliveryStatus::Pending { next, .. }) => {
            step.delete(delivery::due_key(next, key));
        }
        Some(DeliveryStatus::Dead { .. }) => {
            step.delete(delivery::dead_key(tried.receiver, key));
        }
        Some(DeliveryStatus::Delivered { .. }) | None => {}
    }
    // Of a request that has been erased meanwhile, nothing stays.
    if staging.get(&request::key(key))?.is_some() {
        match *status {
            DeliveryStatus::Pending { next, tries, .. } => {
                let again = Delivery {
                    due: next,
                    tries,
                    ..*tried
                };
                step.put(delivery::due_key(next, key), delivery::encode_due(&again));
            }
            DeliveryStatus::Dead { .. } => {
                let dead = delivery::dead_key(tried.receiver, key);
                step.put(dead, delivery::encode_dead());
            }
            DeliveryStatus::Delivered { .. } => {}
        }
        step.put(name, delivery::encode_status(status));
    }
    staging.stage(step)
}

/// Into its receiver's backlog, where it is still due.
pub fn shelve<K: Kv>(staging: &mut Staging<K>, due: Delivery) -> Result<(), StoreError> {
    let from = delivery::due_key(due.due, due.key);
    if staging.get(&from)?.is_none() {
        return Ok(());
    }
    let to = delivery::backlog_key(due.receiver, due.ended, due.key);
    let mut step = Step::default();
    step.delete(from);
    step.put(to, delivery::encode_backlog(&due));
    staging.stage(step)
}

/// Forgets a receiver that was turned off before `horizon`, and not again since.
pub fn forget_turned_off<K: Kv>(
    staging: &mut Staging<K>,
    name: &[u8],
    horizon: Timestamp,
) -> Result<(), StoreError> {
    let mut step = Step::default();
    if let Some(value) = staging.get(name)?
        && receiver::decode(name, &value)?.since < horizon
    {
        step.delete(name.to_vec());
    }
    staging.stage(step)
}

pub fn rotate<K: Kv>(
    staging: &mut Staging<K>,
    tenant: TenantId,
    now: Timestamp,
    overlap: Duration,
) -> Result<Secrets, StoreError> {
    let name = hook_secrets::key(tenant);
    let mut secrets = match staging.get(&name)? {
        Some(value) => hook_secrets::decode(&name, &value)?,
        None => Secrets::default(),
    };
    secrets.rotate(now, overlap);
    let mut step = Step::default();
    step.put(name, hook_secrets::encode(&secrets));
    staging.stage(step)?;
    Ok(secrets)
}
