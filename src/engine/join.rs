//! A call that finds its request there already.

use std::{sync::Arc, time::Duration};

use crate::{
    model::{
        id::{CallDigest, RequestKey},
        request::Request,
        time::Timestamp,
    },
    ports::{self, Head, StoreError},
};

use super::{AdmitError, Admitted, Call, Engine, Hold, Refused};

/// How long after its deadline an answer waits to be collected by the call that
/// asked for it. SDKs and restarted jobs send again within minutes; tomorrow's run
/// of the same job wants an answer of its own.
const COLLECTED: Duration = Duration::from_secs(3600);

impl Engine {
    /// Takes over an orphan of the call, or what its retry has let go of.
    pub(super) async fn take_over(
        self: &Arc<Self>,
        digest: CallDigest,
        retry: u32,
    ) -> Result<Option<Admitted>, StoreError> {
        while let Some(grip) = self.holders.take_over(digest, retry) {
            let key = grip.key;
            let Some(head) = self.known(key).await? else {
                self.holders.forget(key, digest);
                continue;
            };
            if self.is_stale(&head) {
                self.holders.forget(key, digest);
                self.store.release(key, digest).await?;
                continue;
            }
            let hold = self.hold_on(key, true, Some(grip), None);
            return Ok(Some(self.joined(head.request, hold)));
        }
        Ok(None)
    }

    /// None where it was erased or purged meanwhile, and where it cannot be read: to its
    /// caller that is no answer, however often the call is sent again.
    async fn known(&self, key: RequestKey) -> Result<Option<Head>, StoreError> {
        match self.store.head(key).await {
            Err(StoreError::Corrupt(damage)) => {
                tracing::error!(id = %key.id, %damage, "a call that is sent again is taken in anew");
                Ok(None)
            }
            head => head,
        }
    }

    fn is_stale(&self, head: &Head) -> bool {
        let ended = head.outcome.as_ref().map(|outcome| outcome.finished);
        ended.is_some_and(|ended| ended.max(head.request.deadline) + COLLECTED < self.now())
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
        let Some(head) = self.known(key).await? else {
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
        self.metrics.requests.joined();
        Admitted {
            request: Arc::new(request),
            hold,
            joined: true,
        }
    }
}
