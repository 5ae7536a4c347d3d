//! Live work by queue: where there is any, on whose account, and how much.

use std::collections::HashMap;

use crate::{
    engine::scope::Account,
    model::request::{Destination, Entry, LiveQueue, OnLate},
};

use super::Summary;

/// So many lines; signed, as told in any order.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::engine) struct Lines {
    pub count: i64,
    pub bytes: i64,
}

impl Summary {
    /// The queues of live work, and on whose account it runs.
    pub fn live_queues(&self) -> HashMap<LiveQueue, Account> {
        let account = |queue: &LiveQueue| {
            let destination = self.destinations.get(&queue.destination);
            if destination.is_none() {
                tracing::error!(?queue, "live work without a destination");
            }
            let destination = destination?;
            Some((*queue, Account::from(destination)))
        };
        self.live_queues.keys().filter_map(account).collect()
    }

    /// Live work that was to be answered in a cheaper lane, and can go back there.
    pub fn live_rescues(&self) -> Vec<(Destination, Lines)> {
        let rescues = self.live_queues.iter();
        let rescues = rescues.filter(|(queue, _)| queue.rescued && queue.on_late == OnLate::Rescue);
        let with_destination = |(queue, lines): (&LiveQueue, &Lines)| {
            let destination = self.destinations.get(&queue.destination)?;
            Some((destination.clone(), *lines))
        };
        rescues.filter_map(with_destination).collect()
    }

    pub(super) fn count_live(&mut self, entry: &Entry, by: i64) {
        self.live += by;
        self.count_calling(entry, by);
        let queue = entry.live_queue();
        let lines = self.live_queues.entry(queue).or_default();
        lines.count += by;
        lines.bytes += by * i64::from(entry.line_bytes);
        // At no lines and some bytes, a line is there whose neighbour's leaving was
        // told before its coming.
        if (lines.count, lines.bytes) == (0, 0) {
            self.live_queues.remove(&queue);
        }
    }
}
