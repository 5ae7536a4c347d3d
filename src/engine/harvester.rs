//! Terminal provider batch → one ending or one return for every line. Both files
//! are read by `custom_id`, whatever the status and the counts say (WIRE.md §1).

mod learning;
mod lines;

use std::sync::Arc;

use futures_util::StreamExt;

use crate::{
    metrics::BatchEnd,
    model::{
        batch::{Batch, BatchEvent},
        money::Usd,
        request::{Entry, Place},
    },
    policy::retry,
    ports::{
        Credential, LineAnswer, ProviderError, RemoteBatch, RemoteError, RemoteStatus, StoreError,
    },
};

use super::{Engine, poison::Rest};

/// Lines settled in one commit.
const CHUNK: usize = 48;
/// Bytes of answers held before they are settled.
const CHUNK_BYTES: usize = 4 << 20;

pub(super) type Harvest<T> = Result<Result<T, ProviderError>, StoreError>;

/// The provider's errors pass through; the store's end the turn.
macro_rules! provider {
    ($result:expr) => {
        match $result {
            Ok(value) => value,
            Err(error) => return Ok(Err(error)),
        }
    };
}
pub(super) use provider;

impl Engine {
    /// Settles every line, then the batch, then deletes its files. Cut off
    /// anywhere, the next harvest does the rest: a line settles once.
    pub(super) async fn harvest(
        self: &Arc<Self>,
        batch: &mut Batch,
        remote: &RemoteBatch,
        credential: &Credential,
    ) -> Harvest<()> {
        let mut answered = 0;
        for file in [&remote.output_file, &remote.error_file]
            .into_iter()
            .flatten()
        {
            answered += provider!(self.harvest_file(batch, file, credential).await?);
        }
        let mut to_live = false;
        if remote.status == RemoteStatus::Failed && is_too_much(&remote.errors) {
            to_live = self.learn_from_refusal(batch).await?;
        } else if remote.status == RemoteStatus::Failed {
            let rest = provider!(self.part_poison(batch, remote, credential).await?);
            to_live = rest == Rest::Live;
        } else if batch.twin_of.is_none() {
            self.learn_from(batch, answered);
        }
        self.return_the_rest(batch, to_live).await?;
        let files = [&batch.input_file, &remote.output_file, &remote.error_file];
        let litter: Vec<String> = files.into_iter().flatten().cloned().collect();
        batch.litter.extend(litter);
        self.settled(batch, remote.status.into()).await.map(Ok)
    }

    async fn settled(self: &Arc<Self>, batch: &mut Batch, end: BatchEnd) -> Result<(), StoreError> {
        let now = self.now();
        batch.settled = Some(now);
        self.advance(batch, BatchEvent::Settle, now).await?;
        let took = batch.submitted.map(|submitted| submitted.until(now));
        self.metrics.batches.ended(end, took);
        for signal in [
            &self.signals.packer,
            &self.signals.rescuer,
            &self.signals.janitor,
        ] {
            signal.notify_one();
        }
        Ok(())
    }

    /// Nothing will come of the batch any more.
    pub(super) async fn give_up(
        self: &Arc<Self>,
        batch: &mut Batch,
        why: &str,
    ) -> Result<(), StoreError> {
        tracing::error!(batch = %batch.id, provider_id = batch.provider_id, "{why}");
        if batch.twin_of.is_none() {
            self.learn_from_giving_up(batch);
        }
        self.return_the_rest(batch, false).await?;
        batch.litter.extend(batch.input_file.clone());
        self.settled(batch, BatchEnd::GivenUp).await
    }

    async fn harvest_file(
        self: &Arc<Self>,
        batch: &mut Batch,
        file: &str,
        credential: &Credential,
    ) -> Harvest<u32> {
        let mut results = provider!(self.provider.results(credential, file).await);
        let mut chunk = Vec::with_capacity(CHUNK);
        let mut bytes = 0;
        let mut answered = 0;
        while let Some(line) = results.next().await {
            let line = provider!(line);
            if let LineAnswer::Answered { body, .. } = &line.answer {
                bytes += body.len();
                answered += 1;
            }
            chunk.push(line);
            if chunk.len() >= CHUNK || bytes >= CHUNK_BYTES {
                batch.answered += self.settle_lines(batch, std::mem::take(&mut chunk)).await?;
                bytes = 0;
            }
        }
        batch.answered += self.settle_lines(batch, chunk).await?;
        Ok(Ok(answered))
    }

    /// Where lines go that were not answered: they are rescued where it is time for
    /// that and the budget covers it.
    pub(super) fn place_after_return(&self, batch: &Batch, rest: &[Entry]) -> Place {
        let now = self.now();
        let place = self.after_return(batch.cohort, &self.scope_of(batch), batch.endpoint);
        if place != Place::Live {
            return place;
        }
        let refused = rest
            .iter()
            .any(|line| self.budgets.has_refused(&line.key, now));
        let mut plan = self.plan_rescues();
        // What is wanted back is in the plan already.
        let cost = match self.is_wanted(batch.id) {
            true => Usd::ZERO,
            false => self.price_of_batch(batch),
        };
        match refused || self.afford(&mut plan, batch.tenant, cost).is_err() {
            true => Place::Queue(batch.cohort),
            false => Place::Live,
        }
    }

    async fn return_the_rest(
        self: &Arc<Self>,
        batch: &Batch,
        to_live: bool,
    ) -> Result<(), StoreError> {
        let now = self.now();
        let rest = self.lines_of(batch.id).await?;
        if rest.is_empty() {
            if batch.twin_of.is_none() {
                self.summary.lock().forgive(&batch.cohort);
            }
            return Ok(());
        }
        tracing::info!(batch = %batch.id, lines = rest.len(), "lines without an answer");
        let place = match to_live {
            true => {
                // `Offpeak-On-Late: wait` goes too: waiting would not cure it.
                tracing::warn!(batch = %batch.id, on_late = ?batch.cohort.on_late,
                    "the provider refuses the batch; its lines go live, at the ordinary price");
                Place::Live
            }
            false => self.place_after_return(batch, &rest),
        };
        if let Place::Queue(cohort) = place
            && batch.cancel_sent.is_none()
        {
            // What fails at once would otherwise go round as fast as the provider
            // allows, and use up the creates of everybody else.
            let (base, max) = (
                self.settings.submit.retry_base,
                self.settings.submit.retry_max,
            );
            let chance = self.clock.random();
            let pause = |times| retry::backoff(times, base, max, None, chance);
            self.summary.lock().hold_back(cohort, now, pause);
        }
        self.relocate_all(&rest, Place::Line(batch.id), place)
            .await?;
        Ok(())
    }
}

/// The provider holds as many tokens of ours as it allows: nothing is wrong with
/// any line (WIRE.md §1).
fn is_too_much(errors: &[RemoteError]) -> bool {
    errors
        .iter()
        .any(|error| error.code.as_deref() == Some("token_limit_exceeded"))
}
