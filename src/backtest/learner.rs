//! What Offpeak learns while it is played, and the plans that it makes of it:
//! `policy::turnaround` and `policy::plan`, as the server uses them.

use std::time::Duration;

use super::{latency::Law, world::Over};
use crate::{
    model::{attempt::Lane, time::Timestamp},
    policy::{
        plan::{Plan, Rung},
        turnaround::{Prior, Table},
    },
};

/// What is configured, and not learned.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Believed of batches at the start.
    pub batch: Prior,
    /// And of flex calls.
    pub flex: Prior,
    /// Counts as much as so many batches.
    pub weight: f64,
    pub half_life: Duration,
    /// Between two plans.
    pub replan: Duration,
    /// Added to what an ordinary call takes: between two turns of the rescuer.
    pub margin: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            batch: Prior {
                median: Duration::from_secs(420),
                p90: Duration::from_secs(3600),
                never: 0.02,
            },
            flex: Prior {
                median: Duration::from_secs(120),
                p90: Duration::from_secs(600),
                never: 0.001,
            },
            weight: 20.0,
            half_life: Duration::from_secs(86_400),
            replan: Duration::from_secs(900),
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
    flex: Table,
    /// Flex calls asked for and refused, the prior's among them.
    asked: f64,
    refused: f64,
    price: f64,
    cancel: Duration,
    linger: Duration,
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
    pub fn new(
        settings: Settings,
        law: &Law,
        price: f64,
        linger: Duration,
        longest: Duration,
    ) -> Learner {
        let live = law.latency() + settings.margin;
        let nothing = Plan::new(Vec::new(), live, Duration::ZERO);
        let mut learner = Learner {
            batch: Table::default(),
            whole: Table::default(),
            flex: Table::default(),
            asked: if law.flex.is_some() {
                settings.weight
            } else {
                0.0
            },
            refused: 0.1 * settings.weight,
            price,
            cancel: law.cancel(),
            linger,
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
        self.batch.fade(now, self.settings.half_life);
        self.whole.fade(now, self.settings.half_life);
        self.flex.fade(now, self.settings.half_life);
        self.make(running);
    }

    fn make(&mut self, running: &[Running]) {
        let Settings {
            batch,
            flex,
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
            before: self.linger,
            cancel: self.cancel,
            refused: 0.0,
        };
        let flexed = self.flex.curve(flex, *weight, []);
        let flex = (self.asked > 0.0).then(|| Rung {
            lane: Lane::Flex,
            price: self.price,
            whole: flexed.clone(),
            curve: flexed,
            before: Duration::ZERO,
            cancel: Duration::ZERO,
            refused: self.refused / self.asked,
        });
        self.sure = Plan::new(vec![batch.clone()], self.live, self.longest);
        self.plan = match flex {
            None => self.sure.clone(),
            Some(flex) => Plan::new(vec![flex, batch], self.live, self.longest),
        };
    }

    /// Looks at a batch that is over. Answers carry their own times.
    pub fn over(&mut self, over: &Over, now: Timestamp) {
        let each = 1.0 / f64::from(over.lines.max(1));
        for &age in &over.finished {
            self.batch.ended(age, each);
        }
        let unfinished = f64::from(over.lines) - over.finished.len() as f64;
        if unfinished > 0.0 {
            let age = over.submitted.until(now);
            self.batch.left(age, unfinished * each);
            self.whole.left(age, 1.0);
        } else if let Some(&last) = over.finished.iter().max() {
            self.whole.ended(last, 1.0);
        }
    }

    pub fn flex_asked(&mut self, taken: bool) {
        self.asked += 1.0;
        self.refused += f64::from(u8::from(!taken));
    }

    pub fn flex_ended(&mut self, age: Duration) {
        self.flex.ended(age, 1.0);
    }

    pub fn flex_left(&mut self, age: Duration) {
        self.flex.left(age, 1.0);
    }

    /// What an ordinary call takes, at worst.
    pub fn live(&self) -> Duration {
        self.live
    }

    pub fn longest(&self) -> Duration {
        self.longest
    }
}
