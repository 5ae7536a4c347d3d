//! Keys that we issue. Callers present them; the provider's own keys come from the
//! server's environment and do the work. What a key may do is in memory as a map from
//! its fingerprint, and in the store ([`issue`]): a call waits for neither.

mod issue;
mod reserving;
mod spending;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use parking_lot::{Mutex, RwLock};
use thiserror::Error;

use crate::{
    model::{
        id::{CredentialId, KeyPrint, TenantId},
        issued::{IssuedKey, Standing},
        time::Timestamp,
    },
    policy::bucket::Bucket,
    ports::{Credential, StoreError, TenantMove},
};

pub use self::issue::{IssueError, NewKey};
use self::spending::Spending;
pub use self::spending::Spent;
use super::{Caller, Engine};

/// The providers' keys, by the names that operators gave them.
pub type Upstreams = BTreeMap<String, Credential>;

pub(super) struct Keys {
    upstreams: BTreeMap<String, Arc<Credential>>,
    known: RwLock<HashMap<KeyPrint, Arc<Key>>>,
    spending: Spending,
    /// Keys are created and revoked one at a time.
    changes: tokio::sync::Mutex<()>,
}

/// An issued key at work.
#[derive(Debug)]
pub struct Key {
    pub issued: IssuedKey,
    pub tenant: TenantId,
    /// None where it may call as often as it likes.
    bucket: Option<Arc<Mutex<Bucket>>>,
}

/// Why a key opens nothing. Only who holds the very key is told more than that.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum KeyRefused {
    #[error("it was not issued here")]
    Unknown,
    #[error("it expired at {0}")]
    Expired(Timestamp),
    #[error("it was revoked at {0}")]
    Revoked(Timestamp),
    /// The operator took the upstream away that it calls with.
    #[error("no upstream is called `{0}`")]
    NoUpstream(String),
}

impl Keys {
    pub fn new(upstreams: Upstreams) -> Keys {
        let upstreams = upstreams.into_iter();
        Keys {
            upstreams: upstreams
                .map(|(name, credential)| (name, Arc::new(credential)))
                .collect(),
            known: RwLock::default(),
            spending: Spending::default(),
            changes: tokio::sync::Mutex::default(),
        }
    }

    pub fn spending(&self) -> &Spending {
        &self.spending
    }

    fn all(&self) -> Vec<Arc<Key>> {
        let mut all: Vec<_> = self.known.read().values().cloned().collect();
        all.sort_by_key(|key| key.issued.id);
        all
    }
}

impl Engine {
    /// Whether callers present keys that we issued.
    pub fn issues_keys(&self) -> bool {
        self.keys.is_some()
    }

    /// Who presents this: their own provider's key or, where we issue keys, one of
    /// those.
    ///
    /// # Errors
    /// For a key that we did not issue, or that is not good any more.
    pub fn identify(&self, presented: Credential) -> Result<Caller, KeyRefused> {
        let Some(keys) = &self.keys else {
            return Ok(self.caller(presented));
        };
        // Whatever is presented is looked up by a keyed fingerprint, which nobody can
        // compute who would search by the time that it takes.
        let print = self.print_of(presented_key(&presented).unwrap_or_default());
        let key = keys.known.read().get(&print).cloned();
        let key = key.ok_or(KeyRefused::Unknown)?;
        match key.issued.standing(self.now()) {
            Standing::Active => {}
            Standing::Expired(at) => return Err(KeyRefused::Expired(at)),
            Standing::Revoked(at) => return Err(KeyRefused::Revoked(at)),
        }
        let upstream = &key.issued.upstream;
        let Some(credential) = keys.upstreams.get(upstream) else {
            return Err(KeyRefused::NoUpstream(upstream.clone()));
        };
        let credential = at_work(credential, &presented);
        Ok(Caller {
            tenant: key.tenant,
            credential: self.credential_id(key.tenant, upstream, &credential),
            presented: Arc::new(credential),
            key: Some(key),
        })
    }

