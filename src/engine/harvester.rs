//! Terminal provider batch → one ending or one return for every line. Both files
//! are read by `custom_id`, whatever the status and the counts say (WIRE.md §1).

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::{
    ledger,
    model::{
        attempt::{Attempt, AttemptId, AttemptState, Lane},
        batch::{Batch, BatchEvent},
        id::{RequestId, RequestKey},
        money::Usd,
        request::{Entry, Framing, Outcome, Place, Request, Source, State},
    },
    policy::retry,
    ports::{
        Credential, Head, LineAnswer, ProviderError, RemoteBatch, RemoteError, RemoteStatus,
        ResultLine, Settled, StoreError,
    },
};

use super::{
    Engine,
    live::{Payer, late},
    scope::ScopeKey,
    turnaround::{Happens, Takes},
};

/// Lines settled in one commit.
const CHUNK: usize = 48;
/// Requests read at the same time: each read waits for the sync before it.
const LOADS: usize = 16;
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
            to_live = provider!(self.part_poison(batch, remote, credential).await?);
        } else {
            self.learn_from(batch, answered);
        }
        self.return_the_rest(batch, to_live).await?;
        let files = [&batch.input_file, &remote.output_file, &remote.error_file];
        let litter: Vec<String> = files.into_iter().flatten().cloned().collect();
        batch.litter.extend(litter);
        self.settled(batch).await.map(Ok)
    }

    /// What the end of the batch tells of the lane: how many lines had been run by
    /// now, beyond those that were heard of before, and that the rest takes longer.
    fn learn_from(&self, batch: &Batch, answered: u32) {
        let scope = ScopeKey::from(batch);
        let heard = {
            let summary = self.summary.lock();
            let tracked = summary.batches.get(&batch.id);
            tracked.and_then(|tracked| tracked.heard)
        };
        let now = self.now();
        let age = batch.created.until(now);
        let done = f64::from(answered) / f64::from(batch.lines.max(1));
        let takes = Takes::Answer(Lane::Batch);
        let Some(asked) = batch.cancel_sent else {
            let before = heard.unwrap_or(0.0);
            self.saw(&scope, takes, age, (done - before).max(0.0));
            self.cut_off(&scope, takes, age, (1.0 - done.max(before)).max(0.0));
            self.saw(&scope, Takes::Batch, age, 1.0);
            return;
        };
        let ran = batch.created.until(asked);
        self.cut_off(&scope, Takes::Batch, ran, 1.0);
        self.saw(&scope, Takes::Cancel, asked.until(now), 1.0);
        match heard {
            // What a cancel lets end is learned apart: how long lines take is not to
            // be had of it.
            Some(before) => {
                self.learn_from_cancel(&scope, (ran, age), (before, done));
                self.cut_off(&scope, takes, ran, (1.0 - before).max(0.0));
            }
            // Nobody knows which ended before it.
            None => {
                self.saw(&scope, takes, age, done);
                self.cut_off(&scope, takes, age, (1.0 - done).max(0.0));
            }
        }
    }

    /// What share of the lines ended between two ages, from the cancel to its effect,
    /// beside the share that would have without one.
    fn learn_from_cancel(
        &self,
        scope: &ScopeKey,
        (asked, over): (Duration, Duration),
        (before, done): (f64, f64),
    ) {
        let curve = self.curve(scope, Takes::Answer(Lane::Batch));
        let expected = (1.0 - before) * curve.ended_between(asked, over);
        self.happened(scope, Happens::Finished, done - before, expected);
    }

    async fn settled(self: &Arc<Self>, batch: &mut Batch) -> Result<(), StoreError> {
        batch.settled = Some(self.now());
        self.advance(batch, BatchEvent::Settle, self.now()).await?;
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
        self.return_the_rest(batch, false).await?;
        batch.litter.extend(batch.input_file.clone());
        self.settled(batch).await
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

    /// Settles the lines that hold an answer; the others stay in the batch and
    /// are returned with those that no file named.
    pub(super) async fn settle_lines(
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
                    if let Some((request, outcome, _)) = answers.get(&key.id) {
                        let payer = request.into();
                        self.account_late(batch, payer, outcome, Some(&earlier))
                            .await?;
                    }
                }
                Settled::Unknown => {
                    if let Some((request, outcome, _)) = answers.get(&key.id) {
                        let payer = request.into();
                        self.account_late(batch, payer, outcome, None).await?;
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
        &self,
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
        let Some(Head { request: asked, .. }) = self.store.head(key).await? else {
            let payer = Payer {
                key,
                model: &batch.model,
                // Erased with the request.
                tag: None,
            };
            let line = (status, request);
            let outcome = self.line_outcome(batch, payer, String::new(), line, &body);
            self.account_late(batch, payer, &outcome, None).await?;
            return Ok(None);
        };
        // Another time, while there is time.
        let last = asked.deadline + self.settings.live.give_up_after;
        if retry::is_retryable(status) && self.now() < last {
            return Ok(None);
        }
        let reason = self.reason_of_line(&asked);
        let outcome = self.line_outcome(batch, (&asked).into(), reason, (status, request), &body);
        Ok(Some((asked, outcome, body)))
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
        let bill = self.prices.bill(payer.model, Lane::Batch, &metered.usage);
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
            bill: bill.filter(|_| metered.known),
        }
    }

    /// An answer for a request that has ended otherwise, or is erased: it was paid
    /// for.
    async fn account_late(
        &self,
        batch: &Batch,
        payer: Payer<'_>,
        outcome: &Outcome,
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
        };
        let ledger = late(payer, outcome, earlier, &mut attempt);
        self.account(payer.key, attempt, ledger).await
    }

    /// Where lines go that were not answered: they are rescued where it is time for
    /// that and the budget covers it.
    fn place_after_return(&self, batch: &Batch, rest: &[Entry]) -> Place {
        let now = self.now();
        let place = self.after_return(batch.cohort, &ScopeKey::from(batch), batch.endpoint);
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
            self.summary.lock().forgive(&batch.cohort);
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
