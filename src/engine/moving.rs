//! A tenant moves to another key: the new one sees all that the old one saw, and pays
//! for what is still to be done. What is kept under the tenant's name stays there; only
//! whose key is whose changes, and what is sealed of the old key.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use bytes::Bytes;
use parking_lot::RwLock;
use thiserror::Error;

use crate::{
    model::id::{CredentialId, TenantId},
    ports::{Credential, ProviderError, StoreError, TenantMove},
};

use super::{Caller, Engine, credentials::is_key};

/// By the fingerprint of a key, whose it is. Keys that are not here are their own
/// fingerprint's.
#[derive(Default)]
pub(super) struct Tenants {
    moved: RwLock<HashMap<TenantId, TenantId>>,
}

impl Tenants {
    pub fn of(&self, print: TenantId) -> Option<TenantId> {
        self.moved.read().get(&print).copied()
    }

    pub fn know(&self, keys: impl IntoIterator<Item = (TenantId, TenantId)>) {
        self.moved.write().extend(keys);
    }
}

/// What a move came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// Requests that the new key is to pay for.
    pub open_requests: u64,
}

#[derive(Debug, Error)]
pub enum MoveError {
    #[error("both keys are the same")]
    SameKey,
    #[error("nothing is known of the previous key")]
    UnknownPrevious,
    #[error("the new key has requests of its own")]
    InUse,
    #[error("the provider refuses the new key with 401")]
    Refused { body: Bytes },
    #[error("what was sealed of the previous key does not open")]
    Unopened,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Engine {
    /// Moves the tenant of `previous` to the key that `caller` presents. The previous
    /// key sees nothing of it from then on, unless it is kept.
    pub async fn move_tenant(
        self: &Arc<Self>,
        caller: &Caller,
        previous: &Credential,
        keep_previous: bool,
    ) -> Result<Moved, MoveError> {
        let (new, old) = (self.print(&caller.presented), self.print(previous));
        if new == old {
            return Err(MoveError::SameKey);
        }
        let tenant = self.tenants.of(old).unwrap_or(old);
        if !self.is_known(tenant).await? {
            return Err(MoveError::UnknownPrevious);
        }
        if caller.tenant != tenant && self.is_known(caller.tenant).await? {
            return Err(MoveError::InUse);
        }
        self.try_new_key(caller, tenant).await?;

        // No work comes in for the old key in between.
        let _gate = self.credentials.gate.write().await;
        let old_is_now = match keep_previous {
            true => tenant,
            false => self.nobody(old),
        };
        let keys = vec![(new, tenant), (old, old_is_now)];
        let mut credentials = Vec::new();
        for id in self.credentials_of(tenant) {
            if self.store.credential(id).await?.is_some() {
                let stored = self.credential(id).await.map_err(|_| MoveError::Unopened)?;
                let with_new_key = replace_key(&stored, &caller.presented);
                let sealed = self.vault.seal(id, &with_new_key);
                credentials.push((id, with_new_key, sealed));
            }
        }
        let sealed = credentials.iter();
        let moving = TenantMove {
            keys: keys.clone(),
            credentials: sealed
                .map(|(id, _, sealed)| (*id, sealed.clone()))
                .collect(),
        };
        self.store.move_tenant(moving).await?;
        self.tenants.know(keys);
        tracing::info!(%tenant, keep_previous, "a tenant moved to another key");
        for (id, credential, sealed) in credentials {
            self.credentials.replace(id, credential, sealed);
            self.refusals.forget(id);
            self.go_on_with(id);
        }
        let open_requests = self.summary.lock().open_of(tenant);
        Ok(Moved { open_requests })
    }

    /// Open requests of the tenant.
    pub fn open_requests(&self, tenant: TenantId) -> u64 {
        self.summary.lock().open_of(tenant)
    }

    pub(super) async fn recall_tenants(&self) -> Result<(), StoreError> {
        self.tenants.know(self.store.tenants().await?);
        Ok(())
    }

    async fn is_known(&self, tenant: TenantId) -> Result<bool, StoreError> {
        Ok(self.summary.lock().has_work(tenant)
            || !self.store.list(tenant, None, 1).await?.is_empty()
            || !self.store.ledger(tenant, 0).await?.is_empty())
    }

    pub(super) fn credentials_of(&self, tenant: TenantId) -> BTreeSet<CredentialId> {
        let summary = self.summary.lock();
        let destinations = summary.destinations.values();
        let its = destinations.filter(|destination| destination.tenant == tenant);
        its.map(|destination| destination.credential).collect()
    }

    /// A key that the provider refuses would stop all that is still to be done.
    async fn try_new_key(&self, caller: &Caller, tenant: TenantId) -> Result<(), MoveError> {
        let model = {
            let summary = self.summary.lock();
            let mut destinations = summary.destinations.values();
            let of_it = destinations.find(|destination| destination.tenant == tenant);
            of_it.map(|destination| destination.model.clone())
        };
        let Some(model) = model else {
            return Ok(());
        };
        match self.provider.model(&caller.presented, &model).await {
            Err(ProviderError::Refused {
                status: 401, body, ..
            }) => Err(MoveError::Refused { body }),
            _ => Ok(()),
        }
    }

    /// A tenant that has never asked for anything.
    fn nobody(&self, old: TenantId) -> TenantId {
        let chance = self.clock.random().to_be_bytes();
        TenantId(self.vault.fingerprint("moved away", &[&old.0, &chance]))
    }
}

/// What names the key is the new one's; what changes where work runs stays.
fn replace_key(stored: &Credential, new: &Credential) -> Credential {
    let rest = stored.headers.iter().filter(|(name, _)| !is_key(name));
    let key = new.headers.iter().filter(|(name, _)| is_key(name));
    Credential {
        headers: key.chain(rest).cloned().collect(),
        query: stored.query.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_key_changes() {
        let credential = |headers: &[(&str, &str)]| Credential {
            headers: headers
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            query: Some("api-version=v1".into()),
        };
        let old = credential(&[("authorization", "Bearer old"), ("openai-project", "p")]);
        let new = credential(&[("api-key", "new"), ("openai-organization", "o")]);
        let expected = credential(&[("api-key", "new"), ("openai-project", "p")]);
        assert_eq!(replace_key(&old, &new), expected);
    }
}
