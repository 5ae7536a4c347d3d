//! Callers who wait on the line.

use std::time::Duration;

#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Until then an outcome keeps its own status; then 200 and white space.
    #[serde(with = "crate::model::time::human")]
    pub drip_after: Duration,
    #[serde(with = "crate::model::time::human")]
    pub drip_interval: Duration,
    /// The same as `drip_after`, for `stream: true`.
    #[serde(with = "crate::model::time::human")]
    pub stream_silence: Duration,
    /// Between two comments of a stream that waits.
    #[serde(with = "crate::model::time::human")]
    pub heartbeat: Duration,
    /// The longest `Prefer: wait=N`.
    #[serde(with = "crate::model::time::human")]
    pub max_wait: Duration,
}
