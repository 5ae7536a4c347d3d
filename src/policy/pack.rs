//! When a cohort becomes a batch. The discount does not depend on the size and
//! a batch is done when its slowest line is, so batches are as early as the
//! linger and the create budget allow (DESIGN.md §3).

use std::time::Duration;

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
    pub creates_per_hour: u32,
    /// The share of the creates that is kept for retries.
    pub creates_reserve: f64,
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

    /// Takes `entry` away; `oldest` stays a lower bound until the queue is read.
    pub fn subtract(&mut self, entry: &Entry) {
        self.lines -= 1;
        self.bytes -= i64::from(entry.line_bytes);
        self.inputs -= i64::from(entry.inputs);
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Pack { reason: String },
    Wait { until: Timestamp },
}

/// `create_at` is the next instant at which the create budget has room.
pub fn decide(
    waiting: &Waiting,
    now: Timestamp,
    create_at: Timestamp,
    flush: bool,
    settings: &Settings,
) -> Decision {
    let ripe = waiting.oldest + settings.linger;
    if create_at > now {
        return Decision::Wait { until: create_at };
    }
    if waiting.is_full(settings) {
        return Decision::Pack {
            reason: format!("full at {} lines", waiting.lines),
        };
    }
    if flush {
        return Decision::Pack {
            reason: "flushed by the operator".into(),
        };
    }
    if ripe <= now {
        let waited = super::lane::words(waiting.oldest.until(now));
        return Decision::Pack {
            reason: format!("{} lines, the oldest waited {waited}", waiting.lines),
        };
    }
    Decision::Wait { until: ripe }
}

/// What a batch holds while it is filled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    pub lines: u32,
    pub bytes: u64,
    pub inputs: u64,
}

impl Load {
    /// Takes the entry in, or says no where a limit would break. A first line
    /// always fits: admission bounds a single call.
    pub fn take(&mut self, entry: &Entry, settings: &Settings) -> bool {
        let next = Load {
            lines: self.lines + 1,
            bytes: self.bytes + u64::from(entry.line_bytes),
            inputs: self.inputs + u64::from(entry.inputs),
        };
        let fits = next.lines <= settings.max_lines
            && next.bytes <= settings.max_bytes
            && next.inputs <= settings.max_embedding_inputs;
        if fits || self.lines == 0 {
            *self = next;
            return true;
        }
        false
    }
}

/// Bytes of a batch where the provider takes fewer tokens than a full one has
/// (`token_limit_exceeded`, WIRE.md §1). Learned from what it refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cap {
    pub bytes: u64,
    /// In a row.
    refusals: u32,
}

/// Refusals in a row after which a line that is alone will never fit: until then
/// the room may be taken by work that is not ours.
const NEVER: u32 = 5;

impl Cap {
    /// A batch of so many bytes was refused, although no other of ours was there.
    pub fn refused(before: Option<Cap>, bytes: u64) -> Cap {
        Cap {
            bytes: (bytes / 2).max(1),
            refusals: before.map_or(0, |cap| cap.refusals) + 1,
        }
    }

    /// A batch within the cap was taken. None where no cap is needed any more.
    pub fn taken(self, max_bytes: u64) -> Option<Cap> {
        let bytes = self.bytes + self.bytes / 8 + 1;
        (bytes < max_bytes).then_some(Cap { bytes, refusals: 0 })
    }

    pub fn is_hopeless(self, lines: u32) -> bool {
        lines == 1 && self.refusals >= NEVER
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{
        attempt::Lane,
        id::{DestinationId, RequestId, RequestKey, TenantId},
        request::{Bucket, Cohort, OnLate},
    };

    #[test]
    fn a_cap_halves_when_refused_and_rises_slowly_until_it_goes() {
        let cap = |bytes, refusals| Cap { bytes, refusals };
        assert_eq!(Cap::refused(None, 1000), cap(500, 1));
        assert_eq!(Cap::refused(Some(cap(500, 1)), 400), cap(200, 2));
        assert_eq!(Cap::refused(None, 1).bytes, 1, "a line goes in any case");
        assert_eq!(cap(800, 3).taken(10_000), Some(cap(901, 0)));
        assert_eq!(cap(9_000, 3).taken(10_000), None);
        for (refusals, lines, hopeless) in [(4, 1, false), (5, 1, true), (9, 2, false)] {
            assert_eq!(cap(1, refusals).is_hopeless(lines), hopeless);
        }
    }

    pub fn settings() -> Settings {
        Settings {
            linger: Duration::from_secs(5),
            bucket_share: 0.05,
            max_lines: 50_000,
            max_bytes: 190_000_000,
            max_embedding_inputs: 50_000,
            creates_per_hour: 2_000,
            creates_reserve: 0.1,
        }
    }

    fn entry(line_bytes: u32, inputs: u32) -> Entry {
        let key = RequestKey {
            tenant: TenantId([0; 16]),
            id: RequestId::MIN,
        };
        Entry {
            key,
            cohort: Cohort {
                destination: DestinationId([0; 16]),
                on_late: OnLate::Rescue,
                bucket: Bucket::of(Timestamp::MAX, Duration::from_secs(1)),
            },
            lane: Lane::Batch,
            deadline: Timestamp::MAX,
            line_bytes,
            inputs,
        }
    }

    #[test]
    fn when_a_cohort_is_packed() {
        let now = Timestamp::from_secs(1000);
        let fresh = Waiting {
            lines: 1,
            bytes: 10,
            inputs: 1,
            oldest: Timestamp::from_secs(999),
            unseen: 0,
        };
        let ripe = Waiting {
            oldest: Timestamp::from_secs(995),
            ..fresh
        };
        let full = Waiting {
            lines: 50_000,
            ..fresh
        };
        let wait = |seconds| Decision::Wait {
            until: Timestamp::from_secs(seconds),
        };
        let decide = |waiting, create_at, flush| {
            decide(
                waiting,
                now,
                Timestamp::from_secs(create_at),
                flush,
                &settings(),
            )
        };
        assert_eq!(decide(&fresh, 0, false), wait(1004));
        assert_eq!(decide(&ripe, 1002, false), wait(1002));
        assert!(matches!(decide(&ripe, 0, false), Decision::Pack { .. }));
        assert!(matches!(decide(&full, 0, false), Decision::Pack { .. }));
        assert!(matches!(decide(&fresh, 0, true), Decision::Pack { .. }));
    }

    proptest! {
        #[test]
        fn every_limit_holds(entries in prop::collection::vec((1u32..20_000_000, 1u32..3000), 1..60)) {
            let settings = settings();
            let mut load = Load::default();
            let mut sum = Load::default();
            for (bytes, inputs) in entries {
                if load.take(&entry(bytes, inputs), &settings) {
                    sum.lines += 1;
                    sum.bytes += u64::from(bytes);
                    sum.inputs += u64::from(inputs);
                }
            }
            prop_assert_eq!(load, sum);
            prop_assert!(load.bytes <= settings.max_bytes);
            prop_assert!(load.inputs <= settings.max_embedding_inputs);
        }
    }
}
