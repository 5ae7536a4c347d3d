//! Instants that a person types.

use std::fmt;

use crate::{app::SystemClock, model::time::Timestamp, ports::Clock as _};

/// `7d`, which is that long ago, or an RFC 3339 instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct When(Timestamp);

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// For clap.
pub fn past(text: &str) -> Result<When, String> {
    read(text, SystemClock::new().wall())
}

fn read(text: &str, now: Timestamp) -> Result<When, String> {
    if let Ok(instant) = text.parse::<jiff::Timestamp>() {
        let millis = u64::try_from(instant.as_millisecond()).unwrap_or(0);
        return Ok(When(Timestamp::from_millis(millis)));
    }
    // humantime can panic on sums that leave its range.
    match text.len() <= 20 {
        true => humantime::parse_duration(text).ok(),
        false => None,
    }
    .map(|ago| When(now - ago))
    .ok_or_else(|| "a time ago, such as `7d` or `12h`, or an RFC 3339 instant".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_ago_or_an_instant() {
        let now = Timestamp::from_secs(1_795_348_800);
        let told = |text: &str| read(text, now).map(|when| when.to_string());
        assert_eq!(told("12h").unwrap(), "2026-11-22T00:00:00.000Z");
        let instant = "2026-11-01T06:00:00Z";
        assert_eq!(told(instant).unwrap(), "2026-11-01T06:00:00.000Z");
        for bad in ["yesterday", "7", "", "99999999999999999999y 9999999999d"] {
            assert!(told(bad).is_err(), "{bad}");
        }
    }
}
