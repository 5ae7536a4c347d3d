//! What was learned, written down now and then and read back at a start.

use std::time::Duration;

use serde::{Serialize, de::DeserializeOwned};

use super::{Learning, Scope, What};
use crate::{
    engine::{
        Engine,
        scope::{ORGANIZATION, Owner, ScopeKey},
    },
    model::time::Timestamp,
    policy::fading::Fades,
    ports::{Learned, LearnedKey, StoreError},
};

/// Weights below this are forgotten.
const FADED: f64 = 0.01;

impl Engine {
    /// Reads back what was learned before.
    pub(in crate::engine) async fn recall(&self) -> Result<(), StoreError> {
        let rows = self.store.learned().await?;
        let owners = self.recall_organizations(&rows);
        for learned in rows {
            let LearnedKey { owner, model, what } = learned.key;
            let owner = owners.get(&owner).cloned();
            let scope = ScopeKey {
                owner: owner.unwrap_or(Owner::Credential(learned.key.owner)),
                model: model.as_str().into(),
            };
            let read = match What::from_name(&what) {
                Some(What::Takes(takes)) => self.put_back(scope, &learned.known, |scope, known| {
                    *scope.time(takes) = known;
                }),
                Some(What::Happens(happens)) => {
                    self.put_back(scope, &learned.known, |scope, known| {
                        *scope.share(happens) = known;
                    })
                }
                None if what == ORGANIZATION => Some(()),
                None => self.recall_scope(&scope, &what, &learned.known),
            };
            if read.is_none() {
                tracing::warn!(model, what, "what was learned cannot be read");
            }
        }
        Ok(())
    }

    fn put_back<T: Fades + DeserializeOwned>(
        &self,
        scope: ScopeKey,
        bytes: &[u8],
        put: impl FnOnce(&mut Scope, T),
    ) -> Option<()> {
        let known: T = postcard::from_bytes(bytes).ok()?;
        known.is_sound().then_some(())?;
        self.turnarounds
            .learned
            .lock()
            .learn(scope, |scope| put(scope, known));
        Some(())
    }

    /// Writes down what was learned since the last time, and forgets what faded.
    pub(in crate::engine) async fn memorise(&self) -> Result<(), StoreError> {
        let scopes = self.changed_scopes();
        for (key, known) in self.changed().into_iter().chain(scopes) {
            match known {
                Some(known) => self.store.put_learned(Learned { key, known }).await?,
                None => self.store.forget_learned(key).await?,
            }
        }
        Ok(())
    }

    fn changed(&self) -> Vec<(LearnedKey, Option<bytes::Bytes>)> {
        let (now, half_life) = (self.now(), self.settings.rescue.half_life);
        let mut changed = Vec::new();
        let mut learned = self.turnarounds.learned.lock();
        for scope in std::mem::take(&mut learned.moved) {
            let gone = What::all().map(|what| (self.row_of(&scope, what.as_str()), None));
            changed.extend(gone);
        }
        for (key, scope) in &mut learned.scopes {
            let mut note = |what: &str, known: Option<bytes::Bytes>| {
                changed.push((self.row_of(key, what), known));
            };
            let times = &mut scope.times;
            times.retain(|takes, it| it.is_kept(now, half_life, |it| note(takes.as_str(), it)));
            let shares = &mut scope.shares;
            shares.retain(|what, it| it.is_kept(now, half_life, |it| note(what.as_str(), it)));
        }
        let scopes = &mut learned.scopes;
        scopes.retain(|_, scope| !scope.times.is_empty() || !scope.shares.is_empty());
        changed
    }
}

impl<T: Fades + Serialize> Learning<T> {
    /// Whether it is still worth something; notes what is to be written.
    fn is_kept(
        &mut self,
        now: Timestamp,
        half_life: Duration,
        note: impl FnOnce(Option<bytes::Bytes>),
    ) -> bool {
        self.known.fade(now, half_life);
        let keep = self.known.weight() > FADED;
        if !keep {
            note(None);
        } else if std::mem::take(&mut self.changed)
            && let Ok(known) = postcard::to_stdvec(&self.known)
        {
            note(Some(known.into()));
        }
        keep
    }
}
