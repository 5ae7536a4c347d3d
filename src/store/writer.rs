//! One writer. Changes are made one after another, in commits of many, and are
//! acknowledged once they are synced.
//!
//! With threads there are two: one makes the changes, the other syncs. While one
//! group of commits is synced, the next gathers.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{self as blocking, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};

#[cfg(debug_assertions)]
use super::rehearsal;
use super::{
    kv::{Kv, again},
    staging::{Change, Failures, Staging},
};
use crate::ports::StoreError;

/// Changes that may wait for the writer.
const WAITING: usize = 4096;
/// Changes that one sync acknowledges, at most.
const GROUP: usize = 512;
/// Between two tries to sync what could not be, where nothing else is written.
const SYNC_AGAIN: Duration = Duration::from_millis(500);
/// Groups that may wait for their sync.
const UNSYNCED: usize = 4;

type Job<K> = Box<dyn FnOnce(&mut Staging<K>) -> Answer + Send>;
/// Tells the caller how its change went.
type Answer = Box<dyn FnOnce(&Failures) + Send>;

pub enum Writer<K> {
    /// Changes are made by the caller itself.
    Inline(Box<(Mutex<Staging<K>>, Arc<Horizon>)>),
    Threads(Threads<K>),
}

pub struct Threads<K> {
    jobs: Option<mpsc::Sender<Job<K>>>,
    running: Vec<thread::JoinHandle<()>>,
}

impl<K: Kv> Writer<K> {
    pub fn inline(horizon: Arc<Horizon>, staging: Staging<K>) -> Self {
        Writer::Inline(Box::new((Mutex::new(staging), horizon)))
    }

    pub fn threads(
        kv: Arc<K>,
        horizon: Arc<Horizon>,
        staging: Staging<K>,
    ) -> io::Result<Writer<K>> {
        let (jobs, waiting) = mpsc::channel(WAITING);
        let (groups, unsynced) = blocking::sync_channel(UNSYNCED);
        let sync = {
            let horizon = horizon.clone();
            named("store-sync", move || sync_groups(&*kv, &horizon, &unsynced))?
        };
        let write = named("store-write", move || {
            make_changes(staging, &horizon, waiting, &groups);
        })?;
        Ok(Writer::Threads(Threads {
            jobs: Some(jobs),
            running: vec![write, sync],
        }))
    }

    /// Makes changes in one turn and returns once they are durable: one result
    /// each. Another's failure is none of theirs.
    pub async fn change_each<T: Send + 'static>(
        &self,
        changes: impl FnOnce(&mut Staging<K>) -> Vec<Change<T>> + Send + 'static,
    ) -> Result<Vec<Result<T, StoreError>>, StoreError> {
        match self {
            Writer::Inline(inline) => {
                let (staging, horizon) = &**inline;
                let mut staging = staging.lock();
                staging.begin();
                let made = changes(&mut staging);
                let failures = staging.finish();
                horizon.synced(horizon.applied());
                Ok(outcomes(made, &failures))
            }
            Writer::Threads(threads) => threads.change_each(changes).await,
        }
    }
}

fn outcomes<T>(changes: Vec<Change<T>>, failures: &Failures) -> Vec<Result<T, StoreError>> {
    let each = changes.into_iter();
    each.map(|change| change.outcome(failures)).collect()
}

impl<K: Kv> Threads<K> {
    async fn change_each<T: Send + 'static>(
        &self,
        changes: impl FnOnce(&mut Staging<K>) -> Vec<Change<T>> + Send + 'static,
    ) -> Result<Vec<Result<T, StoreError>>, StoreError> {
        let (reply, done) = oneshot::channel();
        let job: Job<K> = Box::new(move |staging| {
            let made = changes(staging);
            Box::new(move |failures| {
                // A caller that has gone away needs no answer.
                let _ = reply.send(outcomes(made, failures));
            })
        });
        let jobs = self.jobs.as_ref().ok_or(StoreError::Closed)?;
        jobs.send(job).await.map_err(|_| StoreError::Closed)?;
        done.await.map_err(|_| StoreError::Closed)
    }
}

/// Lets what was sent be written, then waits for the threads, so that the
/// database is closed when the store is dropped.
impl<K> Drop for Threads<K> {
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.running.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the store had panicked");
            }
        }
    }
}

