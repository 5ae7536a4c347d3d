//! What is known of how long each scope's lanes take, and the plan made of it.
//! A scope is what a provider limits together, and here a credential and a model.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;

use crate::{
    model::{
        attempt::Lane,
        batch::Batch,
        endpoint::Endpoint,
        id::CredentialId,
        request::{Destination, Request, Usage},
        time::Timestamp,
    },
    policy::{
        demand::Capacity,
        plan::{Plan, Rung},
        rescue,
        turnaround::{Curve, Prior, Table},
    },
    ports::{Learned, LearnedKey, StoreError},
};

use super::{Engine, live::Account};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ScopeKey {
    pub credential: CredentialId,
    pub model: String,
}

impl From<&Destination> for ScopeKey {
    fn from(destination: &Destination) -> Self {
        ScopeKey {
            credential: destination.credential,
            model: destination.model.clone(),
        }
    }
}

impl From<&Request> for ScopeKey {
    fn from(request: &Request) -> Self {
        ScopeKey {
            credential: request.credential,
            model: request.model.clone(),
        }
    }
}

impl From<&Batch> for ScopeKey {
    fn from(batch: &Batch) -> Self {
        ScopeKey {
            credential: batch.credential,
            model: batch.model.clone(),
        }
    }
}

/// What takes time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Takes {
    Answer(Lane),
    /// Until a batch has ended by itself, and its answers can be had.
    Batch,
    /// Until a cancelled batch has ended.
    Cancel,
    /// Until a flex call is refused for want of capacity. One that is taken never
    /// is: what never ends is the share that is taken.
    Refusal,
}

impl Takes {
    const BATCH: &'static str = "whole-batch";
    const CANCEL: &'static str = "cancel";
    const REFUSAL: &'static str = "flex-refusal";

    pub fn as_str(self) -> &'static str {
        match self {
            Takes::Answer(lane) => lane.as_str(),
            Takes::Batch => Takes::BATCH,
            Takes::Cancel => Takes::CANCEL,
            Takes::Refusal => Takes::REFUSAL,
        }
    }

    fn from_name(name: &str) -> Option<Takes> {
        match name {
            Takes::BATCH => Some(Takes::Batch),
            Takes::CANCEL => Some(Takes::Cancel),
            Takes::REFUSAL => Some(Takes::Refusal),
            lane => lane.parse().ok().map(Takes::Answer),
        }
    }
}

#[derive(Default)]
pub(super) struct Turnarounds(Mutex<BTreeMap<ScopeKey, Scope>>);

#[derive(Default)]
struct Scope {
    tables: BTreeMap<Takes, Learning>,
    observations: u64,
    /// By the lanes that they are made of.
    plans: HashMap<Vec<Lane>, Made>,
}

#[derive(Default)]
struct Learning {
    table: Table,
    /// Seen since it was last written down.
    changed: bool,
}

struct Made {
    plan: Arc<Plan>,
    /// When something seen since is worth a new one.
    due: Timestamp,
    /// When it is made anew although nothing was seen: batches that run on tell
    /// something too, the less the older they are.
    stale: Timestamp,
    /// What had been seen.
    observations: u64,
}

/// The share of its age that a running batch must grow by to tell something new.
const NEWS: f64 = 0.1;

/// Of one scope: how long something takes.
pub struct Turnaround {
    pub credential: CredentialId,
    pub model: String,
    /// A lane, `whole-batch`, `cancel`, or `flex-refusal`.
    pub what: &'static str,
    /// Batches, or calls, that tell it, the older ones less.
    pub seen: f64,
    pub learned: Curve,
    pub prior: Curve,
}

/// Table weights below this are forgotten.
const FADED: f64 = 0.01;
/// What the prior of cancels and ordinary calls weighs beside that of lanes.
const GUESS: f64 = 0.1;
/// Deadlines are no further away than this, or treated as if.
const LONGEST: Duration = Duration::from_secs(7 * 86_400);

impl Turnarounds {
    fn learn(&self, key: &ScopeKey, takes: Takes, how: impl FnOnce(&mut Table)) {
        let mut scopes = self.0.lock();
        let scope = match scopes.get_mut(key) {
            Some(scope) => scope,
            None => scopes.entry(key.clone()).or_default(),
        };
        scope.observations += 1;
        let learning = scope.tables.entry(takes).or_default();
        how(&mut learning.table);
        learning.changed = true;
    }
}

impl Engine {
    /// An answer, or the end of a cancel, came after so long.
    pub(super) fn saw(&self, key: &ScopeKey, takes: Takes, age: Duration, weight: f64) {
        let (now, half_life) = (self.now(), self.settings.rescue.half_life);
        self.turnarounds.learn(key, takes, |table| {
            table.fade(now, half_life);
            table.ended(age, weight);
        });
    }

