//! What a provider limits, and what packing and submitting know of it: budgets of
//! enqueued tokens, throttled creates, control calls, and whose turn it is.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use crate::{
    model::{
        batch::{Batch, BatchState},
        body::tokens,
        id::CredentialId,
        request::{Cohort, Destination},
        time::Timestamp,
    },
    policy::{
        pack::{Budget, Pressure, Room, Throttle, Turns},
        poll,
    },
};

use super::{
    scope::{Account, Merge, Organizations, Owner, ScopeKey, regroup, regroup_owner},
    summary::{Batches, Summary},
    watcher::looked_for,
};

/// Polls that come more often than this are a luxury: what they take of the budget is
/// there for more batches.
const PROMPT: Duration = Duration::from_secs(10);

#[derive(Default)]
pub(super) struct Limits {
    /// By model; for every organization.
    configured: BTreeMap<String, u64>,
    budgets: HashMap<ScopeKey, Budget>,
    throttles: HashMap<Owner, Throttle>,
    pub packing: Turns,
    pub submitting: Turns,
}

impl Limits {
    pub fn new(configured: BTreeMap<String, u64>) -> Limits {
        Limits {
            configured,
            ..Limits::default()
        }
    }

    fn budget(&mut self, scope: ScopeKey) -> &mut Budget {
        let configured = self.configured.get(&*scope.model).copied();
        self.budgets
            .entry(scope)
            .or_insert_with(|| Budget::new(configured))
    }

    /// A scope without a limit has no budget, and costs nothing.
    fn limited(&mut self, scope: &ScopeKey) -> Option<&mut Budget> {
        if self.configured.contains_key(&*scope.model) {
            return Some(self.budget(scope.clone()));
        }
        let budget = self.budgets.get_mut(scope)?;
        budget.limit().is_some().then_some(budget)
    }

    /// What the provider told of the credential alone, it told of its organization.
    pub fn regroup(
        &mut self,
        credential: CredentialId,
        organizations: &Organizations,
        now: Timestamp,
    ) {
        regroup(&mut self.budgets, credential, organizations);
        let merge = |whole: &mut Throttle, part: &Throttle| whole.absorb(part, now);
        regroup_owner(&mut self.throttles, credential, organizations, merge);
    }
}

impl Merge for Budget {
    fn merge(&mut self, alone: Budget) {
        self.absorb(alone);
    }
}

impl Summary {
    pub fn is_limited(&mut self, scope: &ScopeKey) -> bool {
        self.limits.limited(scope).is_some()
    }

    /// What the next batch of a cohort may have of its scope's tokens.
    pub fn room(&mut self, cohort: &Cohort, to: &Destination, now: Timestamp) -> Room {
        self.room_beside(cohort, &Account::from(to), |_| true, now)
    }

    /// When the provider could take a fresh batch in the place of this one, whose
    /// tokens come free. At the end of time where something has to end first.
    pub fn replaceable_at(&mut self, batch: &Batch, now: Timestamp) -> Timestamp {
        let others = |one: &Batch| one.id != batch.id;
        let room = self.room_beside(&batch.cohort, &Account::from(batch), others, now);
        let create_at = self.create_at(&batch.cohort, batch.credential);
        match room {
            Room::Open | Room::Tokens(_) => create_at,
            Room::Closed(until) => create_at.max(until.unwrap_or(Timestamp::MAX)),
        }
    }

    /// What the next batch may have beside those that `count`.
    fn room_beside(
        &mut self,
        cohort: &Cohort,
        account: &Account,
        count: impl Fn(&Batch) -> bool,
        now: Timestamp,
    ) -> Room {
        let scope = self.organizations.scope(account);
        let Some(budget) = self.limits.limited(&scope) else {
            return Room::Open;
        };
        if let Some(kept) = budget.kept_for()
            && !self.queue.contains_key(&kept)
        {
            budget.keep_for_nobody();
        }
        let enqueued = enqueued(&self.batches, &scope, count);
        budget.room(cohort, enqueued, now)
    }

    /// The next line of the cohort needs more room than there is.
    pub fn keep_room(&mut self, cohort: Cohort, to: &Destination) {
        let scope = self.organizations.scope(&Account::from(to));
        self.limits.budget(scope).keep_for(cohort);
    }

