//! What is counted of all that is done, and how it is told to Prometheus.
//!
//! It goes one way: engine and edge count, a scrape reads. Nothing is global: `app`
//! makes one [`Metrics`] and hands it round. docs/metrics.md has a row for each metric.
//!
//! **The number of series has a bound.** A label is one of the few words that stand in
//! this program, or the name of a model that has a price, of which only so many are told
//! apart (`metrics::models`). No tenant, tag or id, and nothing else that callers think up.

mod batches;
mod gen_ai;
mod models;
mod money;
mod passthrough;
mod process;
mod provider;
mod requests;
mod state;
mod timing;
mod webhooks;

use std::sync::Arc;

use prometheus_client::{
    encoding::{prometheus_text, text},
    registry::Registry,
};

pub use self::{
    batches::{BatchEnd, Batches},
    gen_ai::GenAi,
    models::{Model, Models},
    money::Money,
    passthrough::{Passed, Passing, Sending, Tally},
    provider::{CountedProvider, class, failure},
    requests::{Ended, Requests},
    state::State,
    webhooks::{CountedDelivery, Webhooks},
};

/// Everything that is counted.
pub struct Metrics {
    registry: Registry,
    pub requests: Requests,
    pub money: Money,
    pub gen_ai: GenAi,
    pub batches: Batches,
    pub provider: provider::Calls,
    pub webhooks: Webhooks,
    pub models: Models,
}

/// How a scrape wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' text exposition format, version 0.0.4.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Metrics {
    /// `passed` is where calls are counted that pass straight through.
    pub fn new(passed: &Arc<Passed>) -> Metrics {
        let mut registry = Registry::default();
        passed.register(&mut registry);
        Metrics {
            requests: Requests::new(&mut registry),
            money: Money::new(&mut registry),
            gen_ai: GenAi::new(&mut registry),
            batches: Batches::new(&mut registry),
            provider: provider::Calls::new(&mut registry),
            webhooks: Webhooks::new(&mut registry),
            models: Models::default(),
            registry,
        }
    }

    /// All of it, with what is so at this moment.
    pub fn tell(&self, state: State, format: Format) -> String {
        let mut now = Registry::default();
        state.register(&mut now);
        process::register(&mut now);
        let mut told = String::new();
        let written = [&self.registry, &now]
            .into_iter()
            .try_for_each(|one| match format {
                Format::Text => prometheus_text::encode(&mut told, one),
                Format::OpenMetrics => text::encode_registry(&mut told, one),
            });
        let ended = match format {
            Format::Text => Ok(()),
            Format::OpenMetrics => text::encode_eof(&mut told),
        };
        debug_assert!(
            written.and(ended).is_ok(),
            "writing to a String cannot fail"
        );
        told
    }
}

impl Format {
    /// By the scrape's `Accept`: OpenMetrics where it is named, and not refused.
    pub fn accepted(accept: &str) -> Format {
        let wanted = accept.split(',').any(|range| {
            let mut parts = range.split(';').map(str::trim);
            let named = parts.next() == Some("application/openmetrics-text");
            named && !parts.any(|part| matches!(part, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"))
        });
        match wanted {
            true => Format::OpenMetrics,
            false => Format::Text,
        }
    }

    pub const fn content_type(self) -> &'static str {
        match self {
            Format::Text => prometheus_text::CONTENT_TYPE,
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrape_gets_what_it_asks_for() {
        // As Prometheus 2.42 and 3 ask, and as curl does.
        let prometheus = "application/openmetrics-text;version=1.0.0,\
                          application/openmetrics-text;version=0.0.1;q=0.75,\
                          text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        for (accept, format) in [
            (prometheus, Format::OpenMetrics),
            ("text/plain;version=0.0.4;q=0.5,*/*;q=0.1", Format::Text),
            ("*/*", Format::Text),
            ("", Format::Text),
            ("application/openmetrics-text; q=0", Format::Text),
        ] {
            assert_eq!(Format::accepted(accept), format, "{accept}");
        }
    }
}
