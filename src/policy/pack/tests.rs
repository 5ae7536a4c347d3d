use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;

use super::*;
use crate::model::{
    attempt::Lane,
    id::{DestinationId, RequestId, RequestKey, TenantId},
    request::{Bucket, Cohort, Guarantee, OnLate},
};

pub fn settings() -> Settings {
    Settings {
        linger: Duration::from_secs(5),
        bucket_share: 0.05,
        max_lines: 50_000,
        max_bytes: 190_000_000,
        max_embedding_inputs: 50_000,
        max_parts: 64,
        creates_per_hour: 2_000,
        creates_reserve: 0.1,
        enqueued_tokens: BTreeMap::new(),
    }
}

pub fn cohort(number: u8) -> Cohort {
    Cohort {
        destination: DestinationId([number; 16]),
        on_late: OnLate::Rescue,
        guarantee: Guarantee::Firm,
        bucket: Bucket {
            start: Timestamp::from_secs(1_000_000),
            width_log2: 10,
        },
    }
}

fn entry(tenant: u8, number: u128, line_bytes: u32, inputs: u32) -> Entry {
    let key = RequestKey {
        tenant: TenantId([tenant; 16]),
        id: RequestId::from_bytes(number.to_be_bytes()),
    };
    Entry {
        key,
        cohort: cohort(tenant),
        lane: Lane::Batch,
        deadline: Timestamp::MAX,
        line_bytes,
        inputs,
    }
}

#[test]
fn who_has_waited_for_the_largest_share_of_its_time_goes_first() {
    let now = Timestamp::from_secs(100_000);
    let urgency = |waited, left| {
        let waiting = Waiting {
            oldest: now - Duration::from_secs(waited),
            ..Waiting::default()
        };
        waiting.urgency(now + Duration::from_secs(left), now)
    };
    for (first, then) in [
        // A tenth of a day and a hundredth of ten minutes.
        ((8640, 86_400), (6, 600)),
        ((60, 600), (60, 1200)),
        ((61, 600), (60, 600)),
        // It is due.
        ((5, 0), (600, 1200)),
        ((1, 86_400), (0, 300)),
    ] {
        let (one, other) = (urgency(first.0, first.1), urgency(then.0, then.1));
        assert!(one < other, "{first:?} {then:?}");
    }
    assert_eq!(urgency(5, 0), urgency(5, 1));
    assert_eq!(urgency(60, 600), urgency(120, 1200));
}

#[test]
fn when_a_cohort_is_packed() {
    let now = Timestamp::from_secs(1000);
    let waiting = |lines, oldest| Waiting {
        lines,
        bytes: 10,
        inputs: 1,
        oldest: Timestamp::from_secs(oldest),
        unseen: 0,
    };
    let (fresh, ripe, full) = (waiting(1, 999), waiting(1, 995), waiting(50_000, 999));
    let calm = Pressure::default();
    let polled = Pressure {
        calls: 0.8,
        throttle: 0,
    };
    let throttled = Pressure {
        calls: 0.0,
        throttle: 2,
    };
    // None where it is packed.
    for (waiting, create_at, flush, pressure, until) in [
        (fresh, 0, false, calm, Some(1004)),
        (ripe, 1002, false, calm, Some(1002)),
        (ripe, 0, false, calm, None),
        (full, 0, false, calm, None),
        (fresh, 0, true, calm, None),
        (ripe, 0, false, polled, Some(1020)),
        (full, 0, false, polled, None),
        (ripe, 0, false, throttled, Some(1015)),
        (
            self::Waiting { lines: 32, ..ripe },
            0,
            false,
            throttled,
            None,
        ),
        (ripe, 0, true, throttled, None),
    ] {
        let bounds = Bounds {
            create_at: Timestamp::from_secs(create_at),
            pressure,
            patience: Duration::from_secs(60),
            flush,
        };
        let told = format!("{waiting:?} {bounds:?}");
        match decide(&waiting, now, &bounds, &settings()) {
            Decision::Pack { .. } => assert_eq!(until, None, "{told}"),
            Decision::Wait { until: at } => {
                assert_eq!(Some(at), until.map(Timestamp::from_secs), "{told}");
            }
        }
    }
}

/// A provider with a limit, packed for by the policies together: whose turn it is,
/// what room there is, what a batch takes.
struct Play {
    settings: Settings,
    budget: Budget,
    turns: Turns,
    /// Each tenant's lines, oldest first.
    queues: BTreeMap<u8, VecDeque<(Entry, u64)>>,
    open: VecDeque<u64>,
    packed: Vec<(u8, Vec<Entry>)>,
    now: Timestamp,
}

