//! What is known of how long each scope's lanes take, and of how they refuse and end:
//! learned from what is seen, told by the API, and kept over a restart.

mod kept;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;

use crate::{
    model::{
        attempt::Lane,
        id::{CredentialId, TenantId},
        time::Timestamp,
    },
    policy::{
        fading::Fades,
        plan::Cancel,
        rescue::{CANCELLED, FINISHING, FINISHING_WEIGHT, GUESS, IN_TIME},
        share::Share,
        turnaround::{Curve, Prior, Table},
    },
};

use super::{
    Engine,
    scope::{Account, Merge, Organizations, Owner, ScopeKey, regroup},
};

/// What takes time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Takes {
    Answer(Lane),
    /// Until a batch has ended by itself, and its answers can be had.
    Batch,
    /// Until a cancelled batch has ended.
    Cancel,
}

/// What happens to a share of those to whom it can.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Happens {
    /// A flex call is refused for want of capacity.
    Refused,
    /// A line that would end while its batch is being cancelled does.
    Finished,
}

/// What is learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Takes(Takes),
    Happens(Happens),
}

impl What {
    fn all() -> impl Iterator<Item = What> {
        let answers = Lane::ALL.into_iter().map(Takes::Answer);
        let times = answers.chain([Takes::Batch, Takes::Cancel]);
        let shares = Happens::ALL.into_iter().map(What::Happens);
        times.map(What::Takes).chain(shares)
    }

    fn as_str(self) -> &'static str {
        match self {
            What::Takes(takes) => takes.as_str(),
            What::Happens(happens) => happens.as_str(),
        }
    }

    fn from_name(name: &str) -> Option<What> {
        What::all().find(|what| what.as_str() == name)
    }
}

impl Takes {
    const BATCH: &'static str = "whole-batch";
    const CANCEL: &'static str = "cancel";

    pub fn as_str(self) -> &'static str {
        match self {
            Takes::Answer(lane) => lane.as_str(),
            Takes::Batch => Takes::BATCH,
            Takes::Cancel => Takes::CANCEL,
        }
    }
}

impl Happens {
    const ALL: [Happens; 2] = [Happens::Refused, Happens::Finished];

    pub fn as_str(self) -> &'static str {
        match self {
            Happens::Refused => "flex-refused",
            Happens::Finished => "finished-in-cancel",
        }
    }
}

pub(super) struct Turnarounds {
    organizations: Arc<Organizations>,
    learned: Mutex<AllLearned>,
}

#[derive(Default)]
struct AllLearned {
    scopes: HashMap<ScopeKey, Scope>,
    /// Scopes that have gone to their organization, and are written down as if not.
    moved: Vec<ScopeKey>,
}

#[derive(Default)]
struct Scope {
    times: BTreeMap<Takes, Learning<Table>>,
    shares: BTreeMap<Happens, Learning<Share>>,
    observations: u64,
}

#[derive(Default)]
struct Learning<T> {
    known: T,
    /// Seen since it was last written down.
    changed: bool,
}

/// Of one scope: how long something takes, or what share it happens to.
pub struct Turnaround {
    pub owner: Owner,
    pub model: Arc<str>,
    /// A lane, `whole-batch`, `cancel`, `flex-refused`, `finished-in-cancel`, or
    /// `calls`.
    pub what: &'static str,
    /// Batches, or calls, that tell it, the older ones less.
    pub seen: f64,
    pub believed: Believed,
}

pub enum Believed {
    Time {
        learned: Curve,
        prior: Curve,
    },
    Share {
        learned: f64,
        prior: f64,
    },
    /// Ordinary calls a second that can be answered in the long run.
    Rate {
        learned: f64,
        prior: f64,
    },
}

impl Turnarounds {
    pub fn new(organizations: Arc<Organizations>) -> Turnarounds {
        Turnarounds {
            organizations,
            learned: Mutex::default(),
        }
    }

    fn learn(&self, account: &Account, how: impl FnOnce(&mut Scope)) {
        let mut learned = self.learned.lock();
        learned.learn(self.organizations.scope(account), how);
    }

    /// What was learned of a scope, where anything was.
    fn known<T>(&self, scope: &ScopeKey, look: impl FnOnce(&mut Scope) -> T) -> Option<T> {
        self.learned.lock().scopes.get_mut(scope).map(look)
    }

