//! What calls without a deadline would have saved and missed with one.
//!
//! The edge tells of each answer through a bounded queue and never waits for it.
//! One task looks there now and then, so that nobody has to wake it; it meters the
//! answers, asks the plan, and writes the sums down.

mod excerpt;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::sync::{
    mpsc::{self, error::TrySendError},
    oneshot,
};

use crate::{
    ledger::{Metered, undated},
    model::{
        attempt::Lane,
        endpoint::Endpoint,
        id::TenantId,
        money::Usd,
        shadow::{Estimate, ShadowKey, ShadowRow},
        time::Timestamp,
    },
    policy::{plan::Choice, rescue},
    ports::{Credential, StoreError},
};

pub use self::excerpt::Excerpt;
use super::{Caller, Engine, scope::ScopeKey};

/// A call that passed through and was answered with success.
pub struct Passed {
    pub credential: Credential,
    pub endpoint: Endpoint,
    pub streamed: bool,
    /// None where the answer was not seen to its end, or cannot be read.
    pub answer: Option<Excerpt>,
}

/// Told and not yet read; more are counted as unread.
const QUEUE: usize = 8192;
/// Between two looks into the queue.
const PAUSE: Duration = Duration::from_millis(50);
/// Answers read before other tasks get their turn.
const TURN: usize = 64;
/// Between two writes: what a killed process forgets.
const WRITE: Duration = Duration::from_secs(30);
/// Days that are reported; older ones are forgotten.
const DAYS: u32 = 92;
/// Expected shares are rounded to whole parts of this.
const MILLION: u32 = 1_000_000;

pub(super) struct Shadow {
    deadline: Duration,
    told: mpsc::Sender<Passed>,
    asked: mpsc::Sender<oneshot::Sender<()>>,
    sums: Mutex<BTreeMap<ShadowKey, Sum>>,
    kept: excerpt::Kept,
}

#[derive(Default)]
struct Sum {
    row: ShadowRow,
    /// Since it was last written.
    changed: bool,
}

/// The task's ends of the queues.
pub(super) struct Inbox {
    told: mpsc::Receiver<Passed>,
    asked: mpsc::Receiver<oneshot::Sender<()>>,
}

impl Shadow {
    pub fn new(deadline: Duration) -> (Shadow, Inbox) {
        let (told, told_inbox) = mpsc::channel(QUEUE);
        let (asked, asked_inbox) = mpsc::channel(TURN);
        let shadow = Shadow {
            deadline,
            told,
            asked,
            sums: Mutex::default(),
            kept: excerpt::Kept::default(),
        };
        let inbox = Inbox {
            told: told_inbox,
            asked: asked_inbox,
        };
        (shadow, inbox)
    }

    fn add(&self, key: ShadowKey, row: &ShadowRow) {
        let mut sums = self.sums.lock();
        let sum = sums.entry(key).or_default();
        sum.row.add(row);
        sum.changed = true;
    }

    fn key(&self, caller: &Caller, now: Timestamp, model: Option<String>) -> ShadowKey {
        ShadowKey {
            tenant: caller.tenant,
            day: day(now),
            deadline: self.deadline,
            model,
        }
    }
}

impl Engine {
    /// Where the end of an answer is kept while it passes through. None where
    /// nothing is counted.
    pub fn excerpt(&self, streamed: bool) -> Option<Excerpt> {
        let shadow = self.shadow.as_ref()?;
        Some(Excerpt::new(streamed, shadow.kept.clone()))
    }

    /// Told by the edge when an answer has passed. Never waits.
    pub fn passed(&self, passed: Passed) {
        let Some(shadow) = &self.shadow else { return };
        match shadow.told.try_send(passed) {
            Ok(()) => {}
            Err(TrySendError::Full(passed)) => {
                let (row, caller) = (unread(passed.streamed), self.caller(passed.credential));
                shadow.add(shadow.key(&caller, self.now(), None), &row);
            }
            Err(TrySendError::Closed(_)) => tracing::debug!("a call passed while stopping"),
        }
    }

