//! What the engine needs of the world, in the engine's words. Adapters live in
//! [`crate::store`], [`crate::provider`] and [`crate::delivery`].

use std::{fmt, io, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use thiserror::Error;

use crate::model::{
    attempt::{Attempt, AttemptId},
    batch::Batch,
    endpoint::Endpoint,
    id::{BatchId, CallDigest, CredentialId, RequestId, RequestKey, TenantId},
    ledger::{LedgerKey, LedgerRow},
    request::{Cohort, Destination, Entry, Outcome, Place, Request},
    time::Timestamp,
};

// ---------------------------------------------------------------- the store

/// The durable truth. Every method that changes something returns once the
/// change would survive the process being killed; every change is atomic.
///
/// A request's open place, its record and the indexes over them only ever change
/// together, and the store checks the place it is told to move a request from:
/// of two reconcilers that want the same request, one finds it gone.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    // ---- requests

    /// Takes a request in. With an idempotency key that is in use, nothing is
    /// written and the earlier request is named.
    async fn admit(&self, admission: Admission) -> Result<Admitted, StoreError>;

    /// A request with its body while it is open, with its answer afterwards.
    async fn load(&self, key: RequestKey) -> Result<Option<Stored>, StoreError>;

    /// Where an open request is. `batches` are those it could be a line of.
    async fn place(
        &self,
        key: RequestKey,
        batches: &[BatchId],
    ) -> Result<Option<Place>, StoreError>;

    /// Moves open requests between places. False where one was not at `from`.
    async fn relocate(&self, moves: Vec<Relocation>) -> Result<Vec<bool>, StoreError>;

    /// Ends requests: record, answer, feed entry, webhook and ledger in one write
    /// each. A request ends once; later endings report the first one's outcome
    /// and change nothing.
    async fn settle(&self, endings: Vec<Ending>) -> Result<Vec<Settled>, StoreError>;

    /// A tenant's requests, newest first, those before `before`.
    async fn list(
        &self,
        tenant: TenantId,
        before: Option<RequestId>,
        limit: usize,
    ) -> Result<Vec<Stored>, StoreError>;

    /// Removes a finished request and its answer. False where it is open or unknown.
    async fn erase(&self, key: RequestKey) -> Result<bool, StoreError>;

    /// The request that holds this idempotency key.
    async fn by_idempotency(
        &self,
        tenant: TenantId,
        idempotency: CallDigest,
    ) -> Result<Option<Idempotent>, StoreError>;

    /// Forgets that a held request still waits for its caller.
    async fn release(&self, key: RequestKey, digest: CallDigest) -> Result<(), StoreError>;

    /// The held requests that nobody has released, oldest first.
    async fn unreleased(&self) -> Result<Vec<(CallDigest, RequestKey)>, StoreError>;

    // ---- attempts

    /// Writes an attempt, over an earlier version of the same id.
    async fn put_attempt(&self, key: RequestKey, attempt: Attempt) -> Result<(), StoreError>;

    /// Writes an attempt that ended late or unseen, with its ledger row. False,
    /// and nothing written, where this attempt is already recorded in this state:
    /// each observed answer is billed once.
    async fn account(
        &self,
        key: RequestKey,
        attempt: Attempt,
        ledger: LedgerEntry,
    ) -> Result<bool, StoreError>;

    async fn attempts(&self, key: RequestKey) -> Result<Vec<Attempt>, StoreError>;

    /// Attempts in state `Open`, of all tenants.
    async fn open_attempts(&self) -> Result<Vec<(RequestKey, AttemptId)>, StoreError>;

    // ---- places

    /// Queue entries in key order from after `after`, for rebuilding summaries.
    async fn scan_queue(
        &self,
        after: Option<(Cohort, RequestKey)>,
        limit: usize,
    ) -> Result<Vec<(Cohort, Entry)>, StoreError>;

    /// The oldest entries of one cohort.
    async fn queued(&self, cohort: Cohort, limit: usize) -> Result<Vec<Entry>, StoreError>;

    /// Requests waiting for a live call, earliest deadline first, from after
    /// `after`.
    async fn live(
        &self,
        after: Option<(Timestamp, RequestKey)>,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError>;

    /// A batch's lines in the order of the file, from after `after`.
    async fn lines(
        &self,
        batch: BatchId,
        after: Option<RequestId>,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError>;

    async fn put_batch(&self, batch: &Batch) -> Result<(), StoreError>;

    /// Open batches, and ended ones with litter or that ended after `since`.
    async fn batches(&self, since: Timestamp) -> Result<Vec<Batch>, StoreError>;

    async fn destinations(&self) -> Result<Vec<Destination>, StoreError>;

    // ---- credentials

    async fn credential(&self, id: CredentialId) -> Result<Option<Vec<u8>>, StoreError>;

    async fn drop_credential(&self, id: CredentialId) -> Result<(), StoreError>;

    // ---- results and deliveries

    /// A tenant's endings in commit order, from after `after`.
    async fn feed(
        &self,
        tenant: TenantId,
        after: u64,
        limit: usize,
    ) -> Result<FeedPage, StoreError>;

    /// Deliveries due by `now`, the longest due first.
    async fn due_deliveries(
        &self,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<Delivery>, StoreError>;

    /// The next instant at which a delivery is due.
    async fn next_delivery(&self) -> Result<Option<Timestamp>, StoreError>;

    /// Records a try: takes the delivery off the due index, and puts it back
    /// where `status` says that it is still pending.
    async fn record_delivery(
        &self,
        delivery: Delivery,
        status: DeliveryStatus,
    ) -> Result<(), StoreError>;

    async fn delivery_status(&self, key: RequestKey) -> Result<Option<DeliveryStatus>, StoreError>;

    // ---- money

    async fn ledger(&self, tenant: TenantId) -> Result<Vec<(LedgerKey, LedgerRow)>, StoreError>;

    // ---- keeping house

    /// Removes what finished before `horizon`, at most `limit` requests; returns
    /// how many.
    async fn purge(&self, horizon: Timestamp, limit: usize) -> Result<usize, StoreError>;

    /// Removes ended batches without litter that ended before `horizon`.
    async fn purge_batches(&self, horizon: Timestamp) -> Result<(), StoreError>;

    /// Bytes on disk.
    async fn disk_bytes(&self) -> Result<u64, StoreError>;
}

/// What [`Store::admit`] writes, all in one commit.
pub struct Admission {
    pub request: Request,
    pub body: Bytes,
    /// `Queue(request.cohort)` or `Live`.
    pub place: Place,
    /// Written where the store does not hold it yet.
    pub destination: Destination,
    /// The sealed credential, written where the store does not hold it yet.
    pub credential: Bytes,
    /// Fingerprint of the body, compared where the idempotency key is in use.
    pub body_digest: CallDigest,
    /// An idempotency key whose request finished before this instant is free.
    pub idempotency_horizon: Timestamp,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Admitted {
    New,
    /// The idempotency key is in use.
    Known(Idempotent),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Idempotent {
    pub request: RequestId,
    pub body_digest: CallDigest,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    pub request: Request,
    pub content: Content,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// The caller's bytes.
    Open { body: Bytes },
    /// The provider's bytes.
    Done { outcome: Outcome, answer: Bytes },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relocation {
    pub entry: Entry,
    pub from: Place,
    pub to: Place,
}

pub struct Ending {
    pub key: RequestKey,
    /// The places the request can be in; it is removed from whichever it is in.
    pub places: Vec<Place>,
    pub outcome: Outcome,
    pub answer: Bytes,
    pub ledger: LedgerEntry,
    /// The attempt that answered, where it has a record.
    pub attempt: Option<Attempt>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Settled {
    /// This ending counts.
    Now {
        /// Its place in the feed.
        sequence: u64,
        /// What the place it was taken out of held.
        entry: Entry,
        /// None where it was in none of the places named.
        place: Option<Place>,
        /// A webhook is due.
        webhook: bool,
    },
    /// It had ended before, like this.
    Before(Outcome),
    /// There is no such request (any more).
    Unknown,
}

#[derive(Clone, Debug, PartialEq)]
pub struct LedgerEntry {
    pub key: LedgerKey,
    pub row: LedgerRow,
}

#[derive(Clone, Debug, PartialEq)]
pub struct FeedPage {
    pub entries: Vec<FeedEntry>,
    /// Entries up to here have been purged; an older cursor has missed some.
    pub floor: u64,
    /// No entry from here on has ever been given out; a cursor there is of
    /// another store.
    pub ceiling: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedEntry {
    pub sequence: u64,
    pub key: RequestKey,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    pub due: Timestamp,
    pub key: RequestKey,
    /// Tries before this one.
    pub tries: u32,
    pub first_due: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum DeliveryStatus {
    Pending {
        next: Timestamp,
        tries: u32,
        last: Option<String>,
    },
    Delivered {
        at: Timestamp,
        tries: u32,
    },
    /// Given up, and why.
    Dead {
        at: Timestamp,
        tries: u32,
        last: String,
    },
}

#[derive(Debug, Error)]
pub enum StoreError {
    /// Nothing was written.
    #[error("the disk is full")]
    Full,
    /// It may have been written.
    #[error("the store failed: {0}")]
    Io(#[source] io::Error),
    #[error("the store is damaged: {0}")]
    Corrupt(String),
    #[error("the store is closed")]
    Closed,
}

// ------------------------------------------------------------- the provider

/// A provider's Files, Batches and live endpoints (WIRE.md §1).
#[async_trait]
pub trait Provider: Send + Sync + 'static {
    /// Uploads a batch input file as it is produced.
    async fn upload(&self, by: &Credential, upload: Upload) -> Result<String, ProviderError>;

    async fn create_batch(
        &self,
        by: &Credential,
        input_file: &str,
        endpoint: Endpoint,
        tag: BatchId,
    ) -> Result<RemoteBatch, ProviderError>;

    async fn batch(&self, by: &Credential, id: &str) -> Result<RemoteBatch, ProviderError>;

    /// Newest first, those after `after` in that order.
    async fn batches(
        &self,
        by: &Credential,
        after: Option<&str>,
    ) -> Result<RemotePage, ProviderError>;

    async fn cancel_batch(&self, by: &Credential, id: &str) -> Result<(), ProviderError>;

    /// The lines of an output or error file, in the file's order.
    async fn results(
        &self,
        by: &Credential,
        file: &str,
    ) -> Result<BoxStream<'static, Result<ResultLine, ProviderError>>, ProviderError>;

    /// The `custom_id`s of an input file's lines, in order.
    async fn input_lines(
        &self,
        by: &Credential,
        file: &str,
    ) -> Result<BoxStream<'static, Result<String, ProviderError>>, ProviderError>;

    /// Deleting what is gone is a success.
    async fn delete_file(&self, by: &Credential, file: &str) -> Result<(), ProviderError>;

    /// `GET /v1/models/{model}`.
    async fn model(&self, by: &Credential, model: &str) -> Result<(), ProviderError>;

    /// One ordinary call.
    async fn run(&self, by: &Credential, call: LiveCall) -> Result<LiveReply, ProviderError>;
}

/// The headers and query that authorise a call and decide where it runs.
#[derive(Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Credential {
    /// Lower-case names; at least `authorization` or `api-key`, unless the
    /// upstream wants none.
    pub headers: Vec<(String, String)>,
    /// `api-version=…`, without the question mark.
    pub query: Option<String>,
}

/// Shows names, never values.
impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("Credential")
            .field("headers", &names)
            .finish_non_exhaustive()
    }
}

pub struct Upload {
    pub name: String,
    /// Exact bytes of `lines` together.
    pub length: u64,
    pub lines: BoxStream<'static, io::Result<Bytes>>,
}

/// A batch as the provider tells it. Only what we act on (WIRE.md §1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RemoteBatch {
    pub id: String,
    pub status: RemoteStatus,
    /// The status in the provider's own word.
    pub status_text: String,
    pub tag: Option<BatchId>,
    pub created: Option<Timestamp>,
    pub input_file: Option<String>,
    pub output_file: Option<String>,
    pub error_file: Option<String>,
    pub errors: Vec<RemoteError>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RemoteStatus {
    /// Anything that is not terminal, words we do not know included.
    #[default]
    Running,
    Cancelling,
    Completed,
    Failed,
    Expired,
    Cancelled,
}

impl RemoteStatus {
    pub const fn is_terminal(self) -> bool {
        !matches!(self, RemoteStatus::Running | RemoteStatus::Cancelling)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteError {
    pub code: Option<String>,
    /// 1-based line of the input file.
    pub line: Option<u32>,
    pub message: String,
    pub param: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemotePage {
    pub batches: Vec<RemoteBatch>,
    pub has_more: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResultLine {
    pub custom_id: String,
    pub answer: LineAnswer,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LineAnswer {
    /// The endpoint's own status and body, byte for byte.
    Answered {
        status: u16,
        request: Option<String>,
        body: Bytes,
    },
    /// The provider did not run it (`batch_expired`, `batch_cancelled`), or
    /// reported it in a way that holds no answer.
    NotRun { code: String, message: String },
}

pub struct LiveCall {
    pub endpoint: Endpoint,
    pub body: Bytes,
    /// How long to wait for the reply's head. A body may stream on.
    pub timeout: Duration,
}

pub struct LiveReply {
    pub status: u16,
    pub headers: http::HeaderMap,
    pub body: BoxStream<'static, Result<Bytes, ProviderError>>,
}

#[derive(Clone, Debug, Error)]
pub enum ProviderError {
    /// Nothing was sent.
    #[error("the provider cannot be reached: {0}")]
    Unreachable(String),
    /// Sent, and the reply was lost: it may have happened.
    #[error("the provider's reply was lost: {0}")]
    Lost(String),
    /// The provider answered with an error status.
    #[error("the provider answered {status}")]
    Refused {
        status: u16,
        body: Bytes,
        retry_after: Option<Duration>,
        should_retry: Option<bool>,
    },
    /// A success that cannot be read: it may have happened.
    #[error("the provider's reply cannot be read: {0}")]
    Malformed(String),
    /// Our own side of the call failed, such as reading the lines to upload.
    #[error("the call could not be made: {0}")]
    Local(String),
}

impl ProviderError {
    /// Whether the provider may have done what was asked.
    pub fn may_have_happened(&self) -> bool {
        match self {
            ProviderError::Unreachable(_) | ProviderError::Local(_) => false,
            ProviderError::Lost(_) | ProviderError::Malformed(_) => true,
            ProviderError::Refused { status, .. } => *status >= 500,
        }
    }

    /// Whether the same call could go well another time.
    pub fn is_transient(&self) -> bool {
        match self {
            ProviderError::Refused {
                status,
                should_retry,
                ..
            } => should_retry.unwrap_or(matches!(status, 408 | 409 | 429 | 500..)),
            _ => true,
        }
    }

    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            ProviderError::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

// ------------------------------------------------------------ deliver a hook

/// One webhook attempt.
#[async_trait]
pub trait Deliver: Send + Sync + 'static {
    /// Whether a target may be used at all: a configured name, or an allowed URL.
    fn check(&self, target: &str) -> Result<(), String>;

    async fn deliver(&self, event: HookEvent) -> HookOutcome;
}

pub struct HookEvent {
    pub target: String,
    pub tenant: TenantId,
    /// The same at every try.
    pub id: String,
    pub now: Timestamp,
    pub body: Bytes,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HookOutcome {
    Delivered,
    Retry {
        reason: String,
        after: Option<Duration>,
    },
    /// Never again: the target is gone or not allowed.
    GiveUp {
        reason: String,
    },
}

// ------------------------------------------------------- time, chance, secrets

pub trait Clock: Send + Sync + 'static {
    fn now(&self) -> Timestamp;

    fn random(&self) -> u128;
}

/// Secrets at rest.
pub trait Vault: Send + Sync + 'static {
    fn seal(&self, id: CredentialId, credential: &Credential) -> Bytes;

    fn open(&self, id: CredentialId, sealed: &[u8]) -> Result<Credential, Unopened>;

    /// A fingerprint keyed by this installation; `domain` keeps uses apart.
    fn fingerprint(&self, domain: &str, parts: &[&[u8]]) -> [u8; 16];

    /// The tenant's signing secret for webhooks, `whsec_…`.
    fn webhook_secret(&self, tenant: TenantId) -> String;
}

#[derive(Debug, Error)]
#[error("a stored credential cannot be opened with this master key")]
pub struct Unopened;
