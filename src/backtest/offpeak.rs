//! Offpeak itself, on virtual time: admission, packing, the rescuer and the
//! learning of turnarounds, each through the function of `policy` that the server
//! uses. What stands here is what the engine does around them.
//!
//! A promise is firm where `demand::Capacity::has_room`. Firm work is given up by
//! its lane in time for its *latest start*, the instant at which its ordinary calls
//! must begin so that all that is due later fits behind them; to the plan that
//! instant, and what a call takes, is the deadline. Work that nothing was promised
//! for is rescued while there is room, and otherwise stays cheap and is late.

mod rescuer;

use std::{collections::BTreeMap, time::Duration};

use self::rescuer::Under;
use super::{
    cohorts::{Cohorts, Key, Ready},
    latency::Law,
    learner::{Learner, Settings},
    trace::Request,
    world::{BatchIx, Over, Player, RequestIx, World},
};
use crate::{
    model::{attempt::Lane, request::Bucket, time::Timestamp},
    policy::{
        demand::{self, Capacity, Demand},
        plan::{Choice, Leave, Stay},
    },
};

/// Classes of ordinary calls: what was promised goes first.
const FIRM: u8 = 0;
const REST: u8 = 1;

/// What it is woken for. Flex calls have their request and a number above these.
const PACK: u64 = 0;
const TURN: u64 = 1;
const FLEXED: u64 = 2;

/// Cheap attempts after which work that is late anyway is called for at last.
const PATIENCE: u8 = 10;

/// Between two looks at a flex call.
const LEAST_PAUSE: Duration = Duration::from_secs(1);

/// Longer than anything takes, in seconds.
const AGES: f64 = 1e9;

/// Between two turns of the rescuer that new work asks for.
const TURNS: Duration = Duration::from_secs(1);

pub struct Offpeak {
    learner: Learner,
    cohorts: Cohorts,
    /// What promises are given out of, and kept with.
    capacity: Capacity,
    /// By request.
    known: Vec<Known>,
    /// By bucket of deadlines: firm requests that may still need an ordinary call.
    demand: BTreeMap<Bucket, u32>,
    /// By class and bucket: requests that wait for an ordinary call, or are in a
    /// flex call.
    calling: [BTreeMap<Bucket, u32>; 2],
    /// Ordinary calls that wait, firm or not.
    backlog: u32,
    batches: BTreeMap<BatchIx, Under>,
    packed: Timestamp,
    turned: Timestamp,
    turn_at: Timestamp,
}

#[derive(Clone, Copy)]
struct Known {
    bucket: Bucket,
    firm: bool,
    /// Counted in `backlog`.
    live: bool,
    /// The class that it is counted under in `calling`.
    calling: Option<u8>,
    /// Told apart from wake-ups for flex calls before.
    flexes: u8,
    flex_began: Timestamp,
    /// When it is left, as last thought.
    flex_until: Timestamp,
}

impl Offpeak {
    pub fn new(settings: Settings, law: &Law, requests: &[Request]) -> Offpeak {
        let longest = (requests.iter().map(Request::slack).max()).unwrap_or_default();
        let price = requests.first().map_or(0.5, Request::price);
        let learner = Learner::new(settings, law, price, longest);
        let nothing = Known {
            bucket: Bucket::of(Timestamp::ZERO, Duration::ZERO),
            firm: false,
            live: false,
            calling: None,
            flexes: 0,
            flex_began: Timestamp::ZERO,
            flex_until: Timestamp::ZERO,
        };
        Offpeak {
            capacity: Capacity {
                rate: law.live.rate(),
                tokens: None,
                live: learner.live(),
            }
            .sure(),
            cohorts: Cohorts::new(learner.packing().clone()),
            learner,
            known: vec![nothing; requests.len()],
            demand: BTreeMap::new(),
            calling: Default::default(),
            backlog: 0,
            batches: BTreeMap::new(),
            packed: Timestamp::MAX,
            turned: Timestamp::ZERO,
            turn_at: Timestamp::MAX,
        }
    }

    /// Whether one more call due then could be promised, and if so its promise.
    fn promise(&mut self, from: Timestamp, request: RequestIx, due: Timestamp) -> bool {
        let work = self.demand.iter().map(demand);
        let more = Demand::of_calls(due, 1.0);
        if !self.capacity.has_room(from, more, work) {
            return false;
        }
        let known = &mut self.known[request as usize];
        known.firm = true;
        *self.demand.entry(known.bucket).or_default() += 1;
        true
    }

    /// What is left until an ordinary call of work due then must begin, and what
    /// that takes.
    fn slack(&self, now: Timestamp, bucket: Bucket, due: Timestamp) -> Duration {
        let live = self.learner.live();
        now.until(due - self.lead(bucket).max(live) + live)
    }

