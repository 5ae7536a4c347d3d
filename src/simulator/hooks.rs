//! The provider's own webhooks: `batch.completed` and the like, when a batch ends.
//! Signed by hand as <https://www.standardwebhooks.com> says.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ring::hmac;
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Simulator;
use crate::model::time::Timestamp;

/// Tries of one event, and the real time between them.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(10);
/// The longest sleep, real: a batch that was cancelled ends sooner than was known.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// Who is told.
#[derive(Clone)]
pub struct Hook {
    url: String,
    key: hmac::Key,
    http: reqwest::Client,
}

#[derive(Debug, thiserror::Error)]
pub enum BadHook {
    #[error("the webhook secret is not `whsec_` followed by base64")]
    Secret,
    #[error("no HTTP client")]
    Client(#[from] reqwest::Error),
}

#[derive(Clone)]
struct Event {
    number: u64,
    batch: String,
    status: &'static str,
    at: Timestamp,
}

impl Hook {
    /// # Errors
    /// A secret that is none.
    pub fn new(url: &str, secret: &str) -> Result<Hook, BadHook> {
        let encoded = secret.strip_prefix("whsec_").ok_or(BadHook::Secret)?;
        let bytes = STANDARD.decode(encoded).map_err(|_| BadHook::Secret)?;
        // Fails only where one is installed, which serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().timeout(TIMEOUT);
        Ok(Hook {
            url: url.to_owned(),
            key: hmac::Key::new(hmac::HMAC_SHA256, &bytes),
            http: http.build()?,
        })
    }

    async fn send(self, event: Event, wall: Timestamp) {
        let id = format!("wh_{}_{}", event.batch, event.number);
        let body = json!({
            "object": "event",
            "id": format!("evt_{id}"),
            "type": format!("batch.{}", event.status),
            "created_at": event.at.as_secs(),
            "data": {"id": event.batch},
        })
        .to_string();
        let seconds = wall.as_secs();
        let tag = hmac::sign(&self.key, format!("{id}.{seconds}.{body}").as_bytes());
        let signature = format!("v1,{}", STANDARD.encode(tag));
        for _ in 0..TRIES {
            let call = self.http.post(&self.url).body(body.clone());
            let call = call
                .header("content-type", "application/json")
                .header("webhook-id", &id)
                .header("webhook-timestamp", seconds)
                .header("webhook-signature", &signature);
            match call.send().await {
                Ok(answer) if answer.status().is_success() => return,
                Ok(answer) => tracing::warn!(%id, status = %answer.status(), "a webhook"),
                Err(error) => tracing::warn!(%id, %error, "a webhook"),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

impl Simulator {
    /// Tells `hook` of every batch that ends from here on, until `stop`.
    pub async fn tell(self: Arc<Self>, hook: Hook, stop: CancellationToken) {
        let mut sending = JoinSet::new();
        loop {
            let (events, next) = self.ended();
            for event in events {
                sending.spawn(hook.clone().send(event, self.clock.wall()));
            }
            let sleep = next.map_or(LONGEST_SLEEP, |at| self.clock.real(self.now().until(at)));
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.changed.notified() => {}
                () = tokio::time::sleep(sleep.min(LONGEST_SLEEP)) => {}
                Some(_) = sending.join_next() => {}
            }
        }
    }

    /// What has ended since it was last asked, and when the next batch will.
    fn ended(&self) -> (Vec<Event>, Option<Timestamp>) {
        let (mut world, now) = self.world();
        let ended = std::mem::take(&mut world.ended);
        let events = ended.into_iter().map(|index| {
            let job = &world.jobs[index];
            Event {
                number: index as u64,
                batch: job.id.clone(),
                status: job.status(now).name(),
                at: job.terminal_at(),
            }
        });
        let events = events.collect();
        let next = world.open.first().map(|(at, _)| *at);
        (events, next)
    }
}
