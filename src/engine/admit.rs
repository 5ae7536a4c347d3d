//! Taking a call in: durable before anything is said to the caller.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use thiserror::Error;

use crate::{
    model::{
        attempt::Lane,
        endpoint::Endpoint,
        id::{CallDigest, DestinationId, RequestId, RequestKey},
        money::Usd,
        request::{Cohort, Destination, Guarantee, OnLate, Place, Request, Shape},
        time::Timestamp,
        trace::TraceParent,
    },
    policy::{allowance::Exceeded, demand, lane, plan::Plan},
    ports::{self, Admission, StoreError},
};

use super::{
    Caller, Engine, Hold,
    scope::ScopeKey,
    settings::OnFull,
    summary::{Asked, Full, Summary},
};

/// A call that asks to be deferred, read and found fit for a batch line.
pub struct Call {
    pub caller: Caller,
    pub endpoint: Endpoint,
    pub model: String,
    pub body: Bytes,
    /// Bytes of its JSONL line.
    pub line_bytes: u32,
    pub inputs: u32,
    pub shape: Shape,
    /// Its own word on whether the provider may store the answer.
    pub store: Option<bool>,
    pub deadline: Timestamp,
    pub on_late: OnLate,
    pub tag: Option<String>,
    pub webhook: Option<String>,
    pub idempotency_key: Option<String>,
    /// The caller stays on the connection.
    pub held: bool,
    /// `x-stainless-retry-count`.
    pub retry: u32,
    /// It asks for something that a batch cannot do: run it live.
    pub live_only: Option<String>,
    /// Refuse it where its deadline could only be met with luck.
    pub strict: bool,
    /// The caller's span.
    pub trace: Option<TraceParent>,
}

/// The request that answers the call.
pub struct Admitted {
    pub request: Arc<Request>,
    pub hold: Hold,
    /// It was there before: by its idempotency key, or taken over.
    pub joined: bool,
}

#[derive(Debug, Error)]
pub enum AdmitError {
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The provider's own refusal of the key or the model.
    #[error("the provider refused the model with {status}")]
    Provider { status: u16, body: Bytes },
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[derive(Debug, Error)]
pub enum Refused {
    #[error("this Idempotency-Key was used with a different request body")]
    IdempotencyReused,
    #[error("the queue is full: {} calls are waiting", .0.requests)]
    QueueFull(Full),
    /// `admission.on_full = "live"`: pass the call through.
    #[error("the queue is full: the call goes through at full price")]
    PassThrough(Full),
    /// The monthly budget of the caller's key.
    #[error("the budget of {} a month does not cover the call", .0.budget)]
    Budget(Exceeded),
    #[error("the deadline could only be met with luck")]
    NotFirm,
    /// The same, and nothing is in its way.
    #[error("shorter than the {} that are kept for one ordinary call", lane::words(*kept))]
    TooShort { kept: Duration },
}

impl Engine {
    /// Takes a call in. The work goes on if the caller leaves half-way: what is
    /// durable is always also known here.
    pub async fn admit(self: &Arc<Self>, call: Call) -> Result<Admitted, AdmitError> {
        let engine = self.clone();
        self.whole(async move { engine.admit_now(call).await })
            .await
    }

    async fn admit_now(self: &Arc<Self>, call: Call) -> Result<Admitted, AdmitError> {
        let body_digest = self.body_digest(&call);
        let idempotency = call.idempotency_key.as_deref().map(|key| {
            let parts = [&call.caller.tenant.0[..], key.as_bytes()];
            CallDigest(self.vault.fingerprint("idempotency", &parts))
        });
        let digest = self.call_digest(&call, body_digest, idempotency);

        if call.held
            && let Some(admitted) = self.take_over(digest, call.retry).await?
        {
            return Ok(admitted);
        }
        if let Some(idempotency) = idempotency
            && let Some(known) = self
                .store
                .by_idempotency(call.caller.tenant, idempotency)
                .await?
        {
            let horizon = self.idempotency_horizon();
            if let Some(admitted) = self
                .join(&call, digest, body_digest, known, horizon)
                .await?
            {
                return Ok(admitted);
            }
        }
        // Before the provider is asked; what counts is asked again when it is taken in.
        let (tenant, bytes) = (call.caller.tenant, call.line_bytes.into());
        let spare = self.spare_bytes().await;
        let room = |summary: &mut Summary| {
            summary.has_room_for(tenant, bytes, spare, &self.settings.admission, self.now())
        };
        room(&mut self.summary.lock()).map_err(|full| self.full(full))?;
        self.check_firm(&call)?;
        // Kept until the request is counted among the open ones.
        let kept = self.enter_budget(&call).map_err(Refused::Budget)?;
        self.check_key(&call.caller, &call.model)
            .await
            .map_err(|(status, body)| AdmitError::Provider { status, body })?;
        self.check_model(&call.caller, &call.model)
            .await
            .map_err(|(status, body)| AdmitError::Provider { status, body })?;

        let gate = self.credentials.gate.read().await;
        if self.has_moved(&call.caller) {
            // As whoever it is now.
            drop(gate);
            let caller = self.caller((*call.caller.presented).clone());
            return Box::pin(self.admit_now(Call { caller, ..call })).await;
        }
        let admission = self.prepare(&call, digest, idempotency, body_digest)?;
        let most = kept.as_ref().map(|kept| kept.amount);
        self.commit(call, admission, most).await
    }

