//! What was open when we stopped, counted again.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use crate::{
    ledger,
    model::{
        attempt::{Attempt, AttemptEvent},
        batch::Batch,
        money::Usd,
        request::{Entry, Place},
        time::Timestamp,
    },
    ports::{LedgerEntry, StoreError},
};

use super::{Engine, live::Payer};

/// Entries a read.
const PAGE: usize = 4096;
const HOUR: Duration = Duration::from_secs(3600);

impl Engine {
    pub(super) async fn recover(self: &Arc<Self>) -> Result<(), StoreError> {
        for destination in self.store.destinations().await? {
            self.summary.lock().destinations.know(&destination);
        }
        self.count_queue().await?;
        self.count_batches().await?;
        self.reclaim_lines().await?;
        self.count_live().await?;
        for (digest, key) in self.store.unreleased().await? {
            self.holders.orphan(key, digest);
        }
        self.account_for_the_unseen().await?;
        self.count_rescues().await?;
        self.resume_backlogs().await?;
        self.disk_bytes
            .store(self.store.disk_bytes().await?, Ordering::Relaxed);
        let counts = self.counts();
        tracing::info!(?counts, "open work counted");
        Ok(())
    }

    async fn count_queue(&self) -> Result<(), StoreError> {
        let mut after = None;
        loop {
            let page = self.store.scan_queue(after, PAGE).await?;
            let Some((cohort, last)) = page.last() else {
                return Ok(());
            };
            after = Some((*cohort, last.key));
            {
                let mut summary = self.summary.lock();
                for (cohort, entry) in &page {
                    summary.enter(&Place::Queue(*cohort), entry);
                }
            }
            let entries: Vec<Entry> = page.into_iter().map(|(_, entry)| entry).collect();
            self.reserve_open(&entries).await?;
        }
    }

    /// Once the batches are known that they may go back into.
    async fn count_live(&self) -> Result<(), StoreError> {
        let mut after = None;
        loop {
            let page = self.store.scan_live(after, PAGE).await?;
            let Some((last, _)) = page.last() else {
                return Ok(());
            };
            after = Some(*last);
            {
                let mut summary = self.summary.lock();
                for (entry, batch) in &page {
                    summary.enter(&Place::Live, entry);
                    if let Some(batch) = batch {
                        summary.was_overtaken(*batch, entry.key);
                    }
                }
            }
            let entries: Vec<Entry> = page.into_iter().map(|(entry, _)| entry).collect();
            self.reserve_open(&entries).await?;
        }
    }

    /// A batch that was being filled holds what was claimed for it: the packer
    /// seals it. Every other one is due at once.
    async fn count_batches(&self) -> Result<(), StoreError> {
        let now = self.now();
        let batches = self.store.batches(now - self.longest_life()).await?;
        let unaudited = self.not_audited(&batches);
        for batch in batches {
            self.count_lines(&batch).await?;
            if let Some(sent) = batch.create_sent.filter(|sent| *sent >= unaudited) {
                self.audit_later(batch.credential, sent);
            }
            let mut summary = self.summary.lock();
            if let Some(whole) = batch.part_of {
                summary.count_part(whole);
            }
            if let Some(created) = batch.submitted {
                // Where the clock was set back, it seems to be yet to come.
                summary.creates(batch.credential).take(created.min(now));
            }
            if batch.state.is_open() || !batch.litter.is_empty() {
                summary.track_again(batch, now);
            }
        }
        Ok(())
    }

    /// Creates from then on may not have been audited: the process ran when the last one
    /// was sent, and audits those that are older than an interval.
    fn not_audited(&self, batches: &[Batch]) -> Timestamp {
        let last = batches.iter().filter_map(|batch| batch.create_sent).max();
        let window = self.settings.submit.audit_interval + self.settings.submit.visibility_window;
        last.unwrap_or(Timestamp::ZERO) - HOUR.max(2 * window)
    }

