//! Live capacity is shared by all the work of a scope, so work leaves its lane
//! early enough for all of it: for every instant, what is due by then must fit
//! into the calls that can be made until then (DESIGN.md §3).

use std::time::Duration;

use crate::model::{attempt::Lane, time::Timestamp};

/// What a scope can run live.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Capacity {
    /// Calls a second.
    pub rate: f64,
    /// Where the provider limits them.
    pub tokens: Option<TokenRate>,
    /// What one call takes, at worst.
    pub live: Duration,
}

/// How fast the provider takes tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenRate {
    pub per_second: f64,
    /// Of output, in the mean of a call: they count as those of its input do.
    pub output: f64,
}

/// Bytes of a request for one token. What is reckoned with need not be exact: what a
/// call takes is the provider's to say.
pub const BYTES_A_TOKEN: f64 = 4.0;

/// Work that would have to run live if nothing else answered it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Demand {
    pub due: Timestamp,
    /// Expected calls: all of them where the promise is firm.
    pub calls: f64,
    /// Of their requests, all together.
    pub bytes: f64,
}

/// The share of it that is reckoned with where work is firm. The rest is for what nobody
/// foresees: calls that take longer than in the mean, or are put off, and others that
/// take of the same limits.
const SURE: f64 = 0.8;

/// From when on work that is due then may have to run live with all else that is firm. Were
/// that at once, promises up to the last call that fits would make all of them leave their
/// batches at once, at the full price: a batch has the first quarter of the time to itself. A
/// flex call answers soon or not at all.
pub fn runs_live_from(now: Timestamp, due: Timestamp, lane: Lane) -> Timestamp {
    match lane {
        Lane::Standard | Lane::Flex => now,
        Lane::Batch | Lane::Background8h | Lane::Background2h => now + now.until(due) / 4,
    }
}

impl Demand {
    /// Where tokens are not limited.
    pub fn of_calls(due: Timestamp, calls: f64) -> Demand {
        Demand {
            due,
            calls,
            bytes: 0.0,
        }
    }
}

impl Capacity {
    /// What promises are given out of, and kept with. One call may be in the way.
    pub fn sure(self) -> Capacity {
        let tokens = self.tokens.map(|tokens| TokenRate {
            per_second: tokens.per_second * SURE,
            ..tokens
        });
        Capacity {
            rate: self.rate * SURE,
            tokens,
            live: self.live + self.takes(1.0, 0.0).min(self.live),
        }
    }

    /// What is kept for one call of so many bytes where nothing else waits: with less
    /// left there is no room for it.
    pub fn for_one(&self, bytes: f64) -> Duration {
        self.live + self.takes(1.0, bytes)
    }

    /// Until so many calls have begun.
    fn takes(&self, calls: f64, bytes: f64) -> Duration {
        let calls = calls.max(0.0);
        let by_calls = calls / self.rate.max(1e-9);
        let by_tokens = self.tokens.map_or(0.0, |tokens| {
            let all = bytes.max(0.0) / BYTES_A_TOKEN + calls * tokens.output;
            all / tokens.per_second.max(1e-9)
        });
        Duration::try_from_secs_f64(by_calls.max(by_tokens)).unwrap_or(Duration::MAX)
    }

    /// The latest instants at which each piece of work must have its first call
    /// begin, so that it and all that is due later are in time, the earliest
    /// deadline served first. `work` is in order of deadlines.
    pub fn latest_starts(&self, work: &[Demand]) -> Vec<Timestamp> {
        let mut next = Timestamp::MAX;
        let mut starts: Vec<Timestamp> = work
            .iter()
            .rev()
            .map(|demand| {
                let by = next.min(demand.due - self.live);
                next = by - self.takes(demand.calls, demand.bytes);
                next
            })
            .collect();
        starts.reverse();
        starts
    }

    /// Whether `more` fits in with `work`, which is in order of deadlines: neither it
    /// nor anything due later is late, if all of it has to run live from now on.
    pub fn has_room(
        &self,
        now: Timestamp,
        more: Demand,
        work: impl IntoIterator<Item = Demand>,
    ) -> bool {
        let fits = |calls: f64, bytes: f64, by: Timestamp| {
            now + self.takes(calls, bytes) <= by - self.live
        };
        let (mut calls, mut bytes) = (0.0, 0.0);
        let mut counted = false;
        for demand in work {
            if !counted && demand.due > more.due {
                counted = true;
                calls += more.calls;
                bytes += more.bytes;
                if !fits(calls, bytes, more.due) {
                    return false;
                }
            }
            calls += demand.calls;
            bytes += demand.bytes;
            if counted && !fits(calls, bytes, demand.due) {
                return false;
            }
        }
        counted || fits(calls + more.calls, bytes + more.bytes, more.due)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CAPACITY: Capacity = Capacity {
        rate: 2.0,
        tokens: None,
        live: Duration::from_secs(20),
    };

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_secs(seconds)
    }

