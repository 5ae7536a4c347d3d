//! The durable record of live calls: there before one is sent, closed when it is
//! known what came of it.

use crate::{
    engine::Engine,
    ledger,
    model::{
        attempt::{Attempt, AttemptEvent, AttemptId, AttemptState},
        money::Usd,
        request::{Outcome, Request, Source, State, Usage},
    },
    ports::{LedgerEntry, StoreError},
};

use super::rungs::Step;

impl Engine {
    /// Durable before the call is sent: after a crash it counts as unaccounted.
    /// A try that ended and cost nothing gives its number to the next. While it is
    /// open its note says why it is in its lane.
    pub(super) async fn open_attempt(
        &self,
        request: &Request,
        step: &Step,
        earlier: &[Attempt],
        reserved: Option<Usd>,
    ) -> Result<Attempt, StoreError> {
        let number = earlier
            .iter()
            .filter(|a| matches!(a.id, AttemptId::Live(_)) && a.state != AttemptState::Ended)
            .count() as u32
            + 1;
        let attempt = Attempt {
            id: AttemptId::Live(number),
            lane: step.lane,
            remote: None,
            started: self.now(),
            state: AttemptState::Open,
            ended: None,
            note: step.reason.clone(),
            usage: Usage::default(),
            bill: None,
            reserved,
        };
        self.store.put_attempt(request.key, attempt.clone()).await?;
        Ok(attempt)
    }

    pub(super) async fn close(
        &self,
        request: &Request,
        mut attempt: Attempt,
        note: String,
    ) -> Result<(), StoreError> {
        attempt.state = transition(&attempt, AttemptEvent::End)?;
        attempt.ended = Some(self.now());
        attempt.note = note;
        let write = || self.store.put_attempt(request.key, attempt.clone());
        self.persist(request.key.id, write).await
    }

    /// Nobody saw what came of it: it may have been billed.
    pub(super) async fn lose(
        &self,
        request: &Request,
        attempt: Attempt,
        note: &str,
    ) -> Result<(), StoreError> {
        let lose = || self.lose_sight(request, attempt.clone(), note);
        self.persist(request.key.id, lose).await
    }

    /// The batch was faster, or the caller cancelled: this answer was paid all
    /// the same.
    pub(super) async fn account_late_live(
        &self,
        request: &Request,
        outcome: &Outcome,
        earlier: &Outcome,
        mut attempt: Attempt,
    ) -> Result<(), StoreError> {
        if outcome.state != State::Succeeded {
            // Errors are not billed.
            attempt.state = AttemptState::Ended;
            let write = || self.store.put_attempt(request.key, attempt.clone());
            return self.persist(request.key.id, write).await;
        }
        attempt.state = AttemptState::Late;
        attempt.note = format!("answered after the request had {}", earlier.state.as_str());
        let twice = earlier.source != Source::Offpeak;
        let row = ledger::late_answer(outcome, twice, attempt.reserved);
        let key = ledger::key(request, outcome);
        let ledger = LedgerEntry { key, row };
        let account = || {
            let (attempt, ledger) = (attempt.clone(), ledger.clone());
            self.account(request, attempt, ledger)
        };
        self.persist(request.key.id, account).await
    }

    /// Writes an attempt with what it adds to the ledger, and counts that against
    /// the budget, once.
    pub(in crate::engine) async fn account(
        &self,
        request: &Request,
        attempt: Attempt,
        ledger: LedgerEntry,
    ) -> Result<(), StoreError> {
        let account = self.store.account(request.key, attempt, ledger.clone());
        if account.await? {
            self.budgets.book(self.now(), &ledger);
        }
        Ok(())
    }
}

/// Which of the tries it is that were paid for, or may have been.
pub(super) fn number(attempt: &Attempt) -> u32 {
    match attempt.id {
        AttemptId::Live(number) => number,
        AttemptId::Batch(_) => 0,
    }
}

pub(super) fn transition(
    attempt: &Attempt,
    event: AttemptEvent,
) -> Result<AttemptState, StoreError> {
    attempt
        .state
        .next(event)
        .map_err(|illegal| StoreError::Corrupt(illegal.to_string()))
}
