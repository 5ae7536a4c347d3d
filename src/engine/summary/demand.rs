//! What may have to run live, by scope and deadline: what promises are reckoned
//! with.

use std::{
    collections::{BTreeMap, HashMap},
    ops::{AddAssign, Range},
    time::Duration,
};

use crate::{
    engine::scope::{Account, Merge, Organizations, ScopeKey, regroup},
    model::{
        id::{CredentialId, DestinationId, TenantId},
        request::{Cohort, Destination, Entry, Guarantee},
        time::Timestamp,
    },
    policy::demand::{Capacity, Demand},
};

use super::{Summary, live_queues::Lines};

/// Requests by scope and deadline; scopes without any are not kept.
#[derive(Debug, Default)]
pub(super) struct Demands {
    scopes: HashMap<ScopeKey, Books>,
    /// What is firm in all of them.
    firm: Book,
    /// The same by tenant and destination, where rescues have a budget.
    tenants: Option<HashMap<TenantId, HashMap<DestinationId, Book>>>,
}

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
    dues: BTreeMap<Timestamp, Amount>,
    all: Amount,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Amount {
    calls: i64,
    /// Of their requests.
    bytes: i64,
}

impl Amount {
    fn of(entry: &Entry, by: i64) -> Amount {
        Amount {
            calls: by,
            bytes: by * i64::from(entry.line_bytes),
        }
    }

    fn demand(self, due: Timestamp) -> Demand {
        Demand {
            due,
            calls: self.calls.max(0) as f64,
            bytes: self.bytes.max(0) as f64,
        }
    }
}

impl AddAssign for Amount {
    fn add_assign(&mut self, more: Amount) {
        self.calls += more.calls;
        self.bytes += more.bytes;
    }
}

impl Book {
    fn count(&mut self, due: Timestamp, more: Amount) {
        self.all += more;
        let amount = self.dues.entry(due).or_default();
        *amount += more;
        if *amount == Amount::default() {
            self.dues.remove(&due);
        }
    }

    fn add(&mut self, other: Book) {
        for (due, amount) in other.dues {
            self.count(due, amount);
        }
    }

    fn demands(&self) -> impl Iterator<Item = Demand> {
        self.dues.iter().map(|(&due, &amount)| amount.demand(due))
    }

    fn has_room(&self, capacity: &Capacity, now: Timestamp, more: Demand) -> bool {
        // Nearly always all of it would fit even before this deadline.
        let all = self.all.demand(more.due);
        capacity.has_room(now, more, [all]) || capacity.has_room(now, more, self.demands())
    }
}

impl Books {
    fn calling(&mut self, guarantee: Guarantee, due: Timestamp, more: Amount) {
        let book = self.calling.entry(guarantee).or_default();
        book.count(due, more);
        if book.dues.is_empty() {
            self.calling.remove(&guarantee);
        }
    }

    fn is_empty(&self) -> bool {
        self.firm.dues.is_empty() && self.calling.is_empty()
    }
}

/// What a promise is given by.
pub(in crate::engine) struct Asked {
    pub now: Timestamp,
    /// When it would begin to run live with all that is firm, at the earliest.
    pub from: Timestamp,
    pub deadline: Timestamp,
    pub line_bytes: u32,
    /// What the scope can run live.
    pub capacity: Capacity,
    /// And all scopes together.
    pub whole: Capacity,
}

impl Asked {
    /// What is kept for one such call, where the deadline leaves less.
    pub fn is_too_short(&self) -> Option<Duration> {
        let kept = self.capacity.for_one(self.line_bytes.into());
        (self.now + kept > self.deadline).then_some(kept)
    }

    /// A call by itself has room where its time is not too short.
    fn runs_live_from(&self, capacity: &Capacity) -> Timestamp {
        let alone = capacity.for_one(self.line_bytes.into()) + Duration::from_millis(1);
        self.from.min(self.deadline - alone).max(self.now)
    }

    fn demand(&self) -> Demand {
        Demand {
            due: self.deadline,
            calls: 1.0,
            bytes: self.line_bytes.into(),
        }
    }
}

impl Demands {
    /// `budgets`: whether what a tenant was promised is asked for.
    pub fn new(budgets: bool) -> Demands {
        Demands {
            tenants: budgets.then(HashMap::new),
            ..Demands::default()
        }
    }

    fn count_firm(
        &mut self,
        tenant: TenantId,
        destination: DestinationId,
        due: Timestamp,
        more: Amount,
    ) {
        self.firm.count(due, more);
        let Some(tenants) = &mut self.tenants else {
            return;
        };
        let destinations = tenants.entry(tenant).or_default();
        let book = destinations.entry(destination).or_default();
        book.count(due, more);
        if book.dues.is_empty() {
            destinations.remove(&destination);
            if destinations.is_empty() {
                tenants.remove(&tenant);
            }
        }
    }

