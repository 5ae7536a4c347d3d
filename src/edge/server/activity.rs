//! What one connection is doing, and for how long: noted where bytes and requests
//! pass, read by whoever looks after slow and idle callers.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::{sync::Notify, time::Instant};

use crate::edge::passthrough::{Body, BoxError};

/// How long a connection may do nothing, or too little.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// From a request's first byte until its head is whole.
    pub head: Duration,
    /// Without a request.
    pub idle: Duration,
    /// While bytes of an answer wait and the caller takes none.
    pub write: Duration,
}

/// What is to be done about a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing before this instant.
    LookAgain(Instant),
    /// It has been idle for too long.
    Leave,
    /// A head does not come to its end.
    SlowHead,
    /// The caller takes nothing of its answer.
    Stuck,
}

/// One connection's doings. Counted in milliseconds from an instant before it began.
pub struct Activity {
    start: Instant,
    phase: AtomicU8,
    /// When the phase began.
    since: AtomicU64,
    /// Since when bytes wait to be written; [`FLOWING`] while none do.
    stuck: AtomicU64,
    leaving: AtomicBool,
    leave: Notify,
}

/// Without a request, and all of the last answer is with the kernel.
const IDLE: u8 = 0;
const HEAD: u8 = 1;
const BUSY: u8 = 2;
/// Nothing more comes of the answer, but bytes of it may wait: a whole body of one
/// frame is taken at once. Only [`Patience::write`] runs.
const FLUSHING: u8 = 3;
/// The same, and bytes of the next head came behind.
const PIPELINED: u8 = 4;

const FLOWING: u64 = u64::MAX;

impl Activity {
    /// Idle, since now.
    pub fn new(start: Instant) -> Activity {
        let activity = Activity {
            start,
            phase: AtomicU8::new(IDLE),
            since: AtomicU64::new(0),
            stuck: AtomicU64::new(FLOWING),
            leaving: AtomicBool::new(false),
            leave: Notify::new(),
        };
        activity.begin(IDLE);
        activity
    }

    /// Bytes came.
    pub fn received(&self) {
        match self.phase.load(Relaxed) {
            IDLE => self.begin(HEAD),
            FLUSHING => self.begin(PIPELINED),
            _ => {}
        }
    }

    /// The caller takes no more for the moment.
    pub fn blocked(&self) {
        if self.stuck.load(Relaxed) == FLOWING {
            self.stuck.store(self.now(), Relaxed);
        }
    }

    /// The caller takes bytes.
    pub fn flowing(&self) {
        self.stuck.store(FLOWING, Relaxed);
    }

    /// Nothing of what is to be written is left.
    pub fn flushed(&self) {
        match self.phase.load(Relaxed) {
            FLUSHING => self.begin(IDLE),
            PIPELINED => self.begin(HEAD),
            _ => {}
        }
    }

    /// A request is there; until its answer is dropped, and then flushed.
    pub fn busy(self: &Arc<Self>) -> Busy {
        self.begin(BUSY);
        Busy(self.clone())
    }

    /// How long it has been idle; none where it is not, or has been asked to leave.
    pub fn idle_for(&self) -> Option<Duration> {
        let idle = self.phase.load(Relaxed) == IDLE && !self.leaving.load(Relaxed);
        idle.then(|| self.elapsed(self.since.load(Relaxed)))
    }

    /// Whoever serves it is told by [`Activity::told_to_leave`].
    pub fn ask_to_leave(&self) {
        self.leaving.store(true, Relaxed);
        self.leave.notify_one();
    }

    pub async fn told_to_leave(&self) {
        self.leave.notified().await;
    }

    /// How it stands now.
    pub fn verdict(&self, patience: &Patience) -> Verdict {
        let stuck = self.stuck.load(Relaxed);
        let blocked = match stuck {
            FLOWING => None,
            since => Some(self.elapsed(since)),
        };
        if blocked.is_some_and(|blocked| blocked >= patience.write) {
            return Verdict::Stuck;
        }
        let phase = self.phase.load(Relaxed);
        let lasted = self.elapsed(self.since.load(Relaxed));
        match phase {
            IDLE if lasted >= patience.idle => return Verdict::Leave,
            HEAD if lasted >= patience.head => return Verdict::SlowHead,
            _ => {}
        }
        // Whatever begins after this look runs out no earlier than the shortest
        // patience from now.
        let begun = match phase {
            IDLE => patience.idle - lasted,
            HEAD => patience.head - lasted,
            _ => Duration::MAX,
        };
        let left = blocked.map_or(Duration::MAX, |blocked| patience.write - blocked);
        let wait = begun.min(left).min(patience.shortest());
        Verdict::LookAgain(Instant::now() + wait.max(TICK))
    }