    /// How long before the deadlines of a bucket its ordinary calls must begin, so
    /// that all calls that share the capacity are in time.
    fn lead(&self, bucket: Bucket) -> Duration {
        let unpromised = self.calling[usize::from(REST)].range(bucket..);
        let all = self.demand.range(bucket..).chain(unpromised);
        let mut work: Vec<Demand> = all.map(demand).collect();
        work.sort_by_key(|demand| demand.due);
        let starts = self.capacity.latest_starts(&work);
        let start = starts.first();
        start.map_or(Duration::ZERO, |start| start.until(bucket.start))
    }

    /// Sends requests of one cohort, due at the earliest then, on their way.
    fn enter(
        &mut self,
        world: &mut World,
        key: Key,
        due: Timestamp,
        requests: Vec<RequestIx>,
        since: Timestamp,
    ) {
        let left = self.slack(world.now, key.bucket, due);
        let choice = self.learner.plan.choose(left);
        for request in requests {
            self.place(world, key, choice, left, request, since);
        }
        self.pack(world);
    }

    fn place(
        &mut self,
        world: &mut World,
        key: Key,
        choice: Choice,
        left: Duration,
        request: RequestIx,
        since: Timestamp,
    ) {
        let choice = match choice {
            Choice {
                lane: Lane::Flex,
                stay: Some(stay),
                ..
            } => {
                if self.flex(world, request, stay) {
                    return;
                }
                self.learner.sure.choose(left)
            }
            choice => choice,
        };
        match choice.lane {
            Lane::Standard if self.rescue(world, request) => {}
            _ => {
                let asked = &world.requests[request as usize];
                self.cohorts.add(key, request, asked, since);
            }
        }
    }

    /// An ordinary call, unless it would be late, was promised to nobody, and a
    /// cheaper lane may still answer.
    fn rescue(&mut self, world: &mut World, request: RequestIx) -> bool {
        let due = world.request(request).deadline;
        let firm = self.known[request as usize].firm || self.promise(world.now, request, due);
        if !firm {
            let waits = f64::from(self.backlog + 1) / world.law.live.rate();
            let slack = world.now.until(due).as_secs_f64();
            let late = waits + world.law.live.latency > slack;
            if late && world.progress(request).attempts < PATIENCE {
                return false;
            }
        }
        let known = &mut self.known[request as usize];
        if !known.live && !world.progress(request).answered {
            known.live = true;
            self.backlog += 1;
            world.live(request, self.calls(request));
        }
        true
    }

    fn flex(&mut self, world: &mut World, request: RequestIx, stay: Stay) -> bool {
        let taken = world.flex(request);
        self.learner.flex_asked(taken);
        if taken {
            let known = &mut self.known[request as usize];
            known.flexes = known.flexes.wrapping_add(1);
            known.flex_began = world.now;
            known.flex_until = world.now + Duration::from_secs_f64(stay.until.max(0.0));
            self.look_at_flex_again(world, request);
            self.calls(request);
        }
        taken
    }

    /// The more often the less is left.
    fn look_at_flex_again(&self, world: &mut World, request: RequestIx) {
        let known = &self.known[request as usize];
        let token = FLEXED + (u64::from(request) << 8 | u64::from(known.flexes));
        let left = world.now.until(known.flex_until);
        let pause = (left / 4).max(LEAST_PAUSE).min(left);
        world.wake_at(world.now + pause, token);
    }

    /// When to leave the call, by what was promised and learned since it began.
    fn flex_stays(&self, world: &World, request: RequestIx) -> Timestamp {
        let known = &self.known[request as usize];
        let Some(rung) = self.learner.plan.rung(Lane::Flex) else {
            return known.flex_until;
        };
        let slack = self.slack(world.now, known.bucket, world.request(request).deadline);
        let age = known.flex_began.until(world.now).as_secs_f64();
        let stay = self.learner.sure.stay(rung, age, slack.as_secs_f64());
        known.flex_began + Duration::from_secs_f64(stay.until.clamp(0.0, AGES))
    }

    /// Counts it among those that are calling, and says its class.
    fn calls(&mut self, request: RequestIx) -> u8 {
        let known = &mut self.known[request as usize];
        let class = if known.firm { FIRM } else { REST };
        if known.calling.is_none() {
            known.calling = Some(class);
            let counts = &mut self.calling[usize::from(class)];
            *counts.entry(known.bucket).or_default() += 1;
        }
        class
    }

    fn calls_no_more(&mut self, request: RequestIx) {
        let known = &mut self.known[request as usize];
        if let Some(class) = known.calling.take() {
            less(&mut self.calling[usize::from(class)], known.bucket);
        }
    }

