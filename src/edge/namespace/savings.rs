//! What was paid and what it would have cost: `GET …/savings`.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use axum::{
    extract::{RawQuery, State},
    response::Response,
};
use serde::{Serialize, ser::SerializeMap};

use super::{
    Tenant,
    admin::Operator,
    json,
    query::{Period, SavingsQuery},
    sums::{Groups, Row, Sum, Sums},
    view::{Shown, UsageView, day},
};
use crate::{
    edge::{Edge, errors::ApiError},
    engine::{BudgetView, Engine},
    model::{
        attempt::Lane,
        id::TenantId,
        ledger::{LedgerKey, LedgerRow, Slack},
        money::Usd,
        time::Timestamp,
    },
    ports::{LedgerRows, StoreError},
};

pub async fn of_tenant(
    State(edge): State<Arc<Edge>>,
    Tenant(tenant): Tenant,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let asked = SavingsQuery::of_tenant(query.as_deref())?;
    let rows = LedgerRows {
        of: Some(tenant),
        hours: asked.period.hours(),
    };
    let adding = added(&edge.engine, &rows, asked.by_hour).await?;
    let budgets = edge.engine.rescue_budget(tenant);
    json(&adding.savings(asked.period, budgets, None))
}

pub async fn of_operator(
    State(edge): State<Arc<Edge>>,
    _: Operator,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let engine = &edge.engine;
    let asked = SavingsQuery::of_operator(query.as_deref(), engine.now())?;
    let whose = asked.whose.as_ref();
    let whose = whose.map(|whose| whose.find(engine)).transpose()?;
    let rows = LedgerRows {
        of: whose,
        hours: asked.period.hours(),
    };
    let adding = added(engine, &rows, asked.by_hour).await?;
    let budgets = whose.map_or_else(Vec::new, |tenant| engine.rescue_budget(tenant));
    let names = engine.tenant_names();
    json(&adding.savings(asked.period, budgets, Some(&names)))
}

/// Which names are the largest is known behind the last row: where there are too many,
/// the rows are read once more.
async fn added(engine: &Engine, rows: &LedgerRows, by_hour: bool) -> Result<Adding, StoreError> {
    let mut adding = Adding::new(by_hour);
    let once = engine.fold_ledger(rows, |key, row| adding.add(key, row));
    once.await?;
    if let Some(mut again) = adding.again() {
        let twice = engine.fold_ledger(rows, |key, row| again.add(key, row));
        twice.await?;
        adding = again;
    }
    Ok(adding)
}

/// A ledger, added up in four ways, and in more where that is asked for. Money is decimal
/// US dollars in strings, tokens are integers.
#[derive(Serialize)]
struct Savings {
    object: &'static str,
    /// Null: from the first row that is kept.
    since: Option<Shown<Timestamp>>,
    /// Null: to the last.
    until: Option<Shown<Timestamp>>,
    total: Sums<LedgerRow>,
    by_model: Vec<Row<LedgerRow>>,
    by_tag: Vec<Row<LedgerRow>>,
    by_lane: Vec<Row<LedgerRow>>,
    by_day: Vec<Row<LedgerRow>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    by_hour: Option<Vec<Row<LedgerRow>>>,
    /// Operators' only.
    #[serde(skip_serializing_if = "Option::is_none")]
    by_tenant: Option<Vec<TenantRow>>,
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
    "An answer whose price is not known is counted in tokens and as unpriced, and in no \
     amount; one that came when its request had ended counts in tokens and in what was paid, \
     and not in standard_usd.",
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

#[derive(Serialize)]
struct TenantRow {
    tenant: Shown<TenantId>,
    /// What it is called where keys are issued.
    name: Option<String>,
    #[serde(flatten)]
    sums: Sums<LedgerRow>,
}

/// Rows as they are added up.
struct Adding {
    total: LedgerRow,
    by_model: Groups<LedgerRow>,
    by_tag: Groups<LedgerRow>,
    by_lane: Groups<LedgerRow>,
    by_day: Groups<LedgerRow>,
    by_hour: Option<Groups<LedgerRow>>,
    by_tenant: BTreeMap<TenantId, LedgerRow>,
}

impl Adding {
    fn new(by_hour: bool) -> Adding {
        Adding {
            total: LedgerRow::default(),
            by_model: Groups::by_any("model"),
            by_tag: Groups::by_any("tag"),
            by_lane: Groups::by("lane"),
            by_day: Groups::by("day"),
            by_hour: by_hour.then(|| Groups::by("hour")),
            by_tenant: BTreeMap::new(),
        }
    }

