//! Whose turn it is: tenants one after the other, and within a tenant what sorts
//! first, which is the most urgent or the earliest deadline. Nobody's first batch waits for more than
//! one of anybody else.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::model::id::TenantId;

/// When each of the tenants that wait was last served.
#[derive(Clone, Debug, Default)]
pub struct Turns {
    served: HashMap<TenantId, u64>,
    count: u64,
}

/// What waits at one instant, each tenant's in its own order.
#[derive(Clone, Debug)]
pub struct Round<T> {
    waiting: BTreeMap<TenantId, BTreeSet<T>>,
    /// Least recently served first, then whose head sorts first.
    order: BTreeSet<(u64, T, TenantId)>,
}

impl Turns {
    /// Tenants that do not wait are forgotten: who comes back is first.
    pub fn round<T: Ord + Copy>(
        &mut self,
        items: impl IntoIterator<Item = (TenantId, T)>,
    ) -> Round<T> {
        let mut waiting: BTreeMap<TenantId, BTreeSet<T>> = BTreeMap::new();
        for (tenant, item) in items {
            waiting.entry(tenant).or_default().insert(item);
        }
        self.served.retain(|tenant, _| waiting.contains_key(tenant));
        let heads = waiting
            .iter()
            .filter_map(|(tenant, items)| Some((self.last(*tenant), *items.first()?, *tenant)));
        Round {
            order: heads.collect(),
            waiting,
        }
    }

    /// Takes the next one out. Its tenant keeps its turn until it is served.
    pub fn next<T: Ord + Copy>(&self, round: &mut Round<T>) -> Option<(TenantId, T)> {
        let (last, item, tenant) = round.order.pop_first()?;
        let items = round.waiting.get_mut(&tenant)?;
        items.remove(&item);
        let head = items.first().map(|item| (last, *item, tenant));
        round.order.extend(head);
        Some((tenant, item))
    }

    /// The tenant has had its turn; what is left of it is put back.
    pub fn served<T: Ord + Copy>(
        &mut self,
        round: &mut Round<T>,
        tenant: TenantId,
        rest: Option<T>,
    ) {
        let items = round.waiting.entry(tenant).or_default();
        if let Some(head) = items.first() {
            round.order.remove(&(self.last(tenant), *head, tenant));
        }
        items.extend(rest);
        self.count += 1;
        self.served.insert(tenant, self.count);
        let head = items.first().map(|item| (self.count, *item, tenant));
        round.order.extend(head);
    }

    fn last(&self, tenant: TenantId) -> u64 {
        self.served.get(&tenant).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: TenantId = TenantId([1; 16]);
    const B: TenantId = TenantId([2; 16]);

    /// Serves each item as often as it wants, in at most `most` turns.
    fn play(
        turns: &mut Turns,
        wants: &[(TenantId, u32, u32)],
        most: usize,
    ) -> Vec<(TenantId, u32)> {
        let mut left: BTreeMap<(TenantId, u32), u32> = wants
            .iter()
            .map(|(tenant, item, times)| ((*tenant, *item), *times))
            .collect();
        let mut round = turns.round(left.keys().copied());
        let mut served = Vec::new();
        while served.len() < most
            && let Some((tenant, item)) = turns.next(&mut round)
        {
            served.push((tenant, item));
            let times = left.get_mut(&(tenant, item)).unwrap();
            *times -= 1;
            let rest = (*times > 0).then_some(item);
            turns.served(&mut round, tenant, rest);
        }
        served
    }

    #[test]
    fn tenants_take_turns_and_deadlines_go_first_within_one() {
        let mut turns = Turns::default();
        let served = play(&mut turns, &[(A, 5, 2), (A, 9, 1), (B, 7, 2)], 9);
        assert_eq!(served, [(A, 5), (B, 7), (A, 5), (B, 7), (A, 9)]);
    }

    #[test]
    fn a_newcomer_is_first_and_a_turn_outlives_its_round() {
        let mut turns = Turns::default();
        play(&mut turns, &[(A, 1, 1_000_000)], 7);
        let served = play(&mut turns, &[(A, 1, 1_000_000), (B, 9, 3)], 4);
        assert_eq!(served, [(B, 9), (A, 1), (B, 9), (A, 1)]);
        let served = play(&mut turns, &[(A, 1, 1_000_000), (B, 9, 1)], 2);
        assert_eq!(served, [(B, 9), (A, 1)]);
    }

    #[test]
    fn who_cannot_be_served_keeps_its_turn() {
        let mut turns = Turns::default();
        let mut round = turns.round([(A, 1), (A, 2), (B, 3)]);
        assert_eq!(turns.next(&mut round), Some((A, 1)), "it has to wait");
        assert_eq!(turns.next(&mut round), Some((A, 2)));
        turns.served(&mut round, A, None);
        assert_eq!(turns.next(&mut round), Some((B, 3)));
        assert_eq!(turns.next(&mut round), None);
    }

    proptest! {
        #[test]
        fn nobody_has_two_turns_while_another_waits(
            wants in prop::collection::btree_map((0u8..4, 0u32..9), 1u32..5, 1..30),
        ) {
            let wants: Vec<(TenantId, u32, u32)> = wants
                .into_iter()
                .map(|((tenant, item), times)| (TenantId([tenant; 16]), item, times))
                .collect();
            let served = play(&mut Turns::default(), &wants, usize::MAX);
            let total: u32 = wants.iter().map(|(.., times)| times).sum();
            prop_assert_eq!(served.len(), total as usize, "nothing lost, nothing twice");
            for (at, (tenant, _)) in served.iter().enumerate() {
                let since = served[..at].iter().rposition(|(one, _)| one == tenant);
                let between = &served[since.map_or(0, |since| since + 1)..at];
                let others: BTreeSet<_> = between.iter().map(|(one, _)| one).collect();
                prop_assert_eq!(others.len(), between.len(), "{:?}", served);
            }
        }
    }
}