    fn demand(due: u64, calls: f64) -> Demand {
        let due = at(due);
        // A thousand tokens a call.
        let bytes = calls * 4000.0;
        Demand { due, calls, bytes }
    }

    #[test]
    fn what_is_due_later_makes_room_for_what_is_due_before() {
        for (work, starts) in [
            (vec![demand(1000, 2.0)], vec![at(979)]),
            // 60 calls need 30 s: what is due before begins 30 s earlier.
            (
                vec![demand(1000, 2.0), demand(1001, 60.0)],
                vec![at(950), at(951)],
            ),
            // Far apart they do not meet.
            (
                vec![demand(1000, 2.0), demand(9000, 60.0)],
                vec![at(979), at(8950)],
            ),
        ] {
            assert_eq!(CAPACITY.latest_starts(&work), starts, "{work:?}");
        }
    }

    #[test]
    fn room_is_asked_of_every_later_deadline() {
        let now = at(0);
        // 200 calls until 120 s take all that there is, from 20 s on at 2 a second.
        let full = || [demand(120, 200.0)];
        for (due, room) in [(21, false), (100, false), (120, false), (121, true)] {
            assert_eq!(
                CAPACITY.has_room(now, demand(due, 1.0), full()),
                room,
                "{due}"
            );
        }
        assert!(
            !CAPACITY.has_room(now, demand(19, 1.0), []),
            "shorter than a call"
        );
        assert!(CAPACITY.has_room(now, demand(30, 1.0), []));
    }

    #[test]
    fn the_scarcer_of_calls_and_tokens_counts() {
        // With what is answered, a call takes 1,500 tokens.
        for (per_second, first) in [(30_000.0, 880), (3_000.0, 880), (1_500.0, 780), (150.0, 0)] {
            let output = 500.0;
            let capacity = Capacity {
                tokens: Some(TokenRate { per_second, output }),
                ..CAPACITY
            };
            let work = [demand(1000, 200.0)];
            assert_eq!(capacity.latest_starts(&work), [at(first)], "{per_second}");
            let now = at(first);
            let room = |calls: f64| capacity.has_room(now, demand(1000, calls), []);
            assert!(!room(201.0) && (first == 0 || room(199.0)), "{per_second}");
            let sure = capacity.sure().tokens.unwrap();
            assert_eq!(sure.per_second, per_second * SURE);
        }
    }

    proptest! {
        /// Plays the wave: calls begin when they must, at the rate, earliest
        /// deadline first.
        #[test]
        fn who_begins_by_then_is_in_time(
            mut dues in prop::collection::vec((10_000u64..15_000, 1u32..300), 1..20),
        ) {
            dues.sort();
            let work: Vec<Demand> = dues.iter().map(|&(due, n)| demand(due, n.into())).collect();
            let starts = CAPACITY.latest_starts(&work);
            let mut free: f64 = 0.0;
            for (demand, start) in work.iter().zip(&starts) {
                prop_assert!(*start <= demand.due - CAPACITY.live);
                free = free.max(start.as_millis() as f64 / 1000.0) + demand.calls / CAPACITY.rate;
                let last_ends = free + CAPACITY.live.as_secs_f64();
                prop_assert!(last_ends <= demand.due.as_millis() as f64 / 1000.0 + 0.01);
            }
        }

        #[test]
        fn whoever_was_let_in_can_be_served(dues in prop::collection::vec(21u64..400, 1..400)) {
            let mut firm: Vec<u64> = Vec::new();
            for due in dues {
                let mut work: Vec<u64> = firm.clone();
                work.sort_unstable();
                if CAPACITY.has_room(at(0), demand(due, 1.0), work.into_iter().map(|due| demand(due, 1.0))) {
                    firm.push(due);
                }
            }
            firm.sort_unstable();
            for (served, due) in firm.into_iter().enumerate() {
                let ends = (served + 1) as f64 / CAPACITY.rate + 20.0;
                prop_assert!(ends <= due as f64, "{served} due {due}");
            }
        }
    }
}
