//! Records of attempts.

use super::{
    super::{
        kv::Kv,
        records::{attempt, request},
        staging::{Staging, Step},
    },
    add_to_ledger, unbooked,
};
use crate::{
    model::{
        attempt::{Attempt, AttemptState},
        id::RequestKey,
    },
    ports::{LedgerEntry, StoreError},
};

/// Of a request that has been erased meanwhile, only what is owed is kept.
pub fn record<K: Kv>(
    staging: &mut Staging<K>,
    request: RequestKey,
    attempt: &Attempt,
) -> Result<bool, StoreError> {
    if staging.get(&request::key(request))?.is_none() {
        return unbooked::record(staging, request, attempt);
    }
    let mut step = Step::default();
    put(&mut step, request, attempt);
    staging.stage(step)?;
    Ok(true)
}

pub fn put(step: &mut Step, request: RequestKey, attempt: &Attempt) {
    step.put(attempt::key(request, attempt.id), attempt::encode(attempt));
    let open = attempt::open_key(request, attempt.id);
    match attempt.state {
        AttemptState::Open => step.put(open, attempt::encode_open()),
        _ => step.delete(open),
    }
}

pub fn account<K: Kv>(
    staging: &mut Staging<K>,
    request: RequestKey,
    attempt: &Attempt,
    ledger: &LedgerEntry,
) -> Result<bool, StoreError> {
    if staging.get(&request::key(request))?.is_none() {
        return unbooked::account(staging, request, attempt, ledger);
    }
    let name = attempt::key(request, attempt.id);
    if let Some(value) = staging.get(&name)?
        && attempt::decode(&name, &value)?.state == attempt.state
    {
        return Ok(false);
    }
    let mut step = Step::default();
    put(&mut step, request, attempt);
    add_to_ledger(staging, &mut step, ledger)?;
    staging.stage(step)?;
    Ok(true)
}