    /// A batch of the scope was filled.
    pub fn filled(&mut self, to: &Destination) {
        let scope = self.organizations.scope(&Account::from(to));
        if let Some(budget) = self.limits.limited(&scope) {
            budget.keep_for_nobody();
        }
    }

    /// The batch is terminal: the provider holds its tokens no more. `ran` is false
    /// where it never held them.
    pub fn release(&mut self, batch: &Batch, ran: bool, now: Timestamp) {
        let scope = self.organizations.scope(&Account::from(batch));
        let Some(tracked) = self.batches.get(&batch.id) else {
            return;
        };
        if !tracked.released
            && ran
            && let Some(budget) = self.limits.limited(&scope)
        {
            let runs = |one: &Batch| one.id == batch.id || is_running(one);
            let all = enqueued(&self.batches, &scope, runs);
            budget.taken(all.unwrap_or_default(), now);
        }
        if let Some(tracked) = self.batches.get_mut(&batch.id) {
            tracked.released = true;
        }
    }

    /// The provider refused the batch, of so many tokens. True where it will never
    /// fit.
    pub fn refused(&mut self, batch: &Batch, tokens: u64, pause: Duration, now: Timestamp) -> bool {
        let scope = self.organizations.scope(&Account::from(batch));
        let others = enqueued(&self.batches, &scope, |one| {
            one.id != batch.id && is_there(one)
        });
        let budget = self.limits.budget(scope);
        budget.refused(tokens, others, pause, now);
        tracing::warn!(batch = %batch.id, model = batch.model, tokens, ?others, limit = budget.limit(),
            "the provider has no room for a batch's tokens");
        budget.is_hopeless(batch.lines, tokens)
    }

    /// A create was answered with 429: fewer and larger ones, and none for so long
    /// as it `asked` for.
    pub fn throttled(&mut self, credential: CredentialId, asked: Duration, now: Timestamp) {
        let owner = self.organizations.owner(credential);
        let throttle = self.limits.throttles.entry(owner).or_default();
        throttle.complained(now);
        self.creates(credential).put_off(now + asked);
    }

    /// What bears on each organization with open batches.
    pub fn pressures(&self, now: Timestamp, watch: &poll::Settings) -> HashMap<Owner, Pressure> {
        let mut pressures: HashMap<Owner, Pressure> = HashMap::new();
        for tracked in self.batches.values() {
            let batch = &tracked.batch;
            if is_there(batch) {
                let interval = poll::interval(looked_for(tracked, now), watch);
                let polls = 1.0 / interval.max(PROMPT).as_secs_f64();
                let share = polls / watch.polls_per_second.max(0.001);
                let owner = self.organizations.owner(batch.credential);
                pressures.entry(owner).or_default().calls += share;
            }
        }
        for (owner, throttle) in &self.limits.throttles {
            let level = throttle.level(now);
            if level > 0 {
                pressures.entry(owner.clone()).or_default().throttle = level;
            }
        }
        pressures
    }
}

/// Tokens of ours that a scope has on their way, in batches that `count`; None where
/// there are none.
fn enqueued(batches: &Batches, scope: &ScopeKey, count: impl Fn(&Batch) -> bool) -> Option<u64> {
    let held = batches.of_scope(scope).filter(|tracked| {
        let batch = &tracked.batch;
        !tracked.released && batch.state.is_open() && count(batch)
    });
    held.map(|tracked| tokens_of(&tracked.batch))
        .reduce(|all, one| all + one)
}

/// The provider has it, and may still refuse it.
fn is_there(batch: &Batch) -> bool {
    matches!(batch.state, BatchState::Submitted | BatchState::Cancelling)
}

/// The provider has taken it.
fn is_running(batch: &Batch) -> bool {
    let status = batch.provider_status.as_deref();
    is_there(batch) && status.is_some_and(|status| !status.eq_ignore_ascii_case("validating"))
}

/// A batch that was filled while no limit was known was not counted.
fn tokens_of(batch: &Batch) -> u64 {
    batch
        .tokens
        .unwrap_or_else(|| tokens::estimate(batch.bytes))
}
