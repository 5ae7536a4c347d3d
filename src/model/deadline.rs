//! When an answer is needed, as callers write it (DESIGN.md §1).

use std::{fmt, time::Duration};

use super::time::Timestamp;

/// A deadline that cannot be kept or read. The text says what is accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadDeadline {
    pub why: Why,
    /// The furthest deadline accepted, from receipt.
    pub max: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// Neither a duration nor an instant; holds what was given, cut short.
    Unreadable(String),
    /// `15M` is fifteen months to humantime, and few callers mean that.
    MonthsOrYears(String),
    Zero,
    Past(Timestamp),
    TooFar,
    /// Two headers, or two lines of one, that name different instants.
    Disagree,
}

impl fmt::Display for BadDeadline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.why {
            Why::Unreadable(given) => write!(f, "The deadline `{given}` could not be read.")?,
            Why::MonthsOrYears(given) => write!(
                f,
                "The deadline `{given}` is in months or years (`M` is months; minutes are `m`)."
            )?,
            Why::Zero => f.write_str("The deadline is zero.")?,
            Why::Past(instant) => write!(f, "The deadline {instant} has passed.")?,
            Why::TooFar => f.write_str("The deadline is too far away.")?,
            Why::Disagree => f.write_str("The deadline is given twice, with different values.")?,
        }
        write!(
            f,
            " Accepted: a duration counted from receipt, such as `90s`, `6h` or `1day 2h`, \
             or an RFC 3339 instant, such as `2030-01-31T06:00:00Z`"
        )?;
        match self.max {
            Duration::MAX => f.write_str("."),
            max => write!(f, ", at most {} away.", humantime::format_duration(max)),
        }
    }
}

impl std::error::Error for BadDeadline {}

/// Reads one deadline against `now`, the time of receipt. Parts of a
/// millisecond are dropped, which makes the deadline earlier.
///
/// # Errors
/// Anything but a humantime duration or an RFC 3339 instant, zero, the past,
/// months and years, and more than `max` from `now`.
pub fn parse(text: &str, now: Timestamp, max: Duration) -> Result<Timestamp, BadDeadline> {
    let bad = |why| BadDeadline { why, max };
    let text = text.trim_matches([' ', '\t']);
    let deadline = if looks_like_instant(text) {
        let instant: jiff::Timestamp = text.parse().map_err(|_| bad(unreadable(text)))?;
        // Before 1970 is the past, whatever the clock says.
        let millis = u64::try_from(instant.as_millisecond()).unwrap_or(0);
        let deadline = Timestamp::from_millis(millis);
        if deadline <= now {
            return Err(bad(Why::Past(deadline)));
        }
        deadline
    } else {
        let duration = duration(text).map_err(bad)?;
        if duration.as_millis() == 0 {
            return Err(bad(Why::Zero));
        }
        now + duration
    };
    if now.until(deadline) > max {
        return Err(bad(Why::TooFar));
    }
    Ok(deadline)
}

/// Reads the `6h` of `/within/6h/v1`: percent-encoded, else as [`parse`].
///
/// # Errors
/// As [`parse`].
pub fn from_path_segment(
    segment: &str,
    now: Timestamp,
    max: Duration,
) -> Result<Timestamp, BadDeadline> {
    match percent_encoding::percent_decode_str(segment).decode_utf8() {
        Ok(text) => parse(&text, now, max),
        Err(_) => Err(BadDeadline {
            why: unreadable(segment),
            max,
        }),
    }
}

/// The deadline of a call: `headers` are all the lines of the header and of
/// its alias, which must name one instant; `path` is the segment after
/// `/within/`, which a header overrides unread. Nothing given is no deadline.
///
/// # Errors
/// As [`parse`], and lines that disagree.
pub fn resolve<'a>(
    headers: impl IntoIterator<Item = &'a [u8]>,
    path: Option<&str>,
    now: Timestamp,
    max: Duration,
) -> Result<Option<Timestamp>, BadDeadline> {
    let mut given = None;
    for line in headers {
        let deadline = match std::str::from_utf8(line) {
            Ok(text) => parse(text, now, max)?,
            Err(_) => {
                let why = unreadable(&String::from_utf8_lossy(line));
                return Err(BadDeadline { why, max });
            }
        };
        if given.is_some_and(|earlier| earlier != deadline) {
            let why = Why::Disagree;
            return Err(BadDeadline { why, max });
        }
        given = Some(deadline);
    }
    match (given, path) {
        (None, Some(segment)) => from_path_segment(segment, now, max).map(Some),
        (given, _) => Ok(given),
    }
}

