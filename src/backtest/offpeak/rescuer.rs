//! The rescuer's turn: when every batch under way is left.

use std::time::Duration;

use super::{BatchIx, Demand, FIRM, Key, Leave, Offpeak, RequestIx, Timestamp, World};
use crate::{backtest::learner::Running, model::attempt::Lane};

/// A batch under way.
pub(super) struct Under {
    pub key: Key,
    pub submitted: Timestamp,
    /// Its earliest deadline.
    pub due: Timestamp,
    pub lines: Vec<RequestIx>,
    pub leaving: Leaving,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Leaving {
    /// Not asked of the plan yet.
    Unplanned,
    /// The plan leaves it then, where its latest start is `start`.
    Planned {
        at: Timestamp,
        how: Leave,
        start: Timestamp,
    },
    /// The cancel has been asked for.
    Cancelling,
    /// Its lines have gone live.
    Overtaken,
    /// Nothing was promised, and it is too late: it is cancelled then for being
    /// slow.
    Late { at: Timestamp },
}

impl Under {
    pub fn new(key: Key, submitted: Timestamp, due: Timestamp, lines: Vec<RequestIx>) -> Under {
        Under {
            key,
            submitted,
            due,
            lines,
            leaving: Leaving::Unplanned,
        }
    }
}

impl Under {
    fn is_cancelled(&self) -> bool {
        matches!(self.leaving, Leaving::Cancelling | Leaving::Overtaken)
    }
}

/// Firm work that would have to go live.
#[derive(Clone, Copy)]
enum Work {
    Batch(BatchIx),
    Queue(Key),
    /// Waits for its call already, or is in a flex call.
    Live,
}

impl Offpeak {
    pub(super) fn replan(&mut self, world: &World) {
        let now = world.now;
        if !self.learner.is_due(now) {
            return;
        }
        // What ends in a cancel is learned apart.
        let running = self
            .batches
            .iter()
            .filter(|(_, under)| !under.is_cancelled());
        let running = running.map(|(&batch, under)| Running {
            age: under.submitted.until(now),
            untouched: world.completed(batch) == 0,
        });
        let running: Vec<Running> = running.collect();
        self.learner.replan(now, &running);
        for under in self.batches.values_mut() {
            if matches!(under.leaving, Leaving::Planned { .. }) {
                under.leaving = Leaving::Unplanned;
            }
        }
    }

    /// Leaves what has to be left now, and comes back in time for the next.
    pub(super) fn turn(&mut self, world: &mut World) {
        self.turned = world.now;
        self.replan(world);
        let (work, demand) = self.work();
        let starts = self.capacity.latest_starts(&demand);
        let mut next = Timestamp::MAX;
        for (work, start) in work.into_iter().zip(starts) {
            let at = match work {
                Work::Batch(batch) => self.firm(world, batch, start),
                Work::Queue(key) => self.queued(world, key, start),
                Work::Live => Timestamp::MAX,
            };
            next = next.min(at);
        }
        let rest: Vec<BatchIx> = (self.batches.iter())
            .filter(|(_, under)| !under.key.firm)
            .map(|(&batch, _)| batch)
            .collect();
        for batch in rest {
            next = next.min(self.unpromised(world, batch));
        }
        if next < Timestamp::MAX {
            self.turn_by(world, next.max(world.now + Duration::from_millis(1)));
        }
        self.pack(world);
    }

    /// All that is firm and has no ordinary call yet, in order of deadlines.
    fn work(&self) -> (Vec<Work>, Vec<Demand>) {
        let calls = |lines: usize| lines as f64;
        let batches = self
            .batches
            .iter()
            .filter(|(_, under)| under.key.firm && under.leaving != Leaving::Overtaken);
        let batches = batches
            .map(|(&batch, under)| (under.due, calls(under.lines.len()), Work::Batch(batch)));
        let queues = self.cohorts.waiting().filter(|(key, _)| key.firm);
        let queues = queues.map(|(key, entries)| {
            let due = entries.iter().map(|(_, entry)| entry.deadline).min();
            (
                due.unwrap_or(key.bucket.start),
                calls(entries.len()),
                Work::Queue(key),
            )
        });
        let live = self.calling[usize::from(FIRM)].iter();
        let live = live.map(|(bucket, &count)| (bucket.start, f64::from(count), Work::Live));
        let mut all: Vec<_> = batches.chain(queues).chain(live).collect();
        all.sort_by_key(|(due, ..)| *due);
        let demand = |&(due, calls, _): &(Timestamp, f64, Work)| Demand::of_calls(due, calls);
        let demands = all.iter().map(demand).collect();
        (all.into_iter().map(|(.., work)| work).collect(), demands)
    }

