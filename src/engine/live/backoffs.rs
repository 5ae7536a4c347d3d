//! When each live call has its next step: another try, or a look at the background
//! response that is to answer it.

use std::{sync::Arc, time::Duration};

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

use super::{background::Remote, rungs::Known, schedule::Schedule};

/// A step of a batch takes about as long, where it is not a harvest.
const FOR_A_STEP: Duration = Duration::from_secs(1);

/// Calls that wait before their next step, and how often they have tried.
#[derive(Default)]
pub struct Backoffs(Mutex<Schedule<RequestKey, Backoff>>);

struct Backoff {
    entry: Entry,
    tries: u32,
    /// Tries that the provider answered with an error. Not durable: nothing was
    /// paid for them.
    answered: u32,
    next: Try,
    known: Known,
    /// The background response that is open for it.
    remote: Option<Arc<Remote>>,
    /// The look has no time to wait behind others.
    urgent: bool,
    /// The request has ended since the last look began: whatever that one finds, the
    /// next is at once.
    ended: bool,
}

impl Backoff {
    fn of(entry: Entry) -> Backoff {
        Backoff {
            entry,
            tries: 0,
            answered: 0,
            next: Try::First,
            known: Known::default(),
            remote: None,
            urgent: false,
            ended: false,
        }
    }
}

/// A next step whose time has come.
pub enum Due {
    Try {
        entry: Entry,
        attempt: Try,
        known: Known,
    },
    Look {
        entry: Entry,
        remote: Arc<Remote>,
        urgent: bool,
    },
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
        self.0.lock().contains(key)
    }

    /// Those whose time has come, the longest due first, and the instant at which the
    /// next one's comes.
    pub fn due(&self, now: Timestamp) -> (Vec<Due>, Option<Timestamp>) {
        let backoffs = self.0.lock();
        let due = backoffs.due(now).map(|backoff| match &backoff.remote {
            Some(remote) => Due::Look {
                entry: backoff.entry,
                remote: remote.clone(),
                urgent: backoff.urgent,
            },
            None => Due::Try {
                entry: backoff.entry,
                attempt: backoff.next,
                known: backoff.known.clone(),
            },
        });
        (due.collect(), backoffs.next_after(now))
    }

    pub fn known(&self, key: &RequestKey) -> Known {
        let backoffs = self.0.lock();
        backoffs
            .get(key)
            .map_or_else(Known::default, |backoff| backoff.known.clone())
    }

    /// The next rung, at once.
    pub fn step_down(&self, entry: Entry, known: Known) {
        self.keep(entry, known, Timestamp::ZERO);
    }

    /// It waits for money, until it is called.
    pub fn park(&self, entry: Entry, known: Known) {
        self.keep(entry, known, Timestamp::MAX);
    }

    /// Those that wait for money may ask for it again.
    pub fn call(&self, keys: &[RequestKey]) {
        let mut backoffs = self.0.lock();
        for key in keys {
            if let Some(backoff) = backoffs.remove(key) {
                backoffs.insert(*key, Timestamp::ZERO, backoff);
            }
        }
    }

    fn keep(&self, entry: Entry, known: Known, until: Timestamp) {
        let mut backoffs = self.0.lock();
        let tries = backoffs.get(&entry.key);
        let (tries, answered) = tries.map_or((0, 0), |it| (it.tries, it.answered));
        let next = Backoff {
            tries,
            answered,
            known,
            ..Backoff::of(entry)
        };
        backoffs.insert(entry.key, until, next);
    }

    /// A background response is open for the request, to be looked at by then.
    pub fn watch(&self, entry: Entry, remote: Remote, known: Known, until: Timestamp) {
        let watched = Backoff {
            known,
            remote: Some(Arc::new(remote)),
            ..Backoff::of(entry)
        };
        self.0.lock().insert(entry.key, until, watched);
    }

    /// A look begins, and will see what has become of the request so far.
    pub fn begin_look(&self, key: &RequestKey) {
        if let Some(backoff) = self.0.lock().get_mut(key) {
            backoff.ended = false;
        }
    }

    /// When the look that has begun is followed by another.
    pub fn look_at(&self, key: &RequestKey, until: Timestamp, urgent: bool) {
        let mut backoffs = self.0.lock();
        if backoffs.get(key).is_some_and(|backoff| backoff.ended) {
            return;
        }
        if let Some(backoff) = backoffs.remove(key) {
            backoffs.insert(*key, until, Backoff { urgent, ..backoff });
        }
    }

    /// The request has ended. Nothing is kept of it, but for a background response
    /// that is open: it is cancelled at the next look. True where there is one.
    pub fn ended(&self, key: &RequestKey) -> bool {
        let mut backoffs = self.0.lock();
        let Some(backoff) = backoffs.remove(key) else {
            return false;
        };
        let is_open = backoff.remote.is_some();
        if is_open {
            let next = Backoff {
                urgent: true,
                ended: true,
                ..backoff
            };
            backoffs.insert(*key, Timestamp::ZERO, next);
        }
        is_open
    }

    /// How many answers were errors so far.
    pub fn answered(&self, key: &RequestKey) -> u32 {
        self.0.lock().get(key).map_or(0, |backoff| backoff.answered)
    }

    pub fn put_off(&self, engine: &Engine, entry: Entry, why: Why) {
        let settings = &engine.settings.live;
        let mut backoffs = self.0.lock();
        let known = backoffs.remove(&entry.key);
        let mut backoff = known.unwrap_or_else(|| Backoff::of(entry));
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
        backoffs.insert(entry.key, engine.now() + pause, backoff);
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
        self.keep_if_live(request).await
    }

    /// Goes on with the request on its next rung, at once.
    pub(super) async fn step_down(
        &self,
        request: &Request,
        known: Known,
    ) -> Result<(), StoreError> {
        self.backoffs.step_down(request.entry(), known);
        self.keep_if_live(request).await
    }

    /// Waits with it for money that is kept for others.
    pub(super) async fn wait_for_money(
        &self,
        request: &Request,
        known: Known,
    ) -> Result<(), StoreError> {
        self.backoffs.park(request.entry(), known);
        self.budgets.stir(request.key.tenant);
        self.keep_if_live(request).await
    }

    /// Waits with it until the step of its batch that is in hand is done.
    pub(super) async fn wait_for_its_batch(
        &self,
        request: &Request,
        known: Known,
    ) -> Result<(), StoreError> {
        let until = self.now() + FOR_A_STEP;
        self.backoffs.keep(request.entry(), known, until);
        self.keep_if_live(request).await
    }

    async fn keep_if_live(&self, request: &Request) -> Result<(), StoreError> {
        if self.store.place(request.key, &[]).await? != Some(Place::Live) {
            self.backoffs.forget(&request.key);
            self.budgets.forget(&request.key);
        }
        Ok(())
    }
}
