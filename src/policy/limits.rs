//! Rates that a provider allows.

use std::time::Duration;

use crate::model::time::Timestamp;

/// A token bucket on wall time: `burst` at once, then one every `every`.
#[derive(Clone, Debug)]
pub struct Rate {
    every: Duration,
    burst: u32,
    /// The instant at which the bucket would be full again.
    full_at: Timestamp,
}

impl Rate {
    pub fn new(every: Duration, burst: u32) -> Self {
        Rate {
            every,
            burst: burst.max(1),
            full_at: Timestamp::ZERO,
        }
    }

    /// `count` in every `period`, a tenth of it in one burst.
    pub fn of(count: u32, period: Duration) -> Self {
        let count = count.max(1);
        Rate::new(period / count, count.div_ceil(10))
    }

    /// When the next one may go.
    pub fn ready_at(&self) -> Timestamp {
        self.full_at - self.every * (self.burst - 1)
    }

    /// None before `until`.
    pub fn put_off(&mut self, until: Timestamp) {
        self.full_at = self.full_at.max(until + self.every * (self.burst - 1));
    }

    /// Counts in what was taken of another bucket of the same size, and is not back.
    pub fn absorb(&mut self, other: &Rate, now: Timestamp) {
        let (taken, more) = (self.full_at.max(now), now.until(other.full_at));
        self.full_at = taken + more;
    }

    /// Takes one, where one is left.
    pub fn take(&mut self, now: Timestamp) -> bool {
        if self.ready_at() > now {
            return false;
        }
        self.full_at = self.full_at.max(now) + self.every;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_a_rate() {
        let mut rate = Rate::new(Duration::from_secs(10), 3);
        let now = Timestamp::from_secs(1000);
        assert_eq!((0..5).filter(|_| rate.take(now)).count(), 3);
        assert_eq!(rate.ready_at(), now + Duration::from_secs(10));
        assert!(!rate.take(now + Duration::from_secs(9)));
        assert!(rate.take(now + Duration::from_secs(10)));
        let later = now + Duration::from_secs(1000);
        assert_eq!((0..5).filter(|_| rate.take(later)).count(), 3);
    }
}
