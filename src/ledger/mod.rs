//! What was paid and what it would have cost. Pure over records; integer money.

mod estimate;
mod prices;
mod usage;

pub use estimate::{expected, expected_of};
pub use prices::{BadPrices, Prices, Quote, litellm, undated};
pub use usage::{Metered, Tier, meter, meter_framed, meter_stream};

use crate::model::{
    attempt::Attempt,
    ledger::{LedgerKey, LedgerRow, Slack},
    money::Usd,
    request::{Entry, Outcome, Request, State},
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

/// What one ending adds to the ledger. `reserved` is what the rescue budget kept for the
/// answer, and `reckoned` what it may have cost where its price is not known.
pub fn ending(
    request: &Request,
    outcome: &Outcome,
    reserved: Option<Usd>,
    reckoned: Usd,
) -> LedgerRow {
    let bill = outcome.bill.unwrap_or_default();
    let answered = outcome.state == State::Succeeded;
    let rescued = request.entry().is_rescued_in(outcome.source.lane());
    LedgerRow {
        requests: 1,
        succeeded: u64::from(answered),
        late: u64::from(outcome.finished > request.deadline),
        rescued: u64::from(rescued),
        unpriced: u64::from(answered && outcome.bill.is_none()),
        usage: outcome.usage,
        paid: bill.paid,
        standard: bill.standard,
        rescue_paid: rescue_paid(&request.entry(), outcome, reserved),
        reckoned,
        slack: match answered {
            true => Slack::of(request.deadline, outcome.finished),
            false => Slack::default(),
        },
        ..LedgerRow::default()
    }
}

/// What an answer adds that came when its request had ended: money for nothing. `entry`:
/// its request, where anything is known of that; `twice` where another answer was paid.
pub fn late_answer(
    entry: Option<&Entry>,
    outcome: &Outcome,
    twice: bool,
    reserved: Option<Usd>,
    reckoned: Usd,
) -> LedgerRow {
    let rescue_paid = entry.map(|entry| rescue_paid(entry, outcome, reserved));
    LedgerRow {
        paid_twice: u64::from(twice),
        usage: outcome.usage,
        paid: outcome.bill.unwrap_or_default().paid,
        rescue_paid: rescue_paid.unwrap_or_default(),
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

/// What a rescue from a batch cost: its bill, or what the budget kept for it where its
/// price is not known. Errors are not billed. What was never in a batch has no cheap lane
/// to go back to: no budget could stop it, and so none is used up by it.
fn rescue_paid(entry: &Entry, outcome: &Outcome, reserved: Option<Usd>) -> Usd {
    match outcome.bill {
        _ if !(entry.is_rescue() && entry.is_rescued_in(outcome.source.lane())) => Usd::ZERO,
        Some(bill) => bill.paid,
        None if outcome.state == State::Succeeded => reserved.unwrap_or_default(),
        None => Usd::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::{
        attempt::Lane,
        id::{DestinationId, RequestId, RequestKey, TenantId},
        request::{Bill, Bucket, Cohort, Framing, Guarantee, OnLate, Source, Usage},
        time::Timestamp,
    };

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    fn entry(on_late: OnLate, lane: Lane) -> Entry {
        Entry {
            key: RequestKey {
                tenant: TenantId([1; 16]),
                id: RequestId::new(NOW, 0),
            },
            cohort: Cohort {
                destination: DestinationId([1; 16]),
                on_late,
                guarantee: Guarantee::Firm,
                bucket: Bucket::of(NOW, Duration::from_secs(1)),
            },
            lane,
            deadline: NOW,
            line_bytes: 1,
            inputs: 1,
        }
    }

    fn answered(state: State, lane: Lane, paid: Option<i128>) -> Outcome {
        let paid = paid.map(Usd::from_pico);
        Outcome {
            state,
            status: 200,
            finished: NOW,
            source: Source::Live(lane),
            framing: Framing::Json,
            reason: String::new(),
            provider_request: None,
            usage: Usage::default(),
            bill: paid.map(|paid| Bill {
                paid,
                standard: paid,
            }),
        }
    }

    #[test]
    fn a_late_answer_was_a_rescue_where_it_was_to_be_on_time() {
        use {Lane as L, OnLate as O, State as S};
        for (planned, answer, reserved, rescue_paid) in [
            (
                Some((O::Rescue, L::Batch)),
                (S::Succeeded, L::Standard, Some(7)),
                None,
                7,
            ),
            // What it cost, and not what was kept for it.
            (
                Some((O::Rescue, L::Batch)),
                (S::Succeeded, L::Flex, Some(7)),
                Some(9),
                7,
            ),
            (
                Some((O::Rescue, L::Flex)),
                (S::Succeeded, L::Standard, Some(7)),
                None,
                0,
            ),
            (
                Some((O::Rescue, L::Flex)),
                (S::Succeeded, L::Flex, Some(7)),
                None,
                0,
            ),
            (
                Some((O::Rescue, L::Standard)),
                (S::Succeeded, L::Standard, Some(7)),
                None,
                0,
            ),
            (
                Some((O::Wait, L::Batch)),
                (S::Succeeded, L::Standard, Some(7)),
                None,
                0,
            ),
            (
                Some((O::Fail, L::Batch)),
                (S::Succeeded, L::Standard, Some(7)),
                None,
                0,
            ),
            // Without a price it counts as what was kept.
            (
                Some((O::Rescue, L::Batch)),
                (S::Succeeded, L::Standard, None),
                Some(9),
                9,
            ),
            (
                Some((O::Rescue, L::Batch)),
                (S::Succeeded, L::Standard, None),
                None,
                0,
            ),
            (
                Some((O::Rescue, L::Batch)),
                (S::Failed, L::Standard, None),
                Some(9),
                0,
            ),
            (None, (S::Succeeded, L::Batch, Some(7)), None, 0),
        ] {
            let entry = planned.map(|(on_late, lane)| entry(on_late, lane));
            let (state, lane, paid) = answer;
            let outcome = answered(state, lane, paid);
            let reserved = reserved.map(Usd::from_pico);
            let row = late_answer(entry.as_ref(), &outcome, false, reserved, Usd::ZERO);
            let told = row.rescue_paid.as_pico();
            assert_eq!(told, rescue_paid, "{planned:?} {answer:?} {reserved:?}");
            assert_eq!(row.paid.as_pico(), paid.unwrap_or_default());
        }
    }
}
