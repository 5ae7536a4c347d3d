//! Rescues that wait for money which is kept for others. Each waits by itself: what
//! fits goes ahead, but for what the first of them needs. Who is in line is asked again
//! when money has come back, and not at every turn.

use std::collections::{BTreeMap, HashSet};

use super::{Budgets, Tenant};
use crate::{
    model::{
        id::{RequestKey, TenantId},
        money::Usd,
        request::Entry,
        time::Timestamp,
    },
    policy::budget::{Limits, Verdict, Window},
};

/// Rescues of a tenant that wait one by one. Behind so many of them all of its rescues
/// wait: each was read to see that it does not fit.
const LONGEST: usize = 100;

/// What each of them needs, the earliest deadline first.
#[derive(Default)]
pub(super) struct Line(BTreeMap<(Timestamp, RequestKey), Usd>);

/// What may have let somebody in line go.
#[derive(Default)]
pub(super) struct Stirred {
    /// Money came back, or somebody left the line.
    tenants: HashSet<TenantId>,
    /// When a budget is renewed that somebody waits for.
    renewal: Option<Timestamp>,
}

impl Line {
    pub fn join(&mut self, entry: &Entry, amount: Usd) {
        self.0.insert((entry.deadline, entry.key), amount);
    }

    /// True where it was in line.
    pub fn leave(&mut self, key: &RequestKey) -> bool {
        let before = self.0.len();
        self.0.retain(|(_, waits), _| waits != key);
        self.0.len() < before
    }

    /// What the first needs, where that is due before this one.
    pub fn first_before(&self, entry: &Entry) -> Option<Usd> {
        let (at, amount) = self.0.first_key_value()?;
        (*at < (entry.deadline, entry.key)).then_some(*amount)
    }
}

impl Tenant {
    /// Those in line that would not have to wait any more, all of them together.
    fn called(&self, now: Timestamp, limits: &Limits) -> Vec<RequestKey> {
        let (mut purse, mut first) = (self.purse, None);
        let mut called = Vec::new();
        for ((_, key), amount) in &self.line.0 {
            match purse.reserve(now, *amount, first, limits) {
                Verdict::AfterOthers => first = first.or(Some(*amount)),
                // Told so, it goes back to its lane.
                Verdict::Granted | Verdict::Spent(_) => called.push(*key),
            }
        }
        called
    }
}

impl Budgets {
    /// Whether so many rescues of the tenant wait for money that the others wait
    /// behind them.
    pub fn line_is_full(&self, tenant: TenantId) -> bool {
        let tenants = self.tenants.lock();
        let tenant = tenants.get(&tenant);
        tenant.is_some_and(|tenant| tenant.line.0.len() >= LONGEST)
    }

    /// Those that wait no more, and when the budget is renewed for those that do.
    pub fn called(&self, now: Timestamp) -> (Vec<RequestKey>, Option<Timestamp>) {
        let tenants = self.tenants.lock();
        let mut stirred = self.stirred.lock();
        if stirred.renewal.is_some_and(|at| at <= now) {
            stirred.renewal = None;
            stirred.tenants.extend(tenants.keys());
        }
        let mut called = Vec::new();
        for id in std::mem::take(&mut stirred.tenants) {
            if let Some(tenant) = tenants.get(&id)
                && !tenant.line.0.is_empty()
            {
                called.extend(tenant.called(now, &self.limits));
                stirred.renewal = Some(Window::Hour.ends(now));
            }
        }
        (called, stirred.renewal)
    }

    /// Keeps no place for a request that does not wait any more. True where it had
    /// one.
    pub fn forget(&self, key: &RequestKey) -> bool {
        let mut tenants = self.tenants.lock();
        let tenant = tenants.get_mut(&key.tenant);
        let waited = tenant.is_some_and(|tenant| tenant.line.leave(key));
        drop(tenants);
        if waited {
            self.stir(key.tenant);
        }
        waited
    }

