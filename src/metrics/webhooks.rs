//! Results on their way to callers' own servers.

use std::sync::Arc;

use async_trait::async_trait;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::{Registry, Unit},
};
use tokio::time::Instant;

use super::{Metrics, timing::Timing};
use crate::ports::{Deliver, DeliveryStatus, HookEvent, HookOutcome};

pub struct Webhooks {
    attempts: Family<Outcome, Timing, fn() -> Timing>,
    ended: Family<Outcome, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

impl Webhooks {
    pub fn new(registry: &mut Registry) -> Webhooks {
        let webhooks = Webhooks {
            attempts: Family::new_with_constructor(Timing::of_a_call),
            ended: Family::default(),
        };
        registry.register_with_unit(
            "offpeak_webhook_attempt_duration",
            "Attempts to deliver a webhook, by what came of them",
            Unit::Seconds,
            webhooks.attempts.clone(),
        );
        registry.register(
            "offpeak_webhooks_ended",
            "Webhooks that were delivered, and those that became dead letters",
            webhooks.ended.clone(),
        );
        for outcome in ["delivered", "dead"] {
            drop(webhooks.ended.get_or_create(&Outcome { outcome }));
        }
        webhooks
    }

    /// What was written down of a delivery.
    pub fn recorded(&self, status: &DeliveryStatus) {
        if !matches!(status, DeliveryStatus::Pending { .. }) {
            let outcome = status.as_str();
            self.ended.get_or_create(&Outcome { outcome }).inc();
        }
    }
}

/// A courier, and how its attempts go.
pub struct CountedDelivery {
    deliver: Arc<dyn Deliver>,
    metrics: Arc<Metrics>,
}

impl CountedDelivery {
    pub fn new(deliver: Arc<dyn Deliver>, metrics: Arc<Metrics>) -> Self {
        CountedDelivery { deliver, metrics }
    }
}

#[async_trait]
impl Deliver for CountedDelivery {
    fn check(&self, target: &str) -> Result<(), String> {
        self.deliver.check(target)
    }

    async fn deliver(&self, event: HookEvent) -> HookOutcome {
        let began = Instant::now();
        let result = self.deliver.deliver(event).await;
        let outcome = match &result {
            HookOutcome::Delivered { .. } => "delivered",
            HookOutcome::Retry { .. } => "retry",
            HookOutcome::Gone { .. } => "gone",
            HookOutcome::GiveUp { .. } => "given_up",
        };
        let attempts = &self.metrics.webhooks.attempts;
        attempts
            .get_or_create(&Outcome { outcome })
            .add(began.elapsed());
        result
    }
}