    /// The deadline that is reckoned with, and the sums for it, of one tenant or of
    /// all. Everything told before is in them. None where nothing is counted.
    pub async fn shadow(
        &self,
        tenant: Option<TenantId>,
    ) -> Option<(Duration, Vec<(ShadowKey, ShadowRow)>)> {
        let shadow = self.shadow.as_ref()?;
        let (done, read) = oneshot::channel();
        // Neither is there any more when the process stops: the sums are final then.
        if shadow.asked.send(done).await.is_err() || read.await.is_err() {
            tracing::debug!("asked while stopping");
        }
        let sums = shadow.sums.lock();
        let rows = sums.iter().filter(|(key, _)| {
            key.deadline == shadow.deadline && tenant.is_none_or(|tenant| key.tenant == tenant)
        });
        let rows = rows.map(|(key, sum)| (key.clone(), sum.row.clone()));
        Some((shadow.deadline, rows.collect()))
    }

    /// Reads back the sums, and goes on with them.
    pub(super) async fn watch_passed(self: &Arc<Self>, inbox: Inbox) -> Result<(), StoreError> {
        let Some(shadow) = &self.shadow else {
            return Ok(());
        };
        let rows = self.store.shadow().await?.into_iter();
        *shadow.sums.lock() = rows
            .map(|(key, row)| {
                let changed = false;
                (key, Sum { row, changed })
            })
            .collect();
        let engine = self.clone();
        self.tasks
            .spawn(async move { engine.read_all_passed(inbox).await });
        Ok(())
    }

    async fn read_all_passed(&self, mut inbox: Inbox) {
        let mut written = self.now();
        loop {
            let asked = tokio::select! {
                () = self.stop.cancelled() => break,
                asked = inbox.asked.recv() => asked,
                () = tokio::time::sleep(PAUSE) => None,
            };
            self.read_passed(&mut inbox).await;
            if let Some(asked) = asked
                && asked.send(()).is_err()
            {
                tracing::debug!("who asked for the shadow sums has left");
            }
            let now = self.now();
            if written + WRITE <= now {
                written = now;
                self.write_shadow().await;
            }
        }
        self.read_passed(&mut inbox).await;
        self.write_shadow().await;
    }

    /// Reads what stands in the queue.
    async fn read_passed(&self, inbox: &mut Inbox) {
        for count in 1..=QUEUE {
            let Ok(passed) = inbox.told.try_recv() else {
                return;
            };
            self.count(passed);
            if count % TURN == 0 {
                tokio::task::yield_now().await;
            }
        }
    }

    fn count(&self, passed: Passed) {
        let Some(shadow) = &self.shadow else { return };
        let caller = self.caller(passed.credential);
        let metered = passed.answer.map(|answer| answer.read());
        let metered = metered.unwrap_or_default();
        let model = metered.model.as_deref();
        let model = model.map(|model| undated(model).unwrap_or(model).to_owned());
        let mut row = unread(passed.streamed);
        if metered.known
            && let Some(model) = &model
        {
            row.unread = 0;
            let scope = ScopeKey {
                credential: caller.credential,
                model: model.clone(),
            };
            let sum = match passed.streamed {
                true => &mut row.streams,
                false => &mut row.plain,
            };
            match self.estimate(&scope, passed.endpoint, shadow.deadline, &metered) {
                Some(estimate) => *sum = estimate,
                None => row.unpriced = 1,
            }
        }
        shadow.add(shadow.key(&caller, self.now(), model), &row);
    }

