//! The best policy that cannot see the future: the exact dynamic programme for one
//! request at a time, on a fine uniform grid of slack, with the true law. It shares
//! no code with `policy::plan`.
//!
//! Each request has a batch of its own, and at most one thing under way at a time
//! (batches side by side are not looked at). At every instant it may wait; cancel,
//! take what the cancel brings when it takes effect, and begin anew with what is
//! left of the time; make an ordinary call and cancel at once; make an ordinary
//! call; or a flex call, which it may hang up at any time, and which is not asked
//! for again within an attempt that began with a refusal; hung up, it runs on and is
//! billed. Of what would end in a batch while it is being cancelled a share does. It
//! knows nothing of
//! stalls and of live capacity. Waiting tells nothing but that the answer has not
//! come, so when to leave may be fixed on entering.

use std::time::Duration;

use super::{
    latency::Law,
    trace::Request,
    world::{Over, Player, RequestIx, World},
};
use crate::model::time::Timestamp;

/// Points on the grid, at most; never finer than a second.
const POINTS: f64 = 20_000.0;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Act {
    /// An ordinary call, now.
    Live,
    /// A batch, cancelled so that so much slack is left when that takes effect.
    Cancel { left: f64 },
    /// A batch; an ordinary call and the cancel when so much slack is left.
    Overtake { left: f64 },
    /// A flex call, hung up when so much slack is left; where it is refused, the
    /// best of the others.
    Flex { left: f64 },
}

/// The least expected cost, and how it is had, by slack.
pub struct Best {
    step: f64,
    points: Vec<Point>,
}

#[derive(Clone, Copy)]
struct Point {
    cost: f64,
    act: Act,
    /// Without flex.
    sure: Act,
}

impl Best {
    /// `price` is the cheap lanes' share of the standard price.
    pub fn new(law: &Law, price: f64, longest: Duration) -> Best {
        let longest = longest.as_secs_f64();
        let step = (longest / POINTS).max(1.0);
        Best::on_grid(law, price, longest, step)
    }

    fn on_grid(law: &Law, price: f64, longest: f64, step: f64) -> Best {
        let count = (longest / step).floor() as usize + 1;
        let batch = law.batch.turnaround();
        let ended: Vec<f64> = (0..count)
            .map(|k| batch.ended_by(k as f64 * step))
            .collect();
        let flex = law.flex.as_ref().map(|flex| {
            let law = flex.turnaround();
            let ended: Vec<f64> = (0..count).map(|k| law.ended_by(k as f64 * step)).collect();
            (ended, 1.0 - flex.never, flex.refused)
        });
        let cells = |seconds: f64| (seconds / step).ceil() as usize;
        let (cancel, live) = (cells(law.batch.cancel), cells(law.live.latency));
        // By the age at which a cancel takes effect.
        let cancelled: Vec<f64> = (0..count)
            .map(|effect| {
                let asked = ended[effect.saturating_sub(cancel)];
                asked + law.batch.finishing * (ended[effect] - asked)
            })
            .collect();
        let mut best = Best {
            step,
            points: Vec::with_capacity(count),
        };
        let mut costs: Vec<f64> = Vec::with_capacity(count);
        // Overtaken at an age, whatever the slack: the best age up to the last.
        let (mut overtaken, mut at) = (f64::INFINITY, 0);
        for slack in 0..count {
            let mut sure = (1.0, Act::Live);
            if slack > live {
                let age = slack - live;
                let late = batch.ended_by(age as f64 * step + law.batch.cancel);
                let late = law.batch.finishing * (late - ended[age]);
                let cost = 1.0 - ended[age] + price * (ended[age] + late);
                if cost <= overtaken {
                    (overtaken, at) = (cost, age);
                }
                if overtaken < sure.0 {
                    let left = (slack - at) as f64 * step;
                    sure = (overtaken, Act::Overtake { left });
                }
            }
            if let Some((cost, age)) = left(&cancelled, 0.0, &costs, price, cancel.max(1), live)
                && cost <= sure.0
            {
                let left = (slack - age) as f64 * step;
                sure = (cost, Act::Cancel { left });
            }
            let (mut cost, mut act) = sure;
            if let Some((ended, all, refused)) = &flex
                && let Some((taken, age)) = left(ended, *all, &costs, price, 1, live)
            {
                let either = refused * sure.0 + (1.0 - refused) * taken;
                if either < cost {
                    let left = (slack - age) as f64 * step;
                    (cost, act) = (either, Act::Flex { left });
                }
            }
            costs.push(cost);
            best.points.push(Point {
                cost,
                act,
                sure: sure.1,
            });
        }
        best
    }

