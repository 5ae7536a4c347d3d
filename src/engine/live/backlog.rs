//! Where each queue of live work is looked at next, and when for what is late, so
//! that a turn does not read again what is on its way or waits.

use std::{collections::HashMap, ops::Bound, time::Duration};

use parking_lot::Mutex;

use crate::model::{
    id::RequestKey,
    request::{Entry, LiveQueue},
    time::Timestamp,
};

/// A place in a queue.
pub type Position = (Timestamp, RequestKey);

/// From time to time everything is looked at: whatever became of a call that was
/// passed by, it is found again.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

#[derive(Default)]
pub struct Backlog {
    turn: Mutex<Turn>,
    /// The earliest that has come since the turn began.
    arrived: Mutex<HashMap<LiveQueue, Position>>,
}

#[derive(Default)]
struct Turn {
    /// All before it is on its way or waits for its next try. None: nothing is.
    cursors: HashMap<LiveQueue, Bound<Position>>,
    /// No deadline in the queue is before it. None: that is not known.
    deadlines: HashMap<LiveQueue, Timestamp>,
    looked: Timestamp,
}

impl Backlog {
    /// An entry stands in its queue. Told once it can be read there.
    pub fn arrived(&self, entry: &Entry) {
        let at = position(entry);
        let mut arrived = self.arrived.lock();
        let first = arrived.entry(entry.live_queue()).or_insert(at);
        *first = at.min(*first);
    }

    /// True where everything is looked at in this turn.
    pub fn begin_turn(&self, now: Timestamp) -> bool {
        let arrived = std::mem::take(&mut *self.arrived.lock());
        let mut turn = self.turn.lock();
        let all = turn.looked + LOOK_AGAIN <= now;
        if all {
            turn.looked = now;
            turn.cursors.clear();
            turn.deadlines.clear();
        }
        for (queue, first) in arrived {
            if let Some(deadline) = turn.deadlines.get_mut(&queue) {
                *deadline = first.0.min(*deadline);
            }
            if let Some(cursor) = turn.cursors.get_mut(&queue)
                && is_behind(cursor, first)
            {
                *cursor = Bound::Included(first);
            }
        }
        all
    }

    /// The next deadline in the queue, where it is known.
    pub fn deadline(&self, queue: LiveQueue) -> Option<Timestamp> {
        self.turn.lock().deadlines.get(&queue).copied()
    }

    /// No deadline in the queue is before this one, but for what has come since the
    /// turn began.
    pub fn comes_due(&self, queue: LiveQueue, deadline: Timestamp) {
        self.turn.lock().deadlines.insert(queue, deadline);
    }

    pub fn from(&self, queue: LiveQueue) -> Bound<Position> {
        let turn = self.turn.lock();
        let cursor = turn.cursors.get(&queue).copied();
        cursor.unwrap_or(Bound::Unbounded)
    }

    /// All up to this entry is on its way or waits for its next try.
    pub fn passed(&self, entry: &Entry) {
        let at = Bound::Excluded(position(entry));
        self.turn.lock().cursors.insert(entry.live_queue(), at);
    }
}

pub fn position(entry: &Entry) -> Position {
    (entry.deadline, entry.key)
}

/// Whether a look from `cursor` on misses `first`.
fn is_behind(cursor: &Bound<Position>, first: Position) -> bool {
    match cursor {
        Bound::Included(at) => first < *at,
        Bound::Excluded(at) => first <= *at,
        Bound::Unbounded => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        attempt::Lane,
        id::{DestinationId, RequestId, TenantId},
        request::{Bucket, Cohort, Guarantee, OnLate},
    };

    const NOW: Timestamp = Timestamp::from_secs(1_000_000);

    fn entry(deadline: u64) -> Entry {
        let deadline = Timestamp::from_secs(deadline);
        Entry {
            key: RequestKey {
                tenant: TenantId([1; 16]),
                id: RequestId::MIN,
            },
            cohort: Cohort {
                destination: DestinationId([2; 16]),
                on_late: OnLate::Rescue,
                guarantee: Guarantee::Firm,
                bucket: Bucket::of(deadline, Duration::from_secs(1)),
            },
            lane: Lane::Batch,
            deadline,
            line_bytes: 1,
            inputs: 1,
        }
    }

    #[test]
    fn what_comes_behind_the_cursor_is_seen_and_what_comes_before_it_turns_it_back() {
        let backlog = Backlog::default();
        let queue = entry(0).live_queue();
        assert!(backlog.begin_turn(NOW));
        assert_eq!(backlog.from(queue), Bound::Unbounded);
        backlog.passed(&entry(50));
        assert_eq!(backlog.from(queue), Bound::Excluded(position(&entry(50))));

        backlog.arrived(&entry(60));
        assert!(!backlog.begin_turn(NOW));
        assert_eq!(backlog.from(queue), Bound::Excluded(position(&entry(50))));

        // It comes while the turn goes on past it.
        backlog.arrived(&entry(40));
        backlog.arrived(&entry(30));
        backlog.arrived(&entry(35));
        backlog.passed(&entry(60));
        assert!(!backlog.begin_turn(NOW));
        assert_eq!(backlog.from(queue), Bound::Included(position(&entry(30))));
    }

    #[test]
    fn the_next_deadline_is_known_whatever_comes() {
        let backlog = Backlog::default();
        let queue = entry(0).live_queue();
        backlog.arrived(&entry(10));
        backlog.begin_turn(NOW);
        assert_eq!(backlog.deadline(queue), None, "nothing was read yet");
        // It comes while the queue is read.
        backlog.arrived(&entry(40));
        backlog.comes_due(queue, Timestamp::from_secs(50));
        assert_eq!(backlog.deadline(queue), Some(Timestamp::from_secs(50)));
        for later in [40, 60] {
            backlog.arrived(&entry(later));
            backlog.begin_turn(NOW);
            assert_eq!(backlog.deadline(queue), Some(Timestamp::from_secs(40)));
        }
        backlog.begin_turn(NOW + LOOK_AGAIN);
        assert_eq!(backlog.deadline(queue), None);
    }

    #[test]
    fn everything_is_looked_at_from_time_to_time() {
        let backlog = Backlog::default();
        backlog.begin_turn(NOW);
        backlog.passed(&entry(50));
        assert!(!backlog.begin_turn(NOW + LOOK_AGAIN / 2));
        assert!(backlog.begin_turn(NOW + LOOK_AGAIN));
        assert_eq!(backlog.from(entry(0).live_queue()), Bound::Unbounded);
    }
}
