//! When work leaves the batch lane so that it still meets its deadline. First
//! form: a fixed reserve before the deadline.

use std::time::Duration;

use serde::Deserialize;

use super::budget;
use crate::model::{
    money::Usd,
    request::{Cohort, OnLate, Place},
    time::Timestamp,
};

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Kept before a deadline for cancelling a batch, harvesting it and running
    /// the rest live.
    #[serde(with = "crate::model::time::human")]
    pub reserve: Duration,
    /// The share of the reserve that is left for live calls: at that point they
    /// start even though the cancelled batch has not ended.
    pub last_call: f64,
    /// What the rescues of one tenant may cost in an hour and in a day of UTC.
    #[serde(deserialize_with = "crate::model::money::bound")]
    pub budget_usd_per_hour: Option<Usd>,
    #[serde(deserialize_with = "crate::model::money::bound")]
    pub budget_usd_per_day: Option<Usd>,
}

impl Settings {
    pub fn budget(&self) -> budget::Limits {
        budget::Limits {
            per_hour: self.budget_usd_per_hour,
            per_day: self.budget_usd_per_day,
        }
    }

    /// When work due at `deadline` is taken out of its lane.
    pub fn due(&self, deadline: Timestamp) -> Timestamp {
        deadline - self.reserve
    }

    /// When it runs live whatever its batch does.
    pub fn last_call(&self, deadline: Timestamp) -> Timestamp {
        deadline - self.reserve.mul_f64(self.last_call.clamp(0.0, 1.0))
    }
}

/// Where a cohort's requests go whose attempt ended without an answer: all the
/// same way, by the earliest instant of their bucket, as they wait in the queue.
pub fn after_return(now: Timestamp, cohort: Cohort, settings: &Settings) -> Place {
    match cohort.on_late {
        OnLate::Rescue if settings.due(cohort.bucket.start) <= now => Place::Live,
        _ => Place::Queue(cohort),
    }
}
