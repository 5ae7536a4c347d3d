//! Whose call it is, and the key that does its work.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::{
    model::id::{CredentialId, TenantId},
    ports::{Credential, ProviderError},
};

use super::{Engine, keys::Key};

/// A caller, known by fingerprints of what it presented.
#[derive(Clone, Debug)]
pub struct Caller {
    pub tenant: TenantId,
    pub credential: CredentialId,
    /// What does the work: the caller's own, or the upstream's where it presented a key
    /// that we issued.
    pub presented: Arc<Credential>,
    /// The key that we issued.
    pub key: Option<Arc<Key>>,
}

#[derive(Default)]
pub(super) struct Credentials {
    opened: Mutex<HashMap<CredentialId, Opened>>,
    /// Admissions read, the janitor writes: a credential is not dropped while
    /// work for it is coming in.
    pub gate: tokio::sync::RwLock<()>,
}

#[derive(Clone)]
struct Opened {
    credential: Arc<Credential>,
    sealed: Bytes,
}

impl Credentials {
    /// From here on the credential is this one, whoever is reading it right now.
    pub fn replace(&self, id: CredentialId, credential: Credential, sealed: Bytes) {
        let credential = Arc::new(credential);
        let opened = Opened { credential, sealed };
        self.opened.lock().insert(id, opened);
    }

    /// Work of it was taken in, or is under way.
    pub fn knows(&self, id: CredentialId) -> bool {
        self.opened.lock().contains_key(&id)
    }

    pub fn forget(&self, id: CredentialId) {
        self.opened.lock().remove(&id);
    }
}

impl Engine {
    /// Who presents this credential of the provider's. The tenant is known by the key alone, so
    /// that a request is found whatever organization header comes with it.
    pub fn caller(&self, presented: Credential) -> Caller {
        let print = self.print(&presented);
        let moved = self.tenants.of(print);
        let tenant = moved.unwrap_or(print);
        let mut all: Vec<&[u8]> = presented
            .headers
            .iter()
            .flat_map(|(name, value)| [name.as_bytes(), value.as_bytes()])
            .collect();
        all.extend(presented.query.as_ref().map(|query| query.as_bytes()));
        // What is sealed under the old id of a key that moved is another key.
        all.extend(moved.as_ref().map(|tenant| &tenant.0[..]));
        let credential = CredentialId(self.vault.fingerprint("credential", &all));
        Caller {
            tenant,
            credential,
            presented: Arc::new(presented),
            key: None,
        }
    }

    /// The fingerprint of the key that is presented.
    pub(super) fn print(&self, presented: &Credential) -> TenantId {
        let keys = presented.headers.iter().filter(|(name, _)| is_key(name));
        let keys: Vec<&[u8]> = keys.map(|(_, value)| value.as_bytes()).collect();
        TenantId(self.vault.fingerprint("tenant", &keys))
    }

    /// The caller's credential as the store keeps it; from here on it is known.
    pub(super) fn seal_credential(&self, caller: &Caller) -> Bytes {
        if let Some(opened) = self.credentials.opened.lock().get(&caller.credential) {
            return opened.sealed.clone();
        }
        let sealed = self.vault.seal(caller.credential, &caller.presented);
        let opened = Opened {
            credential: caller.presented.clone(),
            sealed: sealed.clone(),
        };
        self.credentials
            .opened
            .lock()
            .insert(caller.credential, opened);
        sealed
    }

    /// The credential that does a request's work.
    pub(super) async fn credential(
        &self,
        id: CredentialId,
    ) -> Result<Arc<Credential>, ProviderError> {
        if let Some(opened) = self.credentials.opened.lock().get(&id) {
            return Ok(opened.credential.clone());
        }
        let local = |reason: String| ProviderError::Local(reason);
        let sealed = self
            .store
            .credential(id)
            .await
            .map_err(|error| local(error.to_string()))?;
        let sealed = sealed.ok_or_else(|| local("its credential is not stored any more".into()))?;
        let credential = self
            .vault
            .open(id, &sealed)
            .map_err(|error| local(error.to_string()))?;
        let opened = Opened {
            credential: Arc::new(credential),
            sealed: sealed.into(),
        };
        // It may have been replaced while it was read.
        let mut known = self.credentials.opened.lock();
        Ok(known.entry(id).or_insert(opened).credential.clone())
    }
}

/// Whether the header names the key itself.
pub(super) fn is_key(name: &str) -> bool {
    name == "authorization" || name == "api-key"
}
