//! A provider's rate limits, as its `x-ratelimit-*` headers tell them (WIRE.md §3),
//! and what is left of them by now.

use std::time::Duration;

use http::HeaderMap;

use crate::model::time::Timestamp;

/// What a reply tells of the limits.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RateLimits {
    pub requests: Option<Quota>,
    pub tokens: Option<Quota>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quota {
    pub limit: f64,
    pub remaining: f64,
    /// Until all of it is back.
    pub reset: Option<Duration>,
}

/// Where the headers do not say, a limit is a minute's.
const A_MINUTE: Duration = Duration::from_secs(60);
/// No reset is believed to be further away.
const LONGEST_RESET: Duration = Duration::from_secs(24 * 3600);

impl RateLimits {
    pub fn read(headers: &HeaderMap) -> RateLimits {
        let quota = |kind: &str| {
            let text = |what: &str| {
                let value = headers.get(format!("x-ratelimit-{what}-{kind}"))?;
                value.to_str().ok().map(str::trim)
            };
            let number = |what: &str| text(what)?.parse().ok().filter(|n: &f64| n.is_finite());
            Some(Quota {
                limit: number("limit").filter(|limit| *limit > 0.0)?,
                remaining: number("remaining")?.max(0.0),
                reset: text("reset").and_then(go_duration),
            })
        };
        RateLimits {
            requests: quota("requests"),
            tokens: quota("tokens"),
        }
    }
}

/// A duration as Go writes it: `6m0s`, `20ms`, `1h0m1.5s`. A bare number is
/// seconds.
fn go_duration(text: &str) -> Option<Duration> {
    let mut seconds = 0.0;
    let mut rest = text;
    if let Ok(plain) = text.parse::<f64>() {
        seconds = plain;
        rest = "";
    } else if text.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, unit) = rest.split_at(digits);
        let length = unit
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(unit.len());
        let (unit, after) = unit.split_at(length);
        let scale = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        seconds += number.parse::<f64>().ok()? * scale;
        rest = after;
    }
    let duration = Duration::try_from_secs_f64(seconds).ok()?;
    Some(duration.min(LONGEST_RESET))
}

/// What is left of one limit: what was last told, less what was sent since, and
/// what has come back by itself (OpenAI's limits refill evenly, and the reset is
/// when they are full).
#[derive(Clone, Debug, Default)]
pub struct Meter {
    /// All that was ever spent here.
    spent: f64,
    told: Option<Told>,
}

#[derive(Clone, Copy, Debug)]
struct Told {
    limit: f64,
    left: f64,
    per_second: f64,
    at: Timestamp,
    /// What had been spent when the call was sent whose reply told it.
    by: f64,
}

impl Meter {
    /// Counts what a call takes. What was spent by then stands in its ticket.
    pub fn spend(&mut self, amount: f64) -> f64 {
        self.spent += amount;
        self.spent
    }

    /// What was counted is not spent after all.
    pub fn take_back(&mut self, amount: f64) {
        self.spent -= amount;
    }

    /// A reply's word, unless that of a later call is known. It is as old as the
    /// call: what was sent since is not in it. What came back since is left out,
    /// to be on the safe side.
    pub fn told(&mut self, now: Timestamp, quota: Option<Quota>, by: f64) {
        let Some(quota) = quota else { return };
        if self.told.is_some_and(|told| told.by > by) {
            return;
        }
        let missing = quota.limit - quota.remaining;
        let full = quota.limit / A_MINUTE.as_secs_f64();
        let per_second = match quota.reset.map(|reset| reset.as_secs_f64()) {
            Some(reset) if reset > 0.0 && missing > 0.0 => missing / reset,
            _ => self.told.map_or(full, |told| told.per_second),
        };
        self.told = Some(Told {
            limit: quota.limit,
            left: quota.remaining,
            per_second,
            at: now,
            by,
        });
    }

    /// When `amount` may be spent so that the share `kept` of the limit is left
    /// to others. What is more than there can ever be may go when all is back.
    pub fn ready_at(&self, now: Timestamp, amount: f64, kept: f64) -> Timestamp {
        let Some(told) = self.told else { return now };
        let most = told.limit;
        let wanted = (amount + kept * most).min(most);
        let left = told.left - (self.spent - told.by).max(0.0);
        let missing = wanted - left.max(0.0);
        if missing <= 0.0 {
            return now;
        }
        let seconds = (missing / told.per_second).min(LONGEST_RESET.as_secs_f64());
        let ready = told.at + Duration::from_secs_f64(seconds) + Duration::from_millis(1);
        ready.max(now)
    }

    /// What is known of the limit itself: how much there is of it, and how fast it comes
    /// back.
    pub fn limit(&self) -> Option<(f64, f64)> {
        self.told.map(|told| (told.limit, told.per_second))
    }

    /// Believed to be full.
    pub fn recall(&mut self, now: Timestamp, (limit, per_second): (f64, f64)) {
        self.told = Some(Told {
            limit,
            left: limit,
            per_second,
            at: now,
            by: self.spent,
        });
    }

