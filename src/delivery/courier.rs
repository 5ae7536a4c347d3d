//! The engine's view of delivery: an event in, an outcome out.

use std::sync::Arc;

use async_trait::async_trait;

use super::{
    send::{Attempt, Outcome, Sender},
    settings::Target,
};
use crate::{
    model::secret::Secret,
    ports::{Deliver, HookEvent, HookOutcome, Vault},
};

/// Signs each event with its endpoint's secret, or with the tenant's own.
pub struct Courier {
    sender: Sender,
    vault: Arc<dyn Vault>,
}

impl Courier {
    pub fn new(sender: Sender, vault: Arc<dyn Vault>) -> Self {
        Courier { sender, vault }
    }
}

#[async_trait]
impl Deliver for Courier {
    fn check(&self, target: &str) -> Result<(), String> {
        match self.sender.resolve_target(target) {
            Ok(_) => Ok(()),
            Err(reason) => Err(reason.to_string()),
        }
    }

    /// The target is read anew at every attempt, so that a changed endpoint or
    /// allow-list holds for what is already queued.
    async fn deliver(&self, event: HookEvent) -> HookOutcome {
        let Target { url, secret, .. } = match self.sender.resolve_target(&event.target) {
            Ok(target) => target,
            Err(reason) => {
                return HookOutcome::GiveUp {
                    reason: reason.to_string(),
                };
            }
        };
        let own = |number: &u32| Secret::new(self.vault.webhook_secret(event.tenant, *number));
        let secrets = match secret {
            Some(secret) => vec![secret],
            None => event.secrets.iter().map(own).collect(),
        };
        let attempt = Attempt {
            url: &url,
            webhook_id: &event.id,
            body: event.body,
            bill: event.bill,
            secrets: &secrets,
            now: event.wall,
        };
        in_words(self.sender.deliver(attempt).await)
    }
}

fn in_words(outcome: Outcome) -> HookOutcome {
    match outcome {
        Outcome::Delivered { status } => HookOutcome::Delivered { status },
        Outcome::Retry {
            status,
            reason,
            retry_after,
        } => HookOutcome::Retry {
            status,
            reason: match status {
                Some(status) => format!("{reason} ({status})"),
                None => reason.to_string(),
            },
            after: retry_after,
        },
        Outcome::Gone => HookOutcome::Gone {
            reason: "the receiver answered 410: it wants no more of these".to_owned(),
        },
        Outcome::Refused { reason } => HookOutcome::GiveUp {
            reason: reason.to_string(),
        },
        Outcome::Unsignable { reason } => HookOutcome::GiveUp {
            reason: reason.to_string(),
        },
    }
}

#[cfg(test)]
#[path = "courier_tests.rs"]
mod tests;
