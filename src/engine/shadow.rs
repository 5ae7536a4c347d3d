//! What calls without a deadline would have saved and missed with one.
//!
//! The edge tells of each answer through a bounded queue and never waits for it.
//! One task looks there now and then, so that nobody has to wake it; it meters the
//! answers, asks the plan, and writes the sums down.

mod coding;
mod estimate;
mod excerpt;
mod sums;

use std::{sync::Arc, time::Duration};

use tokio::sync::{
    mpsc::{self, error::TrySendError},
    oneshot,
};

use crate::{
    ledger::undated,
    model::{
        endpoint::Endpoint,
        id::TenantId,
        shadow::{ShadowKey, ShadowRow},
        time::Timestamp,
    },
    ports::{Credential, StoreError},
};

use self::sums::Sums;
pub use self::{coding::Coding, excerpt::Excerpt};
use super::{Caller, Engine, scope::Account};

/// A call that passed through and was answered with success.
pub struct Passed {
    pub whose: Whose,
    pub endpoint: Endpoint,
    pub streamed: bool,
    /// None where the answer was not seen to its end, or cannot be read.
    pub answer: Option<Excerpt>,
}

/// Whose call it was. Who presents a key of the provider's is identified aside, which
/// spares the caller's thread the hashing.
pub enum Whose {
    Presents(Credential),
    Known(Box<Caller>),
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

pub(super) struct Shadow {
    deadline: Duration,
    told: mpsc::Sender<Passed>,
    asked: mpsc::Sender<oneshot::Sender<()>>,
    sums: Sums,
    kept: excerpt::Kept,
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
            sums: Sums::default(),
            kept: excerpt::Kept::default(),
        };
        let inbox = Inbox {
            told: told_inbox,
            asked: asked_inbox,
        };
        (shadow, inbox)
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
    pub fn excerpt(&self, streamed: bool, coding: Option<Coding>) -> Option<Excerpt> {
        let shadow = self.shadow.as_ref()?;
        Some(Excerpt::new(streamed, coding, shadow.kept.clone()))
    }

    /// Told by the edge when an answer has passed. Never waits.
    pub fn passed(&self, passed: Passed) {
        let Some(shadow) = &self.shadow else { return };
        match shadow.told.try_send(passed) {
            Ok(()) => {}
            Err(TrySendError::Full(passed)) => {
                let (row, caller) = (unread(passed.streamed), self.caller_of(passed.whose));
                shadow.sums.add(shadow.key(&caller, self.now(), None), &row);
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
        Some((shadow.deadline, shadow.sums.of(shadow.deadline, tenant)))
    }

    /// Reads back the sums, and goes on with them.
    pub(super) async fn watch_passed(self: &Arc<Self>, inbox: Inbox) -> Result<(), StoreError> {
        let Some(shadow) = &self.shadow else {
            return Ok(());
        };
        shadow.sums.recall(self.store.shadow().await?);
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
        let caller = self.caller_of(passed.whose);
        let metered = passed.answer.map(|answer| answer.read());
        let metered = metered.unwrap_or_default();
        let model = metered.model.as_deref();
        let model = model.map(|model| undated(model).unwrap_or(model).to_owned());
        let mut row = unread(passed.streamed);
        if metered.known
            && let Some(model) = &model
        {
            row.unread = 0;
            let account = Account {
                credential: caller.credential,
                model: model.as_str().into(),
            };
            let sum = match passed.streamed {
                true => &mut row.streams,
                false => &mut row.plain,
            };
            match self.estimate(
                &self.scope_of(account),
                passed.endpoint,
                shadow.deadline,
                &metered,
            ) {
                Some(estimate) => *sum = estimate,
                None => row.unpriced = 1,
            }
        }
        shadow
            .sums
            .add(shadow.key(&caller, self.now(), model), &row);
    }

    fn caller_of(&self, whose: Whose) -> Caller {
        match whose {
            Whose::Presents(credential) => self.caller(credential),
            Whose::Known(caller) => *caller,
        }
    }

    async fn write_shadow(&self) {
        let Some(shadow) = &self.shadow else { return };
        let first = day(self.now()).saturating_sub(DAYS);
        let rows = shadow.sums.take_unwritten(first);
        if rows.is_empty() {
            return;
        }
        let keys: Vec<ShadowKey> = rows.iter().map(|(key, _)| key.clone()).collect();
        let written = self.store.put_shadow(rows).await;
        for (key, written) in keys.iter().zip(written) {
            let Err(error) = written else { continue };
            tracing::warn!(%error, "what calls would have saved is not written down");
            shadow.sums.not_written(key);
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

/// Days since the Unix epoch.
fn day(at: Timestamp) -> u32 {
    at.as_hours() / 24
}
