//! Webhooks: one attempt, and how it ended.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::model::{id::TenantId, request::Bill, time::Timestamp};

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
    /// What the wall clock says: receivers hold the signature's time against theirs, and
    /// refuse what is some minutes off.
    pub wall: Timestamp,
    pub body: Bytes,
    /// What the answer cost, told in the head as well; none where that is not known.
    pub bill: Option<Bill>,
    /// Numbers of the tenant's secrets that sign it, the current one first.
    pub secrets: Vec<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HookOutcome {
    Delivered {
        status: u16,
    },
    Retry {
        /// What it answered, where it did.
        status: Option<u16>,
        reason: String,
        after: Option<Duration>,
    },
    /// 410: the receiver wants no more events at all.
    Gone {
        reason: String,
    },
    /// Never again: the target is not allowed.
    GiveUp {
        reason: String,
    },
}
