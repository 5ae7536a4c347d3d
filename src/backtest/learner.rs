//! What Offpeak learns while it is played, and the plans that it makes of it:
//! `policy::turnaround` and `policy::plan`, as the server uses them.

use std::time::Duration;

use super::{latency::Law, world::Over};
use crate::{
    model::{attempt::Lane, time::Timestamp},
    policy::{
        fading::Fades,
        ladder, pack,
        plan::{Cancel, Plan, Rung},
        rescue::{self, FINISHING, FINISHING_WEIGHT},
        share::Share,
        turnaround::{Prior, Table},
    },
};

/// What is configured, and not learned: the server's own settings.
#[derive(Clone, Debug)]
pub struct Settings {
    pub packing: pack::Settings,
    /// Believed of batches at the start.
    pub batch: Prior,
    /// And of flex calls,
    pub flex: Prior,
    /// of which this share is believed to be refused.
    pub refused: f64,
    /// Counts as much as so many batches.
    pub weight: f64,
    pub half_life: Duration,
    /// Between two plans.
    pub replan: Duration,
    /// Added to what an ordinary call takes: between two turns of the rescuer.
    pub margin: Duration,
}

/// A server plans anew every half minute where it has seen something. A plan here is
/// made over all deadlines of a trace, which for a day of half minutes takes too long.
const REPLAN: Duration = Duration::from_secs(900);

impl Settings {
    pub fn new(
        packing: pack::Settings,
        ladder: &ladder::Settings,
        rescue: &rescue::Settings,
    ) -> Settings {
        Settings {
            packing,
            batch: ladder.batch.prior(),
            flex: ladder.flex.prior(),
            refused: ladder.flex.refused,
            weight: rescue.prior_weight,
            half_life: rescue.half_life,
            replan: rescue.replan.max(REPLAN),
            margin: Duration::from_secs(1),
        }
    }
}

/// A batch under way.
pub struct Running {
    pub age: Duration,
    /// The provider's counts show no line of it as done. When the others of a
    /// batch were done is known at its end.
    pub untouched: bool,
}

pub struct Learner {
    settings: Settings,
    /// Of lines, and of whole batches.
    batch: Table,
    whole: Table,
    flex: Option<Table>,
    refused: Share,
    /// Of the lines that would end in a cancel, those that do.
    finishing: Share,
    price: f64,
    cancel: Duration,
    live: Duration,
    longest: Duration,
    planned: Timestamp,
    pub plan: Plan,
    /// For who was refused by a lane: without those that refuse.
    pub sure: Plan,
}

impl Learner {
    /// Of the law it knows what a server is told: what cancels and ordinary calls
    /// take, and whether flex is offered.
    pub fn new(settings: Settings, law: &Law, price: f64, longest: Duration) -> Learner {
        let live = law.latency() + settings.margin;
        let nothing = Plan::new(Vec::new(), live, Duration::ZERO);
        let mut learner = Learner {
            batch: Table::default(),
            whole: Table::default(),
            flex: law.flex.as_ref().map(|_| Table::default()),
            refused: Share::default(),
            finishing: Share::default(),
            price,
            cancel: law.cancel(),
            live,
            longest,
            planned: Timestamp::ZERO,
            plan: nothing.clone(),
            sure: nothing,
            settings,
        };
        learner.make(&[]);
        learner
    }

    pub fn is_due(&self, now: Timestamp) -> bool {
        self.planned + self.settings.replan <= now
    }

    /// Plans anew.
    pub fn replan(&mut self, now: Timestamp, running: &[Running]) {
        self.planned = now;
        let half_life = self.settings.half_life;
        self.batch.fade(now, half_life);
        self.whole.fade(now, half_life);
        if let Some(flex) = &mut self.flex {
            flex.fade(now, half_life);
        }
        self.refused.fade(now, half_life);
        self.finishing.fade(now, half_life);
        self.make(running);
    }

    fn make(&mut self, running: &[Running]) {
        let Settings {
            batch,
            flex,
            refused,
            weight,
            ..
        } = &self.settings;
        let ages = |untouched: bool| {
            let counted = running
                .iter()
                .filter(move |run| run.untouched || !untouched);
            counted.map(|run| (run.age, 1.0))
        };
        let batch = Rung {
            lane: Lane::Batch,
            price: self.price,
            curve: self.batch.curve(batch, *weight, ages(true)),
            whole: self.whole.curve(batch, *weight, ages(false)),
            before: self.settings.packing.linger,
            cancel: Some(Cancel {
                takes: self.cancel,
                finishing: self
                    .finishing
                    .believed(FINISHING, weight * FINISHING_WEIGHT),
            }),
            refused: 0.0,
        };
        let flex = self.flex.as_ref().map(|seen| {
            let curve = seen.curve(flex, *weight, []);
            Rung {
                lane: Lane::Flex,
                price: self.price,
                whole: curve.clone(),
                curve,
                before: Duration::ZERO,
                cancel: None,
                refused: self.refused.believed(*refused, *weight),
            }
        });
        self.sure = Plan::new(vec![batch.clone()], self.live, self.longest);
        self.plan = match flex {
            None => self.sure.clone(),
            Some(flex) => Plan::new(vec![flex, batch], self.live, self.longest),
        };
    }

    /// Looks at a batch that is over. Answers carry their own times.
    pub fn over(&mut self, over: &Over, now: Timestamp) {
        let ran = over.submitted.until(over.cancelled.unwrap_or(now));
        let (before, in_cancel): (Vec<Duration>, Vec<Duration>) =
            over.finished.iter().partition(|&&age| age <= ran);
        let each = 1.0 / f64::from(over.lines.max(1));
        let left = f64::from(over.lines) - before.len() as f64;
        if over.cancelled.is_some() {
            let age = over.submitted.until(now);
            self.in_cancel(in_cancel.len() as f64 * each, left * each, (ran, age));
        }
        for &age in &before {
            self.batch.ended(age, each);
        }
        if left > 0.0 {
            self.batch.left(ran, left * each);
            self.whole.left(ran, 1.0);
        } else if let Some(&last) = before.iter().max() {
            self.whole.ended(last, 1.0);
        }
    }

    /// So much of what was left ended from the cancel to its effect; beside it, what
    /// would have without one.
    fn in_cancel(&mut self, ended: f64, left: f64, (asked, over): (Duration, Duration)) {
        let Some(rung) = self.sure.rung(Lane::Batch) else {
            return;
        };
        let would_end = rung.curve.ended_between(asked, over);
        self.finishing.saw(ended, left * would_end);
    }

    pub fn flex_asked(&mut self, taken: bool) {
        self.refused.saw(f64::from(u8::from(!taken)), 1.0);
    }

    pub fn flex_ended(&mut self, age: Duration) {
        if let Some(flex) = &mut self.flex {
            flex.ended(age, 1.0);
        }
    }

    pub fn flex_left(&mut self, age: Duration) {
        if let Some(flex) = &mut self.flex {
            flex.left(age, 1.0);
        }
    }

    pub fn packing(&self) -> &pack::Settings {
        &self.settings.packing
    }

    /// What an ordinary call takes, at worst.
    pub fn live(&self) -> Duration {
        self.live
    }

    pub fn longest(&self) -> Duration {
        self.longest
    }
}
