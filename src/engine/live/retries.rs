//! What comes of a call: the request's end, or another try.

use std::sync::Arc;

use super::{
    attempts::{number, transition},
    backoffs::Why,
    reply::Answer,
    rungs::Known,
};
use crate::{
    engine::{
        Engine,
        scope::Account,
        taps::{Spout, TapEvent},
        turnaround::Takes,
    },
    model::{
        attempt::{Attempt, AttemptEvent},
        request::Request,
    },
    policy::retry,
    ports::{ProviderError, StoreError},
};

impl Engine {
    pub(super) async fn answered(
        self: &Arc<Self>,
        request: &Request,
        mut attempt: Attempt,
        answer: Answer,
        tap: Option<Spout>,
        known: &Known,
    ) -> Result<(), StoreError> {
        let status = answer.status;
        let again = self.should_retry(request, &answer);
        let why = match status {
            429 => Why::Throttled(answer.asked),
            _ => Why::Answered(answer.asked),
        };
        let note = format!("answered {status}");
        if status == 401
            && self.blame_key(request.credential, &answer.body).await
            && self.now() < request.deadline
        {
            self.close(request.key, attempt, note).await?;
            return self.try_again(request, why).await;
        }
        let outcome = self.live_outcome(request, &attempt, known, &answer);
        let attempt = if retry::may_have_run(status) {
            let lost = number(&attempt);
            self.lose_answer(request, attempt, &note).await?;
            if again && lost < self.settings.live.attempts {
                return self.try_again(request, why).await;
            }
            None
        } else if again {
            self.close(request.key, attempt, note).await?;
            return self.try_again(request, why).await;
        } else {
            attempt.state = transition(&attempt, AttemptEvent::Answer)?;
            Some(attempt)
        };
        self.finish(request, outcome, answer.body, attempt, tap)
            .await
    }

    /// Errors that say nothing about the call, and are not billed, are tried again
    /// until the deadline; after it, only up to so many tries in all.
    fn should_retry(&self, request: &Request, answer: &Answer) -> bool {
        let status = answer.status;
        if answer.last_word || answer.spent || !retry::is_retryable(status) {
            return false;
        }
        let number = self.backoffs.answered(&request.key) + 1;
        let retry = self.now() < request.deadline || number < self.settings.live.attempts;
        if retry {
            tracing::warn!(id = %request.key.id, status, number, "a live call is tried again");
        }
        retry
    }

    /// Nobody saw its answer, which took longer than it was waited for.
    async fn lose_answer(
        &self,
        request: &Request,
        attempt: Attempt,
        note: &str,
    ) -> Result<(), StoreError> {
        let (age, takes) = (
            attempt.started.until(self.now()),
            Takes::Answer(attempt.lane),
        );
        self.cut_off(&Account::from(request), takes, age, 1.0);
        self.lose(request.into(), attempt, note).await
    }

    pub(super) async fn failed(
        self: &Arc<Self>,
        request: &Request,
        attempt: Attempt,
        error: ProviderError,
        tap: Option<Spout>,
    ) -> Result<(), StoreError> {
        if let Some(tap) = tap {
            tap.send(TapEvent::Broken).await;
        }
        let note = error.to_string();
        tracing::warn!(id = %request.key.id, %error, "a live call failed");
        // A call that was lost may have been billed: however far the deadline is,
        // only so many of them are bought.
        if error.may_have_happened() {
            let lost = number(&attempt);
            self.lose_answer(request, attempt, &note).await?;
            if lost >= self.settings.live.attempts {
                let message = format!(
                    "The answers of {lost} calls were lost on their way from the provider, which \
                     may have billed them; the call is not made again. Last: {note}"
                );
                let reason = format!("gave up after {lost} lost answers: {note}");
                return self
                    .end_failed(request, "upstream_lost", &message, reason)
                    .await;
            }
        } else {
            self.close(request.key, attempt, format!("not sent: {note}"))
                .await?;
        }
        if self.now() < request.deadline + self.settings.live.give_up_after {
            let why = Why::Unanswered(error.retry_after());
            return self.try_again(request, why).await;
        }
        let message = format!("The provider could not be reached: {note}");
        let reason = format!("gave up after the deadline: {note}");
        self.end_failed(request, "upstream_unreachable", &message, reason)
            .await
    }
}
