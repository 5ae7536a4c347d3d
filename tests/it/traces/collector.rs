//! A collector of spans.

use std::{collections::BTreeMap, sync::Arc};

use axum::{Router, extract::State, routing::post};
use bytes::Bytes;
use http::HeaderMap;
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value::Value},
    trace::v1::{Span, span::Event},
};
use parking_lot::Mutex;
use prost::Message as _;
use tokio::{net::TcpListener, sync::Notify, task::JoinSet, time::timeout};

use crate::app::HANG;

pub struct Collector {
    pub url: String,
    kept: Arc<Kept>,
    _serving: JoinSet<std::io::Result<()>>,
}

#[derive(Default)]
struct Kept {
    bodies: Mutex<Vec<(HeaderMap, Bytes)>>,
    came: Notify,
}

impl Collector {
    pub async fn start() -> Collector {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let kept = Arc::<Kept>::default();
        let router = Router::new()
            .route("/v1/traces", post(keep))
            .with_state(kept.clone());
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(listener, router).await });
        Collector {
            url,
            kept,
            _serving: serving,
        }
    }

    /// Waits until so many have come.
    pub async fn spans(&self, count: usize) -> Vec<Span> {
        let waiting = async {
            loop {
                let came = self.kept.came.notified();
                let spans = self.so_far();
                if spans.len() >= count {
                    return spans;
                }
                came.await;
            }
        };
        let spans = timeout(HANG, waiting).await;
        spans.unwrap_or_else(|_| panic!("{count} spans did not come: {:?}", self.so_far()))
    }

    pub fn so_far(&self) -> Vec<Span> {
        let all = self.exports().into_iter();
        let resources = all.flat_map(|export| export.resource_spans);
        let scopes = resources.flat_map(|resource| resource.scope_spans);
        scopes.flat_map(|scope| scope.spans).collect()
    }

    pub fn exports(&self) -> Vec<ExportTraceServiceRequest> {
        let bodies = self.kept.bodies.lock();
        let read = |(_, body): &(HeaderMap, Bytes)| {
            ExportTraceServiceRequest::decode(body.clone()).unwrap()
        };
        bodies.iter().map(read).collect()
    }

    /// Of all that came.
    pub fn headers(&self) -> Vec<HeaderMap> {
        let bodies = self.kept.bodies.lock();
        bodies.iter().map(|(headers, _)| headers.clone()).collect()
    }

    /// Whether anything that came has this text in it.
    pub fn knows(&self, text: &str) -> bool {
        let bodies = self.kept.bodies.lock();
        bodies.iter().any(|(headers, body)| {
            let found = |bytes: &[u8]| {
                bytes
                    .windows(text.len())
                    .any(|part| part == text.as_bytes())
            };
            found(body) || headers.values().any(|value| found(value.as_bytes()))
        })
    }
}

async fn keep(State(kept): State<Arc<Kept>>, headers: HeaderMap, body: Bytes) {
    kept.bodies.lock().push((headers, body));
    kept.came.notify_one();
}

/// As JSON would have them.
pub fn attributes(of: &[KeyValue]) -> BTreeMap<&str, serde_json::Value> {
    let read = |one: &KeyValue| match one.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.as_str().into()),
        Value::IntValue(number) => Some((*number).into()),
        Value::DoubleValue(number) => Some((*number).into()),
        Value::BoolValue(is) => Some((*is).into()),
        other => panic!("{other:?}"),
    };
    of.iter()
        .map(|one| (one.key.as_str(), read(one).unwrap()))
        .collect()
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn names(events: &[Event]) -> Vec<&str> {
    events.iter().map(|event| event.name.as_str()).collect()
}
