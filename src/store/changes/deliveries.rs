//! Recording tries to deliver webhooks.

use super::super::{
    kv::Kv,
    records::{delivery, request},
    staging::{Staging, Step},
};
use crate::ports::{Delivery, DeliveryStatus, StoreError};

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
    if let Some(value) = staging.get(&name)?
        && let DeliveryStatus::Pending { next, .. } = delivery::decode_status(&name, &value)?
    {
        step.delete(delivery::due_key(next, key));
    }
    // Of a request that has been erased meanwhile, nothing stays.
    if staging.get(&request::key(key))?.is_some() {
        if let DeliveryStatus::Pending { next, tries, .. } = *status {
            let again = Delivery {
                due: next,
                tries,
                ..*tried
            };
            step.put(delivery::due_key(next, key), delivery::encode_due(&again));
        }
        step.put(name, delivery::encode_status(status));
    }
    staging.stage(step)
}
