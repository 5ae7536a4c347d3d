//! How often a batch is looked at.

use std::time::Duration;

use serde::Deserialize;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    #[serde(with = "crate::model::time::human")]
    pub poll_interval: Duration,
    #[serde(with = "crate::model::time::human")]
    pub poll_max: Duration,
    /// The interval is at least this share of the batch's age: an answer is
    /// seen at most this much later than it was there.
    pub poll_age_share: f64,
    /// Over all batches of a credential.
    pub polls_per_second: f64,
}

/// The pause before the next look at a batch of this age. A batch that is being
/// cancelled or rescued is looked at as if it were new.
pub fn interval(age: Duration, urgent: bool, settings: &Settings) -> Duration {
    if urgent {
        return settings.poll_interval;
    }
    let by_age = age.mul_f64(settings.poll_age_share.clamp(0.0, 1.0));
    by_age.min(settings.poll_max).max(settings.poll_interval)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_less_often_as_a_batch_ages() {
        let settings = Settings {
            poll_interval: Duration::from_secs(10),
            poll_max: Duration::from_secs(120),
            poll_age_share: 0.05,
            polls_per_second: 5.0,
        };
        for (age, urgent, expected) in [
            (0, false, 10),
            (200, false, 10),
            (1000, false, 50),
            (9000, false, 120),
            (9000, true, 10),
        ] {
            let pause = interval(Duration::from_secs(age), urgent, &settings);
            assert_eq!(pause, Duration::from_secs(expected), "at {age} s");
        }
    }
}
