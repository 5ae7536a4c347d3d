//! One call on the flex tier: half the price, minutes rather than seconds, and not
//! always there. Whatever it does not answer goes to the next rung, where an
//! ordinary call has the last word.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use super::{
    reply::{Answer, Reply},
    rungs::Known,
    scopes::Permit,
};
use crate::{
    engine::{
        Engine,
        scope::Account,
        turnaround::{Happens, Takes},
    },
    model::{
        attempt::{Attempt, Lane},
        request::Request,
    },
    policy::{lane::words, retry},
    ports::{ProviderError, StoreError},
};

pub struct Call {
    pub attempt: Attempt,
    pub known: Known,
    /// Where no answer has come by then, it is given up, as thought before it began.
    pub patience: Duration,
}

impl Engine {
    /// A caller who streams is not let in on it: a stream that has begun could not
    /// be given up for an ordinary call. The answer is told as events when it is
    /// there.
    pub(super) async fn run_flex(
        self: &Arc<Self>,
        request: &Request,
        body: &Bytes,
        call: Call,
        mut permit: Permit,
    ) -> Result<(), StoreError> {
        let most = self.most_of_flex(request);
        let reply = self.call(request, body, (Lane::Flex, most), None, &mut permit);
        let reply = self.wait_for_flex(request, &call, most, reply).await;
        permit.ended(self.now(), reply.ended());
        let Call { attempt, known, .. } = call;
        match reply {
            Reply::Answered(answer) if answer.status == 401 => {
                self.answered(request, attempt, answer, None, &known).await
            }
            Reply::Answered(answer) if answer.status < 400 => {
                self.flex_tells(request, false);
                self.answered(request, attempt, answer, None, &known).await
            }
            Reply::Answered(answer) => self.flex_refused(request, attempt, known, &answer).await,
            Reply::Failed(error) if error.may_have_happened() => {
                let age = attempt.started.until(self.now());
                let takes = Takes::Answer(Lane::Flex);
                self.cut_off(&Account::from(request), takes, age, 1.0);
                let why = format!("flex was given up after {}: {error}", words(age));
                tracing::info!(id = %request.key.id, why, "a flex call");
                self.lose(request.into(), attempt, &why).await?;
                self.step_down(request, known.has_left(Lane::Flex, why))
                    .await
            }
            Reply::Failed(error) => self.failed(request, attempt, error, None).await,
        }
    }

    /// What others were promised meanwhile can make it leave sooner: it is asked again
    /// how long to stay, `most` in all, the more often the less is left.
    async fn wait_for_flex(
        &self,
        request: &Request,
        call: &Call,
        most: Duration,
        reply: impl Future<Output = Reply>,
    ) -> Reply {
        tokio::pin!(reply);
        let began = call.attempt.started;
        let mut left = call.patience.min(most);
        while !left.is_zero() {
            let replan = self.settings.rescue.replan;
            let again = (left / 8).clamp(replan / 32, replan);
            if let Ok(reply) = tokio::time::timeout(again.min(left), &mut reply).await {
                return reply;
            }
            let age = began.until(self.now());
            let stays = self.stays_in(request, Lane::Flex, age, &call.known);
            left = most.saturating_sub(age).min(stays.unwrap_or_default());
        }
        let age = began.until(self.now());
        Reply::Failed(ProviderError::Lost(format!(
            "no answer after {}",
            words(age)
        )))
    }

    /// Not billed. Errors of the call's own are the ordinary call's to tell: this
    /// one may only have come of the tier.
    async fn flex_refused(
        &self,
        request: &Request,
        attempt: Attempt,
        known: Known,
        answer: &Answer,
    ) -> Result<(), StoreError> {
        let status = answer.status;
        self.flex_tells(request, true);
        let why = match status {
            429 => "flex had no capacity for it".to_owned(),
            status => format!("flex answered {status}"),
        };
        tracing::debug!(id = %request.key.id, status, "a flex call was refused");
        if retry::may_have_run(status) {
            self.lose(request.into(), attempt, &why).await?;
        } else {
            self.close(request.key, attempt, why.clone()).await?;
        }
        self.step_down(request, known.has_left(Lane::Flex, why))
            .await
    }

    fn flex_tells(&self, request: &Request, refused: bool) {
        let did = f64::from(u8::from(refused));
        self.happened(&Account::from(request), Happens::Refused, did, 1.0);
    }

    /// Its guarantee; and nobody wants what comes after the deadline of one that rather
    /// fails.
    fn most_of_flex(&self, request: &Request) -> Duration {
        let guarantee = self.settings.ladder.flex.guarantee;
        match super::fails_late(request) {
            true => self.now().until(request.deadline).min(guarantee),
            false => guarantee,
        }
    }
}
