//! Lines of a result file → endings of their requests, each once.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::{
    engine::{Engine, live::Payer, settling::why_it_ended},
    ledger,
    model::{
        attempt::{Attempt, AttemptId, AttemptState, Lane},
        batch::Batch,
        id::{RequestId, RequestKey},
        request::{Framing, Outcome, Place, Request, Source, State},
    },
    policy::retry,
    ports::{Head, LineAnswer, ResultLine, Settled, StoreError},
};

/// Requests read at the same time: each read waits for the sync before it.
const LOADS: usize = 16;

impl Engine {
    /// Settles the lines that hold an answer; the others stay in the batch and
    /// are returned with those that no file named.
    pub(in crate::engine) async fn settle_lines(
        self: &Arc<Self>,
        batch: &Batch,
        lines: Vec<ResultLine>,
    ) -> Result<u32, StoreError> {
        let mut found = stream::iter(lines)
            .map(|line| self.read_line(batch, line))
            .buffer_unordered(LOADS);
        let mut answers: BTreeMap<RequestId, (Request, Outcome, Bytes)> = BTreeMap::new();
        while let Some(answer) = found.try_next().await? {
            answers.extend(answer.map(|answer| (answer.0.key.id, answer)));
        }
        drop(found);
        let endings = answers
            .values()
            .map(|(request, outcome, body)| {
                let mut places = vec![Place::Line(batch.id), Place::Live];
                places.extend(self.other_places(request, batch));
                self.ending(request, places, outcome.clone(), body.clone(), None)
            })
            .collect();
        let settled = self.settle(endings).await?;
        let mut now = 0;
        for (key, settled) in settled {
            match settled {
                Settled::Now { .. } => now += 1,
                Settled::Before(earlier) if earlier.source != Source::Batch(batch.id) => {
                    if let Some((request, outcome, body)) = answers.get(&key.id) {
                        let (payer, late) = (request.into(), (outcome, &body[..]));
                        self.account_late(batch, payer, late, Some(&earlier))
                            .await?;
                    }
                }
                Settled::Unknown => {
                    if let Some((request, outcome, body)) = answers.get(&key.id) {
                        let (payer, late) = (request.into(), (outcome, &body[..]));
                        self.account_late(batch, payer, late, None).await?;
                    }
                }
                Settled::Before(_) => {}
            }
        }
        Ok(now)
    }

    /// What a line of a result file is to its request; nothing where it holds no
    /// answer that counts. That of an erased request is booked.
    async fn read_line(
        self: &Arc<Self>,
        batch: &Batch,
        line: ResultLine,
    ) -> Result<Option<(Request, Outcome, Bytes)>, StoreError> {
        let Ok(id) = line.custom_id.parse::<RequestId>() else {
            tracing::warn!(batch = %batch.id, "a line of somebody else's in our batch");
            return Ok(None);
        };
        let LineAnswer::Answered {
            status,
            request,
            body,
        } = line.answer
        else {
            return Ok(None);
        };
        let key = RequestKey {
            tenant: batch.tenant,
            id,
        };
        let head = match self.store.head(key).await {
            Err(damage @ StoreError::Corrupt(_)) => {
                self.give_up_line(batch, key, &damage).await?;
                return Ok(None);
            }
            head => head?,
        };
        let Some(Head { request: asked, .. }) = head else {
            let payer = Payer {
                key,
                model: &batch.model,
                // Erased with the request.
                entry: None,
                tag: None,
            };
            let line = (status, request);
            let outcome = self.line_outcome(batch, payer, String::new(), line, &body);
            self.account_late(batch, payer, (&outcome, &body[..]), None)
                .await?;
            return Ok(None);
        };
        // Another time, while there is time.
        let last = asked.deadline + self.settings.live.give_up_after;
        if retry::is_retryable(status) && self.now() < last {
            return Ok(None);
        }
        let reason = why_it_ended(status, &body, self.reason_of_line(&asked));
        let outcome = self.line_outcome(batch, (&asked).into(), reason, (status, request), &body);
        Ok(Some((asked, outcome, body)))
    }

    /// Nobody can say whose answer it is. Where it is not in this batch any more, it is
    /// given up there.
    async fn give_up_line(
        self: &Arc<Self>,
        batch: &Batch,
        key: RequestKey,
        damage: &StoreError,
    ) -> Result<(), StoreError> {
        let lines = self.lines_of(batch.id).await?;
        match lines.into_iter().find(|line| line.key == key) {
            Some(line) => {
                let place = Place::Line(batch.id);
                self.give_up_damaged(line, place, damage).await
            }
            None => Ok(()),
        }
    }

    fn other_places(&self, request: &Request, batch: &Batch) -> Vec<Place> {
        let batches = self.summary.lock().batches_of(&request.cohort);
        let lines = batches
            .into_iter()
            .filter(|id| *id != batch.id)
            .map(Place::Line);
        lines.chain([Place::Queue(request.cohort)]).collect()
    }

    fn reason_of_line(&self, request: &Request) -> String {
        let now = self.now();
        let late = now > request.deadline;
        let why = late.then(|| self.late_for_budget(request, now)).flatten();
        why.unwrap_or_else(|| request.reason.clone())
    }

    fn line_outcome(
        &self,
        batch: &Batch,
        payer: Payer<'_>,
        reason: String,
        (status, provider_request): (u16, Option<String>),
        body: &[u8],
    ) -> Outcome {
        let metered = ledger::meter(body);
        let bill = self.prices.bill_of(payer.model, Lane::Batch, &metered);
        Outcome {
            state: if status < 400 {
                State::Succeeded
            } else {
                State::Failed
            },
            status,
            finished: self.now(),
            source: Source::Batch(batch.id),
            framing: Framing::Json,
            reason,
            provider_request,
            usage: metered.usage,
            bill,
        }
    }

    /// An answer for a request that has ended otherwise, or is erased: it was paid
    /// for.
    async fn account_late(
        &self,
        batch: &Batch,
        payer: Payer<'_>,
        (outcome, answer): (&Outcome, &[u8]),
        earlier: Option<&Outcome>,
    ) -> Result<(), StoreError> {
        if outcome.state != State::Succeeded {
            // Errors are not billed.
            return Ok(());
        }
        let mut attempt = Attempt {
            id: AttemptId::Batch(batch.id),
            lane: Lane::Batch,
            remote: None,
            started: batch.submitted.unwrap_or(batch.created),
            state: AttemptState::Late,
            ended: Some(outcome.finished),
            note: String::new(),
            usage: outcome.usage,
            bill: outcome.bill,
            reserved: None,
            most: batch.most.map(|_| self.price_of_a_line(batch)),
            from: None,
        };
        let ledger = self.late(payer, (outcome, answer), earlier, &mut attempt);
        self.account(payer.key, attempt, ledger).await
    }
}
