//! What callers were told, by everybody who tells, and what does not fit together.

use std::collections::{BTreeSet, HashMap, HashSet};

use parking_lot::Mutex;
use serde_json::Value;

use super::{
    coverage::Kept,
    plan::{BULK, Plan, Told},
};

/// Characters of a violation that are shown at once; its story tells all.
const SHOWN: usize = 600;

/// Requests, by their ids, and calls, by their numbers.
pub struct Register {
    seed: u64,
    hook: String,
    books: Mutex<Books>,
}

#[derive(Default)]
pub struct Books {
    pub cycle: u64,
    pub requests: HashMap<String, Request>,
    /// Requests of each call that was seen through.
    pub calls: HashMap<usize, Calls>,
    pub violations: Vec<Violation>,
    pub acknowledged: u64,
}

#[derive(Default)]
pub struct Calls {
    pub requests: BTreeSet<String>,
    pub breaks: usize,
    pub hang_ups: usize,
    /// Its caller has its answer, or its 202.
    pub through: bool,
}

pub struct Request {
    pub number: usize,
    /// A caller was told of it.
    pub acknowledged: bool,
    pub told: Option<Told>,
    pub in_feed: bool,
    pub erasure: Erasure,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Erasure {
    None,
    Asked,
    Done,
}

/// What must not be.
#[derive(Debug, Clone)]
pub struct Violation {
    pub cycle: u64,
    pub what: String,
    /// `op_…`, where it is about one.
    pub request: Option<String>,
}

impl Register {
    pub fn new(seed: u64, hook: &str) -> Self {
        Register {
            seed,
            hook: hook.to_owned(),
            books: Mutex::default(),
        }
    }

    pub fn plan(&self, number: usize) -> Plan {
        Plan::of(self.seed, number, &self.hook)
    }

    pub fn books<T>(&self, look: impl FnOnce(&mut Books) -> T) -> T {
        look(&mut self.books.lock())
    }

    pub fn violation(&self, request: Option<&str>, what: impl Into<String>) {
        let mut books = self.books.lock();
        let (cycle, what) = (books.cycle, what.into());
        let shown: String = what.chars().take(SHOWN).collect();
        println!("VIOLATION in cycle {cycle}: {shown} ({request:?})");
        books.violations.push(Violation {
            cycle,
            what,
            request: request.map(str::to_owned),
        });
    }

    /// A caller of this call was told of this request.
    pub fn acknowledged(&self, number: usize, id: &str) {
        let other = self.books(|books| {
            let request = books.request(number, id);
            let first = !std::mem::replace(&mut request.acknowledged, true);
            let other = (request.number != number).then_some(request.number);
            books.acknowledged += u64::from(first);
            books
                .calls
                .entry(number)
                .or_default()
                .requests
                .insert(id.to_owned());
            other
        });
        if let Some(other) = other {
            self.violation(
                Some(id),
                format!("it is of call {other}, and told to {number}"),
            );
        }
    }

    /// Somebody tells how a request ended, with its answer.
    pub fn told(&self, number: usize, id: &str, told: Told, answer: &Value, by: &str) {
        if !self.plan(number).may_end(&told, answer) {
            let plan = self.plan(number);
            self.violation(
                Some(id),
                format!("{by} tells {told:?} {answer} of {plan:?}"),
            );
        }
        let before = self.books(|books| {
            let request = books.request(number, id);
            let before = request.told.clone();
            request.told.get_or_insert_with(|| told.clone());
            before
        });
        if let Some(before) = before.filter(|before| *before != told) {
            self.violation(
                Some(id),
                format!("{by} tells {told:?}, another told {before:?}"),
            );
        }
    }

    /// A line of the feed. Of a request that was deleted there may be one or none.
    pub fn in_feed(&self, number: usize, id: &str) {
        let twice = self.books(|books| {
            let request = books.request(number, id);
            std::mem::replace(&mut request.in_feed, true)
        });
        if twice {
            self.violation(Some(id), "it is in the feed twice");
        }
    }

