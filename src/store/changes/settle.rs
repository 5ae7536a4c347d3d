//! Ending requests.

use super::{
    super::{
        kv::Kv,
        records::{
            chunk::Side,
            delivery, feed,
            request::{self, Done},
        },
        staging::{Staging, Step},
    },
    add_to_ledger, attempts, payload, places, read_request,
};
use crate::{
    model::id::ReceiverId,
    ports::{Delivery, DeliveryStatus, Ending, Settled, StoreError},
};

pub fn settle<K: Kv>(staging: &mut Staging<K>, ending: Ending) -> Result<Settled, StoreError> {
    let Some((mut head, _)) = read_request(staging, ending.key)? else {
        return Ok(Settled::Unknown);
    };
    if let Some(done) = head.done {
        return Ok(Settled::Before(done.outcome));
    }
    let key = ending.key;
    let body = head.payload;
    let place = places::find(staging, &head.request, &ending.places)?;

    let mut step = Step::default();
    let answer = payload::write(staging, &mut step, key, Side::Answer, &ending.answer)?;
    if let Some((_, name)) = &place {
        step.delete(name.clone());
    }
    payload::disown(&mut step, key, Side::Body, body);
    add_to_ledger(staging, &mut step, &ending.ledger)?;
    if let Some(attempt) = &ending.attempt {
        attempts::put(&mut step, key, attempt);
    }
    let finished = ending.outcome.finished;
    let entry = head.request.entry();
    if let Some(target) = &head.request.webhook {
        let due = Delivery {
            due: finished,
            key,
            tries: 0,
            first_due: finished,
            receiver: ReceiverId::of(key.tenant, target),
            ended: finished,
        };
        let status = DeliveryStatus::Pending {
            next: finished,
            tries: 0,
            last: None,
        };
        step.put(delivery::due_key(finished, key), delivery::encode_due(&due));
        step.put(delivery::status_key(key), delivery::encode_status(&status));
    }
    let sequence = staging.next_sequence(&mut step);
    step.put(
        feed::key(key.tenant, sequence),
        feed::encode(key.id, finished),
    );
    let webhook = head.request.webhook.is_some();
    head.payload = answer;
    head.done = Some(Done {
        outcome: ending.outcome,
        sequence,
    });
    let inline = payload::inline(answer, &ending.answer);
    step.put(request::key(key), request::encode(&head, inline));
    staging.stage(step)?;
    staging.decide();
    if let Err(error) = payload::remove(staging, key, Side::Body, body) {
        tracing::warn!(id = %key.id, %error, "what is left of its body goes at the next start");
    }
    Ok(Settled::Now {
        sequence,
        entry,
        place: place.map(|(place, _)| place),
        webhook,
    })
}
