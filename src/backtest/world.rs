//! The world that a policy is played in: virtual time, a provider by its law, and
//! what is paid. Only it knows the draws. A batch's answers come when it ends, or
//! when its cancel takes effect; every line that has finished by then is billed,
//! whether anybody still needs it or not. Answers are seen as they come: how often
//! a server asks is not played.

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use super::{
    draw::Draw,
    latency::{Law, Turnaround},
    live::Live,
    tally::Tally,
    trace::{Request, START},
};
use crate::model::time::Timestamp;

/// Index of a request in the trace, and of a batch in order of submission.
pub type RequestIx = u32;
pub type BatchIx = u32;

/// A policy that is played. It is told what happens and acts on the world.
pub trait Player {
    fn arrived(&mut self, world: &mut World, request: RequestIx);
    /// A batch is over.
    fn over(&mut self, world: &mut World, over: Over);
    /// It asked to be woken now.
    fn woken(&mut self, _world: &mut World, _token: u64) {}
    /// The request needs no ordinary call any more: it has its answer, or its
    /// call begins.
    fn relieved(&mut self, _request: RequestIx) {}
    /// A flex call was answered, at this age.
    fn flexed(&mut self, _world: &mut World, _age: Duration) {}
}

/// What is found in a batch that ended or was cancelled.
pub struct Over {
    pub batch: BatchIx,
    pub submitted: Timestamp,
    /// When its cancel was asked for.
    pub cancelled: Option<Timestamp>,
    pub lines: u32,
    /// How long each line took that finished.
    pub finished: Vec<Duration>,
    /// Those that did not and have no answer from elsewhere.
    pub left: Vec<RequestIx>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Ends(BatchIx),
    CancelTakesEffect(BatchIx),
    LiveAnswers(RequestIx),
    LiveMayBegin,
    /// The call's attempt: it may have been hung up, and another be under way.
    FlexAnswers(RequestIx, u8),
    Wake(u64),
}

struct Batch {
    submitted: Timestamp,
    lines: Vec<Line>,
    /// When its cancel was asked for.
    cancelled: Option<Timestamp>,
}

#[derive(Clone, Copy)]
struct Line {
    request: RequestIx,
    attempt: u32,
}

/// How far a request has come.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    /// Batches and flex calls that it was in.
    pub attempts: u8,
    pub answered: bool,
    /// Waits for an ordinary call, or is in one.
    pub live: bool,
    /// The flex call that it is in: its attempt.
    flex: Option<u8>,
}

pub struct World<'a> {
    pub now: Timestamp,
    pub requests: &'a [Request],
    pub law: &'a Law,
    pub progress: Vec<Progress>,
    pub tally: Tally,
    luck: Luck,
    events: BinaryHeap<Reverse<(Timestamp, u64, Event)>>,
    sequence: u64,
    batches: Vec<Option<Batch>>,
    live: Live,
}

/// The draws, by what they are for.
struct Luck {
    seed: u64,
    batch: Turnaround,
    flex: Option<Turnaround>,
}

/// What draws are for.
const BATCH: u64 = 0x21;
const FLEX: u64 = 0x22;
const REFUSED: u64 = 0x23;
const STOPPED: u64 = 0x24;

impl Luck {
    fn of(&self, purpose: u64, request: RequestIx, attempt: u32) -> Draw {
        Draw::new(self.seed, purpose)
            .nth(request.into())
            .nth(attempt.into())
    }
}

/// Plays the whole trace.
pub fn play(requests: &[Request], law: &Law, seed: u64, player: &mut impl Player) -> Tally {
    let mut world = World::new(requests, law, seed);
    let mut next = 0;
    loop {
        let arrival = requests.get(next).map(|request| request.arrival);
        let event = world.events.peek().map(|Reverse((at, ..))| *at);
        match (arrival, event) {
            (Some(at), event) if event.is_none_or(|event| at <= event) => {
                world.now = at;
                player.arrived(&mut world, next as RequestIx);
                next += 1;
            }
            (_, Some(_)) => world.step(player),
            (_, None) => break,
        }
        world.begin_live(player);
    }
    world.tally.over(requests, &world.progress);
    world.tally
}

