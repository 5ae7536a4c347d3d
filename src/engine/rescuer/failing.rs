//! What ends at its deadline: `Offpeak-On-Late: fail`, and whatever the key that is to
//! pay for it is refused for.

use std::sync::Arc;

use crate::{
    engine::{Engine, drive::Next, refusals::paused, settling::error_body, summary::Tracked},
    model::{
        batch::Left,
        id::{RequestId, RequestKey, TenantId},
        request::{Cohort, Entry, OnLate, Place, State},
        time::Timestamp,
    },
    ports::StoreError,
};

use super::PAGE;

/// Before all others.
const FIRST: RequestKey = RequestKey {
    tenant: TenantId([0; 16]),
    id: RequestId::MIN,
};

impl Engine {
    pub(super) async fn fail_turn(self: &Arc<Self>) -> Next {
        let (cohorts, batches) = {
            let summary = self.summary.lock();
            let destinations = &summary.destinations;
            let fails = |cohort: &Cohort| {
                let destination = destinations.get(&cohort.destination);
                cohort.on_late == OnLate::Fail
                    || destination.is_some_and(|it| self.is_refused(it.credential))
            };
            let cohorts = summary.queue.keys().copied().filter(|cohort| fails(cohort));
            let open =
                |tracked: &&Tracked| tracked.batch.state.is_open() && fails(&tracked.batch.cohort);
            let batches = summary.batches.values().filter(open).cloned();
            (cohorts.collect::<Vec<_>>(), batches.collect::<Vec<_>>())
        };
        let mut next = Next::OnSignal;
        for cohort in cohorts {
            let failed = self.fail_queued(cohort).await;
            next = next.sooner(self.or_soon("failing what is late", failed));
        }
        for tracked in batches {
            let failed = self.fail_lines(&tracked).await;
            next = next.sooner(self.or_soon("failing what is late", failed));
        }
        next
    }

    async fn fail_queued(self: &Arc<Self>, cohort: Cohort) -> Result<Next, StoreError> {
        let now = self.now();
        // Each has its own deadline; none is before the bucket.
        if cohort.bucket.start > now {
            return Ok(Next::At(cohort.bucket.start));
        }
        let mut next: Option<Timestamp> = None;
        let mut after = (cohort, FIRST);
        loop {
            let page = self.store.scan_queue(Some(after), PAGE).await?;
            let ours = page.iter().take_while(|(other, _)| *other == cohort);
            let (due, rest): (Vec<Entry>, Vec<Entry>) = ours
                .map(|(_, entry)| *entry)
                .partition(|entry| entry.deadline <= now);
            next = rest.iter().map(|entry| entry.deadline).chain(next).min();
            let whole = due.len() + rest.len() == PAGE;
            self.fail_late(&due, Place::Queue(cohort)).await?;
            match page.last() {
                Some((_, last)) if whole => after = (cohort, last.key),
                _ => return Ok(next.map_or(Next::OnSignal, Next::At)),
            }
        }
    }

    async fn fail_lines(self: &Arc<Self>, tracked: &Tracked) -> Result<Next, StoreError> {
        let batch = &tracked.batch;
        if batch.earliest_deadline > self.now() {
            return Ok(Next::At(batch.earliest_deadline));
        }
        let (due, next) = self.due_lines(batch.id, |line| line.deadline).await?;
        self.fail_late(&due, Place::Line(batch.id)).await?;
        if next == Next::OnSignal && !tracked.is_wanted() {
            self.want_back(batch.id, Left::Late);
        }
        Ok(next)
    }

    /// Those that stand in one place. What cannot be ended keeps none of the others.
    pub(in crate::engine) async fn fail_late(
        self: &Arc<Self>,
        entries: &[Entry],
        place: Place,
    ) -> Result<(), StoreError> {
        let mut all = Ok(());
        for chunk in entries.chunks(PAGE / 2) {
            let mut endings = Vec::with_capacity(chunk.len());
            for entry in chunk {
                let head = match self.store.head(entry.key).await {
                    Ok(Some(head)) => head,
                    Ok(None) => continue,
                    Err(damage @ StoreError::Corrupt(_)) => {
                        let given_up = self.give_up_damaged(*entry, place, &damage).await;
                        all = all.and(given_up);
                        continue;
                    }
                    Err(error) => return Err(error),
                };
                let places = self.places_of(&head.request);
                if let Some(refusal) = self.refusal(head.request.credential) {
                    let reason = format!("the deadline passed while {}", paused(&refusal));
                    let (state, body) = (State::Failed, refusal.body);
                    endings.push(self.own_ending(&head.request, places, state, 401, reason, body));
                    continue;
                }
                // Its key works again.
                if head.request.on_late != OnLate::Fail {
                    continue;
                }
                let message = "The deadline passed before the provider answered, and the \
                    call asked to fail rather than to be late (Offpeak-On-Late: fail).";
                let body = error_body(message, "timeout_error", None, Some("deadline_exceeded"));
                endings.push(self.own_ending(
                    &head.request,
                    places,
                    State::Failed,
                    504,
                    "the deadline passed (Offpeak-On-Late: fail)".into(),
                    body,
                ));
            }
            all = all.and(self.settle(endings).await.map(drop));
        }
        all
    }
}
