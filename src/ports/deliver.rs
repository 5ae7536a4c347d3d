//! Webhooks: one attempt, and how it ended.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::model::{id::TenantId, time::Timestamp};

/// One webhook attempt.
#[async_trait]
pub trait Deliver: Send + Sync + 'static {
    /// Whether a target may be used at all: a configured name, or an allowed URL.
    fn check(&self, target: &str) -> Result<(), String>;

    async fn deliver(&self, event: HookEvent) -> HookOutcome;
}

pub struct HookEvent {
    pub target: String,
    pub tenant: TenantId,
    /// The same at every try.
    pub id: String,
    pub now: Timestamp,
    pub body: Bytes,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HookOutcome {
    Delivered,
    Retry {
        reason: String,
        after: Option<Duration>,
    },
    /// Never again: the target is gone or not allowed.
    GiveUp {
        reason: String,
    },
}
