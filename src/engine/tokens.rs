//! Counting the prompt tokens of lines: where a limit is known, when a batch is
//! filled; and of a batch that was refused, to learn the limit.

use futures_util::future::try_join_all;

use crate::{
    model::{
        batch::Batch,
        body::tokens::{self, prompt_tokens},
        request::Entry,
    },
    ports::{Content, StoreError},
};

use super::Engine;

/// Bodies read at the same time, and the bytes that they may have together: each
/// read waits for the sync before it.
const LOADS: usize = 16;
const LOAD_BYTES: u64 = 4 << 20;
/// Lines of a refused batch that are counted; the others are taken to be like them.
const SAMPLE: usize = 256;

impl Engine {
    /// Prompt tokens of each line, in order. Stops after the line that makes more
    /// than `enough` of them in all.
    pub(super) async fn count_tokens(
        &self,
        model: &str,
        lines: &[Entry],
        enough: u64,
    ) -> Result<Vec<u64>, StoreError> {
        let mut counts: Vec<u64> = Vec::with_capacity(lines.len());
        let mut sum = 0;
        while counts.len() < lines.len() && sum <= enough {
            let rest = &lines[counts.len()..];
            let mut bytes = 0;
            let fits = |line: &&Entry| {
                bytes += u64::from(line.line_bytes);
                bytes <= LOAD_BYTES
            };
            let some = rest.iter().take(LOADS).take_while(fits).count().max(1);
            let counted = self.count_some(model, &rest[..some]).await?;
            sum += counted.iter().sum::<u64>();
            counts.extend(counted);
        }
        Ok(counts)
    }

    async fn count_some(&self, model: &str, lines: &[Entry]) -> Result<Vec<u64>, StoreError> {
        let loads = lines.iter().map(|line| async {
            match self.store.load(line.key).await {
                // It ends when its line is to be written.
                Err(StoreError::Corrupt(_)) => Ok(None),
                loaded => loaded,
            }
        });
        let bodies: Vec<_> = try_join_all(loads)
            .await?
            .into_iter()
            .map(|stored| match stored.map(|stored| stored.content) {
                Some(Content::Open { body }) => Some(body),
                // It has ended meanwhile, and will not be moved.
                _ => None,
            })
            .collect();
        let model = model.to_owned();
        let counted = tokio::task::spawn_blocking(move || {
            let count = |body: &Option<bytes::Bytes>| {
                body.as_ref().map_or(0, |body| prompt_tokens(body, &model))
            };
            bodies.iter().map(count).collect()
        });
        Ok(counted.await.unwrap_or_else(|error| {
            tracing::error!(%error, "counting tokens; taking an estimate");
            let estimate = |line: &Entry| tokens::estimate(line.line_bytes.into());
            lines.iter().map(estimate).collect()
        }))
    }

    /// All tokens of a batch that was filled by an engine that died.
    pub(super) async fn recount(
        &self,
        batch: &Batch,
        lines: &[Entry],
    ) -> Result<Option<u64>, StoreError> {
        let scope = self.scope_of(batch);
        if !self.summary.lock().is_limited(&scope) {
            return Ok(None);
        }
        let counts = self.count_tokens(&batch.model, lines, u64::MAX).await?;
        Ok(Some(counts.iter().sum()))
    }

    /// The provider has no room for the batch's tokens: nothing is wrong with any
    /// line. True where the batch will never fit.
    pub(super) async fn learn_from_refusal(&self, batch: &Batch) -> Result<bool, StoreError> {
        let tokens = match batch.tokens {
            Some(tokens) => tokens,
            None => self.sample(batch).await?,
        };
        let (now, pause) = (self.now(), self.settings.submit.retry_max);
        Ok(self.summary.lock().refused(batch, tokens, pause, now))
    }

    async fn sample(&self, batch: &Batch) -> Result<u64, StoreError> {
        let lines = self.store.lines(batch.id, None, SAMPLE).await?;
        let counts = self.count_tokens(&batch.model, &lines, u64::MAX).await?;
        let bytes: u64 = lines.iter().map(|line| u64::from(line.line_bytes)).sum();
        let counted: u64 = counts.iter().sum();
        let all = u128::from(counted) * u128::from(batch.bytes) / u128::from(bytes.max(1));
        Ok(u64::try_from(all).unwrap_or(u64::MAX).max(1))
    }
}