    pub fn erasure(&self, id: &str, erasure: Erasure) {
        self.books(|books| {
            if let Some(request) = books.requests.get_mut(id) {
                request.erasure = erasure;
            }
        });
    }

    /// Ended bulk requests that may go, each told once; one of eight stays.
    pub fn to_erase(&self, most: usize) -> Vec<(usize, String)> {
        self.books(|books| {
            let ended = books.requests.iter_mut().filter(|(_, request)| {
                request.number >= BULK
                    && request.number % 8 != 0
                    && request.in_feed
                    && request.erasure == Erasure::None
            });
            ended
                .take(most)
                .map(|(id, request)| {
                    request.erasure = Erasure::Asked;
                    (request.number, id.clone())
                })
                .collect()
        })
    }

    /// Acknowledged requests that nobody has told the end of.
    pub fn open(&self) -> usize {
        self.books(|books| {
            let requests = books.requests.values();
            requests
                .filter(|request| request.told.is_none() && request.erasure == Erasure::None)
                .count()
        })
    }

    /// Holds what a killed process has left on disk against what it had told.
    pub fn check_kept(&self, kept: &Kept) {
        let mut found = Vec::new();
        self.books(|books| {
            for (id, request) in &books.requests {
                let on_disk = kept.requests.get(id);
                match (request.erasure, on_disk) {
                    (Erasure::None, None) if request.acknowledged || request.told.is_some() => {
                        found.push((id.clone(), "it was acknowledged, and is not on disk".into()));
                    }
                    (Erasure::Done, Some(_)) => {
                        found.push((id.clone(), "it was deleted, and is on disk".into()));
                    }
                    (Erasure::None, Some(outcome)) => match (&request.told, outcome) {
                        (Some(told), Some(status)) if told.status == *status => {}
                        (None, _) => {}
                        (Some(told), outcome) => found.push((
                            id.clone(),
                            format!("{told:?} was told, and {outcome:?} is on disk"),
                        )),
                    },
                    _ => {}
                }
            }
        });
        for (id, what) in found {
            self.violation(Some(&id), what);
        }
        for what in &kept.breaches {
            self.violation(None, what.clone());
        }
    }

    /// Every call has as many requests as it may, and one at least.
    pub fn check_calls(&self) {
        let mut found = Vec::new();
        self.books(|books| {
            let mut of_call: HashMap<usize, HashSet<&str>> = HashMap::new();
            for (id, request) in &books.requests {
                of_call.entry(request.number).or_default().insert(id);
            }
            for (number, call) in books.calls.iter().filter(|(_, call)| call.through) {
                let made = of_call.get(number).map_or(0, HashSet::len);
                let plan = self.plan(*number);
                let most = plan.most_requests(call.breaks, call.hang_ups);
                if !(1..=most).contains(&made) {
                    let id = call.requests.first().cloned();
                    found.push((
                        id,
                        format!("{plan:?} made {made} requests, not 1 to {most}"),
                    ));
                }
            }
            for (id, request) in &books.requests {
                if request.told.is_none() && request.erasure == Erasure::None {
                    found.push((Some(id.clone()), "nobody told its end".to_owned()));
                }
                let may_miss = request.erasure != Erasure::None;
                if !request.in_feed && !may_miss {
                    found.push((Some(id.clone()), "it is not in the feed".to_owned()));
                }
            }
        });
        for (id, what) in found {
            self.violation(id.as_deref(), what);
        }
    }
}

impl Books {
    fn request(&mut self, number: usize, id: &str) -> &mut Request {
        let requests = self.requests.entry(id.to_owned());
        requests.or_insert_with(|| Request {
            number,
            acknowledged: false,
            told: None,
            in_feed: false,
            erasure: Erasure::None,
        })
    }
}
