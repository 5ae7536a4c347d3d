//! The provider's clock: wall time given at start, moved on by tokio's clock
//! times `speed`. Under `tokio::time::pause` it stands still with it.

use std::time::Duration;

use tokio::time::Instant;

use crate::model::time::Timestamp;

#[derive(Debug)]
pub(super) struct Clock {
    start: Timestamp,
    origin: Instant,
    speed: f64,
}

impl Clock {
    pub fn new(start: Timestamp, speed: f64) -> Self {
        let speed = if speed.is_nan() { 1.0 } else { speed };
        Clock {
            start,
            origin: Instant::now(),
            speed: speed.clamp(0.001, 1_000_000.0),
        }
    }

    pub fn now(&self) -> Timestamp {
        self.start + self.origin.elapsed().mul_f64(self.speed)
    }

    /// The callers' own time.
    pub fn wall(&self) -> Timestamp {
        self.start + self.origin.elapsed()
    }

    /// How long a simulated duration takes on the callers' clocks. Durations
    /// that callers are told to wait (`Retry-After`, resets) are given in this.
    pub fn real(&self, simulated: Duration) -> Duration {
        Duration::try_from_secs_f64(simulated.as_secs_f64() / self.speed).unwrap_or(Duration::MAX)
    }

    pub async fn sleep(&self, simulated: Duration) {
        if !simulated.is_zero() {
            tokio::time::sleep(self.real(simulated)).await;
        }
    }
}

/// As Go prints a duration, which `x-ratelimit-reset-*` carry: `6m0s`, `1.5s`, `20ms`.
pub(super) fn go_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    if millis < 1000 {
        return format!("{millis}ms");
    }
    let (hours, minutes) = (millis / 3_600_000, millis / 60_000 % 60);
    let seconds = (millis % 60_000) as f64 / 1000.0;
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_go_writes_them() {
        for (millis, text) in [
            (0, "0ms"),
            (20, "20ms"),
            (1_500, "1.5s"),
            (360_000, "6m0s"),
            (3_600_000, "1h0m0s"),
        ] {
            assert_eq!(go_duration(Duration::from_millis(millis)), text);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_runs_at_its_speed() {
        let clock = Clock::new(Timestamp::from_secs(100), 60.0);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(clock.now(), Timestamp::from_secs(220));
        clock.sleep(Duration::from_secs(60)).await;
        assert_eq!(clock.now().as_secs(), 280);
    }
}
