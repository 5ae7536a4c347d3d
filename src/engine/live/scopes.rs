//! What providers limit together, as this process has seen it: an organization
//! and a model. Until a reply has named its organization, a credential counts as
//! one of its own.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;

use crate::{
    model::{id::CredentialId, time::Timestamp},
    policy::{
        retry::LiveSettings,
        throttle::{Ended, RateLimits, Scope, Ticket, Try, Verdict},
    },
};

/// On whose account calls are made, and of which model.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Account {
    pub credential: CredentialId,
    pub model: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ScopeKey {
    pub owner: Owner,
    pub model: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    Organization(Arc<str>),
    Credential(CredentialId),
}

/// A scope that nobody has used for so long is forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(3600);

pub struct Scopes {
    known: Mutex<Known>,
    fresh: Scope,
}

#[derive(Default)]
struct Known {
    organizations: HashMap<CredentialId, Arc<str>>,
    scopes: HashMap<ScopeKey, Scope>,
}

impl Scopes {
    pub fn new(settings: &LiveSettings) -> Scopes {
        Scopes {
            known: Mutex::default(),
            fresh: Scope::new(settings),
        }
    }

    pub fn key(&self, account: &Account) -> ScopeKey {
        self.known.lock().key(account)
    }

    /// Whether a first, small call may go, and how many of them.
    pub fn room(&self, key: &ScopeKey, now: Timestamp) -> (Verdict, u32) {
        self.look(key, |scope| {
            (scope.may_send(now, 0, Try::First), scope.room(now))
        })
    }

    /// Counts a call in, where it may go.
    pub fn send(
        self: &Arc<Self>,
        account: Account,
        now: Timestamp,
        input: u64,
        attempt: Try,
    ) -> Result<Permit, Verdict> {
        let mut known = self.known.lock();
        let key = known.key(&account);
        let scope = known.scopes.entry(key.clone());
        let scope = scope.or_insert_with(|| self.fresh.clone());
        match scope.may_send(now, input, attempt) {
            Verdict::Go => Ok(Permit {
                ticket: scope.send(now, input, attempt),
                scopes: self.clone(),
                account,
                key,
                ended: Ended::Failed,
                now,
            }),
            verdict => Err(verdict),
        }
    }

    /// Calls a second that the account's scope bears.
    pub fn capacity(&self, account: &Account, now: Timestamp) -> f64 {
        let key = self.key(account);
        self.look(&key, |scope| scope.capacity(now))
    }

    /// Tokens of output of a call, in the mean, where any was seen.
    pub fn output(&self, account: &Account) -> Option<u64> {
        let key = self.key(account);
        self.look(&key, Scope::output)
    }

    /// All that are known, in no order.
    pub fn all(&self) -> Vec<(ScopeKey, Scope)> {
        let known = self.known.lock();
        let scopes = known.scopes.iter();
        scopes
            .map(|(key, scope)| (key.clone(), scope.clone()))
            .collect()
    }

    pub fn forget_stale(&self, now: Timestamp) {
        let mut known = self.known.lock();
        known
            .scopes
            .retain(|_, scope| !scope.is_stale(now, FORGOTTEN_AFTER));
    }

    pub fn forget(&self, credential: CredentialId) {
        self.known.lock().organizations.remove(&credential);
    }

    fn look<T>(&self, key: &ScopeKey, look: impl FnOnce(&Scope) -> T) -> T {
        let known = self.known.lock();
        look(known.scopes.get(key).unwrap_or(&self.fresh))
    }
}

impl Known {
    fn key(&self, account: &Account) -> ScopeKey {
        let credential = account.credential;
        let organization = self.organizations.get(&credential).cloned();
        ScopeKey {
            owner: organization.map_or(Owner::Credential(credential), Owner::Organization),
            model: account.model.clone(),
        }
    }

    /// What was learned of the credential alone goes to its organization.
    fn learn(&mut self, credential: CredentialId, organization: &str) {
        if self.organizations.contains_key(&credential) {
            return;
        }
        let organization: Arc<str> = organization.into();
        self.organizations.insert(credential, organization.clone());
        let alone = Owner::Credential(credential);
        let moving: Vec<ScopeKey> = self
            .scopes
            .keys()
            .filter(|key| key.owner == alone)
            .cloned()
            .collect();
        for key in moving {
            let Some(scope) = self.scopes.remove(&key) else {
                continue;
            };
            let key = ScopeKey {
                owner: Owner::Organization(organization.clone()),
                ..key
            };
            match self.scopes.get_mut(&key) {
                Some(together) => together.absorb(scope),
                None => {
                    self.scopes.insert(key, scope);
                }
            }
        }
    }
}

/// A call that is on its way; it counts until this is dropped.
pub struct Permit {
    scopes: Arc<Scopes>,
    account: Account,
    key: ScopeKey,
    ticket: Ticket,
    ended: Ended,
    now: Timestamp,
}

impl Permit {
    /// What a reply tells besides its answer.
    pub fn told(&mut self, now: Timestamp, limits: &RateLimits, organization: Option<&str>) {
        let mut known = self.scopes.known.lock();
        if let Some(organization) = organization {
            known.learn(self.account.credential, organization);
        }
        let key = self.current(&known);
        if let Some(scope) = known.scopes.get_mut(&key) {
            scope.told(now, &self.ticket, limits);
        }
    }

    pub fn ended(mut self, now: Timestamp, how: Ended) {
        self.ended = how;
        self.now = now;
    }

    /// The scope that the call counts in: it may have become known meanwhile.
    fn current(&self, known: &Known) -> ScopeKey {
        match known.scopes.contains_key(&self.key) {
            true => self.key.clone(),
            false => known.key(&self.account),
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut known = self.scopes.known.lock();
        let key = self.current(&known);
        if let Some(scope) = known.scopes.get_mut(&key) {
            scope.ended(self.now, self.ticket, self.ended);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::throttle::tests::settings;

    const NOW: Timestamp = Timestamp::from_secs(1_000_000);

    fn account(credential: u8) -> Account {
        Account {
            credential: CredentialId([credential; 16]),
            model: "m".into(),
        }
    }

    #[test]
    fn credentials_of_one_organization_are_one_scope_once_it_is_known() {
        let scopes = Arc::new(Scopes::new(&settings()));
        let send = |credential| scopes.send(account(credential), NOW, 9, Try::First);
        let mut one = send(1).unwrap();
        let mut other = send(2).unwrap();
        assert_ne!(scopes.key(&account(1)), scopes.key(&account(2)));
        let nothing = RateLimits::default();
        one.told(NOW, &nothing, Some("org-1"));
        other.told(NOW, &nothing, Some("org-1"));
        assert_eq!(scopes.key(&account(1)), scopes.key(&account(2)));
        let in_flight = || {
            scopes
                .all()
                .iter()
                .map(|(_, scope)| scope.in_flight())
                .sum()
        };
        assert_eq!((scopes.all().len(), in_flight()), (1, 2u32));

        let pause = Some(Duration::from_secs(9));
        one.ended(NOW, Ended::Overloaded { pause });
        assert!(matches!(send(2), Err(Verdict::Wait { .. })));
        drop(other);
        assert_eq!(in_flight(), 0);
        scopes.forget_stale(NOW + FORGOTTEN_AFTER * 2);
        assert_eq!(scopes.all().len(), 0);
    }
}