    /// The one of two that comes back more slowly holds for both.
    pub fn absorb(&mut self, now: Timestamp, other: &Meter) {
        let slower =
            |(_, per_second): (f64, f64)| self.limit().is_none_or(|(_, own)| per_second < own);
        if let Some(limit) = other.limit().filter(|limit| slower(*limit)) {
            self.recall(now, limit);
        }
    }

    /// How fast it comes back, where that is known.
    pub fn per_second(&self) -> Option<f64> {
        self.told.map(|told| told.per_second)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_000_000);

    fn quota(limit: f64, remaining: f64, reset: u64) -> Option<Quota> {
        Some(Quota {
            limit,
            remaining,
            reset: Some(Duration::from_secs(reset)),
        })
    }

    #[test]
    fn durations_of_go() {
        for (text, millis) in [
            ("6m0s", Some(360_000)),
            ("20ms", Some(20)),
            ("1.5s", Some(1_500)),
            ("1h0m1.5s", Some(3_601_500)),
            ("500us", Some(0)),
            ("500µs", Some(0)),
            ("0s", Some(0)),
            ("7", Some(7_000)),
            ("8760h", Some(86_400_000)),
            ("", None),
            ("s", None),
            ("5 minutes", None),
            ("6m0", None),
            ("-1s", None),
            ("-1", None),
            ("1..5s", None),
            ("inf", None),
        ] {
            let read = go_duration(text).map(|duration| duration.as_millis());
            assert_eq!(read, millis, "{text}");
        }
    }

    #[test]
    fn headers_as_openai_sends_them() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("x-ratelimit-limit-requests", "60"),
            ("x-ratelimit-remaining-requests", "59"),
            ("x-ratelimit-reset-requests", "1s"),
            ("x-ratelimit-limit-tokens", "150000"),
            ("x-ratelimit-remaining-tokens", "149984"),
            ("x-ratelimit-reset-tokens", "6m0s"),
        ] {
            headers.insert(name, value.parse().unwrap());
        }
        let read = RateLimits::read(&headers);
        assert_eq!(read.requests, quota(60.0, 59.0, 1));
        assert_eq!(read.tokens, quota(150_000.0, 149_984.0, 360));
        headers.insert("x-ratelimit-limit-tokens", "many".parse().unwrap());
        assert_eq!(RateLimits::read(&headers).tokens, None);
        assert_eq!(RateLimits::read(&HeaderMap::new()), RateLimits::default());
    }

    #[test]
    fn a_share_is_left_to_others() {
        // One comes back a second; ten are kept.
        for (remaining, wait) in [(50.0, 0), (11.0, 0), (10.0, 1_001), (0.0, 11_001)] {
            let mut meter = Meter::default();
            let by = meter.spend(1.0);
            meter.told(NOW, quota(100.0, remaining, (100.0 - remaining) as u64), by);
            let ready = meter.ready_at(NOW, 1.0, 0.1);
            assert_eq!(NOW.until(ready).as_millis(), wait, "{remaining} left");
        }
    }

    #[test]
    fn what_was_sent_since_is_not_there_any_more() {
        let mut meter = Meter::default();
        let first = meter.spend(1.0);
        meter.spend(20.0);
        meter.told(NOW, quota(100.0, 30.0, 70), first);
        assert_eq!(
            meter.ready_at(NOW, 1.0, 0.1).as_millis() - NOW.as_millis(),
            1_001
        );
        // An older call's reply comes later, and knows less.
        let last = meter.spend(0.0);
        meter.told(NOW, quota(100.0, 90.0, 10), last);
        meter.told(NOW, quota(100.0, 0.0, 100), first);
        assert_eq!(meter.ready_at(NOW, 1.0, 0.1), NOW);
    }

    #[test]
    fn what_never_fits_goes_when_all_is_back() {
        let mut meter = Meter::default();
        let by = meter.spend(5_000.0);
        meter.told(NOW, quota(1_000.0, 0.0, 60), by);
        let ready = meter.ready_at(NOW, 5_000.0, 0.1);
        assert_eq!(NOW.until(ready).as_secs(), 60);
        assert_eq!(meter.ready_at(ready, 5_000.0, 0.1), ready);
    }

    proptest! {
        #[test]
        fn it_is_ready_when_it_says(
            limit in 1.0..1e7, share in 0.0..1.0, amount in 0.0..1e6, reset in 0u64..100_000,
            kept in 0.0..1.0, later in 0.0..1e5,
        ) {
            let mut meter = Meter::default();
            let by = meter.spend(1.0);
            meter.spend(later);
            meter.told(NOW, quota(limit, limit * share, reset), by);
            let ready = meter.ready_at(NOW, amount, kept);
            prop_assert!(ready >= NOW);
            prop_assert_eq!(meter.ready_at(ready, amount, kept), ready);
        }
    }
}