    /// When the batch is to be looked at again.
    fn firm(&mut self, world: &mut World, batch: BatchIx, start: Timestamp) -> Timestamp {
        let Some(under) = self.batches.get_mut(&batch) else {
            return Timestamp::MAX;
        };
        match under.leaving {
            Leaving::Planned {
                at, start: planned, ..
            } if at > world.now && planned <= start + Duration::from_secs(1) => return at,
            Leaving::Cancelling if start > world.now => return start,
            Leaving::Cancelling => return self.overtake(world, batch),
            Leaving::Overtaken | Leaving::Late { .. } => return Timestamp::MAX,
            Leaving::Unplanned | Leaving::Planned { .. } => {}
        }
        let by = under.due.min(start + self.learner.live());
        let (submitted, now) = (under.submitted, world.now);
        let before = left_before(world, &under.lines);
        let (at, how) = leave(&self.learner, submitted, now, now.until(by), before);
        if at > now {
            under.leaving = Leaving::Planned { at, how, start };
            return at;
        }
        match how {
            Leave::Cancel => {
                under.leaving = Leaving::Cancelling;
                world.cancel(batch);
                start.max(now)
            }
            Leave::Overtake | Leave::GiveUp => self.overtake(world, batch),
        }
    }

    /// Its lines go live, and it is cancelled.
    fn overtake(&mut self, world: &mut World, batch: BatchIx) -> Timestamp {
        let Some(under) = self.batches.get_mut(&batch) else {
            return Timestamp::MAX;
        };
        under.leaving = Leaving::Overtaken;
        let lines = under.lines.clone();
        world.cancel(batch);
        for line in lines {
            self.rescue(world, line);
        }
        Timestamp::MAX
    }

    /// A cohort that waits for a batch to be created, and may wait too long.
    fn queued(&mut self, world: &mut World, key: Key, start: Timestamp) -> Timestamp {
        if start > world.now {
            return start;
        }
        for request in self.cohorts.remove(&key) {
            self.rescue(world, request);
        }
        Timestamp::MAX
    }

    fn unpromised(&mut self, world: &mut World, batch: BatchIx) -> Timestamp {
        let Some(under) = self.batches.get_mut(&batch) else {
            return Timestamp::MAX;
        };
        let (submitted, now, longest) = (under.submitted, world.now, self.learner.longest());
        match under.leaving {
            Leaving::Cancelling | Leaving::Overtaken => return Timestamp::MAX,
            Leaving::Late { at } | Leaving::Planned { at, .. } if at > now => return at,
            Leaving::Late { .. } => {
                under.leaving = Leaving::Cancelling;
                world.cancel(batch);
                return Timestamp::MAX;
            }
            Leaving::Unplanned | Leaving::Planned { .. } => {}
        }
        let slack = now.until(under.due);
        let before = left_before(world, &under.lines);
        let (at, how) = leave(&self.learner, submitted, now, slack, before);
        if at > now {
            under.leaving = Leaving::Planned { at, how, start: at };
            return at;
        }
        if how == Leave::Cancel {
            under.leaving = Leaving::Cancelling;
            world.cancel(batch);
            return Timestamp::MAX;
        }
        let lines = under.lines.clone();
        let all = lines.len();
        let gone = lines
            .into_iter()
            .filter(|&line| self.rescue(world, line))
            .count();
        if gone == all {
            return self.overtake(world, batch);
        }
        let (at, _) = leave(&self.learner, submitted, now, longest, before);
        if let Some(under) = self.batches.get_mut(&batch) {
            under.leaving = Leaving::Late { at };
        }
        at
    }
}

/// How many batches its lines have been in before.
fn left_before(world: &World, lines: &[RequestIx]) -> u32 {
    let attempts = lines.iter().map(|&line| world.progress(line).attempts);
    u32::from(attempts.max().unwrap_or(0)).saturating_sub(1)
}

/// When a batch is left by the plan, with so much slack, and how.
fn leave(
    learner: &super::Learner,
    submitted: Timestamp,
    now: Timestamp,
    slack: Duration,
    left_before: u32,
) -> (Timestamp, Leave) {
    let age = submitted.until(now).as_secs_f64();
    let Some(rung) = learner.sure.rung(Lane::Batch) else {
        return (now, Leave::Overtake);
    };
    let stay = learner.plan.stay(rung, age, slack.as_secs_f64());
    let mut at = Duration::try_from_secs_f64(stay.until.max(0.0)).unwrap_or(Duration::MAX);
    let by = submitted + at;
    let cancelled = by + rung.cancel_takes();
    if stay.leave == Leave::Cancel {
        let left = (now + slack).since(cancelled);
        if learner.plan.choose(left).lane == Lane::Batch {
            // But never beyond the last moment for a cancel.
            let last = age + (slack.as_secs_f64() - learner.live().as_secs_f64());
            let last = Duration::try_from_secs_f64(last.max(0.0)).unwrap_or(Duration::MAX);
            let last = last.saturating_sub(rung.cancel_takes()).max(at);
            at = rung.patience(left_before).clamp(at, last);
        }
    }
    (submitted + at, stay.leave)
}
