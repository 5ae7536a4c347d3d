//! So many calls a minute: a bucket that holds a minute's worth and fills evenly.

use std::time::Duration;

use crate::model::time::Timestamp;

/// Calls that may be made at once, in shares of a call: a call is a minute's
/// milliseconds, and each millisecond brings `per_minute` of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    per_minute: u32,
    level: u64,
    at: Timestamp,
}

const CALL: u64 = 60_000;

impl Bucket {
    /// A full one. `per_minute` is 1 at least.
    pub fn new(per_minute: u32, now: Timestamp) -> Bucket {
        let per_minute = per_minute.max(1);
        Bucket {
            per_minute,
            level: u64::from(per_minute) * CALL,
            at: now,
        }
    }

    /// Takes one call out, or says when there is one. A clock that was set back fills
    /// nothing.
    pub fn take(&mut self, now: Timestamp) -> Result<(), Duration> {
        let rate = u64::from(self.per_minute);
        let millis = self.at.until(now).as_millis().min(CALL.into()) as u64;
        self.level = (self.level + millis * rate).min(rate * CALL);
        self.at = now.max(self.at);
        match self.level.checked_sub(CALL) {
            Some(left) => {
                self.level = left;
                Ok(())
            }
            None => Err(Duration::from_millis((CALL - self.level).div_ceil(rate))),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000 + millis)
    }

    #[test]
    fn a_minute_s_worth_at_once_and_then_evenly() {
        for (per_minute, pause) in [(1, 60_000), (2, 30_000), (7, 8_572), (600, 100)] {
            let mut bucket = Bucket::new(per_minute, at(0));
            for _ in 0..per_minute {
                assert_eq!(bucket.take(at(0)), Ok(()));
            }
            let wait = Duration::from_millis(pause);
            assert_eq!(bucket.take(at(0)), Err(wait), "{per_minute}");
            // Who asks too early has not lost anything, nor has anybody won.
            assert!(bucket.take(at(pause - 1)).is_err());
            assert_eq!(bucket.take(at(pause)), Ok(()));
            assert!(bucket.take(at(pause)).is_err());
        }
    }

    #[test]
    fn it_holds_no_more_than_a_minute_s_worth() {
        let mut bucket = Bucket::new(3, at(0));
        let hour = at(3_600_000);
        let taken = (0..10).filter(|_| bucket.take(hour).is_ok()).count();
        assert_eq!(taken, 3);
        // Set back by an hour, the clock brings nothing; nor does it when it is there again.
        assert!(bucket.take(at(0)).is_err());
        assert!(bucket.take(hour).is_err());
    }

    proptest! {
        /// In any span, no more than a minute's worth and what the span brings.
        #[test]
        fn no_span_has_more(
            per_minute in 1u32..200,
            pauses in prop::collection::vec(0u64..5_000, 1..300),
        ) {
            let mut bucket = Bucket::new(per_minute, at(0));
            let (mut now, mut taken) = (0, Vec::new());
            for pause in pauses {
                now += pause;
                match bucket.take(at(now)) {
                    Ok(()) => taken.push(now),
                    Err(wait) => prop_assert!(!wait.is_zero()),
                }
            }
            for (first, from) in taken.iter().enumerate() {
                for (last, to) in taken.iter().enumerate().skip(first) {
                    let most = u64::from(per_minute) * (60_000 + to - from);
                    prop_assert!((last - first + 1) as u64 * 60_000 <= most);
                }
            }
        }
    }
}