    /// Leaves a flex call that has run for as long as the plan says.
    fn look_at_flex(&mut self, world: &mut World, token: u64) {
        let (request, number) = ((token >> 8) as RequestIx, token as u8);
        let known = self.known[request as usize];
        if known.flexes != number || world.progress(request).answered {
            return;
        }
        let until = self.flex_stays(world, request);
        self.known[request as usize].flex_until = until;
        if until > world.now {
            self.look_at_flex_again(world, request);
            return;
        }
        self.calls_no_more(request);
        world.hang_up(request);
        self.learner.flex_left(known.flex_began.until(world.now));
        let asked = world.request(request);
        let (due, since) = (asked.deadline, asked.arrival);
        let key = Key {
            bucket: known.bucket,
            model: asked.model,
            firm: known.firm,
        };
        self.enter(world, key, due, vec![request], since);
    }

    /// Sends what is ready.
    fn pack(&mut self, world: &mut World) {
        loop {
            match self.cohorts.next(world.now) {
                Ready::Batch(key, lines) => {
                    let due = (lines.iter().map(|&line| world.request(line).deadline)).min();
                    self.submit(world, key, due.unwrap_or(key.bucket.start), lines);
                }
                Ready::At(at) => {
                    if at < self.packed || self.packed <= world.now {
                        self.packed = at;
                        world.wake_at(at, PACK);
                    }
                    return;
                }
                Ready::Empty => return,
            }
        }
    }

    fn submit(&mut self, world: &mut World, key: Key, due: Timestamp, lines: Vec<RequestIx>) {
        // It may have waited long for a create.
        let left = self.slack(world.now, key.bucket, due);
        let too_late = self.learner.sure.choose(left).lane == Lane::Standard;
        let (_, lines): (Vec<_>, Vec<_>) =
            (lines.into_iter()).partition(|&line| too_late && self.rescue(world, line));
        if lines.is_empty() {
            return;
        }
        let batch = world.submit(lines.clone());
        let under = Under::new(key, world.now, due, lines);
        self.batches.insert(batch, under);
        self.turn_soon(world);
    }

    fn turn_soon(&mut self, world: &mut World) {
        self.turn_by(world, self.turned + TURNS);
    }

    fn turn_by(&mut self, world: &mut World, at: Timestamp) {
        let at = at.max(world.now);
        if at < self.turn_at {
            self.turn_at = at;
            world.wake_at(at, TURN);
        }
    }
}

impl Player for Offpeak {
    fn arrived(&mut self, world: &mut World, request: RequestIx) {
        self.replan(world);
        let asked = *world.request(request);
        let mut key = Key::of(&asked, world.now, true, self.learner.packing());
        self.known[request as usize].bucket = key.bucket;
        // By the bucket, as the demand is counted.
        let due = key.bucket.start.min(asked.deadline);
        let lane = self
            .learner
            .plan
            .choose(world.now.until(asked.deadline))
            .lane;
        let from = demand::runs_live_from(world.now, due, lane);
        key.firm = self.promise(from, request, due);
        if key.firm {
            world.tally.promise(request);
            self.turn_soon(world);
        }
        self.enter(world, key, asked.deadline, vec![request], world.now);
    }

    fn over(&mut self, world: &mut World, over: Over) {
        self.learner.over(&over, world.now);
        let Some(under) = self.batches.remove(&over.batch) else {
            return;
        };
        if over.left.is_empty() {
            return;
        }
        self.enter(world, under.key, under.due, over.left, under.submitted);
        self.turn_soon(world);
    }

    fn woken(&mut self, world: &mut World, token: u64) {
        match token {
            PACK => self.pack(world),
            TURN if self.turn_at <= world.now => {
                self.turn_at = Timestamp::MAX;
                self.turn(world);
            }
            TURN => {}
            _ => self.look_at_flex(world, token - FLEXED),
        }
    }

    fn relieved(&mut self, request: RequestIx) {
        self.calls_no_more(request);
        let known = &mut self.known[request as usize];
        self.backlog -= u32::from(std::mem::take(&mut known.live));
        if std::mem::take(&mut known.firm) {
            less(&mut self.demand, known.bucket);
        }
    }

    fn flexed(&mut self, _: &mut World, age: Duration) {
        self.learner.flex_ended(age);
    }
}

fn demand((bucket, &calls): (&Bucket, &u32)) -> Demand {
    Demand::of_calls(bucket.start, calls.into())
}

fn less(counts: &mut BTreeMap<Bucket, u32>, bucket: Bucket) {
    if let Some(count) = counts.get_mut(&bucket) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&bucket);
        }
    }
}
