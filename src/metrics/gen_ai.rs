//! OpenTelemetry's metrics of generative AI clients, in Prometheus' spelling
//! (semantic conventions, "Generative AI metrics"): `gen_ai.client.token.usage` and
//! `gen_ai.client.operation.duration`, their attributes and their advised buckets.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, histogram::Histogram},
    registry::{Registry, Unit},
};

use super::{Model, timing::Timing};
use crate::model::{endpoint::Endpoint, request::Usage};

pub struct GenAi {
    tokens: Family<Tokens, Histogram, fn() -> Histogram>,
    duration: Family<Operation, Timing, fn() -> Timing>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Tokens {
    gen_ai_operation_name: &'static str,
    gen_ai_provider_name: &'static str,
    gen_ai_request_model: Model,
    gen_ai_token_type: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Operation {
    error_type: &'static str,
    gen_ai_operation_name: &'static str,
    gen_ai_provider_name: &'static str,
    gen_ai_request_model: Model,
}

const TOKENS: [f64; 14] = [
    1.0,
    4.0,
    16.0,
    64.0,
    256.0,
    1_024.0,
    4_096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
];

const SECONDS: &[Duration] = &[
    Duration::from_millis(10),
    Duration::from_millis(20),
    Duration::from_millis(40),
    Duration::from_millis(80),
    Duration::from_millis(160),
    Duration::from_millis(320),
    Duration::from_millis(640),
    Duration::from_millis(1_280),
    Duration::from_millis(2_560),
    Duration::from_millis(5_120),
    Duration::from_millis(10_240),
    Duration::from_millis(20_480),
    Duration::from_millis(40_960),
    Duration::from_millis(81_920),
];

/// The API's format, which is what the conventions ask for, whoever answers on it.
const PROVIDER: &str = "openai";

impl GenAi {
    pub fn new(registry: &mut Registry) -> GenAi {
        let gen_ai = GenAi {
            tokens: Family::new_with_constructor(|| Histogram::new(TOKENS)),
            duration: Family::new_with_constructor(|| Timing::within(SECONDS)),
        };
        registry.register(
            "gen_ai_client_token_usage",
            "Tokens of each answer that ended a request",
            gen_ai.tokens.clone(),
        );
        registry.register_with_unit(
            "gen_ai_client_operation_duration",
            "Calls outside of batches for requests with a deadline, from their beginning to \
             the last byte of the answer",
            Unit::Seconds,
            gen_ai.duration.clone(),
        );
        gen_ai
    }

    /// An answer's tokens, of the types that it has any of: embeddings put none out.
    pub fn answered(&self, endpoint: Endpoint, model: &Model, usage: &Usage) {
        let types = [("input", usage.input), ("output", usage.output)];
        for (gen_ai_token_type, count) in types.into_iter().filter(|(_, count)| *count > 0) {
            let labels = Tokens {
                gen_ai_operation_name: endpoint.operation(),
                gen_ai_provider_name: PROVIDER,
                gen_ai_request_model: model.clone(),
                gen_ai_token_type,
            };
            self.tokens.get_or_create(&labels).observe(count as f64);
        }
    }

    /// A call's time, and what kind of error came of it, if one did.
    pub fn called(
        &self,
        endpoint: Endpoint,
        model: &Model,
        error: Option<&'static str>,
        took: Duration,
    ) {
        let labels = Operation {
            error_type: error.unwrap_or_default(),
            gen_ai_operation_name: endpoint.operation(),
            gen_ai_provider_name: PROVIDER,
            gen_ai_request_model: model.clone(),
        };
        self.duration.get_or_create(&labels).add(took);
    }
}
