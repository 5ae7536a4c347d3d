//! What a call did cost, and what it is expected to with the deadline.

use std::time::Duration;

use crate::{
    engine::{Engine, scope::ScopeKey},
    ledger::{Metered, Tier},
    model::{attempt::Lane, endpoint::Endpoint, money::Usd, shadow::Estimate},
    policy::{plan::Choice, rescue},
};

/// Expected shares are rounded to whole parts of this.
const MILLION: u32 = 1_000_000;

impl Engine {
    /// None where the ledger would bill nothing by the answer, and of the tiers that no
    /// call with a deadline may be served in.
    pub(super) fn estimate(
        &self,
        scope: &ScopeKey,
        endpoint: Endpoint,
        deadline: Duration,
        metered: &Metered,
    ) -> Option<Estimate> {
        let bill = |lane| {
            let model = metered.model.as_deref()?;
            self.prices.bill_in(model, lane, metered)
        };
        if matches!(metered.tier, Tier::Priority | Tier::Scale) {
            return None;
        }
        let cost = bill(metered.lane(Lane::Standard))?;
        let plan = self.plan(scope, endpoint, None);
        let choice = plan.choose(deadline);
        let cheap = bill(choice.lane)?.paid;
        let price = plan.rung(choice.lane).map_or(1.0, |rung| rung.price);
        Some(Estimate {
            cost: cost.paid,
            expected: expected(&choice, price, cost.standard, cheap),
            rescued_micro: match choice.stay {
                Some(_) => u64::from(micro(choice.standard)),
                None => 0,
            },
            missed_micro: match deadline < plan.live() {
                true => u64::from(MILLION),
                // Time is kept for an ordinary call, but not for the slowest ones.
                false => u64::from(micro(choice.standard * (1.0 - rescue::IN_TIME))),
            },
        })
    }
}

/// In whole picodollars: the plan's shares are rounded to millionths, of which those
/// that end in an ordinary call cost `standard` and the others, double payments
/// included, what the chosen lane bills for these very tokens. The plan reckons with
/// `price`, that of a typical call.
fn expected(choice: &Choice, price: f64, standard: Usd, cheap: Usd) -> Usd {
    let in_lane = (choice.cost - choice.standard).max(0.0) / price.max(f64::EPSILON);
    standard.share(micro(choice.standard), MILLION) + cheap.share(micro(in_lane), MILLION)
}

fn micro(share: f64) -> u32 {
    (share * f64::from(MILLION)).round() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_expected_is_in_whole_picodollars() {
        let choice = |cost, standard| Choice {
            lane: Lane::Batch,
            cost,
            standard,
            stay: None,
        };
        let (standard, cheap) = (Usd::from_pico(1_000_000), Usd::from_pico(500_000));
        for (cost, share, price, cheap, told) in [
            // 2 % rescued, the rest at half the price.
            (0.51, 0.02, 0.5, cheap, 510_000),
            // With one of a hundred paid twice.
            (0.515, 0.02, 0.5, cheap, 515_000),
            // Cached tokens have no discount in this lane: it costs what it costs.
            (0.51, 0.02, 0.5, Usd::from_pico(1_200_000), 1_196_000),
            (1.0, 1.0, 1.0, standard, 1_000_000),
            (0.0, 0.0, 0.0, Usd::ZERO, 0),
        ] {
            let told_now = expected(&choice(cost, share), price, standard, cheap);
            assert_eq!(told_now, Usd::from_pico(told), "{cost} {share}");
        }
    }
}
