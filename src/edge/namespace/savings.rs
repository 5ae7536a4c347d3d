//! What was paid and what it would have cost: `GET /offpeak/v1/savings`.

use serde::{Serialize, ser::SerializeMap};

use super::{
    sums::{Row, Sum, Sums, by, total},
    view::{Shown, UsageView, day},
};
use crate::{
    engine::BudgetView,
    model::{
        ledger::{LedgerKey, LedgerRow, Slack},
        money::Usd,
        time::Timestamp,
    },
};

/// A tenant's ledger, added up in four ways, and a fifth where it is asked for. Money is decimal US dollars in
/// strings, tokens are integers.
#[derive(Serialize)]
pub struct Savings {
    object: &'static str,
    total: Sums<LedgerRow>,
    by_model: Vec<Row<LedgerRow>>,
    by_tag: Vec<Row<LedgerRow>>,
    by_lane: Vec<Row<LedgerRow>>,
    by_day: Vec<Row<LedgerRow>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    by_hour: Option<Vec<Row<LedgerRow>>>,
    /// Empty where rescues may cost what they cost.
    rescue_budget: Vec<BudgetRow>,
    /// What the counts of every `slack` are counted by.
    slack_bounds_seconds: [i64; Slack::BOUNDS.len()],
    /// What the sums take for granted, in sentences for people.
    assumptions: [&'static str; ASSUMPTIONS.len()],
}

const ASSUMPTIONS: [&str; 4] = [
    "standard_usd prices each answer's own tokens, as the provider counted them, at its \
     model's standard rates: those that it counted as cached at the rate for cached input, \
     and those that it wrote into its cache at the rate for that.",
    "So it takes for granted that a standard call would have found as much in the provider's \
     cache as the answer did. Where it would have found more, saved_usd is too high by the \
     difference; where it would have found less, too low.",
    "An answer whose model has no price is counted in tokens and as unpriced, and in no \
     amount; one that came when its request had another counts in paid_usd alone.",
    "What a provider charges beside its tokens, such as a fee for a web search, is counted \
     nowhere.",
];

/// What rescues may cost in the hour or day that is now.
#[derive(Serialize)]
struct BudgetRow {
    per: &'static str,
    limit_usd: Shown<Usd>,
    spent_usd: Shown<Usd>,
    /// Kept for rescues that are on their way.
    reserved_usd: Shown<Usd>,
    renewed_at: Shown<Timestamp>,
    /// Something did not fit any more, and stays in its cheap lane.
    exhausted: bool,
}

impl From<BudgetView> for BudgetRow {
    fn from(budget: BudgetView) -> Self {
        BudgetRow {
            per: budget.window.as_str(),
            limit_usd: Shown(budget.limit),
            spent_usd: Shown(budget.spent),
            reserved_usd: Shown(budget.reserved),
            renewed_at: Shown(budget.renewed),
            exhausted: budget.exhausted,
        }
    }
}

impl Savings {
    pub fn of(
        ledger: &[(LedgerKey, LedgerRow)],
        by_hour: bool,
        budgets: Vec<BudgetView>,
    ) -> Savings {
        Savings {
            object: "offpeak.savings",
            total: total(ledger),
            by_model: by(ledger, "model", |key| Some(key.model.clone())),
            by_tag: by(ledger, "tag", |key| key.tag.clone()),
            by_lane: by(ledger, "lane", |key| {
                key.lane.map(|lane| lane.as_str().to_owned())
            }),
            by_day: by(ledger, "day", |key| Some(day(key.hour / 24))),
            by_hour: by_hour.then(|| by(ledger, "hour", |key| Some(instant(key.hour).to_string()))),
            rescue_budget: budgets.into_iter().map(BudgetRow::from).collect(),
            slack_bounds_seconds: Slack::BOUNDS,
            assumptions: ASSUMPTIONS,
        }
    }
}

fn instant(hour: u32) -> Timestamp {
    Timestamp::from_secs(u64::from(hour) * 3_600)
}

impl Sum for LedgerRow {
    fn add(&mut self, other: &LedgerRow) {
        LedgerRow::add(self, other);
    }

    fn entries<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        let row = self;
        for (name, count) in [
            ("requests", row.requests),
            ("succeeded", row.succeeded),
            ("late", row.late),
            ("rescued", row.rescued),
            ("paid_twice", row.paid_twice),
            ("unaccounted", row.unaccounted),
            ("unpriced", row.unpriced),
        ] {
            map.serialize_entry(name, &count)?;
        }
        map.serialize_entry("usage", &UsageView::from(row.usage))?;
        map.serialize_entry("paid_usd", &Shown(row.paid))?;
        map.serialize_entry("standard_usd", &Shown(row.standard))?;
        map.serialize_entry("saved_usd", &Shown(row.standard - row.paid))?;
        map.serialize_entry("rescue_paid_usd", &Shown(row.rescue_paid))?;
        map.serialize_entry("slack", row.slack.counts())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        engine::Window,
        model::{attempt::Lane, id::TenantId, request::Usage},
    };

    fn entry(
        hour: u32,
        lane: Option<Lane>,
        tag: Option<&str>,
        paid: i128,
    ) -> (LedgerKey, LedgerRow) {
        let key = LedgerKey {
            tenant: TenantId([1; 16]),
            hour,
            lane,
            model: "gpt-4o-mini".into(),
            tag: tag.map(Into::into),
        };
        let row = LedgerRow {
            requests: 2,
            succeeded: 1,
            usage: Usage {
                input: 10,
                cached: 3,
                cache_write: 2,
                output: 5,
            },
            paid: Usd::from_pico(paid),
            standard: Usd::from_pico(2_000_000),
            slack: Slack::of(Timestamp::from_secs(7_200), Timestamp::from_secs(3_600)),
            ..LedgerRow::default()
        };
        (key, row)
    }

    #[test]
    fn adds_up_in_every_way() {
        let ledger = [
            entry(480_000, Some(Lane::Batch), Some("nightly"), 1_000_000),
            entry(480_024, Some(Lane::Batch), None, 1_000_000),
            entry(480_025, Some(Lane::Standard), Some("nightly"), 2_000_000),
            entry(480_047, None, Some("nightly"), 3_000_000),
        ];
        let budget = BudgetView {
            window: Window::Hour,
            limit: Usd::from_pico(5_000_000_000_000),
            spent: Usd::from_pico(4_999_000_000_000),
            reserved: Usd::from_pico(500_000_000),
            renewed: Timestamp::from_secs(480_048 * 3_600),
            exhausted: true,
        };
        insta::assert_json_snapshot!(Savings::of(&ledger, true, vec![budget]));
    }

    #[test]
    fn nothing_adds_up_to_nothing() {
        let savings = serde_json::to_value(Savings::of(&[], false, Vec::new())).unwrap();
        assert_eq!(savings["total"]["saved_usd"], "0.00");
        assert_eq!(savings["by_day"], serde_json::json!([]));
        assert!(savings.get("by_hour").is_none());
    }
}
