//! What is learned and kept: what was seen counts half after a half-life.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::time::Timestamp;

/// What is learned from what is seen, and fades.
pub trait Fades {
    /// Lets what was seen fade up to `now`.
    fn fade(&mut self, now: Timestamp, half_life: Duration);

    /// How much was seen.
    fn weight(&self) -> f64;

    /// Whether what was read back from a disk can be used.
    fn is_sound(&self) -> bool;
}

/// Up to when what was seen has been faded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Fading(Timestamp);

impl Default for Fading {
    fn default() -> Self {
        Fading(Timestamp::ZERO)
    }
}

impl Fading {
    /// What is kept of a weight from the last time until `now`; none where nothing
    /// fades yet.
    pub fn to(&mut self, now: Timestamp, half_life: Duration) -> Option<f64> {
        if self.0 == Timestamp::ZERO {
            self.0 = now;
        }
        let passed = self.0.until(now).as_secs_f64() / half_life.as_secs_f64().max(1e-3);
        // Small steps would be lost in rounding.
        if passed < 0.001 {
            return None;
        }
        self.0 = now;
        Some((-passed).exp2())
    }
}
