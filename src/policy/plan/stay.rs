//! How long to stay in a lane, and how it is left.

use super::{
    Plan,
    rung::{Cancel, Rung},
};

/// A cancel's time is not known any better: a turn that is so much late is in time.
pub(super) const HARDLY: f64 = 0.01;

/// How a lane is left where no answer has come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stay {
    /// Seconds of age at which to act.
    pub until: f64,
    pub leave: Leave,
    /// Expected, as a share of the standard price.
    pub cost: f64,
    /// The share that will end in an ordinary call.
    pub standard: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// Cancel, take what has ended, and go on with the rest.
    Cancel,
    /// An ordinary call and the cancel at once: it may be paid twice.
    Overtake,
    /// Go on without it: it cannot be cancelled, and may be paid twice.
    GiveUp,
}

impl Plan {
    /// The best stay in a lane that has been entered `age` ago and has not answered,
    /// with `slack` left: until when, and how it is left.
    pub fn stay(&self, rung: &Rung, age: f64, slack: f64) -> Stay {
        match rung.cancel {
            Some(cancel) => self.stay_and_cancel(rung, cancel, age, slack),
            None => self.stay_and_give_up(rung, age, slack),
        }
    }

    fn stay_and_cancel(&self, rung: &Rung, cancel: Cancel, age: f64, slack: f64) -> Stay {
        // The two are learned apart: no answer is in our hands before it exists.
        let waits = |at: f64| rung.whole.survival(at).max(rung.curve.survival(at));
        let open = waits(age).max(1e-12);
        let takes = cancel.takes.as_secs_f64();
        let cut_off = |asked: f64| {
            let (then, later) = (
                rung.curve.survival(asked),
                rung.curve.survival(asked + takes),
            );
            ((then - cancel.finishing * (then - later)) / open).min(1.0)
        };
        // The last moment of all.
        let until = age + (slack - self.live).max(0.0);
        let left = (waits(until) / open).min(1.0);
        let mut best = Stay {
            until,
            leave: Leave::Overtake,
            cost: rung.price * (1.0 - left) + left + rung.price * (left - cut_off(until)),
            standard: left,
        };
        // What is left after a cancel has taken effect, from little to much.
        for point in &self.points {
            let until = age + slack - point.slack - takes;
            if until < age - takes * HARDLY {
                break;
            }
            let until = until.max(age);
            let left = cut_off(until);
            let cost = rung.price * (1.0 - left) + left * point.cost;
            // Of equals, the one that is left last.
            if cost < best.cost - 1e-9 || (best.leave == Leave::Overtake && cost <= best.cost) {
                best = Stay {
                    until,
                    leave: Leave::Cancel,
                    cost,
                    standard: left * point.standard,
                };
            }
        }
        best
    }

    /// What is expected of `slack`, which lies between two points: the cost, and the
    /// share that ends in an ordinary call. None where it is less than at any point.
    fn between(&self, slack: f64) -> Option<(f64, f64)> {
        let next = self.points.partition_point(|point| point.slack <= slack);
        let before = self.points.get(next.checked_sub(1)?)?;
        let Some(after) = self.points.get(next) else {
            return Some((before.cost, before.standard));
        };
        let share = (slack - before.slack) / (after.slack - before.slack);
        let on_the_way = |from: f64, to: f64| from + (to - from) * share;
        let standard = on_the_way(before.standard, after.standard);
        Some((on_the_way(before.cost, after.cost), standard))
    }

    fn stay_and_give_up(&self, rung: &Rung, age: f64, slack: f64) -> Stay {
        let open = rung.curve.survival(age).max(1e-12);
        let runs = |at: f64| (rung.curve.survival(at) / open).min(1.0);
        // What ends is billed, whether anybody waits for it or not.
        let billed = rung.price * (1.0 - runs(f64::MAX));
        let leave = |until: f64, (cost, standard): (f64, f64)| {
            let left = runs(until);
            Stay {
                until,
                leave: Leave::GiveUp,
                cost: billed + left * cost,
                standard: left * standard,
            }
        };
        let in_time = self.points.iter().take_while(|point| point.slack <= slack);
        let stays = in_time.map(|point| {
            let until = age + slack - point.slack;
            leave(until, (point.cost, point.standard))
        });
        // Or now: who asks again at the end that was told is to be told the same.
        let now = self.between(slack).map(|rest| leave(age, rest));
        // Of equals, the one that is left last.
        let best = stays.chain(now).reduce(|best, stay| {
            if stay.cost < best.cost - 1e-9 {
                stay
            } else {
                best
            }
        });
        best.unwrap_or(Stay {
            until: age,
            leave: Leave::GiveUp,
            cost: billed + 1.0,
            standard: 1.0,
        })
    }
}
