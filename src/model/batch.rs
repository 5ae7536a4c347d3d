//! Our record of one provider Batch job.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{
    endpoint::Endpoint,
    id::{BatchId, CredentialId, TenantId},
    money::Usd,
    request::{Cohort, Destination},
    time::Timestamp,
};

/// Its lines are kept apart, one small key each, so that this stays one small
/// write however many lines there are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Batch {
    pub id: BatchId,
    pub cohort: Cohort,
    pub tenant: TenantId,
    pub credential: CredentialId,
    pub endpoint: Endpoint,
    pub model: String,
    pub state: BatchState,
    pub created: Timestamp,
    /// Why it was packed when it was.
    pub reason: String,
    /// Counted when it was sealed; later cancellations do not lower them.
    pub lines: u32,
    pub bytes: u64,
    pub inputs: u64,
    /// Prompt tokens; None where no limit was known and nobody counted them.
    pub tokens: Option<u64>,
    pub earliest_deadline: Timestamp,
    /// The input file, once uploaded.
    pub input_file: Option<String>,
    /// Set before the create is sent and cleared by a definite refusal: while it
    /// stands without a `provider_id`, the provider may hold a batch of ours.
    pub create_sent: Option<Timestamp>,
    pub provider_id: Option<String>,
    pub submitted: Option<Timestamp>,
    pub cancel_sent: Option<Timestamp>,
    /// The provider's own word at the last look.
    pub provider_status: Option<String>,
    pub settled: Option<Timestamp>,
    pub answered: u32,
    /// Provider files that are still to be deleted.
    pub litter: Vec<String>,
    /// Failed tries of the current step, for backing off.
    pub tries: u32,
    pub last_error: Option<String>,
    /// Set where the provider may have made, or did make, a batch of the same lines
    /// beside this one's: it is looked for, cancelled, and what it billed is booked.
    /// It has no lines of its own.
    pub twin_of: Option<BatchId>,
    /// The batch that failed without naming its bad lines, and of which this is a part.
    pub part_of: Option<BatchId>,
    /// What the budget of an issued key keeps for its lines, counted when it was sealed:
    /// the most that they are expected to cost. None where no such budget counts them.
    pub most: Option<Usd>,
    /// Where its cancel was sent, or it was given up before its create.
    pub left: Option<Left>,
}

