//! A credential's first use of a model is checked upstream, so that a wrong key
//! or a misspelt model is told at once and not hours later.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::sync::OnceCell;

use crate::{
    model::{id::CredentialId, time::Timestamp},
    ports::ProviderError,
};

use super::{Engine, credentials::Caller};

/// How long "no" and "cannot say" are believed: a key may be mended any moment.
const DOUBT_TTL: Duration = Duration::from_secs(10);
/// The longest that a call waits for the check: a provider that says nothing must
/// not keep calls from being taken in.
const PATIENCE: Duration = Duration::from_secs(5);
/// Distinct models remembered; over it, what has expired is dropped.
const REMEMBERED: usize = 10_000;

#[derive(Default)]
pub(super) struct Models {
    known: Mutex<HashMap<CredentialId, HashMap<String, Verdict>>>,
}

#[derive(Clone)]
struct Verdict {
    asked: Timestamp,
    /// Filled once by whoever asks first; the others wait for it.
    answer: Arc<OnceCell<Answer>>,
}

#[derive(Clone, Debug)]
enum Answer {
    Fine,
    /// The provider's own refusal.
    Refused {
        status: u16,
        body: Bytes,
    },
    Unknown,
}

impl Engine {
    /// Refuses with the provider's 401, or its 404 `model_not_found`; anything
    /// else counts as unknown and is let in.
    pub(super) async fn check_model(
        self: &Arc<Self>,
        caller: &Caller,
        model: &str,
    ) -> Result<(), (u16, Bytes)> {
        if !self.settings.admission.model_check {
            return Ok(());
        }
        let verdict = self.models.verdict(
            caller.credential,
            model,
            self.now(),
            self.settings.admission.model_cache,
        );
        let answer = verdict
            .answer
            .get_or_init(|| self.ask_here(caller, model))
            .await;
        match answer {
            Answer::Refused { status, body } => Err((*status, body.clone())),
            Answer::Fine | Answer::Unknown => Ok(()),
        }
    }

    /// On the engine's own runtime: it drives the connection that this opens, and
    /// others use it when the caller's runtime has ended.
    async fn ask_here(self: &Arc<Self>, caller: &Caller, model: &str) -> Answer {
        let (engine, caller, model) = (self.clone(), caller.clone(), model.to_owned());
        let asking = async move { engine.ask(&caller, &model).await };
        let asked = self.tasks.spawn_on(asking, &self.runtime).await;
        asked.unwrap_or(Answer::Unknown)
    }

    async fn ask(&self, caller: &Caller, model: &str) -> Answer {
        let asked = self.provider.model(&caller.presented, model);
        match tokio::time::timeout(PATIENCE, asked).await {
            Ok(Ok(())) => Answer::Fine,
            Ok(Err(ProviderError::Refused { status, body, .. }))
                if status == 401 || (status == 404 && is_model_not_found(&body)) =>
            {
                Answer::Refused { status, body }
            }
            Err(_) => {
                tracing::debug!(model, "the model check had no answer; letting it in");
                Answer::Unknown
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, model, "the model could not be checked; letting it in");
                Answer::Unknown
            }
        }
    }
}

impl Models {
    fn verdict(
        &self,
        credential: CredentialId,
        model: &str,
        now: Timestamp,
        ttl: Duration,
    ) -> Verdict {
        let fresh = |verdict: &Verdict| {
            let ttl = match verdict.answer.get() {
                Some(Answer::Fine) => ttl,
                _ => ttl.min(DOUBT_TTL),
            };
            verdict.asked + ttl > now
        };
        let mut known = self.known.lock();
        let earlier = known.get(&credential).and_then(|models| models.get(model));
        if let Some(verdict) = earlier.filter(|verdict| fresh(verdict)) {
            return verdict.clone();
        }
        if known.values().map(HashMap::len).sum::<usize>() > REMEMBERED {
            known
                .values_mut()
                .for_each(|models| models.retain(|_, verdict| fresh(verdict)));
            known.retain(|_, models| !models.is_empty());
        }
        let models = known.entry(credential).or_default();
        let verdict = Verdict {
            asked: now,
            answer: Arc::default(),
        };
        models.insert(model.to_owned(), verdict.clone());
        verdict
    }
}

fn is_model_not_found(body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Body {
        error: Error,
    }
    #[derive(Deserialize)]
    struct Error {
        code: Option<String>,
    }
    serde_json::from_slice::<Body>(body)
        .is_ok_and(|body| body.error.code.as_deref() == Some("model_not_found"))
}