    /// Bytes that the disk has for admissions. Where it cannot be asked, writing to it
    /// will tell.
    async fn spare_bytes(&self) -> u64 {
        self.store.spare_bytes().await.unwrap_or(u64::MAX)
    }

    /// Writes the request, then counts it, then wakes who must see it.
    async fn commit(
        self: &Arc<Self>,
        call: Call,
        admission: Admission,
        most: Option<Usd>,
    ) -> Result<Admitted, AdmitError> {
        let request = Arc::new(admission.request.clone());
        let place = admission.place;
        let body_digest = admission.body_digest;
        let horizon = admission.idempotency_horizon;
        let hold = self.begin_hold(&request, call.retry, place);
        // The queue is shared with the packer: counted before it can be seen, so
        // that no turn finds a line that was never counted.
        let (entry, now) = (request.entry(), self.now());
        if let Some(most) = most {
            self.reserves.open(request.key, most);
        }
        let spare = self.spare_bytes().await;
        let settings = &self.settings.admission;
        let counted = (self.summary.lock()).admit_within(&place, &entry, spare, settings, now);
        let first = match counted {
            Ok(first) => first,
            Err(full) => {
                self.reserves.close(request.key);
                self.let_go(&request);
                return Err(self.full(full).into());
            }
        };
        self.trace(request.key.id, call.trace);
        match self.store.admit(admission).await {
            Ok(ports::Admitted::New) => {
                self.metrics.requests.admitted(&request);
                tracing::debug!(
                    id = %request.key.id,
                    lane = %request.lane,
                    guarantee = request.cohort.guarantee.as_str(),
                    deadline = %request.deadline,
                    "admitted"
                );
                self.wake_for(&place, first, &request);
                Ok(Admitted {
                    request,
                    hold,
                    joined: false,
                })
            }
            Ok(ports::Admitted::Known(known)) => {
                self.withdraw(&request, &place);
                drop(hold);
                match self
                    .join(&call, request.digest, body_digest, known, horizon)
                    .await?
                {
                    Some(admitted) => Ok(admitted),
                    None => Err(
                        StoreError::Corrupt("an idempotency key names no request".into()).into(),
                    ),
                }
            }
            Err(error) => {
                // It may stand there all the same, only not known to be synced:
                // then it is run, and a re-send of the call finds it an orphan.
                match self.store.head(request.key).await {
                    Ok(Some(_)) => self.wake_for(&place, first, &request),
                    Ok(None) => self.withdraw(&request, &place),
                    Err(_) => self.resolve_later(request, place, first),
                }
                Err(error.into())
            }
        }
    }

    /// Counted as taken in until the store can say whether it was.
    fn resolve_later(self: &Arc<Self>, request: Arc<Request>, place: Place, first: bool) {
        let engine = self.clone();
        self.tasks.spawn(async move {
            let look = || engine.store.head(request.key);
            match engine.persist(request.key.id, look).await {
                Ok(Some(_)) => engine.wake_for(&place, first, &request),
                Ok(None) | Err(_) => engine.withdraw(&request, &place),
            }
        });
    }

    fn let_go(&self, request: &Request) {
        self.untrace(request.key.id);
        self.taps.take(request.key);
        self.holders.forget(request.key, request.digest);
    }

    fn withdraw(&self, request: &Request, place: &Place) {
        self.let_go(request);
        self.summary.lock().exit(place, &request.entry());
    }

