//! The ordinary calls of one scope, as many as its capacity allows.

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use super::{
    latency,
    trace::START,
    world::{Progress, RequestIx},
};
use crate::model::time::Timestamp;

pub(super) struct Live {
    waiting: BinaryHeap<Reverse<(u8, Timestamp, RequestIx)>>,
    capacity: Capacity,
    /// A wake-up is on its way.
    woken: bool,
}

enum Capacity {
    /// Calls that run, and how many may.
    AtATime { running: u32, most: u32 },
    /// Calls that begin a second, a second's worth of them at once, and when the
    /// next one is due: seconds since the start, finer than an instant.
    PerSecond { rate: f64, next: f64 },
}

impl Live {
    pub fn new(law: &latency::Live) -> Live {
        let capacity = match law.at_a_time {
            Some(most) => Capacity::AtATime { running: 0, most },
            None => Capacity::PerSecond {
                rate: law.rate(),
                next: f64::NEG_INFINITY,
            },
        };
        Live {
            waiting: BinaryHeap::new(),
            capacity,
            woken: false,
        }
    }

    pub fn wait(&mut self, class: u8, deadline: Timestamp, request: RequestIx) {
        self.waiting.push(Reverse((class, deadline, request)));
    }

    /// The call that begins now. What was answered in the meantime needs none.
    pub fn next(&mut self, now: Timestamp, progress: &[Progress]) -> Option<RequestIx> {
        self.skip(progress);
        let Reverse((.., request)) = *self.waiting.peek()?;
        match &mut self.capacity {
            Capacity::AtATime { running, most } if *running < *most => *running += 1,
            Capacity::PerSecond { rate, next } if *next <= since_start(now) + 1e-3 => {
                let saved = (1.0 - 1.0 / *rate).max(0.0);
                *next = next.max(since_start(now) - saved) + 1.0 / *rate;
            }
            _ => return None,
        }
        self.waiting.pop();
        Some(request)
    }

    fn skip(&mut self, progress: &[Progress]) {
        while let Some(Reverse((.., request))) = self.waiting.peek()
            && progress[*request as usize].answered
        {
            self.waiting.pop();
        }
    }

    pub fn ended(&mut self) {
        if let Capacity::AtATime { running, .. } = &mut self.capacity {
            *running = running.saturating_sub(1);
        }
    }

    pub fn woken(&mut self) {
        self.woken = false;
    }

    /// When the next call may begin, where one waits and nobody has been told.
    pub fn wake(&mut self, now: Timestamp) -> Option<Timestamp> {
        let Capacity::PerSecond { next, .. } = self.capacity else {
            return None;
        };
        if self.woken || self.waiting.is_empty() {
            return None;
        }
        self.woken = true;
        let at = START + Duration::from_secs_f64(next.max(0.0));
        Some(at.max(now + Duration::from_millis(1)))
    }
}

fn since_start(now: Timestamp) -> f64 {
    START.until(now).as_secs_f64()
}
