//! What a provider limits together, and is learned together: an organization and a
//! model. Providers name a credential's organization in their answers; until one has,
//! the credential counts as an organization of its own.
//!
//! An [`Account`] never changes, its [`ScopeKey`] does when the organization becomes
//! known. So whoever keeps something by scope is asked by account and looks the scope
//! up under its own lock; what it kept of the credential alone goes to the organization
//! by its `regroup`, which is called after the name is known here.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use parking_lot::RwLock;

use crate::{
    model::{
        batch::Batch,
        id::{CredentialId, TenantId},
        request::{Destination, Request},
        time::Timestamp,
    },
    ports::{Learned, LearnedKey, StoreError},
};

use super::Engine;

/// On whose account calls are made, and of which model.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Account {
    pub credential: CredentialId,
    pub model: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ScopeKey {
    pub owner: Owner,
    pub model: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    Organization(Arc<str>),
    Credential(CredentialId),
}

impl From<&Destination> for Account {
    fn from(destination: &Destination) -> Self {
        Account {
            credential: destination.credential,
            model: destination.model.as_str().into(),
        }
    }
}

impl From<&Request> for Account {
    fn from(request: &Request) -> Self {
        Account {
            credential: request.credential,
            model: request.model.as_str().into(),
        }
    }
}

impl From<&Batch> for Account {
    fn from(batch: &Batch) -> Self {
        Account {
            credential: batch.credential,
            model: batch.model.as_str().into(),
        }
    }
}

/// Which credentials are of which organization, as far as the provider has said.
#[derive(Default)]
pub(super) struct Organizations(RwLock<HashMap<CredentialId, Named>>);

struct Named {
    organization: Arc<str>,
    /// When the provider last said so.
    told: Timestamp,
}

/// What an idle credential's organization is remembered for: longer than a model
/// check is believed, so that its next call finds what was learned.
const REMEMBERED: Duration = Duration::from_secs(7 * 86_400);

/// How often it is noted that an organization is still told.
const NOTED_EVERY: Duration = Duration::from_secs(3600);

impl Organizations {
    pub fn owner(&self, credential: CredentialId) -> Owner {
        let named = self.0.read();
        let named = named.get(&credential).map(|it| it.organization.clone());
        named.map_or(Owner::Credential(credential), Owner::Organization)
    }

    pub fn scope(&self, account: &Account) -> ScopeKey {
        ScopeKey {
            owner: self.owner(account.credential),
            model: account.model.clone(),
        }
    }

    /// True where it is news. The first name holds: what was counted for it cannot be
    /// told apart again.
    pub fn learn(&self, credential: CredentialId, organization: &str, now: Timestamp) -> bool {
        // Every answer says it.
        let noted = |named: &Named| named.told + NOTED_EVERY > now;
        if self.0.read().get(&credential).is_some_and(noted) {
            return false;
        }
        let mut known = self.0.write();
        if let Some(named) = known.get_mut(&credential) {
            named.told = now;
            return false;
        }
        let organization = organization.into();
        let named = Named {
            organization,
            told: now,
        };
        known.insert(credential, named);
        true
    }

    /// Forgets the organization of a credential that has no work, a while after it was
    /// last told. True where it was known.
    fn forget(&self, credential: CredentialId, now: Timestamp) -> bool {
        let mut known = self.0.write();
        let stale = known
            .get(&credential)
            .is_some_and(|named| named.told + REMEMBERED <= now);
        stale && known.remove(&credential).is_some()
    }
}

/// What is kept by scope, and comes together where scopes do.
pub(super) trait Merge {
    /// Takes in what was kept of the credential alone.
    fn merge(&mut self, alone: Self);
}

/// Gives what was kept of a credential alone to its organization.
pub(super) fn regroup<T: Merge>(
    kept: &mut HashMap<ScopeKey, T>,
    credential: CredentialId,
    organizations: &Organizations,
) {
    let (alone, owner) = (
        Owner::Credential(credential),
        organizations.owner(credential),
    );
    if owner == alone {
        return;
    }
    let moving: Vec<ScopeKey> = kept
        .keys()
        .filter(|key| key.owner == alone)
        .cloned()
        .collect();
    for key in moving {
        let Some(part) = kept.remove(&key) else {
            continue;
        };
        let key = ScopeKey {
            owner: owner.clone(),
            ..key
        };
        match kept.get_mut(&key) {
            Some(whole) => whole.merge(part),
            None => {
                kept.insert(key, part);
            }
        }
    }
}

