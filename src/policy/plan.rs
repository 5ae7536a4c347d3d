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

use std::{fmt, time::Duration};

use crate::model::attempt::Lane;

use super::{lane::words, turnaround::Curve};

/// From one slack to the next on the grid: 4 % more. The cost between two of them
/// is taken from the lower.
const STEP: f64 = 1.04;

/// A cancel's time is not known any better: a turn that is so much late is in time.
const HARDLY: f64 = 0.01;

/// What it costs to enter a lane, as a share of the standard price. A batch takes
/// control calls, and is not left for a fresh one without a reason. The other lanes
/// take of the rate limits of ordinary calls, which batches do not: where time is
/// plenty, a batch it is.
fn entry(lane: Lane) -> f64 {
    match lane {
        Lane::Batch => 0.0001,
        Lane::Flex | Lane::Background8h | Lane::Background2h | Lane::Standard => 0.01,
    }
}

/// A lane that costs less than an ordinary call.
#[derive(Clone, Debug)]
pub struct Rung {
    pub lane: Lane,
    /// As a share of the standard price.
    pub price: f64,
    /// Ages until an answer exists.
    pub curve: Curve,
    /// Ages until it is in our hands where nothing is cancelled: a batch's answers
    /// come with its last line. Elsewhere, and where lines end together, the same.
    pub whole: Curve,
    /// Gathering and sending, before an age begins.
    pub before: Duration,
    /// How it is stopped; none where what is given up runs on and is billed.
    pub cancel: Option<Cancel>,
    /// The share that is refused at once, and not billed.
    pub refused: f64,
}

#[derive(Clone, Copy, Debug)]
pub struct Cancel {
    /// From asking for it until nothing more is billed.
    pub takes: Duration,
    /// Of what would end in that time, the share that does: 1 where the provider
    /// goes on with what it has begun, 0 where it stops at once.
    pub finishing: f64,
}

impl Cancel {
    /// Nothing is billed from then on.
    pub const AT_ONCE: Cancel = Cancel {
        takes: Duration::ZERO,
        finishing: 1.0,
    };
}

/// The least expected cost for every slack, and how it is reached.
#[derive(Clone, Debug)]
pub struct Plan {
    rungs: Vec<Rung>,
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
    /// Both, where only rungs are entered that do not refuse.
    sure: (f64, f64),
    /// The rung to enter, and the stay on it; none for an ordinary call.
    enter: Option<(usize, Stay)>,
}

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

impl Rung {
    /// What a cancel takes, where there is one.
    pub fn cancel_takes(&self) -> Duration {
        self.cancel.map_or(Duration::ZERO, |cancel| cancel.takes)
    }

    /// How long it is waited for at least where so many before it were left for a
    /// fresh one: a provider that is slow for all is not asked again and again.
    pub fn patience(&self, left_before: u32) -> Duration {
        if left_before == 0 {
            return Duration::ZERO;
        }
        let median = self
            .curve
            .quantile(0.5)
            .unwrap_or(Duration::from_secs(3600));
        median / 4 * (1 << (left_before - 1).min(12))
    }
}

