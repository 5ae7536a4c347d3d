//! Histograms of durations.

use std::{fmt, sync::Arc, time::Duration};

use prometheus_client::{
    encoding::{EncodeMetric, MetricEncoder, NoLabelSet},
    metrics::{MetricType, TypedMetric},
};

use crate::model::durations::{Counted, Durations};

/// What an HTTP call takes, whoever makes it: from what never leaves the machine to what
/// a model thinks about for long.
pub const CALLS: &[Duration] = &[
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2_500),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(30),
    Duration::from_secs(60),
    Duration::from_secs(120),
    Duration::from_secs(300),
    Duration::from_secs(600),
];

/// What a request or a batch takes: from a call that went live at once to the latest
/// deadline that is accepted by default.
pub const WAITS: &[Duration] = &[
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(15),
    Duration::from_secs(60),
    Duration::from_secs(300),
    Duration::from_secs(900),
    Duration::from_secs(1_800),
    Duration::from_secs(3_600),
    Duration::from_secs(7_200),
    Duration::from_secs(14_400),
    Duration::from_secs(28_800),
    Duration::from_secs(43_200),
    Duration::from_secs(86_400),
    Duration::from_secs(172_800),
    Duration::from_secs(604_800),
];

/// One series of a histogram of seconds.
#[derive(Clone, Debug)]
pub struct Timing(Arc<Durations>);

impl Timing {
    pub fn within(bounds: &'static [Duration]) -> Timing {
        Timing(Arc::new(Durations::within(bounds)))
    }

    pub fn of_a_call() -> Timing {
        Timing::within(CALLS)
    }

    pub fn of_a_wait() -> Timing {
        Timing::within(WAITS)
    }

    pub fn add(&self, took: Duration) {
        self.0.add(took);
    }
}

impl TypedMetric for Timing {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Timing {
    fn encode(&self, encoder: MetricEncoder) -> fmt::Result {
        encode(&self.0.counted(), encoder)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

/// A series that was counted elsewhere.
#[derive(Clone, Debug)]
pub struct Told(pub Counted);

impl TypedMetric for Told {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Told {
    fn encode(&self, encoder: MetricEncoder) -> fmt::Result {
        encode(&self.0, encoder)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

pub fn encode(counted: &Counted, mut encoder: MetricEncoder) -> fmt::Result {
    let seconds = |bound: Option<Duration>| bound.map_or(f64::INFINITY, |it| it.as_secs_f64());
    let spans: Vec<(f64, u64)> = counted
        .spans()
        .map(|(bound, count)| (seconds(bound), count))
        .collect();
    let sum = counted.sum().as_secs_f64();
    encoder.encode_histogram::<NoLabelSet>(sum, counted.count(), &spans, None)
}
