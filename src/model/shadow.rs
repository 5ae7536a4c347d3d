//! What calls without a deadline cost, and what they would have cost with one.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{id::TenantId, money::Usd};

/// What sums are kept by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ShadowKey {
    pub tenant: TenantId,
    /// Days since the Unix epoch, in UTC.
    pub day: u32,
    /// The deadline that was reckoned with: sums of different ones do not add up.
    pub deadline: Duration,
    /// Without its date; none where the answer does not tell it.
    pub model: Option<String>,
}

/// Counts and sums; rows of one key add up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShadowRow {
    /// Answered calls that could have had a deadline.
    pub calls: u64,
    /// Those of them that were streamed: somebody may be waiting.
    pub streamed: u64,
    /// Those whose usage was not seen: in no sum below.
    pub unread: u64,
    /// Those whose model or tier has no price: in no sum below.
    pub unpriced: u64,
    /// Of the calls that were not streamed.
    pub plain: Estimate,
    /// Of those that were.
    pub streams: Estimate,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Estimate {
    /// What the calls did cost.
    pub cost: Usd,
    /// What they are expected to cost with the deadline.
    pub expected: Usd,
    /// Of a million, how many of each call are expected to be rescued, added up.
    pub rescued_micro: u64,
    /// The same of those that are expected to be late.
    pub missed_micro: u64,
}

impl ShadowRow {
    pub fn add(&mut self, other: &ShadowRow) {
        self.calls += other.calls;
        self.streamed += other.streamed;
        self.unread += other.unread;
        self.unpriced += other.unpriced;
        self.plain.add(&other.plain);
        self.streams.add(&other.streams);
    }
}

impl Estimate {
    fn add(&mut self, other: &Estimate) {
        self.cost += other.cost;
        self.expected += other.expected;
        self.rescued_micro += other.rescued_micro;
        self.missed_micro += other.missed_micro;
    }
}
