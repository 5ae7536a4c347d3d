//! How fast to ask: all calls stop when the server says so, or does not answer, and a
//! server that has been gone for too long ends the run.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(15);

pub struct Pace {
    state: Mutex<State>,
    /// How long a server may be gone.
    patience: Duration,
    pub stop: CancellationToken,
}

struct State {
    /// Nothing is asked before.
    next: Instant,
    /// Patience counts from here: the last answer that was none of distress, or the end of
    /// the wait that an answer asked for.
    well: Instant,
}

/// Nothing is to be asked any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    Stopped,
    Gone,
}

impl Pace {
    pub fn new(patience: Duration, stop: CancellationToken) -> Pace {
        let now = Instant::now();
        Pace {
            state: Mutex::new(State {
                next: now,
                well: now,
            }),
            patience,
            stop,
        }
    }

    /// Waits until something may be asked.
    pub async fn turn(&self) -> Result<(), Over> {
        loop {
            if self.stop.is_cancelled() {
                return Err(Over::Stopped);
            }
            let next = self.state.lock().next;
            if next <= Instant::now() {
                return Ok(());
            }
            tokio::select! {
                () = sleep_until(next) => {}
                () = self.stop.cancelled() => {}
            }
        }
    }

    pub fn well(&self) {
        self.state.lock().well_until(Instant::now());
    }

    /// The server is there, and wants to be asked later.
    pub fn later(&self, wait: Option<Duration>, tries: u32) {
        let until = Instant::now() + wait.unwrap_or_else(|| pause(tries));
        let mut state = self.state.lock();
        state.next = state.next.max(until);
        state.well_until(until);
    }

    /// No answer, or one of distress that does not say when to ask again.
    pub fn lost(&self, tries: u32) -> Result<(), Over> {
        let now = Instant::now();
        let mut state = self.state.lock();
        if now.saturating_duration_since(state.well) >= self.patience {
            return Err(Over::Gone);
        }
        state.next = state.next.max(now + pause(tries));
        Ok(())
    }
}

impl State {
    fn well_until(&mut self, at: Instant) {
        self.well = self.well.max(at);
    }
}

fn pause(tries: u32) -> Duration {
    FIRST.saturating_mul(1 << tries.min(16)).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waits_as_told_and_gives_up_on_a_server_that_is_gone() {
        let pace = Pace::new(Duration::from_secs(60), CancellationToken::new());
        let start = Instant::now();
        pace.later(Some(Duration::from_secs(20)), 0);
        assert_eq!(pace.turn().await, Ok(()));
        assert_eq!(start.elapsed().as_secs(), 20);
        assert!(lost_until_gone(&pace).await > 4);
        // 60 s since it was to be asked again, by steps of 15 at most.
        assert!((80..=95).contains(&start.elapsed().as_secs()));
        pace.well();
        assert_eq!(pace.lost(0), Ok(()));
        pace.stop.cancel();
        assert_eq!(pace.turn().await, Err(Over::Stopped));
    }

    /// How many calls are lost until the server counts as gone.
    async fn lost_until_gone(pace: &Pace) -> u32 {
        for tries in 0.. {
            match pace.lost(tries) {
                Ok(()) => pace.turn().await.unwrap(),
                Err(over) => {
                    assert_eq!(over, Over::Gone);
                    return tries;
                }
            }
        }
        unreachable!("it never ends")
    }

    #[tokio::test(start_paused = true)]
    async fn patience_begins_when_asking_may_begin() {
        let pace = Pace::new(Duration::from_secs(60), CancellationToken::new());
        pace.later(Some(Duration::from_secs(3600)), 0);
        // The answer of one that was on its way.
        pace.well();
        pace.turn().await.unwrap();
        assert_eq!(pace.lost(0), Ok(()), "one lost call after an hour's wait");
        assert!(lost_until_gone(&pace).await > 4);
    }
}
