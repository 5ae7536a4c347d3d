//! What is asked: a trace of calls, read from JSONL or generated.
//!
//! One object a line, times in seconds, the deadline counted from the arrival (it may be
//! `"6h"` too):
//!
//! ```json
//! {"arrival": 12.5, "model": "gpt-4o-mini", "input_tokens": 900, "output_tokens": 120, "deadline": 21600}
//! ```

use std::{
    collections::BTreeMap,
    fmt,
    io::{self, BufRead},
    time::Duration,
};

use serde::{
    Deserialize, Deserializer,
    de::{Unexpected, Visitor},
};
use thiserror::Error;

use crate::{
    ledger::Prices,
    model::{attempt::Lane, deadline, money::Usd, request::Usage, time::Timestamp},
};

/// Arrivals count from here: far enough from zero that no arithmetic on instants
/// saturates.
pub const START: Timestamp = Timestamp::from_secs(1_000_000_000);
/// Arrivals and deadlines beyond this are mistakes: ten years.
const LONGEST: f64 = 10.0 * 365.0 * 86_400.0;

/// One call, with what it costs either way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Request {
    pub arrival: Timestamp,
    pub deadline: Timestamp,
    /// Index into [`Trace::models`].
    pub model: u16,
    /// Bytes of its line in an input file, about.
    pub bytes: u32,
    /// At the standard price, and in a batch (or flex, which costs the same).
    pub standard: Usd,
    pub cheap: Usd,
}

impl Request {
    pub fn slack(&self) -> Duration {
        self.arrival.until(self.deadline)
    }

    /// The cheap price as a share of the standard one.
    pub fn price(&self) -> f64 {
        match self.standard.as_pico() {
            0 => 0.5,
            standard => self.cheap.as_pico() as f64 / standard as f64,
        }
    }
}

/// Requests in order of arrival.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Trace {
    pub models: Vec<String>,
    pub requests: Vec<Request>,
}

#[derive(Debug, Error)]
pub enum BadTrace {
    #[error("line {line}: {what}")]
    Line { line: u64, what: String },
    #[error("line {line}: {error}")]
    Unread { line: u64, error: io::Error },
    #[error("no requests in it")]
    Empty,
}

/// A line of the file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    pub arrival: f64,
    pub model: String,
    pub input_tokens: u64,
    pub output_tokens: u64,
    #[serde(deserialize_with = "seconds_or_duration")]
    pub deadline: f64,
}

impl Trace {
    /// Reads a trace line by line; empty lines are passed over.
    pub fn read(from: impl BufRead, prices: &Prices) -> Result<Trace, BadTrace> {
        let mut builder = Builder::new(prices);
        for (line, text) in (1..).zip(from.lines()) {
            let text = text.map_err(|error| BadTrace::Unread { line, error })?;
            if text.trim().is_empty() {
                continue;
            }
            let bad = |what: String| BadTrace::Line { line, what };
            let row: Row = serde_json::from_str(&text).map_err(|error| bad(said(&error)))?;
            builder.push(&row).map_err(bad)?;
        }
        builder.done()
    }
}

/// Seconds as a number, or a duration as callers write deadlines.
fn seconds_or_duration<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    struct Seconds;

    impl Visitor<'_> for Seconds {
        type Value = f64;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("seconds, such as 21600, or a duration, such as \"6h\"")
        }

        fn visit_f64<E>(self, seconds: f64) -> Result<f64, E> {
            Ok(seconds)
        }

        fn visit_u64<E>(self, seconds: u64) -> Result<f64, E> {
            Ok(seconds as f64)
        }

        fn visit_i64<E>(self, seconds: i64) -> Result<f64, E> {
            Ok(seconds as f64)
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<f64, E> {
            // Behind every instant that can be written, so that only durations are read.
            const NOW: Timestamp = Timestamp::from_secs(1_000_000_000_000);
            let max = Duration::from_secs_f64(LONGEST);
            match deadline::parse(text, NOW, max) {
                Ok(at) => Ok(NOW.until(at).as_secs_f64()),
                Err(_) => Err(E::invalid_value(Unexpected::Str(text), &self)),
            }
        }
    }

    from.deserialize_any(Seconds)
}

/// serde's message without its own `at line 1`.
fn said(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" at line ") {
        Some((what, _)) => format!("{what} (column {})", error.column()),
        None => text,
    }
}

/// Gathers rows into a trace.
pub struct Builder<'a> {
    prices: &'a Prices,
    known: BTreeMap<String, u16>,
    trace: Trace,
}

impl<'a> Builder<'a> {
    pub fn new(prices: &'a Prices) -> Self {
        Builder {
            prices,
            known: BTreeMap::new(),
            trace: Trace::default(),
        }
    }

