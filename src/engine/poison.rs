//! A batch that failed validation: the lines that made it fail get their answer,
//! and the others go on.

use std::{collections::HashMap, sync::Arc};

use futures_util::StreamExt;
use serde_json::json;

use crate::{
    model::{
        batch::Batch,
        id::BatchId,
        request::{Entry, OnLate, Place},
    },
    policy::retry,
    ports::{
        Credential, LineAnswer, ProviderError, RemoteBatch, RemoteError, ResultLine, StoreError,
    },
};

use super::{
    Engine,
    harvester::{Harvest, provider},
};

/// What becomes of the lines that are left in a batch that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// Nothing is known against them: they go on as after any batch.
    GoesOn,
    /// Each goes by itself, and hears what the provider says of it.
    Live,
}

impl Engine {
    /// A batch that failed validation loses its bad lines: each gets the provider's
    /// error as its answer. Where the provider names none, halves of the batch tell, and
    /// of what fails alone an ordinary call: the batch may have failed for no line at all.
    pub(super) async fn part_poison(
        self: &Arc<Self>,
        batch: &Batch,
        remote: &RemoteBatch,
        credential: &Credential,
    ) -> Harvest<Rest> {
        for error in &remote.errors {
            tracing::warn!(batch = %batch.id, code = ?error.code, line = ?error.line, "the batch failed");
        }
        if remote.errors.iter().any(is_about_the_file) {
            return Ok(Ok(Rest::GoesOn));
        }
        let bad = provider!(self.named_lines(batch, &remote.errors, credential).await);
        if !bad.is_empty() {
            self.settle_lines(batch, bad).await?;
            return Ok(Ok(Rest::GoesOn));
        }
        if remote.errors.iter().any(is_about_all) {
            return Ok(Ok(Rest::Live));
        }
        let lines = self.lines_of(batch.id).await?;
        // The file is gone that would have told whose number it is.
        let named = remote.errors.iter().find(|error| error.line.is_some());
        if let ([line], Some(error)) = (&*lines, named) {
            self.refuse(batch, line, error).await?;
            return Ok(Ok(Rest::GoesOn));
        }
        if self.halve(batch, &lines).await? {
            return Ok(Ok(Rest::GoesOn));
        }
        if let ([line], [error, ..]) = (&*lines, &*remote.errors)
            && !self.may_go_live(batch)
        {
            // It would go into one batch after the other, and each would fail with it.
            self.refuse(batch, line, error).await?;
        }
        Ok(Ok(Rest::Live))
    }

    async fn refuse(
        self: &Arc<Self>,
        batch: &Batch,
        line: &Entry,
        error: &RemoteError,
    ) -> Result<(), StoreError> {
        let answer = ResultLine {
            custom_id: line.key.id.to_string(),
            answer: refusal(error),
        };
        self.settle_lines(batch, vec![answer]).await.map(drop)
    }

    /// Whether an ordinary call for each line would be let go: of those who pay more
    /// rather than being late, within the rescue budget.
    fn may_go_live(&self, batch: &Batch) -> bool {
        let (money, cost) = (self.plan_rescues(), self.price_of_batch(batch));
        batch.cohort.on_late != OnLate::Rescue
            || self.could_afford(&money, batch.tenant, cost).is_ok()
    }

    /// The lines that the errors name by their number in the input file.
    async fn named_lines(
        &self,
        batch: &Batch,
        errors: &[RemoteError],
        credential: &Credential,
    ) -> Result<Vec<ResultLine>, ProviderError> {
        let named = errors.iter().filter_map(|error| Some((error.line?, error)));
        let named: HashMap<u32, &RemoteError> = named.collect();
        let (Some(file), false) = (&batch.input_file, named.is_empty()) else {
            return Ok(Vec::new());
        };
        let mut ids = match self.provider.input_lines(credential, file).await {
            Ok(ids) => ids,
            // Nobody can tell any more which line that was.
            Err(ProviderError::Refused { status: 404, .. }) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut line = 0;
        let mut bad = Vec::new();
        while let Some(id) = ids.next().await {
            line += 1;
            let id = id?;
            if let Some(error) = named.get(&line) {
                bad.push(ResultLine {
                    custom_id: id,
                    answer: refusal(error),
                });
            }
        }
        Ok(bad)
    }

    /// Makes two batches of the lines of one that was refused as a whole: of a single
    /// bad line in 50,000 the sixteenth halving tells. A batch of one line may have failed
    /// for what has passed: it is made once more. False, and nothing moved, where there is
    /// nothing to halve, no time to, or where that was done often enough.
    pub(super) async fn halve(
        self: &Arc<Self>,
        batch: &Batch,
        lines: &[Entry],
    ) -> Result<bool, StoreError> {
        let is_left_alone = lines.len() < 2 && batch.part_of.is_some();
        if lines.is_empty() || is_left_alone || self.place_after_return(batch, lines) == Place::Live
        {
            return Ok(false);
        }
        let whole = batch.part_of.unwrap_or(batch.id);
        let most = self.settings.packing.max_parts;
        if !self.summary.lock().may_halve(whole, most, self.now()) {
            tracing::warn!(batch = %whole, "its bad lines were not found by halves");
            return Ok(false);
        }
        tracing::info!(batch = %batch.id, lines = lines.len(), "made again of halves, to find its bad lines");
        for half in lines.chunks(lines.len().div_ceil(2)) {
            self.part(batch, whole, half).await?;
        }
        Ok(true)
    }

    async fn part(
        self: &Arc<Self>,
        batch: &Batch,
        whole: BatchId,
        lines: &[Entry],
    ) -> Result<(), StoreError> {
        let now = self.now();
        let part = batch.part(BatchId::new(now, self.clock.random()), whole, now);
        // The packer seals what a crash left half filled, and this is not.
        let _in_hand = self.inflight.batches.begin(part.id);
        self.summary.lock().creates(batch.credential).take(now);
        self.save(&part, now).await?;
        let (from, to) = (Place::Line(batch.id), Place::Line(part.id));
        self.relocate_all(lines, from, to).await?;
        self.seal(part).await
    }
}

/// The input file is gone or was not taken: nothing is known of any line.
fn is_about_the_file(error: &RemoteError) -> bool {
    error.line.is_none()
        && error
            .param
            .as_deref()
            .is_some_and(|param| param.ends_with("file_id"))
}

/// What no halving cures: it is said of every line (WIRE.md §1, §3).
fn is_about_all(error: &RemoteError) -> bool {
    let code = error.code.as_deref().unwrap_or_default();
    code == "model_not_found" || retry::is_spent(code)
}

/// The provider's own words, in the shape of the endpoint's errors.
fn refusal(error: &RemoteError) -> LineAnswer {
    let body = json!({"error": {
        "message": error.message,
        "type": "invalid_request_error",
        "param": error.param,
        "code": error.code,
    }});
    LineAnswer::Answered {
        status: 400,
        request: None,
        body: body.to_string().into(),
    }
}
