//! One try at answering a request.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{
    id::BatchId,
    money::Usd,
    request::{Bill, Usage},
    time::Timestamp,
};

/// A way to get an answer (WIRE.md §1, §2), the cheapest first. Batch and flex
/// cost the same; batch stands before flex because its price never becomes
/// another one on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Lane {
    #[serde(rename = "batch")]
    Batch,
    /// An ordinary call with `service_tier: "flex"`.
    #[serde(rename = "flex")]
    Flex,
    /// A background response that is promised within eight hours.
    #[serde(rename = "background-8h")]
    Background8h,
    #[serde(rename = "background-2h")]
    Background2h,
    #[serde(rename = "standard")]
    Standard,
}

impl Lane {
    pub const ALL: [Lane; 5] = [
        Lane::Batch,
        Lane::Flex,
        Lane::Background8h,
        Lane::Background2h,
        Lane::Standard,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Lane::Batch => "batch",
            Lane::Flex => "flex",
            Lane::Background8h => "background-8h",
            Lane::Background2h => "background-2h",
            Lane::Standard => "standard",
        }
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("no lane has this name; there are batch, flex, background-8h, background-2h and standard")]
pub struct UnknownLane;

impl FromStr for Lane {
    type Err = UnknownLane;

    fn from_str(name: &str) -> Result<Lane, UnknownLane> {
        Lane::ALL
            .into_iter()
            .find(|lane| lane.as_str() == name)
            .ok_or(UnknownLane)
    }
}

/// Attempts that went as hoped are told by the outcome alone; the store keeps a
/// record of live attempts from before they are sent, and of answers that came
/// after somebody else's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    pub id: AttemptId,
    /// The lane that was asked for; the bill may tell of another.
    pub lane: Lane,
    /// The provider's id of a background response, once it is known.
    pub remote: Option<String>,
    pub started: Timestamp,
    pub state: AttemptState,
    pub ended: Option<Timestamp>,
    pub note: String,
    pub usage: Usage,
    pub bill: Option<Bill>,
    /// What the rescue budget keeps for it: the most it is expected to cost. None
    /// where it is no rescue.
    pub reserved: Option<Usd>,
    /// What the budget of an issued key keeps for it: the most that it is expected to
    /// cost. None where no such budget counts it.
    pub most: Option<Usd>,
    /// The batch that the request was a line of when this live call for it began: it
    /// was taken out of it. None where the call began from elsewhere.
    pub from: Option<BatchId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum AttemptId {
    Batch(BatchId),
    /// The n-th call for this request outside of batches, from 1, in whatever
    /// lane.
    Live(u32),
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
    /// Its answer came when the request had ended: paid twice where that had another
    /// answer, else for nothing.
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
    fn a_lane_has_one_name_everywhere() {
        for lane in Lane::ALL {
            assert_eq!(lane.as_str().parse(), Ok(lane));
            assert_eq!(serde_json::to_value(lane).unwrap(), lane.as_str());
        }
        assert_eq!("Batch".parse::<Lane>(), Err(UnknownLane));
        assert!(Lane::ALL.is_sorted());
    }

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
