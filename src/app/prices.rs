//! What answers are billed by.

use serde::Deserialize;

use crate::{
    config::{Config, ConfigError},
    ledger::Prices,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// Empty: the built-in prices alone.
    file: String,
}

/// The prices that are built in, and over them those of the file that `prices.file`
/// names: its models have its prices alone.
///
/// # Errors
/// A file that cannot be read, or is none of prices: by model, lane and field.
pub fn prices(config: &Config) -> Result<Prices, ConfigError> {
    let Settings { file } = config.section("prices")?;
    let refuse = |why: String| config.refuse("prices.file", why);
    let built_in = Prices::built_in().map_err(|error| refuse(error.to_string()))?;
    if file.is_empty() {
        return Ok(built_in);
    }
    let text = std::fs::read_to_string(&file).map_err(|error| refuse(error.to_string()))?;
    built_in
        .with(&text)
        .map_err(|error| refuse(error.to_string()))
}
