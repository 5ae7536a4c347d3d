//! What may be asked of deadlines.

use std::time::Duration;

#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The latest deadline taken, from receipt.
    #[serde(with = "crate::model::time::human")]
    pub max: Duration,
    /// Refuse what can only be passed through, or met with luck.
    pub strict: bool,
}
