//! The end of a request outside of batches: its outcome and the reason for it,
//! durable before anybody is told.

use std::sync::Arc;

use bytes::Bytes;

use super::{reply::Answer, rungs::Known};
use crate::{
    engine::{
        Engine,
        scope::Account,
        settling::{error_body, why_it_ended},
        taps::{Spout, TapEvent},
        turnaround::Takes,
    },
    ledger::Tier,
    model::{
        attempt::{Attempt, Lane},
        request::{OnLate, Outcome, Request, Source, State},
    },
    ports::{Settled, StoreError},
};

impl Engine {
    pub(super) fn live_outcome(
        &self,
        request: &Request,
        attempt: &Attempt,
        known: &Known,
        answer: &Answer,
    ) -> Outcome {
        let mut reason = reason(request, attempt);
        if let Some(why) = &known.why {
            reason = format!("{reason}; {why}");
        }
        let lane = answer.metered.lane(attempt.lane);
        if lane != attempt.lane {
            reason = format!("{reason}; billed as {lane}, which is the tier of the answer");
        }
        if let (Lane::Standard, Tier::Priority | Tier::Scale) = (lane, answer.metered.tier) {
            reason.push_str("; served in a dearer tier, which has a price of its own");
        }
        let reason = why_it_ended(answer.status, &answer.body, reason);
        self.outcome_of(&request.model, reason, attempt.lane, answer)
    }

    /// What an answer is and costs that was asked for in this lane.
    pub(super) fn outcome_of(
        &self,
        model: &str,
        reason: String,
        lane: Lane,
        answer: &Answer,
    ) -> Outcome {
        let metered = &answer.metered;
        let bill = self.prices.bill_of(model, lane, metered);
        let lane = metered.lane(lane);
        Outcome {
            state: if answer.status < 400 {
                State::Succeeded
            } else {
                State::Failed
            },
            status: answer.status,
            finished: self.now(),
            source: Source::Live(lane),
            framing: answer.framing,
            reason,
            provider_request: answer.request.clone(),
            usage: metered.usage,
            bill,
        }
    }

    pub(super) async fn finish(
        self: &Arc<Self>,
        request: &Request,
        outcome: Outcome,
        body: Bytes,
        attempt: Option<Attempt>,
        tap: Option<Spout>,
    ) -> Result<(), StoreError> {
        if let (Some(attempt), State::Succeeded) = (&attempt, outcome.state) {
            let scope = Account::from(request);
            let takes = Takes::Answer(attempt.lane);
            let age = attempt.started.until(outcome.finished);
            self.saw(&scope, takes, age, 1.0);
        }
        let attempt = attempt.map(|attempt| Attempt {
            note: String::new(),
            ended: Some(outcome.finished),
            usage: outcome.usage,
            bill: outcome.bill,
            ..attempt
        });
        let settle = || {
            let places = self.places_of(request);
            let (outcome, attempt) = (outcome.clone(), attempt.clone());
            self.settle(vec![self.ending(
                request,
                places,
                outcome,
                body.clone(),
                attempt,
            )])
        };
        let settled = self.persist(request.key.id, settle).await?;
        let earlier = match settled.into_iter().next() {
            // Or it was this one, written by a try that was told as a failure.
            Some((_, Settled::Before(earlier))) if earlier != outcome => Some(Some(earlier)),
            // Erased; the store knows whether this one was first.
            Some((_, Settled::Unknown)) => Some(None),
            _ => None,
        };
        if let (Some(earlier), Some(attempt)) = (earlier, attempt) {
            let late = (&outcome, &body[..]);
            self.account_late_live(request.into(), late, earlier.as_ref(), attempt)
                .await?;
        }
        if let Some(tap) = tap {
            tap.send(TapEvent::End).await;
        }
        Ok(())
    }

    /// Written as patiently as an answer: left open, it would be bought again.
    pub(super) async fn end_failed(
        self: &Arc<Self>,
        request: &Request,
        code: &str,
        message: &str,
        reason: String,
    ) -> Result<(), StoreError> {
        let body = error_body(message, "api_error", None, Some(code));
        let settle = || {
            let places = self.places_of(request);
            let (reason, body) = (reason.clone(), body.clone());
            self.settle(vec![self.own_ending(
                request,
                places,
                State::Failed,
                502,
                reason,
                body,
            )])
        };
        self.persist(request.key.id, settle).await?;
        Ok(())
    }
}

/// Why it was answered where it was. The attempt's note names its lane and the
/// numbers.
fn reason(request: &Request, attempt: &Attempt) -> String {
    let planned = &request.reason;
    let why = match (request.lane, request.cohort.on_late) {
        (Lane::Batch, OnLate::Rescue) => "rescued: the batch would not have answered in time",
        // Only a batch that is refused for good sends these here.
        (Lane::Batch, OnLate::Wait | OnLate::Fail) if attempt.lane == Lane::Standard => {
            "at the ordinary price: the provider refused the batch"
        }
        (Lane::Batch, OnLate::Wait | OnLate::Fail) => "the provider refused the batch",
        (lane, _) if lane == attempt.lane => return planned.clone(),
        (Lane::Standard | Lane::Flex | Lane::Background8h | Lane::Background2h, _) => {
            return format!("{} (planned: {planned})", attempt.note);
        }
    };
    match attempt.note.as_str() {
        "" => format!("{why} ({planned})"),
        now => format!("{why}; {now} (planned: {planned})"),
    }
}
