//! The retry budget: what keeps a sick provider from being asked ever more.

use std::time::Duration;

use crate::model::time::Timestamp;

/// A bucket of second tries. It fills with time and with every call that is
/// served; a second try takes one out, and puts it back where it is served. So
/// of any time, the second tries that came to nothing are at most `share` of the
/// calls that were served, `per_minute` a minute, and what the bucket holds; and
/// a provider that is well again is not kept waiting.
#[derive(Clone, Debug)]
pub struct Retries {
    left: f64,
    most: f64,
    per_minute: f64,
    share: f64,
    at: Timestamp,
}

impl Retries {
    /// It begins with a minute's worth, and holds at most one more for each call
    /// that can fail at the same time.
    pub fn new(per_minute: u32, share: f64, concurrent: u32) -> Retries {
        // A budget that never fills would keep what failed once waiting for ever.
        let per_minute = f64::from(per_minute.max(1));
        Retries {
            left: per_minute,
            most: per_minute + f64::from(concurrent),
            per_minute,
            share: share.clamp(0.0, 1.0),
            at: Timestamp::ZERO,
        }
    }

    /// When the next one may go.
    pub fn ready_at(&self, now: Timestamp) -> Timestamp {
        let missing = 1.0 - self.left(now);
        if missing <= 0.0 {
            return now;
        }
        // A millisecond more, so that rounding does not leave it a hair short.
        now + Duration::from_secs_f64(missing * 60.0 / self.per_minute) + Duration::from_millis(1)
    }

    pub fn take(&mut self, now: Timestamp) {
        self.add(now, -1.0);
    }

    pub fn put_back(&mut self, now: Timestamp) {
        self.add(now, 1.0);
    }

    /// A call was served, which was paid from here where it was `budgeted`.
    pub fn served(&mut self, now: Timestamp, budgeted: bool) {
        self.add(now, self.share + f64::from(u8::from(budgeted)));
    }

    fn add(&mut self, now: Timestamp, tries: f64) {
        self.left = (self.left(now) + tries).min(self.most);
        self.at = self.at.max(now);
    }

    fn left(&self, now: Timestamp) -> f64 {
        let minutes = match self.at {
            Timestamp::ZERO => 0.0,
            at => at.until(now).as_secs_f64() / 60.0,
        };
        (self.left + minutes * self.per_minute).min(self.most)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_000_000);

    /// Takes as many as there are.
    fn drain(retries: &mut Retries, now: Timestamp) -> u32 {
        let mut taken = 0;
        while retries.ready_at(now) <= now {
            retries.take(now);
            taken += 1;
        }
        taken
    }

    #[test]
    fn a_minutes_worth_then_as_time_passes() {
        let mut retries = Retries::new(10, 0.2, 64);
        assert_eq!(drain(&mut retries, NOW), 10);
        let next = retries.ready_at(NOW);
        assert_eq!(NOW.until(next), Duration::from_millis(6_001));
        assert_eq!(drain(&mut retries, next), 1);
        assert_eq!(drain(&mut retries, NOW + Duration::from_secs(3600)), 74);
    }

    #[test]
    fn what_is_served_lets_others_be_tried_again() {
        let mut retries = Retries::new(10, 0.2, 64);
        drain(&mut retries, NOW);
        (0..20).for_each(|_| retries.served(NOW, false));
        assert_eq!(drain(&mut retries, NOW), 4);
        retries.served(NOW, true);
        assert_eq!(drain(&mut retries, NOW), 1);
    }

    proptest! {
        #[test]
        fn what_fails_is_bounded(
            share in 0.0..1.0, per_minute in 1u32..60,
            steps in prop::collection::vec((0u64..5_000, any::<bool>(), any::<bool>()), 1..400),
        ) {
            let mut retries = Retries::new(per_minute, share, 64);
            let (mut now, mut failed, mut served) = (NOW, 0.0, 0.0);
            for (millis, again, well) in steps {
                now = now + Duration::from_millis(millis);
                if again && retries.ready_at(now) > now {
                    continue;
                }
                if again {
                    retries.take(now);
                }
                match well {
                    true => {
                        served += 1.0;
                        retries.served(now, again);
                    }
                    false if again => failed += 1.0,
                    false => {}
                }
                let minutes = NOW.until(now).as_secs_f64() / 60.0;
                let bound = f64::from(per_minute) * (1.0 + minutes) + share * served;
                prop_assert!(failed <= bound + 1e-6, "{failed} of {bound}");
            }
        }
    }
}
