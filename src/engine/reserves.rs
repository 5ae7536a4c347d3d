//! What the provider may still bill for calls of issued keys: of each open request what
//! was reckoned when it came in, and of what ended here while the provider ran on, until
//! that has ended too.
//!
//! A request's amount is counted once while it is open, wherever it waits. What leaves a
//! batch that may be running leaves its amount there until the batch has ended, and a
//! request that ends during a live call leaves it to the call.

use std::{
    collections::{HashMap, hash_map},
    sync::Arc,
};

use parking_lot::Mutex;

use crate::model::{
    id::{BatchId, RequestKey, TenantId},
    money::Usd,
};

/// Of tenants that a key was issued for; empty where no keys are.
#[derive(Clone, Debug, Default)]
pub(super) struct Reserves(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    requests: HashMap<RequestKey, Held>,
    /// Those with anything.
    tenants: HashMap<TenantId, Sums>,
    /// Whose each batch is that is adrift.
    owners: HashMap<BatchId, TenantId>,
}

#[derive(Debug, Default)]
struct Sums {
    requests: Usd,
    /// Lines that a batch may run although they are in it no more. A request's moves can
    /// be told in another order than they were made, so that one is below zero for a
    /// moment.
    adrift: HashMap<BatchId, Usd>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Held {
    amount: Usd,
    open: bool,
    /// Live calls that may be running.
    calls: u32,
    /// Reckoned without a look at its body.
    guessed: bool,
}

/// A live call that may be billed, until this is dropped.
#[derive(Debug)]
pub(super) struct Calling {
    reserves: Reserves,
    key: RequestKey,
    pub amount: Usd,
}

impl Drop for Calling {
    fn drop(&mut self) {
        self.reserves.0.lock().change(self.key, |held| {
            held.calls = held.calls.saturating_sub(1);
        });
    }
}

impl Reserves {
    pub fn of(&self, tenant: TenantId) -> Usd {
        self.0
            .lock()
            .tenants
            .get(&tenant)
            .map_or(Usd::ZERO, |sums| {
                let adrift = sums.adrift.values().map(|amount| *amount.max(&Usd::ZERO));
                sums.requests + adrift.sum()
            })
    }

    /// What is kept for a request, or for its calls.
    pub fn amount(&self, key: &RequestKey) -> Option<Usd> {
        Some(self.0.lock().requests.get(key)?.amount)
    }

    /// Counts a request in.
    pub fn open(&self, key: RequestKey, amount: Usd) {
        self.count_in(key, amount, false);
    }

    /// The same where its body was not looked at.
    pub fn open_guessed(&self, key: RequestKey, amount: Usd) {
        self.count_in(key, amount, true);
    }

    fn count_in(&self, key: RequestKey, amount: Usd, guessed: bool) {
        self.0.lock().enter(key, |held| {
            held.amount = amount;
            held.guessed = guessed;
            held.open = true;
        });
    }

    /// The tenant's requests whose body was not looked at.
    pub fn guessed(&self, tenant: TenantId) -> Vec<RequestKey> {
        let kept = self.0.lock();
        let held = kept.requests.iter();
        held.filter(|(key, held)| key.tenant == tenant && held.guessed)
            .map(|(key, _)| *key)
            .collect()
    }

    /// Corrects the amount of a request that has not ended meanwhile.
    pub fn correct(&self, key: RequestKey, amount: Usd) {
        self.0.lock().change(key, |held| {
            held.amount = amount;
            held.guessed = false;
        });
    }

    /// It has ended, or was not taken in. What it costs yet is its calls'.
    pub fn close(&self, key: RequestKey) {
        self.0.lock().change(key, |held| held.open = false);
    }

    /// A live call begins, for a request that is open or has just ended.
    pub fn call(&self, key: RequestKey, amount: Usd) -> Calling {
        self.0.lock().enter(key, |held| {
            if !held.open && held.calls == 0 {
                held.amount = amount;
            }
            held.calls += 1;
        });
        Calling {
            reserves: self.clone(),
            key,
            amount,
        }
    }

    /// A line leaves a batch that may run it all the same.
    pub fn leave(&self, key: &RequestKey, batch: BatchId) {
        self.drift(key, batch, |adrift, amount| adrift + amount);
    }

    /// A line comes back into the batch that it had left.
    pub fn come_back(&self, key: &RequestKey, batch: BatchId) {
        self.drift(key, batch, |adrift, amount| adrift - amount);
    }

    /// The batch has billed an open request's line, and will not again.
    pub fn billed(&self, key: &RequestKey, batch: BatchId) {
        self.drift(key, batch, |adrift, amount| adrift - amount);
    }

    /// So much may be billed for lines of the batch that are in it no more.
    pub fn adrift(&self, tenant: TenantId, batch: BatchId, amount: Usd) {
        let mut kept = self.0.lock();
        *kept.adrift(tenant, batch) = amount;
    }

    pub fn is_adrift(&self, batch: &BatchId) -> bool {
        self.0.lock().owners.contains_key(batch)
    }

    /// The batch will bill nothing any more.
    pub fn settle(&self, batch: &BatchId) {
        let mut kept = self.0.lock();
        if let Some(tenant) = kept.owners.remove(batch)
            && let Some(sums) = kept.tenants.get_mut(&tenant)
        {
            sums.adrift.remove(batch);
            kept.forget_empty(tenant);
        }
    }

