//! Batches at the provider.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::{Registry, Unit},
};

use super::timing::Timing;
use crate::ports::RemoteStatus;

pub struct Batches {
    created: Counter,
    ended: Family<End, Counter>,
    lines: Histogram,
    turnaround: Timing,
}

/// How a batch ended: the provider's word, or ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BatchEnd {
    Completed,
    Failed,
    Expired,
    Cancelled,
    /// It never ended, or the provider does not know it any more.
    GivenUp,
    /// It did not reach the provider.
    Abandoned,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct End {
    status: &'static str,
}

/// OpenAI takes 50,000 lines.
const LINES: [f64; 10] = [
    1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1_000.0, 3_000.0, 10_000.0, 50_000.0,
];

impl Batches {
    pub fn new(registry: &mut Registry) -> Batches {
        let batches = Batches {
            created: Counter::default(),
            ended: Family::default(),
            lines: Histogram::new(LINES),
            turnaround: Timing::of_a_wait(),
        };
        registry.register(
            "offpeak_batches_created",
            "Batches that the provider took",
            batches.created.clone(),
        );
        registry.register(
            "offpeak_batches_ended",
            "Batches that ended, each with all of its lines settled",
            batches.ended.clone(),
        );
        registry.register(
            "offpeak_batch_lines",
            "Lines of each batch that the provider took",
            batches.lines.clone(),
        );
        registry.register_with_unit(
            "offpeak_batch_turnaround",
            "From a batch's creation until its last line was settled",
            Unit::Seconds,
            batches.turnaround.clone(),
        );
        for end in BatchEnd::ALL {
            drop(batches.ended.get_or_create(&end.into()));
        }
        batches
    }

    pub fn created(&self, lines: u32) {
        self.created.inc();
        self.lines.observe(lines.into());
    }

    /// `took` since its creation, if it was created.
    pub fn ended(&self, end: BatchEnd, took: Option<Duration>) {
        self.ended.get_or_create(&end.into()).inc();
        if let Some(took) = took {
            self.turnaround.add(took);
        }
    }
}

impl BatchEnd {
    const ALL: [BatchEnd; 6] = [
        BatchEnd::Completed,
        BatchEnd::Failed,
        BatchEnd::Expired,
        BatchEnd::Cancelled,
        BatchEnd::GivenUp,
        BatchEnd::Abandoned,
    ];
}

/// Of a batch that has ended.
impl From<RemoteStatus> for BatchEnd {
    fn from(status: RemoteStatus) -> BatchEnd {
        match status {
            RemoteStatus::Completed => BatchEnd::Completed,
            RemoteStatus::Failed => BatchEnd::Failed,
            RemoteStatus::Expired => BatchEnd::Expired,
            RemoteStatus::Cancelled | RemoteStatus::Cancelling => BatchEnd::Cancelled,
            RemoteStatus::Running => BatchEnd::GivenUp,
        }
    }
}

impl From<BatchEnd> for End {
    fn from(end: BatchEnd) -> End {
        let status = match end {
            BatchEnd::Completed => "completed",
            BatchEnd::Failed => "failed",
            BatchEnd::Expired => "expired",
            BatchEnd::Cancelled => "cancelled",
            BatchEnd::GivenUp => "given_up",
            BatchEnd::Abandoned => "abandoned",
        };
        End { status }
    }
}
