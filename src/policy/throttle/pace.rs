//! How long calls take, and how much they answer: means that forget.

use std::time::Duration;

use crate::model::time::Timestamp;

/// What was seen counts for half after so long.
const HALF_LIFE: Duration = Duration::from_secs(600);

/// Decayed means, beside a prior that weighs as much as one call of now.
#[derive(Clone, Debug)]
pub struct Pace {
    expected: Duration,
    weight: f64,
    seconds: f64,
    output: f64,
    at: Timestamp,
}

impl Pace {
    pub fn new(expected: Duration) -> Pace {
        Pace {
            expected,
            weight: 0.0,
            seconds: 0.0,
            output: 0.0,
            at: Timestamp::ZERO,
        }
    }

    pub fn served(&mut self, now: Timestamp, took: Duration, output: u64) {
        let left = self.left(now);
        self.weight = self.weight * left + 1.0;
        self.seconds = self.seconds * left + took.as_secs_f64();
        self.output = self.output * left + output as f64;
        self.at = self.at.max(now);
    }

    /// What a call takes; what was expected, where nothing was seen of late.
    pub fn latency(&self, now: Timestamp) -> Duration {
        let left = self.left(now);
        let seconds = self.seconds * left + self.expected.as_secs_f64();
        Duration::from_secs_f64(seconds / (self.weight * left + 1.0))
    }

    /// Tokens of output of a call, in the mean, where any was seen.
    pub fn output(&self) -> Option<f64> {
        (self.weight > 0.0).then(|| self.output / self.weight)
    }

    fn left(&self, now: Timestamp) -> f64 {
        let half_lives = self.at.until(now).as_secs_f64() / HALF_LIFE.as_secs_f64();
        0.5f64.powf(half_lives)
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
        assert_eq!(pace.latency(now), 11 * SECOND);
        (0..98).for_each(|_| pace.served(now, 2 * SECOND, 100));
        assert_eq!(pace.latency(now).as_millis(), 2_180);
        assert_eq!(pace.output(), Some(100.0));
    }

    #[test]
    fn what_was_seen_long_ago_is_forgotten() {
        let mut pace = Pace::new(20 * SECOND);
        let now = Timestamp::from_secs(1_000);
        (0..100).for_each(|_| pace.served(now, 2 * SECOND, 1));
        let at = |hours: u32| pace.latency(now + hours * 3600 * SECOND).as_secs_f64();
        assert!(at(0) < 2.3, "{}", at(0));
        assert!(at(1) > 9.0, "{}", at(1));
        assert!(at(6) > 19.9, "{}", at(6));
    }
}