    fn begin(&self, phase: u8) {
        self.since.store(self.now(), Relaxed);
        self.phase.store(phase, Relaxed);
    }

    fn now(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    fn elapsed(&self, since: u64) -> Duration {
        Duration::from_millis(self.now().saturating_sub(since))
    }
}

/// What times are counted in.
const TICK: Duration = Duration::from_millis(1);

impl Patience {
    pub fn shortest(&self) -> Duration {
        self.head.min(self.idle).min(self.write)
    }
}

/// A request is being answered until this is dropped.
pub struct Busy(Arc<Activity>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.begin(FLUSHING);
    }
}

/// An answer's body, for as long as the connection is busy with it.
pub struct Answering {
    body: Body,
    _busy: Busy,
}

impl Answering {
    pub fn new(body: Body, busy: Busy) -> Answering {
        Answering { body, _busy: busy }
    }
}

impl http_body::Body for Answering {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const PATIENCE: Patience = Patience {
        head: Duration::from_secs(30),
        idle: Duration::from_secs(120),
        write: Duration::from_secs(60),
    };

    fn activity() -> Arc<Activity> {
        Arc::new(Activity::new(Instant::now()))
    }

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[tokio::test(start_paused = true)]
    async fn every_phase_has_a_patience_of_its_own() {
        let it = activity();
        let look = |it: &Activity| it.verdict(&PATIENCE);
        assert_eq!(look(&it), Verdict::LookAgain(Instant::now() + seconds(30)));
        advance(seconds(119)).await;
        assert_eq!(look(&it), Verdict::LookAgain(Instant::now() + seconds(1)));
        advance(seconds(1)).await;
        assert_eq!(look(&it), Verdict::Leave);
        it.received();
        advance(seconds(29)).await;
        it.received();
        assert_eq!(look(&it), Verdict::LookAgain(Instant::now() + seconds(1)));
        advance(seconds(1)).await;
        assert_eq!(look(&it), Verdict::SlowHead);
        let busy = it.busy();
        advance(seconds(100_000)).await;
        it.received();
        assert_eq!(look(&it), Verdict::LookAgain(Instant::now() + seconds(30)));
        drop(busy);
        it.flushed();
        advance(seconds(120)).await;
        assert_eq!(look(&it), Verdict::Leave);
    }

    #[tokio::test(start_paused = true)]
    async fn until_an_answer_is_flushed_only_a_stuck_caller_is_cut() {
        let it = activity();
        let look = |it: &Activity| it.verdict(&PATIENCE);
        for behind in [false, true] {
            drop(it.busy());
            for _ in 0..100 {
                it.blocked();
                advance(seconds(59)).await;
                assert_eq!(look(&it), Verdict::LookAgain(Instant::now() + seconds(1)));
                it.flowing();
                assert_eq!(look(&it), Verdict::LookAgain(Instant::now() + seconds(30)));
                assert_eq!(it.idle_for(), None, "it cannot make room for others");
                if behind {
                    it.received();
                }
            }
            it.flushed();
            let (begun, ends) = match behind {
                true => (seconds(29), Verdict::SlowHead),
                false => (seconds(119), Verdict::Leave),
            };
            advance(begun).await;
            assert_eq!(look(&it), Verdict::LookAgain(Instant::now() + seconds(1)));
            advance(seconds(1)).await;
            assert_eq!(look(&it), ends);
        }
        drop(it.busy());
        it.blocked();
        advance(seconds(60)).await;
        assert_eq!(look(&it), Verdict::Stuck);
    }

    #[tokio::test(start_paused = true)]
    async fn only_bytes_that_wait_make_a_caller_stuck() {
        let it = activity();
        let _busy = it.busy();
        it.blocked();
        advance(seconds(59)).await;
        it.blocked();
        assert_eq!(
            it.verdict(&PATIENCE),
            Verdict::LookAgain(Instant::now() + seconds(1))
        );
        it.flowing();
        advance(seconds(1_000)).await;
        assert_ne!(it.verdict(&PATIENCE), Verdict::Stuck);
        it.blocked();
        advance(seconds(60)).await;
        assert_eq!(it.verdict(&PATIENCE), Verdict::Stuck);
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_asked_to_leave_is_not_asked_again() {
        let it = activity();
        advance(seconds(5)).await;
        assert_eq!(it.idle_for(), Some(seconds(5)));
        it.ask_to_leave();
        assert_eq!(it.idle_for(), None);
        it.told_to_leave().await;
    }
}