    /// What was counted for the credential alone goes to its organization.
    pub fn regroup(&mut self, credential: CredentialId, organizations: &Organizations) {
        regroup(&mut self.scopes, credential, organizations);
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
    /// room to keep it in; a firm one is counted at once. The destination is known from
    /// here on.
    pub fn promise(
        &mut self,
        destination: &Destination,
        cohort: &Cohort,
        asked: Option<&Asked>,
    ) -> Guarantee {
        self.destinations.know(destination);
        let scope = self.organizations.scope(&Account::from(destination));
        let Some(asked) = asked.filter(|asked| self.fits(&scope, asked)) else {
            return Guarantee::BestEffort;
        };
        let amount = Amount {
            calls: 1,
            bytes: asked.line_bytes.into(),
        };
        let due = cohort.bucket.part(asked.deadline);
        let books = self.demands.scopes.entry(scope).or_default();
        books.firm.count(due, amount);
        let (tenant, destination) = (destination.tenant, destination.id);
        self.demands.count_firm(tenant, destination, due, amount);
        Guarantee::Firm
    }

    /// Whether one more call can be promised to be in time.
    pub fn has_room(&self, destination: &Destination, asked: &Asked) -> bool {
        let scope = self.organizations.scope(&Account::from(destination));
        self.fits(&scope, asked)
    }

    fn fits(&self, scope: &ScopeKey, asked: &Asked) -> bool {
        let empty = Book::default();
        let books = self.demands.scopes.get(scope);
        let firm = books.map_or(&empty, |books| &books.firm);
        let more = asked.demand();
        firm.has_room(&asked.capacity, asked.runs_live_from(&asked.capacity), more)
            && self
                .demands
                .firm
                .has_room(&asked.whole, asked.runs_live_from(&asked.whole), more)
    }

    /// What a tenant was promised for a time, by where it goes. Nothing where rescues
    /// have no budget.
    pub fn firm_of(&self, tenant: TenantId, time: Range<Timestamp>) -> Vec<(Destination, Lines)> {
        let tenants = self.demands.tenants.as_ref();
        let books = tenants.and_then(|tenants| tenants.get(&tenant));
        let promised = books.into_iter().flatten().filter_map(|(id, book)| {
            let destination = self.destinations.get(id)?;
            let mut all = Amount::default();
            for (_, amount) in book.dues.range(time.clone()) {
                all += *amount;
            }
            let lines = Lines {
                count: all.calls,
                bytes: all.bytes,
            };
            Some((destination.clone(), lines))
        });
        promised.collect()
    }

    /// How much is firm in each scope.
    pub fn firm_by_scope(&self) -> Vec<(ScopeKey, f64)> {
        let scopes = self.demands.scopes.iter();
        let firm = scopes.map(|(key, books)| (key.clone(), books.firm.all.calls.max(0) as f64));
        firm.filter(|(_, calls)| *calls > 0.0).collect()
    }

    /// All firm work, of every scope and wherever it is, in order of deadlines.
    pub fn all_firm(&self) -> Vec<Demand> {
        self.demands.firm.demands().collect()
    }

    /// Calls of the scope that wait for an ordinary call, or are in one.
    pub fn calling(&self, scope: &ScopeKey, guarantee: Guarantee) -> Vec<Demand> {
        let books = self.demands.scopes.get(scope);
        let book = books.and_then(|books| books.calling.get(&guarantee));
        book.into_iter().flat_map(Book::demands).collect()
    }

    /// The same of both kinds.
    pub fn all_calling(&self, scope: &ScopeKey) -> Vec<Demand> {
        let kinds = [Guarantee::Firm, Guarantee::BestEffort];
        let calling = kinds.map(|guarantee| self.calling(scope, guarantee));
        calling.into_iter().flatten().collect()
    }

    /// What has to run live before a call can, or together with it: all that is firm,
    /// wherever it is, and what else calls. In order of deadlines.
    pub fn ahead(&self, scope: &ScopeKey) -> Vec<Demand> {
        let Some(books) = self.demands.scopes.get(scope) else {
            return Vec::new();
        };
        let mut dues = books.firm.dues.clone();
        let rest = books.calling.get(&Guarantee::BestEffort).into_iter();
        for (due, amount) in rest.flat_map(|book| &book.dues) {
            *dues.entry(*due).or_default() += *amount;
        }
        dues.into_iter()
            .map(|(due, amount)| amount.demand(due))
            .collect()
    }

    pub(super) fn count_firm(&mut self, entry: &Entry, by: i64) {
        if entry.cohort.guarantee == Guarantee::Firm {
            let amount = Amount::of(entry, by);
            let cohort = &entry.cohort;
            let (tenant, due) = (entry.key.tenant, entry.due());
            self.demands
                .count_firm(tenant, cohort.destination, due, amount);
            self.count_in(entry, |books, due| books.firm.count(due, amount));
        }
    }

    pub(super) fn count_calling(&mut self, entry: &Entry, by: i64) {
        let guarantee = entry.cohort.guarantee;
        let amount = Amount::of(entry, by);
        self.count_in(entry, |books, due| books.calling(guarantee, due, amount));
    }

    fn count_in(&mut self, entry: &Entry, count: impl FnOnce(&mut Books, Timestamp)) {
        let destination = self.destinations.get(&entry.cohort.destination);
        let Some(account) = destination.map(Account::from) else {
            return;
        };
        let scope = self.organizations.scope(&account);
        let scopes = &mut self.demands.scopes;
        let books = scopes.entry(scope.clone()).or_default();
        count(books, entry.due());
        if books.is_empty() {
            scopes.remove(&scope);
        }
    }
}
