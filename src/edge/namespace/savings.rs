//! What was paid and what it would have cost: `GET /offpeak/v1/savings`.

use std::collections::BTreeMap;

use serde::{Serialize, ser::SerializeMap};

use super::view::{Shown, UsageView};
use crate::model::{
    ledger::{LedgerKey, LedgerRow},
    time::Timestamp,
};

/// A tenant's ledger, added up in four ways. Money is decimal US dollars in
/// strings, tokens are integers.
#[derive(Serialize)]
pub struct Savings {
    object: &'static str,
    total: Sums,
    by_model: Vec<Row>,
    by_tag: Vec<Row>,
    by_lane: Vec<Row>,
    by_day: Vec<Row>,
}

impl Savings {
    pub fn of(ledger: &[(LedgerKey, LedgerRow)]) -> Savings {
        let mut total = LedgerRow::default();
        for (_, row) in ledger {
            total.add(row);
        }
        Savings {
            object: "offpeak.savings",
            total: Sums(total),
            by_model: by(ledger, "model", |key| Some(key.model.clone())),
            by_tag: by(ledger, "tag", |key| key.tag.clone()),
            by_lane: by(ledger, "lane", |key| {
                key.lane.map(|lane| lane.as_str().to_owned())
            }),
            by_day: by(ledger, "day", |key| Some(date(key.day))),
        }
    }
}

/// Rows in the order of their names, those without one first.
fn by(
    ledger: &[(LedgerKey, LedgerRow)],
    label: &'static str,
    name: impl Fn(&LedgerKey) -> Option<String>,
) -> Vec<Row> {
    let mut groups: BTreeMap<Option<String>, LedgerRow> = BTreeMap::new();
    for (key, row) in ledger {
        groups.entry(name(key)).or_default().add(row);
    }
    let row = |(name, sums)| Row {
        label,
        name,
        sums: Sums(sums),
    };
    groups.into_iter().map(row).collect()
}

/// `2026-11-22`, in UTC.
fn date(day: u32) -> String {
    let midnight = Timestamp::from_secs(u64::from(day) * 86_400).to_string();
    let date = midnight.split('T').next().unwrap_or_default();
    date.to_owned()
}

struct Row {
    label: &'static str,
    name: Option<String>,
    sums: Sums,
}

impl Serialize for Row {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        map.serialize_entry(self.label, &self.name)?;
        self.sums.entries(&mut map)?;
        map.end()
    }
}

struct Sums(LedgerRow);

impl Sums {
    fn entries<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        let row = &self.0;
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
        map.serialize_entry("saved_usd", &Shown(row.standard - row.paid))
    }
}

impl Serialize for Sums {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        self.entries(&mut map)?;
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{attempt::Lane, id::TenantId, money::Usd, request::Usage};

    fn entry(
        day: u32,
        lane: Option<Lane>,
        tag: Option<&str>,
        paid: i128,
    ) -> (LedgerKey, LedgerRow) {
        let key = LedgerKey {
            tenant: TenantId([1; 16]),
            day,
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
                output: 5,
            },
            paid: Usd::from_pico(paid),
            standard: Usd::from_pico(2_000_000),
            ..LedgerRow::default()
        };
        (key, row)
    }

    #[test]
    fn adds_up_in_every_way() {
        let ledger = [
            entry(20_000, Some(Lane::Batch), Some("nightly"), 1_000_000),
            entry(20_001, Some(Lane::Batch), None, 1_000_000),
            entry(20_001, Some(Lane::Standard), Some("nightly"), 2_000_000),
            entry(20_001, None, Some("nightly"), 3_000_000),
        ];
        insta::assert_json_snapshot!(Savings::of(&ledger));
    }

    #[test]
    fn nothing_adds_up_to_nothing() {
        let savings = serde_json::to_value(Savings::of(&[])).unwrap();
        assert_eq!(savings["total"]["saved_usd"], "0.00");
        assert_eq!(savings["by_day"], serde_json::json!([]));
    }
}
