//! Which live calls go now: of every scope that has room the earliest deadlines,
//! and of all of those the earliest first. A scope that is full or paused is not
//! even read, and what cannot go is passed by once and not at every turn.

use std::{
    collections::{HashMap, HashSet},
    ops::Bound,
    sync::Arc,
};

use tokio::sync::OwnedSemaphorePermit;
use tracing::Instrument;

use super::{
    backlog::position,
    backoffs::Due,
    rungs::{Known, Ladder, Ladders, Step},
    scopes::Permit,
};
use crate::{
    engine::{
        Engine,
        drive::Next,
        inflight::InHand,
        scope::{Account, ScopeKey},
    },
    model::{
        attempt::Lane,
        id::RequestKey,
        request::{Entry, LiveQueue, OnLate, Place},
        time::Timestamp,
    },
    policy::{
        demand::BYTES_A_TOKEN,
        throttle::{Ended, Try, Verdict},
    },
    ports::StoreError,
};

/// Entries a read of a queue, at least and at most.
const PAGE: (usize, usize) = (16, 256);

/// A call that could go.
struct Candidate {
    entry: Entry,
    attempt: Try,
    account: Account,
    scope: ScopeKey,
    known: Known,
    /// None where there are only ordinary calls.
    ladder: Option<Ladder>,
}

/// Leave to go in a lane. Each has limits of its own.
pub enum Way {
    Ordinary(Permit),
    Flex(Permit),
    Background(OwnedSemaphorePermit),
}

impl Way {
    /// It was not made use of.
    pub fn unsent(self, now: Timestamp) {
        match self {
            Way::Ordinary(permit) | Way::Flex(permit) => permit.ended(now, Ended::Unsent),
            Way::Background(slot) => drop(slot),
        }
    }
}

impl Engine {
    pub(in crate::engine) async fn live_turn(self: &Arc<Self>) -> Result<Next, StoreError> {
        let now = self.now();
        if self.backlog.begin_turn(now) {
            self.scopes.forget_stale(now);
            self.flex_scopes.forget_stale(now);
        }
        let queues = self.summary.lock().live_queues();
        let mut next = Next::OnSignal;
        for (queue, account) in &queues {
            if queue.on_late != OnLate::Fail && !self.is_refused(account.credential) {
                continue;
            }
            let failed = self.fail_overdue(*queue, now).await;
            next = next.sooner(self.or_soon("failing what is late", failed));
        }
        let (called, renewal) = self.budgets.called(now);
        self.backoffs.call(&called);
        next = next.sooner(renewal.map_or(Next::OnSignal, Next::At));
        let mut ladders = Ladders::default();
        let (mut candidates, later) = self.due_again(&queues, &mut ladders, now);
        next = next.sooner(later);
        for (queue, account) in queues {
            if self.is_refused(account.credential) {
                continue;
            }
            if self.waits_behind_others(&queue) {
                // Whoever of the tenant ends signals.
                continue;
            }
            let scope = self.organizations.scope(&account);
            let mut room = match self.scopes.room(&scope, now) {
                (Verdict::Go, room) => room,
                // Whoever ends signals.
                (Verdict::Full | Verdict::RetryLater { .. }, _) => 0,
                (Verdict::Wait { until, reason }, _) => {
                    tracing::debug!(?scope, %until, reason, "live calls wait");
                    next = next.sooner(Next::At(until));
                    0
                }
            };
            let ladder = ladders.of(self, queue.destination);
            if ladder.is_some() {
                room = room.max(self.room_below(&scope, now));
            }
            if room == 0 {
                continue;
            }
            match self.untried(queue, (room as usize).min(PAGE.1)).await {
                Ok(entries) => candidates.extend(entries.into_iter().map(|entry| Candidate {
                    entry,
                    attempt: Try::First,
                    account: account.clone(),
                    scope: scope.clone(),
                    known: Known::default(),
                    ladder: ladder.clone(),
                })),
                Err(error) => next = next.sooner(self.or_soon("a live queue", Err(error))),
            }
        }
        Ok(next.sooner(self.send_all(candidates, now)))
    }