/// Why a batch was left before it had ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Left {
    /// Its lines are called live, to be in time.
    Rescue,
    /// It hung, and there was time for a fresh batch.
    Fresh,
    /// All of its lines had gone live before.
    Overtaken,
    /// The deadline of every line had passed.
    Late,
    /// The provider was late to end it.
    Overdue,
    /// The provider made a second batch of the same lines.
    Twin,
    /// The provider had no room for it.
    NoRoom,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BatchState {
    /// Lines are still being claimed for it.
    Filling,
    /// Its lines are fixed.
    Sealed,
    Uploaded,
    Submitted,
    Cancelling,
    /// Every line of it is durable or back in a queue.
    Settled,
    /// It never reached the provider, or never showed; its lines went back.
    Abandoned,
    /// A twin whose create was given up; it may show all the same.
    Lost,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchEvent {
    Seal,
    Upload,
    Submit,
    /// The create was lost for good: a new file, then a new create.
    StartOver,
    Cancel,
    Settle,
    Abandon,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a batch that is {state:?} cannot {event:?}")]
pub struct Illegal {
    pub state: BatchState,
    pub event: BatchEvent,
}

impl BatchState {
    pub fn next(self, event: BatchEvent) -> Result<BatchState, Illegal> {
        use {BatchEvent as E, BatchState as S};
        match (self, event) {
            (S::Filling, E::Seal) => Ok(S::Sealed),
            (S::Sealed, E::Upload) => Ok(S::Uploaded),
            (S::Uploaded | S::Lost, E::Submit) => Ok(S::Submitted),
            (S::Uploaded, E::StartOver) => Ok(S::Sealed),
            (S::Submitted | S::Cancelling, E::Cancel) => Ok(S::Cancelling),
            (S::Submitted | S::Cancelling, E::Settle) => Ok(S::Settled),
            (S::Filling | S::Sealed | S::Uploaded | S::Lost, E::Abandon) => Ok(S::Abandoned),
            (state, event) => Err(Illegal { state, event }),
        }
    }

    pub const fn is_open(self) -> bool {
        !matches!(self, BatchState::Settled | BatchState::Abandoned)
    }
}

impl Left {
    pub const fn reason(self) -> &'static str {
        match self {
            Left::Rescue => "its lines are called live, to be in time",
            Left::Fresh => "it hung, and there was time for a fresh batch",
            Left::Overtaken => "all of its lines had gone live before",
            Left::Late => "the deadline of every line had passed",
            Left::Overdue => "the provider was late to end it",
            Left::Twin => "it was a second batch of the same lines",
            Left::NoRoom => "the provider had no room for it",
        }
    }
}

impl Batch {
    /// One that is yet to be filled.
    pub fn new(
        id: BatchId,
        cohort: Cohort,
        to: Destination,
        now: Timestamp,
        reason: String,
    ) -> Batch {
        Batch {
            id,
            cohort,
            tenant: to.tenant,
            credential: to.credential,
            endpoint: to.endpoint,
            model: to.model,
            state: BatchState::Filling,
            created: now,
            reason,
            lines: 0,
            bytes: 0,
            inputs: 0,
            tokens: None,
            earliest_deadline: Timestamp::MAX,
            input_file: None,
            create_sent: None,
            provider_id: None,
            submitted: None,
            cancel_sent: None,
            provider_status: None,
            settled: None,
            answered: 0,
            litter: Vec::new(),
            tries: 0,
            last_error: None,
            twin_of: None,
            part_of: None,
            most: None,
            left: None,
        }
    }

    /// Moves the state machine.
    pub fn apply(&mut self, event: BatchEvent) -> Result<(), Illegal> {
        self.state = self.state.next(event)?;
        self.tries = 0;
        self.last_error = None;
        Ok(())
    }

    /// A new batch for some lines of this one, which failed as a part of `whole`
    /// without naming its bad lines.
    pub fn part(&self, id: BatchId, whole: BatchId, now: Timestamp) -> Batch {
        let reason = format!("a part of {whole}, whose bad lines are looked for");
        Batch {
            part_of: Some(whole),
            ..Batch::new(id, self.cohort, self.destination(), now, reason)
        }
    }

    /// The twin that the provider may have made, or did make, under `name`: the input
    /// file of a create that was given up, or a second batch's own id. The same name
    /// gives the same id, so that it is written down once.
    pub fn twin(&self, name: &str, state: BatchState, now: Timestamp) -> Batch {
        let id = self.id.twin(name);
        let reason = "a second batch of the same lines".to_owned();
        Batch {
            state,
            input_file: self.input_file.clone(),
            create_sent: self.create_sent,
            twin_of: Some(self.id),
            ..Batch::new(id, self.cohort, self.destination(), now, reason)
        }
    }

    fn destination(&self) -> Destination {
        Destination {
            id: self.cohort.destination,
            tenant: self.tenant,
            credential: self.credential,
            endpoint: self.endpoint,
            model: self.model.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_batch_may_do() {
        use {BatchEvent as E, BatchState as S};
        let events = [
            E::Seal,
            E::Upload,
            E::Submit,
            E::StartOver,
            E::Cancel,
            E::Settle,
            E::Abandon,
        ];
        let table = [
            (
                S::Filling,
                [
                    Some(S::Sealed),
                    None,
                    None,
                    None,
                    None,
                    None,
                    Some(S::Abandoned),
                ],
            ),
            (
                S::Sealed,
                [
                    None,
                    Some(S::Uploaded),
                    None,
                    None,
                    None,
                    None,
                    Some(S::Abandoned),
                ],
            ),
            (
                S::Uploaded,
                [
                    None,
                    None,
                    Some(S::Submitted),
                    Some(S::Sealed),
                    None,
                    None,
                    Some(S::Abandoned),
                ],
            ),
            (
                S::Lost,
                [
                    None,
                    None,
                    Some(S::Submitted),
                    None,
                    None,
                    None,
                    Some(S::Abandoned),
                ],
            ),
            (
                S::Submitted,
                [
                    None,
                    None,
                    None,
                    None,
                    Some(S::Cancelling),
                    Some(S::Settled),
                    None,
                ],
            ),
            (
                S::Cancelling,
                [
                    None,
                    None,
                    None,
                    None,
                    Some(S::Cancelling),
                    Some(S::Settled),
                    None,
                ],
            ),
            (S::Settled, [None; 7]),
            (S::Abandoned, [None; 7]),
        ];
        for (state, row) in table {
            for (event, expected) in events.into_iter().zip(row) {
                assert_eq!(state.next(event).ok(), expected, "{state:?} {event:?}");
            }
        }
    }
}
