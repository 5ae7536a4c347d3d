//! The ledger's rows as RFC 4180 has it: CRLF behind each, quotes where they are needed.

use std::{borrow::Cow, io};

use bytes::Bytes;
use csv::{Terminator, Writer, WriterBuilder};

use crate::model::{
    ledger::{LedgerKey, LedgerRow, Slack},
    time::Timestamp,
};

pub struct CsvRows {
    /// Each row says whose it is.
    pub tenants: bool,
}

const COUNTS: [&str; 11] = [
    "requests",
    "succeeded",
    "late",
    "rescued",
    "paid_twice",
    "unaccounted",
    "unpriced",
    "input_tokens",
    "cached_tokens",
    "cache_write_tokens",
    "output_tokens",
];
const AMOUNTS: [&str; 4] = ["paid_usd", "standard_usd", "saved_usd", "rescue_paid_usd"];
/// The counts of [`Slack`]: late by more than an hour, late, and so much left at most.
const SLACK: [&str; Slack::BOUNDS.len() + 1] = [
    "slack_late_over_1h",
    "slack_late_under_1h",
    "slack_under_1m",
    "slack_under_5m",
    "slack_under_15m",
    "slack_under_1h",
    "slack_under_3h",
    "slack_under_6h",
    "slack_under_12h",
    "slack_under_24h",
    "slack_over_24h",
];

impl CsvRows {
    pub fn head(&self) -> io::Result<Bytes> {
        let mut out = writer();
        let whose = self.tenants.then_some("tenant");
        let names = ["hour"].into_iter().chain(whose);
        let names = names.chain(["lane", "model", "tag"]);
        out.write_record(names.chain(COUNTS).chain(AMOUNTS).chain(SLACK))?;
        written(out)
    }

    pub fn rows(&self, rows: &[(LedgerKey, LedgerRow)]) -> io::Result<Bytes> {
        let mut out = writer();
        for (key, row) in rows {
            out.write_field(Timestamp::of_hour(key.hour).to_string())?;
            if self.tenants {
                out.write_field(key.tenant.to_string())?;
            }
            out.write_field(key.lane.map_or("", |lane| lane.as_str()))?;
            out.write_field(text(&key.model).as_ref())?;
            out.write_field(text(key.tag.as_deref().unwrap_or_default()).as_ref())?;
            let usage = &row.usage;
            let counts: [u64; COUNTS.len()] = [
                row.requests,
                row.succeeded,
                row.late,
                row.rescued,
                row.paid_twice,
                row.unaccounted,
                row.unpriced,
                usage.input,
                usage.cached,
                usage.cache_write,
                usage.output,
            ];
            let saved = row.standard - row.paid;
            let amounts = [row.paid, row.standard, saved, row.rescue_paid];
            let counts = counts.iter().map(u64::to_string);
            let amounts = amounts.iter().map(ToString::to_string);
            let slack = row.slack.counts().iter().map(u64::to_string);
            out.write_record(counts.chain(amounts).chain(slack))?;
        }
        written(out)
    }
}

fn writer() -> Writer<Vec<u8>> {
    let mut builder = WriterBuilder::new();
    builder.terminator(Terminator::CRLF).from_writer(Vec::new())
}

fn written(out: Writer<Vec<u8>>) -> io::Result<Bytes> {
    let written = out.into_inner();
    written.map(Bytes::from).map_err(|error| error.into_error())
}

/// What a caller named. A spreadsheet takes a cell for a formula that begins like one: an
/// apostrophe before it makes it text, as OWASP advises.
fn text(named: &str) -> Cow<'_, str> {
    match named.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']) {
        true => format!("'{named}").into(),
        false => named.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{attempt::Lane, id::TenantId, money::Usd, request::Usage};

    fn row(model: &str, tag: Option<&str>) -> (LedgerKey, LedgerRow) {
        let key = LedgerKey {
            tenant: TenantId([0xab; 16]),
            hour: 480_000,
            lane: Some(Lane::Batch),
            model: model.into(),
            tag: tag.map(Into::into),
        };
        let row = LedgerRow {
            requests: 3,
            usage: Usage {
                input: 10,
                cached: 4,
                cache_write: 2,
                output: 5,
            },
            paid: Usd::from_pico(1_500_000),
            standard: Usd::from_pico(3_000_000),
            slack: Slack::of(Timestamp::from_secs(7_200), Timestamp::from_secs(0)),
            ..LedgerRow::default()
        };
        (key, row)
    }

    /// As a program that knows nothing of ours reads it.
    fn read(csv: &CsvRows, rows: &[(LedgerKey, LedgerRow)]) -> Vec<Vec<String>> {
        let text = [csv.head().unwrap(), csv.rows(rows).unwrap()].concat();
        let mut reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .from_reader(&text[..]);
        let records = reader.records().map(|record| {
            let record = record.unwrap();
            record.iter().map(str::to_owned).collect()
        });
        records.collect()
    }

    #[test]
    fn a_row_is_read_back() {
        let rows = [
            row("gpt-4o-mini", Some("say \"hi\", twice\r\nand more")),
            row("m", None),
        ];
        let read = read(&CsvRows { tenants: true }, &rows);
        let cell = |at: usize, name: &str| {
            let column = read[0].iter().position(|it| it == name).unwrap();
            read[at][column].as_str()
        };
        assert_eq!(read.len(), 3);
        assert_eq!(cell(1, "hour"), Timestamp::of_hour(480_000).to_string());
        assert_eq!(cell(1, "tenant"), "ab".repeat(16));
        assert_eq!(cell(1, "lane"), "batch");
        assert_eq!(cell(1, "tag"), "say \"hi\", twice\r\nand more");
        assert_eq!(cell(2, "tag"), "");
        assert_eq!(cell(1, "cache_write_tokens"), "2");
        assert_eq!(cell(1, "saved_usd"), "0.0000015");
        assert_eq!(cell(1, "slack_under_3h"), "1");
        assert_eq!(cell(1, "slack_under_1h"), "0");
        let whose = CsvRows { tenants: false };
        assert!(!whose.head().unwrap().windows(6).any(|it| it == b"tenant"));
    }

    #[test]
    fn what_callers_name_is_never_a_formula() {
        for named in ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1"] {
            let read = read(&CsvRows { tenants: false }, &[row(named, Some(named))]);
            let cells = [&read[1][2], &read[1][3]];
            assert_eq!(cells, [&format!("'{named}"), &format!("'{named}")]);
        }
        assert_eq!(text("gpt-4o"), "gpt-4o");
        assert_eq!(text("'quoted"), "'quoted");
    }
}
