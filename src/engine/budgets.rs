//! The rescue budget at work: what each tenant's rescues have cost, what those on
//! their way may cost, and what does not fit any more.

mod line;
mod rescues;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use parking_lot::Mutex;

use self::line::{Line, Stirred};
pub(super) use self::rescues::Commitments;
use crate::{
    model::{
        id::{RequestKey, TenantId},
        ledger::{LedgerKey, LedgerRow},
        money::Usd,
        request::Entry,
        time::Timestamp,
    },
    policy::budget::{Limits, Purse, Verdict, Window},
};

/// Requests of a tenant that are remembered as too dear for what is left. With
/// more of them the budget counts as spent.
const REMEMBERED: usize = 1_000;

pub(super) struct Budgets {
    pub limits: Limits,
    tenants: Mutex<HashMap<TenantId, Tenant>>,
    stirred: Mutex<Stirred>,
}

#[derive(Default)]
struct Tenant {
    purse: Purse,
    /// Those that do not fit before others have ended.
    line: Line,
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
    /// It went ahead of one who waits.
    ahead: bool,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(tenant) = self.budgets.tenants.lock().get_mut(&self.tenant) {
            tenant.purse.release(self.amount, self.ahead);
        }
        self.budgets.stir(self.tenant);
    }
}

impl Budgets {
    pub fn new(limits: Limits) -> Budgets {
        Budgets {
            limits,
            tenants: Mutex::default(),
            stirred: Mutex::default(),
        }
    }

    /// Counts what a ledger entry that is durable says of rescues.
    pub fn book(&self, now: Timestamp, key: &LedgerKey, row: &LedgerRow) {
        let paid = row.rescue_paid;
        if self.limits.is_bound() && paid != Usd::ZERO {
            self.with(key.tenant, now, |tenant| {
                tenant.purse.book(now, key.hour, paid);
            });
        }
    }

    /// Keeps money for a rescue, or puts it in line where it fits once others have
    /// ended.
    fn reserve(
        self: &Arc<Self>,
        entry: &Entry,
        now: Timestamp,
        amount: Usd,
    ) -> Result<Reservation, Verdict> {
        let key = entry.key;
        let (verdict, ahead) = self.with(key.tenant, now, |tenant| {
            let first = tenant.line.first_before(entry);
            let verdict = tenant.purse.reserve(now, amount, first, &self.limits);
            match verdict {
                Verdict::AfterOthers => tenant.line.join(entry, amount),
                Verdict::Granted => {
                    tenant.line.leave(&key);
                }
                Verdict::Spent(window) => {
                    tenant.line.leave(&key);
                    tenant.remember(key, window.ends(now));
                }
            }
            (verdict, first.is_some())
        });
        match verdict {
            Verdict::Granted => Ok(self.reservation(key.tenant, amount, ahead)),
            Verdict::AfterOthers => Err(verdict),
            Verdict::Spent(_) => {
                // It may have been in others' way.
                self.stir(key.tenant);
                Err(verdict)
            }
        }
    }

    /// The same for one that is on its way.
    fn reserve_again(
        self: &Arc<Self>,
        tenant: TenantId,
        now: Timestamp,
        amount: Usd,
    ) -> Option<Reservation> {
        let verdict = self.with(tenant, now, |tenant| {
            tenant.purse.reserve(now, amount, None, &self.limits)
        });
        (verdict == Verdict::Granted).then(|| self.reservation(tenant, amount, false))
    }

    fn reservation(self: &Arc<Self>, tenant: TenantId, amount: Usd, ahead: bool) -> Reservation {
        Reservation {
            budgets: self.clone(),
            tenant,
            amount,
            ahead,
        }
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

    /// The window whose budget is spent or committed.
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
                reserved_usd = %tenant.purse.reserved(),
                limit_usd = %self.limits.of(window).unwrap_or_default(),
                renewed = %window.ends(now),
                "the rescue budget of the {} is spent or committed: what it does not cover stays \
                 in its cheap lane and may be late",
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
