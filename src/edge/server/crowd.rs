//! How many connections are open, and who must leave for others to come in.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{Instant, timeout},
};

use super::activity::Activity;

/// The open connections of one listener, at most so many.
pub struct Crowd {
    most: usize,
    start: Instant,
    names: AtomicU64,
    open: Mutex<HashMap<u64, Arc<Activity>>>,
    freed: Notify,
}

/// One connection's place, until it is dropped.
pub struct Seat {
    name: u64,
    crowd: Arc<Crowd>,
    pub activity: Arc<Activity>,
}

/// Of the idle connections one in so many is closed at a time, so that looking for
/// the oldest is paid for by many who come.
const SHARE: usize = 16;

/// How long the door waits for an idle connection to close.
const LEAVING: Duration = Duration::from_secs(1);

impl Crowd {
    pub fn new(most: usize) -> Arc<Crowd> {
        Arc::new(Crowd {
            most,
            start: Instant::now(),
            names: AtomicU64::new(0),
            open: Mutex::default(),
            freed: Notify::new(),
        })
    }

    /// A place for one more. Where none is free, the connections that have been idle
    /// for longest make room; none where no connection is idle.
    pub async fn enter(self: &Arc<Self>) -> Option<Seat> {
        if let Some(seat) = self.take() {
            return Some(seat);
        }
        self.make_room().await;
        self.take()
    }

    /// Closes the connections that have been idle for longest, and waits for the
    /// first of them to be gone. False where none is idle.
    pub async fn make_room(&self) -> bool {
        let freed = self.freed.notified();
        self.ask_the_idle() > 0 && timeout(LEAVING, freed).await.is_ok()
    }

    fn take(self: &Arc<Self>) -> Option<Seat> {
        let mut open = self.open.lock();
        if open.len() >= self.most {
            return None;
        }
        let name = self.names.fetch_add(1, Relaxed);
        let activity = Arc::new(Activity::new(self.start));
        open.insert(name, activity.clone());
        Some(Seat {
            name,
            crowd: self.clone(),
            activity,
        })
    }

    fn ask_the_idle(&self) -> usize {
        let open = self.open.lock();
        let mut idle: Vec<_> = open
            .values()
            .filter_map(|activity| Some((activity.idle_for()?, activity)))
            .collect();
        let count = idle.len().div_ceil(SHARE);
        if count == 0 {
            return 0;
        }
        idle.select_nth_unstable_by(count - 1, |(one, _), (other, _)| other.cmp(one));
        for (_, activity) in &idle[..count] {
            activity.ask_to_leave();
        }
        count
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.crowd.open.lock().remove(&self.name);
        self.crowd.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_longest_idle_make_room_and_the_busy_do_not() {
        let crowd = Crowd::new(3);
        let busy = crowd.enter().await.unwrap();
        let _busy = busy.activity.busy();
        advance(Duration::from_secs(1)).await;
        let old = crowd.enter().await.unwrap();
        advance(Duration::from_secs(1)).await;
        let young = crowd.enter().await.unwrap();
        let leaves = async {
            old.activity.told_to_leave().await;
            drop(old);
        };
        let (seat, ()) = tokio::join!(crowd.enter(), leaves);
        let seat = seat.expect("the oldest left");
        let _answering = (young.activity.busy(), seat.activity.busy());
        assert!(crowd.enter().await.is_none(), "nobody is idle");
        drop(young);
        assert!(crowd.enter().await.is_some());
    }
}
