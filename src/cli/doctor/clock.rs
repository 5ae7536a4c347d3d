//! Our clock beside the provider's, as its `Date` header tells it.

use std::time::Duration;

use serde_json::json;

use super::report::{Check, millis, span};
use crate::model::time::Timestamp;

/// Between sending a call and having the head of its answer.
#[derive(Clone, Copy, Debug)]
pub struct Exchange {
    pub sent: Timestamp,
    pub answered: Timestamp,
}

/// From here on a receiver of webhooks may take a signature for an old one soon.
const TELLING: Duration = Duration::from_secs(5);
/// What Standard Webhooks lets a signature be off.
const TOLERANCE: Duration = Duration::from_secs(300);
/// `Date` has whole seconds: cut off, not rounded.
const TICK: Duration = Duration::from_secs(1);

/// By how much our clock is off at least: zero where the exchange and the whole seconds
/// of `Date` explain the difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skew {
    Ahead(Duration),
    Behind(Duration),
}

pub fn check(exchange: Exchange, date: Option<&str>) -> Check {
    const NAME: &str = "clock";
    let Some(there) = date.and_then(read) else {
        return Check::skipped(NAME, "The provider does not tell its time (`Date`).");
    };
    let skew = skew(exchange, there);
    let (off, way) = match skew {
        Skew::Ahead(off) => (off, "ahead of"),
        Skew::Behind(off) => (off, "behind"),
    };
    let within = exchange.sent.until(exchange.answered) + TICK;
    let says = match off.is_zero() {
        true => format!(
            "This clock agrees with the provider's, as far as can be told ({}).",
            span(within)
        ),
        false => format!(
            "This clock is {} {way} the provider's, or up to {} more.",
            span(off),
            span(within)
        ),
    };
    let check = match off {
        _ if off >= TOLERANCE => Check::failed(NAME, says),
        _ if off >= TELLING => Check::warning(NAME, says),
        _ => Check::ok(NAME, says),
    };
    let check = match off >= TELLING {
        true => check.advise(
            "Set the time by NTP: deadlines are wall time, and receivers refuse webhooks that \
             are signed five minutes off.",
        ),
        false => check,
    };
    check.measured(json!({
        "off_ms": millis(off),
        "ahead": matches!(skew, Skew::Ahead(off) if !off.is_zero()),
        "uncertainty_ms": millis(within),
    }))
}

fn skew(exchange: Exchange, there: Timestamp) -> Skew {
    // Somewhen from `sent` to `answered` here, it was from `there` to a tick later there.
    let ahead = (there + TICK).until(exchange.sent);
    match ahead.is_zero() {
        true => Skew::Behind(exchange.answered.until(there)),
        false => Skew::Ahead(ahead),
    }
}

fn read(date: &str) -> Option<Timestamp> {
    let date = jiff::fmt::rfc2822::DateTimeParser::new()
        .parse_timestamp(date)
        .ok()?;
    let millis = u64::try_from(date.as_millisecond()).ok()?;
    Some(Timestamp::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::report::Verdict;

    #[test]
    fn a_clock_is_off_by_what_nothing_else_explains() {
        let noon = Timestamp::from_secs(1_000_000);
        let second = Duration::from_secs(1);
        // Sent at noon and a half, answered a quarter later.
        let exchange = Exchange {
            sent: noon + second / 2,
            answered: noon + second * 3 / 4,
        };
        for (there, skew) in [
            (noon, Skew::Behind(Duration::ZERO)),
            (noon - second, Skew::Ahead(second / 2)),
            (noon + second, Skew::Behind(second / 4)),
            (noon + second * 60, Skew::Behind(second * 59 + second / 4)),
            (noon - second * 60, Skew::Ahead(second * 59 + second / 2)),
        ] {
            assert_eq!(super::skew(exchange, there), skew, "{there}");
        }
    }

    #[test]
    fn how_much_is_too_much() {
        let sent = read("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        let exchange = Exchange {
            sent,
            answered: sent + Duration::from_millis(200),
        };
        for (date, verdict, says) in [
            ("Sun, 06 Nov 1994 08:49:37 GMT", Verdict::Ok, "agrees"),
            (
                "Sun, 06 Nov 1994 08:49:34 GMT",
                Verdict::Ok,
                "2.0 s ahead of",
            ),
            (
                "Sun, 06 Nov 1994 08:50:37 GMT",
                Verdict::Warning,
                "60 s behind",
            ),
            (
                "Sun, 06 Nov 1994 08:40:37 GMT",
                Verdict::Failed,
                "8m 59s ahead of",
            ),
            (
                "Sun, 06 Nov 1994 09:49:37 GMT",
                Verdict::Failed,
                "59m 59s behind",
            ),
        ] {
            let check = check(exchange, Some(date));
            assert_eq!(check.verdict, verdict, "{date}: {}", check.says);
            assert!(check.says.contains(says), "{date}: {}", check.says);
            assert_eq!(check.advice.is_some(), verdict != Verdict::Ok);
        }
        for date in [None, Some("yesterday")] {
            assert_eq!(check(exchange, date).verdict, Verdict::Skipped);
        }
    }
}
