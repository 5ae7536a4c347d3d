//! What was to be answered outside of batches goes into one after all: its lane did
//! not answer it, and a batch is the cheapest of what is left, as admission reckoned
//! with. From then on it is a batch's, like any other: the rescuer watches over it,
//! and what an ordinary call for it costs comes out of the rescue budget.

use super::rungs::{Known, Step};
use crate::{
    engine::Engine,
    model::request::{Entry, Place},
    ports::{Relocation, Replan, StoreError},
};

impl Engine {
    pub(super) async fn repack(
        &self,
        entry: &Entry,
        step: Step,
        known: Known,
    ) -> Result<(), StoreError> {
        if let Some(head) = self.store.head(entry.key).await? {
            let mut request = head.request;
            let (from, to) = (Place::Live, Place::Queue(request.cohort));
            let mut reason = format!("{} (planned: {})", step.reason, request.reason);
            if let Some(why) = known.why {
                reason = format!("{reason}; {why}");
            }
            let replan = Replan {
                relocation: Relocation {
                    entry: *entry,
                    from,
                    to,
                },
                lane: step.lane,
                reason,
            };
            if self.store.replan(replan).await? {
                request.lane = step.lane;
                let first = self.summary.lock().replan(entry, step.lane, &from, &to);
                self.wake_for(&to, first, &request);
            }
        }
        self.backoffs.forget(&entry.key);
        Ok(())
    }
}