    /// None had come after so long, and none will be seen.
    pub(super) fn cut_off(&self, key: &ScopeKey, takes: Takes, age: Duration, weight: f64) {
        let (now, half_life) = (self.now(), self.settings.rescue.half_life);
        self.turnarounds.learn(key, takes, |table| {
            table.fade(now, half_life);
            table.left(age, weight);
        });
    }

    /// The plan for calls of this kind, and for their own word on whether the
    /// provider may store the answer.
    pub(super) fn plan(
        &self,
        key: &ScopeKey,
        endpoint: Endpoint,
        store: Option<bool>,
    ) -> Arc<Plan> {
        self.plan_over(
            key,
            &self.settings.ladder.lanes(&key.model, endpoint, store),
        )
    }

    /// The plan over these lanes and the ordinary call, made anew when it is stale.
    pub(super) fn plan_over(&self, key: &ScopeKey, lanes: &[Lane]) -> Arc<Plan> {
        let now = self.now();
        let replan = self.settings.rescue.replan;
        let mut observations = 0;
        {
            let mut scopes = self.turnarounds.0.lock();
            if let Some(scope) = scopes.get_mut(key) {
                observations = scope.observations;
                if let Some(made) = scope.plans.get_mut(lanes) {
                    let news = made.observations != observations && made.due <= now;
                    if !news && made.stale > now {
                        return made.plan.clone();
                    }
                    // Whoever asks meanwhile takes the old one.
                    (made.due, made.stale) = (now + replan, now + replan);
                }
            }
        }
        let plan = Arc::new(self.make_plan(key, lanes));
        let running = self.summary.lock().running(key, now);
        let oldest = running.into_iter().map(|(age, _)| age).max();
        let mut scopes = self.turnarounds.0.lock();
        let made = Made {
            plan: plan.clone(),
            due: now + replan,
            stale: now + oldest.map_or(LONGEST, |age| age.mul_f64(NEWS).max(replan)),
            observations,
        };
        let scope = scopes.entry(key.clone()).or_default();
        scope.plans.insert(lanes.to_vec(), made);
        plan
    }

    fn make_plan(&self, key: &ScopeKey, lanes: &[Lane]) -> Plan {
        let rungs = lanes.iter().filter_map(|lane| self.rung(key, *lane));
        let rungs = rungs.collect();
        Plan::new(rungs, self.live_takes(key), LONGEST)
    }

    fn rung(&self, key: &ScopeKey, lane: Lane) -> Option<Rung> {
        let offer = self.settings.ladder.offer(lane)?;
        let before = match lane {
            Lane::Batch => self.settings.packing.linger,
            _ => Duration::ZERO,
        };
        let cancel = match lane {
            Lane::Batch => self
                .curve(key, Takes::Cancel)
                .quantile(rescue::CANCELLED)
                .unwrap_or(self.settings.rescue.reserve),
            _ => Duration::ZERO,
        };
        let curve = self.curve(key, Takes::Answer(lane));
        let whole = match lane {
            Lane::Batch => self.curve(key, Takes::Batch),
            _ => curve.clone(),
        };
        Some(Rung {
            lane,
            price: self.price(&key.model, lane).unwrap_or(offer.price),
            curve,
            whole,
            before,
            cancel,
            refused: match lane {
                Lane::Flex => self.share_refused(key),
                _ => offer.refused,
            },
        })
    }

    /// The share of flex calls that are refused, as seen of late.
    fn share_refused(&self, key: &ScopeKey) -> f64 {
        let taken = self.curve(key, Takes::Refusal);
        1.0 - taken.survival(LONGEST.as_secs_f64())
    }

    /// When the scope's plans are to be looked at again.
    pub(super) fn replans_at(&self, key: &ScopeKey) -> Timestamp {
        let now = self.now();
        let scopes = self.turnarounds.0.lock();
        let plans = scopes.get(key).into_iter().flat_map(|scope| {
            let news = |made: &Made| made.observations != scope.observations;
            let plans = scope.plans.values();
            plans.map(move |made| if news(made) { made.due } else { made.stale })
        });
        plans
            .min()
            .unwrap_or(Timestamp::MAX)
            .max(now + self.settings.rescue.replan)
    }

