//! How many calls at a time: additive increase, multiplicative decrease.

/// Grows by one a served call until the provider first pushes back, then by a
/// sixteenth of the ceiling a round trip; a push-back takes three tenths away, at
/// most once a round trip. Never under one, never over the ceiling.
#[derive(Clone, Debug)]
pub struct Concurrency {
    limit: f64,
    ceiling: f64,
    /// How often it was lowered: a call that was sent before the last time says
    /// nothing new.
    epoch: u32,
}

/// What a push-back leaves. Gentler than TCP's half: a call takes long, and a rate
/// limit is met by the pause that comes with it.
const LEFT: f64 = 0.7;
/// Round trips from the floor to the ceiling.
const ROUND_TRIPS: f64 = 16.0;

impl Concurrency {
    pub fn new(start: u32, ceiling: u32) -> Concurrency {
        let ceiling = f64::from(ceiling.max(1));
        Concurrency {
            limit: f64::from(start).clamp(1.0, ceiling),
            ceiling,
            epoch: 0,
        }
    }

    pub fn limit(&self) -> u32 {
        self.limit as u32
    }

    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// What it comes to under load: the ceiling, unless the provider pushed back.
    pub fn sustained(&self) -> u32 {
        match self.epoch {
            0 => self.ceiling as u32,
            _ => self.limit(),
        }
    }

    /// A call was served while so many were on their way. A limit that is not made
    /// use of is not tried, and does not grow.
    pub fn served(&mut self, in_flight: u32) {
        if f64::from(in_flight) * 2.0 < self.limit {
            return;
        }
        let step = match self.epoch {
            0 => 1.0,
            _ => (self.ceiling / ROUND_TRIPS).max(1.0) / self.limit,
        };
        self.limit = (self.limit + step).min(self.ceiling);
    }

    /// A call that was sent in `epoch` met an overloaded provider.
    pub fn overloaded(&mut self, epoch: u32) {
        if epoch == self.epoch {
            self.limit = (self.limit * LEFT).max(1.0);
            self.epoch += 1;
        }
    }

    /// The limit that was found, where the provider has pushed back.
    pub fn found(&self) -> Option<f64> {
        (self.epoch > 0).then_some(self.limit)
    }

    pub fn recall(&mut self, found: f64) {
        self.limit = found.clamp(1.0, self.ceiling);
        self.epoch += 1;
    }

    pub fn absorb(&mut self, other: &Concurrency) {
        self.limit = self.limit.min(other.limit);
        self.epoch = self.epoch.max(other.epoch);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn doubles_at_first_and_then_grows_slowly() {
        let mut calls = Concurrency::new(4, 64);
        let round_trip = |calls: &mut Concurrency| {
            let in_flight = calls.limit();
            (0..in_flight).for_each(|_| calls.served(in_flight));
            calls.limit()
        };
        let start: Vec<u32> = (0..5).map(|_| round_trip(&mut calls)).collect();
        assert_eq!(start, [8, 16, 32, 64, 64]);
        assert_eq!(calls.sustained(), 64);
        calls.overloaded(calls.epoch());
        assert_eq!((calls.limit(), calls.sustained()), (44, 44));
        assert_eq!(round_trip(&mut calls), 48);
        assert_eq!(round_trip(&mut calls), 52);
    }

    #[test]
    fn one_storm_lowers_it_once() {
        let mut calls = Concurrency::new(64, 64);
        let sent = calls.epoch();
        (0..64).for_each(|_| calls.overloaded(sent));
        assert_eq!(calls.limit(), 44);
        calls.overloaded(calls.epoch());
        assert_eq!(calls.limit(), 31);
    }

    #[test]
    fn a_limit_that_is_not_used_does_not_grow() {
        let mut calls = Concurrency::new(10, 64);
        (0..100).for_each(|_| calls.served(4));
        assert_eq!(calls.limit(), 10);
        calls.served(5);
        assert_eq!(calls.limit(), 11);
    }

    proptest! {
        #[test]
        fn stays_between_one_and_the_ceiling(
            start in 0u32..200, ceiling in 0u32..100, good: Vec<bool>,
        ) {
            let mut calls = Concurrency::new(start, ceiling);
            for good in good {
                match good {
                    true => calls.served(calls.limit()),
                    false => calls.overloaded(calls.epoch()),
                }
                prop_assert!(calls.limit() >= 1 && calls.limit() <= ceiling.max(1));
            }
        }
    }
}
