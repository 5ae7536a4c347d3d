//! What the world around the engine needs: time, chance, a receiver of webhooks,
//! and a pipe to the simulator that can be cut.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use offpeak::{
    app::SystemClock,
    model::{request::Bill, time::Timestamp},
    ports::{Clock, Deliver, HookEvent, HookOutcome},
    provider::connect::BoxError,
    simulator::{self, Simulator},
};
use parking_lot::Mutex;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{io::DuplexStream, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Wall time that moves with tokio's clock, and seeded chance.
pub struct Virtual {
    start: Timestamp,
    origin: Instant,
    random: Mutex<StdRng>,
}

impl Virtual {
    pub fn new(start: Timestamp, seed: u64) -> Self {
        Virtual {
            start,
            origin: Instant::now(),
            random: Mutex::new(StdRng::seed_from_u64(seed)),
        }
    }
}

impl Clock for Virtual {
    fn now(&self) -> Timestamp {
        self.start + self.origin.elapsed()
    }

    fn wall(&self) -> Timestamp {
        self.now()
    }

    fn random(&self) -> u128 {
        self.random.lock().random()
    }
}

/// A machine whose wall clock is set by somebody, as the app reads it; seeded chance.
pub struct Machine {
    told: SystemClock,
    wall: Arc<Wall>,
    random: Mutex<StdRng>,
}

struct Wall {
    start: Timestamp,
    origin: Instant,
    set: Mutex<(Duration, Duration)>,
}

impl Machine {
    pub fn new(start: Timestamp, seed: u64) -> Self {
        let wall = Arc::new(Wall {
            start,
            origin: Instant::now(),
            set: Mutex::default(),
        });
        let read = wall.clone();
        Machine {
            told: SystemClock::following(move || read.now()),
            wall,
            random: Mutex::new(StdRng::seed_from_u64(seed)),
        }
    }

    pub fn jump_forward(&self, by: Duration) {
        self.wall.set.lock().0 += by;
    }

    pub fn jump_back(&self, by: Duration) {
        self.wall.set.lock().1 += by;
    }
}

impl Wall {
    fn now(&self) -> Timestamp {
        let (forward, back) = *self.set.lock();
        self.start + self.origin.elapsed() + forward - back
    }
}

impl Clock for Machine {
    fn now(&self) -> Timestamp {
        self.told.now()
    }

    fn wall(&self) -> Timestamp {
        self.wall.now()
    }

    fn random(&self) -> u128 {
        self.random.lock().random()
    }
}

/// Receives webhooks; answers as scripted, then takes everything.
#[derive(Default)]
pub struct Hooks {
    seen: Mutex<Vec<Seen>>,
    script: Mutex<VecDeque<HookOutcome>>,
    /// What those whose target begins so answer, and how long that takes.
    standing: Mutex<Vec<(String, HookOutcome, Duration)>>,
    at_once: Mutex<BTreeMap<String, AtOnce>>,
}

/// One try, as it came.
#[derive(Clone, Debug)]
pub struct Seen {
    pub at: Timestamp,
    pub id: String,
    pub target: String,
    pub body: String,
    pub bill: Option<Bill>,
    pub secrets: Vec<u32>,
}

/// Tries that a target sees at the same time.
#[derive(Clone, Copy, Default)]
struct AtOnce {
    running: usize,
    most: usize,
}

impl Hooks {
    pub fn answer_with(&self, outcomes: impl IntoIterator<Item = HookOutcome>) {
        self.script.lock().extend(outcomes);
    }

    pub fn take_everything(&self) {
        self.script.lock().clear();
        self.standing.lock().clear();
    }

    /// From here on those whose target begins with this one answer so.
    pub fn stand(&self, target: &str, outcome: HookOutcome, takes: Duration) {
        let mut standing = self.standing.lock();
        standing.retain(|(known, ..)| known != target);
        standing.push((target.into(), outcome, takes));
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().clone()
    }

    /// Tries of this target, in the order of arrival.
    pub fn seen_by(&self, target: &str) -> Vec<Seen> {
        let seen = self.seen.lock();
        let its = seen.iter().filter(|seen| seen.target == target);
        its.cloned().collect()
    }

    /// The most tries that a target has seen at the same time.
    pub fn most_at_once(&self, target: &str) -> usize {
        let at_once = self.at_once.lock();
        at_once.get(target).map_or(0, |at_once| at_once.most)
    }

    /// Event ids, in the order of arrival.
    pub fn ids(&self) -> Vec<String> {
        self.seen
            .lock()
            .iter()
            .map(|seen| seen.id.clone())
            .collect()
    }

    pub fn bodies(&self) -> Vec<String> {
        let seen = self.seen.lock();
        seen.iter().map(|seen| seen.body.clone()).collect()
    }

    pub fn bills(&self) -> Vec<Option<Bill>> {
        self.seen.lock().iter().map(|seen| seen.bill).collect()
    }

    pub fn times(&self) -> Vec<Timestamp> {
        self.seen.lock().iter().map(|seen| seen.at).collect()
    }

    fn answer(&self, target: &str) -> (HookOutcome, Duration) {
        if let Some(next) = self.script.lock().pop_front() {
            return (next, Duration::ZERO);
        }
        let standing = self.standing.lock();
        let mut standing = standing.iter();
        match standing.find(|(known, ..)| target.starts_with(known)) {
            Some((_, outcome, takes)) => (outcome.clone(), *takes),
            None => (HookOutcome::Delivered { status: 200 }, Duration::ZERO),
        }
    }
}

#[async_trait]
impl Deliver for Hooks {
    fn check(&self, target: &str) -> Result<(), String> {
        match target.starts_with("https://") {
            true => Ok(()),
            false => Err("not https".into()),
        }
    }

    async fn deliver(&self, event: HookEvent) -> HookOutcome {
        self.seen.lock().push(Seen {
            at: event.wall,
            id: event.id,
            target: event.target.clone(),
            body: String::from_utf8_lossy(&event.body).into_owned(),
            bill: event.bill,
            secrets: event.secrets,
        });
        {
            let mut at_once = self.at_once.lock();
            let at_once = at_once.entry(event.target.clone()).or_default();
            at_once.running += 1;
            at_once.most = at_once.most.max(at_once.running);
        }
        let (outcome, takes) = self.answer(&event.target);
        if !takes.is_zero() {
            tokio::time::sleep(takes).await;
        }
        let mut at_once = self.at_once.lock();
        at_once.entry(event.target).or_default().running -= 1;
        outcome
    }
}

/// Connections to the simulator, which can be down.
#[derive(Clone)]
pub struct Line {
    simulator: Arc<Simulator>,
    tasks: TaskTracker,
    down: Arc<AtomicBool>,
    cut: Arc<Mutex<CancellationToken>>,
}

impl Line {
    pub fn to(simulator: Arc<Simulator>) -> Self {
        Line {
            simulator,
            tasks: TaskTracker::new(),
            down: Arc::default(),
            cut: Arc::default(),
        }
    }

    /// Cuts every connection and takes no new one for `lasting`.
    pub fn go_down(&self, lasting: Duration) {
        self.down.store(true, Ordering::Relaxed);
        std::mem::take(&mut *self.cut.lock()).cancel();
        let down = self.down.clone();
        self.tasks.spawn(async move {
            tokio::time::sleep(lasting).await;
            down.store(false, Ordering::Relaxed);
        });
    }

    pub async fn dial(self) -> Result<DuplexStream, BoxError> {
        if self.down.load(Ordering::Relaxed) {
            return Err("the provider is down".into());
        }
        let (ours, theirs) = tokio::io::duplex(256 * 1024);
        let cut = self.cut.lock().clone();
        let serving = simulator::serve_connection(theirs, self.simulator.clone());
        self.tasks.spawn(cut.run_until_cancelled_owned(serving));
        Ok(ours)
    }
}
