//! A faithful OpenAI-like provider: files, batches and live calls on a real port,
//! with a seed, a latency model, a clock that can run fast, a bill and scripted
//! faults. Written from WIRE.md and the official SDKs' types; it shares no wire
//! code with `provider`.
//!
//! **Answers** are a function of the seed and the request: `Answer MARK: QUESTION`,
//! where MARK is [`answer_mark`] of the body and QUESTION the last user message.
//! Tools are called if given, JSON schemas filled. Four bytes are a token.
//!
//! **Steering.** `metadata.sim`, or a `user` that begins with `sim:`, holds words:
//! `status=500`, `tokens=1000`, `cached=200`, `slow=3s`, `flaky=2` (fails twice with
//! 500, then works), `refusal`, and in batches `missing` (the line is in neither
//! file and never ran) and `never` (it never finishes).
//!
//! **Lanes.** `service_tier:"flex"` on the models that take it, `background` with a
//! completion window of 8 or 2 hours, and batches; the bill tells them apart. In a
//! background response `status=500` and `flaky` are errors that it ends with.
//!
//! **Time.** The provider's clock is the wall time given at start, moved on by
//! tokio's clock times `speed`. All `created_at` and the like are on that clock, so
//! with a speed above 1 they run ahead of the caller's wall time. What callers are
//! told to wait (`Retry-After`, rate-limit resets) is real time. Nothing waits for a
//! batch: its course is drawn at its creation and computed when somebody looks.
//!
//! **Keys.** Any key will do but one that starts with `sk-bad` (401). What a key
//! made, only it sees. Keys `sk-ORG.NAME` share the organization ORG, and with it
//! the rate limits; other keys have their own.
//!
//! **Webhooks.** [`Simulator::tell`] sends `batch.completed|failed|expired|cancelled`,
//! signed, when a batch ends.
//!
//! **Own paths**, without a key: `GET /sim/bill` ([`Bill`]), `GET /sim/log`
//! ([`Log`]), `POST|GET|DELETE /sim/faults` (one [`Fault`] or a list), `POST
//! /sim/reset`.

mod answers;
mod background;
mod batches;
mod bill;
mod blob;
mod body;
mod clock;
mod course;
mod create;
mod draw;
mod error;
mod faults;
mod files;
mod front;
mod hooks;
mod job;
mod live;
mod log;
mod order;
mod output;
mod rates;
mod router;
mod serve;
mod settings;
mod shapes;
mod sse;
mod stored;
#[cfg(test)]
mod tests;
mod validate;
mod world;

use std::{collections::HashSet, sync::Arc};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use crate::model::time::Timestamp;

pub use self::{
    bill::{Bill, Lane, Row},
    faults::{Fault, Kind, Operation},
    front::key_id,
    hooks::{BadHook, Hook},
    log::{Log, LoggedBatch, LoggedRequest},
    serve::{serve, serve_connection},
    settings::{BadSettings, Latency, Limits, Model, Settings, Tariff},
};
use self::{clock::Clock, faults::Script, world::World};

type Sim = Arc<Simulator>;

/// One provider; cheap to share, all its state behind one lock.
pub struct Simulator {
    settings: Arc<Settings>,
    clock: Clock,
    world: Mutex<World>,
    faults: Mutex<Script>,
    /// A batch was made or cancelled.
    changed: Notify,
    /// Keys that are refused with 401.
    revoked: Mutex<HashSet<String>>,
}

impl Simulator {
    /// `start` is the wall time at this moment.
    pub fn new(settings: Settings, start: Timestamp) -> Arc<Self> {
        let settings = Arc::new(settings);
        Arc::new(Simulator {
            clock: Clock::new(start, settings.speed),
            world: Mutex::new(World::new(settings.clone(), start)),
            faults: Mutex::default(),
            changed: Notify::new(),
            revoked: Mutex::default(),
            settings,
        })
    }

    /// All paths. Called without [`serve()`], a cut connection shows as a body that
    /// fails.
    pub fn router(self: &Arc<Self>) -> axum::Router {
        router::router(self.clone())
    }

    /// The time on the provider's clock.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// What has been charged by now.
    pub fn bill(&self) -> Bill {
        let (world, _) = self.world();
        world.account.bill()
    }

    /// What has been seen and run by now.
    pub fn log(&self) -> Log {
        let (world, now) = self.world();
        let batches = world.jobs.iter().map(|job| LoggedBatch {
            id: job.id.clone(),
            key: job.key.clone(),
            endpoint: job.endpoint.clone(),
            input_file_id: job.input_file_id.clone(),
            created_at: job.created_at.as_secs(),
            ended_at: job.terminal_at().as_secs(),
            metadata: job.metadata.clone().unwrap_or_default(),
            lines: job.lines(),
            status: job.status(now).name(),
        });
        world.journal.log(batches.collect())
    }

    /// Arms a fault, behind those armed already.
    pub fn inject(&self, fault: Fault) {
        self.faults.lock().add(fault);
    }

    /// From here on the key is refused with 401.
    pub fn revoke(&self, key: &str) {
        self.revoked.lock().insert(key.to_owned());
    }

    /// Disarms all faults.
    pub fn clear_faults(&self) {
        self.faults.lock().clear();
    }

    /// Forgets everything but the settings and the time.
    pub fn reset(&self) {
        self.clear_faults();
        *self.world.lock() = World::new(self.settings.clone(), self.now());
    }

    /// The world as it is now, with all done that was due.
    fn world(&self) -> (MutexGuard<'_, World>, Timestamp) {
        let mut world = self.world.lock();
        let now = self.clock.now();
        world.advance(now);
        (world, now)
    }
}

/// Identifies what a body asks, whatever lane runs it: `stream`, `stream_options`,
/// `background`, `background_options`, `service_tier`, white space and the order of
/// top-level fields are no part of it. `None` if the body is no JSON object.
pub fn fingerprint(body: &str) -> Option<String> {
    let body = body::Body::parse(body).ok()?;
    Some(format!("{:032x}", body.fingerprint()))
}

/// The sixteen hex digits that stand in every answer to this body.
pub fn answer_mark(seed: u64, body: &str) -> Option<String> {
    let body = body::Body::parse(body).ok()?;
    Some(answers::mark(seed, body.fingerprint()))
}
