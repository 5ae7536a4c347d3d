//! A credential's first use of a model is checked upstream, so that a wrong key
//! or a misspelt model is told at once and not hours later.

mod verdicts;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use parking_lot::Mutex;
use serde::Deserialize;

use self::verdicts::Verdicts;
use super::{Engine, credentials::Caller};
use crate::ports::{Organization, ProviderError};

/// The longest that a call waits for the check: a provider that says nothing must
/// not keep calls from being taken in.
const PATIENCE: Duration = Duration::from_secs(5);

const MODEL_NOT_FOUND: &str = "model_not_found";
/// The provider adapter's code for a base URL that leads elsewhere.
const WRONG_UPSTREAM: &str = "unknown_upstream_url";

#[derive(Default)]
pub(super) struct Models {
    known: Mutex<Verdicts>,
    /// Why the upstream may be the wrong one, as long as no model was found there.
    doubt: Mutex<Option<String>>,
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
    /// Refuses with the provider's 401, its 404 `model_not_found`, and where its
    /// 404 shows that the base URL is wrong; anything else counts as unknown and is
    /// let in.
    pub(super) async fn check_model(
        self: &Arc<Self>,
        caller: &Caller,
        model: &str,
    ) -> Result<(), (u16, Bytes)> {
        if !self.settings.admission.model_check {
            return Ok(());
        }
        let (now, ttl) = (self.now(), self.settings.admission.model_cache);
        let verdict = (self.models.known.lock()).get(caller.credential, model, now, ttl);
        let answer = verdict.get_or_init(|| self.ask_here(caller, model)).await;
        match answer {
            Answer::Refused { status, body } => {
                if *status == 401 {
                    self.key_refused(caller.credential, body.clone());
                }
                Err((*status, body.clone()))
            }
            Answer::Fine | Answer::Unknown => Ok(()),
        }
    }

    /// A key that was refused while it worked is asked about anew.
    pub(super) async fn check_key(
        self: &Arc<Self>,
        caller: &Caller,
        model: &str,
    ) -> Result<(), (u16, Bytes)> {
        if !self.is_refused(caller.credential) {
            return Ok(());
        }
        match self.ask_here(caller, model).await {
            Answer::Refused { status: 401, body } => Err((401, body)),
            Answer::Fine => {
                self.key_works(caller.credential);
                Ok(())
            }
            Answer::Refused { .. } | Answer::Unknown => Ok(()),
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
            Ok(Ok(organization)) => {
                if let Some(Organization(name)) = organization {
                    self.learn_organization(caller.credential, &name).await;
                }
                self.models.settled();
                Answer::Fine
            }
            Ok(Err(ProviderError::Refused { status, body, .. }))
                if status == 401 || status == 404 =>
            {
                self.refused(model, status, body)
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

    fn refused(&self, model: &str, status: u16, body: Bytes) -> Answer {
        let error = error_of(&body);
        match error.code.as_deref() {
            _ if status == 401 => {}
            Some(MODEL_NOT_FOUND) => self.models.settled(),
            Some(WRONG_UPSTREAM) => self.models.doubts(error.message),
            _ => {
                // Some upstreams have no such path and do their work all the same.
                self.models.doubts(format!(
                    "the upstream answers 404 to GET /models/{model}, without saying that \
                     it lacks the model: models are not checked. If calls fail too, \
                     upstream.base_url is wrong; else set admission.model_check = false"
                ));
                return Answer::Unknown;
            }
        }
        Answer::Refused { status, body }
    }

    /// Why the upstream may be the wrong one, for an operator to read.
    pub fn upstream_doubt(&self) -> Option<String> {
        self.models.doubt.lock().clone()
    }
}

impl Models {
    /// Said once, until a model has been found.
    fn doubts(&self, why: String) {
        let mut doubt = self.doubt.lock();
        if doubt.is_none() {
            tracing::warn!("{why}");
        }
        *doubt = Some(why);
    }

    fn settled(&self) {
        *self.doubt.lock() = None;
    }
}

#[derive(Default, Deserialize)]
struct ErrorBody {
    code: Option<String>,
    #[serde(default)]
    message: String,
}

/// The error of a body in OpenAI's shape; an empty one of any other.
fn error_of(body: &[u8]) -> ErrorBody {
    #[derive(Deserialize)]
    struct Body {
        error: ErrorBody,
    }
    serde_json::from_slice::<Body>(body).map_or_else(|_| ErrorBody::default(), |body| body.error)
}
