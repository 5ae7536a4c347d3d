//! A lane below the ordinary call, as the plan sees it.

use std::time::Duration;

use crate::{model::attempt::Lane, policy::turnaround::Curve};

/// A lane that costs less than an ordinary call.
#[derive(Clone, Debug)]
pub struct Rung {
    pub lane: Lane,
    /// As a share of the standard price.
    pub price: f64,
    /// Ages until an answer exists.
    pub curve: Curve,
    /// Ages until it is in our hands where nothing is cancelled: a batch's answers
    /// come with its last line. Elsewhere, and where lines end together, the same.
    pub whole: Curve,
    /// Gathering and sending, before an age begins.
    pub before: Duration,
    /// How it is stopped; none where what is given up runs on and is billed.
    pub cancel: Option<Cancel>,
    /// The share that is refused at once, and not billed.
    pub refused: f64,
}

#[derive(Clone, Copy, Debug)]
pub struct Cancel {
    /// From asking for it until nothing more is billed.
    pub takes: Duration,
    /// Of what would end in that time, the share that does: 1 where the provider
    /// goes on with what it has begun, 0 where it stops at once.
    pub finishing: f64,
}

impl Cancel {
    /// Nothing is billed from then on.
    pub const AT_ONCE: Cancel = Cancel {
        takes: Duration::ZERO,
        finishing: 1.0,
    };
}

impl Rung {
    /// What a cancel takes, where there is one.
    pub fn cancel_takes(&self) -> Duration {
        self.cancel.map_or(Duration::ZERO, |cancel| cancel.takes)
    }

    /// How long it is waited for at least where so many before it were left for a
    /// fresh one: a provider that is slow for all is not asked again and again.
    pub fn patience(&self, left_before: u32) -> Duration {
        if left_before == 0 {
            return Duration::ZERO;
        }
        let median = self
            .curve
            .quantile(0.5)
            .unwrap_or(Duration::from_secs(3600));
        median / 4 * (1 << (left_before - 1).min(12))
    }
}

/// What it costs to enter a lane, as a share of the standard price. A batch takes
/// control calls, and is not left for a fresh one without a reason. The other lanes
/// take of the rate limits of ordinary calls, which batches do not: where time is
/// plenty, a batch it is.
pub(super) fn entry(lane: Lane) -> f64 {
    match lane {
        Lane::Batch => 0.0001,
        Lane::Flex | Lane::Background8h | Lane::Background2h | Lane::Standard => 0.01,
    }
}
