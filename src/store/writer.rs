//! One writer. Changes are made one after another, in commits of many, and are
//! acknowledged once they are synced.
//!
//! With threads there are two: one makes the changes, the other syncs. While one
//! group of commits is synced, the next gathers.
//!
//! **A write that fails is the last.** What is refused before it is written, because the
//! disk has no room or a page cannot be read, fails alone. But where the map broke off
//! within a commit, or a sync failed, or one of the threads died, nobody knows what is on
//! the disk: the map in memory may be ahead of it for good, sled writes nothing more, and
//! a kernel that has failed a sync once may report the next one as done. So nothing is
//! tried again. The store *has failed*: it makes no more changes, tells nothing that was
//! not synced before ([`Horizon::reached`]), and says so ([`Horizon::failed`]), upon which
//! the process ends. Whatever it then thinks of its unanswered changes goes with it; the
//! next start reads from the disk what became of them.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc as blocking,
    },
    thread,
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
    let _needed = Needed(horizon);
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
    let _needed = Needed(horizon);
    while let Ok(first) = unsynced.recv() {
        let mut groups = vec![first];
        groups.extend(unsynced.try_iter());
        let failure = sync(kv, horizon, &groups).err();
        for mut group in groups {
            group.failures.sync = failure.as_ref().map(again);
            for answer in group.answers {
                answer(&group.failures);
            }
        }
    }
}

fn sync<K: Kv>(kv: &K, horizon: &Horizon, groups: &[Group]) -> Result<(), StoreError> {
    horizon.writes()?;
    #[cfg(debug_assertions)]
    rehearsal::pass(rehearsal::Point::Applied);
    kv.sync().map_err(|error| horizon.fail(&error))?;
    #[cfg(debug_assertions)]
    rehearsal::pass(rehearsal::Point::Synced);
    if let Some(last) = groups.last() {
        horizon.synced(last.commits);
    }
    Ok(())
}

fn named(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<thread::JoinHandle<()>> {
    thread::Builder::new().name(name.into()).spawn(run)
}

/// Held by a thread that the store cannot do without.
struct Needed<'a>(&'a Horizon);

impl Drop for Needed<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            let died = io::Error::other("a thread of it has panicked");
            self.0.fail(&StoreError::Io(died));
        }
    }
}

/// How far commits are applied, and how far they are synced.
pub struct Horizon {
    applied: AtomicU64,
    synced: watch::Sender<Synced>,
}

#[derive(Default)]
struct Synced {
    commits: u64,
    /// Why nothing will be written any more.
    failed: Option<StoreError>,
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

    /// Nothing is written from here on. Returns what is told of it.
    pub fn fail(&self, error: &StoreError) -> StoreError {
        self.synced.send_modify(|synced| {
            synced.failed.get_or_insert_with(|| {
                tracing::error!(%error, "a write failed: the store takes no more of them until the next start");
                again(error)
            });
        });
        gone(error)
    }

    /// # Errors
    /// When the store has failed.
    pub fn writes(&self) -> Result<(), StoreError> {
        match &self.synced.borrow().failed {
            Some(error) => Err(gone(error)),
            None => Ok(()),
        }
    }

    /// Returns when the store has failed, and why.
    pub async fn failed(&self) -> StoreError {
        let mut synced = self.synced.subscribe();
        // The sender is `self`, so it cannot have gone.
        let failed = synced.wait_for(|synced| synced.failed.is_some()).await;
        let error = failed.as_ref().ok().and_then(|it| it.failed.as_ref());
        error.map_or(StoreError::Closed, again)
    }

    /// Returns when all that a reader can have seen so far is synced.
    ///
    /// # Errors
    /// When it will not be: what was seen may be gone with the process, and must not
    /// be told.
    pub async fn reached(&self) -> Result<(), StoreError> {
        let seen = self.applied();
        let mut synced = self.synced.subscribe();
        let tried = |synced: &Synced| synced.commits >= seen || synced.failed.is_some();
        // The sender is `self`, so it cannot have gone.
        match synced.wait_for(tried).await.as_deref() {
            Ok(Synced {
                commits,
                failed: Some(error),
            }) if *commits < seen => Err(gone(error)),
            _ => Ok(()),
        }
    }
}

/// What callers are told from the failure on.
fn gone(error: &StoreError) -> StoreError {
    StoreError::Io(io::Error::other(format!(
        "it takes no more writes until the next start: {error}"
    )))
}
