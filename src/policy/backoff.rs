//! When to try again what may work later: [`Growth`] is how the waits grow, with
//! jitter; [`Backoff`] lets them grow up to a horizon. With the defaults (5 s,
//! 72 h) a webhook is tried at about 0 s, 5 s, 25 s, 2 min, 7 min, 28 min, 2 h,
//! 8 h and then every 8 h.

use std::time::Duration;

use crate::model::time::Timestamp;

/// Waits that grow from failure to failure up to a longest one.
#[derive(Debug, Clone, Copy)]
pub struct Growth {
    /// The wait after the first failure, jitter aside.
    pub first: Duration,
    /// Each wait is this many times the one before.
    pub factor: u32,
    /// The longest wait, jitter aside.
    pub longest: Duration,
    /// The least share of itself that a wait is cut to, so that what failed
    /// together does not come back together.
    pub least: f64,
    /// How far above `least` that share reaches.
    pub spread: f64,
}

impl Growth {
    /// The wait after failed attempt number `attempt` (the first is 1).
    /// `chance` is uniform in `0..=u128::MAX`.
    pub fn delay(&self, attempt: u32, chance: u128) -> Duration {
        let growth = self.factor.checked_pow(attempt.saturating_sub(1));
        let plain = growth
            .and_then(|growth| self.first.checked_mul(growth))
            .map_or(self.longest, |delay| delay.min(self.longest));
        let share = (chance >> 96) as f64 / f64::from(u32::MAX);
        plain.mul_f64(self.least + self.spread * share)
    }
}

/// Waits that grow from `first_retry`, and an end at `horizon`.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    /// The wait after the first failure.
    pub first_retry: Duration,
    /// No attempt starts later than this after the work became due.
    pub horizon: Duration,
}

/// Each wait is this many times the one before.
const FACTOR: u32 = 4;

/// The longest wait is this part of the horizon, so that a target which comes
/// back near the end is still found, and a horizon of seconds has several tries.
const HORIZON_SHARE: u32 = 9;

/// A delay is spread over 1 ± this share of itself.
const JITTER: f64 = 0.2;

impl Backoff {
    /// When to try again after attempt number `attempt` failed at `now`, or
    /// `None` when the horizon counted from `since` is used up. What the other
    /// side asked for in `Retry-After` is honoured up to the longest wait.
    /// The last attempt is moved forward onto the horizon, so that a target
    /// which is back by then still gets it.
    pub fn next_attempt(
        &self,
        since: Timestamp,
        now: Timestamp,
        attempt: u32,
        retry_after: Option<Duration>,
        chance: u128,
    ) -> Option<Timestamp> {
        let horizon = since + self.horizon;
        if now >= horizon {
            return None;
        }
        Some((now + self.pause(attempt, retry_after, chance)).min(horizon))
    }

    /// The wait after failed attempt number `attempt`, without an end.
    pub fn pause(&self, attempt: u32, retry_after: Option<Duration>, chance: u128) -> Duration {
        let growth = self.growth();
        let asked = retry_after.unwrap_or_default().min(growth.longest);
        growth.delay(attempt, chance).max(asked)
    }

    fn growth(&self) -> Growth {
        Growth {
            first: self.first_retry,
            factor: FACTOR,
            longest: self.horizon / HORIZON_SHARE,
            least: 1.0 - JITTER,
            spread: 2.0 * JITTER,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// No jitter, to within a part in four billion.
    const MIDDLE: u128 = u128::MAX / 2;

    const HOUR: Duration = Duration::from_secs(3600);

    fn defaults() -> Backoff {
        Backoff {
            first_retry: Duration::from_secs(5),
            horizon: 72 * HOUR,
        }
    }

    /// Plays failures to the end; returns when each attempt took place.
    fn play(backoff: &Backoff, retry_after: Option<Duration>) -> Vec<Timestamp> {
        let since = Timestamp::from_secs(1_000);
        let mut at = vec![since];
        while let Some(next) = backoff.next_attempt(
            since,
            at[at.len() - 1],
            u32::try_from(at.len()).unwrap(),
            retry_after,
            MIDDLE,
        ) {
            at.push(next);
        }
        at
    }

    #[test]
    fn the_defaults_cover_three_days_in_a_few_attempts() {
        let at = play(&defaults(), None);
        let waits: Vec<u64> = at
            .windows(2)
            .map(|w| (w[0].until(w[1]).as_millis() + 500) as u64 / 1000)
            .collect();
        assert_eq!(waits[..7], [5, 20, 80, 320, 1280, 5120, 20480]);
        assert_eq!(waits[7..15], [28800; 8]);
        assert_eq!(waits[15..], [1495]);
        assert_eq!(at[0].until(at[at.len() - 1]), 72 * HOUR);
    }

    #[test]
    fn a_day_can_be_played_in_seconds() {
        let quick = Backoff {
            first_retry: Duration::from_millis(50),
            horizon: Duration::from_millis(1800),
        };
        let at = play(&quick, None);
        let waits: Vec<u128> = at
            .windows(2)
            .map(|w| w[0].until(w[1]).as_millis())
            .collect();
        assert_eq!(waits, [50, 200, 200, 200, 200, 200, 200, 200, 200, 150]);
    }

    #[test]
    fn retry_after_lengthens_a_wait_but_has_a_bound() {
        let backoff = defaults();
        let wait = |asked| {
            let at = play(&backoff, Some(asked));
            at[0].until(at[1])
        };
        assert_eq!(wait(Duration::from_secs(60)), Duration::from_secs(60));
        assert_eq!(wait(Duration::from_secs(1)), Duration::from_secs(5));
        assert_eq!(wait(1000 * HOUR), 8 * HOUR);
    }

    #[test]
    fn ends_at_the_horizon() {
        let since = Timestamp::from_secs(10);
        let late = since + 72 * HOUR;
        assert_eq!(defaults().next_attempt(since, late, 9, None, MIDDLE), None);
    }

    #[test]
    fn waits_grow_up_to_the_longest() {
        let growth = Growth {
            first: Duration::from_millis(100),
            factor: 3,
            longest: Duration::from_secs(5),
            least: 1.0,
            spread: 0.0,
        };
        let waits = [0, 1, 2, 3, 4, 5, 100, u32::MAX].map(|n| growth.delay(n, 0).as_millis());
        assert_eq!(waits, [100, 100, 300, 900, 2700, 5000, 5000, 5000]);
    }

    proptest! {
        #[test]
        fn every_wait_is_within_its_share_of_the_step(
            attempt in 0u32..,
            chance in any::<u128>(),
            factor in 1u32..5,
            least in 0.0..1.0,
            spread in 0.0..1.0,
        ) {
            let plain = Growth {
                first: Duration::from_millis(100),
                factor,
                longest: Duration::from_secs(60),
                least: 1.0,
                spread: 0.0,
            };
            let delay = Growth { least, spread, ..plain }.delay(attempt, chance);
            let step = plain.delay(attempt, 0);
            prop_assert!(step <= plain.longest);
            prop_assert!(delay >= step.mul_f64(least) && delay <= step.mul_f64(least + spread));
        }
    }
}
