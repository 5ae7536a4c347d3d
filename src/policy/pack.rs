//! When a cohort becomes a batch. The discount does not depend on the size and
//! a batch is done when its slowest line is, so batches are as early as the
//! linger, the create budget, the control-call budget and the enqueued-token
//! budget allow (DESIGN.md §3).

mod budget;
mod fair;
mod load;
mod pressure;

use std::{cmp::Reverse, collections::BTreeMap, time::Duration};

pub use budget::{Budget, Room, Tokens};
pub use fair::{Round, Turns};
pub use load::{Limits, Load};
pub use pressure::{Pressure, Throttle};

use serde::Deserialize;

use crate::model::{request::Entry, time::Timestamp};

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    #[serde(with = "crate::model::time::human")]
    pub linger: Duration,
    /// A deadline bucket is as wide as this share of the slack.
    pub bucket_share: f64,
    pub max_lines: u32,
    pub max_bytes: u64,
    pub max_embedding_inputs: u64,
    /// Batches that are made of the halves of one that failed without naming its bad
    /// lines, and of their halves, at most.
    pub max_parts: u32,
    pub creates_per_hour: u32,
    /// The share of the creates that is kept for retries.
    pub creates_reserve: f64,
    /// Prompt tokens that may be enqueued at the provider, by model.
    pub enqueued_tokens: BTreeMap<String, u64>,
}

/// What waits in one cohort's queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Below zero for the moment in which a leaving is told before its coming.
    pub lines: i64,
    pub bytes: i64,
    pub inputs: i64,
    /// When the oldest of it was admitted.
    pub oldest: Timestamp,
    /// Looks in a row that found none of it in the store.
    pub unseen: u32,
}

impl Waiting {
    pub fn add(&mut self, entry: &Entry) {
        self.unseen = 0;
        let born = entry.key.id.born();
        self.oldest = if self.lines <= 0 {
            born
        } else {
            self.oldest.min(born)
        };
        self.lines += 1;
        self.bytes += i64::from(entry.line_bytes);
        self.inputs += i64::from(entry.inputs);
    }

    pub fn is_full(&self, settings: &Settings) -> bool {
        let reaches = |count: i64, limit: u64| u64::try_from(count).is_ok_and(|n| n >= limit);
        reaches(self.lines, settings.max_lines.into())
            || reaches(self.bytes, settings.max_bytes)
            || reaches(self.inputs, settings.max_embedding_inputs)
    }

    /// Who gets the next create where they are short, of work due from `due` on.
    pub fn urgency(&self, due: Timestamp, now: Timestamp) -> Urgency {
        let waited = self.oldest.until(now).as_secs_f64();
        let left = now.until(due).as_secs_f64().max(1.0);
        Urgency(Reverse((waited / left * 1e9) as u64))
    }

    /// Takes `entry` away; `oldest` stays a lower bound until the queue is read.
    pub fn subtract(&mut self, entry: &Entry) {
        self.lines -= 1;
        self.bytes -= i64::from(entry.line_bytes);
        self.inputs -= i64::from(entry.inputs);
    }
}

/// How long it has waited beside the time that is left, in billionths; the largest
/// sorts first. Each wait then costs about the same share of the slack: by deadlines
/// alone, short ones would take all creates, and long ones wait until they are short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Urgency(Reverse<u64>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Pack { reason: String },
    Wait { until: Timestamp },
}

/// What bounds the moment of packing, besides what waits.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// When the create budget has room next.
    pub create_at: Timestamp,
    /// What makes batches gather for longer.
    pub pressure: Pressure,
    /// The longest that more lines may be waited for: a share of the slack.
    pub patience: Duration,
    pub flush: bool,
}

pub fn decide(waiting: &Waiting, now: Timestamp, bounds: &Bounds, settings: &Settings) -> Decision {
    if bounds.create_at > now {
        return Decision::Wait {
            until: bounds.create_at,
        };
    }
    if waiting.is_full(settings) {
        return Decision::Pack {
            reason: format!("full at {} lines", waiting.lines),
        };
    }
    if bounds.flush {
        return Decision::Pack {
            reason: "flushed by the operator".into(),
        };
    }
    let gather = bounds.pressure.gather(settings.linger, bounds.patience);
    let enough = waiting.lines >= gather.enough;
    let ripe = waiting.oldest
        + if enough {
            gather.linger
        } else {
            gather.longest
        };
    if ripe > now {
        return Decision::Wait { until: ripe };
    }
    let waited = super::lane::words(waiting.oldest.until(now));
    let mut reason = format!("{} lines, the oldest waited {waited}", waiting.lines);
    if gather.longest > settings.linger {
        reason += &format!(" ({})", bounds.pressure);
    }
    Decision::Pack { reason }
}

#[cfg(test)]
pub(super) mod tests;
