//! Makes the records that were saved fit together again. A request's own record is
//! what is believed; places, feed and deliveries are made from it where they are gone,
//! and removed where it is.

use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::Bytes;
use serde::Serialize;

use super::{
    super::{
        changes::{payload, settle},
        kv::{Kv, Span},
        migrate::FORMAT,
        records::{
            attempt, batch, chunk, delivery, destination, feed, line, live, meta, orphan, placed,
            queue,
            request::{self, Done, Head, Payload},
        },
        staging::{Staging, Step},
    },
    Unreadable,
};
use crate::{
    model::{
        id::{BatchId, ReceiverId, RequestKey},
        ledger::{LedgerKey, LedgerRow},
        request::{Destination, Framing, Outcome, Place, Source, State, Usage},
        time::Timestamp,
    },
    ports::{Delivery, DeliveryStatus, Ending, LedgerEntry, StoreError},
};

/// Records that are read at a time.
const PAGE: usize = 256;
const REASON: &str = "part of it was lost in a damaged database";

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Repairs {
    /// Open requests that go on.
    pub open: u64,
    /// Those of them whose place was lost: they are in their queue again.
    pub requeued: u64,
    /// Requests that ended with their answer.
    pub finished: u64,
    /// Requests that end with `storage_damaged` because their body or answer is gone.
    pub ended: u64,
    /// Feed entries, deliveries and destinations that were made anew.
    pub restored: u64,
    /// Records that belonged to nothing any more.
    pub removed: u64,
}

/// Sets aside what cannot be decoded, in `unreadable`, and mends the rest.
pub fn repair<K: Kv>(
    staging: &mut Staging<K>,
    now: Timestamp,
    unreadable: &mut Vec<Unreadable>,
) -> Result<Repairs, StoreError> {
    let mut repair = Repair {
        repairs: Repairs::default(),
        places: places(staging, unreadable)?,
        now,
    };
    let mut step = Step::default();
    step.put(meta::format_key(), meta::encode(&FORMAT));
    let sequence = highest_sequence(staging, unreadable)? + 1;
    step.put(meta::feed_key(), meta::encode(&sequence));
    staging.stage(step)?;
    staging.resume(sequence);

    let mut known = HashMap::new();
    pages(
        staging,
        Span::prefix(&[request::KIND.tag]),
        |staging, name, value| match request::decode(&name, &value) {
            Ok((head, _)) => {
                known.insert(head.request.key, head.done.is_some());
                repair.request(staging, head)
            }
            Err(error) => set_aside(staging, unreadable, name, value, &error),
        },
    )?;
    for names in std::mem::take(&mut repair.places).into_values() {
        for (_, name) in names {
            repair.remove(staging, name)?;
        }
    }
    repair.dependents(staging, &known)?;
    staging.cut()?;
    Ok(repair.repairs)
}

/// Where requests are said to be, and the keys that say so.
type Places = BTreeMap<RequestKey, Vec<(Place, Vec<u8>)>>;

struct Repair {
    repairs: Repairs,
    /// Where requests are, and the keys that say so; those of a request are taken out
    /// when it has been looked at.
    places: Places,
    now: Timestamp,
}

impl Repair {
    fn request<K: Kv>(&mut self, staging: &mut Staging<K>, head: Head) -> Result<(), StoreError> {
        let whole = is_whole(staging, &head)?;
        let mut places = self.places.remove(&head.request.key).unwrap_or_default();
        match &head.done {
            None => {
                // A batch may be at the provider with it; a live call is on its way.
                places.sort_by_key(|(place, _)| match place {
                    Place::Line(_) => 0,
                    Place::Live => 1,
                    Place::Queue(_) => 2,
                });
                let rest = places.split_off(places.len().min(1));
                for (_, name) in rest {
                    self.remove(staging, name)?;
                }
                self.destination(staging, &head)?;
                match whole {
                    true => self.open(staging, &head, places.is_empty()),
                    false => self.end(staging, &head, places.first().map(|(place, _)| *place)),
                }
            }
            Some(done) => {
                for (_, name) in places {
                    self.remove(staging, name)?;
                }
                let done = done.clone();
                match whole {
                    true => self.repairs.finished += 1,
                    false => self.lose_answer(staging, head.clone())?,
                }
                self.tell(staging, &head, &done)
            }
        }
    }