    fn add(&mut self, key: &LedgerKey, row: &LedgerRow) {
        self.total.add(row);
        self.by_model.add(Some(&key.model), row);
        self.by_tag.add(key.tag.as_deref(), row);
        self.by_lane.add(key.lane.map(Lane::as_str), row);
        self.by_day.add(Some(&day(key.hour / 24)), row);
        if let Some(hours) = &mut self.by_hour {
            hours.add(Some(&Timestamp::of_hour(key.hour).to_string()), row);
        }
        self.by_tenant.entry(key.tenant).or_default().add(row);
    }

    /// For the same rows once more, where there were too many models or tags.
    fn again(&self) -> Option<Adding> {
        let (models, tags) = (self.by_model.again(), self.by_tag.again());
        if models.is_none() && tags.is_none() {
            return None;
        }
        let new = Adding::new(self.by_hour.is_some());
        Some(Adding {
            by_model: models.unwrap_or(new.by_model),
            by_tag: tags.unwrap_or(new.by_tag),
            ..new
        })
    }

    /// `names`: rows by tenant are told, and these are theirs.
    fn savings(
        self,
        period: Period,
        budgets: Vec<BudgetView>,
        names: Option<&HashMap<TenantId, String>>,
    ) -> Savings {
        let by_tenant = self.by_tenant;
        let tenants = names.map(|names| {
            let rows = by_tenant.into_iter().map(|(tenant, sums)| TenantRow {
                tenant: Shown(tenant),
                name: names.get(&tenant).cloned(),
                sums: Sums::new(sums),
            });
            rows.collect()
        });
        Savings {
            object: "offpeak.savings",
            since: period.since.map(Shown),
            until: period.until.map(Shown),
            total: Sums::new(self.total),
            by_model: self.by_model.rows(),
            by_tag: self.by_tag.rows(),
            by_lane: self.by_lane.rows(),
            by_day: self.by_day.rows(),
            by_hour: self.by_hour.map(Groups::rows),
            by_tenant: tenants,
            rescue_budget: budgets.into_iter().map(BudgetRow::from).collect(),
            slack_bounds_seconds: Slack::BOUNDS,
            assumptions: ASSUMPTIONS,
        }
    }
}

impl Sum for LedgerRow {
    fn add(&mut self, other: &LedgerRow) {
        LedgerRow::add(self, other);
    }

