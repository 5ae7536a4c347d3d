//! Queue entries → lines of one batch. They are claimed in small commits and then
//! sealed by one small write; a batch that a crash left half filled is sealed as it
//! is.

use std::sync::Arc;

use crate::{
    model::{
        batch::{Batch, BatchEvent},
        id::BatchId,
        request::{Cohort, Destination, Entry, Place},
        time::Timestamp,
    },
    policy::pack::{Limits, Load, Tokens},
    ports::StoreError,
};

use super::{Engine, packer::CLAIM};

/// What came of filling a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Filled {
    Sealed,
    /// There was nothing to claim.
    Nothing,
    /// The next line needs more tokens than there is room for.
    TooLarge,
}

impl Engine {
    pub(super) async fn fill(
        self: &Arc<Self>,
        cohort: Cohort,
        to: &Destination,
        tokens: Option<Tokens>,
        reason: String,
    ) -> Result<Filled, StoreError> {
        let first = self.store.queued(cohort, 1).await?;
        if first.is_empty() {
            return Ok(Filled::Nothing);
        }
        if let Some(room) = tokens {
            let counts = self.count_tokens(&to.model, &first, u64::MAX).await?;
            if counts.iter().any(|count| *count > room.first) {
                return Ok(Filled::TooLarge);
            }
        }
        let now = self.now();
        self.summary.lock().creates(to.credential).take(now);
        let id = BatchId::new(now, self.clock.random());
        let batch = Batch::new(id, cohort, to.clone(), now, reason);
        self.store.put_batch(&batch).await?;
        self.summary.lock().track(batch.clone(), now);
        let limits = Limits {
            settings: &self.settings.packing,
            tokens,
        };
        let mut load = Load::default();
        loop {
            let entries = self.store.queued(cohort, CLAIM).await?;
            let fitting = self.fitting(to, &entries, &mut load, &limits).await?;
            if fitting == 0 {
                self.refresh_oldest(cohort, entries.first());
                break;
            }
            let (from, to) = (Place::Queue(cohort), Place::Line(batch.id));
            self.relocate_all(&entries[..fitting], from, to).await?;
        }
        self.summary.lock().filled(to);
        let counted = tokens.map(|_| load.tokens);
        self.seal_with(batch, counted).await?;
        Ok(Filled::Sealed)
    }

    /// How many of the entries the batch still takes.
    async fn fitting(
        &self,
        to: &Destination,
        entries: &[Entry],
        load: &mut Load,
        limits: &Limits<'_>,
    ) -> Result<usize, StoreError> {
        let counts = match limits.tokens {
            None => vec![0; entries.len()],
            Some(room) => {
                let left = room.most.saturating_sub(load.tokens);
                self.count_tokens(&to.model, entries, left).await?
            }
        };
        let lines = entries.iter().zip(counts);
        Ok(lines
            .take_while(|(entry, tokens)| load.take(entry, *tokens, limits))
            .count())
    }

    /// Fixes the lines of a batch that was left half filled.
    pub(super) async fn seal(self: &Arc<Self>, batch: Batch) -> Result<(), StoreError> {
        let lines = self.lines_of(batch.id).await?;
        let tokens = self.recount(&batch, &lines).await?;
        self.seal_with(batch, tokens).await
    }

    /// Fixes a batch's lines; one without any is abandoned.
    async fn seal_with(
        self: &Arc<Self>,
        mut batch: Batch,
        tokens: Option<u64>,
    ) -> Result<(), StoreError> {
        let lines = self.lines_of(batch.id).await?;
        batch.lines = lines.len() as u32;
        batch.bytes = lines.iter().map(|line| u64::from(line.line_bytes)).sum();
        batch.inputs = lines.iter().map(|line| u64::from(line.inputs)).sum();
        batch.tokens = tokens;
        batch.most = self.most_of_lines(&lines);
        batch.earliest_deadline = lines
            .iter()
            .map(|line| line.deadline)
            .min()
            .unwrap_or(Timestamp::MAX);
        let event = if lines.is_empty() {
            BatchEvent::Abandon
        } else {
            BatchEvent::Seal
        };
        self.advance(&mut batch, event, self.now()).await?;
        self.signals.submitter.notify_one();
        self.signals.rescuer.notify_one();
        Ok(())
    }

    fn refresh_oldest(&self, cohort: Cohort, first: Option<&Entry>) {
        if let Some(waiting) = self.summary.lock().queue.get_mut(&cohort)
            && let Some(first) = first
        {
            waiting.oldest = first.key.id.born();
        }
    }
}
