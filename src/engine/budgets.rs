//! The rescue budget at work: what each tenant's rescues have cost, what those on
//! their way may cost, and what does not fit any more.

mod rescues;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use parking_lot::Mutex;

pub(super) use self::rescues::Commitments;
use crate::{
    model::{
        id::{RequestKey, TenantId},
        money::Usd,
        time::Timestamp,
    },
    policy::budget::{Limits, Purse, Verdict, Window},
    ports::LedgerEntry,
};

/// Requests of a tenant that are remembered as too dear for what is left. With
/// more of them the budget counts as spent.
const REMEMBERED: usize = 1_000;

pub(super) struct Budgets {
    pub limits: Limits,
    tenants: Mutex<HashMap<TenantId, Tenant>>,
}

#[derive(Default)]
struct Tenant {
    purse: Purse,
    /// Until one that is on its way has ended, nothing more is begun.
    waits: bool,
    /// Too dear for what is left, until the window ends.
    refused: HashSet<RequestKey>,
    refused_until: Timestamp,
}

/// What a tenant may spend and has spent.
#[derive(Clone, Debug, PartialEq)]
pub struct BudgetView {
    pub window: Window,
    pub limit: Usd,
    pub spent: Usd,
    /// Kept for calls that are on their way.
    pub reserved: Usd,
    pub renewed: Timestamp,
    /// Something did not fit into what is left.
    pub exhausted: bool,
}

/// Money that is kept for a call until this is dropped.
pub(super) struct Reservation {
    budgets: Arc<Budgets>,
    tenant: TenantId,
    pub amount: Usd,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(tenant) = self.budgets.tenants.lock().get_mut(&self.tenant) {
            tenant.purse.release(self.amount);
            tenant.waits = false;
        }
    }
}

impl Budgets {
    pub fn new(limits: Limits) -> Budgets {
        Budgets {
            limits,
            tenants: Mutex::default(),
        }
    }

    /// Counts what a ledger entry that is durable says of rescues.
    pub fn book(&self, now: Timestamp, entry: &LedgerEntry) {
        let paid = entry.row.rescue_paid;
        if self.limits.is_bound() && paid != Usd::ZERO {
            self.with(entry.key.tenant, now, |tenant| {
                tenant.purse.book(now, entry.key.hour, paid);
            });
        }
    }

    fn reserve(
        self: &Arc<Self>,
        key: RequestKey,
        now: Timestamp,
        amount: Usd,
    ) -> Result<Reservation, Verdict> {
        let verdict = self.with(key.tenant, now, |tenant| {
            let verdict = tenant.purse.reserve(now, amount, &self.limits);
            match verdict {
                Verdict::Granted => {}
                Verdict::AfterOthers => tenant.waits = true,
                Verdict::Spent(window) => tenant.remember(key, window.ends(now)),
            }
            verdict
        });
        match verdict {
            Verdict::Granted => Ok(Reservation {
                budgets: self.clone(),
                tenant: key.tenant,
                amount,
            }),
            verdict => Err(verdict),
        }
    }

    /// Whether rescues of the tenant wait for one that is on its way.
    pub fn waits(&self, tenant: TenantId) -> bool {
        let tenants = self.tenants.lock();
        tenants.get(&tenant).is_some_and(|tenant| tenant.waits)
    }

    /// Whether the request was too dear for what is left.
    pub fn has_refused(&self, key: &RequestKey, now: Timestamp) -> bool {
        let tenants = self.tenants.lock();
        let tenant = tenants.get(&key.tenant);
        tenant.is_some_and(|tenant| tenant.refused_until > now && tenant.refused.contains(key))
    }

    pub fn has_refused_any(&self, tenant: TenantId, now: Timestamp) -> bool {
        let tenants = self.tenants.lock();
        let tenant = tenants.get(&tenant);
        tenant.is_some_and(|tenant| tenant.refused_until > now && !tenant.refused.is_empty())
    }

    /// What the tenant's rescues may cost in the window at `due`. None where there is no
    /// bound.
    fn left_at(
        &self,
        tenant: TenantId,
        now: Timestamp,
        due: Timestamp,
        window: Window,
    ) -> Option<Usd> {
        let mut tenants = self.tenants.lock();
        let mut none_yet = Purse::default();
        let purse = tenants.get_mut(&tenant).map(|tenant| &mut tenant.purse);
        let purse = purse.unwrap_or(&mut none_yet);
        purse.left_at(now, due, window, &self.limits)
    }

    /// The window whose budget is spent.
    pub fn exhausted(&self, tenant: TenantId, now: Timestamp) -> Option<Window> {
        let mut tenants = self.tenants.lock();
        tenants.get_mut(&tenant)?.purse.refused(now)
    }

    /// Tenants whose rescues do not fit into their budget any more.
    pub fn all_exhausted(&self, now: Timestamp) -> usize {
        let mut tenants = self.tenants.lock();
        let exhausted = tenants.values_mut().filter_map(|it| it.purse.refused(now));
        exhausted.count()
    }

    fn fits(
        &self,
        tenant: TenantId,
        now: Timestamp,
        committed: Usd,
        more: Usd,
    ) -> Result<(), Timestamp> {
        self.with(tenant, now, |tenant| {
            if tenant.refused_until > now && tenant.refused.len() >= REMEMBERED {
                return Err(tenant.refused_until);
            }
            let fits = tenant.purse.fits(now, committed, more, &self.limits);
            fits.map_err(|window| window.ends(now))
        })
    }

    /// Does something with a tenant's purse, and says so, once, where that shows
    /// it empty.
    fn with<T>(&self, id: TenantId, now: Timestamp, change: impl FnOnce(&mut Tenant) -> T) -> T {
        let mut tenants = self.tenants.lock();
        let tenant = tenants.entry(id).or_default();
        let before = tenant.purse.refused(now);
        let result = change(tenant);
        let after = tenant.purse.refused(now);
        if let Some(window) = after
            && after != before
        {
            tracing::warn!(
                tenant = %id,
                spent_usd = %tenant.purse.spent(now, window),
                limit_usd = %self.limits.of(window).unwrap_or_default(),
                renewed = %window.ends(now),
                "the rescue budget of the {} is spent: what it does not cover stays in its \
                 cheap lane and may be late",
                window.as_str(),
            );
        }
        result
    }

    fn view(&self, id: TenantId, now: Timestamp) -> Vec<BudgetView> {
        let known = self.tenants.lock().get(&id).map(|it| it.purse);
        let mut purse = known.unwrap_or_default();
        let exhausted = purse.refused(now);
        let view = |window: Window| {
            Some(BudgetView {
                window,
                limit: self.limits.of(window)?,
                spent: purse.spent(now, window),
                reserved: purse.reserved(),
                renewed: window.ends(now),
                exhausted: exhausted == Some(window),
            })
        };
        Window::ALL.into_iter().filter_map(view).collect()
    }
}

impl Tenant {
    fn remember(&mut self, key: RequestKey, until: Timestamp) {
        if self.refused_until != until {
            self.refused.clear();
            self.refused_until = until;
        }
        if self.refused.len() < REMEMBERED {
            self.refused.insert(key);
        }
    }
}
