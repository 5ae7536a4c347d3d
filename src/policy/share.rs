//! A share that is learned from what is seen: of so many, so many did. What was seen
//! fades with a half-life; a prior stands in for what was not.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::fading::{Fades, Fading};
use crate::model::time::Timestamp;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// Weight of those that could.
    of: f64,
    /// Weight of those that did.
    did: f64,
    faded: Fading,
}

impl Share {
    /// So many of so many did. Where `of` is what was expected, more may have than
    /// were: that evens out.
    pub fn saw(&mut self, did: f64, of: f64) {
        self.did += did.max(0.0);
        self.of += of.max(0.0);
    }

    /// Takes in what another share has seen, faded up to the same instant.
    pub fn add(&mut self, other: &Share) {
        self.saw(other.did, other.of);
        self.faded = self.faded.max(other.faded);
    }

    /// What is believed now. The prior counts as much as `weight` of those that could.
    pub fn believed(&self, prior: f64, weight: f64) -> f64 {
        let of = self.of + weight;
        match of > 0.0 {
            true => ((self.did + weight * prior) / of).clamp(0.0, 1.0),
            false => prior,
        }
    }
}

impl Fades for Share {
    fn fade(&mut self, now: Timestamp, half_life: Duration) {
        if let Some(kept) = self.faded.to(now, half_life) {
            self.of *= kept;
            self.did *= kept;
        }
    }

    fn weight(&self) -> f64 {
        self.of
    }

    fn is_sound(&self) -> bool {
        let sound = |weight: f64| weight.is_finite() && weight >= 0.0;
        sound(self.of) && sound(self.did)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(of_each: &[(f64, f64)]) -> Share {
        let mut share = Share::default();
        for &(did, of) in of_each {
            share.saw(did, of);
        }
        share
    }

    #[test]
    fn what_is_seen_replaces_the_prior() {
        for (seen_so_far, prior, weight, believed) in [
            (&[][..], 0.3, 5.0, 0.3),
            (&[][..], 0.3, 0.0, 0.3),
            (&[(0.0, 5.0)][..], 1.0, 5.0, 0.5),
            (&[(0.0, 95.0)][..], 1.0, 5.0, 0.05),
            // All or none of what was expected in part: it evens out.
            (&[(1.0, 0.5), (0.0, 0.5)][..], 1.0, 0.0, 1.0),
            (&[(3.0, 1.0)][..], 0.5, 1.0, 1.0),
        ] {
            let share = seen(seen_so_far).believed(prior, weight);
            assert!((share - believed).abs() < 1e-9, "{seen_so_far:?}: {share}");
        }
    }

    #[test]
    fn what_was_seen_fades_to_the_prior() {
        let (start, hour) = (Timestamp::from_secs(1000), Duration::from_secs(3600));
        let mut share = Share::default();
        share.fade(start, hour);
        share.saw(0.0, 8.0);
        share.fade(start + hour, hour);
        assert!((share.weight() - 4.0).abs() < 1e-9);
        share.fade(start + hour * 30, hour);
        assert!(share.believed(1.0, 1.0) > 0.999);
    }
}
