//! The machine's clock and chance, as the engine sees them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use rand::Rng;
use tokio::time::Instant;

use crate::{model::time::Timestamp, ports::Clock};

/// How fast our time follows a wall clock that was set: 50 ms in a second. A
/// step of an hour is thus spread over twenty, and never starts a rescue wave.
const SLEW: u32 = 20;
/// A difference within this is the ordinary drift of two clocks: followed at
/// once.
const DRIFT: Duration = Duration::from_millis(500);
/// Our time leans by whole milliseconds, so it is set no more often than this:
/// in less, the lean would be less than one.
const SETTING: Duration = Duration::from_millis(SLEW as u64);

/// Wall time that never jumps: it runs on the monotonic clock and leans towards
/// the wall clock.
pub struct SystemClock {
    wall: Box<dyn Fn() -> Timestamp + Send + Sync>,
    state: Mutex<State>,
}

struct State {
    at: Instant,
    now: Timestamp,
}

impl SystemClock {
    pub fn new() -> Self {
        #[cfg(debug_assertions)]
        let wall = {
            let steps = super::rehearsal::Steps::from_environment();
            move || steps.seen(wall())
        };
        SystemClock::following(wall)
    }

    /// Time that follows this wall clock.
    pub fn following(wall: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        let state = State {
            at: Instant::now(),
            now: wall(),
        };
        SystemClock {
            wall: Box::new(wall),
            state: Mutex::new(state),
        }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        SystemClock::new()
    }
}

impl SystemClock {
    pub fn now(&self) -> Timestamp {
        self.state.lock().tell(Instant::now(), (self.wall)())
    }
}

impl State {
    fn tell(&mut self, at: Instant, wall: Timestamp) -> Timestamp {
        let elapsed = at.saturating_duration_since(self.at);
        if elapsed < SETTING {
            return self.now + elapsed;
        }
        let whole = Duration::from_millis(elapsed.as_millis() as u64);
        self.at += whole;
        self.now = follow(self.now, whole, wall);
        self.now
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        self.now()
    }

    fn wall(&self) -> Timestamp {
        (self.wall)()
    }

    fn random(&self) -> u128 {
        let mut chance = rand::rng();
        (u128::from(chance.next_u64()) << 64) | u128::from(chance.next_u64())
    }
}

/// Where our time is after `elapsed` more of monotonic time.
fn follow(now: Timestamp, elapsed: Duration, wall: Timestamp) -> Timestamp {
    let here = now + elapsed;
    let lean = elapsed / SLEW;
    match here < wall {
        true if here.until(wall) <= DRIFT => wall,
        true => here + here.until(wall).min(lean),
        // Never backwards: at worst more slowly.
        false => here - here.since(wall).min(lean),
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the clock adapter")]
fn wall() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::from_millis(since.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_step_is_followed_however_often_the_time_is_asked_for() {
        let hour = Duration::from_secs(3600);
        let (start, origin) = (Timestamp::from_secs(1_000_000), Instant::now());
        for (step, told) in [(hour, 21 * SECOND), (Duration::ZERO, 20 * SECOND)] {
            let mut state = State {
                at: origin,
                now: start,
            };
            let mut before = start;
            for passed in (1..=20_000).map(Duration::from_millis) {
                let now = state.tell(origin + passed, start + step + passed);
                assert!(now >= before, "backwards after {passed:?}");
                before = now;
            }
            assert_eq!(start.until(before), told);
        }
    }

    #[test]
    fn the_wall_clock_is_told_as_it_is() {
        let start = Timestamp::from_secs(1_000_000);
        let set = start + 3600 * SECOND;
        let walls = Mutex::new(vec![set, start]);
        let clock = SystemClock::following(move || walls.lock().pop().unwrap());
        assert_eq!(clock.wall(), set);
    }

    #[test]
    fn a_step_of_the_wall_clock_is_followed_slowly_and_never_backwards() {
        let now = Timestamp::from_secs(1_000_000);
        let hour = Duration::from_secs(3600);
        let lean = Duration::from_millis(50);
        assert_eq!(follow(now, SECOND, now + SECOND), now + SECOND);
        assert_eq!(
            follow(now, SECOND, now + SECOND + hour),
            now + SECOND + lean
        );
        assert_eq!(
            follow(now, SECOND, now + SECOND - hour),
            now + SECOND - lean
        );
        assert_eq!(follow(now, Duration::ZERO, now - hour), now);
        let drifted = now + SECOND + Duration::from_millis(80);
        assert_eq!(follow(now, SECOND, drifted), drifted);
    }
}
