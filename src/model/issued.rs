//! Keys that we issue to callers, so that the provider's own key stays with the server.
//! The key's text is known to its holder alone; here is what it opens, and until when.

use serde::{Deserialize, Serialize};

use super::{
    id::{KeyId, KeyPrint},
    money::Usd,
    pattern::matches,
    time::Timestamp,
};

/// What an issued key may do. It never changes but for being revoked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssuedKey {
    pub id: KeyId,
    /// Of the key itself.
    pub print: KeyPrint,
    /// What operators call it.
    pub name: String,
    /// Whose requests it sees. Keys of one tenant see the same.
    pub tenant: String,
    /// Whose key does the work: a name in `[auth.upstream]`.
    pub upstream: String,
    pub created: Timestamp,
    /// It is good until just before this instant.
    pub expires: Option<Timestamp>,
    pub revoked: Option<Timestamp>,
    /// Patterns of the models that it may call; none means all.
    pub models: Vec<String>,
    /// What its tenant may have paid in a calendar month of UTC, this key's calls
    /// included.
    pub monthly_budget: Option<Usd>,
    pub requests_per_minute: Option<u32>,
    /// Whether calls without a deadline pass through.
    pub passthrough: bool,
}

/// Whether a key is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Active,
    Expired(Timestamp),
    Revoked(Timestamp),
}

impl IssuedKey {
    /// A key that was revoked stays so, whether or not it has expired since.
    pub fn standing(&self, now: Timestamp) -> Standing {
        if let Some(at) = self.revoked {
            return Standing::Revoked(at);
        }
        match self.expires {
            Some(at) if at <= now => Standing::Expired(at),
            _ => Standing::Active,
        }
    }

    pub fn allows(&self, model: &str) -> bool {
        self.models.is_empty() || self.models.iter().any(|pattern| matches(pattern, model))
    }
}

#[cfg(test)]
pub mod samples {
    use super::*;

    /// A key without limits.
    pub fn issued(number: u8, created: Timestamp) -> IssuedKey {
        IssuedKey {
            id: KeyId::new(created, u128::from(number) << 64),
            print: KeyPrint([number; 16]),
            name: format!("key {number}"),
            tenant: "acme".into(),
            upstream: "default".into(),
            created,
            expires: None,
            revoked: None,
            models: Vec::new(),
            monthly_budget: None,
            requests_per_minute: None,
            passthrough: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_secs(1_800_000_000 + seconds)
    }

    #[test]
    fn good_until_it_expires_or_is_revoked() {
        use Standing::{Active, Expired, Revoked};
        for (expires, revoked, now, expected) in [
            (None, None, 0, Active),
            (Some(10), None, 9, Active),
            (Some(10), None, 10, Expired(at(10))),
            (Some(10), Some(5), 7, Revoked(at(5))),
            (Some(10), Some(5), 20, Revoked(at(5))),
        ] {
            let key = IssuedKey {
                expires: expires.map(at),
                revoked: revoked.map(at),
                ..samples::issued(1, at(0))
            };
            assert_eq!(key.standing(at(now)), expected, "{expires:?} {revoked:?}");
        }
    }

    #[test]
    fn no_list_of_models_is_no_bound() {
        let with = |models: &[&str]| IssuedKey {
            models: models.iter().map(ToString::to_string).collect(),
            ..samples::issued(1, at(0))
        };
        assert!(with(&[]).allows("anything"));
        let some = with(&["o3", "gpt-5*"]);
        assert!(some.allows("o3") && some.allows("gpt-5.4"));
        assert!(!some.allows("o3-mini") && !some.allows("GPT-5"));
    }
}
