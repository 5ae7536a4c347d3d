//! Second batches of our lines that nobody asked for: a gateway on the way, or the
//! provider itself, can make two of one create. They are found in the provider's
//! list now and then, cancelled, and what they billed is booked (DESIGN.md §4.2).

use std::{collections::HashMap, pin::pin};

use futures_util::StreamExt;
use parking_lot::Mutex;

use crate::{
    model::{
        batch::{Batch, BatchState},
        id::{BatchId, CredentialId},
        time::Timestamp,
    },
    ports::{Credential, ProviderError, RemoteBatch, StoreError},
};

use super::{Engine, refusals::is_of_the_key};

/// Creates that no audit has covered yet, by credential.
#[derive(Default)]
pub(super) struct Audits {
    creates: Mutex<HashMap<CredentialId, Span>>,
}

#[derive(Clone, Copy)]
struct Span {
    first: Timestamp,
    last: Timestamp,
    /// Before then the list is not read again.
    due: Timestamp,
    /// The credential is dropped after the next look.
    is_leaving: bool,
}

/// One look at a credential's list.
struct Look {
    /// Back to when.
    since: Timestamp,
    is_last: bool,
}

impl Audits {
    /// A create was sent.
    pub fn created(&self, credential: CredentialId, sent: Timestamp, due: Timestamp) {
        let mut creates = self.creates.lock();
        let span = creates.entry(credential).or_insert(Span {
            first: sent,
            last: sent,
            due,
            is_leaving: false,
        });
        span.first = span.first.min(sent);
        span.last = span.last.max(sent);
        span.is_leaving = false;
    }

    /// Whose list is to be read, longest due first.
    pub fn due(&self, now: Timestamp) -> Vec<CredentialId> {
        let creates = self.creates.lock();
        let due = creates.iter().filter(|(_, span)| span.due <= now);
        let mut due: Vec<_> = due.map(|(id, span)| (span.due, *id)).collect();
        due.sort();
        due.into_iter().map(|(_, credential)| credential).collect()
    }

    /// A last look before the credential is dropped: what shows later is not seen. False
    /// where there is nothing to look for.
    pub fn look_last(&self, credential: CredentialId, now: Timestamp) -> bool {
        let mut creates = self.creates.lock();
        let span = creates.get_mut(&credential);
        span.is_some_and(|span| {
            span.is_leaving = true;
            span.due = span.due.min(now);
            true
        })
    }

    /// The look that is due; the next one is at `next`.
    fn begin(&self, credential: CredentialId, next: Timestamp) -> Option<Look> {
        let mut creates = self.creates.lock();
        let span = creates.get_mut(&credential)?;
        span.due = next;
        Some(Look {
            since: span.first,
            is_last: std::mem::take(&mut span.is_leaving),
        })
    }

    fn forget(&self, credential: CredentialId) {
        self.creates.lock().remove(&credential);
    }

    /// What was created since then is to be looked at another time.
    fn forget_before(&self, credential: CredentialId, now: Timestamp) {
        let mut creates = self.creates.lock();
        if creates
            .get(&credential)
            .is_some_and(|span| span.last <= now)
        {
            creates.remove(&credential);
        }
    }

    /// What was created before `shown` has been seen, if it was there; what was
    /// created later may show yet.
    fn covered(&self, credential: CredentialId, shown: Timestamp) {
        let mut creates = self.creates.lock();
        if let Some(span) = creates.get_mut(&credential) {
            span.first = span.first.max(shown);
            if span.last < shown {
                creates.remove(&credential);
            }
        }
    }
}

impl Engine {
    /// Looks for second batches of the credential's creates.
    pub(super) async fn audit(&self, id: CredentialId) -> Result<(), StoreError> {
        let now = self.now();
        let sweep = self.settings.retention.sweep_interval;
        let next = now + self.settings.submit.audit_interval.max(sweep);
        let Some(look) = self.audits.begin(id, next) else {
            return Ok(());
        };
        let looked = self.audit_since(id, look.since).await?;
        let is_over = look.since + self.longest_life() <= now;
        if look.is_last && (looked || is_over) {
            self.audits.forget_before(id, now);
            self.signals.janitor.notify_one();
        }
        Ok(())
    }

