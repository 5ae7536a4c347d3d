//! Spans for an OpenTelemetry collector, by OTLP over HTTP: what is told of is put into a
//! bounded queue, from which one task sends. docs/traces.md says what a span holds.

mod otlp;
mod queue;
mod settings;
mod spans;

pub use self::{
    otlp::{BadExporter, Otlp},
    settings::{BadCollector, BadVariable, Collector, Settings},
};
