//! Whether and when something is tried again.

use std::time::Duration;

use http::HeaderMap;
use serde::Deserialize;

use super::backoff::Growth;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LiveSettings {
    /// Deferred calls that run live at the same time in one scope, at most; how
    /// many do is learned.
    pub max_concurrent: u32,
    /// As many a scope begins with.
    pub start_concurrent: u32,
    /// The most in all scopes together.
    pub max_total: u32,
    /// Flex calls at the same time in one scope, at most; they take minutes, and
    /// count apart from the ordinary ones.
    pub max_flex: u32,
    /// Background responses that are open at the same time.
    pub max_background: u32,
    /// The share of a scope's rate limits that is left to calls that pass through.
    pub passthrough_share: f64,
    /// What a live call is expected to take.
    #[serde(with = "crate::model::time::human")]
    pub expected: Duration,
    /// Silence after which a live call is given up.
    #[serde(with = "crate::model::time::human")]
    pub timeout: Duration,
    /// Errors that pass are tried again until the deadline; after it, until there
    /// were this many tries in all. Lost calls may have been billed: at most this
    /// many are made, wherever the deadline is.
    pub attempts: u32,
    #[serde(with = "crate::model::time::human")]
    pub retry_base: Duration,
    #[serde(with = "crate::model::time::human")]
    pub retry_max: Duration,
    /// Second tries of a scope that may fail: this share of the calls that are
    /// served, and so many a minute.
    pub retry_share: f64,
    pub retries_per_minute: u32,
    /// How long after its deadline a request goes on trying to reach a provider
    /// that cannot be reached.
    #[serde(with = "crate::model::time::human")]
    pub give_up_after: Duration,
}

/// A batch that runs unseen for a day is looked for about a dozen times.
const LONGEST_LOOK_OUT: Duration = Duration::from_secs(6 * 3600);

impl LiveSettings {
    /// The same for the flex tier, whose capacity is another.
    pub fn flex(&self) -> LiveSettings {
        LiveSettings {
            max_concurrent: self.max_flex,
            start_concurrent: self.start_concurrent.min(self.max_flex),
            ..self.clone()
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubmitSettings {
    /// How long a batch whose create was lost may take to show in the list.
    #[serde(with = "crate::model::time::human")]
    pub visibility_window: Duration,
    /// Between two looks at the provider's list for batches that came of our creates
    /// beside those that we know of.
    #[serde(with = "crate::model::time::human")]
    pub audit_interval: Duration,
    #[serde(with = "crate::model::time::human")]
    pub retry_base: Duration,
    #[serde(with = "crate::model::time::human")]
    pub retry_max: Duration,
    /// Batches that are uploaded and created at the same time.
    pub max_concurrent: u32,
}

/// A provider that asks for more patience than this is asked again after it.
pub const LONGEST_ASKED: Duration = Duration::from_secs(3600);

/// What a live reply asks for (WIRE.md §3). A date is not read: it would need
/// the provider's clock.
pub fn asked(headers: &HeaderMap) -> Option<Duration> {
    let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<f64>().ok();
    let millis = number("retry-after-ms").map(|millis| millis / 1000.0);
    let seconds = millis.or_else(|| number("retry-after"))?;
    Duration::try_from_secs_f64(seconds).ok()
}

/// How long to wait after failed try number `tries` (the first is 1): what the
/// provider `asked` for, or else twice as long as the time before, from `base` up
/// to `max`, cut to something between half and whole. `chance` is uniform in
/// `0..=u128::MAX`.
pub fn backoff(
    tries: u32,
    base: Duration,
    max: Duration,
    asked: Option<Duration>,
    chance: u128,
) -> Duration {
    if let Some(asked) = asked {
        return asked.min(LONGEST_ASKED).max(base);
    }
    let growth = Growth {
        first: base,
        factor: 2,
        longest: max,
        least: 0.5,
        spread: 0.5,
    };
    growth.delay(tries, chance)
}

/// How long to wait until the provider's list is read again for a batch whose create
/// was sent `age` ago and never answered: as long again, so that it is found in
/// at most twice the time that it took to show, and once more at the window's end.
/// None where that has passed, and it will not show any more.
pub fn search_again(age: Duration, settings: &SubmitSettings) -> Option<Duration> {
    let left = settings.visibility_window.checked_sub(age)?;
    let (least, most) = (settings.retry_base, settings.retry_max);
    let pause = age.min(most).max(least).min(left);
    (!left.is_zero()).then_some(pause)
}

/// How long until the list is read again for a batch whose create was sent `age` ago
/// and was given up: as long again, six hours at most.
pub fn look_out_again(age: Duration, settings: &SubmitSettings) -> Duration {
    age.min(LONGEST_LOOK_OUT).max(settings.visibility_window)
}

/// Statuses that say nothing about the call itself.
pub fn is_retryable(status: u16) -> bool {
    matches!(status, 408 | 409 | 429 | 500..)
}

/// Statuses of a gateway that waited in vain: the provider may have run the call,
/// and bill it. One that did not reach the provider says 502, 503 or 521–523.
pub fn may_have_run(status: u16) -> bool {
    matches!(status, 504 | 520 | 524)
}

/// Statuses that say that the provider has too much to do.
pub fn is_overload(status: u16) -> bool {
    matches!(status, 429 | 503 | 529) || may_have_run(status)
}

/// Codes of a 429 that no waiting cures (WIRE.md §3).
pub fn is_spent(code: &str) -> bool {
    matches!(
        code,
        "insufficient_quota"
            | "billing_hard_limit_reached"
            | "billing_not_active"
            | "account_deactivated"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_and_are_half_or_more() {
        let (base, max) = (Duration::from_secs(1), Duration::from_secs(60));
        for (tries, least, most) in [(1, 500, 1000), (2, 1000, 2000), (9, 30_000, 60_000)] {
            let wait = |chance| backoff(tries, base, max, None, chance).as_millis();
            assert_eq!((wait(0), wait(u128::MAX)), (least, most));
        }
    }

    #[test]
    fn a_lost_create_is_looked_for_less_and_less_and_at_the_end() {
        let settings = |window, most| SubmitSettings {
            visibility_window: Duration::from_secs(window),
            audit_interval: Duration::ZERO,
            retry_base: Duration::from_secs(1),
            retry_max: Duration::from_secs(most),
            max_concurrent: 4,
        };
        for (first, window, most, expected) in [
            (1, 120, 60, vec![1, 2, 4, 8, 16, 32, 64, 120]),
            (1, 30, 4, vec![1, 2, 4, 8, 12, 16, 20, 24, 28, 30]),
            // Its reply was waited for.
            (90, 240, 60, vec![90, 150, 210, 240]),
            (600, 120, 60, vec![600]),
            (0, 1, 60, vec![0, 1]),
        ] {
            let settings = settings(window, most);
            let mut looks = vec![first];
            let mut age = Duration::from_secs(first);
            while let Some(pause) = search_again(age, &settings) {
                age += pause;
                looks.push(age.as_secs());
            }
            assert_eq!(looks, expected, "{window} s, at most {most} s");
        }
    }

    #[test]
    fn the_provider_is_obeyed() {
        let second = Duration::from_secs(1);
        assert_eq!(
            backoff(9, second, second * 60, Some(second * 7), 0),
            second * 7
        );
    }
}