/// The same of what is kept by owner alone.
pub(super) fn regroup_owner<T>(
    kept: &mut HashMap<Owner, T>,
    credential: CredentialId,
    organizations: &Organizations,
    merge: impl FnOnce(&mut T, &T),
) {
    let Some(part) = kept.remove(&Owner::Credential(credential)) else {
        return;
    };
    let owner = organizations.owner(credential);
    match kept.get_mut(&owner) {
        Some(whole) => merge(whole, &part),
        None => {
            kept.insert(owner, part);
        }
    }
}

/// The row that names a credential's organization. Nothing that is learned of lanes is
/// called so, and no model is called nothing.
pub(super) const ORGANIZATION: &str = "organization";

impl Engine {
    pub(super) fn scope_of(&self, account: impl Into<Account>) -> ScopeKey {
        self.organizations.scope(&account.into())
    }

    /// An answer of the provider's names the credential's organization: from here on,
    /// what both have learned and promised counts together.
    pub(super) async fn learn_organization(&self, credential: CredentialId, name: &str) {
        let now = self.now();
        if !self.organizations.learn(credential, name, now) {
            return;
        }
        self.summary.lock().regroup(credential, now);
        self.scopes.regroup(credential);
        self.flex_scopes.regroup(credential);
        let half_life = self.settings.rescue.half_life;
        self.turnarounds.regroup(credential, now, half_life);
        self.remake_plans(credential);
        self.signals.rescuer.notify_one();
        let row = Learned {
            key: organization_row(credential),
            known: name.to_owned().into(),
        };
        if let Err(error) = self.store.put_learned(row).await {
            tracing::warn!(%error, "whose a credential is, is not written down");
        }
    }

    /// What is remembered of the organization of a credential that has no work.
    pub(super) async fn forget_organization(
        &self,
        credential: CredentialId,
    ) -> Result<(), StoreError> {
        if self.organizations.forget(credential, self.now()) {
            self.store
                .forget_learned(organization_row(credential))
                .await?;
        }
        Ok(())
    }

    /// Reads the organizations back; returns the owners by the ids that rows of theirs
    /// have.
    pub(super) fn recall_organizations(&self, rows: &[Learned]) -> HashMap<CredentialId, Owner> {
        let mut owners = HashMap::new();
        for Learned { key, known } in rows.iter().filter(|row| row.key.what == ORGANIZATION) {
            let Ok(name) = str::from_utf8(known) else {
                tracing::warn!("whose a credential is, cannot be read");
                continue;
            };
            self.organizations.learn(key.owner, name, self.now());
            let owner = Owner::Organization(name.into());
            owners.insert(self.id_of(&owner), owner);
        }
        owners
    }

    /// Where what is learned of a scope is written down.
    pub(super) fn row_of(&self, scope: &ScopeKey, what: &str) -> LearnedKey {
        LearnedKey {
            owner: self.id_of(&scope.owner),
            model: scope.model.to_string(),
            what: what.into(),
        }
    }

    fn id_of(&self, owner: &Owner) -> CredentialId {
        match owner {
            Owner::Credential(id) => *id,
            Owner::Organization(name) => {
                let parts = [name.as_bytes()];
                CredentialId(self.vault.fingerprint(ORGANIZATION, &parts))
            }
        }
    }

    /// The scopes that a tenant's deferred calls came in.
    pub(super) fn scopes_of(&self, tenant: TenantId) -> HashSet<ScopeKey> {
        let summary = self.summary.lock();
        let destinations = summary.destinations.values();
        let own = destinations.filter(|destination| destination.tenant == tenant);
        let accounts = own.map(Account::from);
        accounts
            .map(|account| self.organizations.scope(&account))
            .collect()
    }
}

fn organization_row(credential: CredentialId) -> LearnedKey {
    LearnedKey {
        owner: credential,
        model: String::new(),
        what: ORGANIZATION.into(),
    }
}
