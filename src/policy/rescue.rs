//! When work leaves its lane so that it still meets its deadline.

use std::time::Duration;

use serde::Deserialize;

use crate::model::{money::Usd, time::human};

use super::{budget, turnaround::Prior};

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// What a rescue takes until some were seen: the cancel five parts of six, the
    /// ordinary call the sixth.
    #[serde(with = "human")]
    pub reserve: Duration,
    /// What was seen counts half after this time.
    #[serde(with = "human")]
    pub half_life: Duration,
    /// How many batches' worth of evidence the configured turnaround is.
    pub prior_weight: f64,
    /// How often the plan is made anew from what was seen.
    #[serde(with = "human")]
    pub replan: Duration,
    /// What the rescues of one tenant may cost in an hour and in a day of UTC.
    #[serde(deserialize_with = "crate::model::money::bound")]
    pub budget_usd_per_hour: Option<Usd>,
    #[serde(deserialize_with = "crate::model::money::bound")]
    pub budget_usd_per_day: Option<Usd>,
}

/// The share of cancels that a plan waits for.
pub const CANCELLED: f64 = 0.9;
/// The share of ordinary calls that a plan has time for.
pub const IN_TIME: f64 = 0.99;
/// What the prior of cancels and ordinary calls weighs beside that of lanes: the
/// reserve is a cautious guess, and rescues are quickly seen.
pub const GUESS: f64 = 0.1;
/// Believed of the lines that would end while their batch is being cancelled: that
/// most of them do. Providers do not say.
pub const FINISHING: f64 = 0.8;
/// And what that weighs. One batch ends whole or not at all, so few tell little.
pub const FINISHING_WEIGHT: f64 = 0.25;

impl Settings {
    pub fn budget(&self) -> budget::Limits {
        budget::Limits {
            per_hour: self.budget_usd_per_hour,
            per_day: self.budget_usd_per_day,
        }
    }

    /// How long a cancel takes.
    pub fn cancel_prior(&self) -> Prior {
        let p90 = self.reserve.mul_f64(5.0 / 6.0);
        Prior {
            median: p90 / 2,
            p90,
            never: 0.0,
        }
    }

    /// How long an ordinary call takes: with a p90 of twice the median, [`IN_TIME`]
    /// of them within 3.52 times the median.
    pub fn live_prior(&self) -> Prior {
        let median = self.reserve.div_f64(6.0 * 3.52);
        Prior {
            median,
            p90: median * 2,
            never: 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::turnaround::Curve, *};

    #[test]
    fn a_rescue_takes_the_reserve_until_some_were_seen() {
        let settings = Settings {
            reserve: Duration::from_secs(720),
            half_life: Duration::from_secs(3600),
            prior_weight: 20.0,
            replan: Duration::from_secs(30),
            budget_usd_per_hour: None,
            budget_usd_per_day: None,
        };
        let cancel = Curve::of(&settings.cancel_prior()).quantile(CANCELLED);
        let live = Curve::of(&settings.live_prior()).quantile(IN_TIME);
        let all = (cancel.unwrap() + live.unwrap()).as_secs_f64();
        assert!((all - 720.0).abs() < 10.0, "{all}");
    }
}
