//! What is owed for requests that are erased: their open calls, and the lines of
//! their batches.

use super::{
    super::{
        kv::Kv,
        records::{attempt, batch, unbooked},
        staging::{Staging, Step},
    },
    add_to_ledger,
};
use crate::{
    model::{
        attempt::{Attempt, AttemptId, AttemptState},
        id::{BatchId, RequestKey},
        request::{Outcome, Request, Source},
    },
    ports::{LedgerEntry, StoreError, Unbooked},
};

/// The request goes with its attempts; what is open of them, or may be told again,
/// stays to be booked once.
pub fn leave<K: Kv>(
    staging: &mut Staging<K>,
    step: &mut Step,
    request: &Request,
    outcome: &Outcome,
) -> Result<(), StoreError> {
    let key = request.key;
    for (name, value) in staging.scan(&attempt::of_request(key), usize::MAX)? {
        let attempt = attempt::decode(&name, &value)?;
        step.delete(attempt::open_key(key, attempt.id));
        step.delete(name.to_vec());
        match (attempt.state, attempt.id) {
            (AttemptState::Open, id) => {
                let call = Unbooked {
                    entry: request.entry(),
                    model: request.model.clone(),
                    tag: request.tag.clone(),
                    attempt,
                };
                let name = unbooked::call_key(key, id);
                step.put(name, unbooked::encode_call(&call));
            }
            (AttemptState::Late, AttemptId::Batch(batch)) => {
                leave_line(staging, step, batch, key)?;
            }
            _ => {}
        }
    }
    match outcome.source {
        Source::Batch(batch) => leave_line(staging, step, batch, key),
        Source::Live(_) | Source::Offpeak => Ok(()),
    }
}

/// The files of a batch that has ended are not read again.
fn leave_line<K: Kv>(
    staging: &Staging<K>,
    step: &mut Step,
    batch: BatchId,
    request: RequestKey,
) -> Result<(), StoreError> {
    let name = batch::key(batch);
    if let Some(value) = staging.get(&name)?
        && batch::decode(&name, &value)?.state.is_open()
    {
        step.put(unbooked::line_key(batch, request), unbooked::encode_line());
    }
    Ok(())
}

/// A new version of a call that was open. False where there is none.
pub fn record<K: Kv>(
    staging: &mut Staging<K>,
    request: RequestKey,
    attempt: &Attempt,
) -> Result<bool, StoreError> {
    let name = unbooked::call_key(request, attempt.id);
    let Some(value) = staging.get(&name)? else {
        return Ok(false);
    };
    let mut step = Step::default();
    match attempt.state {
        AttemptState::Open => {
            let call = Unbooked {
                attempt: attempt.clone(),
                ..unbooked::decode_call(&name, &value)?
            };
            step.put(name, unbooked::encode_call(&call));
        }
        _ => step.delete(name),
    }
    staging.stage(step)?;
    Ok(true)
}

/// Books a call that was open, or a line that was not booked. False where it was.
pub fn account<K: Kv>(
    staging: &mut Staging<K>,
    request: RequestKey,
    attempt: &Attempt,
    ledger: &LedgerEntry,
) -> Result<bool, StoreError> {
    let mut step = Step::default();
    match attempt.id {
        AttemptId::Live(_) => {
            let name = unbooked::call_key(request, attempt.id);
            if staging.get(&name)?.is_none() {
                return Ok(false);
            }
            step.delete(name);
        }
        AttemptId::Batch(batch) => {
            let name = unbooked::line_key(batch, request);
            if staging.get(&name)?.is_some() {
                return Ok(false);
            }
            step.put(name, unbooked::encode_line());
        }
    }
    add_to_ledger(staging, &mut step, ledger)?;
    staging.stage(step)?;
    Ok(true)
}

/// The batch is forgotten, and what was booked of its lines with it.
pub fn forget_lines<K: Kv>(staging: &mut Staging<K>, batch: BatchId) -> Result<(), StoreError> {
    for (name, _) in staging.scan(&unbooked::lines(batch), usize::MAX)? {
        let mut step = Step::default();
        step.delete(name.to_vec());
        staging.stage(step)?;
    }
    Ok(())
}
