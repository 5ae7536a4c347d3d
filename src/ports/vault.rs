//! Secrets: the callers' credentials, and what keeps them.

use std::fmt;

use bytes::Bytes;
use thiserror::Error;

use crate::model::id::{CredentialId, TenantId};

/// Secrets at rest.
pub trait Vault: Send + Sync + 'static {
    fn seal(&self, id: CredentialId, credential: &Credential) -> Bytes;

    fn open(&self, id: CredentialId, sealed: &[u8]) -> Result<Credential, Unopened>;

    /// A fingerprint keyed by this installation; `domain` keeps uses apart.
    fn fingerprint(&self, domain: &str, parts: &[&[u8]]) -> [u8; 16];

    /// The tenant's signing secret of this number for webhooks, `whsec_…`.
    fn webhook_secret(&self, tenant: TenantId, number: u32) -> String;
}

/// The headers and query that authorise a call and decide where it runs.
#[derive(Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Credential {
    /// Lower-case names; at least `authorization` or `api-key`, unless the
    /// upstream wants none.
    pub headers: Vec<(String, String)>,
    /// `api-version=…`, without the question mark.
    pub query: Option<String>,
}

/// Shows names, never values.
impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("Credential")
            .field("headers", &names)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Error)]
#[error("a stored credential cannot be opened with this master key")]
pub struct Unopened;
