//! What is known of how long each scope's lanes take, and of how they refuse and end:
//! learned from what is seen, told by the API, and kept over a restart.

use std::{collections::BTreeMap, time::Duration};

use parking_lot::Mutex;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    model::{attempt::Lane, id::CredentialId, time::Timestamp},
    policy::{
        fading::Fades,
        plan::Cancel,
        rescue::{CANCELLED, FINISHING, FINISHING_WEIGHT, GUESS, IN_TIME},
        share::Share,
        turnaround::{Curve, Prior, Table},
    },
    ports::{Learned, LearnedKey, StoreError},
};

use super::{Engine, scope::ScopeKey};

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

    fn from_name(name: &str) -> Option<Takes> {
        match name {
            Takes::BATCH => Some(Takes::Batch),
            Takes::CANCEL => Some(Takes::Cancel),
            lane => lane.parse().ok().map(Takes::Answer),
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

    fn from_name(name: &str) -> Option<Happens> {
        Happens::ALL.into_iter().find(|what| what.as_str() == name)
    }
}

#[derive(Default)]
pub(super) struct Turnarounds(Mutex<BTreeMap<ScopeKey, Scope>>);

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
    pub credential: CredentialId,
    pub model: String,
    /// A lane, `whole-batch`, `cancel`, `flex-refused`, or `finished-in-cancel`.
    pub what: &'static str,
    /// Batches, or calls, that tell it, the older ones less.
    pub seen: f64,
    pub believed: Believed,
}

pub enum Believed {
    Time { learned: Curve, prior: Curve },
    Share { learned: f64, prior: f64 },
}

/// Weights below this are forgotten.
const FADED: f64 = 0.01;

impl Turnarounds {
    fn learn(&self, key: &ScopeKey, how: impl FnOnce(&mut Scope)) {
        let mut scopes = self.0.lock();
        let scope = match scopes.get_mut(key) {
            Some(scope) => scope,
            None => scopes.entry(key.clone()).or_default(),
        };
        scope.observations += 1;
        how(scope);
    }

    /// How often something was seen: whether there is news.
    pub fn observations(&self, key: &ScopeKey) -> u64 {
        let scopes = self.0.lock();
        scopes.get(key).map_or(0, |scope| scope.observations)
    }
}

impl Scope {
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
    pub(super) fn saw(&self, key: &ScopeKey, takes: Takes, age: Duration, weight: f64) {
        let (now, half_life) = (self.now(), self.settings.rescue.half_life);
        self.turnarounds.learn(key, |scope| {
            let table = scope.time(takes);
            table.fade(now, half_life);
            table.ended(age, weight);
        });
    }

    /// None had come after so long, and none will be seen.
    pub(super) fn cut_off(&self, key: &ScopeKey, takes: Takes, age: Duration, weight: f64) {
        let (now, half_life) = (self.now(), self.settings.rescue.half_life);
        self.turnarounds.learn(key, |scope| {
            let table = scope.time(takes);
            table.fade(now, half_life);
            table.left(age, weight);
        });
    }

    /// It happened to so many of so many.
    pub(super) fn happened(&self, key: &ScopeKey, happens: Happens, did: f64, of: f64) {
        let (now, half_life) = (self.now(), self.settings.rescue.half_life);
        self.turnarounds.learn(key, |scope| {
            let share = scope.share(happens);
            share.fade(now, half_life);
            share.saw(did, of);
        });
    }

