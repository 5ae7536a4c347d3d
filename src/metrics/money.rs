//! What the ledger's rows add up to since this process began. The ledger is the truth, in
//! integers; these are for rates and alerts.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::{Registry, Unit},
};

use super::requests::{InLane, lane};
use crate::model::{attempt::Lane, ledger::LedgerRow, money::Usd};

type Dollars = Family<InLane, Counter<f64, AtomicU64>>;

pub struct Money {
    paid: Dollars,
    standard: Dollars,
    rescue_paid: Dollars,
    tokens: Family<Tokens, Counter>,
    rescued: Counter,
    paid_twice: Counter,
    unaccounted: Counter,
    unpriced: Counter,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Tokens {
    lane: &'static str,
    r#type: &'static str,
}

impl Money {
    pub fn new(registry: &mut Registry) -> Money {
        let money = Money {
            paid: Family::default(),
            standard: Family::default(),
            rescue_paid: Family::default(),
            tokens: Family::default(),
            rescued: Counter::default(),
            paid_twice: Counter::default(),
            unaccounted: Counter::default(),
            unpriced: Counter::default(),
        };
        let usd = || Unit::Other("usd".to_owned());
        registry.register_with_unit(
            "offpeak_paid",
            "What answers cost, by the lane that gave them",
            usd(),
            money.paid.clone(),
        );
        registry.register_with_unit(
            "offpeak_standard",
            "What the same answers cost at the standard price",
            usd(),
            money.standard.clone(),
        );
        registry.register_with_unit(
            "offpeak_rescue_paid",
            "The part of what was paid that went for rescues, as a rescue budget counts it",
            usd(),
            money.rescue_paid.clone(),
        );
        registry.register(
            "offpeak_tokens",
            "Tokens as the provider counted them; cached ones, and those written to a cache, are \
             among the input",
            money.tokens.clone(),
        );
        registry.register(
            "offpeak_requests_rescued",
            "Requests that were answered further up the ladder than was planned, to be on time",
            money.rescued.clone(),
        );
        registry.register(
            "offpeak_answers_paid_twice",
            "Answers that were billed although their request had another",
            money.paid_twice.clone(),
        );
        registry.register(
            "offpeak_calls_unaccounted",
            "Live calls that nobody saw end, and that may have been billed",
            money.unaccounted.clone(),
        );
        registry.register(
            "offpeak_answers_unpriced",
            "Answers whose price is not known, which are counted in tokens only",
            money.unpriced.clone(),
        );
        for lane in Lane::ALL.map(Lane::as_str) {
            for sums in [&money.paid, &money.standard, &money.rescue_paid] {
                drop(sums.get_or_create(&InLane { lane }));
            }
        }
        money
    }

    /// Counts what is durable in the ledger, once.
    pub fn booked(&self, in_lane: Option<Lane>, row: &LedgerRow) {
        let lane = lane(in_lane);
        for (sums, amount) in [
            (&self.paid, row.paid),
            (&self.standard, row.standard),
            (&self.rescue_paid, row.rescue_paid),
        ] {
            if amount != Usd::ZERO {
                sums.get_or_create(&InLane { lane }).inc_by(dollars(amount));
            }
        }
        for (r#type, count) in [
            ("input", row.usage.input),
            ("cached", row.usage.cached),
            ("cache_write", row.usage.cache_write),
            ("output", row.usage.output),
        ] {
            if count > 0 {
                let tokens = self.tokens.get_or_create(&Tokens { lane, r#type });
                tokens.inc_by(count);
            }
        }
        self.rescued.inc_by(row.rescued);
        self.paid_twice.inc_by(row.paid_twice);
        self.unaccounted.inc_by(row.unaccounted);
        self.unpriced.inc_by(row.unpriced);
    }
}

fn dollars(amount: Usd) -> f64 {
    // Counters only rise.
    amount.as_pico().max(0) as f64 / 1e12
}
