//! What tenants of issued keys have spent this month, and what does not fit any more.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;

use super::{Key, Keys};
use crate::{
    engine::{Call, Engine},
    model::{
        id::TenantId,
        ledger::{LedgerKey, LedgerRow},
        money::Usd,
        time::Timestamp,
    },
    policy::allowance::{Account, Exceeded, Month},
    ports::{LedgerEntry, LedgerRows, StoreError},
};

/// Of tenants that a key was issued for; others are not counted.
#[derive(Clone, Default)]
pub(in crate::engine) struct Spending(Arc<Mutex<HashMap<TenantId, Account>>>);

/// What a tenant of issued keys has spent this month.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    pub paid: Usd,
    /// What answers may have cost whose price nobody knows: of models without one, and of
    /// calls that nobody saw end.
    pub reckoned: Usd,
    /// Kept for what the provider may still bill.
    pub reserved: Usd,
}

/// Money that is kept for a call until it is counted among the open ones, or turned
/// away.
pub(in crate::engine) struct Entering {
    spending: Spending,
    tenant: TenantId,
    /// The most that the call is expected to cost.
    pub amount: Usd,
}

impl Drop for Entering {
    fn drop(&mut self) {
        if let Some(account) = self.spending.0.lock().get_mut(&self.tenant) {
            account.entered(self.amount);
        }
    }
}

impl Spending {
    /// Counts what a ledger entry that is durable says was paid, or may have been.
    pub fn book(&self, now: Timestamp, entry: &LedgerEntry) {
        let LedgerRow { paid, reckoned, .. } = entry.row;
        if let Some(account) = self.0.lock().get_mut(&entry.key.tenant) {
            account.book(now, entry.key.hour, paid, reckoned);
        }
    }

    pub(super) fn knows(&self, tenant: TenantId) -> bool {
        self.0.lock().contains_key(&tenant)
    }
}

impl Engine {
    /// What was spent before we started. A tenant without a key has no calls, so that
    /// nothing is booked between.
    pub(super) async fn count_spending(
        &self,
        keys: &Keys,
        tenant: TenantId,
    ) -> Result<(), StoreError> {
        if keys.spending.knows(tenant) {
            return Ok(());
        }
        let now = self.now();
        let since = Month::of(now).begins.as_hours();
        let mut account = Account::default();
        let count = |key: &LedgerKey, row: &LedgerRow| {
            let reckoned = match row.unpriced > 0 && row.reckoned == Usd::ZERO {
                // From a format that did not say.
                true => self.prices.ordinary(&key.model, &row.usage),
                false => row.reckoned,
            };
            account.book(now, key.hour, row.paid, reckoned);
        };
        let rows = LedgerRows::of_tenant(tenant, since);
        self.fold_ledger(&rows, count).await?;
        keys.spending.0.lock().insert(tenant, account);
        Ok(())
    }

    /// Keeps money for a call of an issued key.
    ///
    /// # Errors
    /// Where the key has a budget, and the call does not fit into it beside what was
    /// spent this month and what the provider may still bill, at its ordinary price.
    pub(in crate::engine) fn enter_budget(
        &self,
        call: &Call,
    ) -> Result<Option<Entering>, Exceeded> {
        let (Some(keys), Some(key)) = (&self.keys, &call.caller.key) else {
            return Ok(None);
        };
        let (now, tenant) = (self.now(), key.tenant);
        let credential = call.caller.credential;
        let amount = self.most_of(credential, call.endpoint, &call.model, &call.body);
        let mut accounts = keys.spending.0.lock();
        // Read while nobody can enter: who has entered is counted here or there.
        let open = self.reserves.of(tenant);
        let account = accounts.entry(tenant).or_default();
        account.enter(now, open, amount, key.issued.monthly_budget)?;
        Ok(Some(Entering {
            spending: keys.spending.clone(),
            tenant,
            amount,
        }))
    }

    pub fn spent_this_month(&self, key: &Key) -> Spent {
        let Some(keys) = &self.keys else {
            return Spent::default();
        };
        let now = self.now();
        let mut accounts = keys.spending.0.lock();
        let account = accounts.entry(key.tenant).or_default();
        Spent {
            paid: account.paid(now),
            reckoned: account.reckoned(now),
            reserved: self.reserves.of(key.tenant),
        }
    }
}