    /// Calls that may go in the lanes below an ordinary call.
    fn room_below(&self, scope: &ScopeKey, now: Timestamp) -> u32 {
        let flex = match self.flex_scopes.room(scope, now) {
            (Verdict::Go, room) => room,
            _ => 0,
        };
        flex.max(self.background.available_permits() as u32)
    }

    /// What is firm first, then the earliest deadline. A lane of a scope that has
    /// said no says it to all that are later, so that a large call is not passed by
    /// for ever by small ones.
    fn send_all(self: &Arc<Self>, mut candidates: Vec<Candidate>, now: Timestamp) -> Next {
        candidates.sort_unstable_by_key(|candidate| {
            let entry = &candidate.entry;
            (entry.cohort.guarantee, position(entry))
        });
        let mut next = Next::OnSignal;
        let mut closed: HashSet<(ScopeKey, Lane)> = HashSet::new();
        // Something of theirs waits, and is to be found again.
        let mut waiting: HashSet<LiveQueue> = HashSet::new();
        for candidate in candidates {
            if self.inflight.live.len() >= self.settings.live.max_total as usize {
                // Whoever ends signals.
                return next;
            }
            let entry = candidate.entry;
            let step = self.next_step(candidate.ladder.as_ref(), &entry, &candidate.known);
            let lane = (candidate.scope, step.lane);
            if closed.contains(&lane) {
                waiting.insert(entry.live_queue());
                next = next.sooner(Next::At(step.until));
                continue;
            }
            let Some(in_hand) = self.inflight.live.begin(entry.key) else {
                continue;
            };
            let tokens = (f64::from(entry.line_bytes) / BYTES_A_TOKEN) as u64;
            match self.way(step.lane, candidate.account, now, tokens, candidate.attempt) {
                Ok(way) => {
                    let queue = entry.live_queue();
                    if !waiting.contains(&queue) && !self.backoffs.contains(&entry.key) {
                        self.backlog.passed(&entry);
                    }
                    self.begin(entry, step, candidate.known, way, in_hand);
                }
                Err(verdict) => {
                    waiting.insert(entry.live_queue());
                    next = next.sooner(Next::At(step.until));
                    if let Verdict::Wait { until, .. } | Verdict::RetryLater { until } = verdict {
                        next = next.sooner(Next::At(until));
                    }
                    if !matches!(verdict, Verdict::RetryLater { .. }) {
                        closed.insert(lane);
                    }
                }
            }
        }
        next
    }

    /// None into a batch, which takes no leave here. Whoever ends signals, where it
    /// is full.
    fn way(
        &self,
        lane: Lane,
        account: Account,
        now: Timestamp,
        tokens: u64,
        attempt: Try,
    ) -> Result<Option<Way>, Verdict> {
        let way = match lane {
            Lane::Batch => return Ok(None),
            Lane::Flex => {
                let permit = self.flex_scopes.send(account, now, tokens, attempt);
                Way::Flex(permit?)
            }
            Lane::Background8h | Lane::Background2h => {
                let slot = self.background.clone().try_acquire_owned();
                Way::Background(slot.map_err(|_| Verdict::Full)?)
            }
            Lane::Standard => {
                let permit = self.scopes.send(account, now, tokens, attempt);
                Way::Ordinary(permit?)
            }
        };
        Ok(Some(way))
    }

    fn begin(
        self: &Arc<Self>,
        entry: Entry,
        step: Step,
        known: Known,
        way: Option<Way>,
        in_hand: InHand<RequestKey>,
    ) {
        let engine = self.clone();
        let span = tracing::debug_span!("live", id = %entry.key.id);
        self.tasks.spawn(
            async move {
                let ran = match way {
                    Some(way) => engine.run(entry.key, step, known, way).await,
                    None => engine.repack(&entry, step, known).await,
                };
                let ran = match ran {
                    Err(error @ StoreError::Corrupt(_)) => {
                        engine.give_up_if_damaged(entry, Place::Live, error).await
                    }
                    ran => ran,
                };
                if let Err(error) = ran {
                    tracing::error!(id = %entry.key.id, %error, "a live call");
                    engine.backoffs.put_off(&engine, entry, super::Why::Ours);
                }
                drop(in_hand);
                engine.signals.live.notify_one();
            }
            .instrument(span),
        );
    }

