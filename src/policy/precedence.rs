//! Who goes first where live calls are short. What was promised, by its deadline. Then
//! what can still be in time, by its deadline. What is late already makes way for that,
//! and is served in turns by tenant: who asks for more than can be done is late by
//! itself, and makes nobody else late. One call of each tenant goes on all the same.

use std::collections::HashMap;

use crate::model::{
    id::TenantId,
    request::{Entry, Guarantee, LiveQueue},
    time::Timestamp,
};

/// Sorts before whatever goes later. Within a queue it never sorts what is due later
/// first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Precedence {
    guarantee: Guarantee,
    /// Calls of its tenant that go before it, where it is late or waits behind one that
    /// is.
    turn: usize,
    deadline: Timestamp,
}

/// Of each of `entries`, which are in order of their deadlines. `under_way`: the calls
/// that each tenant has on their way.
pub fn precedences<'a>(
    entries: impl IntoIterator<Item = &'a Entry>,
    now: Timestamp,
    under_way: &HashMap<TenantId, usize>,
) -> Vec<Precedence> {
    let mut next_turn = under_way.clone();
    let mut last_turn: HashMap<LiveQueue, usize> = HashMap::new();
    let of = |entry: &Entry| {
        let guarantee = entry.cohort.guarantee;
        let turn = match guarantee {
            Guarantee::Firm => 0,
            Guarantee::BestEffort => {
                let last = last_turn.entry(entry.live_queue()).or_default();
                if entry.deadline <= now {
                    let next = next_turn.entry(entry.key.tenant).or_default();
                    *last = *next;
                    *next += 1;
                }
                *last
            }
        };
        Precedence {
            guarantee,
            turn,
            deadline: entry.deadline,
        }
    };
    entries.into_iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::model::{
        attempt::Lane,
        id::{DestinationId, RequestId, RequestKey},
        request::{Bucket, Cohort, OnLate},
    };

    const NOW: Timestamp = Timestamp::from_secs(1_000);

    /// Of a tenant, in its queue of this number, due in so many seconds from 1,000
    /// before now on.
    fn entry(tenant: u8, queue: u8, guarantee: Guarantee, due: u64) -> Entry {
        let deadline = Timestamp::from_secs(due);
        Entry {
            key: RequestKey {
                tenant: TenantId([tenant; 16]),
                id: RequestId::MIN,
            },
            cohort: Cohort {
                destination: DestinationId([tenant * 16 + queue; 16]),
                on_late: OnLate::Rescue,
                guarantee,
                bucket: Bucket::of(deadline, Duration::from_secs(1)),
            },
            lane: Lane::Standard,
            deadline,
            line_bytes: 1,
            inputs: 1,
        }
    }

    fn sorted(mut entries: Vec<Entry>, under_way: &[(u8, usize)]) -> Vec<Entry> {
        entries.sort_by_key(|entry| entry.deadline);
        let under_way = under_way.iter();
        let under_way = under_way
            .map(|(tenant, calls)| (TenantId([*tenant; 16]), *calls))
            .collect();
        let order = precedences(&entries, NOW, &under_way);
        let mut both: Vec<_> = order.into_iter().zip(entries).collect();
        both.sort_by_key(|(precedence, _)| *precedence);
        both.into_iter().map(|(_, entry)| entry).collect()
    }

    #[test]
    fn the_late_make_way_and_take_turns() {
        use Guarantee::{BestEffort as Maybe, Firm};
        let all = |due: &[(u8, Guarantee, u64)]| -> Vec<Entry> {
            let due = due.iter();
            due.map(|(tenant, guarantee, due)| entry(*tenant, 0, *guarantee, *due))
                .collect()
        };
        for (what, waiting, under_way, first) in [
            (
                "by deadline",
                &[(1, Maybe, 1300), (2, Maybe, 1200), (1, Maybe, 1100)][..],
                &[][..],
                &[1100, 1200, 1300][..],
            ),
            (
                "what was promised goes first",
                &[(1, Maybe, 1100), (2, Firm, 1300), (3, Maybe, 900)],
                &[],
                &[1300, 900, 1100],
            ),
            (
                "one of the late goes on, the rest makes way",
                &[(1, Maybe, 900), (1, Maybe, 901), (2, Maybe, 1500)],
                &[],
                &[900, 1500, 901],
            ),
            (
                "it has one on its way",
                &[(1, Maybe, 900), (1, Maybe, 901), (2, Maybe, 1500)],
                &[(1, 1)],
                &[1500, 900, 901],
            ),
            (
                "turns",
                &[
                    (1, Maybe, 900),
                    (1, Maybe, 901),
                    (1, Maybe, 902),
                    (2, Maybe, 950),
                    (2, Maybe, 951),
                ],
                &[],
                &[900, 950, 901, 951, 902],
            ),
            (
                "who has most on their way comes last",
                &[
                    (1, Maybe, 900),
                    (1, Maybe, 901),
                    (2, Maybe, 950),
                    (2, Maybe, 951),
                ],
                &[(1, 2)],
                &[950, 951, 900, 901],
            ),
            (
                "what waits behind the late in one queue stays behind them",
                &[(1, Maybe, 900), (1, Maybe, 901), (1, Maybe, 1100)],
                &[(1, 1)],
                &[900, 901, 1100],
            ),
        ] {
            let order = sorted(all(waiting), under_way);
            let due: Vec<u64> = order.iter().map(|it| it.deadline.as_secs()).collect();
            assert_eq!(due, first, "{what}");
        }
    }

    fn waiting() -> impl Strategy<Value = Vec<Entry>> {
        let guarantee = prop_oneof![Just(Guarantee::Firm), Just(Guarantee::BestEffort)];
        let one = (1..4u8, 0..2u8, guarantee, 500..1500u64);
        let one =
            one.prop_map(|(tenant, queue, guarantee, due)| entry(tenant, queue, guarantee, due));
        prop::collection::vec(one, 0..40)
    }

    proptest! {
        #[test]
        fn it_holds_for_all(waiting in waiting(), calls in prop::array::uniform3(0..5usize)) {
            let under_way = [(1, calls[0]), (2, calls[1]), (3, calls[2])];
            let order = sorted(waiting, &under_way);
            for (at, entry) in order.iter().enumerate() {
                for later in &order[at + 1..] {
                    prop_assert!(entry.cohort.guarantee <= later.cohort.guarantee);
                    if entry.live_queue() == later.live_queue() {
                        prop_assert!(entry.deadline <= later.deadline, "a queue keeps its order");
                    }
                }
            }
            // Who is in time with all that it asks for waits behind no more of anybody
            // else's late calls than one.
            let late = |entry: &Entry| {
                entry.cohort.guarantee == Guarantee::BestEffort && entry.deadline <= NOW
            };
            for (at, entry) in order.iter().enumerate() {
                let tenant = entry.key.tenant;
                if order.iter().any(|it| it.key.tenant == tenant && late(it)) {
                    continue;
                }
                let mut before: HashMap<TenantId, usize> = HashMap::new();
                for other in order[..at].iter().filter(|it| late(it)) {
                    *before.entry(other.key.tenant).or_default() += 1;
                }
                prop_assert!(before.values().all(|late| *late <= 1), "{before:?}");
            }
        }
    }
}
