//! What is known of those who receive webhooks, and who of them is called next.
//!
//! Kept are those that are called now, have a backlog, or failed last: so many at
//! most, however many deliveries wait. A place goes to the tenant with the fewest
//! attempts in hand, and there to such a receiver, so that those who are slow take
//! places from nobody else for longer than one attempt.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use parking_lot::Mutex;

use crate::{
    model::{
        id::{ReceiverId, TenantId},
        time::Timestamp,
    },
    policy::circuit::{Bounds, Circuit, Said},
    ports::Delivery,
};

/// Receivers that are kept in memory.
const KNOWN: usize = 10_000;
/// Those of one tenant: whoever names many slow ones does not push out others'.
const KNOWN_OF_TENANT: usize = KNOWN / 4;

pub(in crate::engine) struct Receivers {
    bounds: Bounds,
    /// Attempts at the same time.
    places: u32,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    known: HashMap<ReceiverId, Receiver>,
    /// How many of them are a tenant's; none is zero.
    shares: HashMap<TenantId, usize>,
    /// Attempts in hand, by tenant; none is zero.
    tenants: HashMap<TenantId, u32>,
    running: u32,
    /// Counts what is begun or heard.
    turn: u64,
    gone: BTreeSet<ReceiverId>,
}

struct Receiver {
    tenant: TenantId,
    circuit: Circuit,
    running: u32,
    /// It has a backlog.
    waiting: bool,
    /// The first of its backlog may be a dead letter then.
    expires: Timestamp,
    /// When something was last begun or heard.
    turn: u64,
    /// How it is named, where it failed last.
    target: Option<Arc<str>>,
}

/// A receiver that is not called for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resting {
    /// A configured name, or a URL without its query.
    pub target: Arc<str>,
    pub until: Timestamp,
}

/// What can be done with a delivery that is due.
pub(in crate::engine) enum Turn {
    Now(Ticket),
    /// Behind others of its receiver, or when that works again.
    InBacklog,
    /// When a place is free: no more receivers are kept in mind.
    WhenFree,
    /// The same, of this tenant's; others' may have room.
    AfterItsOwn,
}

impl Receivers {
    pub fn new(bounds: Bounds, places: u32) -> Arc<Self> {
        Arc::new(Receivers {
            bounds,
            places,
            state: Mutex::default(),
        })
    }

    /// Where a delivery that is due goes.
    pub fn take(self: &Arc<Self>, due: &Delivery, now: Timestamp) -> Turn {
        let mut state = self.state.lock();
        let is_free = state.running < self.places;
        let known = state.known.get(&due.receiver);
        let tenant = due.key.tenant;
        let room = match known {
            Some(_) => Room::Free,
            None => state.room(tenant),
        };
        let goes =
            known.is_none_or(|known| !known.waiting && known.circuit.room(now, known.running) > 0);
        match () {
            () if goes && is_free => Turn::Now(self.begin(&mut state, due)),
            () if room == Room::Free => Turn::InBacklog,
            () if room == Room::Full => Turn::WhenFree,
            () => Turn::AfterItsOwn,
        }
    }

    /// Somebody is in its backlog, or about to be; dead letters at `expires`.
    pub fn waits(&self, receiver: ReceiverId, tenant: TenantId, expires: Timestamp) {
        let mut state = self.state.lock();
        let known = state.know(receiver, tenant, Circuit::fresh(&self.bounds));
        known.expires = match known.waiting {
            true => known.expires.min(expires),
            false => expires,
        };
        known.waiting = true;
    }

    /// One that had a backlog when we started.
    pub fn resumes(&self, front: &Delivery) {
        let mut state = self.state.lock();
        let known = state.know(front.receiver, front.key.tenant, Circuit::resumed());
        known.waiting = true;
        known.expires = Timestamp::ZERO;
    }

    /// Whose backlog is next, and how many of it may be in hand.
    pub fn next(&self, now: Timestamp) -> Option<(ReceiverId, usize)> {
        let state = self.state.lock();
        if state.running >= self.places {
            return None;
        }
        let ready = state
            .known
            .iter()
            .filter(|(_, known)| known.waiting && known.circuit.room(now, known.running) > 0);
        let next = ready.min_by_key(|(receiver, known)| {
            let of_tenant = state.tenants.get(&known.tenant).copied();
            (
                of_tenant.unwrap_or(0),
                known.running,
                known.turn,
                **receiver,
            )
        });
        next.map(|(receiver, known)| (*receiver, known.running as usize))
    }