    /// Whether what is rescued has to wait for money behind many that do.
    fn waits_behind_others(&self, queue: &LiveQueue) -> bool {
        let destination = queue.destination;
        queue.rescued && queue.on_late == OnLate::Rescue && {
            let summary = self.summary.lock();
            let destination = summary.destinations.get(&destination);
            destination.is_some_and(|destination| self.budgets.line_is_full(destination.tenant))
        }
    }

    /// Those that have been tried and may be tried again. Background responses are
    /// looked at.
    fn due_again(
        self: &Arc<Self>,
        queues: &HashMap<LiveQueue, Account>,
        ladders: &mut Ladders,
        now: Timestamp,
    ) -> (Vec<Candidate>, Next) {
        let (due, later) = self.backoffs.due(now);
        let mut next = later.map_or(Next::OnSignal, Next::At);
        let mut candidates = Vec::new();
        for due in due {
            let (entry, attempt, known) = match due {
                Due::Try {
                    entry,
                    attempt,
                    known,
                } => (entry, attempt, known),
                Due::Look {
                    entry,
                    remote,
                    urgent,
                } => {
                    next = next.sooner(self.begin_look(entry, remote, urgent, now));
                    continue;
                }
            };
            let queue = entry.live_queue();
            let Some(account) = queues.get(&queue).cloned() else {
                continue;
            };
            if self.is_refused(account.credential) {
                continue;
            }
            candidates.push(Candidate {
                entry,
                attempt,
                scope: self.organizations.scope(&account),
                account,
                known,
                ladder: ladders.of(self, queue.destination),
            });
        }
        (candidates, next)
    }

    /// The first `room` of a queue that are neither on their way nor wait for their
    /// next try.
    async fn untried(&self, queue: LiveQueue, room: usize) -> Result<Vec<Entry>, StoreError> {
        let limit = room.clamp(PAGE.0, PAGE.1);
        let mut found = Vec::new();
        let mut from = self.backlog.from(queue);
        loop {
            let page = self.store.live(queue, from, limit).await?;
            let Some(last) = page.last() else {
                return Ok(found);
            };
            from = Bound::Excluded(position(last));
            for entry in page {
                let key = &entry.key;
                if !self.inflight.live.contains(key) && !self.backoffs.contains(key) {
                    found.push(entry);
                } else if found.is_empty() {
                    self.backlog.passed(&entry);
                }
                if found.len() == room {
                    return Ok(found);
                }
            }
        }
    }

    /// `Offpeak-On-Late: fail`, or a key that is refused: at the deadline, whatever its scope is doing. What
    /// is on its way ends by its own time limit.
    async fn fail_overdue(
        self: &Arc<Self>,
        queue: LiveQueue,
        now: Timestamp,
    ) -> Result<Next, StoreError> {
        if let Some(first) = self.backlog.deadline(queue)
            && first > now
        {
            return Ok(Next::At(first));
        }
        let mut from = Bound::Unbounded;
        // Of those that are late and on their way: they may come back.
        let mut busy = None;
        loop {
            let page = self.store.live(queue, from, PAGE.1).await?;
            let Some(last) = page.last() else {
                let next = busy.unwrap_or(Timestamp::MAX);
                self.backlog.comes_due(queue, next);
                return Ok(Next::OnSignal);
            };
            from = Bound::Excluded(position(last));
            let (due, rest): (Vec<Entry>, Vec<Entry>) =
                page.into_iter().partition(|entry| entry.deadline <= now);
            let idle = |entry: &Entry| !self.inflight.live.contains(&entry.key);
            let (due, running): (Vec<Entry>, Vec<Entry>) = due.into_iter().partition(idle);
            busy = busy.or(running.first().map(|entry| entry.deadline));
            self.fail_late(&due, Place::Live).await?;
            if let Some(first) = rest.first() {
                self.backlog
                    .comes_due(queue, busy.unwrap_or(first.deadline));
                return Ok(Next::At(first.deadline));
            }
        }
    }
}