    fn open<K: Kv>(
        &mut self,
        staging: &mut Staging<K>,
        head: &Head,
        lost: bool,
    ) -> Result<(), StoreError> {
        self.repairs.open += 1;
        let mut step = Step::default();
        if lost {
            self.repairs.requeued += 1;
            let place = Place::Queue(head.request.cohort);
            let (name, value) = placed(&place, &head.request.entry());
            step.put(name, value);
        }
        if head.request.held {
            let name = orphan::key(head.request.digest, head.request.key);
            step.put(name, orphan::encode());
        }
        staging.stage(step)
    }

    fn destination<K: Kv>(
        &mut self,
        staging: &mut Staging<K>,
        head: &Head,
    ) -> Result<(), StoreError> {
        let request = &head.request;
        let name = destination::key(request.cohort.destination);
        if staging.get(&name)?.is_some() {
            return Ok(());
        }
        self.repairs.restored += 1;
        let mut step = Step::default();
        let destination = Destination {
            id: request.cohort.destination,
            tenant: request.key.tenant,
            credential: request.credential,
            endpoint: request.endpoint,
            model: request.model.clone(),
        };
        step.put(name, destination::encode(&destination));
        staging.stage(step)
    }

    /// Its body is gone: it cannot be sent any more.
    fn end<K: Kv>(
        &mut self,
        staging: &mut Staging<K>,
        head: &Head,
        place: Option<Place>,
    ) -> Result<(), StoreError> {
        self.repairs.ended += 1;
        let request = &head.request;
        let key = LedgerKey {
            tenant: request.key.tenant,
            hour: (self.now.as_millis() / 3_600_000) as u32,
            lane: None,
            model: request.model.clone(),
            tag: request.tag.clone(),
        };
        let row = LedgerRow {
            requests: 1,
            late: u64::from(self.now > request.deadline),
            ..LedgerRow::default()
        };
        let ending = Ending {
            key: request.key,
            places: place.into_iter().collect(),
            outcome: damaged(self.now),
            answer: answer("the body of this request"),
            ledger: LedgerEntry { key, row },
            attempt: None,
        };
        settle::settle(staging, ending).map(drop)
    }

    /// What it cost stays.
    fn lose_answer<K: Kv>(
        &mut self,
        staging: &mut Staging<K>,
        mut head: Head,
    ) -> Result<(), StoreError> {
        self.repairs.ended += 1;
        let (key, payload) = (head.request.key, head.payload);
        if let Some(done) = &mut head.done {
            let finished = done.outcome.finished;
            done.outcome = Outcome {
                usage: done.outcome.usage,
                bill: done.outcome.bill,
                source: done.outcome.source,
                ..damaged(finished)
            };
        }
        head.payload = Payload::Inline;
        let mut step = Step::default();
        payload::disown(&mut step, key, chunk::Side::Answer, payload);
        let answer = answer("the answer to this request");
        step.put(request::key(key), request::encode(&head, &answer));
        staging.stage(step)?;
        payload::remove(staging, key, chunk::Side::Answer, payload)
    }

    /// Feed and webhook of a request that has ended.
    fn tell<K: Kv>(
        &mut self,
        staging: &mut Staging<K>,
        head: &Head,
        done: &Done,
    ) -> Result<(), StoreError> {
        let key = head.request.key;
        let finished = done.outcome.finished;
        let mut step = Step::default();
        let name = feed::key(key.tenant, done.sequence);
        if staging.get(&name)?.is_none() {
            self.repairs.restored += 1;
            step.put(name, feed::encode(key.id, finished));
        }
        if let Some(target) = &head.request.webhook {
            let receiver = ReceiverId::of(key.tenant, target);
            let name = delivery::status_key(key);
            let status = match staging.get(&name)? {
                Some(value) => delivery::decode_status(&name, &value).ok(),
                None => None,
            };
            let (due, tries, lost) = match status {
                Some(DeliveryStatus::Pending { next, tries, .. }) => (next, tries, false),
                Some(_) => return staging.stage(step),
                None => (self.now, 0, true),
            };
            if lost {
                let status = DeliveryStatus::Pending {
                    next: due,
                    tries,
                    last: None,
                };
                step.put(name, delivery::encode_status(&status));
            }
            let name = delivery::due_key(due, key);
            let backlog = delivery::backlog_key(receiver, finished, key);
            if staging.get(&name)?.is_none() && staging.get(&backlog)?.is_none() {
                self.repairs.restored += 1;
                let delivery = Delivery {
                    due,
                    key,
                    tries,
                    first_due: due,
                    receiver,
                    ended: finished,
                };
                step.put(name, delivery::encode_due(&delivery));
            }
        }
        staging.stage(step)
    }

