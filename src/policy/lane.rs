//! Which lane a request starts in.

use std::time::Duration;

use crate::model::{
    attempt::Lane,
    request::{Bucket, OnLate},
    time::Timestamp,
};

use super::{pack, plan::Plan};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    pub lane: Lane,
    pub reason: String,
}

/// The lane of least expected cost. Who would rather be late, or get nothing, than
/// pay more always starts in the batch lane, where there is one.
pub fn choose(now: Timestamp, deadline: Timestamp, on_late: OnLate, plan: &Plan) -> Choice {
    let slack = now.until(deadline);
    let left = words(slack);
    if on_late != OnLate::Rescue && plan.rung(Lane::Batch).is_some() {
        let rather = match on_late {
            OnLate::Fail => "to fail",
            OnLate::Rescue | OnLate::Wait => "to be late",
        };
        return Choice {
            lane: Lane::Batch,
            reason: format!("batch, {left} left: asked rather {rather} than to pay more"),
        };
    }
    let choice = plan.choose(slack);
    Choice {
        lane: choice.lane,
        reason: format!("{}, {left} left: {choice}", choice.lane),
    }
}

/// The deadlines that share a batch with this one.
pub fn bucket(now: Timestamp, deadline: Timestamp, pack: &pack::Settings) -> Bucket {
    let share = now.until(deadline).mul_f64(pack.bucket_share);
    Bucket::of(deadline, pack.linger.max(share))
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
    use super::{
        super::{
            plan::{Cancel, Rung},
            turnaround::{Curve, tests::PUBLISHED},
        },
        *,
    };

    #[test]
    fn what_starts_where() {
        let batch = Rung {
            lane: Lane::Batch,
            price: 0.5,
            curve: Curve::of(&PUBLISHED),
            whole: Curve::of(&PUBLISHED),
            before: Duration::from_secs(5),
            cancel: Some(Cancel {
                takes: Duration::from_secs(600),
                finishing: 1.0,
            }),
            refused: 0.0,
        };
        let minute = Duration::from_secs(60);
        let plan = Plan::new(vec![batch], minute, 1440 * minute);
        let bare = Plan::new(Vec::new(), minute, 1440 * minute);
        let now = Timestamp::from_secs(1_000_000);
        for (plan, slack, on_late, lane) in [
            (&plan, 30, OnLate::Rescue, Lane::Standard),
            (&plan, 6 * 3600, OnLate::Rescue, Lane::Batch),
            (&plan, 30, OnLate::Wait, Lane::Batch),
            (&plan, 30, OnLate::Fail, Lane::Batch),
            (&bare, 30, OnLate::Wait, Lane::Standard),
            (&bare, 6 * 3600, OnLate::Rescue, Lane::Standard),
        ] {
            let deadline = now + Duration::from_secs(slack);
            let choice = choose(now, deadline, on_late, plan);
            assert_eq!(
                choice.lane, lane,
                "{slack} s, {on_late:?}: {}",
                choice.reason
            );
        }
    }
}
