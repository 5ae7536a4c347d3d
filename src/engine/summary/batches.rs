//! The batches that we still do something about, and what is only known of them
//! while we run.

use std::{collections::BTreeMap, hash::Hash, ops::Deref, time::Duration};

use crate::{
    engine::scope::{Account, Organizations, ScopeKey},
    model::{
        batch::{Batch, BatchState, Left},
        id::{BatchId, CredentialId, TenantId},
        request::{Cohort, Guarantee, OnLate},
        time::Timestamp,
    },
    policy::plan::Stay,
};

use super::{Summary, index::Index};

/// A batch and what is only known while we run.
#[derive(Clone)]
pub(in crate::engine) struct Tracked {
    pub batch: Batch,
    /// That it is found by.
    scope: ScopeKey,
    /// When its next step is due.
    pub due: Timestamp,
    /// The rescuer wants its lines back, and why.
    pub wanted: Option<Left>,
    /// For a fresh batch, and not to run live.
    pub afresh: bool,
    /// The share of its lines that had finished when it was last looked at before a
    /// cancel; none where nothing was told.
    pub heard: Option<f64>,
    pub watched: Watched,
    /// When it is to be left, as last thought out.
    pub stay: Option<Stayed>,
    /// The provider may hold an input file of it whose upload nobody heard the end of.
    pub stray_file: bool,
    /// The provider holds its tokens no more.
    pub released: bool,
    /// All that the rescuer wanted back has gone already.
    pub emptied: bool,
    /// It is said to have ended, since the last look began.
    pub hinted: bool,
}

/// Since when a batch has been looked at: what ended before that, ended nobody knows
/// when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Watched {
    FromItsStart,
    /// It may have run when we started, and has not been looked at since.
    NotYet,
    /// Since then it has.
    Again,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::engine) struct Stayed {
    pub stay: Stay,
    /// The latest instant at which its lines must begin to run live.
    pub start: Timestamp,
    pub thought: Timestamp,
}

impl Tracked {
    fn new(batch: Batch, scope: ScopeKey, due: Timestamp) -> Tracked {
        Tracked {
            scope,
            due,
            // Nobody asked for a second batch of the same lines.
            wanted: batch.twin_of.map(|_| Left::Twin),
            batch,
            afresh: false,
            heard: None,
            watched: Watched::FromItsStart,
            stay: None,
            stray_file: false,
            released: false,
            emptied: false,
            hinted: false,
        }
    }

    /// It was found running, with this `share` of its lines through, where that is
    /// told. Where that is news, says how much of it came since the last look.
    pub fn hear(&mut self, share: Option<f64>) -> Option<f64> {
        if self.watched == Watched::NotYet {
            self.watched = Watched::Again;
        }
        let share = share?;
        let is_news = share > self.heard.unwrap_or(0.0);
        let before = self.ended_before().unwrap_or(share);
        self.heard = Some(share.max(before));
        is_news.then_some(share - before)
    }

    /// Its lines are wanted back.
    pub fn is_wanted(&self) -> bool {
        self.wanted.is_some()
    }

    /// They are, and have not come yet.
    fn is_coming_back(&self) -> bool {
        self.is_wanted()
            && !self.emptied
            && self.batch.twin_of.is_none()
            && self.batch.state.is_open()
            && self.batch.cohort.on_late == OnLate::Rescue
    }

    /// The share of its lines that had ended before the last look; none where nobody
    /// knows.
    pub fn ended_before(&self) -> Option<f64> {
        match self.watched {
            Watched::FromItsStart => Some(self.heard.unwrap_or(0.0)),
            Watched::NotYet | Watched::Again => self.heard,
        }
    }
}

/// By id, and found by whom they are for: a harvest asks that of every line. What a
/// batch is for never changes.
#[derive(Default)]
pub(in crate::engine) struct Batches {
    tracked: BTreeMap<BatchId, Tracked>,
    cohorts: Index<Cohort, BatchId>,
    scopes: Index<ScopeKey, BatchId>,
    tenants: Index<TenantId, BatchId>,
    credentials: Index<CredentialId, BatchId>,
}

impl Deref for Batches {
    type Target = BTreeMap<BatchId, Tracked>;

    fn deref(&self) -> &Self::Target {
        &self.tracked
    }
}

impl Batches {
    pub fn get_mut(&mut self, id: &BatchId) -> Option<&mut Tracked> {
        self.tracked.get_mut(id)
    }

    pub fn remove(&mut self, id: &BatchId) {
        let Some(Tracked { batch, scope, .. }) = self.tracked.remove(id) else {
            return;
        };
        self.cohorts.remove(&batch.cohort, id);
        self.scopes.remove(&scope, id);
        self.tenants.remove(&batch.tenant, id);
        self.credentials.remove(&batch.credential, id);
    }

    pub fn is_open(&self, id: &BatchId) -> bool {
        let tracked = self.tracked.get(id);
        tracked.is_some_and(|tracked| tracked.batch.state.is_open())
    }

    fn insert(&mut self, batch: Batch, scope: ScopeKey, due: Timestamp) {
        let id = batch.id;
        self.cohorts.insert(batch.cohort, id);
        self.scopes.insert(scope.clone(), id);
        self.tenants.insert(batch.tenant, id);
        self.credentials.insert(batch.credential, id);
        self.tracked.insert(id, Tracked::new(batch, scope, due));
    }

    /// Those of the credential are found by its organization from here on.
    pub(super) fn regroup(&mut self, credential: CredentialId, organizations: &Organizations) {
        for (id, tracked) in &mut self.tracked {
            if tracked.batch.credential == credential {
                let scope = organizations.scope(&Account::from(&tracked.batch));
                self.scopes.remove(&tracked.scope, id);
                self.scopes.insert(scope.clone(), *id);
                tracked.scope = scope;
            }
        }
    }

