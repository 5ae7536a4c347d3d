//! What is kept of a tenant's webhooks besides the deliveries themselves.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    id::{ReceiverId, TenantId},
    time::Timestamp,
};

/// Which of its signing secrets a tenant uses. They are counted: the vault makes
/// each of its number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secrets {
    pub current: u32,
    /// Earlier ones that sign too, the latest first, and until when.
    pub previous: Vec<(u32, Timestamp)>,
}

impl Secrets {
    /// Earlier secrets that are kept, however often they are rotated: each is a
    /// signature more in every event.
    const PREVIOUS: usize = 3;

    /// Takes a new secret. The ones before sign on for `overlap`, or end now.
    pub fn rotate(&mut self, now: Timestamp, overlap: Duration) {
        let retired = self.current;
        self.current += 1;
        if overlap.is_zero() {
            self.previous.clear();
            return;
        }
        self.previous.insert(0, (retired, now + overlap));
        self.previous.retain(|(_, until)| *until > now);
        self.previous.truncate(Self::PREVIOUS);
    }

    /// Those that sign at `now`, the current one first.
    pub fn valid(&self, now: Timestamp) -> Vec<u32> {
        let previous = self.previous.iter().filter(|(_, until)| *until > now);
        let previous = previous.map(|(number, _)| *number);
        std::iter::once(self.current).chain(previous).collect()
    }
}

/// A receiver that answered 410: nothing is sent there until it is turned on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TurnedOff {
    pub tenant: TenantId,
    pub receiver: ReceiverId,
    /// As it was named by the request whose event was answered so.
    pub target: String,
    pub since: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);
    const NOW: Timestamp = Timestamp::from_secs(1_000_000);

    #[test]
    fn the_one_before_signs_for_a_day() {
        let mut secrets = Secrets::default();
        assert_eq!(secrets.valid(NOW), [0]);
        secrets.rotate(NOW, DAY);
        assert_eq!(secrets.valid(NOW), [1, 0]);
        assert_eq!(secrets.valid(NOW + DAY - Duration::from_millis(1)), [1, 0]);
        assert_eq!(secrets.valid(NOW + DAY), [1]);
    }

    #[test]
    fn one_that_leaked_ends_at_once_and_so_do_those_before() {
        let mut secrets = Secrets::default();
        secrets.rotate(NOW, DAY);
        secrets.rotate(NOW, Duration::ZERO);
        assert_eq!(secrets.valid(NOW), [2]);
    }

    #[test]
    fn many_rotations_keep_a_few_signatures() {
        let mut secrets = Secrets::default();
        for _ in 0..10 {
            secrets.rotate(NOW, DAY);
        }
        assert_eq!(secrets.valid(NOW), [10, 9, 8, 7]);
        secrets.rotate(NOW + DAY, DAY);
        assert_eq!(secrets.previous, [(10, NOW + 2 * DAY)]);
    }
}