    /// Somebody in line may be able to go. Told once who has joined it can be called.
    pub fn stir(&self, tenant: TenantId) {
        self.stirred.lock().tenants.insert(tenant);
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;
    use crate::model::{
        attempt::Lane,
        id::{DestinationId, RequestId},
        request::{Bucket, Cohort, Guarantee, OnLate},
    };

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    fn due(seconds: u64) -> Entry {
        let deadline = NOW + Duration::from_secs(seconds);
        Entry {
            key: RequestKey {
                tenant: TenantId([1; 16]),
                id: RequestId::new(deadline, 0),
            },
            cohort: Cohort {
                destination: DestinationId([2; 16]),
                on_late: OnLate::Rescue,
                guarantee: Guarantee::Firm,
                bucket: Bucket::of(deadline, Duration::from_secs(1)),
            },
            lane: Lane::Batch,
            deadline,
            line_bytes: 1,
            inputs: 1,
        }
    }

    fn budgets(limit: i128) -> Arc<Budgets> {
        Arc::new(Budgets::new(Limits {
            per_hour: None,
            per_day: Some(Usd::from_pico(limit)),
        }))
    }

    fn usd(pico: i128) -> Usd {
        Usd::from_pico(pico)
    }

    #[test]
    fn a_stream_of_cheap_ones_does_not_keep_the_dear_one_waiting() {
        let budgets = budgets(100);
        let reserve = |due: &Entry, amount| budgets.reserve(due, NOW, usd(amount));
        let mut flying: Vec<_> = (0..9).map(|n| reserve(&due(n), 10).unwrap()).collect();
        let dear = due(10);
        assert_eq!(reserve(&dear, 40).err(), Some(Verdict::AfterOthers));
        for n in 11.. {
            // One ends, two come.
            drop(flying.remove(0));
            flying.extend(
                [n, n + 1000]
                    .into_iter()
                    .filter_map(|n| reserve(&due(n), 10).ok()),
            );
            let (called, _) = budgets.called(NOW);
            if called.contains(&dear.key) {
                break;
            }
            assert!(n < 30, "{} on their way", flying.len());
        }
        assert!(flying.len() >= 5, "the money of the others was made use of");
        assert!(reserve(&dear, 40).is_ok());
    }

    #[test]
    fn who_is_in_line_is_called_when_its_money_is_there_and_not_before() {
        let budgets = budgets(100);
        let reserve = |due: &Entry, amount| budgets.reserve(due, NOW, usd(amount));
        let (long, short) = (reserve(&due(1), 60).unwrap(), reserve(&due(2), 30).unwrap());
        let waiting = [due(3), due(4), due(5)];
        for (entry, amount) in waiting.iter().zip([50, 40, 15]) {
            assert_eq!(reserve(entry, amount).err(), Some(Verdict::AfterOthers));
        }
        let called = || budgets.called(NOW).0;
        assert_eq!(called(), []);
        drop(short);
        // Ahead of the first there is room for one of the others, the next in line.
        assert_eq!(called(), [waiting[1].key]);
        let ahead = reserve(&waiting[1], 40).unwrap();
        assert_eq!(called(), [], "nothing came back");
        drop(long);
        assert_eq!(called(), [waiting[0].key]);
        assert!(budgets.forget(&waiting[0].key), "its caller cancelled");
        assert!(!budgets.forget(&waiting[0].key));
        assert_eq!(called(), [waiting[2].key]);
        assert_eq!(budgets.called(NOW).1, Some(Window::Hour.ends(NOW)));
        drop(ahead);
    }

    #[test]
    fn behind_many_all_wait() {
        let budgets = budgets(100);
        let tenant = due(0).key.tenant;
        let _all = budgets.reserve(&due(0), NOW, usd(100)).unwrap();
        for n in 1..=LONGEST as u64 {
            assert!(!budgets.line_is_full(tenant));
            assert!(budgets.reserve(&due(n), NOW, usd(1)).is_err());
        }
        assert!(budgets.line_is_full(tenant));
    }
}