    /// What names a request that is gone, or is not as they say.
    fn dependents<K: Kv>(
        &mut self,
        staging: &mut Staging<K>,
        known: &HashMap<RequestKey, bool>,
    ) -> Result<(), StoreError> {
        let is_known = |key: Option<RequestKey>| key.is_some_and(|key| known.contains_key(&key));
        let of = |tag: u8| Span::prefix(&[tag]);
        let mut gone: Vec<Vec<u8>> = Vec::new();
        let kinds = [
            chunk::KIND,
            chunk::JOURNAL,
            delivery::STATUS,
            attempt::KIND,
            attempt::OPEN,
        ];
        for kind in kinds {
            names(staging, of(kind.tag), |name, _| {
                let key = name.get(1..33).and_then(request::of_bytes);
                if !is_known(key) {
                    gone.push(name.to_vec());
                }
            })?;
        }
        names(staging, of(delivery::DUE.tag), |name, _| {
            let key = name.get(9..41).and_then(request::of_bytes);
            if !is_known(key) {
                gone.push(name.to_vec());
            }
        })?;
        names(staging, of(delivery::BACKLOG.tag), |name, _| {
            let key = name.get(25..57).and_then(request::of_bytes);
            if !is_known(key) {
                gone.push(name.to_vec());
            }
        })?;
        names(staging, of(delivery::DEAD.tag), |name, _| {
            let parts = name.get(1..17).zip(name.get(33..49));
            let key = parts.and_then(|(tenant, id)| request::of_bytes(&[tenant, id].concat()));
            if !is_known(key) {
                gone.push(name.to_vec());
            }
        })?;
        names(staging, of(orphan::KIND.tag), |name, value| {
            let key = orphan::decode(name, value).ok().map(|(_, key)| key);
            if !is_known(key) {
                gone.push(name.to_vec());
            }
        })?;
        names(staging, of(feed::KIND.tag), |name, value| {
            let entry = feed::decode(name, value).ok();
            let ended = entry.is_some_and(|(entry, _)| known.get(&entry.key) == Some(&true));
            if !ended {
                gone.push(name.to_vec());
            }
        })?;
        for name in gone {
            // The feed entries of requests that ended just here are true.
            if name[0] == feed::KIND.tag && self.was_written_here(staging, &name)? {
                continue;
            }
            self.remove(staging, name)?;
        }
        Ok(())
    }

    fn was_written_here<K: Kv>(
        &self,
        staging: &mut Staging<K>,
        name: &[u8],
    ) -> Result<bool, StoreError> {
        let Some(value) = staging.get(name)? else {
            return Ok(false);
        };
        let Ok((entry, _)) = feed::decode(name, &value) else {
            return Ok(false);
        };
        let name = request::key(entry.key);
        Ok(match staging.get(&name)? {
            Some(value) => request::decode(&name, &value)?
                .0
                .done
                .is_some_and(|done| done.sequence == entry.sequence),
            None => false,
        })
    }

    fn remove<K: Kv>(&mut self, staging: &mut Staging<K>, name: Vec<u8>) -> Result<(), StoreError> {
        self.repairs.removed += 1;
        let mut step = Step::default();
        step.delete(name);
        staging.stage(step)
    }
}

