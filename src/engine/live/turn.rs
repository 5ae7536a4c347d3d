//! Which live calls go now: of every scope that has room the earliest deadlines,
//! and of all of those the earliest first. A scope that is full or paused is not
//! even read, and what cannot go is passed by once and not at every turn.

use std::{
    collections::{HashMap, HashSet},
    ops::Bound,
    sync::Arc,
};

use super::{
    backlog::position,
    scopes::{Account, Permit, ScopeKey},
};
use crate::{
    engine::{Engine, drive::Next, inflight::InHand},
    model::{
        id::RequestKey,
        request::{Entry, LiveQueue, OnLate},
        time::Timestamp,
    },
    policy::throttle::{Try, Verdict},
    ports::StoreError,
};

/// Entries a read of a queue, at least and at most.
const PAGE: (usize, usize) = (16, 256);
/// Bytes of a request for one token: what counts against a rate limit need not be
/// exact, because every reply tells what is left.
const BYTES_A_TOKEN: u64 = 4;

/// A call that could go.
struct Candidate {
    entry: Entry,
    attempt: Try,
    account: Account,
    scope: ScopeKey,
}

impl Engine {
    pub(in crate::engine) async fn live_turn(self: &Arc<Self>) -> Result<Next, StoreError> {
        let now = self.now();
        if self.backlog.begin_turn(now) {
            self.scopes.forget_stale(now);
        }
        let queues = self.summary.lock().live_queues();
        let mut next = Next::OnSignal;
        for queue in queues.keys().filter(|queue| queue.on_late == OnLate::Fail) {
            let failed = self.fail_overdue(*queue, now).await;
            next = next.sooner(self.or_soon("failing what is late", failed));
        }
        let (mut candidates, later) = self.due_again(&queues, now);
        next = next.sooner(later.map_or(Next::OnSignal, Next::At));
        for (queue, account) in queues {
            if self.waits_for_money(&queue) {
                // Whoever of the tenant ends signals.
                continue;
            }
            let scope = self.scopes.key(&account);
            let room = match self.scopes.room(&scope, now) {
                (Verdict::Go, room) => room,
                // Whoever ends signals.
                (Verdict::Full, _) => continue,
                (Verdict::Wait { until, reason }, _) => {
                    tracing::debug!(?scope, %until, reason, "live calls wait");
                    next = next.sooner(Next::At(until));
                    continue;
                }
                (Verdict::RetryLater { .. }, _) => continue,
            };
            match self.untried(queue, room as usize).await {
                Ok(entries) => candidates.extend(entries.into_iter().map(|entry| Candidate {
                    entry,
                    attempt: Try::First,
                    account: account.clone(),
                    scope: scope.clone(),
                })),
                Err(error) => next = next.sooner(self.or_soon("a live queue", Err(error))),
            }
        }
        Ok(next.sooner(self.send_all(candidates, now)))
    }

    /// What is firm first, then the earliest deadline. A scope that has said no says it to all that
    /// are later, so that a large call is not passed by for ever by small ones.
    fn send_all(self: &Arc<Self>, mut candidates: Vec<Candidate>, now: Timestamp) -> Next {
        candidates.sort_unstable_by_key(|candidate| {
            let entry = &candidate.entry;
            (entry.cohort.guarantee, position(entry))
        });
        let mut next = Next::OnSignal;
        let mut closed: HashSet<ScopeKey> = HashSet::new();
        for candidate in candidates {
            if self.inflight.live.len() >= self.settings.live.max_total as usize {
                // Whoever ends signals.
                return next;
            }
            if closed.contains(&candidate.scope) {
                continue;
            }
            let entry = candidate.entry;
            let Some(in_hand) = self.inflight.live.begin(entry.key) else {
                continue;
            };
            let tokens = u64::from(entry.line_bytes) / BYTES_A_TOKEN;
            let attempt = candidate.attempt;
            match self.scopes.send(candidate.account, now, tokens, attempt) {
                Ok(permit) => {
                    if !self.backoffs.contains(&entry.key) {
                        self.backlog.passed(&entry);
                    }
                    self.run_in_background(entry, permit, in_hand);
                }
                Err(Verdict::RetryLater { until }) => next = next.sooner(Next::At(until)),
                Err(Verdict::Wait { until, .. }) => {
                    next = next.sooner(Next::At(until));
                    closed.insert(candidate.scope);
                }
                Err(Verdict::Full | Verdict::Go) => {
                    closed.insert(candidate.scope);
                }
            }
        }
        next
    }

    fn run_in_background(
        self: &Arc<Self>,
        entry: Entry,
        permit: Permit,
        in_hand: InHand<RequestKey>,
    ) {
        let engine = self.clone();
        self.tasks.spawn(async move {
            if let Err(error) = engine.run(entry.key, permit).await {
                tracing::error!(id = %entry.key.id, %error, "a live call");
                engine.backoffs.put_off(&engine, entry, super::Why::Ours);
            }
            drop(in_hand);
            engine.signals.live.notify_one();
        });
    }

    fn waits_for_money(&self, queue: &LiveQueue) -> bool {
        let destination = queue.destination;
        queue.rescued && queue.on_late == OnLate::Rescue && {
            let summary = self.summary.lock();
            let destination = summary.destinations.get(&destination);
            destination.is_some_and(|destination| self.budgets.waits(destination.tenant))
        }
    }

    /// Those that have been tried and may be tried again.
    fn due_again(
        &self,
        queues: &HashMap<LiveQueue, Account>,
        now: Timestamp,
    ) -> (Vec<Candidate>, Option<Timestamp>) {
        let (due, later) = self.backoffs.due(now);
        let due = due.into_iter().filter_map(|(entry, attempt)| {
            let queue = entry.live_queue();
            let account = queues.get(&queue)?.clone();
            if self.waits_for_money(&queue) {
                return None;
            }
            Some(Candidate {
                entry,
                attempt,
                scope: self.scopes.key(&account),
                account,
            })
        });
        (due.collect(), later)
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

    /// `Offpeak-On-Late: fail`, at the deadline, whatever its scope is doing. What
    /// is on its way ends by its own time limit.
    async fn fail_overdue(
        self: &Arc<Self>,
        queue: LiveQueue,
        now: Timestamp,
    ) -> Result<Next, StoreError> {
        let mut from = Bound::Unbounded;
        loop {
            let page = self.store.live(queue, from, PAGE.1).await?;
            let Some(last) = page.last() else {
                return Ok(Next::OnSignal);
            };
            from = Bound::Excluded(position(last));
            let (due, rest): (Vec<Entry>, Vec<Entry>) =
                page.into_iter().partition(|entry| entry.deadline <= now);
            let idle = |entry: &Entry| !self.inflight.live.contains(&entry.key);
            let due: Vec<Entry> = due.into_iter().filter(idle).collect();
            self.fail_late(&due).await?;
            if let Some(first) = rest.first() {
                return Ok(Next::At(first.deadline));
            }
        }
    }
}
