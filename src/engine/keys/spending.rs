//! What tenants of issued keys have paid this month, and what does not fit any more.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;

use super::{Key, Keys};
use crate::{
    engine::{Call, Engine},
    ledger,
    model::{id::TenantId, money::Usd, time::Timestamp},
    policy::allowance::{Account, Exceeded, Month},
    ports::{LedgerEntry, StoreError},
};

/// Of tenants that a key was issued for; others are not counted.
#[derive(Clone, Default)]
pub(in crate::engine) struct Spending(Arc<Mutex<HashMap<TenantId, Account>>>);

/// Money that is kept for a call until it is counted among the open ones, or turned
/// away.
pub(in crate::engine) struct Entering {
    spending: Spending,
    tenant: TenantId,
    amount: Usd,
}

impl Drop for Entering {
    fn drop(&mut self) {
        if let Some(account) = self.spending.0.lock().get_mut(&self.tenant) {
            account.entered(self.amount);
        }
    }
}

impl Spending {
    /// Counts what a ledger entry that is durable says was paid.
    pub fn book(&self, now: Timestamp, entry: &LedgerEntry) {
        if let Some(account) = self.0.lock().get_mut(&entry.key.tenant) {
            account.book(now, entry.key.hour, entry.row.paid);
        }
    }

    fn knows(&self, tenant: TenantId) -> bool {
        self.0.lock().contains_key(&tenant)
    }
}

impl Engine {
    /// What was paid before we started. A tenant without a key has no calls, so that
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
        for (key, row) in self.store.ledger(tenant, since).await? {
            account.book(now, key.hour, row.paid);
        }
        keys.spending.0.lock().insert(tenant, account);
        Ok(())
    }

    /// Keeps money for the call where its key has a budget.
    ///
    /// # Errors
    /// Where the call does not fit into it beside what was paid this month and what is
    /// open, at its ordinary price.
    pub(in crate::engine) fn enter_budget(
        &self,
        call: &Call,
    ) -> Result<Option<Entering>, Exceeded> {
        let (Some(keys), Some(key)) = (&self.keys, &call.caller.key) else {
            return Ok(None);
        };
        let Some(budget) = key.issued.monthly_budget else {
            return Ok(None);
        };
        let (now, tenant) = (self.now(), key.tenant);
        let output = self.mean_output(call.caller.credential, &call.model);
        let usage = ledger::expected_of(call.endpoint, &call.body, output);
        let amount = self.ordinary_price(&call.model, &usage);
        let mut accounts = keys.spending.0.lock();
        // Read while nobody can enter: who has entered is counted here or there.
        let open = self.price_of_open(tenant);
        let account = accounts.entry(tenant).or_default();
        account.enter(now, open, amount, budget)?;
        Ok(Some(Entering {
            spending: keys.spending.clone(),
            tenant,
            amount,
        }))
    }

    /// What the key's tenant has paid this month, and what is kept for its open
    /// requests.
    pub fn spent_this_month(&self, key: &Key) -> (Usd, Usd) {
        let Some(keys) = &self.keys else {
            return (Usd::ZERO, Usd::ZERO);
        };
        let now = self.now();
        let mut accounts = keys.spending.0.lock();
        let paid = accounts.entry(key.tenant).or_default().paid(now);
        (paid, self.price_of_open(key.tenant))
    }

    fn price_of_open(&self, tenant: TenantId) -> Usd {
        let open = self.summary.lock().open_lines_of(tenant);
        let count = |number: i64| u64::try_from(number).unwrap_or(0);
        let prices = open.iter().map(|(to, lines)| {
            let (bytes, lines) = (count(lines.bytes), count(lines.count));
            self.price_of_lines(to.credential, to.endpoint, &to.model, bytes, lines)
        });
        prices.sum()
    }
}