    pub(super) fn curve(&self, key: &ScopeKey, takes: Takes) -> Curve {
        let now = self.now();
        let running = match takes {
            Takes::Answer(Lane::Batch) => self.summary.lock().running(key, now),
            Takes::Batch => {
                let running = self.summary.lock().running(key, now);
                running.into_iter().map(|(age, _)| (age, 1.0)).collect()
            }
            _ => Vec::new(),
        };
        let rescue = &self.settings.rescue;
        let weight = match takes {
            Takes::Answer(Lane::Standard) | Takes::Cancel => rescue.prior_weight * GUESS,
            Takes::Answer(_) | Takes::Batch => rescue.prior_weight,
        };
        let mut scopes = self.turnarounds.0.lock();
        let known = scopes
            .get_mut(key)
            .and_then(|scope| scope.times.get_mut(&takes));
        let table = known.map(|learning| {
            learning.known.fade(now, rescue.half_life);
            learning.known.clone()
        });
        drop(scopes);
        let prior = self.prior(takes);
        table.unwrap_or_default().curve(&prior, weight, running)
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
    pub(super) fn share(&self, key: &ScopeKey, happens: Happens) -> f64 {
        let now = self.now();
        let rescue = &self.settings.rescue;
        let weight = match happens {
            Happens::Refused => rescue.prior_weight,
            Happens::Finished => rescue.prior_weight * FINISHING_WEIGHT,
        };
        let mut scopes = self.turnarounds.0.lock();
        let known = scopes
            .get_mut(key)
            .and_then(|scope| scope.shares.get_mut(&happens));
        let prior = self.prior_share(happens);
        known.map_or(prior, |learning| {
            learning.known.fade(now, rescue.half_life);
            learning.known.believed(prior, weight)
        })
    }

    fn prior_share(&self, happens: Happens) -> f64 {
        match happens {
            Happens::Refused => self.settings.ladder.flex.refused,
            Happens::Finished => FINISHING,
        }
    }

    /// How a batch is cancelled.
    pub(super) fn cancel_of(&self, key: &ScopeKey) -> Cancel {
        let takes = self.curve(key, Takes::Cancel).quantile(CANCELLED);
        Cancel {
            takes: takes.unwrap_or(self.settings.rescue.reserve),
            finishing: self.share(key, Happens::Finished),
        }
    }

    /// What is kept for an ordinary call, in all but one of a hundred cases.
    pub(super) fn live_takes(&self, key: &ScopeKey) -> Duration {
        let curve = self.curve(key, Takes::Answer(Lane::Standard));
        let timeout = self.settings.live.timeout;
        curve.quantile(IN_TIME).unwrap_or(timeout).min(timeout)
    }

    /// All that is known of the scopes that `shown` lets through.
    pub fn turnaround(&self, shown: impl Fn(CredentialId) -> bool) -> Vec<Turnaround> {
        let mut times: Vec<(ScopeKey, Takes, f64)> = Vec::new();
        let mut shares: Vec<(ScopeKey, Happens, f64)> = Vec::new();
        {
            let scopes = self.turnarounds.0.lock();
            for (key, scope) in scopes.iter().filter(|(key, _)| shown(key.credential)) {
                let seen = scope.times.iter();
                times.extend(seen.map(|(what, it)| (key.clone(), *what, it.known.weight())));
                let seen = scope.shares.iter();
                shares.extend(seen.map(|(what, it)| (key.clone(), *what, it.known.weight())));
            }
        }
        let times = times.into_iter().map(|(key, takes, seen)| Turnaround {
            what: takes.as_str(),
            seen,
            believed: Believed::Time {
                learned: self.curve(&key, takes),
                prior: Curve::of(&self.prior(takes)),
            },
            credential: key.credential,
            model: key.model,
        });
        let shares = shares.into_iter().map(|(key, happens, seen)| Turnaround {
            what: happens.as_str(),
            seen,
            believed: Believed::Share {
                learned: self.share(&key, happens),
                prior: self.prior_share(happens),
            },
            credential: key.credential,
            model: key.model,
        });
        let mut known: Vec<Turnaround> = times.chain(shares).collect();
        known.sort_by(|a, b| (a.credential, &a.model).cmp(&(b.credential, &b.model)));
        known
    }

    /// Reads back what was learned before.
    pub(super) async fn recall(&self) -> Result<(), StoreError> {
        for learned in self.store.learned().await? {
            let LearnedKey {
                credential,
                model,
                what,
            } = learned.key;
            let scope = ScopeKey { credential, model };
            let read = match (Takes::from_name(&what), Happens::from_name(&what)) {
                (Some(takes), _) => self.put_back(&scope, &learned.known, |scope, known| {
                    *scope.time(takes) = known;
                }),
                (None, Some(happens)) => self.put_back(&scope, &learned.known, |scope, known| {
                    *scope.share(happens) = known;
                }),
                (None, None) => None,
            };
            if read.is_none() {
                let model = scope.model;
                tracing::warn!(model, what, "what was learned cannot be read");
            }
        }
        Ok(())
    }

    fn put_back<T: Fades + DeserializeOwned>(
        &self,
        scope: &ScopeKey,
        bytes: &[u8],
        put: impl FnOnce(&mut Scope, T),
    ) -> Option<()> {
        let known: T = postcard::from_bytes(bytes).ok()?;
        known.is_sound().then_some(())?;
        self.turnarounds.learn(scope, |scope| put(scope, known));
        Some(())
    }

    /// Writes down what was learned since the last time, and forgets what faded.
    pub(super) async fn memorise(&self) -> Result<(), StoreError> {
        for (key, known) in self.changed() {
            match known {
                Some(known) => self.store.put_learned(Learned { key, known }).await?,
                None => self.store.forget_learned(key).await?,
            }
        }
        Ok(())
    }

    fn changed(&self) -> Vec<(LearnedKey, Option<bytes::Bytes>)> {
        let (now, half_life) = (self.now(), self.settings.rescue.half_life);
        let mut changed = Vec::new();
        let mut scopes = self.turnarounds.0.lock();
        for (key, scope) in scopes.iter_mut() {
            let mut note = |what: &str, known: Option<bytes::Bytes>| {
                let key = LearnedKey {
                    credential: key.credential,
                    model: key.model.clone(),
                    what: what.into(),
                };
                changed.push((key, known));
            };
            let times = &mut scope.times;
            times.retain(|takes, it| it.is_kept(now, half_life, |it| note(takes.as_str(), it)));
            let shares = &mut scope.shares;
            shares.retain(|what, it| it.is_kept(now, half_life, |it| note(what.as_str(), it)));
        }
        scopes.retain(|_, scope| !scope.times.is_empty() || !scope.shares.is_empty());
        changed
    }
}

impl<T: Fades + Serialize> Learning<T> {
    /// Whether it is still worth something; notes what is to be written.
    fn is_kept(
        &mut self,
        now: Timestamp,
        half_life: Duration,
        note: impl FnOnce(Option<bytes::Bytes>),
    ) -> bool {
        self.known.fade(now, half_life);
        let keep = self.known.weight() > FADED;
        if !keep {
            note(None);
        } else if std::mem::take(&mut self.changed)
            && let Ok(known) = postcard::to_stdvec(&self.known)
        {
            note(Some(known.into()));
        }
        keep
    }
}
