//! What may have to run live, by scope and deadline: what promises are reckoned
//! with.

use std::collections::{BTreeMap, HashMap};

use crate::{
    engine::scope::{Account, Merge, ScopeKey},
    model::{
        request::{Cohort, Destination, Entry, Guarantee},
        time::Timestamp,
    },
    policy::demand::{Capacity, Demand},
};

use super::Summary;

/// Requests by scope and deadline; scopes without any are not kept.
pub(super) type Demands = HashMap<ScopeKey, Books>;

#[derive(Debug, Default)]
pub(super) struct Books {
    /// What is firm, wherever it is.
    firm: Book,
    /// What waits for an ordinary call, or is in one.
    calling: BTreeMap<Guarantee, Book>,
}

/// Requests by deadline. Counts that are below zero for a moment, because moves can
/// be told in another order than they were made, stay until they are zero.
#[derive(Debug, Default)]
struct Book {
    dues: BTreeMap<Timestamp, i64>,
    all: i64,
}

impl Book {
    fn count(&mut self, due: Timestamp, by: i64) {
        self.all += by;
        let calls = self.dues.entry(due).or_default();
        *calls += by;
        if *calls == 0 {
            self.dues.remove(&due);
        }
    }

    fn add(&mut self, other: Book) {
        for (due, calls) in other.dues {
            self.count(due, calls);
        }
    }

    fn demands(&self) -> impl Iterator<Item = Demand> {
        self.dues.iter().map(|(&due, &calls)| Demand {
            due,
            calls: calls.max(0) as f64,
        })
    }
}

impl Books {
    fn calling(&mut self, guarantee: Guarantee, due: Timestamp, by: i64) {
        let book = self.calling.entry(guarantee).or_default();
        book.count(due, by);
        if book.dues.is_empty() {
            self.calling.remove(&guarantee);
        }
    }

    fn is_empty(&self) -> bool {
        self.firm.dues.is_empty() && self.calling.is_empty()
    }
}

impl Merge for Books {
    fn merge(&mut self, alone: Books) {
        self.firm.add(alone.firm);
        for (guarantee, book) in alone.calling {
            self.calling.entry(guarantee).or_default().add(book);
        }
        self.calling.retain(|_, book| !book.dues.is_empty());
    }
}

impl Summary {
    /// What can be promised of one more call, where a promise is asked for with the
    /// `capacity` to keep it; a firm one is counted at once. The destination is
    /// known from here on.
    pub fn promise(
        &mut self,
        destination: &Destination,
        cohort: &Cohort,
        deadline: Timestamp,
        now: Timestamp,
        capacity: Option<&Capacity>,
    ) -> Guarantee {
        let known = self.destinations.entry(destination.id);
        known.or_insert_with(|| destination.clone());
        if !capacity.is_some_and(|capacity| self.has_room(destination, deadline, now, capacity)) {
            return Guarantee::BestEffort;
        }
        let scope = self.organizations.scope(&Account::from(destination));
        let books = self.demands.entry(scope).or_default();
        books.firm.count(cohort.bucket.start, 1);
        Guarantee::Firm
    }

    /// Whether one more call can be promised to be in time.
    pub fn has_room(
        &self,
        destination: &Destination,
        deadline: Timestamp,
        now: Timestamp,
        capacity: &Capacity,
    ) -> bool {
        let empty = Book::default();
        let scope = self.organizations.scope(&Account::from(destination));
        let books = self.demands.get(&scope);
        let firm = books.map_or(&empty, |books| &books.firm);
        // Nearly always all of it would fit even before this deadline.
        let all = firm.all as f64;
        let due = deadline;
        capacity.has_room(now, due, [Demand { due, calls: all }])
            || capacity.has_room(now, due, firm.demands())
    }

    /// Calls of the scope that wait for an ordinary call, or are in one.
    pub fn calling(&self, scope: &ScopeKey, guarantee: Guarantee) -> Vec<Demand> {
        let books = self.demands.get(scope);
        let book = books.and_then(|books| books.calling.get(&guarantee));
        book.into_iter().flat_map(Book::demands).collect()
    }

    /// The same of both kinds, in order of deadlines.
    pub fn all_calling(&self, scope: &ScopeKey) -> Vec<Demand> {
        let books = self.demands.get(scope).into_iter();
        let books = books.flat_map(|books| books.calling.values());
        let mut all: Vec<Demand> = books.flat_map(Book::demands).collect();
        all.sort_by_key(|demand| demand.due);
        all
    }

    pub(super) fn count_firm(&mut self, entry: &Entry, by: i64) {
        if entry.cohort.guarantee == Guarantee::Firm {
            self.count_in(entry, |books, due| books.firm.count(due, by));
        }
    }

    pub(super) fn count_calling(&mut self, entry: &Entry, by: i64) {
        let guarantee = entry.cohort.guarantee;
        self.count_in(entry, |books, due| books.calling(guarantee, due, by));
    }

    fn count_in(&mut self, entry: &Entry, count: impl FnOnce(&mut Books, Timestamp)) {
        let destination = self.destinations.get(&entry.cohort.destination);
        let Some(account) = destination.map(Account::from) else {
            return;
        };
        let scope = self.organizations.scope(&account);
        let books = self.demands.entry(scope.clone()).or_default();
        count(books, entry.cohort.bucket.start);
        if books.is_empty() {
            self.demands.remove(&scope);
        }
    }
}
