//! What one would do without Offpeak, and what Offpeak did before it planned. All
//! that use batches pack them alike.

use std::time::Duration;

use super::{
    cohorts::{Cohorts, Key, Ready},
    world::{BatchIx, Over, Player, RequestIx, World},
};
use crate::{model::time::Timestamp, policy::pack};

/// Every call at once, at the ordinary price.
pub struct AlwaysLive;

impl Player for AlwaysLive {
    fn arrived(&mut self, world: &mut World, request: RequestIx) {
        world.live(request, 0);
    }

    fn over(&mut self, _: &mut World, _: Over) {}
}

/// A batch, and what becomes of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rescue {
    /// Nobody looks after it.
    Never,
    /// Cancelled `reserve` before the deadline; ordinary calls for what it has not
    /// answered, `last_call` before the deadline in any case.
    Reserve {
        reserve: Duration,
        last_call: Duration,
    },
    /// Ordinary calls, and the cancel, at the last moment of all.
    LastMoment,
}

/// Everything enters a batch, and leaves it by a fixed rule.
pub struct Fixed {
    rescue: Rescue,
    packing: pack::Settings,
    cohorts: Cohorts,
    /// By batch: its lines, until it is over.
    lines: Vec<Vec<RequestIx>>,
    woken: Timestamp,
}

/// Tokens of wake-ups: one for packing, two for every batch.
const PACK: u64 = 0;

impl Fixed {
    pub fn new(rescue: Rescue, packing: &pack::Settings) -> Fixed {
        Fixed {
            rescue,
            packing: packing.clone(),
            cohorts: Cohorts::new(packing.clone()),
            lines: Vec::new(),
            woken: Timestamp::MAX,
        }
    }

    fn pack(&mut self, world: &mut World) {
        loop {
            match self.cohorts.next(world.now) {
                Ready::Batch(key, lines) => {
                    let batch = world.submit(lines.clone());
                    self.lines.push(lines);
                    self.watch(world, batch, key.bucket.start);
                }
                Ready::At(at) => {
                    if at < self.woken || self.woken <= world.now {
                        self.woken = at;
                        world.wake_at(at, PACK);
                    }
                    return;
                }
                Ready::Empty => return,
            }
        }
    }

    fn watch(&self, world: &mut World, batch: BatchIx, deadline: Timestamp) {
        let token = u64::from(batch) * 2 + 1;
        match self.rescue {
            Rescue::Never => {}
            Rescue::Reserve { reserve, last_call } => {
                world.wake_at(deadline - reserve, token);
                world.wake_at(deadline - last_call, token + 1);
            }
            Rescue::LastMoment => {
                let begin = deadline - world.law.latency();
                world.wake_at(begin, token);
                world.wake_at(begin, token + 1);
            }
        }
    }
}

impl Player for Fixed {
    fn arrived(&mut self, world: &mut World, request: RequestIx) {
        let asked = world.request(request);
        let key = Key::of(asked, world.now, true, &self.packing);
        if let Rescue::Reserve { reserve, .. } = self.rescue
            && key.bucket.start - reserve <= world.now + self.packing.linger
        {
            world.live(request, 0);
            return;
        }
        self.cohorts.add(key, request, asked, world.now);
        self.pack(world);
    }

    fn woken(&mut self, world: &mut World, token: u64) {
        if token == PACK {
            return self.pack(world);
        }
        let batch = ((token - 1) / 2) as BatchIx;
        if token % 2 == 1 {
            if !self.lines[batch as usize].is_empty() {
                world.cancel(batch);
            }
            return;
        }
        for request in std::mem::take(&mut self.lines[batch as usize]) {
            world.live(request, 0);
        }
    }

    fn over(&mut self, world: &mut World, over: Over) {
        self.lines[over.batch as usize].clear();
        if self.rescue != Rescue::Never {
            for request in over.left {
                world.live(request, 0);
            }
        }
    }
}
