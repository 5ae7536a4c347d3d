//! When each live call may have its next try.

use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;

use crate::{
    engine::Engine,
    model::{id::RequestKey, time::Timestamp},
    policy::retry,
};

/// Calls that wait before their next try, and how often they have tried.
#[derive(Default)]
pub struct Backoffs(Mutex<HashMap<RequestKey, Backoff>>);

#[derive(Clone, Copy, Default)]
struct Backoff {
    until: Timestamp,
    tries: u32,
    /// Tries that the provider answered with an error. Not durable: nothing was
    /// paid for them.
    answered: u32,
}

impl Backoffs {
    pub fn len(&self) -> usize {
        self.0.lock().len()
    }

    pub fn until(&self, key: &RequestKey) -> Timestamp {
        self.0
            .lock()
            .get(key)
            .map_or(Timestamp::ZERO, |backoff| backoff.until)
    }

    /// Counts one more answer that was an error, and says how many there were.
    pub fn answered(&self, key: RequestKey) -> u32 {
        let mut backoffs = self.0.lock();
        let backoff = backoffs.entry(key).or_default();
        backoff.answered += 1;
        backoff.answered
    }

    pub fn put_off(
        &self,
        engine: &Engine,
        key: RequestKey,
        asked: Option<Duration>,
        latest: Option<Timestamp>,
    ) {
        let settings = &engine.settings.live;
        let mut backoffs = self.0.lock();
        let backoff = backoffs.entry(key).or_default();
        backoff.tries += 1;
        let (base, max) = (settings.retry_base, settings.retry_max);
        let pause = retry::backoff(backoff.tries, base, max, asked, engine.clock.random());
        let until = engine.now() + pause;
        backoff.until = latest.map_or(until, |latest| until.min(latest));
    }

    pub fn forget(&self, key: &RequestKey) {
        self.0.lock().remove(key);
    }
}