impl Play {
    /// Packs what can be packed; false where nothing can.
    fn pack(&mut self) -> bool {
        let waiting = self.queues.iter().filter(|(_, queue)| !queue.is_empty());
        let waiting: Vec<_> = waiting.map(|(t, _)| (TenantId([*t; 16]), *t)).collect();
        let mut round = self.turns.round(waiting);
        let mut any = false;
        while let Some((id, tenant)) = self.turns.next(&mut round) {
            if !self.fill(tenant) {
                continue;
            }
            any = true;
            let rest = (!self.queues[&tenant].is_empty()).then_some(tenant);
            self.turns.served(&mut round, id, rest);
        }
        any
    }

    fn fill(&mut self, tenant: u8) -> bool {
        let enqueued = (!self.open.is_empty()).then(|| self.open.iter().sum());
        let tokens = match self.budget.room(&cohort(tenant), enqueued, self.now) {
            Room::Open => None,
            Room::Tokens(tokens) => Some(tokens),
            Room::Closed(_) => return false,
        };
        let limits = Limits {
            settings: &self.settings,
            tokens,
        };
        let queue = self.queues.get_mut(&tenant).unwrap();
        let mut load = Load::default();
        let mut lines = Vec::new();
        while let Some((entry, tokens)) = queue.front() {
            if !load.take(entry, *tokens, &limits) {
                break;
            }
            lines.extend(queue.pop_front().map(|(entry, _)| entry));
        }
        if lines.is_empty() {
            self.budget.keep_for(cohort(tenant));
            return false;
        }
        self.budget.keep_for_nobody();
        self.open.push_back(load.tokens);
        self.packed.push((tenant, lines));
        self.check(&load, enqueued);
        true
    }

    fn check(&self, load: &Load, enqueued: Option<u64>) {
        let (_, lines) = self.packed.last().unwrap();
        let bytes: u64 = lines.iter().map(|line| u64::from(line.line_bytes)).sum();
        let inputs: u64 = lines.iter().map(|line| u64::from(line.inputs)).sum();
        assert_eq!((load.bytes, load.inputs), (bytes, inputs));
        assert!(lines.len() as u32 <= self.settings.max_lines);
        let alone = lines.len() == 1;
        assert!(alone || bytes <= self.settings.max_bytes);
        assert!(alone || inputs <= self.settings.max_embedding_inputs);
        let limit = self.budget.limit().unwrap();
        let all = enqueued.unwrap_or(0) + load.tokens;
        let only = enqueued.is_none() && alone;
        assert!(all <= limit || only, "{all} of {limit}");
    }
}

proptest! {
    /// Nothing is lost, nothing stands twice, every limit holds, and everybody's
    /// first batch comes before anybody's second.
    #[test]
    fn packing_is_complete_within_limits_and_fair(
        lines in prop::collection::vec((0u8..4, 1u32..3000, 1u32..30, 1u64..900), 1..300),
        max_lines in 1u32..60,
        limit in 100u64..5_000,
    ) {
        let mut play = Play {
            settings: Settings {
                max_lines,
                max_bytes: 20_000,
                max_embedding_inputs: 200,
                ..settings()
            },
            budget: Budget::new(Some(limit)),
            turns: Turns::default(),
            queues: BTreeMap::new(),
            open: VecDeque::new(),
            packed: Vec::new(),
            now: Timestamp::from_secs(1_000_000),
        };
        let mut asked = BTreeSet::new();
        for (number, (tenant, bytes, inputs, tokens)) in lines.into_iter().enumerate() {
            let entry = entry(tenant, number as u128, bytes, inputs);
            asked.insert(entry.key);
            play.queues.entry(tenant).or_default().push_back((entry, tokens));
        }
        loop {
            while play.pack() {}
            if play.open.pop_front().is_none() {
                break;
            }
        }
        let packed: Vec<RequestKey> = play
            .packed
            .iter()
            .flat_map(|(_, lines)| lines.iter().map(|line| line.key))
            .collect();
        prop_assert_eq!(packed.len(), asked.len());
        prop_assert_eq!(packed.into_iter().collect::<BTreeSet<_>>(), asked);
        for tenant in play.queues.keys() {
            let first = play.packed.iter().position(|(of, _)| of == tenant).unwrap();
            for other in play.queues.keys() {
                let before = play.packed[..first].iter().filter(|(of, _)| of == other).count();
                prop_assert!(before <= 1, "{other} had {before} before {tenant} had one");
            }
        }
    }
}