    /// Takes a place for one of a backlog that [`Receivers::next`] named.
    pub fn serve(self: &Arc<Self>, delivery: &Delivery) -> Ticket {
        self.begin(&mut self.state.lock(), delivery)
    }

    fn begin(self: &Arc<Self>, state: &mut State, delivery: &Delivery) -> Ticket {
        let (receiver, tenant) = (delivery.receiver, delivery.key.tenant);
        state.turn += 1;
        let turn = state.turn;
        let mut probes = false;
        // One that is not kept in mind has a place all the same.
        if state.known.contains_key(&receiver) || state.room(tenant) == Room::Free {
            let known = state.know(receiver, tenant, Circuit::fresh(&self.bounds));
            known.running += 1;
            known.turn = turn;
            probes = known.circuit.is_open();
        }
        state.running += 1;
        *state.tenants.entry(tenant).or_default() += 1;
        Ticket {
            receivers: self.clone(),
            receiver,
            tenant,
            probes,
            kept: state.known.contains_key(&receiver),
            heard: None,
        }
    }

    pub fn emptied(&self, receiver: ReceiverId) {
        let mut state = self.state.lock();
        if let Some(known) = state.known.get_mut(&receiver) {
            known.waiting = false;
            if known.is_idle(&self.bounds) {
                state.forget(receiver);
            }
        }
    }

    /// Somebody says that it works, or asks for it to be tried.
    pub fn hurry(&self, receiver: ReceiverId, now: Timestamp) {
        if let Some(known) = self.state.lock().known.get_mut(&receiver) {
            known.circuit = known.circuit.hurried(now);
        }
    }

    /// It took something that was no delivery.
    pub fn works(&self, receiver: ReceiverId, now: Timestamp) {
        if let Some(known) = self.state.lock().known.get_mut(&receiver) {
            let works = Said::Works;
            known.circuit = known.circuit.heard(works, true, &self.bounds, now, 0);
        }
    }

    /// It wants no more events: what waits for it needs no care any more, and what
    /// waits elsewhere is to be looked for.
    pub fn gone(&self, receiver: ReceiverId) {
        let mut state = self.state.lock();
        state.gone.insert(receiver);
        if let Some(known) = state.known.get_mut(&receiver) {
            known.circuit = Circuit::fresh(&self.bounds);
        }
    }

    pub fn take_gone(&self) -> BTreeSet<ReceiverId> {
        std::mem::take(&mut self.state.lock().gone)
    }

    /// Whose backlog may hold dead letters, because it is not called.
    pub fn expired(&self, now: Timestamp) -> Vec<ReceiverId> {
        let state = self.state.lock();
        let resting = state.known.iter().filter(|(_, known)| known.is_resting());
        let expired = resting.filter(|(_, known)| known.expires <= now);
        let mut expired: Vec<_> = expired.map(|(receiver, _)| *receiver).collect();
        expired.sort();
        expired
    }

    pub fn expires(&self, receiver: ReceiverId, at: Timestamp) {
        if let Some(known) = self.state.lock().known.get_mut(&receiver) {
            known.expires = at;
        }
    }

    /// The next instant at which something changes for those that rest.
    pub fn wakes(&self) -> Option<Timestamp> {
        let state = self.state.lock();
        let resting = state.known.values().filter(|known| known.is_resting());
        let wakes = resting.filter_map(|known| {
            let probe = known.circuit.probe_at().filter(|_| known.running == 0);
            let expires = Some(known.expires);
            [probe, expires].into_iter().flatten().min()
        });
        wakes.min()
    }

    /// The tenant's that are not called for a while.
    pub fn resting(&self, tenant: TenantId) -> Vec<Resting> {
        let state = self.state.lock();
        let own = state.known.values().filter(|known| known.tenant == tenant);
        let resting = own.filter_map(|known| {
            Some(Resting {
                until: known.circuit.probe_at()?,
                target: known.target.clone()?,
            })
        });
        let mut resting: Vec<_> = resting.collect();
        resting.sort_by(|a, b| a.target.cmp(&b.target));
        resting
    }

    /// How many are kept in mind.
    pub fn len(&self) -> usize {
        self.state.lock().known.len()
    }

