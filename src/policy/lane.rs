//! Which lane a request starts in.

use std::time::Duration;

use crate::model::{
    attempt::Lane,
    request::{Bucket, OnLate},
    time::Timestamp,
};

use super::{pack, rescue};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    pub lane: Lane,
    pub bucket: Bucket,
    pub reason: String,
}

/// The batch lane, unless its rescue would be due before it could be packed.
/// Who would rather be late than pay more always starts there.
pub fn choose(
    now: Timestamp,
    deadline: Timestamp,
    on_late: OnLate,
    pack: &pack::Settings,
    rescue: &rescue::Settings,
) -> Choice {
    let slack = now.until(deadline);
    let bucket = Bucket::of(deadline, pack.linger.max(slack.mul_f64(pack.bucket_share)));
    let packed_by = now + pack.linger;
    let lane = match on_late {
        OnLate::Rescue if rescue.due(bucket.start) <= packed_by => Lane::Standard,
        _ => Lane::Batch,
    };
    let reason = match lane {
        Lane::Standard => format!(
            "too close for a batch: {} left, {} kept for rescue and {} to gather",
            words(slack),
            words(rescue.reserve),
            words(pack.linger),
        ),
        Lane::Batch => format!("batch: {} left", words(slack)),
    };
    Choice {
        lane,
        bucket,
        reason,
    }
}

/// Whether all the work that is open would fit into the reserve if all of it had
/// to be rescued at once.
pub fn guarantee(
    on_late: OnLate,
    open: u64,
    live: &super::retry::LiveSettings,
    reserve: Duration,
) -> &'static str {
    let per_call = live.expected.as_millis().max(1);
    let fits = reserve
        .as_millis()
        .saturating_mul(u128::from(live.max_concurrent))
        / per_call;
    if on_late == OnLate::Rescue && u128::from(open) <= fits {
        "firm"
    } else {
        "best-effort"
    }
}

/// A duration as people say it, to the nearest second once it is longer than that.
pub fn words(duration: Duration) -> String {
    let rounded = if duration >= Duration::from_secs(1) {
        Duration::from_secs((duration + Duration::from_millis(500)).as_secs())
    } else {
        Duration::from_millis(duration.as_millis() as u64)
    };
    humantime::format_duration(rounded).to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn settings(linger: u64, reserve: u64) -> (pack::Settings, rescue::Settings) {
        (
            pack::Settings {
                linger: Duration::from_secs(linger),
                ..pack::tests::settings()
            },
            rescue::Settings {
                reserve: Duration::from_secs(reserve),
                last_call: 0.5,
                budget_usd_per_hour: None,
                budget_usd_per_day: None,
            },
        )
    }

    #[test]
    fn what_starts_where() {
        let (pack, rescue) = settings(5, 1800);
        let now = Timestamp::from_secs(1_000_000);
        for (slack, on_late, lane) in [
            (30, OnLate::Rescue, Lane::Standard),
            (1800, OnLate::Rescue, Lane::Standard),
            (6 * 3600, OnLate::Rescue, Lane::Batch),
            (30, OnLate::Wait, Lane::Batch),
            (30, OnLate::Fail, Lane::Batch),
        ] {
            let deadline = now + Duration::from_secs(slack);
            let choice = choose(now, deadline, on_late, &pack, &rescue);
            assert_eq!(
                choice.lane, lane,
                "{slack} s, {on_late:?}: {}",
                choice.reason
            );
        }
    }

    proptest! {
        #[test]
        fn more_slack_never_makes_it_dearer(slack in 1u64..700_000, more in 0u64..700_000) {
            let (pack, rescue) = settings(5, 1800);
            let now = Timestamp::from_secs(1_000_000);
            let lane = |slack| {
                choose(now, now + Duration::from_secs(slack), OnLate::Rescue, &pack, &rescue).lane
            };
            // A wider bucket may begin earlier, by at most its share of the slack.
            if lane(slack) == Lane::Batch {
                prop_assert_eq!(lane(slack * 2 + more), Lane::Batch);
            }
        }
    }
}
