//! What is known of the scopes, to be told.

use std::time::Duration;

use crate::{
    engine::{
        Believed, Engine, Turnaround,
        scope::{Owner, ScopeKey},
    },
    model::{id::CredentialId, time::Timestamp},
};

/// What a provider limits together, as far as we have seen it.
#[derive(Clone, Debug, PartialEq)]
pub struct LiveScope {
    /// None until a reply has named it; then `credential` is none.
    pub organization: Option<String>,
    pub credential: Option<CredentialId>,
    pub model: String,
    /// Calls that it bears at a time.
    pub limit: u32,
    pub in_flight: u32,
    /// The provider asked for silence until then.
    pub paused_until: Option<Timestamp>,
    /// What a call takes, as seen of late.
    pub latency: Duration,
    /// Calls a second that it can answer in the long run.
    pub capacity: f64,
}

impl Engine {
    /// How many ordinary calls a second each scope bears, as the plans reckon with it.
    pub(in crate::engine) fn call_rates(&self) -> Vec<(ScopeKey, Turnaround)> {
        let now = self.now();
        let prior = self.scopes.fresh_rate(now);
        let rates = self.scopes.all().into_iter().map(|(key, scope)| {
            let rate = Turnaround {
                owner: key.owner.clone(),
                model: key.model.clone(),
                what: "calls",
                seen: scope.seen(now),
                believed: Believed::Rate {
                    learned: scope.calls(now),
                    prior,
                },
            };
            (key, rate)
        });
        rates.collect()
    }

    /// The scopes that live calls were made in of late, by owner and model.
    pub fn live_scopes(&self) -> Vec<LiveScope> {
        let now = self.now();
        let mut scopes = self.scopes.all();
        scopes.sort_by(|(a, _), (b, _)| a.cmp(b));
        let scopes = scopes.into_iter().map(|(key, scope)| {
            let (organization, credential) = match key.owner {
                Owner::Organization(name) => (Some(name.to_string()), None),
                Owner::Credential(id) => (None, Some(id)),
            };
            let paused_until = scope.paused_until();
            LiveScope {
                organization,
                credential,
                model: key.model.to_string(),
                limit: scope.limit(),
                in_flight: scope.in_flight(),
                paused_until: (paused_until > now).then_some(paused_until),
                latency: scope.latency(now),
                capacity: scope.calls(now),
            }
        });
        scopes.collect()
    }
}
