//! The plan of each scope, made of what is known of it, and made anew when that has
//! changed.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;

use crate::{
    model::{attempt::Lane, endpoint::Endpoint, id::CredentialId, request::Usage, time::Timestamp},
    policy::{
        demand::Capacity,
        plan::{Cancel, Plan, Rung},
    },
};

use super::{
    Engine,
    scope::{Owner, ScopeKey},
    turnaround::{Happens, Takes},
};

/// By scope, and by what they are made for.
#[derive(Default)]
pub(super) struct Plans(Mutex<HashMap<ScopeKey, HashMap<Kind, Made>>>);

/// What a plan is made for.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Kind {
    lanes: Vec<Lane>,
    /// For what has been in a batch, and goes from another lane back into none.
    out_of_batches: bool,
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

/// What a call takes in the mean of all that is firm, thought out now and then: there
/// may be thousands of scopes, and every admission asks.
#[derive(Default)]
pub(super) struct WholePace(Mutex<Option<(Timestamp, Duration)>>);

const NOW_AND_THEN: Duration = Duration::from_secs(1);

impl WholePace {
    pub fn takes(&self, engine: &Engine) -> Duration {
        let now = engine.now();
        let mut known = self.0.lock();
        if let Some((at, takes)) = *known
            && at + NOW_AND_THEN > now
        {
            return takes;
        }
        let calls = engine.summary.lock().firm_by_scope();
        let takes = engine.scopes.mean_latency(&calls, now);
        *known = Some((now, takes));
        takes
    }
}

/// The share of its age that a running batch must grow by to tell something new.
const NEWS: f64 = 0.1;

/// Deadlines are no further away than this, or treated as if.
const LONGEST: Duration = Duration::from_secs(7 * 86_400);

impl Made {
    /// When it is to be made anew, by how often something was seen by now.
    fn until(&self, observations: u64) -> Timestamp {
        match self.observations == observations {
            true => self.stale,
            false => self.stale.min(self.due),
        }
    }
}

impl Engine {
    /// The plan for calls of this kind, and for their own word on whether the
    /// provider may store the answer.
    pub(super) fn plan(
        &self,
        scope: &ScopeKey,
        endpoint: Endpoint,
        store: Option<bool>,
    ) -> Arc<Plan> {
        let lanes = &self.settings.ladder;
        self.plan_over(scope, &lanes.lanes(&scope.model, endpoint, store))
    }

    /// The plan over these lanes and the ordinary call, made anew when it is stale.
    pub(super) fn plan_over(&self, scope: &ScopeKey, lanes: &[Lane]) -> Arc<Plan> {
        let lanes = lanes.to_vec();
        self.plan_of(
            scope,
            Kind {
                lanes,
                out_of_batches: false,
            },
        )
    }

    /// The plan for what is in a batch.
    pub(super) fn plan_of_batches(&self, scope: &ScopeKey, endpoint: Endpoint) -> Arc<Plan> {
        let lanes = self.settings.ladder.lanes(&scope.model, endpoint, None);
        // Where nothing is refused it is the same plan.
        let out_of_batches = lanes.iter().any(|lane| self.may_refuse(*lane));
        self.plan_of(
            scope,
            Kind {
                lanes,
                out_of_batches,
            },
        )
    }

    /// The plan for what waits for one. No lane is in it that may refuse: what was
    /// refused there waits here too, and would go to and fro.
    pub(super) fn plan_of_queues(&self, scope: &ScopeKey, endpoint: Endpoint) -> Arc<Plan> {
        let mut lanes = self.settings.ladder.lanes(&scope.model, endpoint, None);
        lanes.retain(|lane| !self.may_refuse(*lane));
        self.plan_over(scope, &lanes)
    }

    fn may_refuse(&self, lane: Lane) -> bool {
        let offer = self.settings.ladder.offer(lane);
        match lane {
            Lane::Batch => false,
            Lane::Flex => true,
            _ => offer.is_some_and(|offer| offer.refused > 0.0),
        }
    }

