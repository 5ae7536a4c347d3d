//! What calls without a deadline would have saved with one:
//! `GET /offpeak/v1/shadow`, and of all tenants `GET /offpeak/admin/shadow`.

use std::time::Duration;

use serde::{Serialize, ser::SerializeMap};

use super::{
    sums::{Row, Sum, Sums, by, total},
    view::{Shown, day},
};
use crate::model::{
    id::TenantId,
    shadow::{ShadowKey, ShadowRow},
};

/// Sums of one deadline. Money is decimal US dollars in strings.
#[derive(Serialize)]
pub struct ShadowView {
    object: &'static str,
    /// None where nothing is counted.
    deadline: Option<Shown<humantime::FormattedDuration>>,
    total: Sums<ShadowRow>,
    by_model: Vec<Row<ShadowRow>>,
    by_day: Vec<Row<ShadowRow>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    by_tenant: Option<Vec<Row<ShadowRow>>>,
}

impl ShadowView {
    pub fn of(
        counted: Option<(Duration, Vec<(ShadowKey, ShadowRow)>)>,
        by_tenant: bool,
    ) -> ShadowView {
        let (deadline, rows) = counted.unzip();
        let rows = rows.unwrap_or_default();
        let tenant = |tenant: TenantId| Some(tenant.to_string());
        ShadowView {
            object: "offpeak.shadow",
            deadline: deadline.map(|deadline| Shown(humantime::format_duration(deadline))),
            total: total(&rows),
            by_model: by(&rows, "model", |key| key.model.clone()),
            by_day: by(&rows, "day", |key| Some(day(key.day))),
            by_tenant: by_tenant.then(|| by(&rows, "tenant", |key| tenant(key.tenant))),
        }
    }
}

impl Sum for ShadowRow {
    fn add(&mut self, other: &ShadowRow) {
        ShadowRow::add(self, other);
    }

    fn calls(&self) -> u64 {
        self.calls
    }

    fn entries<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        let row = self;
        for (name, count) in [
            ("calls", row.calls),
            ("streamed", row.streamed),
            ("unread", row.unread),
            ("unpriced", row.unpriced),
        ] {
            map.serialize_entry(name, &count)?;
        }
        let (plain, streams) = (&row.plain, &row.streams);
        for (name, amount) in [
            ("standard_usd", plain.cost),
            ("expected_usd", plain.expected),
            ("saved_usd", plain.cost - plain.expected),
            ("streamed_standard_usd", streams.cost),
            ("streamed_expected_usd", streams.expected),
            ("streamed_saved_usd", streams.cost - streams.expected),
        ] {
            map.serialize_entry(name, &Shown(amount))?;
        }
        let count = |micro: u64| micro as f64 / 1e6;
        map.serialize_entry("expected_rescued", &count(plain.rescued_micro))?;
        map.serialize_entry("expected_missed", &count(plain.missed_micro))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{money::Usd, shadow::Estimate};

    #[test]
    fn adds_up_in_every_way() {
        let entry = |tenant: u8, day, model: Option<&str>, streamed| {
            let key = ShadowKey {
                tenant: TenantId([tenant; 16]),
                day,
                deadline: Duration::from_secs(6 * 3600),
                model: model.map(Into::into),
            };
            let estimate = Estimate {
                cost: Usd::from_pico(3_000_000_000),
                expected: Usd::from_pico(1_600_000_000),
                rescued_micro: 20_000,
                missed_micro: 200,
            };
            let (plain, streams) = match streamed {
                true => (Estimate::default(), estimate),
                false => (estimate, Estimate::default()),
            };
            let row = ShadowRow {
                calls: 2,
                streamed: 2 * u64::from(streamed),
                unread: 1,
                unpriced: 0,
                plain,
                streams,
            };
            (key, row)
        };
        let rows = vec![
            entry(1, 20_000, Some("gpt-4o-mini"), false),
            entry(1, 20_001, Some("gpt-4o-mini"), true),
            entry(2, 20_001, None, false),
        ];
        let counted = Some((Duration::from_secs(6 * 3600), rows));
        insta::assert_json_snapshot!(ShadowView::of(counted, true));
    }

    #[test]
    fn where_nothing_is_counted_there_is_no_deadline() {
        let view = serde_json::to_value(ShadowView::of(None, false)).unwrap();
        assert_eq!(view["deadline"], serde_json::Value::Null);
        assert_eq!(view["total"]["calls"], 0);
        assert!(view.get("by_tenant").is_none());
    }
}
