//! What makes batches larger and rarer: the control calls that open ones cost, and
//! a provider that throttles creates.

use std::{fmt, time::Duration};

use crate::model::time::Timestamp;

/// The control-call budget is never thought to be used up by more than this, so
/// that the linger has a bound.
const FULLEST: f64 = 0.99;
/// The level of a throttle rises at most this often,
const RISE: Duration = Duration::from_secs(60);
/// and falls by one for each such time without a complaint.
const DECAY: Duration = Duration::from_secs(600);
/// 64 times the linger, and 8,192 lines.
const HIGHEST: u32 = 6;

/// How often a provider has answered creates with 429, decaying.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Throttle {
    level: u32,
    /// When the level last rose.
    since: Timestamp,
}

impl Throttle {
    /// A create was answered with 429. Several at once are one complaint.
    pub fn complained(&mut self, now: Timestamp) {
        let level = self.level(now);
        if level > 0 && self.since + RISE > now {
            return;
        }
        self.level = (level + 1).min(HIGHEST);
        self.since = now;
    }

    /// What was complained of elsewhere counts here too.
    pub fn absorb(&mut self, other: &Throttle, now: Timestamp) {
        if other.level(now) > self.level(now) {
            *self = *other;
        }
    }

    pub fn level(&self, now: Timestamp) -> u32 {
        let passed = self.since.until(now).as_secs() / DECAY.as_secs();
        self.level
            .saturating_sub(u32::try_from(passed).unwrap_or(u32::MAX))
    }
}

/// At one instant, for one organization.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pressure {
    /// The share of the control-call budget that the polls of open batches take.
    pub calls: f64,
    /// Of the [`Throttle`].
    pub throttle: u32,
}

/// How long a batch gathers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gather {
    /// Where it has `enough` lines.
    pub linger: Duration,
    pub enough: i64,
    /// Where it has fewer.
    pub longest: Duration,
}

impl Pressure {
    /// Open batches, and so their polls, are as many as the linger is short. Divided
    /// by what is left of the budget, it settles where the polls fit. `patience`
    /// bounds the lengthening, never the linger itself.
    pub fn gather(&self, linger: Duration, patience: Duration) -> Gather {
        let most = patience.max(linger);
        let left = 1.0 - self.calls.clamp(0.0, FULLEST);
        let by_calls = linger.div_f64(left).min(most);
        Gather {
            linger: by_calls,
            enough: match self.throttle {
                0 => 0,
                level => 2 << (2 * level),
            },
            longest: (by_calls * (1 << self.throttle)).min(most),
        }
    }
}

impl fmt::Display for Pressure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "polls take {:.0} % of their budget", self.calls * 100.0)?;
        match self.throttle {
            0 => Ok(()),
            level => write!(f, ", creates are throttled at level {level}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_a_batch_gathers() {
        for (calls, throttle, patience, linger, enough, longest) in [
            (0.0, 0, 600, 5, 0, 5),
            (0.5, 0, 600, 10, 0, 10),
            (7.0, 0, 600, 500, 0, 500),
            (7.0, 0, 60, 60, 0, 60),
            (0.5, 0, 1, 5, 0, 5),
            (0.0, 1, 600, 5, 8, 10),
            (0.0, 3, 600, 5, 128, 40),
            (0.5, 6, 600, 10, 8192, 600),
        ] {
            let seconds = Duration::from_secs;
            let gather = Pressure { calls, throttle }.gather(seconds(5), seconds(patience));
            let rounded = |time: Duration| time.as_secs_f64().round() as u64;
            let got = (
                rounded(gather.linger),
                gather.enough,
                rounded(gather.longest),
            );
            let told = format!("{calls} {throttle} {patience}");
            assert_eq!(got, (linger, enough, longest), "{told}");
        }
    }

    /// Batches made every linger, whose polls would take `wanted` of the budget at
    /// the shortest one.
    #[test]
    fn the_linger_settles_where_the_polls_fit() {
        let shortest = Duration::from_secs(5);
        for wanted in [0.1, 0.9, 3.0, 20.0] {
            let mut calls: f64 = 0.0;
            for _ in 0..10_000 {
                let pressure = Pressure { calls, throttle: 0 };
                let linger = pressure.gather(shortest, Duration::from_secs(3600)).linger;
                let made = wanted / linger.div_duration_f64(shortest);
                calls += (made - calls) * 0.01;
            }
            assert!(calls < 1.0, "{wanted} settles at {calls}");
        }
    }

    #[test]
    fn a_throttle_rises_with_complaints_and_decays() {
        let at = |seconds: u64| Timestamp::from_secs(1_000_000 + seconds);
        let mut throttle = Throttle::default();
        assert_eq!(throttle.level(at(0)), 0);
        for (now, level) in [(0, 1), (30, 1), (60, 2), (700, 2)] {
            throttle.complained(at(now));
            assert_eq!(throttle.level(at(now)), level, "at {now} s");
        }
        for (now, level) in [(1299, 2), (1300, 1), (1900, 0), (9999, 0)] {
            assert_eq!(throttle.level(at(now)), level, "at {now} s");
        }
        for minute in 0..20 {
            throttle.complained(at(10_000 + 60 * minute));
        }
        assert_eq!(throttle.level(at(10_000 + 60 * 20)), HIGHEST);
    }
}