    fn point(&self, slack: f64) -> Point {
        let at = ((slack / self.step).max(0.0) as usize).min(self.points.len() - 1);
        self.points[at]
    }

    /// As a share of the standard price.
    pub fn cost(&self, slack: Duration) -> f64 {
        self.point(slack.as_secs_f64()).cost
    }
}

/// The best age at which to have left a lane, where what has not ended goes on
/// with the rest of the slack: its cost and the age. So many are billed in any case;
/// `costs` are those of less slack.
fn left(
    ended: &[f64],
    billed: f64,
    costs: &[f64],
    price: f64,
    least: usize,
    live: usize,
) -> Option<(f64, usize)> {
    let slack = costs.len();
    let most = slack.checked_sub(live)?;
    let mut best: Option<(f64, usize)> = None;
    for age in least..=most {
        // At `most` an ordinary call is all that is left.
        let rest = if age == slack {
            1.0
        } else {
            costs[slack - age]
        };
        let cost = price * ended[age].max(billed) + (1.0 - ended[age]) * rest;
        if best.is_none_or(|(least, _)| cost < least) {
            best = Some((cost, age));
        }
    }
    best
}

/// Plays it.
pub struct BestBlind<'a> {
    best: &'a Best,
    /// By request: what was begun, and how it ends.
    stays: Vec<Stay>,
}

#[derive(Clone, Copy, Default)]
struct Stay {
    batch: u32,
    /// Told apart from wake-ups for what was begun before.
    number: u8,
    left: Option<How>,
}

#[derive(Clone, Copy)]
enum How {
    Cancel,
    Overtake,
    HangUp,
}

impl<'a> BestBlind<'a> {
    pub fn new(best: &'a Best, requests: &[Request]) -> BestBlind<'a> {
        BestBlind {
            best,
            stays: vec![Stay::default(); requests.len()],
        }
    }

    fn enter(&mut self, world: &mut World, request: RequestIx) {
        let deadline = world.request(request).deadline;
        let point = self.best.point(world.now.until(deadline).as_secs_f64());
        match point.act {
            Act::Flex { left } if world.flex(request) => {
                self.leave_at(world, request, seconds_before(deadline, left), How::HangUp);
            }
            Act::Flex { .. } => self.act(world, request, deadline, point.sure),
            act => self.act(world, request, deadline, act),
        }
    }

    fn act(&mut self, world: &mut World, request: RequestIx, deadline: Timestamp, act: Act) {
        let (left, how) = match act {
            Act::Cancel { left } => (left + world.law.batch.cancel, How::Cancel),
            Act::Overtake { left } => (left, How::Overtake),
            Act::Live | Act::Flex { .. } => return world.live(request, 0),
        };
        let batch = world.submit(vec![request]);
        self.stays[request as usize].batch = batch;
        self.leave_at(world, request, seconds_before(deadline, left), how);
    }

    fn leave_at(&mut self, world: &mut World, request: RequestIx, at: Timestamp, how: How) {
        let stay = &mut self.stays[request as usize];
        stay.number = stay.number.wrapping_add(1);
        stay.left = Some(how);
        world.wake_at(at, u64::from(request) << 8 | u64::from(stay.number));
    }
}

fn seconds_before(deadline: Timestamp, left: f64) -> Timestamp {
    deadline - Duration::from_secs_f64(left)
}

impl Player for BestBlind<'_> {
    fn arrived(&mut self, world: &mut World, request: RequestIx) {
        self.enter(world, request);
    }

