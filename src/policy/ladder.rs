//! The lanes that a model on an upstream offers: what each costs beside the
//! ordinary call, how long it takes until more is known, and where it applies.

use std::time::Duration;

use serde::Deserialize;

use crate::model::{attempt::Lane, endpoint::Endpoint, pattern::matches, time::human};

use super::turnaround::Prior;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    pub batch: Offer,
    pub flex: Offer,
    #[serde(rename = "background-8h")]
    pub background_8h: Offer,
    #[serde(rename = "background-2h")]
    pub background_2h: Offer,
    /// Background answers are kept at the provider: whether that is agreed to
    /// where a call does not say `store: true` itself.
    pub background_may_store: bool,
}

/// One lane.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Offer {
    /// Models that have it; a `*` at the end stands for any rest.
    pub models: Vec<String>,
    /// Paths that have it; none means all that may be deferred.
    pub endpoints: Vec<String>,
    /// As a share of the standard price, for choosing. Bills go by the prices.
    pub price: f64,
    /// The provider promises an answer, or an end, within it.
    #[serde(with = "human")]
    pub guarantee: Duration,
    #[serde(with = "human")]
    pub median: Duration,
    #[serde(with = "human")]
    pub p90: Duration,
    /// The share that never ends in time.
    pub never: f64,
    /// The share that is refused for want of capacity, unbilled.
    pub refused: f64,
}

impl Offer {
    fn applies(&self, model: &str, endpoint: Endpoint) -> bool {
        let here =
            self.endpoints.is_empty() || self.endpoints.iter().any(|path| path == endpoint.path());
        here && self.models.iter().any(|pattern| matches(pattern, model))
    }

    /// What is believed of its answers before any was seen.
    pub fn prior(&self) -> Prior {
        Prior {
            median: self.median,
            p90: self.p90,
            never: self.never,
        }
    }
}

impl Settings {
    pub fn offer(&self, lane: Lane) -> Option<&Offer> {
        match lane {
            Lane::Batch => Some(&self.batch),
            Lane::Flex => Some(&self.flex),
            Lane::Background8h => Some(&self.background_8h),
            Lane::Background2h => Some(&self.background_2h),
            Lane::Standard => None,
        }
    }

    /// The lanes below an ordinary call that this kind of call has. Background
    /// answers are stored at the provider, and only with consent: the call's own
    /// word in `store` goes before ours.
    pub fn lanes(&self, model: &str, endpoint: Endpoint, store: Option<bool>) -> Vec<Lane> {
        let may_store = store.unwrap_or(self.background_may_store);
        let offered = |lane: &Lane| {
            let stores = matches!(lane, Lane::Background8h | Lane::Background2h);
            self.offer(*lane)
                .is_some_and(|offer| offer.applies(model, endpoint))
                && (!stores || may_store)
        };
        Lane::ALL.into_iter().filter(offered).collect()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn offer(models: &[&str], endpoints: &[Endpoint]) -> Offer {
        Offer {
            models: models.iter().map(ToString::to_string).collect(),
            endpoints: endpoints.iter().map(|e| e.path().to_owned()).collect(),
            price: 0.5,
            guarantee: Duration::from_secs(86_400),
            median: Duration::from_secs(420),
            p90: Duration::from_secs(3600),
            never: 0.02,
            refused: 0.0,
        }
    }

    #[test]
    fn what_is_offered_where() {
        use Lane::{Background2h, Background8h, Batch, Flex};
        let settings = Settings {
            batch: offer(&["*"], &[]),
            flex: offer(
                &["o3", "gpt-5*"],
                &[Endpoint::ChatCompletions, Endpoint::Responses],
            ),
            background_8h: offer(&["*"], &[Endpoint::Responses]),
            background_2h: offer(&["*"], &[Endpoint::Responses]),
            background_may_store: false,
        };
        let (yes, no) = (Some(true), Some(false));
        for (model, endpoint, store, lanes) in [
            ("gpt-4.1", Endpoint::ChatCompletions, yes, vec![Batch]),
            ("o3", Endpoint::ChatCompletions, yes, vec![Batch, Flex]),
            ("o3-mini", Endpoint::ChatCompletions, yes, vec![Batch]),
            ("gpt-5.4", Endpoint::Embeddings, yes, vec![Batch]),
            (
                "gpt-5.4",
                Endpoint::Responses,
                yes,
                vec![Batch, Flex, Background8h, Background2h],
            ),
            ("gpt-5.4", Endpoint::Responses, no, vec![Batch, Flex]),
            ("gpt-5.4", Endpoint::Responses, None, vec![Batch, Flex]),
        ] {
            let found = settings.lanes(model, endpoint, store);
            assert_eq!(found, lanes, "{model} {endpoint:?} {store:?}");
        }
        let settings = Settings {
            background_may_store: true,
            ..settings
        };
        for (store, count) in [(yes, 3), (None, 3), (no, 1)] {
            let found = settings.lanes("gpt-4.1", Endpoint::Responses, store);
            assert_eq!(found.len(), count, "consent, and {store:?}");
        }
    }
}
