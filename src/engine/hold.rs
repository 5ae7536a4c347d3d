//! A caller's stake in a request.

use std::sync::Arc;

use crate::model::{
    id::RequestKey,
    request::{Place, Request, Shape},
};

use super::{Engine, Tap, Waiter, holders::Grip, inflight::Mention};

/// The caller's stake in a request. While it lives, a webhook waits: nobody is
/// told the result before the acknowledgement. Dropped by a held call before
/// [`delivered`](Hold::delivered), it leaves an orphan.
pub struct Hold {
    key: RequestKey,
    grip: Option<Grip>,
    waiter: Option<Waiter>,
    tap: Option<Tap>,
    _unflushed: Mention<RequestKey>,
}

impl Hold {
    pub fn key(&self) -> RequestKey {
        self.key
    }

    /// Wakes at the request's ending; registered since before the request could
    /// end. Only for a held call.
    pub fn waiter(&mut self) -> Option<Waiter> {
        self.waiter.take()
    }

    /// The answer as it streams in, where the request went live at once.
    pub fn tap(&mut self) -> Option<Tap> {
        self.tap.take()
    }

    /// False once another call has taken the request over.
    pub fn is_current(&self) -> bool {
        self.grip.as_ref().is_none_or(Grip::is_current)
    }

    /// The answer was written to its end: nobody takes this request over.
    pub fn delivered(mut self, engine: &Arc<Engine>) {
        // Whoever took it over waits for the answer too, and may be cut off yet.
        if let Some(grip) = self.grip.take().filter(Grip::is_current) {
            engine.holders.forget(grip.key, grip.digest);
            let (store, key, digest) = (engine.store.clone(), grip.key, grip.digest);
            let release = async move {
                if let Err(error) = store.release(key, digest).await {
                    tracing::warn!(id = %key.id, %error, "a delivered answer was not noted");
                }
            };
            // On the engine's runtime: the caller's may be about to end.
            engine.tasks.spawn_on(release, &engine.runtime);
        }
    }
}

impl Engine {
    pub(super) fn begin_hold(
        self: &Arc<Self>,
        request: &Request,
        retry: u32,
        place: Place,
    ) -> Hold {
        let grip = request
            .held
            .then(|| self.holders.hold(request.key, request.digest, retry));
        let streams = matches!(request.shape, Shape::Stream { .. });
        let tap =
            (request.held && streams && place == Place::Live).then(|| self.taps.open(request.key));
        self.hold_on(request.key, request.held, grip, tap)
    }

    pub(super) fn hold_on(
        &self,
        key: RequestKey,
        waits: bool,
        grip: Option<Grip>,
        tap: Option<Tap>,
    ) -> Hold {
        Hold {
            key,
            grip,
            tap,
            waiter: waits.then(|| self.waiters.request(key)),
            _unflushed: self.unflushed.mention(key),
        }
    }
}
