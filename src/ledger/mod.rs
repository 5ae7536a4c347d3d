//! What was paid and what it would have cost. Pure over records; integer money.

mod prices;
mod usage;

pub use prices::{BadPrices, Prices};
pub use usage::{Metered, meter, meter_stream};

use crate::model::{
    ledger::{LedgerKey, LedgerRow},
    request::{Outcome, Request, State},
    time::Timestamp,
};

const DAY_SECS: u64 = 86_400;

pub fn key(request: &Request, outcome: &Outcome) -> LedgerKey {
    LedgerKey {
        tenant: request.key.tenant,
        day: day(outcome.finished),
        lane: outcome.source.lane(),
        model: request.model.clone(),
        tag: request.tag.clone(),
    }
}

/// What one ending adds to the ledger.
pub fn ending(request: &Request, outcome: &Outcome) -> LedgerRow {
    let bill = outcome.bill.unwrap_or_default();
    let answered = outcome.state == State::Succeeded;
    LedgerRow {
        requests: 1,
        succeeded: u64::from(answered),
        late: u64::from(outcome.finished > request.deadline),
        rescued: u64::from(
            outcome
                .source
                .lane()
                .is_some_and(|lane| lane > request.lane),
        ),
        unpriced: u64::from(answered && outcome.bill.is_none()),
        usage: outcome.usage,
        paid: bill.paid,
        standard: bill.standard,
        ..LedgerRow::default()
    }
}

/// What an answer adds that came when its request had ended: money for nothing.
/// `twice` where the request was already answered by a provider.
pub fn late_answer(outcome: &Outcome, twice: bool) -> LedgerRow {
    LedgerRow {
        paid_twice: u64::from(twice),
        usage: outcome.usage,
        paid: outcome.bill.unwrap_or_default().paid,
        ..LedgerRow::default()
    }
}

/// A live call that nobody saw end.
pub fn unaccounted() -> LedgerRow {
    LedgerRow {
        unaccounted: 1,
        ..LedgerRow::default()
    }
}

pub fn day(at: Timestamp) -> u32 {
    u32::try_from(at.as_secs() / DAY_SECS).unwrap_or(u32::MAX)
}