    /// How often something was seen: whether there is news.
    pub fn observations(&self, scope: &ScopeKey) -> u64 {
        let seen = self.known(scope, |scope| scope.observations);
        seen.unwrap_or_default()
    }

    /// What was learned of the credential alone goes to its organization.
    pub fn regroup(&self, credential: CredentialId, now: Timestamp, half_life: Duration) {
        let mut learned = self.learned.lock();
        let alone = Owner::Credential(credential);
        let AllLearned { scopes, moved } = &mut *learned;
        moved.extend(scopes.keys().filter(|key| key.owner == alone).cloned());
        // What is added up has faded alike.
        scopes
            .values_mut()
            .for_each(|scope| scope.fade(now, half_life));
        regroup(scopes, credential, &self.organizations);
    }
}

impl AllLearned {
    fn learn(&mut self, scope: ScopeKey, how: impl FnOnce(&mut Scope)) {
        let scope = self.scopes.entry(scope).or_default();
        scope.observations += 1;
        how(scope);
    }
}

impl Merge for Scope {
    fn merge(&mut self, alone: Scope) {
        self.observations += alone.observations;
        merge(&mut self.times, alone.times, Table::add);
        merge(&mut self.shares, alone.shares, Share::add);
    }
}

fn merge<K: Ord, T: Default>(
    whole: &mut BTreeMap<K, Learning<T>>,
    part: BTreeMap<K, Learning<T>>,
    add: impl Fn(&mut T, &T),
) {
    for (what, learning) in part {
        let whole = whole.entry(what).or_default();
        add(&mut whole.known, &learning.known);
        whole.changed = true;
    }
}

impl Scope {
    fn fade(&mut self, now: Timestamp, half_life: Duration) {
        let times = self.times.values_mut();
        times.for_each(|learning| learning.known.fade(now, half_life));
        let shares = self.shares.values_mut();
        shares.for_each(|learning| learning.known.fade(now, half_life));
    }

    /// What was seen, and how much of it.
    fn seen(&self) -> impl Iterator<Item = (What, f64)> {
        let times = self.times.iter();
        let times = times.map(|(takes, it)| (What::Takes(*takes), it.known.weight()));
        let shares = self.shares.iter();
        times.chain(shares.map(|(what, it)| (What::Happens(*what), it.known.weight())))
    }

    fn time(&mut self, takes: Takes) -> &mut Table {
        let learning = self.times.entry(takes).or_default();
        learning.changed = true;
        &mut learning.known
    }

    fn share(&mut self, happens: Happens) -> &mut Share {
        let learning = self.shares.entry(happens).or_default();
        learning.changed = true;
        &mut learning.known
    }
}

impl Engine {
    /// An answer, or the end of a cancel, came after so long.
    pub(super) fn saw(&self, account: &Account, takes: Takes, age: Duration, weight: f64) {
        let (now, half_life) = (self.now(), self.settings.rescue.half_life);
        self.turnarounds.learn(account, |scope| {
            let table = scope.time(takes);
            table.fade(now, half_life);
            table.ended(age, weight);
        });
    }

    /// None had come after so long, and none will be seen.
    pub(super) fn cut_off(&self, account: &Account, takes: Takes, age: Duration, weight: f64) {
        let (now, half_life) = (self.now(), self.settings.rescue.half_life);
        self.turnarounds.learn(account, |scope| {
            let table = scope.time(takes);
            table.fade(now, half_life);
            table.left(age, weight);
        });
    }

    /// It happened to so many of so many.
    pub(super) fn happened(&self, account: &Account, happens: Happens, did: f64, of: f64) {
        let (now, half_life) = (self.now(), self.settings.rescue.half_life);
        self.turnarounds.learn(account, |scope| {
            let share = scope.share(happens);
            share.fade(now, half_life);
            share.saw(did, of);
        });
    }

    pub(super) fn curve(&self, scope: &ScopeKey, takes: Takes) -> Curve {
        let now = self.now();
        let running = match takes {
            Takes::Answer(Lane::Batch) => self.summary.lock().running(scope, now),
            Takes::Batch => {
                let running = self.summary.lock().running(scope, now);
                running.into_iter().map(|(age, _)| (age, 1.0)).collect()
            }
            Takes::Cancel => self.summary.lock().cancelling(scope, now),
            _ => Vec::new(),
        };
        let rescue = &self.settings.rescue;
        let weight = match takes {
            Takes::Answer(Lane::Standard) | Takes::Cancel => rescue.prior_weight * GUESS,
            Takes::Answer(_) | Takes::Batch => rescue.prior_weight,
        };
        let table = self.turnarounds.known(scope, |scope| {
            let learning = scope.times.get_mut(&takes)?;
            learning.known.fade(now, rescue.half_life);
            Some(learning.known.clone())
        });
        let table = table.flatten().unwrap_or_default();
        table.curve(&self.prior(takes), weight, running)
    }