    /// The error says what is wrong with the row.
    pub fn push(&mut self, row: &Row) -> Result<(), String> {
        let usage = Usage {
            input: row.input_tokens,
            output: row.output_tokens,
            ..Usage::default()
        };
        let arrival = span("arrival", row.arrival)?;
        let deadline = span("deadline", row.deadline)?;
        let (Some(ordinary), Some(batch)) = (
            self.prices.bill(&row.model, Lane::Standard, &usage),
            self.prices.bill(&row.model, Lane::Batch, &usage),
        ) else {
            return Err(format!("no price is known for the model `{}`", row.model));
        };
        let model = self.model(&row.model)?;
        let tokens = row.input_tokens.saturating_mul(4).saturating_add(200);
        self.trace.requests.push(Request {
            arrival: START + arrival,
            deadline: START + arrival + deadline,
            model,
            bytes: u32::try_from(tokens).unwrap_or(u32::MAX),
            standard: ordinary.paid,
            cheap: batch.paid,
        });
        Ok(())
    }

    fn model(&mut self, name: &str) -> Result<u16, String> {
        if let Some(&index) = self.known.get(name) {
            return Ok(index);
        }
        let index = u16::try_from(self.trace.models.len()).map_err(|_| "too many models")?;
        self.trace.models.push(name.to_owned());
        self.known.insert(name.to_owned(), index);
        Ok(index)
    }

    pub fn done(mut self) -> Result<Trace, BadTrace> {
        if self.trace.requests.is_empty() {
            return Err(BadTrace::Empty);
        }
        self.trace.requests.sort_by_key(|request| request.arrival);
        Ok(self.trace)
    }
}

fn span(name: &str, seconds: f64) -> Result<Duration, String> {
    if !(0.0..=LONGEST).contains(&seconds) {
        return Err(format!(
            "`{name}` is {seconds}: seconds from 0 to ten years"
        ));
    }
    Ok(Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"arrival": 12.5, "model": "gpt-4o-mini", "input_tokens": 900, "output_tokens": 120, "deadline": 21600}"#;

    fn read(text: &str) -> Result<Trace, String> {
        Trace::read(text.as_bytes(), &Prices::built_in().unwrap()).map_err(|e| e.to_string())
    }

    #[test]
    fn a_line_is_a_call() {
        let earlier = LINE.replace("12.5", "3");
        let trace = read(&format!("{LINE}\n\n{earlier}\n")).unwrap();
        assert_eq!(trace.models, ["gpt-4o-mini"]);
        let [first, second] = trace.requests[..] else {
            panic!("{trace:?}")
        };
        assert_eq!(first.arrival, START + Duration::from_secs(3));
        assert_eq!(second.arrival, START + Duration::from_millis(12_500));
        assert_eq!(second.slack(), Duration::from_secs(21_600));
        let pico = 900 * 150_000 + 120 * 600_000;
        assert_eq!(second.standard, Usd::from_pico(pico));
        assert_eq!(second.cheap, Usd::from_pico(pico / 2));
    }

    #[test]
    fn a_deadline_may_be_written_as_callers_write_it() {
        for (text, seconds) in [("\"6h\"", 21_600), ("\"1day 2h\"", 93_600), ("90.0", 90)] {
            let trace = read(&LINE.replace("21600", text)).unwrap();
            let slack = trace.requests[0].slack();
            assert_eq!(slack, Duration::from_secs(seconds), "{text}");
        }
    }

    #[test]
    fn a_bad_line_is_named() {
        let soon = "line 2: invalid value: string \"soon\", expected seconds, such as 21600, or";
        for (wrong, says) in [
            (LINE.replace("21600", "\"soon\""), soon),
            (
                LINE.replace("21600", "\"15M\""),
                "line 2: invalid value: string \"15M\"",
            ),
            (
                LINE.replace("21600", "\"2030-01-31T06:00:00Z\""),
                "line 2: invalid value",
            ),
            (
                LINE.replace("21600", "null"),
                "line 2: invalid type: null, expected seconds, such as 21600, or",
            ),
            (
                LINE.replace("deadline", "within"),
                "line 2: unknown field `within`",
            ),
            (LINE.replace("12.5", "-1"), "line 2: `arrival` is -1"),
            (LINE.replace("21600", "1e12"), "line 2: `deadline` is 1"),
            (
                LINE.replace("gpt-4o-mini", "gpt-0"),
                "line 2: no price is known",
            ),
            (
                LINE.replace(", \"deadline\": 21600", ""),
                "line 2: missing field `deadline`",
            ),
            ("{".into(), "line 2: EOF"),
        ] {
            let error = read(&format!("{LINE}\n{wrong}\n")).unwrap_err();
            assert!(error.starts_with(says), "{error}");
        }
        assert_eq!(read("\n").unwrap_err(), "no requests in it");
    }
}