    fn end(&self, ticket: &Ticket, heard: Option<Heard>) {
        let mut state = self.state.lock();
        state.turn += 1;
        let turn = state.turn;
        state.running -= 1;
        if let Some(running) = state.tenants.get_mut(&ticket.tenant) {
            *running -= 1;
            if *running == 0 {
                state.tenants.remove(&ticket.tenant);
            }
        }
        let Some(known) = state
            .known
            .get_mut(&ticket.receiver)
            .filter(|_| ticket.kept)
        else {
            return;
        };
        known.running -= 1;
        known.turn = turn;
        match heard {
            Some(heard) => {
                let (said, now, chance) = (heard.said, heard.now, heard.chance);
                let circuit = known.circuit;
                known.circuit = circuit.heard(said, ticket.probes, &self.bounds, now, chance);
                known.target = match known.circuit {
                    Circuit::Closed { failures: 0, .. } => None,
                    _ => heard.target.or(known.target.take()),
                };
            }
            // It may be in the backlog yet.
            None => known.waiting = true,
        }
        if known.is_idle(&self.bounds) {
            state.forget(ticket.receiver);
        }
    }
}

impl State {
    /// Whether one more of the tenant's receivers can be kept in mind.
    fn room(&self, tenant: TenantId) -> Room {
        let own = self.has_its_share(tenant);
        let mut others = self.known.values().filter(|it| !own || it.tenant == tenant);
        match () {
            () if !own && self.known.len() < KNOWN => Room::Free,
            () if others.any(Receiver::is_dispensable) => Room::Free,
            () if own => Room::FullOfItsOwn,
            () => Room::Full,
        }
    }

    fn has_its_share(&self, tenant: TenantId) -> bool {
        self.shares
            .get(&tenant)
            .is_some_and(|share| *share >= KNOWN_OF_TENANT)
    }

    /// Keeps it in mind, in the place of the one that has been quiet for longest, which
    /// is of the same tenant where that has its share.
    fn know(&mut self, receiver: ReceiverId, tenant: TenantId, as_: Circuit) -> &mut Receiver {
        if !self.known.contains_key(&receiver) {
            let own = self.has_its_share(tenant);
            if own || self.known.len() >= KNOWN {
                let known = self.known.iter();
                let dispensable = known.filter(|(_, known)| {
                    known.is_dispensable() && (!own || known.tenant == tenant)
                });
                let quiet = dispensable.min_by_key(|(_, known)| known.turn);
                if let Some(quiet) = quiet.map(|(receiver, _)| *receiver) {
                    self.forget(quiet);
                }
            }
            *self.shares.entry(tenant).or_default() += 1;
        }
        self.known.entry(receiver).or_insert(Receiver {
            tenant,
            circuit: as_,
            running: 0,
            waiting: false,
            expires: Timestamp::ZERO,
            turn: 0,
            target: None,
        })
    }

    fn forget(&mut self, receiver: ReceiverId) {
        let Some(forgotten) = self.known.remove(&receiver) else {
            return;
        };
        if let Some(share) = self.shares.get_mut(&forgotten.tenant) {
            *share -= 1;
            if *share == 0 {
                self.shares.remove(&forgotten.tenant);
            }
        }
    }
}

/// Whether one more receiver can be kept in mind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Room {
    Free,
    Full,
    /// Of the tenant's own.
    FullOfItsOwn,
}

impl Receiver {
    /// Nothing would be lost with it but what it is like.
    fn is_dispensable(&self) -> bool {
        self.running == 0 && !self.waiting
    }

    /// Nothing at all would be lost with it.
    fn is_idle(&self, bounds: &Bounds) -> bool {
        self.is_dispensable() && self.circuit == Circuit::fresh(bounds)
    }

    fn is_resting(&self) -> bool {
        self.waiting && self.circuit.is_open()
    }
}

/// A place that is taken, until it is dropped.
pub(in crate::engine) struct Ticket {
    receivers: Arc<Receivers>,
    receiver: ReceiverId,
    tenant: TenantId,
    probes: bool,
    kept: bool,
    heard: Option<Heard>,
}

/// What an attempt told of its receiver.
pub(in crate::engine) struct Heard {
    pub said: Said,
    pub target: Option<Arc<str>>,
    pub now: Timestamp,
    pub chance: u128,
}

impl Ticket {
    /// Gives the place back. Dropped otherwise, the delivery stands where it stood.
    pub fn end(mut self, heard: Heard) {
        self.heard = Some(heard);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let heard = self.heard.take();
        let receivers = self.receivers.clone();
        receivers.end(self, heard);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        model::id::{RequestId, RequestKey},
        policy::backoff::Backoff,
    };

