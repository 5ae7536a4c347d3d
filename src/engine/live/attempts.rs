//! The durable record of live calls: there before one is sent, closed when it is
//! known what came of it.

use crate::{
    engine::Engine,
    ledger,
    model::{
        attempt::{Attempt, AttemptEvent, AttemptId, AttemptState, Lane},
        id::RequestKey,
        ledger::LedgerKey,
        money::Usd,
        request::{Entry, Outcome, Request, State, Usage},
        time::Timestamp,
    },
    ports::{LedgerEntry, StoreError, Unbooked},
};

use super::rungs::Step;

/// The request that a call was made for, erased or not: what its row in the ledger
/// is kept by.
#[derive(Clone, Copy)]
pub(in crate::engine) struct Payer<'a> {
    pub key: RequestKey,
    /// None of an erased line of a batch.
    pub entry: Option<Entry>,
    pub model: &'a str,
    pub tag: Option<&'a str>,
}

impl Payer<'_> {
    pub fn row_key(&self, at: Timestamp, lane: Option<Lane>) -> LedgerKey {
        LedgerKey {
            tenant: self.key.tenant,
            hour: at.as_hours(),
            lane,
            model: self.model.to_owned(),
            tag: self.tag.map(str::to_owned),
        }
    }
}

impl<'a> From<&'a Request> for Payer<'a> {
    fn from(request: &'a Request) -> Self {
        Payer {
            key: request.key,
            entry: Some(request.entry()),
            model: &request.model,
            tag: request.tag.as_deref(),
        }
    }
}

impl<'a> From<&'a Unbooked> for Payer<'a> {
    fn from(call: &'a Unbooked) -> Self {
        Payer {
            key: call.entry.key,
            entry: Some(call.entry),
            model: &call.model,
            tag: call.tag.as_deref(),
        }
    }
}

/// What budgets keep for a call.
#[derive(Clone, Copy, Default)]
pub(super) struct Keeps {
    /// That of rescues.
    pub reserved: Option<Usd>,
    /// That of the caller's key.
    pub most: Option<Usd>,
}

impl Engine {
    /// Durable before the call is sent: after a crash it counts as unaccounted.
    /// A try that ended and cost nothing gives its number to the next. While it is
    /// open its note says why it is in its lane. None where the request was erased
    /// meanwhile.
    pub(super) async fn open_attempt(
        &self,
        request: &Request,
        step: &Step,
        earlier: &[Attempt],
        keeps: Keeps,
    ) -> Result<Option<Attempt>, StoreError> {
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
            reserved: keeps.reserved,
            most: keeps.most,
            from: self.store.taken_out_of(request.entry()).await?,
        };
        let written = self.store.put_attempt(request.key, attempt.clone());
        Ok(written.await?.then_some(attempt))
    }

    pub(super) async fn close(
        &self,
        key: RequestKey,
        mut attempt: Attempt,
        note: String,
    ) -> Result<(), StoreError> {
        attempt.state = transition(&attempt, AttemptEvent::End)?;
        attempt.ended = Some(self.now());
        attempt.note = note;
        self.write(key, attempt).await
    }

    /// Patiently. Of an erased request, only what is owed is written.
    pub(super) async fn write(&self, key: RequestKey, attempt: Attempt) -> Result<(), StoreError> {
        let write = || self.store.put_attempt(key, attempt.clone());
        self.persist(key.id, write).await?;
        Ok(())
    }

    /// Nobody saw what came of it: it may have been billed.
    pub(super) async fn lose(
        &self,
        payer: Payer<'_>,
        attempt: Attempt,
        note: &str,
    ) -> Result<(), StoreError> {
        let lose = || self.lose_sight(payer, attempt.clone(), note);
        self.persist(payer.key.id, lose).await
    }

    /// The batch was faster, or the caller cancelled or erased it: this answer was
    /// paid all the same.
    pub(super) async fn account_late_live(
        &self,
        payer: Payer<'_>,
        (outcome, answer): (&Outcome, &[u8]),
        earlier: Option<&Outcome>,
        mut attempt: Attempt,
    ) -> Result<(), StoreError> {
        let key = payer.key;
        if outcome.state != State::Succeeded {
            // Errors are not billed.
            attempt.state = AttemptState::Ended;
            return self.write(key, attempt).await;
        }
        attempt.state = AttemptState::Late;
        let ledger = self.late(payer, (outcome, answer), earlier, &mut attempt);
        let account = || self.account(key, attempt.clone(), ledger.clone());
        self.persist(key.id, account).await
    }

    /// Writes an attempt with what it adds to the ledger, and counts that against
    /// the budget, once.
    pub(in crate::engine) async fn account(
        &self,
        key: RequestKey,
        attempt: Attempt,
        ledger: LedgerEntry,
    ) -> Result<(), StoreError> {
        let account = self.store.account(key, attempt, ledger.clone());
        if account.await? {
            self.book(&ledger);
        }
        Ok(())
    }

    /// What an answer adds to the ledger whose request had ended, as the attempt's note
    /// says, or none is known of because it is erased.
    ///
    /// It was paid, and answered nobody: nothing was saved with it. It was paid twice where
    /// the request had ended with an answer that was paid; whether an erased one had is not
    /// known any more. The request itself was counted when it ended.
    pub(in crate::engine) fn late(
        &self,
        payer: Payer<'_>,
        (outcome, answer): (&Outcome, &[u8]),
        earlier: Option<&Outcome>,
        attempt: &mut Attempt,
    ) -> LedgerEntry {
        if let Some(earlier) = earlier {
            attempt.note = format!("answered after the request had {}", earlier.state.as_str());
        }
        let twice = earlier.is_some_and(Outcome::was_billed);
        let reckoned = self.reckoned(payer.model, (outcome, answer), attempt.most);
        let (entry, reserved) = (payer.entry.as_ref(), attempt.reserved);
        LedgerEntry {
            key: payer.row_key(outcome.finished, outcome.source.lane()),
            row: ledger::late_answer(entry, outcome, twice, reserved, reckoned),
        }
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
