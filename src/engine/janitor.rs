//! Keeps house: old results, provider files, credentials that no work needs.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use crate::{
    model::{
        id::{CredentialId, TenantId},
        time::Timestamp,
    },
    ports::StoreError,
};

use super::{Engine, drive::Next, errands::Errand};

/// Receivers of webhooks that are off stay so for a month; then they are asked again.
const OFF: Duration = Duration::from_secs(30 * 24 * 3600);
/// Requests removed in one write.
const PURGE: usize = 48;

/// What a tenant has spent counts for its budgets this long, and its destinations tell
/// at the next start that it is there.
const BUDGETED_HOURS: u32 = 48;

/// What grows old by months, and who is idle for days, is looked at this often.
const SELDOM: Duration = Duration::from_secs(3600);

/// What need not be done at every sweep.
#[derive(Default)]
pub(super) struct House {
    /// When old ledger rows and receivers are looked for again.
    old: Option<Timestamp>,
    /// Credentials that were dropped, and when their tenants' spending is looked at again.
    dropped: HashMap<CredentialId, Timestamp>,
}

impl Engine {
    pub(super) async fn janitor_turn(self: &Arc<Self>) -> Result<Next, StoreError> {
        let now = self.now();
        for errand in Errand::ALL {
            self.run_errands(errand);
        }
        let retention = &self.settings.retention;
        let horizon = now - retention.results;
        let mut next = Next::At(now + retention.sweep_interval);
        // Each by itself: what stands in the way of one stops no other.
        let mut each = |what, done: Result<(), StoreError>| {
            next = next.sooner(self.or_soon(what, done.map(|()| Next::OnSignal)));
        };
        each("purging requests", self.purge(horizon).await);
        each("purging batches", self.store.purge_batches(horizon).await);
        if self.house.lock().old.is_none_or(|due| due <= now) {
            each("purging what is old", self.purge_old(now).await);
        }
        each("forgetting orphans", self.forget_orphans(horizon).await);
        each("dropping credentials", self.drop_credentials().await);
        each("keeping what was learned", self.memorise().await);
        self.forget_plans();
        each("measuring the disk", self.measure_disk().await);
        Ok(next)
    }

    async fn purge(&self, horizon: Timestamp) -> Result<(), StoreError> {
        while self.store.purge(horizon, PURGE).await? == PURGE {
            if self.stop.is_cancelled() {
                break;
            }
        }
        Ok(())
    }

    async fn forget_orphans(&self, horizon: Timestamp) -> Result<(), StoreError> {
        for (key, digest) in self.holders.orphans_before(horizon) {
            match self.store.head(key).await {
                Ok(Some(_)) => {}
                Ok(None) | Err(StoreError::Corrupt(_)) => self.holders.forget(key, digest),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn measure_disk(&self) -> Result<(), StoreError> {
        let bytes = self.store.disk_bytes().await?;
        self.disk_bytes.store(bytes, Ordering::Relaxed);
        Ok(())
    }

    async fn purge_old(&self, now: Timestamp) -> Result<(), StoreError> {
        self.store.purge_turned_off(now - OFF).await?;
        let kept = now - self.settings.retention.ledger;
        let mut from = None;
        loop {
            from = self.store.purge_ledger(kept.as_hours(), from).await?;
            if from.is_none() {
                self.house.lock().old = Some(now + SELDOM);
                return Ok(());
            }
            if self.stop.is_cancelled() {
                return Ok(());
            }
        }
    }

    /// Deletes the provider's files of a batch whose every line is durable: of the
    /// credential's, the one that is due longest. What cannot be deleted is tried again a
    /// sweep later, and expires by itself.
    pub(super) async fn clear_litter(&self, id: CredentialId) -> Result<(), StoreError> {
        let longest_due = {
            let summary = self.summary.lock();
            let mut littered = summary.littered(self.now()).into_iter();
            let own = littered.find(|(_, credential, _)| *credential == id);
            own.and_then(|(.., batch)| Some(summary.batches.get(&batch)?.batch.clone()))
        };
        let Some(mut batch) = longest_due else {
            return Ok(());
        };
        let again = self.settings.retention.sweep_interval;
        let Ok(credential) = self.credential(id).await else {
            self.put_off(batch.id, again);
            return Ok(());
        };
        let mut left = Vec::new();
        for file in std::mem::take(&mut batch.litter) {
            if let Err(error) = self.provider.delete_file(&credential, &file).await {
                tracing::warn!(batch = %batch.id, %file, %error, "a provider file was not deleted");
                if error.is_transient() {
                    left.push(file);
                }
            }
        }
        batch.litter = left;
        self.save(&batch, self.now() + again).await
    }

    async fn drop_credentials(self: &Arc<Self>) -> Result<(), StoreError> {
        let idle: BTreeSet<(TenantId, CredentialId)> = {
            let summary = self.summary.lock();
            let destinations = summary.destinations.values();
            let idle = destinations.filter(|destination| !summary.needs(destination.credential));
            idle.map(|destination| (destination.tenant, destination.credential))
                .collect()
        };
        let now = self.now();
        let since = now.as_hours().saturating_sub(BUDGETED_HOURS);
        for (tenant, credential) in idle {
            let rests = self.house.lock().dropped.get(&credential).copied();
            let rests = rests.is_some_and(|until| now < until);
            if rests && self.store.credential(credential).await?.is_none() {
                continue;
            }
            if self.audits.look_last(credential, now) {
                self.run_errands(Errand::Audit);
                continue;
            }
            let idle = !self.has_ledger(tenant, since).await?;
            // Admissions wait for one of them at most.
            let _gate = self.credentials.gate.write().await;
            if self.summary.lock().needs(credential) {
                continue;
            }
            if self.store.credential(credential).await?.is_some() {
                self.store.drop_credential(credential).await?;
            }
            // It may have come and gone meanwhile.
            if idle && !self.has_ledger(tenant, since).await? {
                self.forget_destinations(credential).await?;
                self.house.lock().dropped.remove(&credential);
            } else {
                self.house.lock().dropped.insert(credential, now + SELDOM);
            }
            self.credentials.forget(credential);
            self.refusals.forget(credential);
            self.forget_organization(credential).await?;
        }
        Ok(())
    }

    /// Nothing goes there; the next call writes them down again.
    async fn forget_destinations(&self, credential: CredentialId) -> Result<(), StoreError> {
        let idle = self.summary.lock().destinations.take(credential);
        for id in idle {
            self.store.drop_destination(id).await?;
        }
        Ok(())
    }
}
