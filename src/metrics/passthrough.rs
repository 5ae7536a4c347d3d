//! Calls that pass straight through. This is on the way of every one of them: a worker
//! thread has a tally of its own, in which nothing waits for another thread, nothing is
//! looked up and nothing is allocated. A scrape adds the tallies up.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use http::StatusCode;
use parking_lot::Mutex;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::{Registry, Unit},
};
use tokio::time::Instant;

use super::timing::{self, CALLS};
use crate::model::durations::{Counted, Durations};

/// All of them: a tally a thread.
#[derive(Debug, Default)]
pub struct Passed(Mutex<Vec<Arc<Tally>>>);

/// Those of one thread.
#[derive(Debug)]
pub struct Tally {
    begun: AtomicU64,
    /// Bytes of bodies.
    sent: AtomicU64,
    received: AtomicU64,
    /// Until the head of the upstream's answer.
    heads: [Durations; CLASSES.len()],
    /// Until the end of its body, or until the call was over without one.
    ends: [Durations; CLASSES.len()],
}

/// A call on its way; over when this is dropped.
#[derive(Debug)]
pub struct Passing {
    tally: Arc<Tally>,
    began: Instant,
    class: usize,
    received: u64,
}

/// Bytes of a caller's body, on their way; told when this is dropped.
#[derive(Debug)]
pub struct Sending {
    tally: Arc<Tally>,
    sent: u64,
}

/// Of the upstream's answer. "none" has errors of ours, because nothing came of the
/// upstream, and callers who left before anything did.
const CLASSES: [&str; 5] = ["none", "2xx", "3xx", "4xx", "5xx"];

impl Passed {
    /// A tally for another thread, for as long as the process runs.
    pub fn tally(&self) -> Arc<Tally> {
        let tally = Arc::new(Tally {
            begun: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            heads: CLASSES.map(|_| Durations::within(CALLS)),
            ends: CLASSES.map(|_| Durations::within(CALLS)),
        });
        self.0.lock().push(tally.clone());
        tally
    }

    pub fn register(self: &Arc<Self>, registry: &mut Registry) {
        registry.register_collector(Box::new(self.clone()));
    }

    fn sum(&self, count: impl Fn(&Tally) -> &AtomicU64) -> u64 {
        let tallies = self.0.lock();
        tallies.iter().map(|one| count(one).load(Relaxed)).sum()
    }

    fn counted(&self, which: impl Fn(&Tally) -> &[Durations]) -> [Counted; CLASSES.len()] {
        let mut all = CLASSES.map(|_| Counted::none(CALLS));
        for tally in &*self.0.lock() {
            for (sum, one) in all.iter_mut().zip(which(tally)) {
                sum.add(&one.counted());
            }
        }
        all
    }
}

impl Tally {
    pub fn begin(self: &Arc<Self>) -> Passing {
        self.begun.fetch_add(1, Relaxed);
        Passing {
            tally: self.clone(),
            began: Instant::now(),
            class: 0,
            received: 0,
        }
    }
}

impl Passing {
    /// The head of the upstream's answer is there.
    pub fn answered(&mut self, status: StatusCode) {
        self.class = match status.as_u16() {
            200..300 => 1,
            300..400 => 2,
            400..500 => 3,
            500..600 => 4,
            _ => 0,
        };
        self.tally.heads[self.class].add(self.began.elapsed());
    }

    /// Bytes of its body.
    pub fn received(&mut self, bytes: usize) {
        self.received += bytes as u64;
    }

    /// The caller's body.
    pub fn sending(&self) -> Sending {
        Sending {
            tally: self.tally.clone(),
            sent: 0,
        }
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        self.tally.ends[self.class].add(self.began.elapsed());
        if self.received > 0 {
            self.tally.received.fetch_add(self.received, Relaxed);
        }
    }
}

impl Sending {
    pub fn sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        if self.sent > 0 {
            self.tally.sent.fetch_add(self.sent, Relaxed);
        }
    }
}

impl Collector for Passed {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        // Ends first: what ends meanwhile has begun.
        let ends = self.counted(|tally| &tally.ends);
        let heads = self.counted(|tally| &tally.heads);
        let ended: u64 = ends.iter().map(Counted::count).sum();
        let in_flight = self.sum(|tally| &tally.begun).saturating_sub(ended);
        for (name, help, counted) in [
            (
                "offpeak_passthrough_time_to_first_byte",
                "From a call without a deadline to the head of the upstream's answer.",
                &heads[1..],
            ),
            (
                "offpeak_passthrough_duration",
                "From a call without a deadline to the end of its answer.",
                &ends[..],
            ),
        ] {
            let (unit, kind) = (Unit::Seconds, MetricType::Histogram);
            let mut family = encoder.encode_descriptor(name, help, Some(&unit), kind)?;
            let classes = &CLASSES[CLASSES.len() - counted.len()..];
            for (class, counted) in classes.iter().zip(counted) {
                timing::encode(counted, family.encode_family(&[("status", *class)])?)?;
            }
        }
        for (name, help, bytes) in [
            (
                "offpeak_passthrough_sent",
                "Bytes of callers' bodies that were passed on to the upstream.",
                self.sum(|tally| &tally.sent),
            ),
            (
                "offpeak_passthrough_received",
                "Bytes of the upstream's bodies that were passed on to callers.",
                self.sum(|tally| &tally.received),
            ),
        ] {
            let (unit, kind) = (Unit::Bytes, MetricType::Counter);
            let family = encoder.encode_descriptor(name, help, Some(&unit), kind)?;
            ConstCounter::new(bytes).encode(family)?;
        }
        let gauge: MetricEncoder = encoder.encode_descriptor(
            "offpeak_passthrough_in_flight",
            "Calls without a deadline that are on their way.",
            None,
            MetricType::Gauge,
        )?;
        ConstGauge::new(in_flight).encode(gauge)
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::prometheus_text;

    use super::*;

    #[test]
    fn tallies_add_up_and_calls_that_never_end_are_in_flight() {
        let passed = Arc::new(Passed::default());
        let (one, other) = (passed.tally(), passed.tally());
        let mut answered = one.begin();
        answered.answered(StatusCode::OK);
        answered.received(7);
        answered.received(3);
        let mut sending = answered.sending();
        sending.sent(5);
        let unanswered = other.begin();
        let _on_its_way = other.begin();
        drop((answered, sending, unanswered));

        let mut registry = Registry::default();
        passed.register(&mut registry);
        let mut told = String::new();
        prometheus_text::encode(&mut told, &registry).unwrap();
        for line in [
            r#"offpeak_passthrough_time_to_first_byte_seconds_count{status="2xx"} 1"#,
            r#"offpeak_passthrough_duration_seconds_count{status="2xx"} 1"#,
            r#"offpeak_passthrough_duration_seconds_count{status="none"} 1"#,
            r#"offpeak_passthrough_duration_seconds_count{status="5xx"} 0"#,
            "offpeak_passthrough_sent_bytes_total 5",
            "offpeak_passthrough_received_bytes_total 10",
            "offpeak_passthrough_in_flight 1",
        ] {
            assert!(told.lines().any(|one| one == line), "{line} in\n{told}");
        }
    }
}
