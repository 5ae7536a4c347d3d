//! What was paid and what it would have cost. Pure over records; integer money.

mod estimate;
mod prices;
mod usage;

pub use estimate::{expected, expected_of};
pub use prices::{BadPrices, Prices, Quote, litellm, undated};
pub use usage::{Metered, Tier, meter, meter_stream};

use crate::model::{
    attempt::Attempt,
    ledger::{LedgerKey, LedgerRow, Slack},
    money::Usd,
    request::{Outcome, Request, State},
};

pub fn key(request: &Request, outcome: &Outcome) -> LedgerKey {
    LedgerKey {
        tenant: request.key.tenant,
        hour: outcome.finished.as_hours(),
        lane: outcome.source.lane(),
        model: request.model.clone(),
        tag: request.tag.clone(),
    }
}

/// What one ending adds to the ledger. `reserved` is what was reckoned with where
/// the answer is a rescue, and `reckoned` what it may have cost where its price is not
/// known.
pub fn ending(
    request: &Request,
    outcome: &Outcome,
    reserved: Option<Usd>,
    reckoned: Usd,
) -> LedgerRow {
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
        rescue_paid: rescue_paid(outcome, reserved),
        reckoned,
        slack: match answered {
            true => Slack::of(request.deadline, outcome.finished),
            false => Slack::default(),
        },
        ..LedgerRow::default()
    }
}

/// What an answer adds that came when its request had ended: money for nothing.
/// `twice` where the request was already answered by a provider.
pub fn late_answer(
    outcome: &Outcome,
    twice: bool,
    reserved: Option<Usd>,
    reckoned: Usd,
) -> LedgerRow {
    LedgerRow {
        paid_twice: u64::from(twice),
        usage: outcome.usage,
        paid: outcome.bill.unwrap_or_default().paid,
        rescue_paid: rescue_paid(outcome, reserved),
        reckoned,
        ..LedgerRow::default()
    }
}

/// A live call that nobody saw end.
pub fn unaccounted(attempt: &Attempt) -> LedgerRow {
    LedgerRow {
        unaccounted: 1,
        rescue_paid: attempt.reserved.unwrap_or_default(),
        reckoned: attempt.most.unwrap_or_default(),
        ..LedgerRow::default()
    }
}

/// What an answer costs the rescue budget: its bill, or what was reckoned with
/// where its model has no price. Errors are not billed.
fn rescue_paid(outcome: &Outcome, reserved: Option<Usd>) -> Usd {
    match (reserved, outcome.state) {
        (Some(reserved), State::Succeeded) => outcome.bill.map_or(reserved, |bill| bill.paid),
        _ => Usd::ZERO,
    }
}
