//! Whether a receiver of webhooks is called, and how often at a time. One that
//! fails again and again is left alone but for a probe now and then; one that
//! works again gets what has gathered in growing numbers, not all at once.

use std::time::Duration;

use super::backoff::Backoff;
use crate::model::time::Timestamp;

/// Failures in a row that open a circuit.
const OPENS_AFTER: u32 = 5;

/// What is known of one receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Circuit {
    /// It is called, at most `most` times at a time; failed so often in a row.
    Closed { most: u32, failures: u32 },
    /// It is not called before `until`, and then once; `probes` of them have failed.
    Open { until: Timestamp, probes: u32 },
}

/// How an attempt speaks of its receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// It took the event.
    Works,
    /// It did not answer, or not as it should; it may have asked for a pause.
    Fails { retry_after: Option<Duration> },
    /// Nothing: it was not called, or wants no more events at all.
    Nothing,
}

/// The bounds of all circuits.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The most attempts on one receiver at a time.
    pub most: u32,
    /// How the pauses between probes grow.
    pub backoff: Backoff,
}

impl Circuit {
    /// Of a receiver that nothing is known of.
    pub fn fresh(bounds: &Bounds) -> Self {
        Circuit::Closed {
            most: bounds.most.max(1),
            failures: 0,
        }
    }

    /// Of one that events wait for, nobody remembers why.
    pub const fn resumed() -> Self {
        Circuit::Closed {
            most: 1,
            failures: 0,
        }
    }

    /// How many attempts may begin besides those that run.
    pub fn room(&self, now: Timestamp, running: u32) -> u32 {
        match *self {
            Circuit::Closed { most, .. } => most.saturating_sub(running),
            Circuit::Open { until, .. } if until <= now => 1_u32.saturating_sub(running),
            Circuit::Open { .. } => 0,
        }
    }

    /// When a probe may go; none where it is called anyway.
    pub fn probe_at(&self) -> Option<Timestamp> {
        match *self {
            Circuit::Open { until, .. } => Some(until),
            Circuit::Closed { .. } => None,
        }
    }

    pub fn is_open(&self) -> bool {
        matches!(self, Circuit::Open { .. })
    }

    /// What an attempt says. `began_open`: it began while the circuit was open, as
    /// its probe; the failures of attempts that began before it opened are no news.
    /// `chance` is uniform in `0..=u128::MAX`.
    pub fn heard(
        self,
        said: Said,
        began_open: bool,
        bounds: &Bounds,
        now: Timestamp,
        chance: u128,
    ) -> Self {
        let open = |probes: u32, retry_after: Option<Duration>| Circuit::Open {
            until: now + bounds.backoff.pause(probes + 1, retry_after, chance),
            probes,
        };
        match (self, said) {
            (circuit, Said::Nothing) => circuit,
            (Circuit::Closed { most, .. }, Said::Works) => Circuit::Closed {
                most: most.saturating_mul(2).clamp(1, bounds.most.max(1)),
                failures: 0,
            },
            (Circuit::Open { .. }, Said::Works) => Circuit::resumed(),
            (Circuit::Closed { most, failures }, Said::Fails { retry_after }) => {
                match failures + 1 {
                    OPENS_AFTER.. => open(0, retry_after),
                    failures => Circuit::Closed { most, failures },
                }
            }
            (Circuit::Open { probes, .. }, Said::Fails { retry_after }) if began_open => {
                open(probes.saturating_add(1), retry_after)
            }
            (circuit, Said::Fails { .. }) => circuit,
        }
    }

