//! What a rescue is expected to cost, and whether the budget covers it.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;

use super::{BudgetView, Reservation};
use crate::{
    engine::{Engine, scope::Account},
    ledger,
    model::{
        attempt::Lane,
        batch::Batch,
        endpoint::Endpoint,
        id::{CredentialId, RequestKey, TenantId},
        money::Usd,
        request::{Destination, Entry, OnLate, Place, Request, Usage},
        time::Timestamp,
    },
    policy::budget::{Verdict, Window, midnight},
    ports::{LedgerEntry, LedgerRows, StoreError},
};

/// What is on its way to be rescued, by tenant, as one turn of the rescuer counts
/// it. Empty where there is no budget.
#[derive(Default)]
pub(in crate::engine) struct Commitments(HashMap<TenantId, Usd>);

impl Engine {
    /// What was spent before we stopped.
    pub(in crate::engine) async fn count_rescues(&self) -> Result<(), StoreError> {
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
            let rows = LedgerRows::of_tenant(tenant, today);
            self.fold_ledger(&rows, |key, row| self.budgets.book(now, key, row))
                .await?;
        }
        Ok(())
    }

    /// Counts what a ledger entry that is durable says was paid.
    pub(in crate::engine) fn book(&self, entry: &LedgerEntry) {
        let now = self.now();
        self.metrics.money.booked(entry.key.lane, &entry.row);
        self.budgets.book(now, &entry.key, &entry.row);
        if let Some(keys) = &self.keys {
            keys.spending().book(now, entry);
        }
    }

    /// Keeps money for a call in this lane where it is a rescue and there is a budget.
    pub(in crate::engine) fn reserve(
        &self,
        request: &Request,
        body: &Bytes,
        lane: Lane,
    ) -> Result<Option<Reservation>, Verdict> {
        let budgets = &self.budgets;
        // Who would rather be late than pay more is live only where no batch takes
        // it: it has no other way.
        let entry = request.entry();
        let has_a_choice = entry.is_rescue() && request.on_late == OnLate::Rescue;
        if !budgets.limits.is_bound() || !has_a_choice {
            return Ok(None);
        }
        let output = self.mean_output(request.credential, &request.model);
        let usage = ledger::expected_of(request.endpoint, body, output);
        let amount = self.price_in(lane, &request.model, &usage);
        budgets.reserve(&entry, self.now(), amount).map(Some)
    }

    /// Keeps money again for a call that was open when we stopped.
    pub(in crate::engine) fn reserve_again(
        &self,
        key: RequestKey,
        amount: Usd,
    ) -> Option<Reservation> {
        self.budgets.reserve_again(key.tenant, self.now(), amount)
    }

    /// Whether the budget covers the rescue of one more request that is due then beside
    /// that of all that was promised for the same time: what it does not cover cannot be
    /// promised.
    pub(in crate::engine) fn covers(
        &self,
        destination: &Destination,
        line_bytes: u32,
        due: Timestamp,
    ) -> bool {
        let (now, tenant) = (self.now(), destination.tenant);
        let price = |destination: &Destination, bytes: u64, lines: u64| {
            let Destination {
                credential,
                endpoint,
                model,
                ..
            } = destination;
            self.price_of_lines(*credential, *endpoint, model, bytes, lines)
        };
        Window::ALL.into_iter().all(|window| {
            let Some(left) = self.budgets.left_at(tenant, now, due, window) else {
                return true;
            };
            let promised = {
                let summary = self.summary.lock();
                summary.firm_of(tenant, window.begins(due)..window.ends(due))
            };
            let promised = promised.iter();
            let promised = promised.map(|(to, lines)| {
                let count = |number: i64| u64::try_from(number).unwrap_or(0);
                price(to, count(lines.bytes), count(lines.count))
            });
            promised.sum::<Usd>() + price(destination, line_bytes.into(), 1) <= left
        })
    }

    /// Counts what is on its way to be rescued.
    pub(in crate::engine) fn plan_rescues(&self) -> Commitments {
        if !self.budgets.limits.is_bound() {
            return Commitments::default();
        }
        let mut plan = Commitments::default();
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
    pub(in crate::engine) fn afford(
        &self,
        plan: &mut Commitments,
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
    pub(in crate::engine) fn could_afford(
        &self,
        plan: &Commitments,
        tenant: TenantId,
        cost: Usd,
    ) -> Result<(), Timestamp> {
        let committed = plan.0.get(&tenant).copied().unwrap_or_default();
        self.budgets.fits(tenant, self.now(), committed, cost)
    }

    /// Those of `entries`, in their order, that the budget still covers, those that
    /// it does not, and when it is renewed.
    pub(in crate::engine) fn affordable(
        &self,
        plan: &mut Commitments,
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

    pub(in crate::engine) fn price_of_batch(&self, batch: &Batch) -> Usd {
        self.price_of_lines(
            batch.credential,
            batch.endpoint,
            &batch.model,
            batch.bytes,
            batch.lines.into(),
        )
    }

    /// A line of the batch, in the mean.
    pub(in crate::engine) fn price_of_a_line(&self, batch: &Batch) -> Usd {
        self.price_of_lines(
            batch.credential,
            batch.endpoint,
            &batch.model,
            batch.bytes / u64::from(batch.lines.max(1)),
            1,
        )
    }

    pub(in crate::engine) fn price_of_entry(&self, entry: &Entry) -> Usd {
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

    pub(in crate::engine) fn price_of_lines(
        &self,
        credential: CredentialId,
        endpoint: Endpoint,
        model: &str,
        bytes: u64,
        lines: u64,
    ) -> Usd {
        let output = self.mean_output(credential, model);
        let usage = ledger::expected(endpoint, bytes, lines, output);
        self.ordinary_price(model, &usage)
    }

    pub(in crate::engine) fn mean_output(
        &self,
        credential: CredentialId,
        model: &str,
    ) -> Option<u64> {
        let model = model.into();
        let scope = self.organizations.scope(&Account { credential, model });
        self.scopes.output(&scope)
    }

    pub(in crate::engine) fn ordinary_price(&self, model: &str, usage: &Usage) -> Usd {
        self.price_in(Lane::Standard, model, usage)
    }

    fn price_in(&self, lane: Lane, model: &str, usage: &Usage) -> Usd {
        let bill = self.prices.bill(model, lane, usage);
        bill.map_or_else(|| self.prices.ordinary(model, usage), |bill| bill.paid)
    }

    /// A rescue that the budget does not cover goes back to its cheap lane. False, and
    /// nothing moved, while a step of the batch that it was taken out of is in hand: what
    /// is left in that may have been read already, and be moved before it ends.
    pub(in crate::engine) async fn back_to_its_lane(
        &self,
        entry: Entry,
    ) -> Result<bool, StoreError> {
        let home = self.summary.lock().taken_out_of(&entry.key);
        let in_hand = home.map(|batch| self.inflight.batches.begin(batch));
        if matches!(in_hand, Some(None)) {
            return Ok(false);
        }
        // It may have ended before it was in hand.
        let back = self.summary.lock().back_from_live(&entry);
        let moved = self.relocate_all(&[entry], Place::Live, back).await;
        if let (Err(_), Place::Line(batch)) = (&moved, back) {
            self.summary.lock().overtake(batch, &[entry]);
        }
        moved?;
        drop(in_hand);
        self.backoffs.forget(&entry.key);
        // Whoever wanted the batch meanwhile has passed it by.
        for signal in [
            &self.signals.packer,
            &self.signals.submitter,
            &self.signals.watcher,
        ] {
            signal.notify_one();
        }
        Ok(true)
    }

    /// Why a request is, or will be, late where its rescue is not paid for.
    pub(in crate::engine) fn late_for_budget(
        &self,
        request: &Request,
        now: Timestamp,
    ) -> Option<String> {
        let due = request.deadline - self.settings.rescue.reserve;
        if request.on_late != OnLate::Rescue || !request.entry().is_rescue() || due > now {
            return None;
        }
        let window = self.budgets.exhausted(request.key.tenant, now)?;
        Some(format!(
            "stays cheap and may be late: the rescue budget of ${} per {} is spent or committed until {} ({})",
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

impl Commitments {
    fn commit(&mut self, tenant: TenantId, cost: Usd) {
        *self.0.entry(tenant).or_default() += cost;
    }
}
