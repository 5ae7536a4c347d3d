//! A call that finds its request there already.

use std::sync::Arc;

use crate::{
    model::{
        id::{CallDigest, RequestKey},
        request::Request,
        time::Timestamp,
    },
    policy::lane,
    ports::{self, StoreError},
};

use super::{AdmitError, Admitted, Call, Engine, Hold, Refused};

impl Engine {
    /// Takes over an orphan of the call, or what its retry has let go of.
    pub(super) async fn take_over(
        self: &Arc<Self>,
        digest: CallDigest,
        retry: u32,
    ) -> Result<Option<Admitted>, StoreError> {
        while let Some(grip) = self.holders.take_over(digest, retry) {
            let key = grip.key;
            let Some(head) = self.store.head(key).await? else {
                // Erased or purged meanwhile.
                self.holders.forget(key, digest);
                continue;
            };
            let hold = self.hold_on(key, true, Some(grip), None);
            return Ok(Some(self.joined(head.request, hold)));
        }
        Ok(None)
    }

    /// Joins the request that holds the idempotency key; none where it is free,
    /// because that request finished before `horizon`.
    pub(super) async fn join(
        self: &Arc<Self>,
        call: &Call,
        digest: CallDigest,
        body: CallDigest,
        known: ports::Idempotent,
        horizon: Timestamp,
    ) -> Result<Option<Admitted>, AdmitError> {
        let key = RequestKey {
            tenant: call.caller.tenant,
            id: known.request,
        };
        let Some(head) = self.store.head(key).await? else {
            return Ok(None);
        };
        if head
            .outcome
            .is_some_and(|outcome| outcome.finished < horizon)
        {
            return Ok(None);
        }
        if known.body_digest != body {
            return Err(Refused::IdempotencyReused.into());
        }
        let grip = call
            .held
            .then(|| self.holders.take_over(digest, call.retry))
            .flatten();
        let hold = self.hold_on(key, call.held, grip, None);
        Ok(Some(self.joined(head.request, hold)))
    }

    fn joined(&self, request: Request, hold: Hold) -> Admitted {
        let counts = self.counts();
        let reserve = self.settings.rescue.reserve;
        let guarantee =
            lane::guarantee(request.on_late, counts.open(), &self.settings.live, reserve);
        Admitted {
            request: Arc::new(request),
            hold,
            joined: true,
            guarantee,
        }
    }
}
