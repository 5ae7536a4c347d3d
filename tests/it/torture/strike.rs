//! How a life of the process ends.

use std::{
    collections::BTreeMap, fs, os::unix::process::ExitStatusExt as _, path::Path,
    process::ExitStatus, time::Duration,
};

use offpeak::store::rehearsal::Point as Commit;
use rand::{RngExt, rngs::StdRng, seq::IndexedRandom};
use rustix::process::Signal;

use crate::kill::{
    process::Revived,
    provider::{Point, Trap},
};

/// The longest that a scripted strike is waited for; then it comes at this instant.
const LONGEST: Duration = Duration::from_secs(7);

#[derive(Clone, Copy, Debug)]
pub enum Strike {
    /// SIGKILL, so long after the start.
    Instant(Duration),
    /// SIGKILL at the n-th pass of a step of a call.
    Effect(Point, u32),
    /// SIGKILL at the n-th commit of this life.
    Commit(Commit, u32),
    /// SIGTERM, and SIGKILL where that takes too long.
    Stop(Duration),
}

impl Strike {
    pub fn draw(chance: &mut StdRng) -> Strike {
        match chance.random_range(0..100) {
            0..20 => Strike::Instant(Duration::from_millis(chance.random_range(0..3000))),
            20..55 => Strike::Effect(
                *Point::ALL.choose(chance).unwrap(),
                chance.random_range(0..30),
            ),
            // Some of them before the server is up.
            55..92 => Strike::Commit(
                *Commit::ALL.choose(chance).unwrap(),
                // Of the first ten as often as of the next hundred.
                10f64.powf(chance.random_range(0.0..3.3)) as u32,
            ),
            _ => Strike::Stop(Duration::from_millis(chance.random_range(300..2000))),
        }
    }

    pub fn kind(&self) -> &'static str {
        match self {
            Strike::Instant(_) => "at an instant",
            Strike::Effect(Point::Before(_), _) => "before an effect",
            Strike::Effect(Point::After(_), _) => "after an effect",
            Strike::Effect(..) => "while a caller or a webhook is told",
            Strike::Commit(Commit::Begun, _) => "before a commit",
            Strike::Commit(Commit::Applied, _) => "between a commit and its sync",
            Strike::Commit(Commit::Synced, _) => "between a sync and its telling",
            Strike::Stop(_) => "SIGTERM",
        }
    }

    /// Tells the next process, where it strikes itself.
    pub fn prepare(&self, rehearsal: &Path) {
        let file = rehearsal.join("kill");
        match self {
            Strike::Commit(point, number) => {
                fs::write(file, format!("{} {number}", point.name())).unwrap();
            }
            _ => {
                if file.exists() {
                    fs::remove_file(file).unwrap();
                }
            }
        }
    }

    /// Whether it waits until the load of its cycle is on its way.
    pub fn is_patient(&self) -> bool {
        !matches!(self, Strike::Commit(..))
    }

    /// Ends the process that runs. The kind that it was in the end, or how it ended
    /// by itself.
    pub async fn carry_out(
        &self,
        server: &Revived,
        trap: &Trap,
    ) -> Result<&'static str, ExitStatus> {
        let pid = server.pid();
        let mut ended = Box::pin(server.ended());
        let (patience, signal) = match self {
            Strike::Instant(after) => (*after, Signal::KILL),
            Strike::Stop(after) => (*after, Signal::TERM),
            Strike::Effect(point, spare) => {
                trap.arm(*point, *spare, u32::MAX, pid);
                (LONGEST, Signal::KILL)
            }
            Strike::Commit(..) => (LONGEST, Signal::KILL),
        };
        let early = tokio::time::timeout(patience, &mut ended).await;
        trap.disarm();
        let (status, kind) = match early {
            Ok(status) => (status, self.kind()),
            Err(_) => {
                // It has ended or not, and nobody has waited for it yet.
                let _gone = rustix::process::kill_process(pid, signal);
                let kind = match self {
                    Strike::Stop(_) => self.kind(),
                    _ => "at an instant",
                };
                (ended.await, kind)
            }
        };
        match (status.signal(), status.code()) {
            (Some(9), _) => Ok(kind),
            (None, Some(0)) if matches!(self, Strike::Stop(_)) => Ok(kind),
            _ => Err(status),
        }
    }
}

/// How often each kind of strike was.
#[derive(Default)]
pub struct Strikes(pub BTreeMap<&'static str, u64>);

impl Strikes {
    pub fn count(&mut self, kind: &'static str) {
        *self.0.entry(kind).or_default() += 1;
    }
}