    /// Those of an index.
    fn found<'a, K: Hash + Eq>(
        &'a self,
        index: &'a Index<K, BatchId>,
        key: &K,
    ) -> impl Iterator<Item = &'a Tracked> {
        index.get(key).filter_map(|id| self.tracked.get(id))
    }

    pub fn of_scope<'a>(&'a self, scope: &ScopeKey) -> impl Iterator<Item = &'a Tracked> {
        self.found(&self.scopes, scope)
    }

    pub(super) fn of_tenant<'a>(&'a self, tenant: &TenantId) -> impl Iterator<Item = &'a Tracked> {
        self.found(&self.tenants, tenant)
    }

    pub(super) fn of_credential<'a>(
        &'a self,
        credential: &CredentialId,
    ) -> impl Iterator<Item = &'a Tracked> {
        self.found(&self.credentials, credential)
    }
}

impl Summary {
    /// Writes a batch's new version, and when its next step is due.
    pub fn track(&mut self, batch: Batch, due: Timestamp) {
        match batch.most {
            _ if !batch.state.is_open() => self.reserves.settle(&batch.id),
            // It has no lines of its own, and may run all of the other's.
            Some(most) if batch.twin_of.is_some() && !self.reserves.is_adrift(&batch.id) => {
                self.reserves.adrift(batch.tenant, batch.id, most);
            }
            _ => {}
        }
        match self.batches.get_mut(&batch.id) {
            Some(tracked) => {
                tracked.batch = batch;
                tracked.due = due;
            }
            None => {
                let scope = self.organizations.scope(&Account::from(&batch));
                self.batches.insert(batch, scope, due);
            }
        }
    }

    /// Forgets a batch of which nothing is left to do.
    pub fn forget_batch(&mut self, id: &BatchId) {
        self.batches.remove(id);
        self.reserves.settle(id);
    }

    /// The next step of every open batch of the credential.
    pub fn due_now(&mut self, credential: CredentialId, now: Timestamp) {
        for tracked in self.batches.tracked.values_mut() {
            if tracked.batch.credential == credential && tracked.batch.state.is_open() {
                tracked.due = tracked.due.min(now);
            }
        }
    }

    /// Tracks one that was found when we started.
    pub fn track_again(&mut self, batch: Batch, due: Timestamp) {
        let (id, state, was_sent) = (batch.id, batch.state, batch.create_sent.is_some());
        self.track(batch, due);
        if let Some(tracked) = self.batches.get_mut(&id) {
            tracked.stray_file = state == BatchState::Sealed;
            if was_sent {
                tracked.watched = Watched::NotYet;
            }
        }
    }

    /// Ended batches whose files at the provider are to be deleted: since when, whose and
    /// which, longest due first.
    pub fn littered(&self, now: Timestamp) -> Vec<(Timestamp, CredentialId, BatchId)> {
        let batches = self.batches.values().filter(|tracked| {
            let batch = &tracked.batch;
            tracked.due <= now && !batch.state.is_open() && !batch.litter.is_empty()
        });
        let littered = batches.map(|it| (it.due, it.batch.credential, it.batch.id));
        let mut littered: Vec<_> = littered.collect();
        littered.sort();
        littered
    }

    /// Open batches that a request of this cohort may be a line of.
    pub fn batches_of(&self, cohort: &Cohort) -> Vec<BatchId> {
        let batches = self.batches.found(&self.batches.cohorts, cohort);
        let open = batches.filter(|tracked| tracked.batch.state.is_open());
        open.map(|tracked| tracked.batch.id).collect()
    }

    /// The scope's batches that run, by age, with the share that has not ended.
    pub fn running(&self, scope: &ScopeKey, now: Timestamp) -> Vec<(Duration, f64)> {
        let running = self
            .batches
            .of_scope(scope)
            .filter(|tracked| tracked.batch.state == BatchState::Submitted)
            .filter(|tracked| tracked.batch.twin_of.is_none());
        let ages = running.map(|tracked| {
            let age = tracked.batch.created.until(now);
            (age, 1.0 - tracked.heard.unwrap_or(0.0))
        });
        ages.collect()
    }

    /// The scope's batches whose cancel has not ended, by how long it has run, each
    /// with the weight of one.
    pub fn cancelling(&self, scope: &ScopeKey, now: Timestamp) -> Vec<(Duration, f64)> {
        let batches = self.batches.of_scope(scope).map(|tracked| &tracked.batch);
        let cancelling = batches.filter(|batch| batch.state == BatchState::Cancelling);
        let asked = cancelling.filter_map(|batch| batch.cancel_sent);
        asked.map(|asked| (asked.until(now), 1.0)).collect()
    }

    /// Lines of the scope that nothing was promised to and that are wanted back to run
    /// live, and have not come yet.
    pub fn coming_back(&self, scope: &ScopeKey) -> usize {
        let wanted = self.batches.of_scope(scope).filter(|tracked| {
            let guarantee = tracked.batch.cohort.guarantee;
            tracked.is_coming_back() && !tracked.afresh && guarantee == Guarantee::BestEffort
        });
        wanted.map(|tracked| tracked.batch.lines as usize).sum()
    }

    /// Batches whose lines are wanted back to run live, and have not come yet.
    pub fn wanted_back(&self) -> Vec<Batch> {
        let batches = self.batches.values();
        let wanted = batches.filter(|tracked| tracked.is_coming_back() && !tracked.afresh);
        wanted.map(|tracked| tracked.batch.clone()).collect()
    }
}
