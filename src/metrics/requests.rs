//! Calls with a deadline, from admission to their end.

use std::{sync::atomic::AtomicU64, time::Duration};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::{Registry, Unit},
};

use super::timing::Timing;
use crate::model::{
    attempt::Lane,
    endpoint::Endpoint,
    ledger::Slack,
    request::{Guarantee, OnLate, Request, State},
    time::Timestamp,
};

pub struct Requests {
    admitted: Family<Admission, Counter<u64, AtomicU64>>,
    joined: Counter,
    refused: Family<Refusal, Counter>,
    ended: Family<End, Counter>,
    duration: Family<InLane, Timing, fn() -> Timing>,
    slack: Family<InLane, Histogram, fn() -> Histogram>,
}

/// How a request ended.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    pub state: State,
    /// The lane that answered it, if one did.
    pub lane: Option<Lane>,
    pub admitted: Timestamp,
    pub finished: Timestamp,
    pub deadline: Timestamp,
    pub on_late: OnLate,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Admission {
    lane: &'static str,
    guarantee: &'static str,
    endpoint: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Refusal {
    code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct End {
    state: &'static str,
    lane: &'static str,
    late: bool,
    on_late: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct InLane {
    pub lane: &'static str,
}

/// Refusals that an alert waits for.
const ALERTED: [&str; 2] = ["storage_failed", "storage_full"];

/// Of an answer of ours: cancelled, or failed at its deadline.
pub const NO_LANE: &str = "none";

pub fn lane(lane: Option<Lane>) -> &'static str {
    lane.map_or(NO_LANE, Lane::as_str)
}

impl Requests {
    pub fn new(registry: &mut Registry) -> Requests {
        let requests = Requests {
            admitted: Family::default(),
            joined: Counter::default(),
            refused: Family::default(),
            ended: Family::default(),
            duration: Family::new_with_constructor(Timing::of_a_wait),
            slack: Family::new_with_constructor(|| {
                Histogram::new(Slack::BOUNDS.map(|bound| bound as f64))
            }),
        };
        registry.register(
            "offpeak_requests_admitted",
            "Calls with a deadline that were taken in, by the lane that was chosen",
            requests.admitted.clone(),
        );
        registry.register(
            "offpeak_requests_joined",
            "Calls with a deadline that joined a request which was there before",
            requests.joined.clone(),
        );
        registry.register(
            "offpeak_requests_refused",
            "Calls with a deadline that were not taken in, by the error's code",
            requests.refused.clone(),
        );
        registry.register(
            "offpeak_requests_ended",
            "Requests that ended, by the lane that answered",
            requests.ended.clone(),
        );
        registry.register_with_unit(
            "offpeak_request_duration",
            "From admission to the end of a request",
            Unit::Seconds,
            requests.duration.clone(),
        );
        registry.register_with_unit(
            "offpeak_request_slack",
            "From the answer of a request that succeeded to its deadline; below zero it was late",
            Unit::Seconds,
            requests.slack.clone(),
        );
        requests.begin_at_zero();
        requests
    }

    /// A rate over a series that begins with its first event misses that one.
    fn begin_at_zero(&self) {
        let answered = Lane::ALL
            .into_iter()
            .flat_map(|lane| [State::Succeeded, State::Failed].map(|state| (state, Some(lane))));
        let of_ours = [State::Failed, State::Cancelled].map(|state| (state, None));
        for (state, in_lane) in answered.chain(of_ours) {
            let (state, lane) = (state.as_str(), lane(in_lane));
            for on_late in OnLate::ALL.map(OnLate::as_str) {
                for late in [false, true] {
                    let end = End {
                        state,
                        lane,
                        late,
                        on_late,
                    };
                    drop(self.ended.get_or_create(&end));
                }
            }
        }
        for code in ALERTED {
            drop(self.refused.get_or_create(&Refusal { code }));
        }
    }

    pub fn admitted(&self, request: &Request) {
        let admission = Admission {
            lane: request.lane.as_str(),
            guarantee: Guarantee::as_str(request.cohort.guarantee),
            endpoint: Endpoint::path(request.endpoint),
        };
        self.admitted.get_or_create(&admission).inc();
    }

    pub fn joined(&self) {
        self.joined.inc();
    }

    pub fn refused(&self, code: &'static str) {
        self.refused.get_or_create(&Refusal { code }).inc();
    }

    pub fn ended(&self, ended: Ended) {
        let late = ended.finished > ended.deadline;
        let (state, lane) = (ended.state.as_str(), lane(ended.lane));
        let end = End {
            state,
            lane,
            late,
            on_late: ended.on_late.as_str(),
        };
        self.ended.get_or_create(&end).inc();
        let took = ended.admitted.until(ended.finished);
        self.duration.get_or_create(&InLane { lane }).add(took);
        if ended.state == State::Succeeded {
            let slack = ended.slack();
            self.slack.get_or_create(&InLane { lane }).observe(slack);
        }
    }
}

impl Ended {
    /// In seconds.
    fn slack(&self) -> f64 {
        let seconds = Duration::as_secs_f64;
        match self.finished > self.deadline {
            true => -seconds(&self.deadline.until(self.finished)),
            false => seconds(&self.finished.until(self.deadline)),
        }
    }
}
