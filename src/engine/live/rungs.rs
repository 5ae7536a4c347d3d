//! Which lane a request that is placed live goes on in, when it has its turn: the
//! same plan that admission and rescue go by, over the rungs that the request has not
//! left yet. Each is entered once. What goes into a batch is placed live no more.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use crate::{
    engine::{Engine, scope::ScopeKey},
    model::{
        attempt::Lane,
        body,
        endpoint::Endpoint,
        id::DestinationId,
        request::{Entry, Request},
        time::Timestamp,
    },
    policy::{demand::Demand, lane::words, plan::Plan},
};

/// What was found out on a request's way down the ladder. Not durable: what is
/// refused costs nothing, and what may have cost something has left an attempt.
#[derive(Clone, Default)]
pub struct Known {
    /// Whether the provider may store the answer, by the body and the settings;
    /// none until the body was read.
    pub store: Option<bool>,
    /// Lanes that it has left.
    pub left: Vec<Lane>,
    /// Why it has left the last of them.
    pub why: Option<Arc<str>>,
}

impl Known {
    pub fn has_left(mut self, lane: Lane, why: String) -> Known {
        if !self.left.contains(&lane) {
            self.left.push(lane);
        }
        self.why = Some(why.into());
        self
    }
}

/// How a request goes on now.
#[derive(Clone, Debug)]
pub struct Step {
    pub lane: Lane,
    /// Where no answer has come by then, the lane is left. Nothing to an ordinary
    /// call.
    pub patience: Duration,
    /// In words, with its numbers. Empty for an ordinary call that was planned.
    pub reason: String,
    /// When it might be another.
    pub until: Timestamp,
}

impl Step {
    fn standard(reason: String) -> Step {
        Step::for_good(Lane::Standard, reason)
    }

    fn for_good(lane: Lane, reason: String) -> Step {
        Step {
            lane,
            patience: Duration::MAX,
            reason,
            until: Timestamp::MAX,
        }
    }
}

/// Whether a batch may answer what is placed live.
///
/// What came out of a batch does not go back into one: that was too slow for it, or
/// refused it, and the next could be as well, to and fro between batches that hang and a
/// flex that refuses, until only an ordinary call is in time. While there is time for
/// a fresh batch, its lines go there straight from the old one
/// ([`Engine::after_return`]).
fn takes_batches(entry: &Entry) -> bool {
    !matches!(entry.lane, Lane::Batch | Lane::Standard)
}

/// Whether it goes into a batch, with `slack` left. The rescuer goes by the earliest
/// deadline of its bucket: by that one, too, a batch is to be best.
fn goes_into_a_batch(plan: &Plan, entry: &Entry, slack: Duration) -> bool {
    let earlier = entry.cohort.bucket.start.until(entry.deadline);
    let mut slacks = [slack, slack.saturating_sub(earlier)].into_iter();
    slacks.all(|slack| plan.choose(slack).lane == Lane::Batch)
}

/// What a queue's calls may choose from besides ordinary ones.
#[derive(Clone)]
pub struct Ladder {
    scope: ScopeKey,
    endpoint: Endpoint,
    leads: Arc<Leads>,
}

/// By when a call is due: how long before its deadline an ordinary call must
/// begin, because all of its scope that could have to run live shares its capacity.
#[derive(Default)]
struct Leads(BTreeMap<Timestamp, Duration>);

/// The ladders of one turn.
#[derive(Default)]
pub struct Ladders {
    ladders: HashMap<DestinationId, Option<Ladder>>,
    leads: HashMap<ScopeKey, Arc<Leads>>,
}

impl Ladders {
    /// None where there are only ordinary calls.
    pub fn of(&mut self, engine: &Engine, destination: DestinationId) -> Option<Ladder> {
        if let Some(known) = self.ladders.get(&destination) {
            return known.clone();
        }
        let known = engine.ladder(destination).map(|(scope, endpoint)| {
            let leads = self.leads.entry(scope.clone());
            let leads = leads
                .or_insert_with(|| Arc::new(engine.leads(&scope)))
                .clone();
            Ladder {
                scope,
                endpoint,
                leads,
            }
        });
        self.ladders.insert(destination, known.clone());
        known
    }
}

impl Engine {
    fn ladder(&self, destination: DestinationId) -> Option<(ScopeKey, Endpoint)> {
        let (scope, endpoint) = {
            let summary = self.summary.lock();
            let destination = summary.destinations.get(&destination)?;
            (self.scope_of(destination), destination.endpoint)
        };
        let most = self
            .settings
            .ladder
            .lanes(&scope.model, endpoint, Some(true));
        let cheaper = most.into_iter().any(|lane| lane != Lane::Batch);
        cheaper.then_some((scope, endpoint))
    }

    fn leads(&self, scope: &ScopeKey) -> Leads {
        let demands: Vec<Demand> = self.summary.lock().ahead(scope);
        let capacity = self.capacity(scope, self.live_takes(scope)).sure();
        let starts = capacity.latest_starts(&demands);
        let leads = demands.iter().zip(starts);
        Leads(
            leads
                .map(|(demand, start)| (demand.due, start.until(demand.due)))
                .collect(),
        )
    }

