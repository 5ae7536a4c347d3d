//! Background responses (WIRE.md §2): created with a completion window, looked at
//! now and then, and cancelled where they will not be in time. Between two looks
//! there is an entry in [`super::backoffs`] and the open attempt with the
//! provider's id, and no task: after a crash the looks go on.

mod end;
mod look;

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use super::rungs::{Known, store_of};
use crate::{
    engine::{Engine, budgets::Reservation, inflight::Mention, reserves::Calling},
    model::{
        attempt::Attempt,
        id::DestinationId,
        request::{Entry, Request},
    },
    ports::{BackgroundCall, StoreError},
};

/// A background response that is open at the provider.
pub struct Remote {
    pub id: String,
    /// What it holds while it is open: the credential that it is asked about with, a
    /// place among those that are, and money.
    _needed: Mention<DestinationId>,
    _slot: Option<OwnedSemaphorePermit>,
    _reserved: Option<Reservation>,
    _calling: Option<Calling>,
}

/// What is there before one is created.
pub struct Opening {
    /// Durable.
    pub attempt: Attempt,
    pub known: Known,
    pub slot: OwnedSemaphorePermit,
    pub reserved: Option<Reservation>,
    pub calling: Option<Calling>,
}

impl Engine {
    pub(super) async fn open_in_background(
        self: &Arc<Self>,
        request: &Request,
        body: Bytes,
        opening: Opening,
    ) -> Result<(), StoreError> {
        let Opening {
            mut attempt,
            known,
            slot,
            reserved,
            calling,
        } = opening;
        let lane = attempt.lane;
        let call = BackgroundCall {
            lane,
            store: store_of(request.endpoint, &body).is_none(),
            body,
        };
        // Its caller may cancel it meanwhile, and then it is to be cancelled too.
        let needed = self
            .summary
            .lock()
            .mention_remote(request.cohort.destination);
        let created = match self.credential(request.credential).await {
            Ok(credential) => self.provider.create_response(&credential, call).await,
            Err(error) => Err(error),
        };
        let error = match created {
            Ok(remote) => {
                attempt.remote = Some(remote.id.clone());
                self.write(request.key, attempt).await?;
                let remote = Remote {
                    id: remote.id,
                    _needed: needed,
                    _slot: Some(slot),
                    _reserved: reserved,
                    _calling: calling,
                };
                let first = self.now() + self.settings.watch.poll_interval;
                self.backoffs.watch(request.entry(), remote, known, first);
                return Ok(());
            }
            Err(error) => error,
        };
        let why = format!("{lane} was not taken: {error}");
        if error.may_have_happened() {
            self.lose(request.into(), attempt, &why).await?;
            return self.step_down(request, known.has_left(lane, why)).await;
        }
        if error.is_transient() {
            self.backoffs.step_down(request.entry(), known);
            return self.failed(request, attempt, error, None).await;
        }
        self.close(request.key, attempt, why.clone()).await?;
        self.step_down(request, known.has_left(lane, why)).await
    }

    /// After a crash: whether the attempt is a background response to be looked at.
    pub(in crate::engine) fn watch_again(&self, entry: Entry, attempt: &Attempt) -> bool {
        let Some(id) = attempt.remote.clone() else {
            return false;
        };
        let reserved = attempt.reserved;
        let remote = Remote {
            id,
            _needed: self.summary.lock().mention_remote(entry.cohort.destination),
            _slot: self.background.clone().try_acquire_owned().ok(),
            _reserved: reserved.and_then(|amount| self.reserve_again(entry.key, amount)),
            _calling: attempt.most.map(|most| self.reserves.call(entry.key, most)),
        };
        let known = Known::default();
        self.backoffs.watch(entry, remote, known, self.now());
        true
    }
}
