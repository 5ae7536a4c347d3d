//! What came of a create whose reply was lost: the provider's list tells.

use std::{pin::pin, sync::Arc, time::Duration};

use futures_util::{Stream, TryStreamExt};

use crate::{
    engine::Engine,
    model::{
        batch::{Batch, BatchEvent, BatchState},
        time::Timestamp,
    },
    policy::retry,
    ports::{Credential, ProviderError, RemoteBatch, Since, StoreError, back_to},
};

/// How far before an instant lists are searched: what is made then is dated by another
/// clock, and where that differs from ours is told at best by the second.
const CLOCK_SKEW: Duration = Duration::from_secs(300);

impl Engine {
    /// After a lost reply or a crash: lists back to the create's sending, adopts
    /// what is found, and starts over with a new file only after the visibility
    /// window.
    pub(super) async fn find_created(
        self: &Arc<Self>,
        mut batch: Batch,
        credential: &Credential,
    ) -> Result<(), StoreError> {
        let sent = batch.create_sent.unwrap_or(batch.created);
        // By then, whatever came of the create has ended.
        let over = sent + self.longest_life() < self.now();
        match self.search(credential, &batch, sent, None).await {
            Ok(Some(remote)) => {
                tracing::info!(batch = %batch.id, remote = %remote.id, "adopted");
                self.adopt(batch, remote).await
            }
            Ok(None) => {
                if let Some(pause) = self.search_again(&batch, sent) {
                    return self.save(&batch, self.now() + pause).await;
                }
                // Without its file, a batch that is made from here on fails
                // validation and costs nothing: only then may there be another.
                if let Some(file) = &batch.input_file
                    && let Err(error) = self.provider.delete_file(credential, file).await
                    && (error.is_transient() || !over)
                {
                    return self.try_later(batch, error).await;
                }
                tracing::warn!(batch = %batch.id, "no batch came of the create; starting over");
                self.give_up_create(&batch, sent).await?;
                batch.input_file = None;
                batch.create_sent = None;
                self.advance(&mut batch, BatchEvent::StartOver, self.now())
                    .await
            }
            Err(error) if over && !error.is_transient() => {
                tracing::error!(batch = %batch.id, %error, "the provider does not tell what came of the create");
                self.dissolve(batch).await
            }
            Err(error) => self.try_later(batch, error).await,
        }
    }

    /// A batch that was made before its file was deleted, and does not show, runs and
    /// is billed: it is looked out for.
    async fn give_up_create(&self, batch: &Batch, sent: Timestamp) -> Result<(), StoreError> {
        let Some(file) = &batch.input_file else {
            return Ok(());
        };
        let now = self.now();
        let lost = batch.twin(file, BatchState::Lost, now);
        self.save(&lost, now + self.look_out_again(sent)).await
    }

    /// Looks for a batch whose create was given up, less and less often, until it
    /// must have ended.
    pub(super) async fn look_out(
        self: &Arc<Self>,
        lost: Batch,
        credential: &Credential,
    ) -> Result<(), StoreError> {
        let sent = lost.create_sent.unwrap_or(lost.created);
        let first = self.first_of(&lost).await?;
        if first.as_ref().is_some_and(|first| is_sought(first, &lost)) {
            let due = self.now() + self.settings.submit.retry_base;
            return self.save(&lost, due).await;
        }
        let found = first.and_then(|first| first.provider_id);
        match self.search(credential, &lost, sent, found).await {
            Ok(Some(remote)) => {
                tracing::warn!(batch = ?lost.twin_of, remote = %remote.id, "a create that was given up had made a batch; it is cancelled");
                self.adopt(lost, remote).await
            }
            Ok(None) if sent + self.longest_life() < self.now() => self.forget_lost(lost).await,
            Ok(None) => {
                let due = self.now() + self.look_out_again(sent);
                self.save(&lost, due).await
            }
            Err(_) if sent + self.longest_life() < self.now() => self.forget_lost(lost).await,
            Err(error) if !error.is_transient() => {
                self.heard(lost.credential, &error).await;
                let due = self.now() + self.look_out_again(sent);
                self.save(&lost, due).await
            }
            Err(error) => self.try_later(lost, error).await,
        }
    }

    async fn first_of(&self, twin: &Batch) -> Result<Option<Batch>, StoreError> {
        match twin.twin_of {
            Some(first) => self.store.batch(first).await,
            None => Ok(None),
        }
    }

    async fn forget_lost(&self, mut lost: Batch) -> Result<(), StoreError> {
        self.advance(&mut lost, BatchEvent::Abandon, self.now())
            .await
    }

    fn look_out_again(&self, sent: Timestamp) -> Duration {
        let settings = &self.settings.submit;
        retry::look_out_again(sent.until(self.now()), settings)
    }

    /// None where a batch whose create was `sent` then will not show any more.
    fn search_again(&self, batch: &Batch, sent: Timestamp) -> Option<Duration> {
        let pause = retry::search_again(sent.until(self.now()), &self.settings.submit)?;
        Some(match self.is_wanted(batch.id) {
            // Found late it is cancelled late, and a rescue waits for that.
            true => pause.min(self.settings.watch.poll_interval),
            false => pause,
        })
    }

    /// What came of the batch's create, `but` one that is another's.
    async fn search(
        &self,
        credential: &Credential,
        batch: &Batch,
        since: Timestamp,
        but: Option<String>,
    ) -> Result<Option<RemoteBatch>, ProviderError> {
        let mut remotes = pin!(self.batches_back_to(credential, since));
        while let Some(remote) = remotes.try_next().await? {
            if came_of(&remote, batch) && Some(&remote.id) != but.as_ref() {
                return Ok(Some(remote));
            }
        }
        Ok(None)
    }

    /// What the provider lists as made since then, and some that is older.
    pub(in crate::engine) fn batches_back_to(
        &self,
        credential: &Credential,
        since: Timestamp,
    ) -> impl Stream<Item = Result<RemoteBatch, ProviderError>> {
        back_to(self.listed_since(since), move |after| async move {
            self.provider.batches(credential, after.as_deref()).await
        })
    }

    /// How far back a list is read for what was made since then.
    pub(super) fn listed_since(&self, since: Timestamp) -> Since {
        Since {
            at: since - CLOCK_SKEW,
            now: self.now(),
        }
    }
}

/// Whether the first batch still looks for what came of this create: a kill came
/// between the two commits that give it up.
fn is_sought(first: &Batch, lost: &Batch) -> bool {
    first.state.is_open() && first.provider_id.is_none() && first.input_file == lost.input_file
}

/// Whether this create of ours made it. An input file is for one create; its tag
/// alone is not: the batch may have been started over.
fn came_of(remote: &RemoteBatch, batch: &Batch) -> bool {
    match (&remote.input_file, &batch.input_file) {
        (Some(theirs), Some(ours)) => theirs == ours,
        _ => batch.twin_of.is_none() && remote.tag == Some(batch.id),
    }
}
