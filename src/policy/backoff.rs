//! When to try again what may work later: exponential with jitter, up to a
//! horizon. With the defaults (5 s, 72 h) a webhook is tried at about 0 s, 5 s,
//! 25 s, 2 min, 7 min, 28 min, 2 h, 8 h and then every 8 h.

use std::time::Duration;

use crate::model::time::Timestamp;

/// Each wait is this many times the one before.
const FACTOR: u32 = 4;

/// The longest wait is this part of the horizon, so that a target which comes
/// back near the end is still found, and a horizon of seconds has several tries.
const HORIZON_SHARE: u32 = 9;

/// A delay is spread over 1 ± this share of itself, so that what failed
/// together does not come back together.
const JITTER: f64 = 0.2;

/// Waits that grow from `first_retry`, and an end at `horizon`.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    /// The wait after the first failure.
    pub first_retry: Duration,
    /// No attempt starts later than this after the work became due.
    pub horizon: Duration,
}

impl Backoff {
    /// The wait after failed attempt number `attempt` (the first is 1).
    /// `chance` is uniform in `0..=u128::MAX`.
    pub fn delay(&self, attempt: u32, chance: u128) -> Duration {
        let growth = FACTOR.checked_pow(attempt.saturating_sub(1));
        let plain = growth
            .and_then(|growth| self.first_retry.checked_mul(growth))
            .map_or(self.longest(), |delay| delay.min(self.longest()));
        let share = (chance >> 96) as f64 / f64::from(u32::MAX);
        plain.mul_f64(1.0 - JITTER + 2.0 * JITTER * share)
    }

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
        let asked = retry_after.unwrap_or_default().min(self.longest());
        let next = now + self.delay(attempt, chance).max(asked);
        Some(next.min(horizon))
    }

    /// The longest wait, jitter aside.
    fn longest(&self) -> Duration {
        self.horizon / HORIZON_SHARE
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

    proptest! {
        #[test]
        fn every_wait_is_within_its_jitter(attempt in 0u32.., chance in any::<u128>()) {
            let backoff = defaults();
            let middle = backoff.delay(attempt, MIDDLE);
            let delay = backoff.delay(attempt, chance);
            prop_assert!(delay >= middle.mul_f64(0.799) && delay <= middle.mul_f64(1.201));
            prop_assert!(delay <= backoff.longest().mul_f64(1.2));
        }
    }
}