    /// What is believed before anything was seen.
    fn prior(&self, takes: Takes) -> Prior {
        let (ladder, rescue) = (&self.settings.ladder, &self.settings.rescue);
        match takes {
            Takes::Answer(lane) => match ladder.offer(lane) {
                Some(offer) => offer.prior(),
                None => rescue.live_prior(),
            },
            Takes::Batch => ladder.batch.prior(),
            Takes::Cancel => rescue.cancel_prior(),
        }
    }

    /// The share to which it happens.
    pub(super) fn share(&self, scope: &ScopeKey, happens: Happens) -> f64 {
        let now = self.now();
        let rescue = &self.settings.rescue;
        let weight = match happens {
            Happens::Refused => rescue.prior_weight,
            Happens::Finished => rescue.prior_weight * FINISHING_WEIGHT,
        };
        let prior = self.prior_share(happens);
        let believed = self.turnarounds.known(scope, |scope| {
            let learning = scope.shares.get_mut(&happens)?;
            learning.known.fade(now, rescue.half_life);
            Some(learning.known.believed(prior, weight))
        });
        believed.flatten().unwrap_or(prior)
    }

    fn prior_share(&self, happens: Happens) -> f64 {
        match happens {
            Happens::Refused => self.settings.ladder.flex.refused,
            Happens::Finished => FINISHING,
        }
    }

    /// How a batch is cancelled.
    pub(super) fn cancel_of(&self, scope: &ScopeKey) -> Cancel {
        let takes = self.curve(scope, Takes::Cancel).quantile(CANCELLED);
        Cancel {
            takes: takes.unwrap_or(self.settings.rescue.reserve),
            finishing: self.share(scope, Happens::Finished),
        }
    }

    /// What is kept for an ordinary call, in all but one of a hundred cases.
    pub(super) fn live_takes(&self, scope: &ScopeKey) -> Duration {
        let curve = self.curve(scope, Takes::Answer(Lane::Standard));
        let timeout = self.settings.live.timeout;
        curve.quantile(IN_TIME).unwrap_or(timeout).min(timeout)
    }

    /// All that is known: of every scope, or of those of one tenant's calls.
    pub fn turnaround(&self, of: Option<TenantId>) -> Vec<Turnaround> {
        let own = of.map(|tenant| self.scopes_of(tenant));
        let shown = |scope: &ScopeKey| own.as_ref().is_none_or(|own| own.contains(scope));
        let mut known: Vec<(ScopeKey, What, f64)> = Vec::new();
        {
            let learned = self.turnarounds.learned.lock();
            for (key, scope) in learned.scopes.iter().filter(|(key, _)| shown(key)) {
                known.extend(scope.seen().map(|(what, seen)| (key.clone(), what, seen)));
            }
        }
        known.sort_by(|(a, what, _), (b, other, _)| (a, what).cmp(&(b, other)));
        let told = known.into_iter().map(|(scope, what, seen)| Turnaround {
            what: what.as_str(),
            seen,
            believed: self.believed(&scope, what),
            owner: scope.owner,
            model: scope.model,
        });
        let mut told: Vec<Turnaround> = told.collect();
        let rates = self.call_rates().into_iter();
        told.extend(
            rates
                .filter(|(scope, _)| shown(scope))
                .map(|(_, rate)| rate),
        );
        told.sort_by(|a, b| (&a.owner, &a.model).cmp(&(&b.owner, &b.model)));
        told
    }

    fn believed(&self, scope: &ScopeKey, what: What) -> Believed {
        match what {
            What::Takes(takes) => Believed::Time {
                learned: self.curve(scope, takes),
                prior: Curve::of(&self.prior(takes)),
            },
            What::Happens(happens) => Believed::Share {
                learned: self.share(scope, happens),
                prior: self.prior_share(happens),
            },
        }
    }
}