    async fn count_lines(&self, batch: &Batch) -> Result<(), StoreError> {
        if !batch.state.is_open() {
            return Ok(());
        }
        let mut after = None;
        let mut kept = Usd::ZERO;
        loop {
            let page = self.store.lines(batch.id, after, PAGE).await?;
            let Some(last) = page.last() else {
                break;
            };
            after = Some(last.key.id);
            {
                let mut summary = self.summary.lock();
                for entry in &page {
                    summary.enter(&Place::Line(batch.id), entry);
                }
            }
            kept += self.reserve_open(&page).await?;
        }
        // What has left it may be billed all the same.
        if let Some(most) = batch.most {
            self.reserves.adrift(batch.tenant, batch.id, most - kept);
        }
        Ok(())
    }

    /// Lines of batches that have ended, or whose record is gone: nothing would ever
    /// look at them.
    async fn reclaim_lines(&self) -> Result<(), StoreError> {
        for batch in self.store.batches_with_lines().await? {
            if self.summary.lock().batches.is_open(&batch) {
                continue;
            }
            let lines = self.lines_of(batch).await?;
            self.reserve_open(&lines).await?;
            tracing::warn!(%batch, lines = lines.len(), "lines were left in a batch that has ended; they go back to their queue");
            for lines in lines.chunk_by(|one, next| one.cohort == next.cohort) {
                let (from, to) = (Place::Line(batch), Place::Queue(lines[0].cohort));
                {
                    let mut summary = self.summary.lock();
                    lines.iter().for_each(|line| summary.enter(&from, line));
                }
                self.relocate_all(lines, from, to).await?;
            }
        }
        Ok(())
    }

    /// Receivers of webhooks that deliveries wait for.
    async fn resume_backlogs(&self) -> Result<(), StoreError> {
        let mut after = None;
        loop {
            let fronts = self.store.backlogs(after, PAGE).await?;
            let Some(last) = fronts.last() else {
                return Ok(());
            };
            after = Some(last.receiver);
            fronts
                .iter()
                .for_each(|front| self.receivers.resumes(front));
        }
    }

    /// Live calls that were open when we died: nobody saw them end. A background
    /// response that has an id is looked at again.
    async fn account_for_the_unseen(&self) -> Result<(), StoreError> {
        for (key, id) in self.store.open_attempts().await? {
            let Some(head) = self.store.head(key).await? else {
                continue;
            };
            let attempts = self.store.attempts(key).await?;
            let attempt = attempts.into_iter().find(|attempt| attempt.id == id);
            if let Some(attempt) = attempt {
                let entry = head.request.entry();
                self.see_again(entry, (&head.request).into(), attempt)
                    .await?;
            }
        }
        for call in self.store.unbooked(None).await? {
            self.see_again(call.entry, (&call).into(), call.attempt.clone())
                .await?;
        }
        Ok(())
    }

    async fn see_again(
        &self,
        entry: Entry,
        payer: Payer<'_>,
        attempt: Attempt,
    ) -> Result<(), StoreError> {
        if self.watch_again(entry, &attempt) {
            return Ok(());
        }
        self.lose_sight(payer, attempt, "offpeak stopped while it ran")
            .await
    }

    pub(super) async fn lose_sight(
        &self,
        payer: Payer<'_>,
        mut attempt: Attempt,
        note: &str,
    ) -> Result<(), StoreError> {
        let now = self.now();
        match attempt.state.next(AttemptEvent::LoseSight) {
            Ok(state) => attempt.state = state,
            Err(illegal) => {
                tracing::error!(id = %payer.key.id, %illegal, "attempt");
                return Ok(());
            }
        }
        attempt.ended = Some(now);
        attempt.note = note.to_owned();
        let entry = LedgerEntry {
            key: payer.row_key(now, Some(attempt.lane)),
            row: ledger::unaccounted(&attempt),
        };
        self.account(payer.key, attempt, entry).await
    }
}
