//! What to do with a request at the least expected cost: which lane it enters,
//! and when that lane is left. Computed backwards: from the last instant at which
//! an ordinary call is still in time, to ever more slack.
//!
//! With slack `s` and nothing under way, the least cost is
//!
//! ```text
//! V(s) = min  1                                    an ordinary call, now
//!             p·F(e) + S(e)·V(s − e)               a cheaper lane, cancelled so that
//!                                                  the cancel takes effect at age e
//!             p·(1−W(a)) + W(a)·1 + p·(W(a) − R(a))
//!                                                  the same, overtaken at age a: live
//!                                                  and cancelled at once
//!             p·F(a) + S(a)·V(s − a) + p·(S(a) − S(∞))
//!                                                  a lane that cannot be cancelled,
//!                                                  given up at age a
//! ```
//!
//! where `p` is the lane's price as a share of the standard price, `F` and `S` the
//! shares that have ended and still run at an age, and `W` the chance that nothing is
//! in our hands by then. `W` is `S` for a call alone, and where a batch's lines end
//! together; where they end apart, answers wait in the batch for the last line, or
//! for a cancel. A cancel takes a time `c`, and of what would have ended meanwhile a
//! share `k` does: `R(a) = S(a) − k·(S(a) − S(a+c))` is what it cuts off, and the `F`
//! and `S` of a cancelled lane stand for `1 − R(e−c)` and `R(e−c)`. What ends while it
//! is being cancelled is an answer, and billed; in the third line it is billed as well
//! and nobody needs it. What is given up runs on, and is billed. Given that nothing
//! came by an age, all of them are shares of the `W` of that age. An ordinary call is
//! in time until `live` before the deadline. Admission asks for `V`, rescue for the
//! same expression from the age that a batch has reached.

mod rung;
mod stay;

use std::{fmt, time::Duration};

use crate::model::attempt::Lane;

use self::rung::entry;
pub use self::{
    rung::{Cancel, Rung},
    stay::{Leave, Stay},
};
use super::lane::words;

/// From one slack to the next on the grid: 4 % more. The cost between two of them
/// is taken from the lower.
const STEP: f64 = 1.04;

/// The least expected cost for every slack, and how it is reached.
#[derive(Clone, Debug)]
pub struct Plan {
    rungs: Vec<Rung>,
    /// Whether a batch may take what another lane refuses.
    batch_takes_refused: bool,
    /// What an ordinary call takes, at worst.
    live: f64,
    points: Vec<Point>,
}

#[derive(Clone, Copy, Debug)]
struct Point {
    slack: f64,
    cost: f64,
    /// The share that ends in an ordinary call.
    standard: f64,
    /// Both of what was refused: of the best rung that does not refuse.
    sure: (f64, f64),
    /// The rung to enter, and the stay on it; none for an ordinary call.
    enter: Option<(usize, Stay)>,
}

/// What admission is told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    pub lane: Lane,
    /// Expected, as a share of the standard price.
    pub cost: f64,
    pub standard: f64,
    /// None for an ordinary call.
    pub stay: Option<Stay>,
}

impl Plan {
    /// `live` is the time that an ordinary call takes at worst; slack beyond
    /// `longest` is treated as `longest`.
    pub fn new(rungs: Vec<Rung>, live: Duration, longest: Duration) -> Plan {
        Plan::made(rungs, live, longest, true)
    }

    /// The same for what has been in a batch: from another lane it does not go back
    /// into one.
    pub fn out_of_batches(rungs: Vec<Rung>, live: Duration, longest: Duration) -> Plan {
        Plan::made(rungs, live, longest, false)
    }

    fn made(
        rungs: Vec<Rung>,
        live: Duration,
        longest: Duration,
        batch_takes_refused: bool,
    ) -> Plan {
        let live = live.as_secs_f64().max(0.001);
        let mut plan = Plan {
            rungs,
            batch_takes_refused,
            live,
            points: vec![Point {
                slack: live,
                cost: 1.0,
                standard: 1.0,
                sure: (1.0, 1.0),
                enter: None,
            }],
        };
        let mut slack = live;
        while slack < longest.as_secs_f64() {
            slack *= STEP;
            plan.push(slack);
        }
        plan
    }

