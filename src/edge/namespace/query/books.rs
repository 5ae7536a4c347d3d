//! Which rows of the ledger a query asks for.

use std::{ops::Range, time::Duration};

use super::{BadQuery, Whose, bad, instant, pairs, unknown};
use crate::model::time::Timestamp;

/// `GET …/savings?…`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SavingsQuery {
    pub period: Period,
    /// Hours as well as days: there can be many.
    pub by_hour: bool,
    /// Operators' only.
    pub whose: Option<Whose>,
}

/// `GET …/ledger?…`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LedgerQuery {
    pub period: Period,
    pub format: Format,
    /// Operators' only.
    pub whose: Option<Whose>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    #[default]
    Json,
    Csv,
}

/// From `since` on, and before `until`. The ledger is kept by the hour: hours that begin
/// or end outside of it belong to it whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Period {
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
}

/// What operators are told of who do not say since when.
const LATELY: Duration = Duration::from_secs(31 * 86_400);

impl SavingsQuery {
    pub fn of_tenant(query: Option<&str>) -> Result<Self, BadQuery> {
        Self::parse(query, Asker::Tenant)
    }

    pub fn of_operator(query: Option<&str>, now: Timestamp) -> Result<Self, BadQuery> {
        Self::parse(query, Asker::Operator(now))
    }

    fn parse(query: Option<&str>, asker: Asker) -> Result<Self, BadQuery> {
        let mut by_hour = false;
        let (period, whose) = asker.rows(query, |name, value| {
            match (name, value) {
                ("by", "hour") => by_hour = true,
                ("by", _) => return Err(bad("by", "`by` takes `hour`.".into())),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(SavingsQuery {
            period,
            by_hour,
            whose,
        })
    }
}

impl LedgerQuery {
    pub fn of_tenant(query: Option<&str>) -> Result<Self, BadQuery> {
        Self::parse(query, Asker::Tenant)
    }

    pub fn of_operator(query: Option<&str>, now: Timestamp) -> Result<Self, BadQuery> {
        Self::parse(query, Asker::Operator(now))
    }

    fn parse(query: Option<&str>, asker: Asker) -> Result<Self, BadQuery> {
        let mut format = Format::default();
        let (period, whose) = asker.rows(query, |name, value| {
            match (name, value) {
                ("format", "json") => format = Format::Json,
                ("format", "csv") => format = Format::Csv,
                ("format", _) => {
                    return Err(bad("format", "`format` is `json` or `csv`.".into()));
                }
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(LedgerQuery {
            period,
            format,
            whose,
        })
    }
}

#[derive(Clone, Copy)]
enum Asker {
    Tenant,
    /// And now.
    Operator(Timestamp),
}

impl Asker {
    /// Which rows are asked for. `takes` takes the parameters that a query has besides,
    /// and says whether it is one.
    fn rows(
        self,
        query: Option<&str>,
        mut takes: impl FnMut(&str, &str) -> Result<bool, BadQuery>,
    ) -> Result<(Period, Option<Whose>), BadQuery> {
        let mut period = Period::default();
        let mut whose = None;
        for (name, value) in pairs(query)? {
            if takes(&name, &value)? || period.takes(&name, &value)? {
                continue;
            }
            match (self, name.as_str()) {
                (Asker::Operator(_), "tenant") => whose = Some(Whose(value)),
                _ => return Err(unknown(&name)),
            }
        }
        period.checked()?;
        Ok(match self {
            Asker::Tenant => (period, whose),
            Asker::Operator(now) => (period.or_lately(now), whose),
        })
    }
}

impl Period {
    /// Hours since the Unix epoch.
    pub fn hours(&self) -> Range<u32> {
        let first = self.since.map_or(0, Timestamp::as_hours);
        let last = self.until.map_or(u32::MAX, |until| {
            let hour = until.as_hours();
            match Timestamp::of_hour(hour) < until {
                true => hour.saturating_add(1),
                false => hour,
            }
        });
        first..last
    }

    fn or_lately(self, now: Timestamp) -> Period {
        let until = self.until.unwrap_or(now).min(now);
        Period {
            since: self.since.or(Some(until - LATELY)),
            ..self
        }
    }

    /// False where it is no name of its own.
    fn takes(&mut self, name: &str, value: &str) -> Result<bool, BadQuery> {
        match name {
            "since" => self.since = Some(instant("since", value)?),
            "until" => self.until = Some(instant("until", value)?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn checked(&self) -> Result<(), BadQuery> {
        match (self.since, self.until) {
            (Some(since), Some(until)) if until <= since => {
                Err(bad("until", "`until` is later than `since`.".into()))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_is_whole_hours() {
        let hours = |query: &str| LedgerQuery::of_tenant(Some(query)).unwrap().period.hours();
        assert_eq!(hours(""), 0..u32::MAX);
        assert_eq!(hours("since=3600&until=7200"), 1..2);
        assert_eq!(hours("since=3599&until=7201"), 0..3);
        assert_eq!(hours("since=1970-01-01T02:00:00Z"), 2..u32::MAX);
    }

    #[test]
    fn operators_are_told_the_last_month() {
        let now = Timestamp::of_hour(1_000_000) + Duration::from_secs(1);
        let hours = |query: &str| {
            let asked = SavingsQuery::of_operator(Some(query), now).unwrap();
            asked.period.hours()
        };
        assert_eq!(hours(""), 1_000_000 - 31 * 24..u32::MAX);
        assert_eq!(hours("since=0"), 0..u32::MAX);
        let until = 999_000 * 3_600u64;
        let early = format!("until={until}");
        assert_eq!(hours(&early), 999_000 - 31 * 24..999_000);
    }

    #[test]
    fn refuses_what_it_does_not_understand() {
        for (query, param) in [
            ("by=day", Some("by")),
            ("since=yesterday", Some("since")),
            ("since=7200&until=7200", Some("until")),
            ("tenant=a", None),
            ("format=csv", None),
        ] {
            let error = SavingsQuery::of_tenant(Some(query)).unwrap_err();
            assert_eq!(error.param, param, "{query}");
        }
        for (query, param) in [
            ("format=xml", Some("format")),
            ("by=hour", None),
            ("until=1&since=2", Some("until")),
        ] {
            let error = LedgerQuery::of_operator(Some(query), Timestamp::ZERO).unwrap_err();
            assert_eq!(error.param, param, "{query}");
        }
        let asked = LedgerQuery::of_operator(Some("tenant=a&format=csv"), Timestamp::ZERO);
        let asked = asked.unwrap();
        assert_eq!(
            (asked.whose, asked.format),
            (Some(Whose("a".into())), Format::Csv)
        );
    }
}