    /// Somebody says that it may work again: the next attempt may go now.
    pub fn hurried(self, now: Timestamp) -> Self {
        match self {
            Circuit::Open { until, probes } => Circuit::Open {
                until: until.min(now),
                probes,
            },
            closed => closed,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const NOW: Timestamp = Timestamp::from_secs(1_000_000);
    /// No jitter, to within a part in four billion.
    const MIDDLE: u128 = u128::MAX / 2;
    const FAILS: Said = Said::Fails { retry_after: None };

    fn bounds() -> Bounds {
        Bounds {
            most: 8,
            backoff: Backoff {
                first_retry: 5 * SECOND,
                horizon: 72 * 3600 * SECOND,
            },
        }
    }

    fn closed(most: u32, failures: u32) -> Circuit {
        Circuit::Closed { most, failures }
    }

    fn open(seconds: u64, probes: u32) -> Circuit {
        Circuit::Open {
            until: NOW + seconds as u32 * SECOND,
            probes,
        }
    }

    /// To the second: the jitter's middle is a rounding away.
    fn rounded(circuit: Circuit) -> Circuit {
        match circuit {
            Circuit::Open { until, probes } => {
                open((NOW.until(until).as_millis() as u64 + 500) / 1000, probes)
            }
            closed => closed,
        }
    }

    #[test]
    fn what_an_attempt_says() {
        let asked = |seconds: u64| Said::Fails {
            retry_after: Some(seconds as u32 * SECOND),
        };
        for (circuit, said, began_open, then) in [
            (closed(8, 0), Said::Works, false, closed(8, 0)),
            (closed(8, 4), Said::Works, false, closed(8, 0)),
            (closed(8, 0), FAILS, false, closed(8, 1)),
            (closed(8, 3), FAILS, false, closed(8, 4)),
            (closed(8, 4), FAILS, false, open(5, 0)),
            (closed(8, 4), asked(60), false, open(60, 0)),
            (closed(8, 4), asked(1_000_000), false, open(28_800, 0)),
            (closed(8, 4), Said::Nothing, false, closed(8, 4)),
            // Only a probe tells of a receiver that is known to fail.
            (open(0, 0), FAILS, false, open(0, 0)),
            (open(0, 0), FAILS, true, open(20, 1)),
            (open(0, 1), FAILS, true, open(80, 2)),
            (open(0, 30), FAILS, true, open(28_800, 31)),
            (open(0, 1), asked(200), true, open(200, 2)),
            (open(0, 1), Said::Nothing, true, open(0, 1)),
            // Whoever took an event works.
            (open(900, 3), Said::Works, false, closed(1, 0)),
            (open(0, 3), Said::Works, true, closed(1, 0)),
            // And then gets more at a time, up to the bound.
            (closed(1, 0), Said::Works, false, closed(2, 0)),
            (closed(2, 0), Said::Works, false, closed(4, 0)),
            (closed(4, 0), Said::Works, false, closed(8, 0)),
            (closed(1, 4), FAILS, false, open(5, 0)),
        ] {
            let heard = circuit.heard(said, began_open, &bounds(), NOW, MIDDLE);
            assert_eq!(rounded(heard), then, "{circuit:?} {said:?} {began_open}");
        }
    }

    #[test]
    fn room_beside_what_runs() {
        for (circuit, running, room) in [
            (closed(8, 0), 0, 8),
            (closed(8, 0), 8, 0),
            (closed(1, 0), 3, 0),
            (open(1, 0), 0, 0),
            (open(0, 0), 0, 1),
            (open(0, 0), 1, 0),
            // Leftovers from before it opened: the probe waits for them.
            (open(0, 0), 8, 0),
        ] {
            assert_eq!(circuit.room(NOW, running), room, "{circuit:?} {running}");
        }
        assert_eq!(open(900, 2).hurried(NOW), open(0, 2));
        assert_eq!(closed(3, 2).hurried(NOW), closed(3, 2));
    }

    /// In three days a dead receiver is asked a handful of times, whatever waits.
    #[test]
    fn a_dead_receiver_is_probed_as_often_as_one_event_would_be_sent() {
        let mut circuit = closed(8, 4).heard(FAILS, false, &bounds(), NOW, MIDDLE);
        let mut probes = 0;
        while let Some(at) = circuit
            .probe_at()
            .filter(|at| NOW.until(*at) < 259_200 * SECOND)
        {
            circuit = circuit.heard(FAILS, true, &bounds(), at, MIDDLE);
            probes += 1;
        }
        assert_eq!(probes, 15);
    }

    proptest! {
        #[test]
        fn it_is_never_called_more_than_the_bound_and_always_again(
            said in prop::collection::vec((0..3_u8, any::<bool>(), any::<u128>()), 0..200),
        ) {
            let mut circuit = Circuit::fresh(&bounds());
            let mut now = NOW;
            for (said, began_open, chance) in said {
                let said = [Said::Works, FAILS, Said::Nothing][usize::from(said)];
                circuit = circuit.heard(said, began_open, &bounds(), now, chance);
                prop_assert!(circuit.room(now, 0) <= 8);
                now = circuit.probe_at().unwrap_or(now).max(now);
                prop_assert!(circuit.room(now, 0) > 0);
                prop_assert!(NOW.until(now) <= 200 * 36_000 * SECOND);
            }
        }
    }
}
