//! What each of the port's changes does to the map.

pub mod admit;
pub mod attempts;
pub mod deliveries;
pub mod payload;
pub mod places;
pub mod purge;
pub mod settle;
pub mod unbooked;

use super::{
    kv::Kv,
    records::{ledger, request},
    staging::{Staging, Step},
};
use crate::{
    model::{id::RequestKey, ledger::LedgerRow},
    ports::{LedgerEntry, StoreError},
};

/// The record of a request and what stands inline behind it.
fn read_request<K: Kv>(
    staging: &Staging<K>,
    key: RequestKey,
) -> Result<Option<(request::Head, bytes::Bytes)>, StoreError> {
    let name = request::key(key);
    match staging.get(&name)? {
        Some(value) => request::decode(&name, &value).map(Some),
        None => Ok(None),
    }
}

fn add_to_ledger<K: Kv>(
    staging: &Staging<K>,
    step: &mut Step,
    entry: &LedgerEntry,
) -> Result<(), StoreError> {
    let name = ledger::key(&entry.key);
    let mut row = match staging.get(&name)? {
        // An answer is worth more than the sum that is lost with the row.
        Some(value) => ledger::decode(&name, &value).map_or_else(
            |damage| {
                tracing::error!(%damage, "it is begun anew");
                LedgerRow::default()
            },
            |(_, row)| row,
        ),
        None => LedgerRow::default(),
    };
    row.add(&entry.row);
    step.put(name, ledger::encode(&entry.key, &row));
    Ok(())
}
