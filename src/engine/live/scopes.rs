//! What each scope bears, as this process has seen it.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;

use crate::{
    engine::scope::{Account, Merge, Organizations, ScopeKey, regroup},
    model::{id::CredentialId, time::Timestamp},
    policy::{
        demand::Capacity,
        retry::LiveSettings,
        throttle::{Ended, Known, RateLimits, Scope, Ticket, Try, Verdict},
    },
};

/// A scope that nobody has used for so long is forgotten: rescues are rare, and what
/// they may take is promised by what was learned.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(7 * 86_400);

pub struct Scopes {
    organizations: Arc<Organizations>,
    known: Mutex<HashMap<ScopeKey, Scope>>,
    fresh: Scope,
}

impl Scopes {
    pub fn new(settings: &LiveSettings, organizations: Arc<Organizations>) -> Scopes {
        Scopes {
            organizations,
            known: Mutex::default(),
            fresh: Scope::new(settings),
        }
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
        let key = self.organizations.scope(&account);
        let scope = known.entry(key.clone());
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

    /// What the scope bears, where a call takes `live` at worst.
    pub fn capacity(&self, key: &ScopeKey, now: Timestamp, live: Duration) -> Capacity {
        self.look(key, |scope| Capacity {
            rate: scope.calls(now),
            tokens: scope.tokens(),
            live,
        })
    }

    /// Calls a second of a scope of which nothing is known.
    pub fn fresh_rate(&self, now: Timestamp) -> f64 {
        self.fresh.calls(now)
    }

    /// What a call takes in the mean of so many in each scope; of one of which nothing
    /// is known, where there are none.
    pub fn mean_latency(&self, calls: &[(ScopeKey, f64)], now: Timestamp) -> Duration {
        let known = self.known.lock();
        let latency = |key: &ScopeKey| known.get(key).unwrap_or(&self.fresh).latency(now);
        let all: f64 = calls.iter().map(|(_, calls)| calls).sum();
        if all <= 0.0 {
            return self.fresh.latency(now);
        }
        let each = calls.iter().map(|(key, calls)| (latency(key), calls / all));
        each.map(|(latency, share)| latency.mul_f64(share)).sum()
    }

    /// Tokens of output of a call, in the mean, where any was seen.
    pub fn output(&self, key: &ScopeKey) -> Option<u64> {
        self.look(key, Scope::output)
    }

    /// All that are known, in no order.
    pub fn all(&self) -> Vec<(ScopeKey, Scope)> {
        let known = self.known.lock();
        known
            .iter()
            .map(|(key, scope)| (key.clone(), scope.clone()))
            .collect()
    }

    /// What is worth to be written down.
    pub fn known(&self) -> impl Iterator<Item = (ScopeKey, Known)> {
        self.all()
            .into_iter()
            .map(|(key, scope)| (key, scope.known()))
    }

    pub fn recall(&self, key: ScopeKey, now: Timestamp, known: &Known) {
        let mut scope = self.fresh.clone();
        scope.recall(now, known);
        self.known.lock().insert(key, scope);
    }

    pub fn forget_stale(&self, now: Timestamp) {
        let mut known = self.known.lock();
        known.retain(|_, scope| !scope.is_stale(now, FORGOTTEN_AFTER));
    }

    /// What was seen of the credential alone goes to its organization.
    pub fn regroup(&self, credential: CredentialId) {
        regroup(&mut self.known.lock(), credential, &self.organizations);
    }

    fn look<T>(&self, key: &ScopeKey, look: impl FnOnce(&Scope) -> T) -> T {
        let known = self.known.lock();
        look(known.get(key).unwrap_or(&self.fresh))
    }
}

impl Merge for Scope {
    fn merge(&mut self, alone: Scope) {
        self.absorb(alone);
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
    pub fn told(&mut self, now: Timestamp, limits: &RateLimits) {
        let mut known = self.scopes.known.lock();
        let key = self.current(&known);
        if let Some(scope) = known.get_mut(&key) {
            scope.told(now, &self.ticket, limits);
        }
    }

    pub fn ended(mut self, now: Timestamp, how: Ended) {
        self.ended = how;
        self.now = now;
    }

    /// The scope that the call counts in: it may have become known meanwhile.
    fn current(&self, known: &HashMap<ScopeKey, Scope>) -> ScopeKey {
        match known.contains_key(&self.key) {
            true => self.key.clone(),
            false => self.scopes.organizations.scope(&self.account),
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut known = self.scopes.known.lock();
        let key = self.current(&known);
        if let Some(scope) = known.get_mut(&key) {
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
        let organizations: Arc<Organizations> = Arc::default();
        let scopes = Arc::new(Scopes::new(&settings(), organizations.clone()));
        let key = |credential| organizations.scope(&account(credential));
        let send = |credential| scopes.send(account(credential), NOW, 9, Try::First);
        let mut one = send(1).unwrap();
        let mut other = send(2).unwrap();
        assert_ne!(key(1), key(2));
        for credential in [1, 2] {
            let account = account(credential);
            assert!(organizations.learn(account.credential, "org-1", NOW));
            scopes.regroup(account.credential);
        }
        one.told(NOW, &RateLimits::default());
        other.told(NOW, &RateLimits::default());
        assert_eq!(key(1), key(2));
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
