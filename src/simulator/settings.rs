//! What the simulated provider is like: its speed, latencies, limits and models.

use std::{collections::BTreeMap, ops::RangeInclusive, time::Duration};

use serde::Deserialize;
use thiserror::Error;
use toml::{Table, Value};

use crate::model::time::human;

const DEFAULTS: &str = include_str!("default.toml");
/// Beyond these a clock is of no use.
const SPEEDS: RangeInclusive<f64> = 0.001..=1_000_000.0;

/// `Settings::default()` is `default.toml` beside this file, which also says
/// what each key means.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Answers, latencies and output order are functions of it.
    pub seed: u64,
    /// Simulated seconds a real second, 0.001..=1,000,000.
    pub speed: f64,
    pub shuffle: bool,
    pub log_requests: bool,
    pub keep_bodies: bool,
    pub keeps_metadata: bool,
    pub names_lines: bool,
    pub latency: Latency,
    pub limits: Limits,
    pub cache: Cache,
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

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cache {
    /// Of prompts (0..=1).
    pub share: f64,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    pub standard: Tariff,
    pub batch: Tariff,
    /// None where the tier is refused.
    pub flex: Option<Tariff>,
    pub priority: Option<Tariff>,
    pub long: Option<Long>,
}

/// What an answer to a long input costs.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Long {
    /// More tokens than these are long.
    pub above: u64,
    pub standard: Tariff,
    pub batch: Tariff,
    pub flex: Option<Tariff>,
    pub priority: Option<Tariff>,
}

/// Picodollars a token: of input, of cached input, of input that is written to the cache,
/// and of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Tariff(pub u64, pub u64, pub u64, pub u64);

#[derive(Debug, Error)]
pub enum BadSettings {
    #[error(transparent)]
    NoToml(#[from] toml::de::Error),
    #[error("{key}: {reason}")]
    Key { key: String, reason: String },
    #[error("speed: {0} is not from 0.001 to 1,000,000")]
    Speed(f64),
}

impl Settings {
    /// The defaults, and over them the keys of a file.
    ///
    /// # Errors
    /// What is no TOML, an unknown key, a value that its key does not accept.
    pub fn read(text: &str) -> Result<Settings, BadSettings> {
        let mut settings: Table = toml::from_str(DEFAULTS)?;
        lay_over(&mut settings, toml::from_str(text)?);
        serde_path_to_error::deserialize(Value::Table(settings)).map_err(|error| BadSettings::Key {
            key: error.path().to_string(),
            reason: error.inner().message().trim_end().to_owned(),
        })
    }

    /// # Errors
    /// What the types let through and the simulator cannot play.
    pub fn check(&self) -> Result<(), BadSettings> {
        match SPEEDS.contains(&self.speed) {
            true => Ok(()),
            false => Err(BadSettings::Speed(self.speed)),
        }
    }
}

/// Table by table: what the upper one lacks stays.
fn lay_over(lower: &mut Table, upper: Table) {
    for (key, value) in upper {
        match (lower.get_mut(&key), value) {
            (Some(Value::Table(lower)), Value::Table(upper)) => lay_over(lower, upper),
            (_, value) => {
                lower.insert(key, value);
            }
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        toml::from_str(DEFAULTS).expect("default.toml is compiled in and tested")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_parse_and_batch_is_half_price() {
        let settings = Settings::default();
        settings.check().unwrap();
        for (name, model) in &settings.models {
            let (batch, standard) = (model.batch, model.standard);
            assert_eq!(
                (batch.0 * 2, batch.3 * 2),
                (standard.0, standard.3),
                "{name}"
            );
            if let Some(discounted) = model.flex {
                assert_eq!((discounted.0, discounted.3), (batch.0, batch.3), "{name}");
            }
        }
    }

    #[test]
    fn a_file_is_laid_over_the_defaults() {
        let defaults = Settings::default();
        let file = "seed = 9\n[latency]\ncancel = \"25m\"\n[models.gpt-4o]\nbatch = [1, 2, 3, 4]";
        let settings = Settings::read(file).unwrap();
        assert_eq!(settings.seed, 9);
        assert_eq!(settings.latency.cancel, Duration::from_secs(1500));
        assert_eq!(settings.latency.validation, defaults.latency.validation);
        let (own, usual) = (settings.models["gpt-4o"], defaults.models["gpt-4o"]);
        assert_eq!(
            (own.batch, own.standard),
            (Tariff(1, 2, 3, 4), usual.standard)
        );
        assert_eq!(settings.models.len(), defaults.models.len());
    }

    #[test]
    fn what_is_wrong_in_a_file_is_named() {
        for (file, says) in [
            (
                "[latency]\ncancle = \"1m\"",
                "latency.cancle: unknown field `cancle`",
            ),
            ("[latency]\ncancel = \"soon\"", "latency.cancel: "),
            ("latency = 3", "latency: invalid type: integer `3`"),
            ("seed 3", "TOML parse error at line 1"),
        ] {
            let error = Settings::read(file).unwrap_err().to_string();
            assert!(error.starts_with(says), "{error}");
        }
        for speed in ["0.0", "-1.0", "nan", "inf", "2e6"] {
            let settings = Settings::read(&format!("speed = {speed}")).unwrap();
            let error = settings.check().unwrap_err().to_string();
            assert!(error.starts_with("speed: "), "{error}");
        }
    }
}
