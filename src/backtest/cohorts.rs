//! Requests gathered into batches, as `policy::pack` decides.

use std::{collections::BTreeMap, time::Duration};

use super::{trace::Request, world::RequestIx};
use crate::{
    model::{
        attempt::Lane,
        id::{DestinationId, RequestId, RequestKey, TenantId},
        request::{Bucket, Cohort, Entry, Guarantee, OnLate},
        time::Timestamp,
    },
    policy::{
        limits::Rate,
        pack::{self, Bounds, Decision, Limits, Load, Pressure, Urgency, Waiting},
    },
};

/// The requests that may share a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub bucket: Bucket,
    pub model: u16,
    /// Work that nothing was promised for is kept apart from work that was.
    pub firm: bool,
}

impl Key {
    pub fn of(request: &Request, now: Timestamp, firm: bool, settings: &pack::Settings) -> Key {
        let slack = now.until(request.deadline);
        let width = settings.linger.max(slack.mul_f64(settings.bucket_share));
        Key {
            bucket: Bucket::of(request.deadline, width),
            model: request.model,
            firm,
        }
    }
}

pub struct Cohorts {
    settings: pack::Settings,
    queues: BTreeMap<Key, Queue>,
    creates: Rate,
}

#[derive(Default)]
struct Queue {
    waiting: Waiting,
    entries: Vec<(RequestIx, Entry)>,
}

impl Cohorts {
    pub fn new(settings: pack::Settings) -> Cohorts {
        let kept = 1.0 - settings.creates_reserve.clamp(0.0, 1.0);
        let creates = f64::from(settings.creates_per_hour) * kept;
        Cohorts {
            creates: Rate::of(creates as u32, Duration::from_secs(3600)),
            settings,
            queues: BTreeMap::new(),
        }
    }

    /// `waits_since` is older than now where the request waited before.
    pub fn add(&mut self, key: Key, index: RequestIx, request: &Request, waits_since: Timestamp) {
        let id = RequestId::new(waits_since, 0);
        let entry = Entry {
            key: RequestKey {
                tenant: TenantId([0; 16]),
                id,
            },
            cohort: Cohort {
                destination: DestinationId([0; 16]),
                on_late: OnLate::Rescue,
                guarantee: match key.firm {
                    true => Guarantee::Firm,
                    false => Guarantee::BestEffort,
                },
                bucket: key.bucket,
            },
            lane: Lane::Batch,
            deadline: request.deadline,
            line_bytes: request.bytes,
            inputs: 1,
        };
        let queue = self.queues.entry(key).or_default();
        queue.waiting.add(&entry);
        queue.entries.push((index, entry));
    }

    /// The requests that wait, by cohort.
    pub fn waiting(&self) -> impl Iterator<Item = (Key, &[(RequestIx, Entry)])> {
        (self.queues.iter()).map(|(key, queue)| (*key, queue.entries.as_slice()))
    }

    /// Takes a cohort out whole.
    pub fn remove(&mut self, key: &Key) -> Vec<RequestIx> {
        let queue = self.queues.remove(key).unwrap_or_default();
        queue.entries.into_iter().map(|(index, _)| index).collect()
    }

    /// The next batch that is ready, or when one will be.
    pub fn next(&mut self, now: Timestamp) -> Ready {
        let create_at = self.creates.ready_at();
        if self.queues.is_empty() {
            return Ready::Empty;
        } else if create_at > now {
            return Ready::At(create_at);
        }
        let mut until = Timestamp::MAX;
        let mut best: Option<(Urgency, Key)> = None;
        let bounds = Bounds {
            create_at,
            pressure: Pressure::default(),
            patience: Duration::ZERO,
            flush: false,
        };
        for (key, queue) in &self.queues {
            match pack::decide(&queue.waiting, now, &bounds, &self.settings) {
                Decision::Wait { until: at } => until = until.min(at),
                Decision::Pack { .. } => {
                    let one = (queue.waiting.urgency(key.bucket.start, now), *key);
                    best = Some(best.map_or(one, |best| best.min(one)));
                }
            }
        }
        match best {
            Some((_, key)) if self.creates.take(now) => Ready::Batch(key, self.fill(&key)),
            _ if until == Timestamp::MAX => Ready::Empty,
            _ => Ready::At(until),
        }
    }

    fn fill(&mut self, key: &Key) -> Vec<RequestIx> {
        let Some(queue) = self.queues.remove(key) else {
            return Vec::new();
        };
        let mut load = Load::default();
        let limits = Limits {
            settings: &self.settings,
            tokens: None,
        };
        let fits = |(_, entry): &&(RequestIx, Entry)| load.take(entry, 0, &limits);
        let taken = queue.entries.iter().take_while(fits).count();
        let (batch, rest) = queue.entries.split_at(taken);
        if !rest.is_empty() {
            let mut kept = Queue::default();
            for (index, entry) in rest {
                kept.waiting.add(entry);
                kept.entries.push((*index, *entry));
            }
            self.queues.insert(*key, kept);
        }
        batch.iter().map(|(index, _)| *index).collect()
    }
}

pub enum Ready {
    Batch(Key, Vec<RequestIx>),
    /// Nothing is ready before.
    At(Timestamp),
    Empty,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{backtest::tests::settings, model::money::Usd};

    #[test]
    fn a_cohort_goes_after_its_linger_and_no_faster_than_creates_allow() {
        let mut cohorts = Cohorts::new(pack::Settings {
            max_lines: 2,
            creates_per_hour: 40,
            ..settings().packing
        });
        let now = Timestamp::from_secs(1_000_000);
        let request = Request {
            arrival: now,
            deadline: now + Duration::from_secs(3600),
            model: 0,
            bytes: 100,
            standard: Usd::from_pico(2),
            cheap: Usd::from_pico(1),
        };
        let key = Key::of(&request, now, true, &settings().packing);
        cohorts.add(key, 0, &request, now);
        let ripe = now + Duration::from_secs(5);
        assert!(matches!(cohorts.next(now), Ready::At(at) if at == ripe));
        let batch = |cohorts: &mut Cohorts, at| match cohorts.next(at) {
            Ready::Batch(_, lines) => lines,
            Ready::At(_) => vec![99],
            Ready::Empty => vec![],
        };
        assert_eq!(batch(&mut cohorts, ripe), [0]);
        // 36 an hour, four of them at once; full is at two lines.
        for index in 1..10 {
            cohorts.add(key, index, &request, now);
        }
        assert_eq!(batch(&mut cohorts, ripe), [1, 2]);
        assert_eq!(batch(&mut cohorts, ripe), [3, 4]);
        assert_eq!(batch(&mut cohorts, ripe), [5, 6]);
        assert_eq!(batch(&mut cohorts, ripe), [99]);
        assert_eq!(batch(&mut cohorts, ripe + Duration::from_secs(100)), [7, 8]);
        let rest = cohorts.remove(&key);
        assert_eq!(rest, [9]);
        assert_eq!(batch(&mut cohorts, Timestamp::MAX), [] as [u32; 0]);
    }
}
