//! The one driver of all reconcilers.

use std::{future::Future, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::FutureExt;
use tokio::sync::Notify;

use crate::{model::time::Timestamp, ports::StoreError};

use super::Engine;

/// Wakes each reconciler.
#[derive(Default)]
pub(super) struct Signals {
    pub packer: Notify,
    pub submitter: Notify,
    pub watcher: Notify,
    pub rescuer: Notify,
    pub live: Notify,
    pub courier: Notify,
    pub janitor: Notify,
}

/// When to look again, unless a signal comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    At(Timestamp),
    OnSignal,
}

impl Next {
    /// The earlier of the two.
    pub fn sooner(self, other: Next) -> Next {
        match (self, other) {
            (Next::At(a), Next::At(b)) => Next::At(a.min(b)),
            (Next::OnSignal, next) | (next, Next::OnSignal) => next,
        }
    }

    /// Whether nothing is due at `now`.
    pub fn is_after(self, now: Timestamp) -> bool {
        match self {
            Next::At(at) => at > now,
            Next::OnSignal => true,
        }
    }
}

/// The longest sleep without looking: bounds what a stepped clock can cost.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);
/// The pause after a turn that failed.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

impl Engine {
    pub(super) fn drive_all(self: &Arc<Self>) {
        self.drive(
            "packer",
            |e| &e.signals.packer,
            |e| async move { e.pack_turn().await },
        );
        self.drive(
            "submitter",
            |e| &e.signals.submitter,
            |e| async move { e.submit_turn().await },
        );
        self.drive(
            "watcher",
            |e| &e.signals.watcher,
            |e| async move { e.watch_turn().await },
        );
        self.drive(
            "rescuer",
            |e| &e.signals.rescuer,
            |e| async move { e.rescue_turn().await },
        );
        self.drive(
            "live",
            |e| &e.signals.live,
            |e| async move { e.live_turn().await },
        );
        self.drive(
            "courier",
            |e| &e.signals.courier,
            |e| async move { e.courier_turn().await },
        );
        self.drive(
            "janitor",
            |e| &e.signals.janitor,
            |e| async move { e.janitor_turn().await },
        );
    }

    /// What fails for one of many is looked at again soon; the others have their
    /// turn all the same.
    pub(super) fn or_soon(&self, what: &'static str, turned: Result<Next, StoreError>) -> Next {
        turned.unwrap_or_else(|error| {
            tracing::error!(what, %error, "failed; trying again");
            Next::At(self.now() + AFTER_FAILURE)
        })
    }

    fn drive<T, F>(self: &Arc<Self>, name: &'static str, signal: fn(&Engine) -> &Notify, turn: T)
    where
        T: Fn(Arc<Engine>) -> F + Send + 'static,
        F: Future<Output = Result<Next, StoreError>> + Send + 'static,
    {
        let engine = self.clone();
        self.tasks.spawn(async move {
            while !engine.stop.is_cancelled() {
                // sled panics on some damage; a reconciler outlives it.
                let turned = AssertUnwindSafe(turn(engine.clone())).catch_unwind();
                let sleep = match turned.await {
                    Ok(Ok(Next::At(at))) => engine.now().until(at).min(LONGEST_SLEEP),
                    Ok(Ok(Next::OnSignal)) => LONGEST_SLEEP,
                    Ok(Err(error)) => {
                        tracing::error!(reconciler = name, %error, "a turn failed; trying again");
                        AFTER_FAILURE
                    }
                    Err(_panic) => {
                        tracing::error!(reconciler = name, "a turn panicked; trying again");
                        AFTER_FAILURE
                    }
                };
                tracing::trace!(reconciler = name, ?sleep, "turned");
                tokio::select! {
                    biased;
                    () = engine.stop.cancelled() => {}
                    () = signal(&engine).notified() => {}
                    () = tokio::time::sleep(sleep) => {}
                }
            }
        });
    }
}