struct Group {
    answers: Vec<Answer>,
    failures: Failures,
    /// The commits that were applied when the group ended.
    commits: u64,
}

fn make_changes<K: Kv>(
    mut staging: Staging<K>,
    horizon: &Horizon,
    mut waiting: mpsc::Receiver<Job<K>>,
    groups: &blocking::SyncSender<Group>,
) {
    while let Some(first) = waiting.blocking_recv() {
        staging.begin();
        let mut answers = vec![first(&mut staging)];
        while answers.len() < GROUP
            && let Ok(job) = waiting.try_recv()
        {
            answers.push(job(&mut staging));
        }
        let group = Group {
            answers,
            failures: staging.finish(),
            commits: horizon.applied(),
        };
        if groups.send(group).is_err() {
            return;
        }
    }
}

fn sync_groups<K: Kv>(kv: &K, horizon: &Horizon, unsynced: &blocking::Receiver<Group>) {
    let _last = Last(horizon);
    // What was applied by then, where it could not be synced.
    let mut behind: Option<u64> = None;
    loop {
        let first = match behind {
            None => unsynced.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(_) => unsynced.recv_timeout(SYNC_AGAIN),
        };
        let first = match first {
            Ok(group) => Some(group),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let groups: Vec<Group> = first.into_iter().chain(unsynced.try_iter()).collect();
        let commits = groups.last().map(|last| last.commits).or(behind);
        #[cfg(debug_assertions)]
        rehearsal::pass(rehearsal::Point::Applied);
        let failure = kv.sync().err();
        #[cfg(debug_assertions)]
        rehearsal::pass(rehearsal::Point::Synced);
        if let Some(commits) = commits {
            match &failure {
                None => horizon.synced(commits),
                Some(_) => horizon.failed(commits),
            }
        }
        behind = commits.filter(|_| failure.is_some());
        for mut group in groups {
            group.failures.sync = failure.as_ref().map(again);
            for answer in group.answers {
                answer(&group.failures);
            }
        }
    }
}

fn named(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<thread::JoinHandle<()>> {
    thread::Builder::new().name(name.into()).spawn(run)
}

/// When nothing will be synced any more, nobody waits for it: a store whose
/// writer has died is still read.
struct Last<'a>(&'a Horizon);

impl Drop for Last<'_> {
    fn drop(&mut self) {
        self.0.synced(u64::MAX);
    }
}

/// How far commits are applied, and how far they are synced.
pub struct Horizon {
    applied: AtomicU64,
    synced: watch::Sender<Synced>,
}

#[derive(Clone, Copy, Default)]
struct Synced {
    commits: u64,
    /// Up to here it was tried, and the disk failed.
    failed: u64,
}

impl Horizon {
    pub fn new() -> Self {
        Horizon {
            applied: AtomicU64::new(0),
            synced: watch::Sender::new(Synced::default()),
        }
    }

    /// Before a commit is applied.
    pub fn begin(&self) {
        #[cfg(debug_assertions)]
        rehearsal::pass(rehearsal::Point::Begun);
        self.applied.fetch_add(1, Ordering::SeqCst);
    }

    pub fn applied(&self) -> u64 {
        self.applied.load(Ordering::SeqCst)
    }

    pub fn synced(&self, commits: u64) {
        self.synced.send_modify(|synced| synced.commits = commits);
    }

    fn failed(&self, commits: u64) {
        self.synced.send_modify(|synced| synced.failed = commits);
    }

    /// Returns when all that a reader can have seen so far is synced.
    ///
    /// # Errors
    /// When it could not be: what was seen may be gone with the process, and must not
    /// be told.
    pub async fn reached(&self) -> Result<(), StoreError> {
        let seen = self.applied();
        let mut synced = self.synced.subscribe();
        let tried = |synced: &Synced| synced.commits >= seen || synced.failed >= seen;
        // The sender is `self`, so it cannot have gone.
        let told = synced.wait_for(tried).await.map(|synced| *synced);
        match told {
            Ok(synced) if synced.commits < seen => Err(StoreError::Io(io::Error::other(
                "what was written last is not on the disk yet",
            ))),
            _ => Ok(()),
        }
    }
}