    const NOW: Timestamp = Timestamp::from_secs(1_000_000);

    fn receivers() -> Arc<Receivers> {
        let backoff = Backoff {
            first_retry: Duration::from_secs(5),
            horizon: Duration::from_secs(3600),
        };
        Receivers::new(Bounds { most: 2, backoff }, 4)
    }

    fn delivery(number: u32) -> Delivery {
        of_tenant(number % 5, number)
    }

    fn of_tenant(tenant: u32, number: u32) -> Delivery {
        let tenant = TenantId([tenant as u8; 16]);
        Delivery {
            due: NOW,
            key: RequestKey {
                tenant,
                id: RequestId::new(NOW, u128::from(number) << 64),
            },
            tries: 0,
            first_due: NOW,
            receiver: ReceiverId::of(tenant, &number.to_string()),
            ended: NOW,
        }
    }

    fn heard(said: Said) -> Heard {
        Heard {
            said,
            target: Some("https://example.com/".into()),
            now: NOW,
            chance: 0,
        }
    }

    /// However many receivers there are, so many are kept in mind; the others have
    /// their places all the same.
    #[test]
    fn memory_has_a_bound() {
        let receivers = receivers();
        let many = KNOWN as u32;
        for number in 0..many + 100 {
            let delivery = delivery(number);
            match receivers.take(&delivery, NOW) {
                // Each fails once, and is kept in mind for that.
                Turn::Now(ticket) => ticket.end(heard(Said::Fails { retry_after: None })),
                _ => panic!("there are places"),
            }
        }
        assert_eq!(receivers.len(), KNOWN);
        for number in 100..many + 100 {
            let one = delivery(number);
            receivers.waits(one.receiver, one.key.tenant, NOW);
        }
        assert_eq!(receivers.len(), KNOWN);
        let mut taken = Vec::new();
        for number in 0..4 {
            match receivers.take(&delivery(number), NOW) {
                Turn::Now(ticket) => taken.push(ticket),
                _ => panic!("there are places"),
            }
        }
        let fifth = receivers.take(&delivery(5), NOW);
        assert!(matches!(fifth, Turn::WhenFree));
        assert_eq!(receivers.len(), KNOWN);
        drop(taken);
        assert!(matches!(receivers.take(&delivery(5), NOW), Turn::Now(_)));
    }

    /// One that names many leaves room for others' in memory, and so for their turn.
    #[test]
    fn a_tenant_has_a_share_of_memory() {
        let receivers = receivers();
        let share = KNOWN_OF_TENANT as u32;
        for number in 0..share {
            let one = of_tenant(1, number);
            receivers.waits(one.receiver, one.key.tenant, NOW);
        }
        let taken: Vec<_> = (0..4)
            .map(|number| receivers.take(&of_tenant(1, share + number), NOW))
            .collect();
        assert!(taken.iter().all(|turn| matches!(turn, Turn::Now(_))));
        assert_eq!(receivers.len(), KNOWN_OF_TENANT);
        let one_more = || receivers.take(&of_tenant(1, share + 5), NOW);
        assert!(matches!(one_more(), Turn::AfterItsOwn));
        let others = receivers.take(&of_tenant(2, 0), NOW);
        assert!(matches!(others, Turn::InBacklog));
        // One that is not needed any more makes room, for its own tenant.
        receivers.emptied(of_tenant(1, 7).receiver);
        assert!(matches!(one_more(), Turn::InBacklog));
        drop(taken);
        for number in 0..share {
            receivers.emptied(of_tenant(1, number).receiver);
        }
        assert_eq!(receivers.len(), 0);
        assert!(receivers.state.lock().shares.is_empty());
    }

    #[test]
    fn one_that_works_is_forgotten() {
        let receivers = receivers();
        let Turn::Now(first) = receivers.take(&delivery(1), NOW) else {
            panic!("there are places");
        };
        let Turn::Now(second) = receivers.take(&delivery(1), NOW) else {
            panic!("there is room for two");
        };
        assert!(matches!(receivers.take(&delivery(1), NOW), Turn::InBacklog));
        first.end(heard(Said::Works));
        assert_eq!(receivers.len(), 1);
        second.end(heard(Said::Works));
        assert_eq!(receivers.len(), 0);
        assert_eq!(receivers.state.lock().running, 0);
        assert!(receivers.state.lock().tenants.is_empty());
    }
}