impl<'a> World<'a> {
    pub fn new(requests: &'a [Request], law: &'a Law, seed: u64) -> World<'a> {
        World {
            now: START,
            requests,
            law,
            progress: vec![Progress::default(); requests.len()],
            tally: Tally::new(requests.len()),
            luck: Luck {
                seed,
                batch: law.batch.turnaround(),
                flex: law.flex.as_ref().map(super::latency::Flex::turnaround),
            },
            events: BinaryHeap::new(),
            sequence: 0,
            batches: Vec::new(),
            live: Live::new(&law.live),
        }
    }

    /// What the future holds for the `attempt`th batch of a request alone, begun
    /// at that instant.
    pub(super) fn foresee(&self, begun: Timestamp, request: RequestIx, attempt: u8) -> Timestamp {
        let luck = self.luck.of(BATCH, request, attempt.into());
        self.ends(begun, self.luck.batch.draw(luck))
    }

    /// The same for its `attempt`th flex call; none where it is refused.
    pub(super) fn foresee_flex(&self, request: RequestIx, attempt: u8) -> Option<Duration> {
        let flex = self.law.flex.as_ref()?;
        let luck = |purpose| self.luck.of(purpose, request, attempt.into());
        if luck(REFUSED).unit() < flex.refused {
            return None;
        }
        let age = self.luck.flex.as_ref()?.draw(luck(FLEX))?;
        Duration::try_from_secs_f64(age).ok()
    }

    pub fn request(&self, request: RequestIx) -> &Request {
        &self.requests[request as usize]
    }

    pub fn progress(&self, request: RequestIx) -> Progress {
        self.progress[request as usize]
    }

    /// The player is woken with the token; not before now.
    pub fn wake_at(&mut self, at: Timestamp, token: u64) {
        self.schedule(at.max(self.now), Event::Wake(token));
    }

    fn schedule(&mut self, at: Timestamp, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse((at, self.sequence, event)));
    }

    /// Sends a batch. The lines have no other attempt under way.
    pub fn submit(&mut self, requests: Vec<RequestIx>) -> BatchIx {
        let lines: Vec<Line> = requests
            .into_iter()
            .map(|request| Line {
                request,
                attempt: self.attempt(request).into(),
            })
            .collect();
        let batch = Batch {
            submitted: self.now,
            lines,
            cancelled: None,
        };
        let ends = (batch.lines.iter())
            .map(|line| self.finishes(&batch, line))
            .max()
            .unwrap_or(self.now);
        let expires = self.now + Duration::from_secs_f64(self.law.batch.expires);
        let index = self.batches.len() as BatchIx;
        self.batches.push(Some(batch));
        self.tally.batches += 1;
        self.schedule(ends.min(expires), Event::Ends(index));
        index
    }

    fn attempt(&mut self, request: RequestIx) -> u8 {
        let progress = &mut self.progress[request as usize];
        let attempt = progress.attempts;
        progress.attempts = attempt.saturating_add(1);
        attempt
    }

    /// When a line finishes, whoever still waits for it; never where a cancel has
    /// stopped it. Where lines end together the first one's luck is the batch's.
    fn finishes(&self, batch: &Batch, line: &Line) -> Timestamp {
        let lucky = match batch.lines.first() {
            Some(first) if self.law.batch.together => first,
            _ => line,
        };
        let luck = |purpose| self.luck.of(purpose, lucky.request, lucky.attempt);
        let ends = self.ends(batch.submitted, self.luck.batch.draw(luck(BATCH)));
        let stopped =
            |asked: Timestamp| ends > asked && luck(STOPPED).unit() >= self.law.batch.finishing;
        match batch.cancelled.is_some_and(stopped) {
            true => Timestamp::MAX,
            false => ends,
        }
    }

    /// When something ends that was begun now and needs so many seconds of a
    /// provider that moves.
    fn ends(&self, begun: Timestamp, age: Option<f64>) -> Timestamp {
        let Some(age) = age else {
            return Timestamp::MAX;
        };
        let since = START.until(begun).as_secs_f64();
        let ends = self.law.stalled(since, age) - since;
        begun + Duration::try_from_secs_f64(ends).unwrap_or(Duration::MAX)
    }

    /// Lines that the provider's counts show as done.
    pub fn completed(&self, batch: BatchIx) -> usize {
        let Some(under) = &self.batches[batch as usize] else {
            return 0;
        };
        let done = |line: &&Line| self.finishes(under, line) <= self.now;
        under.lines.iter().filter(done).count()
    }

    /// Asks for a cancel; nothing happens where it was asked for or is over.
    pub fn cancel(&mut self, batch: BatchIx) {
        if let Some(under) = &mut self.batches[batch as usize]
            && under.cancelled.is_none()
        {
            under.cancelled = Some(self.now);
            let effect = self.now + self.law.cancel();
            self.schedule(effect, Event::CancelTakesEffect(batch));
        }
    }

    /// Asks for an ordinary call. Of two classes the lower goes first, and within
    /// one the earliest deadline.
    pub fn live(&mut self, request: RequestIx, class: u8) {
        let progress = &mut self.progress[request as usize];
        if progress.answered || progress.live {
            return;
        }
        progress.live = true;
        let deadline = self.requests[request as usize].deadline;
        self.live.wait(class, deadline, request);
    }

    /// Asks for a flex call; false where it is refused.
    pub fn flex(&mut self, request: RequestIx) -> bool {
        let attempt = self.attempt(request);
        let refused = self.law.flex.as_ref().map_or(1.0, |flex| flex.refused);
        let luck = |purpose| self.luck.of(purpose, request, attempt.into());
        if luck(REFUSED).unit() < refused {
            return false;
        }
        let age = self.luck.flex.as_ref().and_then(|law| law.draw(luck(FLEX)));
        if let Some(age) = age {
            let ends = self.now + Duration::try_from_secs_f64(age).unwrap_or(Duration::MAX);
            self.schedule(ends, Event::FlexAnswers(request, attempt));
        }
        self.progress[request as usize].flex = Some(attempt);
        self.tally.flex += 1;
        true
    }

    /// Hangs up a flex call. It runs on, and is billed when it ends.
    pub fn hang_up(&mut self, request: RequestIx) {
        self.progress[request as usize].flex = None;
    }

    fn step(&mut self, player: &mut impl Player) {
        let Some(Reverse((at, _, event))) = self.events.pop() else {
            return;
        };
        self.now = at;
        match event {
            Event::Ends(batch) => {
                let ended =
                    (self.batches[batch as usize]).take_if(|batch| batch.cancelled.is_none());
                if let Some(ended) = ended {
                    self.harvest(batch, ended, player);
                }
            }
            Event::CancelTakesEffect(batch) => {
                if let Some(cancelled) = self.batches[batch as usize].take() {
                    self.harvest(batch, cancelled, player);
                }
            }
            Event::LiveAnswers(request) => {
                self.live.ended();
                let paid = self.request(request).standard;
                self.answer(request, paid, true, player);
            }
            Event::LiveMayBegin => self.live.woken(),
            Event::FlexAnswers(request, attempt) => self.flex_answers(request, attempt, player),
            Event::Wake(token) => player.woken(self, token),
        }
    }

    fn flex_answers(&mut self, request: RequestIx, attempt: u8, player: &mut impl Player) {
        let paid = self.request(request).cheap;
        if self.progress(request).flex != Some(attempt) {
            self.tally.again(request, paid);
            return;
        }
        let luck = self.luck.of(FLEX, request, attempt.into());
        let age = self.luck.flex.as_ref().and_then(|law| law.draw(luck));
        self.progress[request as usize].flex = None;
        self.answer(request, paid, false, player);
        if let Some(age) = age {
            player.flexed(self, Duration::from_secs_f64(age));
        }
    }

    fn harvest(&mut self, index: BatchIx, batch: Batch, player: &mut impl Player) {
        let mut over = Over {
            batch: index,
            submitted: batch.submitted,
            cancelled: batch.cancelled,
            lines: batch.lines.len() as u32,
            finished: Vec::new(),
            left: Vec::new(),
        };
        for line in &batch.lines {
            let finished = self.finishes(&batch, line);
            if finished <= self.now {
                over.finished.push(batch.submitted.until(finished));
                let paid = self.request(line.request).cheap;
                self.answer(line.request, paid, false, player);
            } else if !self.progress(line.request).answered && !self.progress(line.request).live {
                over.left.push(line.request);
            }
        }
        player.over(self, over);
    }

    fn answer(
        &mut self,
        request: RequestIx,
        paid: crate::model::money::Usd,
        standard: bool,
        player: &mut impl Player,
    ) {
        let index = request as usize;
        let asked = &self.requests[index];
        if self.progress[index].answered {
            self.tally.again(request, paid);
            return;
        }
        self.progress[index].answered = true;
        let tried = self.progress[index].attempts > 0;
        self.tally
            .answer(asked, request, self.now, paid, standard, tried);
        if !standard {
            player.relieved(request);
        }
    }

    /// Begins the ordinary calls that can begin now.
    fn begin_live(&mut self, player: &mut impl Player) {
        while let Some(request) = self.live.next(self.now, &self.progress) {
            let ends = self.now + self.law.latency();
            self.schedule(ends, Event::LiveAnswers(request));
            player.relieved(request);
        }
        if let Some(at) = self.live.wake(self.now) {
            self.schedule(at, Event::LiveMayBegin);
        }
    }
}
