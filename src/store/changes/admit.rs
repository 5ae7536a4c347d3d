//! Taking a request in.

use super::{
    super::{
        kv::Kv,
        records::{
            chunk::Side,
            credential, destination, idempotency, orphan, placed,
            request::{self, Head},
        },
        staging::{Staging, Step},
    },
    payload, read_request,
};
use crate::{
    model::id::RequestKey,
    ports::{Admission, Admitted, Idempotent, StoreError},
};

pub fn admit<K: Kv>(
    staging: &mut Staging<K>,
    admission: Admission,
) -> Result<Admitted, StoreError> {
    if let Some(known) = joined(staging, &admission)? {
        return Ok(Admitted::Known(known));
    }
    staging.room_to_admit(admission.body.len())?;
    let Admission {
        request,
        body,
        place,
        destination,
        credential,
        body_digest,
        ..
    } = admission;
    let key = request.key;
    let mut step = Step::default();
    let stored = payload::write(staging, &mut step, key, Side::Body, &body)?;
    let (name, value) = placed(&place, &request.entry());
    step.put(name, value);
    let name = destination::key(destination.id);
    if staging.get(&name)?.is_none() {
        step.put(name, destination::encode(&destination));
    }
    let name = credential::key(request.credential);
    if staging.get(&name)?.is_none() {
        step.put(name, credential::encode(&credential));
    }
    if let Some(digest) = request.idempotency {
        let held = Idempotent {
            request: key.id,
            body_digest,
        };
        let name = idempotency::key(key.tenant, digest);
        step.put(name, idempotency::encode(&held));
    }
    if request.held {
        step.put(orphan::key(request.digest, key), orphan::encode());
    }
    let head = Head {
        request,
        done: None,
        payload: stored,
    };
    let inline = payload::inline(stored, &body);
    step.put(request::key(key), request::encode(&head, inline));
    staging.stage(step)?;
    Ok(Admitted::New)
}

/// The request that holds the idempotency key already.
fn joined<K: Kv>(
    staging: &Staging<K>,
    admission: &Admission,
) -> Result<Option<Idempotent>, StoreError> {
    let tenant = admission.request.key.tenant;
    let Some(digest) = admission.request.idempotency else {
        return Ok(None);
    };
    let name = idempotency::key(tenant, digest);
    let Some(value) = staging.get(&name)? else {
        return Ok(None);
    };
    // What cannot be read is no answer: the call is taken in anew.
    let Some(held) = readable(idempotency::decode(&name, &value))? else {
        return Ok(None);
    };
    let key = RequestKey {
        tenant,
        id: held.request,
    };
    let free = match readable(read_request(staging, key))?.flatten() {
        None => true,
        Some((head, _)) => head
            .done
            .is_some_and(|done| done.outcome.finished < admission.idempotency_horizon),
    };
    Ok((!free).then_some(held))
}

fn readable<T>(read: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match read {
        Err(StoreError::Corrupt(damage)) => {
            tracing::error!(%damage, "an idempotency key is free again");
            Ok(None)
        }
        read => read.map(Some),
    }
}