    /// What a call did cost, and what it is expected to with the deadline. None
    /// without a price.
    fn estimate(
        &self,
        scope: &ScopeKey,
        endpoint: Endpoint,
        deadline: Duration,
        metered: &Metered,
    ) -> Option<Estimate> {
        let bill = |lane| {
            let model = metered.model.as_deref()?;
            self.prices.bill(model, lane, &metered.usage)
        };
        if metered.dearer {
            return None;
        }
        let cost = bill(metered.lane(Lane::Standard))?;
        let plan = self.plan(scope, endpoint, None);
        let choice = plan.choose(deadline);
        let cheap = bill(choice.lane)?.paid;
        let price = plan.rung(choice.lane).map_or(1.0, |rung| rung.price);
        Some(Estimate {
            cost: cost.paid,
            expected: expected(&choice, price, cost.standard, cheap),
            rescued_micro: match choice.stay {
                Some(_) => u64::from(micro(choice.standard)),
                None => 0,
            },
            missed_micro: match deadline < plan.live() {
                true => u64::from(MILLION),
                // Time is kept for an ordinary call, but not for the slowest ones.
                false => u64::from(micro(choice.standard * (1.0 - rescue::IN_TIME))),
            },
        })
    }

    async fn write_shadow(&self) {
        let Some(shadow) = &self.shadow else { return };
        let first = day(self.now()).saturating_sub(DAYS);
        let rows: Vec<(ShadowKey, Option<ShadowRow>)> = {
            let mut sums = shadow.sums.lock();
            let old = sums.keys().filter(|key| key.day < first);
            let old: Vec<ShadowKey> = old.cloned().collect();
            for key in &old {
                sums.remove(key);
            }
            let changed = sums.iter_mut().filter(|(_, sum)| sum.changed);
            let changed = changed.map(|(key, sum)| {
                sum.changed = false;
                (key.clone(), Some(sum.row.clone()))
            });
            let old = old.into_iter().map(|key| (key, None));
            changed.chain(old).collect()
        };
        if rows.is_empty() {
            return;
        }
        let keys: Vec<ShadowKey> = rows.iter().map(|(key, _)| key.clone()).collect();
        let written = self.store.put_shadow(rows).await;
        let mut sums = shadow.sums.lock();
        for (key, written) in keys.iter().zip(written) {
            let Err(error) = written else { continue };
            tracing::warn!(%error, "what calls would have saved is not written down");
            if let Some(sum) = sums.get_mut(key) {
                sum.changed = true;
            }
        }
    }
}

fn unread(streamed: bool) -> ShadowRow {
    ShadowRow {
        calls: 1,
        streamed: u64::from(streamed),
        unread: 1,
        ..ShadowRow::default()
    }
}

/// In whole picodollars: the plan's shares are rounded to millionths, of which those
/// that end in an ordinary call cost `standard` and the others, double payments
/// included, what the chosen lane bills for these very tokens. The plan reckons with
/// `price`, that of a typical call.
fn expected(choice: &Choice, price: f64, standard: Usd, cheap: Usd) -> Usd {
    let in_lane = (choice.cost - choice.standard).max(0.0) / price.max(f64::EPSILON);
    standard.share(micro(choice.standard), MILLION) + cheap.share(micro(in_lane), MILLION)
}

fn micro(share: f64) -> u32 {
    (share * f64::from(MILLION)).round() as u32
}

/// Days since the Unix epoch.
fn day(at: Timestamp) -> u32 {
    at.as_hours() / 24
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_expected_is_in_whole_picodollars() {
        let choice = |cost, standard| Choice {
            lane: Lane::Batch,
            cost,
            standard,
            stay: None,
        };
        let (standard, cheap) = (Usd::from_pico(1_000_000), Usd::from_pico(500_000));
        for (cost, share, price, cheap, told) in [
            // 2 % rescued, the rest at half the price.
            (0.51, 0.02, 0.5, cheap, 510_000),
            // With one of a hundred paid twice.
            (0.515, 0.02, 0.5, cheap, 515_000),
            // Cached tokens have no discount in this lane: it costs what it costs.
            (0.51, 0.02, 0.5, Usd::from_pico(1_200_000), 1_196_000),
            (1.0, 1.0, 1.0, standard, 1_000_000),
            (0.0, 0.0, 0.0, Usd::ZERO, 0),
        ] {
            let told_now = expected(&choice(cost, share), price, standard, cheap);
            assert_eq!(told_now, Usd::from_pico(told), "{cost} {share}");
        }
    }
}