/// RFC 3339's shape, with its leave to write a space for the `T`. jiff reads
/// more than that (`20300131T06-04`), and more is refused.
fn looks_like_instant(text: &str) -> bool {
    const SHAPE: &[u8] = b"0000-00-00T00:00:00";
    let Some((head, rest)) = text.as_bytes().split_at_checked(SHAPE.len()) else {
        return false;
    };
    let fits = head.iter().zip(SHAPE).all(|(byte, shape)| match shape {
        b'0' => byte.is_ascii_digit(),
        b'T' => matches!(byte, b'T' | b't' | b' '),
        _ => byte == shape,
    });
    let rest = match rest.split_first() {
        Some((b'.', fraction)) => {
            let digits = fraction.iter().take_while(|b| b.is_ascii_digit()).count();
            if digits == 0 {
                return false;
            }
            &fraction[digits..]
        }
        _ => rest,
    };
    let offset = match rest {
        [b'Z' | b'z'] => true,
        [b'+' | b'-', h1, h2, b':', m1, m2] => [h1, h2, m1, m2].iter().all(|b| b.is_ascii_digit()),
        _ => false,
    };
    fits && offset
}

fn duration(text: &str) -> Result<Duration, Why> {
    // humantime 2.4 panics where a carry of nanoseconds overflows u64 seconds
    // (`18446744073709551615s 1000ms`). Within these bounds no sum comes near.
    let mut numbers = text.split(|c: char| !c.is_ascii_digit());
    if text.len() > 128 || numbers.any(|digits| digits.len() > 10) {
        return Err(unreadable(text));
    }
    let duration = humantime::parse_duration(text).map_err(|_| unreadable(text))?;
    let units = text.split(|c: char| !c.is_alphabetic());
    for unit in units {
        // humantime's own words for both; whatever else starts like them
        // (`m`, `min`, `ms`, `millis`) is shorter than a month.
        if unit == "M" || unit.starts_with("month") || unit.starts_with('y') {
            return Err(Why::MonthsOrYears(shown(text)));
        }
    }
    Ok(duration)
}

fn unreadable(text: &str) -> Why {
    Why::Unreadable(shown(text))
}