    /// Takes one call out of what the caller's key may make a minute, or says when there
    /// is one.
    pub fn take_turn(&self, caller: &Caller) -> Result<(), Duration> {
        let bucket = caller.key.as_ref().and_then(|key| key.bucket.as_ref());
        bucket.map_or(Ok(()), |bucket| bucket.lock().take(self.now()))
    }

    /// The tenant of a name. Nobody's own key can have the same fingerprint: that is
    /// made in another domain.
    fn tenant_named(&self, name: &str) -> TenantId {
        TenantId(self.vault.fingerprint("issued tenant", &[name.as_bytes()]))
    }

    /// Who goes by this name; none where keys are not issued here, or none for it.
    pub fn tenant_called(&self, name: &str) -> Option<TenantId> {
        let known = self.keys.as_ref()?.known.read();
        let key = known.values().find(|key| key.issued.tenant == name);
        key.map(|key| key.tenant)
    }

    /// The names of those that keys were issued for; none where keys are not issued.
    pub fn tenant_names(&self) -> HashMap<TenantId, String> {
        let Some(keys) = &self.keys else {
            return HashMap::new();
        };
        let known = keys.known.read();
        let named = known
            .values()
            .map(|key| (key.tenant, key.issued.tenant.clone()));
        named.collect()
    }

    fn print_of(&self, key: &str) -> KeyPrint {
        KeyPrint(self.vault.fingerprint("issued key", &[key.as_bytes()]))
    }

    /// A tenant's way to an upstream, whatever key is there: work goes on with another
    /// one. Two tenants are two, so that neither's refusals and files are the other's;
    /// what their organization bears is learned together all the same.
    fn credential_id(
        &self,
        tenant: TenantId,
        upstream: &str,
        at_work: &Credential,
    ) -> CredentialId {
        let mut parts: Vec<&[u8]> = vec![&tenant.0, upstream.as_bytes()];
        for (name, value) in &at_work.headers {
            if !is_the_upstream_s(name) {
                parts.extend([name.as_bytes(), value.as_bytes()]);
            }
        }
        parts.extend(at_work.query.as_ref().map(|query| query.as_bytes()));
        CredentialId(self.vault.fingerprint("issued credential", &parts))
    }

    /// Reads the keys back.
    pub(super) async fn recall_keys(&self) -> Result<(), StoreError> {
        let Some(keys) = &self.keys else {
            return Ok(());
        };
        for issued in self.store.issued().await? {
            let key = self.key_of(issued);
            if !keys.upstreams.contains_key(&key.issued.upstream) {
                let (id, upstream) = (key.issued.id, &key.issued.upstream);
                tracing::warn!(key = %id, upstream, "a key was issued for an upstream that [auth.upstream] does not name: its calls are refused");
            }
            keys.known.write().insert(key.issued.print, Arc::new(key));
        }
        Ok(())
    }

    /// What their tenants have spent this month, and what works for them from here on.
    pub(super) async fn recall_spending(&self) -> Result<(), StoreError> {
        let Some(keys) = &self.keys else {
            return Ok(());
        };
        for tenant in keys.all().into_iter().map(|key| key.tenant) {
            self.count_spending(keys, tenant).await?;
        }
        self.seal_upstreams_anew(keys).await
    }

    fn key_of(&self, issued: IssuedKey) -> Key {
        let now = self.now();
        let bucket = issued
            .requests_per_minute
            .map(|rate| Bucket::new(rate, now));
        Key {
            tenant: self.tenant_named(&issued.tenant),
            bucket: bucket.map(|bucket| Arc::new(Mutex::new(bucket))),
            issued,
        }
    }

