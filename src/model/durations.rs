//! How long things took, counted while they happen: no lock, no allocation, a few
//! relaxed additions each time.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Counts by upper bound, and the sum.
#[derive(Debug)]
pub struct Durations {
    bounds: &'static [Duration],
    /// One more than bounds: what is longer than the last.
    counts: Box<[AtomicU64]>,
    nanos: AtomicU64,
}

/// What was counted up to some instant. Two of the same bounds add up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    bounds: &'static [Duration],
    counts: Vec<u64>,
    sum: Duration,
}

impl Durations {
    /// `bounds` ascend; what takes exactly as long as one counts below it.
    pub fn within(bounds: &'static [Duration]) -> Durations {
        Durations {
            bounds,
            counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(),
            nanos: AtomicU64::new(0),
        }
    }

    pub fn add(&self, took: Duration) {
        let at = self.bounds.partition_point(|bound| *bound < took);
        self.counts[at].fetch_add(1, Relaxed);
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.nanos.fetch_add(nanos, Relaxed);
    }

    pub fn counted(&self) -> Counted {
        Counted {
            bounds: self.bounds,
            counts: self.counts.iter().map(|it| it.load(Relaxed)).collect(),
            sum: Duration::from_nanos(self.nanos.load(Relaxed)),
        }
    }
}

impl Counted {
    pub fn none(bounds: &'static [Duration]) -> Counted {
        Durations::within(bounds).counted()
    }

    /// Adds what was counted elsewhere, by the same bounds.
    pub fn add(&mut self, other: &Counted) {
        debug_assert_eq!(self.bounds, other.bounds);
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.sum += other.sum;
    }

    pub fn sum(&self) -> Duration {
        self.sum
    }

    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// How many took longer than the bound before and no longer than this one, which is
    /// none for the last.
    pub fn spans(&self) -> impl Iterator<Item = (Option<Duration>, u64)> {
        let bounds = self.bounds.iter().copied().map(Some);
        bounds.chain([None]).zip(self.counts.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const BOUNDS: &[Duration] = &[SECOND, Duration::from_secs(10)];

    #[test]
    fn each_falls_below_its_bound_and_sums_add_up() {
        let (one, other) = (Durations::within(BOUNDS), Durations::within(BOUNDS));
        for seconds in [0, 1, 2, 10, 11] {
            one.add(seconds * SECOND);
        }
        other.add(2 * SECOND);
        let mut all = one.counted();
        all.add(&other.counted());
        let spans: Vec<_> = all.spans().map(|(_, count)| count).collect();
        assert_eq!(spans, [2, 3, 1]);
        assert_eq!((all.count(), all.sum()), (6, 26 * SECOND));
        assert_eq!(Counted::none(BOUNDS).count(), 0);
    }
}
