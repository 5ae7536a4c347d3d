//! When each live call may have its next try.

use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;

use crate::{
    engine::Engine,
    model::{
        id::RequestKey,
        request::{Entry, Place, Request},
        time::Timestamp,
    },
    policy::{retry, throttle::Try},
    ports::StoreError,
};

/// Calls that wait before their next try, and how often they have tried.
#[derive(Default)]
pub struct Backoffs(Mutex<HashMap<RequestKey, Backoff>>);

#[derive(Clone, Copy)]
struct Backoff {
    entry: Entry,
    until: Timestamp,
    tries: u32,
    /// Tries that the provider answered with an error. Not durable: nothing was
    /// paid for them.
    answered: u32,
    next: Try,
}

/// Why a try came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The provider put it off, maybe for so long.
    Throttled(Option<Duration>),
    /// The provider answered with another error, and maybe said when to come back.
    Answered(Option<Duration>),
    /// There was no answer.
    Unanswered(Option<Duration>),
    /// Our own store failed.
    Ours,
}

impl Backoffs {
    pub fn len(&self) -> usize {
        self.0.lock().len()
    }

    pub fn contains(&self, key: &RequestKey) -> bool {
        self.0.lock().contains_key(key)
    }

    /// Those whose time has come, in no order, with what their next try is; and
    /// the instant at which the next one's comes.
    pub fn due(&self, now: Timestamp) -> (Vec<(Entry, Try)>, Option<Timestamp>) {
        let backoffs = self.0.lock();
        let due = backoffs.values().filter(|backoff| backoff.until <= now);
        let later = backoffs.values().map(|backoff| backoff.until);
        (
            due.map(|backoff| (backoff.entry, backoff.next)).collect(),
            later.filter(|until| *until > now).min(),
        )
    }

    /// How many answers were errors so far.
    pub fn answered(&self, key: &RequestKey) -> u32 {
        self.0.lock().get(key).map_or(0, |backoff| backoff.answered)
    }

    pub fn put_off(&self, engine: &Engine, entry: Entry, why: Why) {
        let settings = &engine.settings.live;
        let mut backoffs = self.0.lock();
        let backoff = backoffs.entry(entry.key).or_insert(Backoff {
            entry,
            until: Timestamp::ZERO,
            tries: 0,
            answered: 0,
            next: Try::First,
        });
        backoff.tries += 1;
        let (asked, next) = match why {
            Why::Throttled(Some(asked)) => (Some(asked), Try::Asked),
            Why::Throttled(None) => (None, Try::Again),
            Why::Answered(asked) | Why::Unanswered(asked) => (asked, Try::Again),
            Why::Ours => (None, Try::First),
        };
        if matches!(why, Why::Throttled(_) | Why::Answered(_)) {
            backoff.answered += 1;
        }
        backoff.next = next;
        let (base, max) = (settings.retry_base, settings.retry_max);
        let pause = retry::backoff(backoff.tries, base, max, asked, engine.clock.random());
        backoff.until = engine.now() + pause;
    }

    pub fn forget(&self, key: &RequestKey) {
        self.0.lock().remove(key);
    }
}

impl Engine {
    /// Puts the next try off, and keeps nothing of a request that has ended
    /// meanwhile.
    pub(super) async fn try_again(&self, request: &Request, why: Why) -> Result<(), StoreError> {
        self.backoffs.put_off(self, request.entry(), why);
        if self.store.place(request.key, &[]).await? != Some(Place::Live) {
            self.backoffs.forget(&request.key);
        }
        Ok(())
    }
}