    fn calls(&self) -> u64 {
        self.requests
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
    use crate::{engine::Window, model::request::Usage};

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

    fn adding(ledger: &[(LedgerKey, LedgerRow)], by_hour: bool) -> Adding {
        let mut adding = Adding::new(by_hour);
        ledger.iter().for_each(|(key, row)| adding.add(key, row));
        adding
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
        let adding = adding(&ledger, true);
        insta::assert_json_snapshot!(adding.savings(Period::default(), vec![budget], None));
    }

    #[test]
    fn operators_are_told_by_tenant_and_since_when() {
        let mut ledger = [
            entry(480_000, Some(Lane::Batch), None, 1_000_000),
            entry(480_001, Some(Lane::Batch), None, 500_000),
            entry(480_001, None, None, 2_000_000),
        ];
        ledger[1].0.tenant = TenantId([2; 16]);
        let names = HashMap::from([(TenantId([2; 16]), "acme".to_owned())]);
        let period = Period {
            since: Some(Timestamp::from_secs(7)),
            until: None,
        };
        let told = adding(&ledger, false).savings(period, Vec::new(), Some(&names));
        let told = serde_json::to_value(told).unwrap();
        assert_eq!(told["since"], "1970-01-01T00:00:07.000Z");
        assert_eq!(told["until"], serde_json::Value::Null);
        let rows = told["by_tenant"].as_array().unwrap();
        assert_eq!(rows.len(), 2);
        for (row, (tenant, name, requests, paid)) in rows.iter().zip([
            ("01".repeat(16), serde_json::Value::Null, 4, "0.000003"),
            ("02".repeat(16), "acme".into(), 2, "0.0000005"),
        ]) {
            assert_eq!((&row["tenant"], &row["name"]), (&tenant.into(), &name));
            assert_eq!(row["requests"], requests);
            assert_eq!(row["paid_usd"], paid);
        }
    }

    /// A tag for each request, and a few that many have, wherever they stand.
    #[test]
    fn of_too_many_names_the_largest_are_told_and_all_add_up() {
        let many = 10_000;
        let mut rows = Vec::new();
        for n in 0..many {
            let (hour, tag) = (480_000 + n / 100, format!("run-{n:05}"));
            let (mut key, mut row) = entry(hour, Some(Lane::Batch), Some(&tag), 1_000);
            key.model = format!("model-{n:05}");
            row.requests = 1;
            rows.push((key, row));
            if n % 500 == 250 {
                let tag = ["nightly", "weekly"][n as usize / 500 % 2];
                let (key, mut row) = entry(hour, Some(Lane::Batch), Some(tag), 5_000);
                row.requests = 50;
                rows.push((key, row));
            }
        }
        rows.push(entry(480_000, None, None, 7_000));
        let once = adding(&rows, true);
        assert!(once.by_tag.rows().len() <= 1_001, "it is kept in memory");
        let once = adding(&rows, true);
        let mut again = once.again().unwrap();
        rows.iter().for_each(|(key, row)| again.add(key, row));
        assert!(again.again().is_none());
        let told = again.savings(Period::default(), Vec::new(), None);
        let told = serde_json::to_value(told).unwrap();
        assert_eq!(told["total"]["requests"], 10_000 + 20 * 50 + 2);
        for (by, name) in [
            ("by_tag", "tag"),
            ("by_model", "model"),
            ("by_lane", "lane"),
        ] {
            let rows = told[by].as_array().unwrap();
            assert!(rows.len() <= 1_002, "{by}: {}", rows.len());
            for field in ["requests", "succeeded"] {
                let sum: u64 = rows.iter().map(|row| row[field].as_u64().unwrap()).sum();
                assert_eq!(sum, told["total"][field], "{by} {field}");
            }
            let paid = |row: &serde_json::Value| -> Usd {
                row["paid_usd"].as_str().unwrap().parse().unwrap()
            };
            let sum: Usd = rows.iter().map(paid).sum();
            assert_eq!(sum, paid(&told["total"]), "{by}");
            let others = rows.iter().filter(|row| row["others"] == true);
            let others: Vec<_> = others.collect();
            assert_eq!(others.len(), usize::from(by != "by_lane"), "{by}");
            assert!(others.iter().all(|row| row[name].is_null()));
        }
        let tags = told["by_tag"].as_array().unwrap();
        assert_eq!(
            (&tags[0]["tag"], &tags[0]["requests"]),
            (&().into(), &2.into())
        );
        assert_eq!(tags[0].get("others"), None, "those without a tag");
        for tag in ["nightly", "weekly"] {
            let row = tags.iter().find(|row| row["tag"] == tag).unwrap();
            // All of its rows, the first of them too.
            assert_eq!(
                (&row["requests"], &row["paid_usd"]),
                (&500.into(), &"0.00000005".into())
            );
        }
        assert_eq!(told["by_hour"].as_array().unwrap().len(), 100);
    }

    /// None stands out, and one is too many.
    #[test]
    fn as_many_names_as_can_be_are_told_where_all_are_small() {
        let tag = |n: u32| entry(480_000, Some(Lane::Batch), Some(&format!("run-{n:05}")), 1);
        let rows: Vec<_> = (0..1_001).map(tag).collect();
        let mut again = adding(&rows, false).again().unwrap();
        rows.iter().for_each(|(key, row)| again.add(key, row));
        let told = again.savings(Period::default(), Vec::new(), None);
        let told = serde_json::to_value(told).unwrap();
        let tags = told["by_tag"].as_array().unwrap();
        assert_eq!(tags.len(), 1_001);
        let others = tags.iter().filter(|row| row["others"] == true);
        assert_eq!(others.count(), 1);
    }

    #[test]
    fn nothing_adds_up_to_nothing() {
        let savings = adding(&[], false).savings(Period::default(), Vec::new(), None);
        let savings = serde_json::to_value(savings).unwrap();
        assert_eq!(savings["total"]["saved_usd"], "0.00");
        assert_eq!(savings["by_day"], serde_json::json!([]));
        assert!(savings.get("by_hour").is_none());
        assert!(savings.get("by_tenant").is_none());
    }
}
