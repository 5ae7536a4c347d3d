//! What the simulated provider is like: its speed, latencies, limits and models.

use std::{collections::BTreeMap, time::Duration};

use serde::Deserialize;

use crate::model::time::human;

/// `Settings::default()` is `default.toml` beside this file, which also says
/// what each key means.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Answers, latencies and output order are functions of it.
    pub seed: u64,
    /// Simulated seconds a real second; clamped to 0.001..=1,000,000.
    pub speed: f64,
    pub shuffle: bool,
    pub log_requests: bool,
    pub keep_bodies: bool,
    pub latency: Latency,
    pub limits: Limits,
    /// The models that exist, with their prices.
    pub models: BTreeMap<String, Model>,
}

/// Simulated durations.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Latency {
    #[serde(with = "human")]
    pub validation: Duration,
    #[serde(with = "human")]
    pub turnaround_median: Duration,
    /// Standard deviation of the logarithm of a line's time.
    pub turnaround_sigma: f64,
    /// 0..=1; 1 makes all lines of a batch finish together.
    pub line_correlation: f64,
    /// Share of batches that never finish (0..=1).
    pub stalled_share: f64,
    #[serde(with = "human")]
    pub finalizing: Duration,
    #[serde(with = "human")]
    pub cancel: Duration,
    #[serde(with = "human")]
    pub cancel_in_flight: Duration,
    #[serde(with = "human")]
    pub live_median: Duration,
    pub live_sigma: f64,
    /// Between two chunks of a stream.
    #[serde(with = "human")]
    pub live_chunk: Duration,
    /// A call on the flex tier.
    #[serde(with = "human")]
    pub flex_median: Duration,
    pub flex_sigma: f64,
    #[serde(with = "human")]
    pub background_median: Duration,
    #[serde(with = "human")]
    pub background_8h_median: Duration,
    #[serde(with = "human")]
    pub background_2h_median: Duration,
    pub background_sigma: f64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    pub file_bytes: u64,
    pub batch_lines: usize,
    pub embedding_inputs: u64,
    pub errors_reported: usize,
    pub batch_creates_per_hour: usize,
    pub uploads_per_minute: usize,
    pub enqueued_tokens: u64,
    pub requests_per_minute: u64,
    pub tokens_per_minute: u64,
    pub flex_shortage: f64,
}

/// Prices in nano-dollars a token (WIRE.md §2).
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    pub input: u64,
    pub cached_input: u64,
    pub output: u64,
    pub batch_input: u64,
    pub batch_cached_input: u64,
    pub batch_output: u64,
    /// Whether `service_tier:"flex"` is taken; it costs half.
    pub flex: bool,
}

impl Default for Settings {
    fn default() -> Self {
        toml::from_str(include_str!("default.toml"))
            .expect("default.toml is compiled in and tested")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_parse_and_batch_is_half_price() {
        let settings = Settings::default();
        for (name, model) in &settings.models {
            assert_eq!(model.batch_input * 2, model.input, "{name}");
            assert_eq!(model.batch_output * 2, model.output, "{name}");
        }
    }
}
