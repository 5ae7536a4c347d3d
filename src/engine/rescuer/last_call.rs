//! The last moment: lines run live although their batch has not ended.

use std::sync::Arc;

use crate::{
    engine::{Engine, budgets::Commitments, drive::Next, scope::ScopeKey, summary::Tracked},
    model::{
        batch::Left,
        id::BatchId,
        request::{Entry, Place},
        time::Timestamp,
    },
    ports::StoreError,
};

impl Engine {
    /// The last moment: lines run live whatever their batch does.
    pub(super) async fn overtake(
        self: &Arc<Self>,
        scope: &ScopeKey,
        tracked: &Tracked,
        start: Timestamp,
        money: &mut Commitments,
    ) -> Result<Next, StoreError> {
        let batch = &tracked.batch;
        let (cohort, due) = (&batch.cohort, batch.earliest_deadline);
        let room = match tracked.is_wanted() {
            true => self.room_to_come_back(scope, cohort, due),
            false => self.room_live(scope, cohort, due),
        };
        let fits = room >= batch.lines as usize;
        let again = Next::At(self.now() + self.settings.rescue.replan);
        if room == 0 {
            return Ok(again);
        }
        let renewed = match tracked.is_wanted() {
            true => None,
            // Cancelled, those that do not fit would lose their last chance.
            false if !fits => None,
            false => self.want_back_if_paid_for(batch, money).await?,
        };
        let later = renewed.map_or(Next::OnSignal, Next::At);
        // Not read line by line for nothing at every turn.
        let one = self.price_of_a_line(batch);
        if renewed.is_some() && self.could_afford(money, batch.tenant, one).is_err() {
            return Ok(later);
        }
        let paid_for = renewed.is_none() && fits;
        let called = self
            .last_call(tracked, start, paid_for, room, money)
            .await?;
        Ok(match fits {
            true => later.sooner(called),
            false => later.sooner(called).sooner(again),
        })
    }

    /// Lines whose last moment has come run live; the others have their turn. Of a
    /// batch that is not `paid_for` as a whole, those that the budget covers.
    pub(super) async fn last_call(
        self: &Arc<Self>,
        tracked: &Tracked,
        start: Timestamp,
        paid_for: bool,
        room: usize,
        money: &mut Commitments,
    ) -> Result<Next, StoreError> {
        let batch = tracked.batch.id;
        let before = start.until(tracked.batch.earliest_deadline);
        let (mut lines, mut next) = self.due_lines(batch, |line| line.deadline - before).await?;
        let none_waits = lines.is_empty() && next == Next::OnSignal;
        if none_waits && !tracked.is_wanted() && !self.summary.lock().is_awaited(batch) {
            // They went a few at a time: what it still answers is paid twice.
            tracing::info!(%batch, "overtaken by all of its lines: cancelled");
            self.emptied(batch);
            self.want_back(batch, Left::Overtaken);
            return Ok(Next::OnSignal);
        }
        if paid_for && next == Next::OnSignal {
            self.emptied(batch);
        } else if !paid_for {
            lines.sort_unstable_by_key(|line| (line.deadline, line.key));
            // Nothing is left behind, and what ran on would be billed for nobody.
            let mut last = next == Next::OnSignal && lines.len() <= room;
            lines.truncate(room);
            let (covered, _, renewed) = self.affordable(money, lines);
            last &= renewed.is_none();
            next = next.sooner(renewed.map_or(Next::OnSignal, Next::At));
            lines = covered;
            if last {
                self.emptied(batch);
                if !tracked.is_wanted() {
                    self.want_back(batch, Left::Overtaken);
                }
            }
        }
        if !lines.is_empty() {
            tracing::warn!(%batch, lines = lines.len(), "last call: live before the cancel has ended");
            // Told before they can come back: one whose own price is not covered does,
            // and not into a second batch.
            self.summary.lock().overtake(batch, &lines);
            self.relocate_all(&lines, Place::Line(batch), Place::Live)
                .await?;
        }
        Ok(next)
    }

    fn emptied(&self, id: BatchId) {
        if let Some(tracked) = self.summary.lock().batches.get_mut(&id) {
            tracked.emptied = true;
        }
    }

    pub(super) async fn due_lines(
        &self,
        batch: BatchId,
        due: impl Fn(&Entry) -> Timestamp,
    ) -> Result<(Vec<Entry>, Next), StoreError> {
        let now = self.now();
        let lines = self.lines_of(batch).await?;
        let (ready, rest): (Vec<Entry>, Vec<Entry>) =
            lines.into_iter().partition(|line| due(line) <= now);
        let next = rest.iter().map(due).min().map_or(Next::OnSignal, Next::At);
        Ok((ready, next))
    }
}
