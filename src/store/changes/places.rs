//! Moving open requests between places.

use super::{
    super::{
        kv::Kv,
        records::{batch, line, live, moved, placed, queue, request},
        staging::{Staging, Step},
    },
    read_request,
};
use crate::{
    model::request::{Entry, Place, Request},
    ports::{Relocation, Replan, StoreError},
};

/// False where it was not there.
pub fn relocate<K: Kv>(
    staging: &mut Staging<K>,
    relocation: Relocation,
) -> Result<bool, StoreError> {
    let (from, _) = placed(&relocation.from, &relocation.entry);
    let Some(value) = staging.get(&from)? else {
        return Ok(false);
    };
    // What is stored is what moves, or what was made of the request's own record
    // where that cannot be read.
    let stored = match &relocation.from {
        Place::Queue(_) => queue::decode(&from, &value).map(|(_, entry)| entry),
        Place::Line(_) => line::decode(&from, &value).map(|(_, entry)| entry),
        Place::Live => live::decode(&from, &value).map(|(entry, _)| entry),
    };
    let entry = stored.unwrap_or(relocation.entry);
    let (to, value) = moved(Some(&relocation.from), &relocation.to, &entry);
    if from != to {
        let mut step = Step::default();
        step.delete(from);
        step.put(to, value);
        staging.stage(step)?;
    }
    Ok(true)
}

/// False where it was not there.
pub fn set_aside<K: Kv>(
    staging: &mut Staging<K>,
    entry: &Entry,
    place: &Place,
) -> Result<bool, StoreError> {
    let (name, _) = placed(place, entry);
    if staging.get(&name)?.is_none() {
        return Ok(false);
    }
    let mut step = Step::default();
    step.delete(name);
    staging.stage(step)?;
    Ok(true)
}

/// False where it was not there.
pub fn replan<K: Kv>(staging: &mut Staging<K>, replan: Replan) -> Result<bool, StoreError> {
    let Relocation { entry, from, to } = replan.relocation;
    let (from, _) = placed(&from, &entry);
    let Some((mut head, inline)) = read_request(staging, entry.key)? else {
        return Ok(false);
    };
    if staging.get(&from)?.is_none() {
        return Ok(false);
    }
    head.request.lane = replan.lane;
    head.request.reason = replan.reason;
    let (to, value) = placed(&to, &head.request.entry());
    let mut step = Step::default();
    step.delete(from);
    step.put(to, value);
    step.put(request::key(entry.key), request::encode(&head, &inline));
    staging.stage(step)?;
    Ok(true)
}

/// The place where an open request stands, and its key there: one of `places`,
/// or wherever else it can be found, in case it has moved since its caller looked.
pub fn find<K: Kv>(
    staging: &mut Staging<K>,
    request: &Request,
    places: &[Place],
) -> Result<Option<(Place, Vec<u8>)>, StoreError> {
    let entry = request.entry();
    let usual = [Place::Queue(request.cohort), Place::Live];
    for place in places.iter().chain(&usual) {
        let (name, _) = placed(place, &entry);
        if staging.get(&name)?.is_some() {
            return Ok(Some((*place, name)));
        }
    }
    in_any_batch(staging, &entry)
}

fn in_any_batch<K: Kv>(
    staging: &mut Staging<K>,
    entry: &Entry,
) -> Result<Option<(Place, Vec<u8>)>, StoreError> {
    for (name, value) in staging.scan(&batch::all(), usize::MAX)? {
        let batch = batch::decode(&name, &value)?;
        let name = line::key(batch.id, entry.key);
        if staging.get(&name)?.is_some() {
            return Ok(Some((Place::Line(batch.id), name)));
        }
    }
    Ok(None)
}