    fn plan_of(&self, scope: &ScopeKey, kind: Kind) -> Arc<Plan> {
        let now = self.now();
        let replan = self.settings.rescue.replan;
        let observations = self.turnarounds.observations(scope);
        {
            let mut scopes = self.plans.0.lock();
            let made = scopes.get_mut(scope).and_then(|plans| plans.get_mut(&kind));
            if let Some(made) = made {
                if made.until(observations) > now {
                    return made.plan.clone();
                }
                // Whoever asks meanwhile takes the old one.
                (made.due, made.stale) = (now + replan, now + replan);
            }
        }
        let plan = Arc::new(self.make_plan(scope, &kind));
        let oldest = {
            let summary = self.summary.lock();
            let running = summary.running(scope, now).into_iter();
            let cancelling = summary.cancelling(scope, now);
            running.chain(cancelling).map(|(age, _)| age).max()
        };
        let made = Made {
            plan: plan.clone(),
            due: now + replan,
            stale: now + oldest.map_or(LONGEST, |age| age.mul_f64(NEWS).max(replan)),
            observations,
        };
        let mut scopes = self.plans.0.lock();
        let plans = scopes.entry(scope.clone()).or_default();
        plans.insert(kind, made);
        plan
    }

    fn make_plan(&self, scope: &ScopeKey, kind: &Kind) -> Plan {
        let rungs = kind.lanes.iter();
        let rungs = rungs.filter_map(|lane| self.rung(scope, *lane)).collect();
        let make = match kind.out_of_batches {
            true => Plan::out_of_batches,
            false => Plan::new,
        };
        make(rungs, self.live_takes(scope), LONGEST)
    }

    fn rung(&self, scope: &ScopeKey, lane: Lane) -> Option<Rung> {
        let offer = self.settings.ladder.offer(lane)?;
        let curve = self.curve(scope, Takes::Answer(lane));
        let is_batch = lane == Lane::Batch;
        Some(Rung {
            lane,
            price: self.price(&scope.model, lane).unwrap_or(offer.price),
            whole: match is_batch {
                true => self.curve(scope, Takes::Batch),
                false => curve.clone(),
            },
            curve,
            before: match is_batch {
                true => self.settings.packing.linger,
                false => Duration::ZERO,
            },
            cancel: match lane {
                Lane::Batch => Some(self.cancel_of(scope)),
                Lane::Background8h | Lane::Background2h => Some(Cancel::AT_ONCE),
                // Hung up on, it may run on.
                Lane::Flex | Lane::Standard => None,
            },
            refused: match lane {
                Lane::Flex => self.share(scope, Happens::Refused),
                _ => offer.refused,
            },
        })
    }

    /// When the scope's plans are to be looked at again.
    pub(super) fn replans_at(&self, scope: &ScopeKey) -> Timestamp {
        let observations = self.turnarounds.observations(scope);
        let scopes = self.plans.0.lock();
        let plans = scopes.get(scope).into_iter().flat_map(HashMap::values);
        let next = plans.map(|made| made.until(observations)).min();
        next.unwrap_or(Timestamp::MAX)
            .max(self.now() + self.settings.rescue.replan)
    }

    /// What was known of the credential alone is news to its organization.
    pub(super) fn remake_plans(&self, credential: CredentialId) {
        let owners = [
            Owner::Credential(credential),
            self.organizations.owner(credential),
        ];
        let mut scopes = self.plans.0.lock();
        scopes.retain(|key, _| !owners.contains(&key.owner));
    }

    /// Those that nobody has asked for in a long time.
    pub(super) fn forget_plans(&self) {
        let now = self.now();
        self.plans.0.lock().retain(|_, plans| {
            plans.retain(|_, made| made.due + LONGEST > now);
            !plans.is_empty()
        });
    }

    /// What the lane costs of the standard price, for a call with more input than
    /// output. None where the model has no prices.
    fn price(&self, model: &str, lane: Lane) -> Option<f64> {
        let typical = Usage {
            input: 1000,
            output: 250,
            ..Usage::default()
        };
        let bill = self.prices.bill(model, lane, &typical)?;
        let standard = bill.standard.as_pico();
        (standard > 0).then(|| bill.paid.as_pico() as f64 / standard as f64)
    }

    /// What the scope can run live, when a call takes `live` at worst.
    pub(super) fn capacity(&self, scope: &ScopeKey, live: Duration) -> Capacity {
        self.scopes.capacity(scope, self.now(), live)
    }

    /// What can run live of all scopes together (`live.max_total`), however little each
    /// of them needs.
    pub(super) fn whole_capacity(&self, live: Duration) -> Capacity {
        let takes = self.whole_pace.takes(self).as_secs_f64();
        Capacity {
            rate: f64::from(self.settings.live.max_total) / takes.max(0.001),
            tokens: None,
            live,
        }
    }
}