    /// What waits of issued keys' work goes on with the upstreams' keys as they are in
    /// the environment today.
    async fn seal_upstreams_anew(&self, keys: &Keys) -> Result<(), StoreError> {
        let mut credentials = Vec::new();
        for key in keys.all() {
            for id in self.credentials_of(key.tenant) {
                let Some(sealed) = self.store.credential(id).await? else {
                    continue;
                };
                let Ok(stored) = self.vault.open(id, &sealed) else {
                    continue;
                };
                // Whose it is, is in its id.
                let of_it = keys.upstreams.iter().find_map(|(name, upstream)| {
                    let today = at_work(upstream, &stored);
                    (self.credential_id(key.tenant, name, &today) == id).then_some(today)
                });
                match of_it {
                    Some(today) if today != stored => {
                        let sealed = self.vault.seal(id, &today);
                        credentials.push((id, today, sealed));
                    }
                    Some(_) => {}
                    None => {
                        tracing::warn!(credential = %id, "work waits for an upstream that [auth.upstream] does not name: it goes on with the key that it began with");
                    }
                }
            }
        }
        if credentials.is_empty() {
            return Ok(());
        }
        tracing::info!(
            credentials = credentials.len(),
            "an upstream has another key: what waits goes on with it"
        );
        let sealed = credentials.iter();
        let moving = TenantMove {
            keys: Vec::new(),
            credentials: sealed
                .map(|(id, _, sealed)| (*id, sealed.clone()))
                .collect(),
        };
        self.store.move_tenant(moving).await?;
        for (id, today, sealed) in credentials {
            self.credentials.replace(id, today, sealed);
        }
        Ok(())
    }
}

/// Headers that the upstream's replace, and that no caller's ever reach it by.
pub const REPLACED: [&str; 4] = [
    "authorization",
    "api-key",
    "openai-organization",
    "openai-project",
];

fn is_the_upstream_s(name: &str) -> bool {
    REPLACED.contains(&name)
}

/// The upstream's credential with what the call itself asks for.
fn at_work(upstream: &Credential, presented: &Credential) -> Credential {
    let asked = presented.headers.iter();
    let asked = asked.filter(|(name, _)| !is_the_upstream_s(name));
    Credential {
        headers: upstream.headers.iter().chain(asked).cloned().collect(),
        query: presented.query.clone(),
    }
}

/// The key as the caller presents it: as a bearer or, as Azure's SDK does, in `api-key`.
fn presented_key(presented: &Credential) -> Option<&str> {
    let of = |wanted: &str| {
        let mut headers = presented.headers.iter();
        let found = headers.find(|(name, _)| name == wanted);
        found.map(|(_, value)| value.trim())
    };
    let bearer = of("authorization").and_then(|value| {
        let (scheme, key) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
    });
    bearer.or_else(|| of("api-key"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credential(headers: &[(&str, &str)]) -> Credential {
        Credential {
            headers: headers
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            query: Some("api-version=v1".into()),
        }
    }

    #[test]
    fn the_key_is_a_bearer_or_an_api_key() {
        for (headers, expected) in [
            (&[("authorization", "Bearer ofp_1")][..], Some("ofp_1")),
            (&[("authorization", "bearer  ofp_1 ")], Some("ofp_1")),
            (&[("api-key", "ofp_1")], Some("ofp_1")),
            (
                &[("authorization", "Bearer"), ("api-key", "ofp_1")],
                Some("ofp_1"),
            ),
            (
                &[("authorization", "Bearer ofp_1"), ("api-key", "x")],
                Some("ofp_1"),
            ),
            (&[("authorization", "Basic ofp_1")], None),
            (&[("authorization", "ofp_1")], None),
            (&[("openai-project", "ofp_1")], None),
            (&[], None),
        ] {
            assert_eq!(presented_key(&credential(headers)), expected, "{headers:?}");
        }
    }

    #[test]
    fn the_upstream_s_headers_are_put_in_place_of_the_caller_s() {
        let upstream = credential(&[("authorization", "Bearer sk"), ("openai-project", "ours")]);
        let presented = credential(&[
            ("authorization", "Bearer ofp_1"),
            ("api-key", "ofp_1"),
            ("openai-organization", "theirs"),
            ("openai-project", "theirs"),
            ("openai-beta", "x=v1"),
        ]);
        let expected = credential(&[
            ("authorization", "Bearer sk"),
            ("openai-project", "ours"),
            ("openai-beta", "x=v1"),
        ]);
        assert_eq!(at_work(&upstream, &presented), expected);
    }
}