    fn push(&mut self, slack: f64) {
        // With more slack one can always do as with less.
        let Some(&less) = self.points.last() else {
            return;
        };
        let mut best = Point { slack, ..less };
        // Who may refuse is judged by what is left then: the best of the others.
        let (sure, unsure): (Vec<usize>, Vec<usize>) =
            (0..self.rungs.len()).partition(|&index| self.rungs[index].refused <= 0.0);
        for index in sure.into_iter().chain(unsure) {
            let rung = &self.rungs[index];
            let left = slack - rung.before.as_secs_f64();
            if left <= self.live {
                continue;
            }
            let stay = self.stay(rung, 0.0, left);
            let kept = 1.0 - rung.refused.clamp(0.0, 1.0);
            let or_else = |taken: f64, refused: f64| kept * taken + (1.0 - kept) * refused;
            let cost = or_else(stay.cost + entry(rung.lane), best.sure.0);
            let standard = or_else(stay.standard, best.sure.1);
            let takes_refused = self.batch_takes_refused || rung.lane != Lane::Batch;
            if kept == 1.0 && takes_refused && cost < best.sure.0 {
                best.sure = (cost, standard);
            }
            if cost < best.cost - 1e-9 {
                best.cost = cost;
                best.standard = standard;
                best.enter = Some((index, stay));
            }
        }
        self.points.push(best);
    }

    /// What to do with a request that has nothing under way.
    pub fn choose(&self, slack: Duration) -> Choice {
        let point = self.point(slack.as_secs_f64());
        Choice {
            lane: point
                .enter
                .map_or(Lane::Standard, |(index, _)| self.rungs[index].lane),
            cost: point.cost,
            standard: point.standard,
            stay: point.enter.map(|(_, stay)| stay),
        }
    }

    fn point(&self, slack: f64) -> &Point {
        let after = self.points.partition_point(|point| point.slack <= slack);
        &self.points[after.saturating_sub(1)]
    }

    /// How long the choice stays as it is at `slack`: with a millisecond more gone, it
    /// is another.
    pub fn changes_in(&self, slack: Duration) -> Duration {
        // It stands at its border yet, and instants are milliseconds.
        slack.saturating_sub(self.stands_until(slack)) + Duration::from_millis(1)
    }

    /// The least slack down to which the choice stays as it is at `slack`.
    fn stands_until(&self, slack: Duration) -> Duration {
        let seconds = slack.as_secs_f64();
        let after = self.points.partition_point(|point| point.slack <= seconds);
        let lane = |point: &Point| point.enter.map(|(index, _)| index);
        let points = &self.points[..after];
        let Some(now) = points.last().map(lane) else {
            return Duration::ZERO;
        };
        let same = points.iter().rev().take_while(|point| lane(point) == now);
        let least = same.last().map_or(seconds, |point| point.slack);
        Duration::from_secs_f64(least)
    }

    pub fn rung(&self, lane: Lane) -> Option<&Rung> {
        self.rungs.iter().find(|rung| rung.lane == lane)
    }

    /// What an ordinary call takes, at worst.
    pub fn live(&self) -> Duration {
        Duration::from_secs_f64(self.live)
    }
}

/// The reason that a caller reads.
impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let price = self.cost;
        match self.stay {
            None => write!(f, "an ordinary call: nothing cheaper is expected in time"),
            Some(stay) => {
                let until = words(Duration::from_secs_f64(stay.until.max(0.0)));
                let how = match stay.leave {
                    Leave::Cancel => "cancelled",
                    Leave::Overtake => "overtaken by an ordinary call",
                    Leave::GiveUp => "given up",
                };
                let answered = match 100.0 * (1.0 - self.standard) {
                    share if share >= 99.5 => "over 99".to_owned(),
                    share => format!("{share:.0}"),
                };
                write!(
                    f,
                    "{answered} % answered in time below the ordinary price, {how} after \
                     {until} without an answer; expected {price:.2} of the ordinary price",
                )
            }
        }
    }
}

#[cfg(test)]
mod tests;