    fn woken(&mut self, world: &mut World, token: u64) {
        let request = (token >> 8) as RequestIx;
        let stay = &mut self.stays[request as usize];
        if u64::from(stay.number) != token & 0xff || world.progress(request).answered {
            return;
        }
        let batch = stay.batch;
        match stay.left.take() {
            Some(How::Cancel) => world.cancel(batch),
            Some(How::Overtake) => {
                world.live(request, 0);
                world.cancel(batch);
            }
            Some(How::HangUp) => {
                world.hang_up(request);
                self.enter(world, request);
            }
            None => {}
        }
    }

    fn over(&mut self, world: &mut World, over: Over) {
        for request in over.left {
            self.enter(world, request);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn law(quantiles: &[(f64, f64)], cancel: f64) -> Law {
        let mut law = Law::default();
        law.batch.quantiles = quantiles.to_vec();
        law.batch.never = 0.1;
        law.batch.cancel = cancel;
        law.live.latency = 2.0;
        law
    }

    /// Ends evenly over 20 s, nine of ten; no cancel takes effect in time.
    #[test]
    fn without_a_cancel_it_is_one_batch_and_one_moment() {
        let law = law(&[(1.0, 20.0)], 100.0);
        let best = Best::on_grid(&law, 0.5, 60.0, 1.0);
        for (slack, cost) in [
            (2u64, 1.0),
            // Overtaken at 18 s: 81 % have answered, and the other 9 % that end
            // are paid twice.
            (20, 0.5 * 0.9 + 0.19),
            (22, 0.5 * 0.9 + 0.1),
            (60, 0.5 * 0.9 + 0.1),
            // At 3 s 13.5 % would have answered, for 45 % paid in vain or not.
            (5, 1.0),
        ] {
            let seen = best.cost(Duration::from_secs(slack));
            assert!((seen - cost).abs() < 1e-9, "{slack}: {seen}, not {cost}");
        }
    }

    /// Every plan there is, one second at a time.
    fn brute(law: &Law, price: f64, slack: usize) -> f64 {
        let ended = |age: usize| law.batch.turnaround().ended_by(age as f64);
        let (cancel, live) = (law.batch.cancel as usize, law.live.latency as usize);
        let mut best = 1.0f64;
        for age in 0..=slack.saturating_sub(live) {
            let twice = law.batch.finishing * (ended(age + cancel) - ended(age));
            best = best.min(price * ended(age) + (1.0 - ended(age)) + price * twice);
        }
        for age in cancel.max(1)..=slack.saturating_sub(live) {
            let rest = brute(law, price, slack - age);
            let asked = ended(age - cancel);
            let ended = asked + law.batch.finishing * (ended(age) - asked);
            best = best.min(price * ended + (1.0 - ended) * rest);
        }
        best
    }

    #[test]
    fn it_is_the_best_of_all_plans() {
        let quick_or_slow = [(0.4, 3.0), (0.5, 12.0), (1.0, 14.0)];
        let even = [(1.0, 9.0)];
        for (quantiles, cancel, finishing) in [
            (&quick_or_slow[..], 3.0, 1.0),
            (&quick_or_slow[..], 3.0, 0.0),
            (&even, 5.0, 1.0),
            (&even, 5.0, 0.4),
        ] {
            let mut law = law(quantiles, cancel);
            law.batch.finishing = finishing;
            for price in [0.3, 0.5, 0.8] {
                let best = Best::on_grid(&law, price, 24.0, 1.0);
                for slack in 2..=24 {
                    let (seen, all) = (best.points[slack].cost, brute(&law, price, slack));
                    assert!((seen - all).abs() < 1e-9, "{slack} s: {seen}, not {all}");
                }
            }
        }
    }
}
