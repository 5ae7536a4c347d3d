//! What happened to a request, in order, as its records tell it.

use crate::{
    model::{
        attempt::{Attempt, AttemptId, AttemptState, Lane},
        batch::Batch,
        id::BatchId,
        request::{Outcome, Place, Source, State},
        time::Timestamp,
        timeline::{Event, Happened},
    },
    ports::{DeliveryStatus, StoreError},
};

use super::{Engine, View};

impl Engine {
    /// What is known of how the request went. Of a batch that ended long ago nothing is.
    pub async fn timeline(&self, view: &View) -> Result<Vec<Event>, StoreError> {
        let taken_out_of = match view.place {
            Some(Place::Live) => self.store.taken_out_of(view.request.entry()).await?,
            _ => None,
        };
        let mut batches = Vec::new();
        for id in batches_of(view, taken_out_of) {
            batches.extend(self.store.batch(id).await?);
        }
        Ok(timeline(view, taken_out_of, &batches))
    }
}

/// The batches that the request is known to have been a line of, the oldest first.
fn batches_of(view: &View, taken_out_of: Option<BatchId>) -> Vec<BatchId> {
    let placed = match view.place {
        Some(Place::Line(batch)) => Some(batch),
        _ => None,
    };
    let answered = match view.outcome.as_ref().map(|outcome| outcome.source) {
        Some(Source::Batch(batch)) => Some(batch),
        _ => None,
    };
    let tried = view.attempts.iter().flat_map(|attempt| {
        let own = match attempt.id {
            AttemptId::Batch(batch) => Some(batch),
            AttemptId::Live(_) => None,
        };
        [own, attempt.from]
    });
    let known = tried.chain([placed, answered, taken_out_of]).flatten();
    let mut known: Vec<BatchId> = known.collect();
    known.sort();
    known.dedup();
    known
}

/// `taken_out_of`: the batch that an open request is being rescued from. `batches`:
/// those that are still known. What nobody wrote down the time of comes last.
pub fn timeline(view: &View, taken_out_of: Option<BatchId>, batches: &[Batch]) -> Vec<Event> {
    let mut events = vec![admitted(view)];
    for batch in batches {
        events.extend(packed(view, batch));
    }
    let open = taken_out_of.filter(|id| view.attempts.iter().all(|it| it.from != Some(*id)));
    let mut left: Vec<(BatchId, Option<&Attempt>)> =
        open.map(|id| (id, None)).into_iter().collect();
    for attempt in &view.attempts {
        if let Some(from) = attempt.from
            && left.iter().all(|(id, _)| *id != from)
        {
            left.push((from, Some(attempt)));
        }
        events.extend(tried(attempt, view.outcome.as_ref()));
    }
    for (id, attempt) in left {
        let batch = batches.iter().find(|batch| batch.id == id);
        events.push(rescued(id, batch, attempt));
    }
    events.extend(view.outcome.as_ref().map(|outcome| ended(outcome, batches)));
    events.extend(view.delivery.as_ref().and_then(delivered));
    events.sort_by_key(|event| (event.at.unwrap_or(Timestamp::MAX), event.what));
    events
}

fn event(at: Option<Timestamp>, what: Happened) -> Event {
    Event {
        at,
        what,
        lane: None,
        batch: None,
        provider: None,
        reason: None,
        cost: None,
    }
}

fn admitted(view: &View) -> Event {
    let request = &view.request;
    Event {
        lane: Some(request.lane),
        reason: Some(request.reason.clone()),
        ..event(Some(request.admitted), Happened::Admitted)
    }
}

/// A batch may have been begun before the request came, and filled up since.
fn packed(view: &View, batch: &Batch) -> impl Iterator<Item = Event> {
    let packed = Event {
        lane: Some(Lane::Batch),
        batch: Some(batch.id),
        reason: Some(batch.reason.clone()),
        ..event(
            Some(batch.created.max(view.request.admitted)),
            Happened::Packed,
        )
    };
    let submitted = batch.submitted.map(|at| Event {
        lane: Some(Lane::Batch),
        batch: Some(batch.id),
        provider: batch.provider_id.clone(),
        reason: Some(format!("a batch of {} lines", batch.lines)),
        ..event(Some(at), Happened::Submitted)
    });
    [Some(packed), submitted].into_iter().flatten()
}

