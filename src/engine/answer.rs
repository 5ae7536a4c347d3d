//! What may be asked about requests.

use std::{io, sync::Arc};

use bytes::Bytes;
use thiserror::Error;
use tokio::sync::mpsc;

use crate::{
    model::{
        attempt::{Attempt, AttemptState, Lane},
        id::{RequestId, RequestKey, TenantId},
        request::{Outcome, Place, Request, State},
        time::Timestamp,
    },
    ports::{DeliveryStatus, FeedPage, Head, Outline, StoreError},
};

use super::{Engine, Waiter, refusals::paused};

/// A request with everything that is known of it.
pub struct View {
    pub request: Request,
    /// None while it is open.
    pub outcome: Option<Outcome>,
    /// Where it is while it is open.
    pub place: Option<Place>,
    pub state: State,
    pub attempts: Vec<Attempt>,
    pub delivery: Option<DeliveryStatus>,
    /// Why it is answered as it is.
    pub reason: String,
}

impl View {
    /// The lane that answered, or that is at work. The queue is the batch lane's;
    /// between two tries it is the lane that was chosen, or the last one for
    /// what came out of a batch.
    pub fn lane(&self) -> Lane {
        let planned = self.request.lane;
        if let Some(outcome) = &self.outcome {
            return outcome.source.lane().unwrap_or(planned);
        }
        match self.place {
            Some(Place::Queue(_) | Place::Line(_)) => Lane::Batch,
            Some(Place::Live) => {
                let mut attempts = self.attempts.iter();
                match attempts.find(|attempt| attempt.state == AttemptState::Open) {
                    Some(attempt) => attempt.lane,
                    None if planned == Lane::Batch => Lane::Standard,
                    None => planned,
                }
            }
            None => planned,
        }
    }
}

#[derive(Debug, Error)]
pub enum FeedError {
    #[error("the cursor is older than what is kept: entries up to {floor} have been removed")]
    Expired { floor: u64 },
    #[error("the cursor is of another data directory: nothing has ended behind it here")]
    Foreign,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Engine {
    /// Wakes at the request's ending. Register before reading.
    pub fn waiter(&self, key: RequestKey) -> Waiter {
        self.waiters.request(key)
    }

    /// Wakes at the tenant's next ending.
    pub fn feed_waiter(&self, tenant: TenantId) -> Waiter {
        self.waiters.feed(tenant)
    }

    pub async fn head(&self, key: RequestKey) -> Result<Option<Head>, StoreError> {
        self.store.head(key).await
    }

    /// The request, with its answer if that has at most `short` bytes.
    pub async fn outline(
        &self,
        key: RequestKey,
        short: u64,
    ) -> Result<Option<Outline>, StoreError> {
        self.store.outline(key, short).await
    }

    /// Up to `most` bytes of an answer, from byte `from` on; none where it was erased.
    pub async fn answer_part(
        &self,
        key: RequestKey,
        from: u64,
        most: usize,
    ) -> Result<Option<Bytes>, StoreError> {
        self.store.answer_part(key, from, most).await
    }

    pub async fn view(&self, key: RequestKey) -> Result<Option<View>, StoreError> {
        let Some(head) = self.store.head(key).await? else {
            return Ok(None);
        };
        self.view_of(head).await.map(Some)
    }

    pub(super) async fn view_of(&self, head: Head) -> Result<View, StoreError> {
        let Head { request, outcome } = head;
        let (place, state) = match &outcome {
            Some(outcome) => (None, outcome.state),
            None => {
                let batches = self.summary.lock().batches_of(&request.cohort);
                let place = self.store.place(request.key, &batches).await?;
                (place, place.as_ref().map_or(State::Queued, State::from))
            }
        };
        let now = self.now();
        let unpaid = match place {
            Some(Place::Queue(_) | Place::Line(_)) => self.late_for_budget(&request, now),
            Some(Place::Live) | None => None,
        };
        let reason = match &outcome {
            Some(outcome) => outcome.reason.clone(),
            None => match self.refusal(request.credential) {
                Some(refusal) => paused(&refusal),
                None => unpaid.unwrap_or_else(|| request.reason.clone()),
            },
        };
        Ok(View {
            reason,
            place,
            state,
            attempts: self.store.attempts(request.key).await?,
            delivery: self.store.delivery_status(request.key).await?,
            request,
            outcome,
        })
    }

    /// Newest first.
    pub async fn list(
        &self,
        tenant: TenantId,
        before: Option<RequestId>,
        limit: usize,
    ) -> Result<Vec<View>, StoreError> {
        let heads = self.store.list(tenant, before, limit).await?;
        self.views_of(heads).await
    }

    /// Endings in commit order, from after `after`.
    pub async fn feed(
        &self,
        tenant: TenantId,
        after: u64,
        limit: usize,
    ) -> Result<FeedPage, FeedError> {
        let page = self.store.feed(tenant, after, limit).await?;
        if after > 0 && after < page.floor {
            return Err(FeedError::Expired { floor: page.floor });
        }
        // Waiting there would be silence until as much has ended here again.
        if after >= page.ceiling {
            return Err(FeedError::Foreign);
        }
        Ok(page)
    }

    /// Where the feed ends now: `after` for what ends from here on.
    pub async fn feed_end(&self, tenant: TenantId) -> Result<u64, StoreError> {
        self.store.feed_end(tenant).await
    }

    /// A copy of all that is stored, as it is taken.
    pub fn backup(self: &Arc<Self>) -> mpsc::Receiver<io::Result<Bytes>> {
        let (out, taken) = mpsc::channel(4);
        let store = self.store.clone();
        self.tasks.spawn(async move { store.backup(out).await });
        taken
    }

    /// When a pending request is worth asking for again.
    pub fn retry_after(&self, now: Timestamp, deadline: Timestamp) -> std::time::Duration {
        let interval = self.settings.watch.poll_interval;
        now.until(deadline)
            .min(interval)
            .max(std::time::Duration::from_secs(1))
    }
}