    /// What is left until an ordinary call must begin, and what that takes.
    fn slack(&self, entry: &Entry, leads: &Leads, plan: &Plan) -> Duration {
        let live = plan.live();
        let lead = leads.0.get(&entry.due()).copied();
        let lead = lead.unwrap_or(live).max(live);
        self.now().until(entry.deadline - lead + live)
    }

    fn rungs(&self, ladder: &Ladder, entry: &Entry, known: &Known) -> Vec<Lane> {
        let planned = is_background(entry.lane).then_some(true);
        let store = known.store.or(planned);
        let settings = &self.settings.ladder;
        let mut lanes = settings.lanes(&ladder.scope.model, ladder.endpoint, store);
        let batches = takes_batches(entry);
        lanes.retain(|lane| !known.left.contains(lane) && (batches || *lane != Lane::Batch));
        lanes
    }

    /// How the request goes on now.
    pub(super) fn next_step(&self, ladder: Option<&Ladder>, entry: &Entry, known: &Known) -> Step {
        let Some(ladder) = ladder else {
            return Step::standard(String::new());
        };
        // Asked for at admission, or nothing cheaper would have been in time.
        if entry.lane == Lane::Standard {
            return Step::standard(String::new());
        }
        let mut lanes = self.rungs(ladder, entry, known);
        let mut plan = self.plan_over(&ladder.scope, &lanes);
        let slack = self.slack(entry, &ladder.leads, &plan);
        let mut choice = plan.choose(slack);
        if choice.lane == Lane::Batch && !goes_into_a_batch(&plan, entry, slack) {
            lanes.retain(|lane| *lane != Lane::Batch);
            plan = self.plan_over(&ladder.scope, &lanes);
            choice = plan.choose(slack);
        }
        let lane = choice.lane;
        let reason = format!("{lane}, {} left: {choice}", words(slack));
        if matches!(lane, Lane::Standard | Lane::Batch) {
            return Step::for_good(lane, reason);
        }
        let patience = self.stays(&ladder.scope, &lanes, lane, Duration::ZERO, slack);
        let Some(patience) = patience else {
            return Step::standard(format!(
                "standard, {} left: too little for {lane}",
                words(slack)
            ));
        };
        Step {
            lane,
            patience,
            reason,
            until: self.now() + plan.changes_in(slack),
        }
    }

    /// How much longer to stay in a lane that was entered `age` ago. None where it
    /// is to be left now.
    fn stays(
        &self,
        scope: &ScopeKey,
        lanes: &[Lane],
        lane: Lane,
        age: Duration,
        slack: Duration,
    ) -> Option<Duration> {
        let mut rest = lanes.to_vec();
        rest.retain(|other| *other != lane);
        let mut with = rest.clone();
        with.push(lane);
        with.sort_unstable();
        let with = self.plan_over(scope, &with);
        let rung = with.rung(lane)?;
        let stay = self
            .plan_over(scope, &rest)
            .stay(rung, age.as_secs_f64(), slack.as_secs_f64());
        let mut promised = self.settings.ladder.offer(lane)?.guarantee;
        if is_background(lane) {
            // It may end with its window, and is seen a little later.
            promised += self.settings.watch.poll_interval;
        }
        let until = Duration::try_from_secs_f64(stay.until.max(0.0)).unwrap_or(promised);
        let left = until.min(promised).saturating_sub(age);
        // Instants are milliseconds.
        (left >= Duration::from_millis(1)).then_some(left)
    }

    /// How much longer to stay in the lane that the request entered `age` ago. None
    /// where it is to be left now.
    pub(super) fn stays_in(
        &self,
        request: &Request,
        lane: Lane,
        age: Duration,
        known: &Known,
    ) -> Option<Duration> {
        let entry = request.entry();
        let mut ladders = Ladders::default();
        let ladder = ladders.of(self, entry.cohort.destination)?;
        let lanes = self.rungs(&ladder, &entry, known);
        let plan = self.plan_over(&ladder.scope, &lanes);
        let slack = self.slack(&entry, &ladder.leads, &plan);
        self.stays(&ladder.scope, &lanes, lane, age, slack)
    }

    /// What the body says of the lane that was chosen without it. The request goes
    /// on as another step where it says otherwise.
    pub(super) fn learn_store(&self, request: &Request, body: &[u8], known: &mut Known) -> bool {
        if known.store.is_some() || request.lane == Lane::Standard {
            return false;
        }
        let consents = self.settings.ladder.background_may_store;
        let assumed = is_background(request.lane) || consents;
        let may = store_of(request.endpoint, body).unwrap_or(consents);
        known.store = Some(may);
        may != assumed
    }
}

/// What the call itself says of whether the provider may store its answer. Only
/// the Responses API has lanes that depend on it.
pub fn store_of(endpoint: Endpoint, body: &[u8]) -> Option<bool> {
    match endpoint {
        Endpoint::Responses => body::scan(body, endpoint).ok()?.store,
        _ => None,
    }
}

pub fn is_background(lane: Lane) -> bool {
    matches!(lane, Lane::Background8h | Lane::Background2h)
}