/// `attempt`: the first call that began from there, if one has.
fn rescued(id: BatchId, batch: Option<&Batch>, attempt: Option<&Attempt>) -> Event {
    let began = attempt.map(|attempt| attempt.started);
    let cancelled = batch
        .and_then(|batch| batch.cancel_sent)
        .filter(|at| began.is_none_or(|began| *at <= began));
    let (reason, left) = match (batch, cancelled) {
        (None, _) => ("taken out of its batch", None),
        (Some(batch), Some(_)) => ("its batch was cancelled", batch.left),
        (Some(batch), None) if batch.submitted.is_none() => (
            "taken out of its batch before that was submitted",
            batch.left,
        ),
        (Some(_), None) => (
            "its batch had not ended, and time was too short for a cancel",
            None,
        ),
    };
    let reason = match left {
        Some(left) => format!("{reason}: {}", left.reason()),
        None => reason.to_owned(),
    };
    Event {
        lane: Some(Lane::Batch),
        batch: Some(id),
        provider: batch.and_then(|batch| batch.provider_id.clone()),
        reason: Some(reason),
        ..event(cancelled.or(began), Happened::Rescued)
    }
}

/// The answer that counts is told by the outcome.
fn tried(attempt: &Attempt, outcome: Option<&Outcome>) -> impl Iterator<Item = Event> {
    let note = (!attempt.note.is_empty()).then(|| attempt.note.clone());
    let started = match attempt.id {
        // That of its batch.
        AttemptId::Batch(_) => None,
        AttemptId::Live(_) => Some(Event {
            lane: Some(attempt.lane),
            provider: attempt.remote.clone(),
            reason: note.clone().filter(|_| attempt.state == AttemptState::Open),
            ..event(Some(attempt.started), Happened::AttemptStarted)
        }),
    };
    let ending = match attempt.state {
        AttemptState::Open | AttemptState::Answered => None,
        AttemptState::Ended => Some("it ended without an answer"),
        AttemptState::Late if outcome.is_some_and(Outcome::was_billed) => {
            Some("it answered when there was another answer: paid twice")
        }
        AttemptState::Late => Some("it answered when the request had ended: paid for nothing"),
        AttemptState::Unaccounted => Some("nobody saw how it ended: it may have been billed"),
    };
    // An error that became the outcome.
    let told = attempt.state == AttemptState::Ended
        && note.is_none()
        && outcome.is_some_and(|outcome| Some(outcome.finished) == attempt.ended);
    let ended = ending.filter(|_| !told).map(|ending| Event {
        lane: Some(attempt.lane),
        batch: match attempt.id {
            AttemptId::Batch(batch) => Some(batch),
            AttemptId::Live(_) => None,
        },
        provider: attempt.remote.clone(),
        reason: Some(match note {
            Some(note) => format!("{ending}: {note}"),
            None => ending.to_owned(),
        }),
        cost: attempt.bill.map(|bill| bill.paid),
        ..event(attempt.ended, Happened::AttemptEnded)
    });
    [started, ended].into_iter().flatten()
}

fn ended(outcome: &Outcome, batches: &[Batch]) -> Event {
    let what = match outcome.state {
        State::Cancelled => Happened::Cancelled,
        State::Succeeded => Happened::Answered,
        State::Failed | State::Queued | State::Placed => Happened::Failed,
    };
    let batch = match outcome.source {
        Source::Batch(id) => Some(id),
        Source::Live(_) | Source::Offpeak => None,
    };
    let provider_batch = batches.iter().find(|it| Some(it.id) == batch);
    let provider_batch = provider_batch.and_then(|batch| batch.provider_id.clone());
    Event {
        lane: outcome.source.lane(),
        batch,
        provider: outcome.provider_request.clone().or(provider_batch),
        reason: Some(outcome.reason.clone()),
        cost: outcome.bill.map(|bill| bill.paid),
        ..event(Some(outcome.finished), what)
    }
}

/// The last try, where there was any. When a failed one was, is not written down.
fn delivered(status: &DeliveryStatus) -> Option<Event> {
    let tries = |tries: u32| match tries {
        1 => "at the first try".to_owned(),
        tries => format!("after {tries} tries"),
    };
    Some(match status {
        DeliveryStatus::Delivered { at, tries: count } => Event {
            reason: Some(tries(*count)),
            ..event(Some(*at), Happened::Delivered)
        },
        DeliveryStatus::Dead {
            at,
            tries: count,
            last,
        } => Event {
            reason: Some(format!("given up {}: {last}", tries(*count))),
            ..event(Some(*at), Happened::DeadLetter)
        },
        DeliveryStatus::Pending {
            next,
            tries: count,
            last: Some(last),
        } => Event {
            reason: Some(format!("{last} ({}; the next is at {next})", tries(*count))),
            ..event(None, Happened::DeliveryFailed)
        },
        DeliveryStatus::Pending { last: None, .. } => return None,
    })
}

#[cfg(test)]
mod tests;