impl Plan {
    /// `live` is the time that an ordinary call takes at worst; slack beyond
    /// `longest` is treated as `longest`.
    pub fn new(rungs: Vec<Rung>, live: Duration, longest: Duration) -> Plan {
        let live = live.as_secs_f64().max(0.001);
        let mut plan = Plan {
            rungs,
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
            if kept == 1.0 && cost < best.sure.0 {
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

    fn stay_and_give_up(&self, rung: &Rung, age: f64, slack: f64) -> Stay {
        let open = rung.curve.survival(age).max(1e-12);
        let runs = |at: f64| (rung.curve.survival(at) / open).min(1.0);
        // What ends is billed, whether anybody waits for it or not.
        let billed = rung.price * (1.0 - runs(f64::MAX));
        let stays = self.points.iter().map(|point| {
            let until = age + (slack - point.slack).max(0.0);
            let left = runs(until);
            Stay {
                until,
                leave: Leave::GiveUp,
                cost: billed + left * point.cost,
                standard: left * point.standard,
            }
        });
        let in_time = stays.take_while(|stay| stay.until > age);
        // Of equals, the one that is left last.
        let best = in_time.reduce(|best, stay| {
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
                let answered = 100.0 * (1.0 - self.standard);
                write!(
                    f,
                    "{answered:.0} % answer there in time, {how} after {until} if not; \
                     expected {price:.2} of the ordinary price",
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        super::turnaround::{Curve, Prior, tests::PUBLISHED},
        *,
    };

    const WEEK: Duration = Duration::from_secs(7 * 86_400);

    fn batch(prior: &Prior, cancel: u64) -> Rung {
        Rung {
            lane: Lane::Batch,
            price: 0.5,
            curve: Curve::of(prior),
            whole: Curve::of(prior),
            before: Duration::ZERO,
            cancel: Some(Cancel {
                takes: Duration::from_secs(cancel),
                finishing: 1.0,
            }),
            refused: 0.0,
        }
    }

    fn flex(prior: &Prior) -> Rung {
        Rung {
            lane: Lane::Flex,
            cancel: None,
            ..batch(prior, 0)
        }
    }

    fn plan() -> Plan {
        Plan::new(vec![batch(&PUBLISHED, 720)], Duration::from_secs(20), WEEK)
    }

    #[test]
    fn what_a_slack_costs() {
        let plan = plan();
        for (slack, least, most) in [
            (10, 1.0, 1.0),
            (20, 1.0, 1.0),
            (300, 0.93, 0.97),
            (900, 0.66, 0.69),
            (3_600, 0.5, 0.56),
            (86_400, 0.5, 0.503),
        ] {
            let choice = plan.choose(Duration::from_secs(slack));
            assert!(
                (least..=most).contains(&choice.cost),
                "{slack} s: {choice:?} {choice}"
            );
        }
    }

    #[test]
    fn time_for_a_cancel_is_used_for_one() {
        let plan = plan();
        let leave = |slack| plan.choose(Duration::from_secs(slack)).stay.unwrap().leave;
        assert_eq!(leave(300), Leave::Overtake, "no cancel would end in time");
        assert_eq!(leave(900), Leave::Cancel, "it pays nothing twice");
    }

    #[test]
    fn a_batch_that_has_hung_is_given_up_for_a_fresh_one() {
        let plan = plan();
        let rung = plan.rung(Lane::Batch).unwrap();
        let old = plan.stay(rung, 40_000.0, 40_000.0);
        assert!(old.leave == Leave::Cancel && old.cost < 0.502, "{old:?}");
    }

    #[test]
    fn who_comes_a_little_late_still_cancels() {
        let plan = plan();
        let rung = plan.rung(Lane::Batch).unwrap();
        let stay = plan.stay(rung, 0.0, 900.0);
        assert_eq!(stay.leave, Leave::Cancel);
        for late in [0.0, 0.001, 1.0, 5.0] {
            let age = stay.until + late;
            let then = plan.stay(rung, age, 900.0 - age);
            assert_eq!((then.leave, then.until), (Leave::Cancel, age), "{late} s");
        }
    }

    #[test]
    fn where_a_cancel_stops_all_a_batch_is_left_later() {
        let hour = 3_600.0;
        let until = |finishing| {
            let mut rung = batch(&PUBLISHED, 720);
            let takes = Duration::from_secs(720);
            rung.cancel = Some(Cancel { takes, finishing });
            let plan = Plan::new(vec![rung], Duration::from_secs(20), WEEK);
            plan.stay(plan.rung(Lane::Batch).unwrap(), 0.0, hour)
        };
        let (goes_on, stops) = (until(1.0), until(0.0));
        assert!(stops.until > goes_on.until, "{stops:?} {goes_on:?}");
        assert!(stops.cost > goes_on.cost, "{stops:?} {goes_on:?}");
    }

    #[test]
    fn what_is_given_up_is_billed_and_so_waited_for_longer() {
        let slow = Prior {
            median: Duration::from_secs(120),
            p90: Duration::from_secs(600),
            never: 0.1,
        };
        let hung_up = flex(&slow);
        let cancelled = Rung {
            cancel: Some(Cancel::AT_ONCE),
            ..hung_up.clone()
        };
        let stay = |rung: Rung| {
            let plan = Plan::new(vec![rung.clone()], Duration::from_secs(20), WEEK);
            plan.stay(&rung, 0.0, 620.0)
        };
        let (hung_up, cancelled) = (stay(hung_up), stay(cancelled));
        // Nine of ten end and are billed, though one of those comes too late.
        let left = 0.19;
        assert!((hung_up.cost - (0.45 + left)).abs() < 0.01, "{hung_up:?}");
        assert!((hung_up.standard - left).abs() < 0.01, "{hung_up:?}");
        assert!(cancelled.until < hung_up.until && cancelled.cost < hung_up.cost);
    }

    #[test]
    fn a_rung_that_refuses_falls_to_the_next() {
        let quick = Prior {
            median: Duration::from_secs(60),
            p90: Duration::from_secs(120),
            never: 0.0,
        };
        let flex = |refused| Rung {
            refused,
            ..flex(&quick)
        };
        let cost = |refused| {
            let rungs = vec![flex(refused), batch(&PUBLISHED, 720)];
            let plan = Plan::new(rungs, Duration::from_secs(20), WEEK);
            plan.choose(Duration::from_secs(600))
        };
        let (never, half, always) = (cost(0.0), cost(0.5), cost(1.0));
        assert_eq!((never.lane, half.lane), (Lane::Flex, Lane::Flex));
        assert_eq!(always.lane, Lane::Batch);
        assert!((half.cost - (never.cost + always.cost) / 2.0).abs() < 0.01);
    }

    #[test]
    fn answers_that_wait_in_a_batch_come_by_a_cancel_and_not_by_overtaking() {
        let never = Prior {
            never: 1.0,
            ..PUBLISHED
        };
        let apart = Rung {
            whole: Curve::of(&never),
            ..batch(&PUBLISHED, 720)
        };
        let plan = Plan::new(vec![apart], Duration::from_secs(20), WEEK);
        let at = |slack| plan.choose(Duration::from_secs(slack));
        assert_eq!(at(700).lane, Lane::Standard, "no cancel would end in time");
        let (apart, alone) = (at(3600), self::plan().choose(Duration::from_secs(3600)));
        assert!(apart.cost < alone.cost + 0.01, "{apart:?} {alone:?}");
        // After an hour 88 % exist, and are there for the cancel to bring.
        let rung = plan.rung(Lane::Batch).unwrap();
        let stay = plan.stay(rung, 3600.0, 740.0);
        assert_eq!(stay.leave, Leave::Cancel);
        assert!((stay.standard - 0.11).abs() < 0.02, "{stay:?}");
    }

    #[test]
    fn flex_is_for_those_who_cannot_wait_for_a_batch() {
        let quick = Prior {
            median: Duration::from_secs(60),
            p90: Duration::from_secs(300),
            never: 0.02,
        };
        let flex = Rung {
            refused: 0.2,
            ..flex(&quick)
        };
        let rungs = vec![batch(&PUBLISHED, 600), flex];
        let plan = Plan::new(rungs, Duration::from_secs(20), WEEK);
        for (minutes, lane) in [
            (10, Lane::Flex),
            (20, Lane::Flex),
            (120, Lane::Batch),
            (360, Lane::Batch),
        ] {
            let choice = plan.choose(Duration::from_secs(minutes * 60));
            assert_eq!(choice.lane, lane, "{minutes} min: {choice}");
        }
    }

    fn priors() -> impl Strategy<Value = Prior> {
        (1u64..20_000, 1.0f64..50.0, 0.0f64..1.0).prop_map(|(median, spread, never)| Prior {
            median: Duration::from_secs(median),
            p90: Duration::from_secs(median).mul_f64(spread),
            never,
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn never_above_an_ordinary_call_and_never_dearer_with_more_slack(
            prior in priors(), price in 0.1f64..1.5, cancel in 0u64..2000, live in 1u64..200,
            finishing in 0f64..1.0,
        ) {
            let whole = Curve::of(&Prior { never: (prior.never * 2.0).min(1.0), ..prior });
            let mut rung = Rung { price, whole, ..batch(&prior, cancel) };
            if let Some(cancel) = &mut rung.cancel {
                cancel.finishing = finishing;
            }
            let flex = Rung { price, ..flex(&prior) };
            let live = Duration::from_secs(live);
            let plan = Plan::new(vec![rung, flex], live, WEEK);
            let mut before = 1.0;
            for slack in (1..400).map(|step| Duration::from_secs(step * step * 3)) {
                let choice = plan.choose(slack);
                prop_assert!(choice.cost <= before, "{:?} {:?}", slack, choice);
                before = choice.cost;
            }
        }

        #[test]
        fn an_ordinary_call_is_always_left_in_time(
            prior in priors(), cancel in 0u64..2000, age in 0f64..90_000.0, slack in 0f64..90_000.0,
        ) {
            let plan = Plan::new(vec![batch(&prior, cancel)], Duration::from_secs(20), WEEK);
            let rung = plan.rung(Lane::Batch).unwrap();
            for rung in [rung.clone(), flex(&prior)] {
                let stay = plan.stay(&rung, age, slack);
                let takes = match stay.leave {
                    Leave::Cancel => (1.0 - HARDLY) * cancel as f64,
                    Leave::Overtake | Leave::GiveUp => 0.0,
                };
                let latest = age + (slack - 20.0).max(0.0);
                prop_assert!(stay.until >= age - 1e-6, "{:?}", stay);
                prop_assert!(stay.until + takes <= latest + 1e-6, "{:?}", stay);
            }
        }
    }
}