    /// What is kept for an ordinary call, in all but one of a hundred cases.
    pub(super) fn live_takes(&self, key: &ScopeKey) -> Duration {
        let curve = self.curve(key, Takes::Answer(Lane::Standard));
        let timeout = self.settings.live.timeout;
        curve
            .quantile(rescue::IN_TIME)
            .unwrap_or(timeout)
            .min(timeout)
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
            Takes::Refusal => ladder.flex.refusal_prior(),
        }
    }

    fn curve(&self, key: &ScopeKey, takes: Takes) -> Curve {
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
            // The reserve is a cautious guess, and rescues are quickly seen.
            Takes::Answer(Lane::Standard) | Takes::Cancel => rescue.prior_weight * GUESS,
            Takes::Answer(_) | Takes::Batch | Takes::Refusal => rescue.prior_weight,
        };
        let mut scopes = self.turnarounds.0.lock();
        let table = scopes
            .get_mut(key)
            .and_then(|scope| scope.tables.get_mut(&takes))
            .map(|learning| {
                learning.table.fade(now, rescue.half_life);
                learning.table.clone()
            });
        drop(scopes);
        let prior = self.prior(takes);
        table.unwrap_or_default().curve(&prior, weight, running)
    }

    /// What the lane costs of the standard price, for a call with more input than
    /// output. None where the model has no prices.
    fn price(&self, model: &str, lane: Lane) -> Option<f64> {
        let typical = Usage {
            input: 1000,
            cached: 0,
            output: 250,
        };
        let bill = self.prices.bill(model, lane, &typical)?;
        let standard = bill.standard.as_pico();
        (standard > 0).then(|| bill.paid.as_pico() as f64 / standard as f64)
    }

    /// What the scope can run live, when a call takes `live` at worst.
    pub(super) fn capacity(&self, key: &ScopeKey, live: Duration) -> Capacity {
        let account = Account {
            credential: key.credential,
            model: key.model.as_str().into(),
        };
        let rate = self.scopes.capacity(&account, self.now());
        Capacity { rate, live }
    }

    /// All that is known of turnaround.
    pub fn turnaround(&self) -> Vec<Turnaround> {
        let known: Vec<(ScopeKey, Takes, f64)> = {
            let scopes = self.turnarounds.0.lock();
            let known = scopes.iter().flat_map(|(key, scope)| {
                let tables = scope.tables.iter();
                tables.map(|(takes, learning)| (key.clone(), *takes, learning.table.weight()))
            });
            known.collect()
        };
        let known = known.into_iter().map(|(key, takes, seen)| Turnaround {
            what: takes.as_str(),
            seen,
            learned: self.curve(&key, takes),
            prior: Curve::of(&self.prior(takes)),
            credential: key.credential,
            model: key.model,
        });
        known.collect()
    }

    /// Reads back what was learned before.
    pub(super) async fn recall(&self) -> Result<(), StoreError> {
        for learned in self.store.learned().await? {
            let table = postcard::from_bytes::<Table>(&learned.table);
            let key = learned.key;
            let (Some(takes), Ok(table)) = (Takes::from_name(&key.what), table) else {
                tracing::warn!(
                    model = key.model,
                    what = key.what,
                    "what was learned cannot be read"
                );
                continue;
            };
            if table.is_sound() {
                let scope = ScopeKey {
                    credential: key.credential,
                    model: key.model,
                };
                self.turnarounds
                    .learn(&scope, takes, |empty| *empty = table);
            }
        }
        Ok(())
    }

    /// Writes down what was learned since the last time, and forgets what faded.
    pub(super) async fn memorise(&self) -> Result<(), StoreError> {
        for (key, table) in self.changed_tables() {
            match table {
                Some(table) => self.store.put_learned(Learned { key, table }).await?,
                None => self.store.forget_learned(key).await?,
            }
        }
        Ok(())
    }

    fn changed_tables(&self) -> Vec<(LearnedKey, Option<bytes::Bytes>)> {
        let (now, half_life) = (self.now(), self.settings.rescue.half_life);
        let mut changed = Vec::new();
        let mut scopes = self.turnarounds.0.lock();
        for (scope, known) in scopes.iter_mut() {
            let key = |takes: &Takes| LearnedKey {
                credential: scope.credential,
                model: scope.model.clone(),
                what: takes.as_str().into(),
            };
            known.tables.retain(|takes, learning| {
                learning.table.fade(now, half_life);
                let keep = learning.table.weight() > FADED;
                if !keep {
                    changed.push((key(takes), None));
                } else if std::mem::take(&mut learning.changed) {
                    let table = postcard::to_stdvec(&learning.table);
                    changed.extend(table.ok().map(|table| (key(takes), Some(table.into()))));
                }
                keep
            });
            known.plans.retain(|_, made| made.due + LONGEST > now);
        }
        scopes.retain(|_, known| !known.tables.is_empty() || !known.plans.is_empty());
        changed
    }
}