fn shown(text: &str) -> String {
    const MOST: usize = 60;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAX: Duration = Duration::from_secs(7 * 86_400);

    /// 2026-11-22T12:00:00Z.
    fn now() -> Timestamp {
        Timestamp::from_secs(1_795_348_800)
    }

    fn read(text: &str) -> Result<u64, Why> {
        match parse(text, now(), MAX) {
            Ok(deadline) => Ok(now().until(deadline).as_secs()),
            Err(bad) => Err(bad.why),
        }
    }

    #[test]
    fn accepted() {
        let table = [
            ("90s", 90),
            ("1s", 1),
            ("6h", 6 * 3600),
            (" 6h ", 6 * 3600),
            ("6 h", 6 * 3600),
            ("1day 2h", 26 * 3600),
            ("1day2h", 26 * 3600),
            ("15m", 900),
            ("15min", 900),
            ("1.5h", 5400),
            ("7days", 7 * 86_400),
            ("1week", 7 * 86_400),
            ("1w", 7 * 86_400),
            ("1500ms", 1),
            ("2026-11-22T13:00:00Z", 3600),
            ("2026-11-22t13:00:00z", 3600),
            ("2026-11-22 13:00:00Z", 3600),
            ("2026-11-22T13:00:00.999999999Z", 3600),
            ("2026-11-22T13:00:00+00:00", 3600),
            ("2026-11-22T14:30:00+01:30", 3600),
            ("2026-11-22T05:00:00-08:00", 3600),
            ("2026-11-29T12:00:00Z", 7 * 86_400),
        ];
        for (text, seconds) in table {
            assert_eq!(read(text), Ok(seconds), "{text}");
        }
    }

    #[test]
    fn refused() {
        let unreadable = |text: &str| Why::Unreadable(text.to_owned());
        let months = |text: &str| Why::MonthsOrYears(text.to_owned());
        let table = [
            ("", unreadable("")),
            ("soon", unreadable("soon")),
            ("6", unreadable("6")),
            ("-6h", unreadable("-6h")),
            ("+6h", unreadable("+6h")),
            ("6H", unreadable("6H")),
            ("6h,6h", unreadable("6h,6h")),
            ("PT6H", unreadable("PT6H")),
            ("99999999999999999999h", unreadable("99999999999999999999h")),
            (
                "18446744073709551615s 1000ms",
                unreadable("18446744073709551615s 1000ms"),
            ),
            ("tomorrow 6h", unreadable("tomorrow 6h")),
            ("1795352400", unreadable("1795352400")),
            ("2026-11-23", unreadable("2026-11-23")),
            ("2026-11-23T06:00", unreadable("2026-11-23T06:00")),
            ("2026-11-23T06:00:00", unreadable("2026-11-23T06:00:00")),
            ("20261123T060000Z", unreadable("20261123T060000Z")),
            ("2026-13-23T06:00:00Z", unreadable("2026-13-23T06:00:00Z")),
            ("2026-02-30T06:00:00Z", unreadable("2026-02-30T06:00:00Z")),
            ("2026-11-23T06:00:00.Z", unreadable("2026-11-23T06:00:00.Z")),
            (
                "2026-11-23T06:00:00Z[UTC]",
                unreadable("2026-11-23T06:00:00Z[UTC]"),
            ),
            ("0", Why::Zero),
            ("0s", Why::Zero),
            ("0h 0m", Why::Zero),
            ("900us", Why::Zero),
            ("15M", months("15M")),
            ("1month", months("1month")),
            ("1y", months("1y")),
            ("1 year", months("1 year")),
            ("1h 0months", months("1h 0months")),
            (
                "2026-11-22T12:00:00Z",
                Why::Past(Timestamp::from_secs(1_795_348_800)),
            ),
            (
                "2025-11-22T17:25:46.120Z",
                Why::Past(Timestamp::from_millis(1_763_832_346_120)),
            ),
            ("1960-01-01T00:00:00Z", Why::Past(Timestamp::ZERO)),
            ("7days 1s", Why::TooFar),
            ("8days", Why::TooFar),
            ("5000000000days", Why::TooFar),
            ("2026-11-29T12:00:00.001Z", Why::TooFar),
            ("9999-12-30T00:00:00Z", Why::TooFar),
        ];
        for (text, why) in table {
            assert_eq!(read(text), Err(why), "{text}");
        }
    }

    #[test]
    fn every_message_says_what_is_accepted() {
        for text in ["x", "0s", "15M", "8d", "2020-01-01T00:00:00Z"] {
            let message = parse(text, now(), MAX).unwrap_err().to_string();
            for part in ["Accepted", "`6h`", "RFC 3339", "7days"] {
                assert!(message.contains(part), "{message}");
            }
        }
    }

    #[test]
    fn headers_must_agree_and_win_over_the_path() {
        let hour = Some(now() + Duration::from_secs(3600));
        let read = |lines: &[&'static str], path| {
            resolve(lines.iter().map(|line| line.as_bytes()), path, now(), MAX)
                .map_err(|bad| bad.why)
        };
        assert_eq!(read(&[], None), Ok(None));
        assert_eq!(read(&["1h"], None), Ok(hour));
        assert_eq!(read(&["1h"], Some("6h")), Ok(hour));
        assert_eq!(read(&["1h"], Some("garbage")), Ok(hour));
        assert_eq!(read(&["1h", "60min"], None), Ok(hour));
        assert_eq!(read(&["1h", "2026-11-22T13:00:00Z"], None), Ok(hour));
        assert_eq!(read(&["1h", "2h"], None), Err(Why::Disagree));
        assert_eq!(
            read(&["1h", "x"], None),
            Err(Why::Unreadable("x".to_owned()))
        );
        assert_eq!(read(&[], Some("60m")), Ok(hour));
        let day = Some(now() + Duration::from_secs(26 * 3600));
        assert_eq!(read(&[], Some("1day2h")), Ok(day));
        assert_eq!(read(&[], Some("1day%202h")), Ok(day));
        assert_eq!(
            read(&[], Some("%ff")),
            Err(Why::Unreadable("%ff".to_owned()))
        );
        assert!(resolve([&b"\xff"[..]], None, now(), MAX).is_err());
    }

    proptest! {
        #[test]
        fn never_panics(text: String, millis: u64, max_secs: u64) {
            let (now, max) = (Timestamp::from_millis(millis), Duration::from_secs(max_secs));
            if let Ok(deadline) = from_path_segment(&text, now, max) {
                prop_assert!(deadline > now && now.until(deadline) <= max);
            }
        }

        #[test]
        fn near_misses_never_panic(text in "[0-9]{0,22}[ .:+T-]{0,2}(ns|us|µs|ms|s|m|M|h|d|w|y|month)?[0-9 ]{0,4}[smhdZ]?") {
            if let Ok(deadline) = parse(&text, now(), MAX) {
                prop_assert!(deadline > now() && now().until(deadline) <= MAX);
                prop_assert!(!text.contains(['M', 'y']));
            }
        }
    }
}
