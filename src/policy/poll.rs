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
    /// The interval is this share of a batch's age, or of its cancel's: the end is
    /// seen at most this much later than it was there.
    pub poll_age_share: f64,
    /// Over all batches of a credential.
    pub polls_per_second: f64,
}

/// The pause before the next look at something that is waited for since `age`.
pub fn interval(age: Duration, settings: &Settings) -> Duration {
    let by_age = age.mul_f64(settings.poll_age_share.clamp(0.0, 1.0));
    by_age.min(settings.poll_max).max(settings.poll_interval)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_less_often_as_time_goes_by() {
        let settings = Settings {
            poll_interval: Duration::from_secs(10),
            poll_max: Duration::from_secs(120),
            poll_age_share: 0.05,
            polls_per_second: 5.0,
        };
        for (age, expected) in [(0, 10), (200, 10), (1000, 50), (9000, 120)] {
            let pause = interval(Duration::from_secs(age), &settings);
            assert_eq!(pause, Duration::from_secs(expected), "at {age} s");
        }
    }
}
