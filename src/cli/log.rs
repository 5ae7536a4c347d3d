//! Where the log goes: standard error, as the `[log]` section says.

use std::io::IsTerminal;

use serde::Deserialize;
use tracing_subscriber::EnvFilter;

use super::Failure;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    pub filter: String,
    pub format: Format,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    Text,
    Json,
}

pub fn start(settings: &Settings) -> Result<(), Failure> {
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter(settings)?)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match settings.format {
        Format::Text => log.init(),
        Format::Json => log.json().init(),
    }
    Ok(())
}

/// `OFFPEAK_LOG` goes over the settings' filter.
pub fn filter(settings: &Settings) -> Result<EnvFilter, Failure> {
    let filter = std::env::var("OFFPEAK_LOG").unwrap_or_else(|_| settings.filter.clone());
    EnvFilter::try_new(&filter)
        .map_err(|error| Failure::Other(format!("log.filter: `{filter}`: {error}")))
}
