//! The spans' way to a collector.

use std::{sync::Arc, time::Duration};

use opentelemetry::{KeyValue, trace::SpanKind};
use opentelemetry_otlp::{
    ExporterBuildError, Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _,
};
use opentelemetry_sdk::{
    Resource,
    resource::{EnvResourceDetector, TelemetryResourceDetector},
    trace::{
        IdGenerator as _, RandomIdGenerator, Sampler, SamplingDecision, ShouldSample as _,
        SpanExporter as _,
    },
};
use reqwest::redirect;
use thiserror::Error;

use super::{Collector, Settings, queue::Queue, spans};
use crate::{
    model::{
        id::RequestId,
        trace::{Sampled, TraceId, TraceParent},
    },
    ports::{CallSpan, Clock, RequestSpan, SpanCounts, Traces},
};

/// Sends spans by OTLP over HTTP, in protobuf.
pub struct Otlp {
    clock: Arc<dyn Clock>,
    /// Of traces that begin here.
    requests: Sampler,
    calls: Sampler,
    ids: RandomIdGenerator,
    queue: Queue,
}

/// Why no span can be sent at all.
#[derive(Debug, Error)]
pub enum BadExporter {
    #[error("no HTTP client for traces")]
    Client(#[from] reqwest::Error),
    #[error("traces cannot be sent: {0}")]
    Exporter(#[from] ExporterBuildError),
}

impl Otlp {
    /// None where no collector is named. The exporter reads `OTEL_EXPORTER_OTLP_HEADERS`
    /// and `OTEL_RESOURCE_ATTRIBUTES` from the environment itself. Call it on the runtime
    /// that is to send.
    ///
    /// # Errors
    /// Where the environment asks the exporter for what it cannot do.
    pub fn start(
        settings: &Settings,
        clock: Arc<dyn Clock>,
    ) -> Result<Option<Arc<Otlp>>, BadExporter> {
        let Some(collector) = &settings.endpoint else {
            return Ok(None);
        };
        let mut exporter = exporter(collector, settings.timeout)?;
        exporter.set_resource(&resource(settings.service.clone()));
        tracing::info!("spans are sent to {}", collector.origin());
        Ok(Some(Arc::new(Otlp {
            clock,
            requests: Sampler::TraceIdRatioBased(settings.sample_ratio),
            calls: Sampler::TraceIdRatioBased(settings.passthrough_ratio),
            ids: RandomIdGenerator::default(),
            queue: Queue::new(exporter),
        })))
    }

    /// Takes no more spans, and sends those it has, at most until `patience` ends.
    pub async fn finish(&self, patience: Duration) {
        self.queue.finish(patience).await;
    }
}

impl Traces for Otlp {
    /// A trace that begins here has the request's own id.
    fn request(&self, id: RequestId, parent: Option<TraceParent>) -> Option<Sampled> {
        sampled(&self.requests, parent, || TraceId(*id.as_bytes()))
    }

    fn call(&self, parent: Option<TraceParent>) -> Option<Sampled> {
        let new = || TraceId(self.ids.new_trace_id().to_bytes());
        sampled(&self.calls, parent, new)
    }

    fn tell_request(&self, span: RequestSpan) {
        self.queue
            .push(spans::request(self.ids.new_span_id(), span));
    }

    fn tell_call(&self, span: CallSpan) {
        let (id, end) = (self.ids.new_span_id(), self.clock.wall());
        self.queue.push(spans::call(id, span, end));
    }

    fn lost(&self) {
        self.queue.lost();
    }

    fn counts(&self) -> SpanCounts {
        self.queue.counts()
    }
}

fn sampled(
    sampler: &Sampler,
    parent: Option<TraceParent>,
    new: impl FnOnce() -> TraceId,
) -> Option<Sampled> {
    if let Some(parent) = parent {
        return parent.sampled.then_some(Sampled {
            trace: parent.trace,
            parent: Some(parent.span),
        });
    }
    let trace = new();
    let id = opentelemetry::TraceId::from_bytes(trace.0);
    let asked = sampler.should_sample(None, id, "", &SpanKind::Server, &[], &[]);
    let parent = None;
    (asked.decision == SamplingDecision::RecordAndSample).then_some(Sampled { trace, parent })
}

fn exporter(collector: &Collector, timeout: Duration) -> Result<SpanExporter, BadExporter> {
    // Fails only when a provider is installed already, which serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder()
        .user_agent(concat!("offpeak/", env!("CARGO_PKG_VERSION")))
        .timeout(timeout)
        .redirect(redirect::Policy::none())
        .no_proxy()
        .build()?;
    Ok(SpanExporter::builder()
        .with_http()
        .with_http_client(client)
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(collector.to_string())
        .with_timeout(timeout)
        .build()?)
}

/// Who tells. What the environment says goes over our own words.
fn resource(service: Option<String>) -> Resource {
    let resource = Resource::builder_empty()
        .with_service_name("offpeak")
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_detectors(&[
            Box::new(TelemetryResourceDetector),
            Box::new(EnvResourceDetector::new()),
        ]);
    match service {
        Some(service) => resource.with_service_name(service),
        None => resource,
    }
    .build()
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::{
        model::{
            time::Timestamp,
            trace::{Sampled, SpanId},
        },
        traces::queue::QUEUE,
    };

    struct Still;

    impl Clock for Still {
        fn now(&self) -> Timestamp {
            Timestamp::from_secs(1_800_000_000)
        }

        fn wall(&self) -> Timestamp {
            self.now()
        }

        fn random(&self) -> u128 {
            7
        }
    }

    fn started(endpoint: &str, ratio: f64) -> Option<Arc<Otlp>> {
        let text = format!(
            "endpoint = {endpoint:?}\nsample_ratio = {ratio:?}\npassthrough_ratio = {ratio:?}\n\
             timeout = \"1day\""
        );
        Otlp::start(&toml::from_str(&text).unwrap(), Arc::new(Still)).unwrap()
    }

    fn id(random: u128) -> RequestId {
        // Its random bits are the upper ones.
        RequestId::new(Still.now(), random << 48)
    }

    #[tokio::test]
    async fn without_a_collector_nothing_is_started() {
        assert!(started("", 1.0).is_none());
    }

    #[tokio::test]
    async fn a_caller_decides_for_its_own_trace() {
        let (trace, span) = (TraceId([1; 16]), SpanId([2; 8]));
        for ratio in [0.0, 1.0] {
            let otlp = started("http://127.0.0.1:9", ratio).unwrap();
            for sampled in [false, true] {
                let parent = Some(TraceParent {
                    trace,
                    span,
                    sampled,
                });
                let parent_of = sampled.then_some(Sampled {
                    trace,
                    parent: Some(span),
                });
                assert_eq!(otlp.request(id(1), parent), parent_of);
                assert_eq!(otlp.call(parent), parent_of);
            }
        }
    }

    #[tokio::test]
    async fn of_the_others_a_share_is_told_of_and_always_the_same() {
        for (ratio, least, most) in [(0.0, 0, 0), (0.25, 150, 350), (1.0, 1000, 1000)] {
            let otlp = started("http://127.0.0.1:9", ratio).unwrap();
            let told = |n: u128| otlp.request(id(n.wrapping_mul(u128::MAX / 1009)), None);
            let all: Vec<_> = (0..1000).map(told).collect();
            let count = all.iter().flatten().count();
            assert!((least..=most).contains(&count), "{count} of {ratio}");
            assert_eq!(all, (0..1000).map(told).collect::<Vec<_>>());
            let passing = (0..1000).filter_map(|_| otlp.call(None)).count();
            assert!((least..=most).contains(&passing), "{passing} of {ratio}");
        }
    }

    #[tokio::test]
    async fn what_there_is_no_room_for_is_counted_and_a_collector_that_hangs_is_left() {
        let hung = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", hung.local_addr().unwrap());
        let otlp = started(&endpoint, 1.0).unwrap();
        let span = CallSpan {
            sampled: otlp.call(None).unwrap(),
            method: http::Method::GET,
            endpoint: None,
            status: None,
            whole: false,
            took: Duration::from_millis(5),
        };
        // Nobody sends meanwhile: this test has one thread.
        for _ in 0..QUEUE + 3 {
            otlp.tell_call(span.clone());
        }
        otlp.lost();
        let counts = SpanCounts {
            sent: 0,
            failed: 0,
            dropped: 4,
        };
        assert_eq!(otlp.counts(), counts);
        let (_asking, _) = hung.accept().await.unwrap();
        otlp.finish(Duration::from_millis(10)).await;
        otlp.tell_call(span);
        assert_eq!(otlp.counts().dropped, 5, "it takes no more");
    }
}