/// Where requests are said to be. A line of a batch that is gone is no place.
fn places<K: Kv>(
    staging: &mut Staging<K>,
    unreadable: &mut Vec<Unreadable>,
) -> Result<Places, StoreError> {
    let mut batches: HashSet<BatchId> = HashSet::new();
    pages(
        staging,
        batch::all(),
        |staging, name, value| match batch::decode(&name, &value) {
            Ok(batch) => {
                batches.insert(batch.id);
                Ok(())
            }
            Err(error) => set_aside(staging, unreadable, name, value, &error),
        },
    )?;
    let mut places = Places::new();
    for kind in [queue::KIND, line::KIND, live::KIND] {
        pages(
            staging,
            Span::prefix(&[kind.tag]),
            |staging, name, value| {
                let read = match kind.tag {
                    tag if tag == queue::KIND.tag => queue::decode(&name, &value)
                        .map(|(cohort, entry)| (Place::Queue(cohort), entry)),
                    tag if tag == line::KIND.tag => line::decode(&name, &value)
                        .map(|(batch, entry)| (Place::Line(batch), entry)),
                    _ => live::decode(&name, &value).map(|(entry, _)| (Place::Live, entry)),
                };
                match read {
                    Ok((Place::Line(batch), _)) if !batches.contains(&batch) => {
                        let mut step = Step::default();
                        step.delete(name.to_vec());
                        staging.stage(step)
                    }
                    Ok((place, entry)) => {
                        let of = places.entry(entry.key).or_default();
                        of.push((place, name.to_vec()));
                        Ok(())
                    }
                    Err(error) => set_aside(staging, unreadable, name, value, &error),
                }
            },
        )?;
    }
    Ok(places)
}

fn highest_sequence<K: Kv>(
    staging: &mut Staging<K>,
    unreadable: &mut Vec<Unreadable>,
) -> Result<u64, StoreError> {
    let mut highest = meta::FIRST_SEQUENCE;
    pages(
        staging,
        Span::prefix(&[feed::KIND.tag]),
        |staging, name, value| match feed::decode(&name, &value) {
            Ok((entry, _)) => {
                highest = highest.max(entry.sequence);
                Ok(())
            }
            Err(error) => set_aside(staging, unreadable, name, value, &error),
        },
    )?;
    pages(
        staging,
        Span::prefix(&[request::KIND.tag]),
        |_, name, value| {
            if let Ok((head, _)) = request::decode(&name, &value)
                && let Some(done) = head.done
            {
                highest = highest.max(done.sequence);
            }
            Ok(())
        },
    )?;
    // What was reserved holds, if it is known.
    let reserved = match staging.get(&meta::feed_key())? {
        Some(value) => meta::decode(&meta::feed_key(), &value).unwrap_or(0),
        None => 0,
    };
    Ok(highest.max(reserved))
}

fn is_whole<K: Kv>(staging: &Staging<K>, head: &Head) -> Result<bool, StoreError> {
    let Payload::Chunked { chunks } = head.payload else {
        return Ok(true);
    };
    let side = match head.done {
        Some(_) => chunk::Side::Answer,
        None => chunk::Side::Body,
    };
    for number in 0..chunks {
        let name = chunk::key(head.request.key, side, number);
        match staging.get(&name)? {
            Some(value) if chunk::decode(&name, &value).is_ok() => {}
            _ => return Ok(false),
        }
    }
    Ok(true)
}

fn damaged(finished: Timestamp) -> Outcome {
    Outcome {
        state: State::Failed,
        status: 500,
        finished,
        source: Source::Offpeak,
        framing: Framing::Json,
        reason: REASON.into(),
        provider_request: None,
        usage: Usage::default(),
        bill: None,
    }
}

fn answer(what: &str) -> Bytes {
    let message = format!(
        "Part of {what} was lost when the storage of this server was damaged. Send the call again."
    );
    let error = serde_json::json!({
        "error": {"message": message, "type": "server_error", "param": null, "code": "storage_damaged"}
    });
    error.to_string().into()
}

fn set_aside<K: Kv>(
    staging: &mut Staging<K>,
    unreadable: &mut Vec<Unreadable>,
    name: Bytes,
    value: Bytes,
    why: &StoreError,
) -> Result<(), StoreError> {
    unreadable.push(Unreadable::new(&name, &value, why.to_string()));
    let mut step = Step::default();
    step.delete(name.to_vec());
    staging.stage(step)
}

/// Every pair of a span, a page at a time.
fn pages<K: Kv>(
    staging: &mut Staging<K>,
    mut span: Span,
    mut each: impl FnMut(&mut Staging<K>, Bytes, Bytes) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    loop {
        let page = staging.scan(&span, PAGE)?;
        let Some((last, _)) = page.last() else {
            return Ok(());
        };
        span = span.after(last);
        for (name, value) in page {
            each(staging, name, value)?;
        }
    }
}

fn names<K: Kv>(
    staging: &mut Staging<K>,
    span: Span,
    mut each: impl FnMut(&[u8], &Bytes),
) -> Result<(), StoreError> {
    pages(staging, span, |_, name, value| {
        each(&name, &value);
        Ok(())
    })
}
