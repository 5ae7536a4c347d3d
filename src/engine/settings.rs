//! What the engine may be told.

use std::time::Duration;

use serde::Deserialize;

use crate::policy::{
    backoff::Backoff,
    ladder, pack, poll, rescue,
    retry::{LiveSettings, SubmitSettings},
};

#[derive(Clone, Debug)]
pub struct Settings {
    pub admission: AdmissionSettings,
    pub ladder: ladder::Settings,
    pub packing: pack::Settings,
    pub submit: SubmitSettings,
    pub watch: poll::Settings,
    pub rescue: rescue::Settings,
    pub live: LiveSettings,
    pub webhook: HookSettings,
    pub retention: RetentionSettings,
    pub shadow: ShadowSettings,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdmissionSettings {
    /// Paths whose calls may be deferred.
    pub endpoints: Vec<String>,
    pub max_body_bytes: u64,
    /// Open requests, over which new ones are answered as `on_full` says.
    pub max_open: u64,
    /// The same of one tenant.
    pub max_open_per_tenant: u64,
    /// Bytes of the lines of all open requests.
    pub max_open_bytes: u64,
    pub max_open_bytes_per_tenant: u64,
    pub on_full: OnFull,
    /// Check a credential's first use of a model upstream.
    pub model_check: bool,
    #[serde(with = "crate::model::time::human")]
    pub model_cache: Duration,
    /// How long a finished request holds its idempotency key.
    #[serde(with = "crate::model::time::human")]
    pub idempotency_ttl: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFull {
    /// 429 with `Retry-After`.
    Reject,
    /// Pass through, at full price.
    Live,
}

#[derive(Clone, Debug)]
pub struct HookSettings {
    pub max_concurrent: u32,
    /// Attempts on one receiver at the same time.
    pub max_per_endpoint: u32,
    /// Give up this long after the first try.
    pub horizon: Duration,
    pub first_retry: Duration,
    /// An answer over this many bytes is replaced by its URL.
    pub max_inline_bytes: u64,
    /// Where this server is reached from outside, for those URLs.
    pub public_url: String,
}

impl HookSettings {
    pub fn backoff(&self) -> Backoff {
        Backoff {
            first_retry: self.first_retry,
            horizon: self.horizon,
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShadowSettings {
    /// The deadline that calls without one are reckoned with; none counts nothing.
    #[serde(deserialize_with = "crate::model::time::human::optional")]
    pub deadline: Option<Duration>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetentionSettings {
    /// Finished requests are kept this long.
    #[serde(with = "crate::model::time::human")]
    pub results: Duration,
    /// What was paid and saved is told for this long.
    #[serde(with = "crate::model::time::human")]
    pub ledger: Duration,
    #[serde(with = "crate::model::time::human")]
    pub sweep_interval: Duration,
}