    fn prepare(
        &self,
        call: &Call,
        digest: CallDigest,
        idempotency: Option<CallDigest>,
        body_digest: CallDigest,
    ) -> Result<Admission, Refused> {
        let now = self.now();
        let destination = self.destination(call);
        let scope = self.scope_of(&destination);
        let plan = self.plan(&scope, call.endpoint, call.store);
        let lane::Choice { lane, reason } = chosen(call, now, &plan);
        let mut cohort = Cohort {
            destination: destination.id,
            on_late: call.on_late,
            guarantee: Guarantee::BestEffort,
            bucket: lane::bucket(now, call.deadline, &self.settings.packing),
        };
        // Who would rather be late or fail than pay more has asked for no promise.
        let wants = call.on_late == OnLate::Rescue;
        let paid_for = lane == Lane::Standard
            || self.covers(&destination, call.line_bytes, cohort.bucket.start);
        let asked = (wants && paid_for).then(|| self.asked(call, &scope, lane, plan.live()));
        let mut summary = self.summary.lock();
        cohort.guarantee = summary.promise(&destination, &cohort, asked.as_ref());
        drop(summary);
        if wants && call.strict && cohort.guarantee != Guarantee::Firm {
            return Err(Refused::NotFirm);
        }
        let request = Request {
            key: RequestKey {
                tenant: call.caller.tenant,
                id: RequestId::new(now, self.clock.random()),
            },
            endpoint: call.endpoint,
            model: call.model.clone(),
            credential: call.caller.credential,
            cohort,
            admitted: now,
            deadline: call.deadline,
            on_late: call.on_late,
            tag: call.tag.clone(),
            webhook: call.webhook.clone(),
            idempotency,
            digest,
            held: call.held,
            shape: call.shape,
            line_bytes: call.line_bytes,
            inputs: call.inputs,
            lane,
            reason,
        };
        let place = match lane {
            Lane::Batch => Place::Queue(cohort),
            Lane::Flex | Lane::Background8h | Lane::Background2h | Lane::Standard => Place::Live,
        };
        Ok(Admission {
            request,
            body: call.body.clone(),
            place,
            destination,
            credential: self.seal_credential(&call.caller),
            body_digest,
            idempotency_horizon: self.idempotency_horizon(),
        })
    }

    /// What a promise to the call would be kept with.
    fn asked(&self, call: &Call, scope: &ScopeKey, lane: Lane, live: Duration) -> Asked {
        let now = self.now();
        Asked {
            now,
            from: demand::runs_live_from(now, call.deadline, lane),
            deadline: call.deadline,
            line_bytes: call.line_bytes,
            capacity: self.capacity(scope, live).sure(),
            whole: self.whole_capacity(live).sure(),
        }
    }

    /// What ended before no longer holds its key.
    fn idempotency_horizon(&self) -> Timestamp {
        self.now() - self.settings.admission.idempotency_ttl
    }

    fn destination(&self, call: &Call) -> Destination {
        let credential = call.caller.credential;
        let parts = [
            &credential.0[..],
            call.endpoint.path().as_bytes(),
            call.model.as_bytes(),
        ];
        Destination {
            id: DestinationId(self.vault.fingerprint("destination", &parts)),
            tenant: call.caller.tenant,
            credential,
            endpoint: call.endpoint,
            model: call.model.clone(),
        }
    }

    fn body_digest(&self, call: &Call) -> CallDigest {
        let parts = [call.endpoint.path().as_bytes(), &call.body[..]];
        CallDigest(self.vault.fingerprint("body", &parts))
    }

    fn call_digest(
        &self,
        call: &Call,
        body: CallDigest,
        idempotency: Option<CallDigest>,
    ) -> CallDigest {
        let key = idempotency.map_or([0; 16], |digest| digest.0);
        CallDigest(
            self.vault
                .fingerprint("call", &[&call.caller.tenant.0, &body.0, &key]),
        )
    }

    fn full(&self, full: Full) -> Refused {
        match self.settings.admission.on_full {
            OnFull::Live => Refused::PassThrough(full),
            OnFull::Reject => Refused::QueueFull(full),
        }
    }

    /// What could not be promised is refused before the provider is asked anything.
    /// Who would rather be late or fail than pay more has asked for no promise.
    fn check_firm(&self, call: &Call) -> Result<(), Refused> {
        if !call.strict || call.on_late != OnLate::Rescue {
            return Ok(());
        }
        let destination = self.destination(call);
        let scope = self.scope_of(&destination);
        let plan = self.plan(&scope, call.endpoint, call.store);
        let lane = chosen(call, self.now(), &plan).lane;
        let asked = self.asked(call, &scope, lane, plan.live());
        if let Some(kept) = asked.is_too_short() {
            return Err(Refused::TooShort { kept });
        }
        match self.summary.lock().has_room(&destination, &asked) {
            true => Ok(()),
            false => Err(Refused::NotFirm),
        }
    }

    pub(super) fn wake_for(&self, place: &Place, first: bool, request: &Request) {
        match place {
            Place::Live => {
                self.backlog.arrived(&request.entry());
                self.signals.live.notify_one();
            }
            Place::Queue(cohort) => {
                let full = self.summary.lock().is_full(cohort, &self.settings.packing);
                if first || full {
                    self.signals.packer.notify_one();
                }
                // In a bucket that has begun, each has its own deadline.
                let fails = cohort.on_late == OnLate::Fail && cohort.bucket.start <= self.now();
                if first || fails {
                    self.signals.rescuer.notify_one();
                }
            }
            Place::Line(_) => tracing::error!(id = %request.key.id, "admitted into a batch"),
        }
    }
}

/// The lane that the call begins in, and why.
fn chosen(call: &Call, now: Timestamp, plan: &Plan) -> lane::Choice {
    match &call.live_only {
        Some(reason) => lane::Choice {
            lane: Lane::Standard,
            reason: reason.clone(),
        },
        None => lane::choose(now, call.deadline, call.on_late, plan),
    }
}
