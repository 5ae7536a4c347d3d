//! How long calls take, and how much they answer: means that forget.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::time::Timestamp;

/// What was seen counts for half after so long: of late,
const RECENT: Duration = Duration::from_secs(600);
/// and for as long as calls are rare.
const LASTING: Duration = Duration::from_secs(2 * 86_400);

/// What was seen of late, beside what was seen before, beside what was expected: each
/// weighs as much in the one before it as one call of now.
#[derive(Clone, Debug)]
pub struct Pace {
    expected: Duration,
    recent: Mean,
    lasting: Mean,
}

/// Decayed sums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Mean {
    weight: f64,
    seconds: f64,
    output: f64,
    at: Timestamp,
}

impl Mean {
    fn served(&mut self, now: Timestamp, half_life: Duration, took: Duration, output: u64) {
        let left = self.left(now, half_life);
        self.weight = self.weight * left + 1.0;
        self.seconds = self.seconds * left + took.as_secs_f64();
        self.output = self.output * left + output as f64;
        self.at = self.at.max(now);
    }

    /// Whether what was read back from a disk can be used.
    pub fn is_sound(&self) -> bool {
        let sums = [self.weight, self.seconds, self.output];
        sums.into_iter().all(|sum| sum.is_finite() && sum >= 0.0)
    }

    /// Takes in what another has seen.
    fn absorb(&mut self, other: &Mean, half_life: Duration) {
        let at = self.at.max(other.at);
        let (left, theirs) = (self.left(at, half_life), other.left(at, half_life));
        self.weight = self.weight * left + other.weight * theirs;
        self.seconds = self.seconds * left + other.seconds * theirs;
        self.output = self.output * left + other.output * theirs;
        self.at = at;
    }

    fn latency(&self, now: Timestamp, half_life: Duration, prior: f64) -> f64 {
        let left = self.left(now, half_life);
        (self.seconds * left + prior) / (self.weight * left + 1.0)
    }

    fn left(&self, now: Timestamp, half_life: Duration) -> f64 {
        let half_lives = self.at.until(now).as_secs_f64() / half_life.as_secs_f64();
        0.5f64.powf(half_lives)
    }
}

impl Pace {
    pub fn new(expected: Duration) -> Pace {
        Pace {
            expected,
            recent: Mean::default(),
            lasting: Mean::default(),
        }
    }

    pub fn served(&mut self, now: Timestamp, took: Duration, output: u64) {
        self.recent.served(now, RECENT, took, output);
        self.lasting.served(now, LASTING, took, output);
    }

    /// What a call takes.
    pub fn latency(&self, now: Timestamp) -> Duration {
        let expected = self.expected.as_secs_f64();
        let before = self.lasting.latency(now, LASTING, expected);
        Duration::from_secs_f64(self.recent.latency(now, RECENT, before))
    }

    /// Calls that were seen, those of long ago less.
    pub fn seen(&self, now: Timestamp) -> f64 {
        self.lasting.weight * self.lasting.left(now, LASTING)
    }

    /// Tokens of output of a call, in the mean, where any was seen.
    pub fn output(&self) -> Option<f64> {
        let seen = [self.recent, self.lasting];
        let seen = seen.into_iter().find(|mean| mean.weight > 0.0)?;
        Some(seen.output / seen.weight)
    }

    pub fn absorb(&mut self, other: &Pace) {
        self.recent.absorb(&other.recent, RECENT);
        self.lasting.absorb(&other.lasting, LASTING);
    }

    pub fn lasting(&self) -> Mean {
        self.lasting
    }

    pub fn recall(&mut self, lasting: Mean) {
        self.lasting = lasting;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_is_seen_takes_the_place_of_what_was_expected() {
        let mut pace = Pace::new(20 * SECOND);
        let now = Timestamp::from_secs(1_000);
        assert_eq!(pace.latency(now), 20 * SECOND);
        pace.served(now, 2 * SECOND, 100);
        // Three quarters of it: half of a half is still what was expected.
        assert_eq!(pace.latency(now).as_millis(), 6_500);
        (0..98).for_each(|_| pace.served(now, 2 * SECOND, 100));
        assert_eq!(pace.latency(now).as_millis(), 2_001);
        assert_eq!(pace.output(), Some(100.0));
    }

    #[test]
    fn what_is_seen_of_late_counts_most_and_what_was_is_kept_for_days() {
        let mut pace = Pace::new(20 * SECOND);
        let now = Timestamp::from_secs(1_000);
        (0..100).for_each(|_| pace.served(now, 60 * SECOND, 1));
        let later = now + 3600 * SECOND;
        (0..10).for_each(|_| pace.served(later, 2 * SECOND, 1));
        let at = |hours: u32| {
            let at = later + hours * 3600 * SECOND;
            pace.latency(at).as_secs_f64()
        };
        // A tenth of it is what was; after hours the mean of all.
        assert!((13.0..16.0).contains(&at(0)), "{}", at(0));
        assert!((48.0..55.0).contains(&at(6)), "{}", at(6));
        assert!((20.0..30.0).contains(&at(24 * 30)), "{}", at(24 * 30));
        let mut after = Pace::new(20 * SECOND);
        after.recall(pace.lasting());
        let restarted = after.latency(later + 6 * 3600 * SECOND).as_secs_f64();
        assert!((restarted - at(6)).abs() < 0.1, "{restarted}");
        assert_eq!(after.output(), Some(1.0));
    }
}