    fn drift(&self, key: &RequestKey, batch: BatchId, by: impl Fn(Usd, Usd) -> Usd) {
        let mut kept = self.0.lock();
        if let Some(held) = kept.requests.get(key).copied() {
            let adrift = kept.adrift(key.tenant, batch);
            *adrift = by(*adrift, held.amount);
        }
    }
}

impl Kept {
    fn adrift(&mut self, tenant: TenantId, batch: BatchId) -> &mut Usd {
        self.owners.insert(batch, tenant);
        let sums = self.tenants.entry(tenant).or_default();
        sums.adrift.entry(batch).or_default()
    }

    /// Changes what is held for a request, from nothing at first.
    fn enter(&mut self, key: RequestKey, change: impl FnOnce(&mut Held)) {
        self.requests.entry(key).or_default();
        self.change(key, change);
    }

    /// Changes what is held for a request, where anything is; and forgets it where
    /// nothing may be billed any more.
    fn change(&mut self, key: RequestKey, change: impl FnOnce(&mut Held)) {
        let hash_map::Entry::Occupied(mut entry) = self.requests.entry(key) else {
            return;
        };
        let before = entry.get().amount;
        let held = entry.get_mut();
        change(held);
        let after = match held.open || held.calls > 0 {
            true => held.amount,
            false => {
                entry.remove();
                Usd::ZERO
            }
        };
        let sums = self.tenants.entry(key.tenant).or_default();
        sums.requests = sums.requests - before + after;
        self.forget_empty(key.tenant);
    }

    fn forget_empty(&mut self, tenant: TenantId) {
        let sums = self.tenants.get(&tenant);
        if sums.is_some_and(|sums| sums.requests == Usd::ZERO && sums.adrift.is_empty()) {
            self.tenants.remove(&tenant);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id::RequestId;

    const TENANT: TenantId = TenantId([1; 16]);
    const BATCH: BatchId = BatchId::MIN;

    fn key(number: u8) -> RequestKey {
        RequestKey {
            tenant: TENANT,
            id: RequestId::from_bytes([number; 16]),
        }
    }

    fn usd(pico: i128) -> Usd {
        Usd::from_pico(pico)
    }

    fn is_empty(reserves: &Reserves) -> bool {
        let kept = reserves.0.lock();
        kept.requests.is_empty() && kept.tenants.is_empty() && kept.owners.is_empty()
    }

    #[test]
    fn a_request_counts_while_it_or_its_call_may_be_billed() {
        let reserves = Reserves::default();
        reserves.open(key(1), usd(5));
        reserves.open(key(2), usd(7));
        assert_eq!(reserves.of(TENANT), usd(12));
        assert_eq!(reserves.of(TenantId([2; 16])), Usd::ZERO);
        let call = reserves.call(key(1), usd(5));
        assert_eq!(reserves.of(TENANT), usd(12), "once");
        reserves.close(key(1));
        assert_eq!(reserves.of(TENANT), usd(12), "it is called yet");
        drop(call);
        assert_eq!(reserves.of(TENANT), usd(7));
        drop(reserves.call(key(2), usd(7)));
        assert_eq!(reserves.of(TENANT), usd(7), "it is open yet");
        reserves.close(key(2));
        reserves.close(key(2));
        assert!(is_empty(&reserves));
        // A call that goes on behind a restart.
        let call = reserves.call(key(3), usd(9));
        assert_eq!(reserves.of(TENANT), usd(9));
        drop(call);
        assert!(is_empty(&reserves));
    }

    #[test]
    fn what_leaves_a_batch_counts_until_that_has_ended() {
        let reserves = Reserves::default();
        for number in 1..=3 {
            reserves.open(key(number), usd(number.into()));
        }
        // Cancelled; gone live; answered by the batch.
        reserves.leave(&key(1), BATCH);
        reserves.close(key(1));
        assert_eq!(reserves.of(TENANT), usd(6));
        reserves.leave(&key(2), BATCH);
        assert_eq!(reserves.of(TENANT), usd(8), "both may be billed");
        reserves.billed(&key(3), BATCH);
        reserves.leave(&key(3), BATCH);
        reserves.close(key(3));
        assert_eq!(reserves.of(TENANT), usd(5));
        reserves.come_back(&key(2), BATCH);
        assert_eq!(reserves.of(TENANT), usd(3));
        // Told in another order than it came: never below what is open.
        reserves.come_back(&key(2), BATCH);
        reserves.come_back(&key(2), BATCH);
        assert_eq!(reserves.of(TENANT), usd(2));
        reserves.settle(&BATCH);
        assert_eq!(reserves.of(TENANT), usd(2));
        reserves.close(key(2));
        assert!(is_empty(&reserves));
        // Nobody's of an issued key.
        reserves.leave(&key(4), BATCH);
        assert!(is_empty(&reserves));
    }

    #[test]
    fn a_guess_is_corrected_while_it_is_open() {
        let reserves = Reserves::default();
        reserves.open_guessed(key(1), usd(5));
        reserves.open(key(2), usd(1));
        assert_eq!(reserves.guessed(TENANT), [key(1)]);
        reserves.correct(key(1), usd(50));
        assert_eq!(reserves.of(TENANT), usd(51));
        assert_eq!(reserves.guessed(TENANT), []);
        reserves.close(key(1));
        reserves.correct(key(1), usd(50));
        assert_eq!(reserves.of(TENANT), usd(1));
    }
}