    /// False where nobody could look.
    async fn audit_since(&self, id: CredentialId, since: Timestamp) -> Result<bool, StoreError> {
        let shown = self.now() - self.settings.submit.visibility_window;
        let Ok(credential) = self.credential(id).await else {
            self.audits.forget(id);
            return Ok(true);
        };
        match self.second_batches(&credential, since).await? {
            Ok(()) => self.audits.covered(id, shown),
            // There is no such list.
            Err(error) if !error.is_transient() && !is_of_the_key(&error) => {
                self.audits.forget(id);
            }
            Err(error) => {
                tracing::warn!(%error, "the list of batches was not audited");
                return Ok(false);
            }
        }
        Ok(true)
    }

    pub(super) fn audit_later(&self, credential: CredentialId, sent: Timestamp) {
        let due = self.now() + self.settings.submit.audit_interval;
        self.audits.created(credential, sent, due);
    }

    async fn second_batches(
        &self,
        credential: &Credential,
        since: Timestamp,
    ) -> Result<Result<(), ProviderError>, StoreError> {
        let mut remotes = pin!(self.batches_back_to(credential, since));
        let mut ended = None;
        while let Some(remote) = remotes.next().await {
            match remote {
                Ok(remote) => self.look_twice(&remote, since, &mut ended).await?,
                Err(error) => return Ok(Err(error)),
            }
        }
        Ok(Ok(()))
    }

    /// Writes down a batch that came of a create of ours beside the one we know of.
    async fn look_twice(
        &self,
        remote: &RemoteBatch,
        since: Timestamp,
        ended: &mut Option<ByFile>,
    ) -> Result<(), StoreError> {
        let Some(batch) = self.batch_of(remote, since, ended).await? else {
            return Ok(());
        };
        // What came of a create that is still being looked for is the submitter's to find.
        // One that was refused, in words that were not true, is nobody's.
        let is_known = batch.provider_id.as_ref() == Some(&remote.id);
        let is_looked_for = batch.provider_id.is_none() && batch.state.is_open();
        if is_known || is_looked_for {
            return Ok(());
        }
        if let Some(file) = &remote.input_file
            && self.store.batch(batch.id.twin(file)).await?.is_some()
        {
            return Ok(());
        }
        let now = self.now();
        let mut twin = batch.twin(&remote.id, BatchState::Submitted, now);
        if self.store.batch(twin.id).await?.is_some() {
            return Ok(());
        }
        tracing::warn!(batch = %batch.id, remote = %remote.id, "one create made two batches; the second is cancelled");
        // The input file is the first one's, too.
        twin.input_file = None;
        twin.provider_id = Some(remote.id.clone());
        twin.provider_status = Some(remote.status_text.clone());
        twin.submitted = Some(now);
        self.save(&twin, now).await?;
        self.signals.watcher.notify_one();
        Ok(())
    }

    /// Ours that this came of, by its tag, or where the provider has forgotten that, by
    /// its input file. `ended` is read at the first one that needs it.
    async fn batch_of(
        &self,
        remote: &RemoteBatch,
        since: Timestamp,
        ended: &mut Option<ByFile>,
    ) -> Result<Option<Batch>, StoreError> {
        if let Some(tag) = remote.tag {
            return self.store.batch(tag).await;
        }
        let Some(file) = &remote.input_file else {
            return Ok(None);
        };
        let is_its =
            |batch: &Batch| batch.twin_of.is_none() && batch.input_file.as_ref() == Some(file);
        if let Some(open) = self.tracked(is_its).pop() {
            return Ok(Some(open));
        }
        let ended = match ended {
            Some(ended) => ended,
            None => ended.insert(by_file(self.store.batches(since).await?)),
        };
        match ended.get(file) {
            Some(id) => self.store.batch(*id).await,
            None => Ok(None),
        }
    }
}

/// Our batches by their input files.
type ByFile = HashMap<String, BatchId>;

fn by_file(batches: Vec<Batch>) -> ByFile {
    let first = batches.into_iter().filter(|batch| batch.twin_of.is_none());
    first
        .filter_map(|batch| Some((batch.input_file?, batch.id)))
        .collect()
}
