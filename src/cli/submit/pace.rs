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
    /// The last answer that was none of distress.
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
        self.state.lock().well = Instant::now();
    }

    /// The server is there, and wants to be asked later.
    pub fn later(&self, wait: Option<Duration>, tries: u32) {
        self.well();
        self.hold(wait.unwrap_or_else(|| pause(tries)));
    }

    /// No answer, or one of distress.
    pub fn lost(&self, wait: Option<Duration>, tries: u32) -> Result<(), Over> {
        if self.state.lock().well.elapsed() >= self.patience {
            return Err(Over::Gone);
        }
        self.hold(wait.unwrap_or_else(|| pause(tries)));
        Ok(())
    }

    fn hold(&self, wait: Duration) {
        let mut state = self.state.lock();
        state.next = state.next.max(Instant::now() + wait);
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
        let mut tries = 0;
        let ended = loop {
            match pace.lost(None, tries) {
                Ok(()) => pace.turn().await.unwrap(),
                Err(over) => break over,
            }
            tries += 1;
        };
        assert_eq!(ended, Over::Gone);
        // 60 s since it was last there, which was at the start, by steps of 15 at most.
        assert!((60..=75).contains(&start.elapsed().as_secs()));
        assert!(tries > 4);
        pace.well();
        assert_eq!(pace.lost(None, 0), Ok(()));
        pace.stop.cancel();
        assert_eq!(pace.turn().await, Err(Over::Stopped));
    }
}
