//! What operators may ask of the requests, batches and webhooks of all tenants.

use crate::{
    model::{
        batch::Batch,
        id::{ReceiverId, RequestId, RequestKey, TenantId},
        ledger::{LedgerKey, LedgerRow},
        time::Timestamp,
    },
    ports::{DeliveryCounts, Head, LedgerRows, StoreError},
};

use super::{Engine, View};

/// A batch, and how far it is.
pub struct Progress {
    pub batch: Batch,
    /// Lines that the provider had finished at the last look; none where it did not say.
    pub finished: Option<u32>,
}

/// What waits longest, and what is due first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Edges {
    /// When the oldest request was admitted that waits to be packed.
    pub oldest_queued: Option<Timestamp>,
    /// The earliest deadline of all that is open. Of what waits to be packed it is known
    /// to the width of its cohort only, and told too early rather than too late.
    pub earliest_deadline: Option<Timestamp>,
}

/// Rows of the ledger that are read together.
const ROWS: usize = 500;
/// Queues of live work whose fronts are read for one answer.
const FRONTS: usize = 64;

impl Engine {
    /// The request of this id, whoever's it is.
    pub async fn find(&self, id: RequestId) -> Result<Option<RequestKey>, StoreError> {
        self.store.find(id).await
    }

    /// Requests of all tenants, newest first.
    pub async fn newest(
        &self,
        before: Option<RequestId>,
        limit: usize,
    ) -> Result<Vec<View>, StoreError> {
        let heads = self.store.newest(before, limit).await?;
        self.views_of(heads).await
    }

    /// Endings of one tenant or of all, the last first, each with its place in the commit order;
    /// without a request where that was erased since.
    pub async fn recent(
        &self,
        of: Option<TenantId>,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<(u64, Option<View>)>, StoreError> {
        let mut endings = Vec::new();
        for entry in self.store.recent(of, before, limit).await? {
            let head = self.store.head(entry.key).await;
            let view = match head {
                Ok(head) => self.views_of(head.into_iter().collect()).await?.pop(),
                Err(StoreError::Corrupt(damage)) => {
                    tracing::error!(id = %entry.key.id, %damage, "a request is passed over");
                    None
                }
                Err(error) => return Err(error),
            };
            endings.push((entry.sequence, view));
        }
        Ok(endings)
    }

    /// What can be read of them.
    pub(super) async fn views_of(&self, heads: Vec<Head>) -> Result<Vec<View>, StoreError> {
        let mut views = Vec::with_capacity(heads.len());
        for head in heads {
            let id = head.request.key.id;
            match self.view_of(head).await {
                Err(StoreError::Corrupt(damage)) => {
                    tracing::error!(%id, %damage, "a request is passed over");
                }
                view => views.push(view?),
            }
        }
        Ok(views)
    }

    /// Rows of the ledger from after `after`: fewer than `limit` are the last.
    pub async fn ledger_page(
        &self,
        rows: &LedgerRows,
        after: Option<&LedgerKey>,
        limit: usize,
    ) -> Result<Vec<(LedgerKey, LedgerRow)>, StoreError> {
        self.store.ledger_page(rows, after, limit).await
    }

    /// Every such row, of which a page at a time is in memory.
    pub async fn fold_ledger(
        &self,
        rows: &LedgerRows,
        mut add: impl FnMut(&LedgerKey, &LedgerRow),
    ) -> Result<(), StoreError> {
        let mut after: Option<LedgerKey> = None;
        loop {
            let page = self.ledger_page(rows, after.as_ref(), ROWS).await?;
            page.iter().for_each(|(key, row)| add(key, row));
            match page.into_iter().nth(ROWS - 1) {
                Some((last, _)) => after = Some(last),
                None => return Ok(()),
            }
        }
    }

    /// Whether the tenant has any row of the hour `since`, counted from the Unix epoch,
    /// or of a later one.
    pub async fn has_ledger(&self, tenant: TenantId, since: u32) -> Result<bool, StoreError> {
        let rows = LedgerRows::of_tenant(tenant, since);
        Ok(!self.ledger_page(&rows, None, 1).await?.is_empty())
    }

    /// Dead letters of all tenants, by tenant and receiver.
    pub async fn all_dead_letters(
        &self,
        after: Option<(ReceiverId, RequestKey)>,
        limit: usize,
    ) -> Result<Vec<(ReceiverId, RequestKey)>, StoreError> {
        self.store.all_dead_letters(after, limit).await
    }

    pub fn delivery_counts(&self) -> DeliveryCounts {
        self.store.delivery_counts()
    }

    /// Batches that have not ended, earliest deadline first.
    pub fn batches_in_flight(&self) -> Vec<Progress> {
        let summary = self.summary.lock();
        let open = summary.batches.values();
        let open = open.filter(|tracked| tracked.batch.state.is_open());
        let mut open: Vec<Progress> = open
            .map(|tracked| Progress {
                batch: tracked.batch.clone(),
                finished: tracked
                    .heard
                    .map(|share| (share * f64::from(tracked.batch.lines)).round() as u32),
            })
            .collect();
        drop(summary);
        open.sort_by_key(|it| (it.batch.earliest_deadline, it.batch.id));
        open
    }

    /// Batches that have ended and are still known, the newest first, among the last
    /// `among` that were begun.
    pub async fn ended_batches(&self, among: usize) -> Result<Vec<Batch>, StoreError> {
        let mut batches = self.store.newest_batches(among).await?;
        batches.retain(|batch| !batch.state.is_open());
        Ok(batches)
    }

    pub async fn edges(&self) -> Result<Edges, StoreError> {
        let oldest_queued = self.oldest_queued();
        let (mut edges, queues) = {
            let summary = self.summary.lock();
            let waiting = summary
                .queue
                .iter()
                .filter(|(_, waiting)| waiting.lines > 0);
            let buckets = waiting.map(|(cohort, _)| cohort.bucket.start);
            let open = summary.batches.values();
            let open = open.filter(|tracked| tracked.batch.state.is_open());
            let batches = open.map(|tracked| tracked.batch.earliest_deadline);
            // One without a line yet has none.
            let batches = batches.filter(|deadline| *deadline < Timestamp::MAX);
            let edges = Edges {
                oldest_queued,
                earliest_deadline: buckets.chain(batches).min(),
            };
            let queues: Vec<_> = summary.live_queues().into_keys().take(FRONTS).collect();
            (edges, queues)
        };
        for queue in queues {
            let front = self
                .store
                .live(queue, std::ops::Bound::Unbounded, 1)
                .await?;
            let due = front.first().map(|entry| entry.deadline);
            edges.earliest_deadline = edges.earliest_deadline.into_iter().chain(due).min();
        }
        Ok(edges)
    }
}
