//! One try at answering a request.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{
    id::BatchId,
    money::Usd,
    request::{Bill, Usage},
    time::Timestamp,
};

/// A way to get an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lane {
    Batch,
    Standard,
}

impl Lane {
    pub const fn as_str(self) -> &'static str {
        match self {
            Lane::Batch => "batch",
            Lane::Standard => "standard",
        }
    }
}

/// Attempts that went as hoped are told by the outcome alone; the store keeps a
/// record of live attempts from before they are sent, and of answers that came
/// after somebody else's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    pub id: AttemptId,
    pub started: Timestamp,
    pub state: AttemptState,
    pub ended: Option<Timestamp>,
    pub note: String,
    pub usage: Usage,
    pub bill: Option<Bill>,
    /// What the rescue budget keeps for it: the most it is expected to cost. None
    /// where it is no rescue.
    pub reserved: Option<Usd>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum AttemptId {
    Batch(BatchId),
    /// The n-th live call for this request, from 1.
    Live(u32),
}

impl AttemptId {
    pub const fn lane(self) -> Lane {
        match self {
            AttemptId::Batch(_) => Lane::Batch,
            AttemptId::Live(_) => Lane::Standard,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptState {
    /// It may be running at the provider.
    Open,
    /// Its answer became the request's.
    Answered,
    /// It ended without an answer that counts.
    Ended,
    /// Its answer came when the request had another: paid twice.
    Late,
    /// Nobody saw how it ended; it may have been billed.
    Unaccounted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptEvent {
    Answer,
    End,
    AnswerLate,
    LoseSight,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("an attempt that is {state:?} cannot {event:?}")]
pub struct Illegal {
    pub state: AttemptState,
    pub event: AttemptEvent,
}

impl AttemptState {
    pub fn next(self, event: AttemptEvent) -> Result<AttemptState, Illegal> {
        use {AttemptEvent as E, AttemptState as S};
        match (self, event) {
            (S::Open, E::Answer) => Ok(S::Answered),
            (S::Open, E::End) => Ok(S::Ended),
            (S::Open | S::Unaccounted, E::AnswerLate) => Ok(S::Late),
            (S::Open, E::LoseSight) => Ok(S::Unaccounted),
            (state, event) => Err(Illegal { state, event }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_attempt_may_do() {
        use {AttemptEvent as E, AttemptState as S};
        let events = [E::Answer, E::End, E::AnswerLate, E::LoseSight];
        let table = [
            (
                S::Open,
                [
                    Some(S::Answered),
                    Some(S::Ended),
                    Some(S::Late),
                    Some(S::Unaccounted),
                ],
            ),
            (S::Answered, [None, None, None, None]),
            (S::Ended, [None, None, None, None]),
            (S::Late, [None, None, None, None]),
            (S::Unaccounted, [None, None, Some(S::Late), None]),
        ];
        for (state, row) in table {
            for (event, expected) in events.into_iter().zip(row) {
                assert_eq!(state.next(event).ok(), expected, "{state:?} {event:?}");
            }
        }
    }
}
