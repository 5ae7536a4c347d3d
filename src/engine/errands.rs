//! What the janitor asks of providers. Each errand runs beside its turn: a provider that
//! hangs keeps nothing waiting but more of the same, for the same credential.

use std::sync::Arc;

use crate::{model::id::CredentialId, ports::StoreError};

use super::{
    Engine,
    inflight::{InHand, Inflight},
};

/// Errands of a kind that run at the same time.
const AT_A_TIME: usize = 16;

#[derive(Clone, Copy, Debug)]
pub(super) enum Errand {
    /// Files that nobody needs any more are deleted.
    Litter,
    /// Second batches of what was created are looked for.
    Audit,
    /// A refused key is tried.
    Trial,
}

impl Errand {
    pub const ALL: [Errand; 3] = [Errand::Litter, Errand::Audit, Errand::Trial];
}

/// Those that run, by whose they are.
#[derive(Default)]
pub(super) struct Errands {
    litter: Inflight<CredentialId>,
    audits: Inflight<CredentialId>,
    trials: Inflight<CredentialId>,
}

impl Errands {
    /// None where one is under way for the credential, or too many are for others.
    fn begin(&self, errand: Errand, credential: CredentialId) -> Option<InHand<CredentialId>> {
        let running = match errand {
            Errand::Litter => &self.litter,
            Errand::Audit => &self.audits,
            Errand::Trial => &self.trials,
        };
        running.begin_within(credential, AT_A_TIME)
    }
}

impl Engine {
    /// Begins the errands that are due, as many as may run. Whoever is done begins the
    /// next; what failed is due again at a later sweep.
    pub(super) fn run_errands(self: &Arc<Self>, errand: Errand) {
        for id in self.due_for(errand) {
            let Some(in_hand) = self.inflight.errands.begin(errand, id) else {
                continue;
            };
            let engine = self.clone();
            self.tasks.spawn(async move {
                let ran = engine.stop.run_until_cancelled(engine.run_errand(errand, id));
                let ran = ran.await;
                drop(in_hand);
                match ran {
                    Some(Ok(())) => engine.run_errands(errand),
                    Some(Err(error)) => {
                        tracing::error!(?errand, credential = %id, %error, "an errand failed; trying again");
                    }
                    // What it has done is found done after a restart.
                    None => {}
                }
            });
        }
    }

    /// Whose time has come, longest due first.
    fn due_for(&self, errand: Errand) -> Vec<CredentialId> {
        let now = self.now();
        match errand {
            Errand::Litter => {
                let littered = self.summary.lock().littered(now).into_iter();
                littered.map(|(_, credential, _)| credential).collect()
            }
            Errand::Audit => self.audits.due(now),
            Errand::Trial => self.refusals.due(now),
        }
    }

    async fn run_errand(
        self: &Arc<Self>,
        errand: Errand,
        id: CredentialId,
    ) -> Result<(), StoreError> {
        match errand {
            Errand::Litter => self.clear_litter(id).await,
            Errand::Audit => self.audit(id).await,
            Errand::Trial => {
                self.try_refused_key(id).await;
                Ok(())
            }
        }
    }
}
