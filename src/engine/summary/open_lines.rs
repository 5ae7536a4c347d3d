//! A tenant's open requests by where they go, wherever they wait: what they may still
//! cost is told by that.

use crate::{
    engine::summary::live_queues::Lines,
    model::{
        id::TenantId,
        request::{Destination, Entry},
    },
};

use super::Summary;

impl Summary {
    pub fn open_lines_of(&self, tenant: TenantId) -> Vec<(Destination, Lines)> {
        let open = self.open_lines.get(&tenant).into_iter().flatten();
        let with_destination = |(id, lines): (_, &Lines)| {
            let destination = self.destinations.get(id)?;
            Some((destination.clone(), *lines))
        };
        open.filter_map(with_destination).collect()
    }

    pub(super) fn count_open(&mut self, entry: &Entry, by: i64) {
        let tenant = entry.key.tenant;
        let destinations = self.open_lines.entry(tenant).or_default();
        let destination = entry.cohort.destination;
        let lines = destinations.entry(destination).or_default();
        lines.count += by;
        lines.bytes += by * i64::from(entry.line_bytes);
        if (lines.count, lines.bytes) == (0, 0) {
            destinations.remove(&destination);
        }
        if destinations.is_empty() {
            self.open_lines.remove(&tenant);
        }
    }
}
