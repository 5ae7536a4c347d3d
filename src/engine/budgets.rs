//! The rescue budget at work: what each tenant's rescues have cost, what those on
//! their way may cost, and what does not fit any more.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use bytes::Bytes;
use parking_lot::Mutex;

use super::{Engine, live::Account};
use crate::{
    ledger,
    model::{
        attempt::Lane,
        batch::Batch,
        endpoint::Endpoint,
        id::{CredentialId, RequestKey, TenantId},
        money::Usd,
        request::{Entry, OnLate, Place, Request, Usage},
        time::Timestamp,
    },
    policy::budget::{Limits, Purse, Verdict, Window, midnight},
    ports::{LedgerEntry, StoreError},
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

/// What is on its way to be rescued, by tenant, as one turn of the rescuer counts
/// it. Empty where there is no budget.
#[derive(Default)]
pub(super) struct Plan(HashMap<TenantId, Usd>);

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
        [Window::Hour, Window::Day]
            .into_iter()
            .filter_map(view)
            .collect()
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

impl Engine {
    /// What was spent before we stopped.
    pub(super) async fn count_rescues(&self) -> Result<(), StoreError> {
        if !self.budgets.limits.is_bound() {
            return Ok(());
        }
        let now = self.now();
        let today = midnight(now.as_hours());
        let tenants: HashSet<TenantId> = {
            let summary = self.summary.lock();
            let destinations = summary.destinations.values();
            destinations.map(|destination| destination.tenant).collect()
        };
        for tenant in tenants {
            for (key, row) in self.store.ledger(tenant, today).await? {
                self.budgets.book(now, &LedgerEntry { key, row });
            }
        }
        Ok(())
    }

    /// Keeps money for a live call where it is a rescue and there is a budget.
    pub(super) fn reserve(
        &self,
        request: &Request,
        body: &Bytes,
    ) -> Result<Option<Reservation>, Verdict> {
        let budgets = &self.budgets;
        // Who would rather be late than pay more is live only where no batch takes
        // it: it has no other way.
        let has_a_choice = request.entry().is_rescue() && request.on_late == OnLate::Rescue;
        if !budgets.limits.is_bound() || !has_a_choice {
            return Ok(None);
        }
        let output = self.mean_output(request.credential, &request.model);
        let usage = ledger::expected_of(request.endpoint, body, output);
        let amount = self.live_price(&request.model, &usage);
        let reserved = budgets.reserve(request.key, self.now(), amount);
        reserved.map(Some)
    }

    /// Counts what is on its way to be rescued.
    pub(super) fn plan_rescues(&self) -> Plan {
        if !self.budgets.limits.is_bound() {
            return Plan::default();
        }
        let mut plan = Plan::default();
        let (live, wanted) = {
            let summary = self.summary.lock();
            (summary.live_rescues(), summary.wanted_back())
        };
        for (destination, lines) in live {
            let cost = self.price_of_lines(
                destination.credential,
                destination.endpoint,
                &destination.model,
                u64::try_from(lines.bytes).unwrap_or(0),
                u64::try_from(lines.count).unwrap_or(0),
            );
            plan.commit(destination.tenant, cost);
        }
        for batch in wanted {
            plan.commit(batch.tenant, self.price_of_batch(&batch));
        }
        plan
    }

    /// Lets a rescue of so much money go, or says when the budget is renewed.
    pub(super) fn afford(
        &self,
        plan: &mut Plan,
        tenant: TenantId,
        cost: Usd,
    ) -> Result<(), Timestamp> {
        if !self.budgets.limits.is_bound() {
            return Ok(());
        }
        self.could_afford(plan, tenant, cost)?;
        plan.commit(tenant, cost);
        Ok(())
    }

    /// The same, without letting it go.
    pub(super) fn could_afford(
        &self,
        plan: &Plan,
        tenant: TenantId,
        cost: Usd,
    ) -> Result<(), Timestamp> {
        let committed = plan.0.get(&tenant).copied().unwrap_or_default();
        self.budgets.fits(tenant, self.now(), committed, cost)
    }

    /// Those of `entries`, in their order, that the budget still covers, those that
    /// it does not, and when it is renewed.
    pub(super) fn affordable(
        &self,
        plan: &mut Plan,
        entries: Vec<Entry>,
    ) -> (Vec<Entry>, Vec<Entry>, Option<Timestamp>) {
        if !self.budgets.limits.is_bound() {
            return (entries, Vec::new(), None);
        }
        let now = self.now();
        let mut renewed = None;
        let (mut covered, mut rest) = (Vec::new(), Vec::new());
        for entry in entries {
            let cost = self.price_of_entry(&entry);
            let fits = match self.budgets.has_refused(&entry.key, now) {
                true => Err(Window::Hour.ends(now)),
                false => self.afford(plan, entry.key.tenant, cost),
            };
            match fits {
                Ok(()) => covered.push(entry),
                Err(until) => {
                    renewed = Some(renewed.map_or(until, |renewed| until.min(renewed)));
                    rest.push(entry);
                }
            }
        }
        (covered, rest, renewed)
    }

    pub(super) fn price_of_batch(&self, batch: &Batch) -> Usd {
        self.price_of_lines(
            batch.credential,
            batch.endpoint,
            &batch.model,
            batch.bytes,
            batch.lines.into(),
        )
    }

    /// A line of the batch, in the mean.
    pub(super) fn price_of_a_line(&self, batch: &Batch) -> Usd {
        self.price_of_lines(
            batch.credential,
            batch.endpoint,
            &batch.model,
            batch.bytes / u64::from(batch.lines.max(1)),
            1,
        )
    }

    fn price_of_entry(&self, entry: &Entry) -> Usd {
        let destination = {
            let summary = self.summary.lock();
            summary.destinations.get(&entry.cohort.destination).cloned()
        };
        destination.map_or(Usd::ZERO, |destination| {
            self.price_of_lines(
                destination.credential,
                destination.endpoint,
                &destination.model,
                entry.line_bytes.into(),
                1,
            )
        })
    }

    fn price_of_lines(
        &self,
        credential: CredentialId,
        endpoint: Endpoint,
        model: &str,
        bytes: u64,
        lines: u64,
    ) -> Usd {
        let output = self.mean_output(credential, model);
        let usage = ledger::expected(endpoint, bytes, lines, output);
        self.live_price(model, &usage)
    }

    fn mean_output(&self, credential: CredentialId, model: &str) -> Option<u64> {
        let model = model.into();
        self.scopes.output(&Account { credential, model })
    }

    fn live_price(&self, model: &str, usage: &Usage) -> Usd {
        let bill = self.prices.bill(model, Lane::Standard, usage);
        bill.map_or_else(|| self.prices.dearest(usage), |bill| bill.paid)
    }

    /// A rescue that the budget does not cover goes back to its cheap lane.
    pub(super) async fn back_to_its_lane(&self, entry: Entry) -> Result<(), StoreError> {
        let queue = Place::Queue(entry.cohort);
        self.relocate_all(&[entry], Place::Live, queue).await?;
        self.backoffs.forget(&entry.key);
        self.signals.packer.notify_one();
        Ok(())
    }

    /// Why a request is, or will be, late where its rescue is not paid for.
    pub(super) fn late_for_budget(&self, request: &Request, now: Timestamp) -> Option<String> {
        let due = self.settings.rescue.due(request.deadline);
        if request.on_late != OnLate::Rescue || !request.entry().is_rescue() || due > now {
            return None;
        }
        let window = self.budgets.exhausted(request.key.tenant, now)?;
        Some(format!(
            "stays cheap and may be late: the rescue budget of ${} a {} is spent until {} ({})",
            self.budgets.limits.of(window)?,
            window.as_str(),
            window.ends(now),
            request.reason
        ))
    }

    /// What a tenant's rescues may cost, and have cost. Empty where there is no
    /// bound.
    pub fn rescue_budget(&self, tenant: TenantId) -> Vec<BudgetView> {
        self.budgets.view(tenant, self.now())
    }

    /// Tenants whose rescues do not fit into their budget any more.
    pub fn rescue_budgets_spent(&self) -> usize {
        self.budgets.all_exhausted(self.now())
    }
}

impl Plan {
    fn commit(&mut self, tenant: TenantId, cost: Usd) {
        *self.0.entry(tenant).or_default() += cost;
    }
}
