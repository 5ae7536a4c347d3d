//! The durable truth, and what is written to it and read from it.

use std::{
    io,
    ops::{Bound, Range},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::mpsc;

use crate::model::{
    attempt::{Attempt, AttemptId, Lane},
    batch::Batch,
    durations::Counted,
    hook::{Secrets, TurnedOff},
    id::{
        BatchId, CallDigest, CredentialId, DestinationId, ReceiverId, RequestId, RequestKey,
        TenantId,
    },
    issued::IssuedKey,
    ledger::{LedgerKey, LedgerRow},
    request::{Cohort, Destination, Entry, LiveQueue, Outcome, Place, Request},
    shadow::{ShadowKey, ShadowRow},
    time::Timestamp,
};

/// The durable truth. Every method that changes something returns once the
/// change would survive the process being killed; every change is atomic. One that
/// fails has not been made, unless the store has failed for good ([`Store::failed`]):
/// then only the next process can tell.
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

    /// A request without its payload.
    async fn head(&self, key: RequestKey) -> Result<Option<Head>, StoreError>;

    /// A request with its body while it is open, with its answer afterwards.
    async fn load(&self, key: RequestKey) -> Result<Option<Stored>, StoreError>;

    /// A request, with its answer if that has at most `short` bytes.
    async fn outline(&self, key: RequestKey, short: u64) -> Result<Option<Outline>, StoreError>;

    /// Up to `most` bytes of a finished request's answer from byte `from` on, some 256 KB
    /// at once; empty behind its end. None where the request is open or unknown, or was
    /// erased since.
    async fn answer_part(
        &self,
        key: RequestKey,
        from: u64,
        most: usize,
    ) -> Result<Option<Bytes>, StoreError>;

    /// Where an open request is. `batches` are those it could be a line of.
    async fn place(
        &self,
        key: RequestKey,
        batches: &[BatchId],
    ) -> Result<Option<Place>, StoreError>;

    /// Moves open requests between places: false where one was not at `from`. One
    /// that fails has not moved, whatever became of the others.
    async fn relocate(&self, moves: Vec<Relocation>) -> Vec<Result<bool, StoreError>>;

    /// Moves a request between places because another lane was chosen for it: place
    /// and record in one write. False where it was not at `from`.
    async fn replan(&self, replan: Replan) -> Result<bool, StoreError>;

    /// Takes a request whose record cannot be read out of its place. False where it
    /// was not there.
    async fn set_aside(&self, entry: Entry, place: Place) -> Result<bool, StoreError>;

    /// Ends requests: record, answer, feed entry, webhook and ledger in one write
    /// each. A request ends once; later endings report the first one's outcome
    /// and change nothing.
    async fn settle(&self, endings: Vec<Ending>) -> Vec<Result<Settled, StoreError>>;

    /// A tenant's requests, newest first, those before `before`.
    async fn list(
        &self,
        tenant: TenantId,
        before: Option<RequestId>,
        limit: usize,
    ) -> Result<Vec<Head>, StoreError>;

    /// The request of this id, whoever's it is.
    async fn find(&self, id: RequestId) -> Result<Option<RequestKey>, StoreError>;

    /// Requests of all tenants, newest first, those before `before`.
    async fn newest(
        &self,
        before: Option<RequestId>,
        limit: usize,
    ) -> Result<Vec<Head>, StoreError>;

    /// Removes a finished request and its answer, all but what its open attempts may
    /// cost yet. False where it is open or unknown.
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

    /// Writes an attempt, over an earlier version of the same id. False, and nothing
    /// written, where the request is erased and this attempt was not open then.
    async fn put_attempt(&self, key: RequestKey, attempt: Attempt) -> Result<bool, StoreError>;

    /// Writes an attempt that ended late or unseen, with its ledger row. False,
    /// and nothing written, where this attempt is already recorded in this state:
    /// each observed answer is billed once. Of an erased request, whose record is
    /// gone, only the ledger row is written.
    async fn account(
        &self,
        key: RequestKey,
        attempt: Attempt,
        ledger: LedgerEntry,
    ) -> Result<bool, StoreError>;

    async fn attempts(&self, key: RequestKey) -> Result<Vec<Attempt>, StoreError>;

    /// Attempts in state `Open`, of all tenants.
    async fn open_attempts(&self) -> Result<Vec<(RequestKey, AttemptId)>, StoreError>;

    /// Attempts that were open when their request was erased and are not accounted
    /// for yet, of one request or of all.
    async fn unbooked(&self, of: Option<RequestKey>) -> Result<Vec<Unbooked>, StoreError>;

    // ---- places

    /// Queue entries in key order from after `after`, for rebuilding summaries.
    async fn scan_queue(
        &self,
        after: Option<(Cohort, RequestKey)>,
        limit: usize,
    ) -> Result<Vec<(Cohort, Entry)>, StoreError>;

    /// The oldest entries of one cohort.
    async fn queued(&self, cohort: Cohort, limit: usize) -> Result<Vec<Entry>, StoreError>;

    /// Requests waiting for a live call, of one queue, earliest deadline first.
    async fn live(
        &self,
        queue: LiveQueue,
        from: Bound<(Timestamp, RequestKey)>,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError>;

    /// Those of all queues in key order from after `after`, for rebuilding
    /// summaries, each with the batch that it was a line of when it was moved there.
    async fn scan_live(
        &self,
        after: Option<Entry>,
        limit: usize,
    ) -> Result<Vec<(Entry, Option<BatchId>)>, StoreError>;

    /// The batch that a request which is placed live was a line of when it was moved
    /// there.
    async fn taken_out_of(&self, entry: Entry) -> Result<Option<BatchId>, StoreError>;

    /// A batch's lines in the order of the file, from after `after`.
    async fn lines(
        &self,
        batch: BatchId,
        after: Option<RequestId>,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError>;

    /// Batches that have lines, known or not.
    async fn batches_with_lines(&self) -> Result<Vec<BatchId>, StoreError>;

    async fn put_batch(&self, batch: &Batch) -> Result<(), StoreError>;

    async fn batch(&self, id: BatchId) -> Result<Option<Batch>, StoreError>;

    /// Open batches, and ended ones with litter or that ended after `since`.
    async fn batches(&self, since: Timestamp) -> Result<Vec<Batch>, StoreError>;

    /// The newest batches, ended or not, newest first.
    async fn newest_batches(&self, limit: usize) -> Result<Vec<Batch>, StoreError>;

    async fn destinations(&self) -> Result<Vec<Destination>, StoreError>;

    /// The next admission there writes it again.
    async fn drop_destination(&self, id: DestinationId) -> Result<(), StoreError>;

    // ---- credentials

    async fn credential(&self, id: CredentialId) -> Result<Option<Vec<u8>>, StoreError>;

    async fn drop_credential(&self, id: CredentialId) -> Result<(), StoreError>;

    /// What the vault is made of, sealed with the master key.
    async fn vault_roots(&self) -> Result<Option<Vec<u8>>, StoreError>;

    async fn put_vault_roots(&self, sealed: Bytes) -> Result<(), StoreError>;

    /// Changes whose key is whose, and what is sealed, in one write. A credential that
    /// has been dropped meanwhile stays dropped.
    async fn move_tenant(&self, moving: TenantMove) -> Result<(), StoreError>;

    /// Fingerprints of keys that were moved, and whose they are.
    async fn tenants(&self) -> Result<Vec<(TenantId, KeyOwner)>, StoreError>;

    // ---- keys that we issued

    /// Writes a key, over an earlier version of the same id.
    async fn put_issued(&self, key: &IssuedKey) -> Result<(), StoreError>;

    /// All of them, the oldest first.
    async fn issued(&self) -> Result<Vec<IssuedKey>, StoreError>;

    // ---- what was learned

    async fn put_learned(&self, learned: Learned) -> Result<(), StoreError>;

    async fn forget_learned(&self, key: LearnedKey) -> Result<(), StoreError>;

    async fn learned(&self) -> Result<Vec<Learned>, StoreError>;

    // ---- what would have been saved

    /// Writes rows over those of the same keys, and removes those without one. Each
    /// has a result of its own.
    async fn put_shadow(
        &self,
        rows: Vec<(ShadowKey, Option<ShadowRow>)>,
    ) -> Vec<Result<(), StoreError>>;

    async fn shadow(&self) -> Result<Vec<(ShadowKey, ShadowRow)>, StoreError>;

    // ---- results and deliveries

    /// A tenant's endings in commit order, from after `after`.
    async fn feed(
        &self,
        tenant: TenantId,
        after: u64,
        limit: usize,
    ) -> Result<FeedPage, StoreError>;

    /// Endings of one tenant or of all, the last first, those before `before` in commit
    /// order.
    async fn recent(
        &self,
        of: Option<TenantId>,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<FeedEntry>, StoreError>;

    /// Deliveries due by `now` and in no backlog, the longest due first, from after
    /// `after`.
    async fn due_deliveries(
        &self,
        now: Timestamp,
        after: Option<(Timestamp, RequestKey)>,
        limit: usize,
    ) -> Result<Vec<Delivery>, StoreError>;

    /// The next instant at which a delivery is due that is in no backlog.
    async fn next_delivery(&self) -> Result<Option<Timestamp>, StoreError>;

    /// Moves deliveries off the due index into the backlogs of their receivers,
    /// those that are still where they were.
    async fn shelve_deliveries(&self, deliveries: Vec<Delivery>) -> Result<(), StoreError>;

    /// A receiver's backlog by the ends of its requests, from after `after`.
    async fn backlog(
        &self,
        receiver: ReceiverId,
        after: Option<(Timestamp, RequestKey)>,
        limit: usize,
    ) -> Result<Vec<Delivery>, StoreError>;

    /// The front of each backlog, of the receivers behind `after`.
    async fn backlogs(
        &self,
        after: Option<ReceiverId>,
        limit: usize,
    ) -> Result<Vec<Delivery>, StoreError>;

    /// Records a try: takes the delivery off the due index and out of its backlog,
    /// and puts it back on the index where `status` says that it is still pending.
    async fn record_delivery(
        &self,
        delivery: Delivery,
        status: DeliveryStatus,
    ) -> Result<(), StoreError>;

    async fn delivery_status(&self, key: RequestKey) -> Result<Option<DeliveryStatus>, StoreError>;

    /// A tenant's deliveries, newest request first, those before `before`.
    async fn deliveries(
        &self,
        tenant: TenantId,
        before: Option<RequestId>,
        limit: usize,
    ) -> Result<Vec<(RequestId, DeliveryStatus)>, StoreError>;

    /// A tenant's dead letters by receiver, of all or of one, from after `after`.
    async fn dead_letters(
        &self,
        tenant: TenantId,
        receiver: Option<ReceiverId>,
        after: Option<(ReceiverId, RequestId)>,
        limit: usize,
    ) -> Result<Vec<(ReceiverId, RequestId)>, StoreError>;

    /// Dead letters of all tenants, by tenant and receiver, from after `after`.
    async fn all_dead_letters(
        &self,
        after: Option<(ReceiverId, RequestKey)>,
        limit: usize,
    ) -> Result<Vec<(ReceiverId, RequestKey)>, StoreError>;

    /// How many deliveries are pending and how many are dead letters. It reads nothing.
    fn delivery_counts(&self) -> DeliveryCounts;

    // ---- receivers of webhooks

    async fn turn_off(&self, off: TurnedOff) -> Result<(), StoreError>;

    async fn turn_on(&self, tenant: TenantId, receiver: ReceiverId) -> Result<(), StoreError>;

    async fn turned_off(
        &self,
        tenant: TenantId,
        receiver: ReceiverId,
    ) -> Result<Option<TurnedOff>, StoreError>;

    /// A tenant's receivers that are off.
    async fn all_turned_off(
        &self,
        tenant: TenantId,
        limit: usize,
    ) -> Result<Vec<TurnedOff>, StoreError>;

    /// Forgets those turned off before `horizon`.
    async fn purge_turned_off(&self, horizon: Timestamp) -> Result<(), StoreError>;

    /// Which secrets sign a tenant's webhooks.
    async fn hook_secrets(&self, tenant: TenantId) -> Result<Secrets, StoreError>;

    /// [`Secrets::rotate`], in one write.
    async fn rotate_hook_secret(
        &self,
        tenant: TenantId,
        now: Timestamp,
        overlap: Duration,
    ) -> Result<Secrets, StoreError>;

    // ---- money

    /// Rows by tenant and hour, from after `after`: fewer than `limit` are the last.
    async fn ledger_page(
        &self,
        rows: &LedgerRows,
        after: Option<&LedgerKey>,
        limit: usize,
    ) -> Result<Vec<(LedgerKey, LedgerRow)>, StoreError>;

    // ---- keeping house

    /// Removes what finished before `horizon`, at most `limit` requests; returns
    /// how many.
    async fn purge(&self, horizon: Timestamp, limit: usize) -> Result<usize, StoreError>;

    /// Removes ended batches without litter that ended before `horizon`.
    async fn purge_batches(&self, horizon: Timestamp) -> Result<(), StoreError>;

    /// Removes ledger rows of hours before `hour`, of the tenants from `from` on: looks at
    /// some hundred rows, and returns the tenant to go on with.
    async fn purge_ledger(
        &self,
        hour: u32,
        from: Option<TenantId>,
    ) -> Result<Option<TenantId>, StoreError>;

    /// Sends a copy of everything, as it is between two commits when the last of it
    /// is sent, while others read and write. An error is the last thing sent; it is a
    /// [`ResourceBusy`](io::ErrorKind::ResourceBusy) and the only one while another copy is
    /// being taken.
    async fn backup(&self, out: mpsc::Sender<io::Result<Bytes>>);

    /// Returns when the store has failed, and the disk has room to start again: it takes
    /// no more changes, and tells nothing that was not durable before, until it is opened
    /// anew.
    async fn failed(&self) -> StoreError;

    /// Bytes on disk.
    async fn disk_bytes(&self) -> Result<u64, StoreError>;

    /// Bytes that the disk has beyond what admissions leave free.
    async fn spare_bytes(&self) -> Result<u64, StoreError>;

    /// How long changes took, from their being asked for until they were on disk.
    fn commits(&self) -> Counted;
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

/// Whose a key is that was moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyOwner {
    pub tenant: TenantId,
    /// It is kept beside the key that the tenant moved to.
    pub kept: bool,
}

/// A tenant's move to another key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantMove {
    /// Fingerprints of keys, and whose they are from here on.
    pub keys: Vec<(TenantId, KeyOwner)>,
    /// What is sealed under these names from here on.
    pub credentials: Vec<(CredentialId, Bytes)>,
}

/// How long answers were seen to take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Learned {
    pub key: LearnedKey,
    /// The engine's own encoding.
    pub known: Bytes,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LearnedKey {
    /// A credential, or the fingerprint of an organization.
    pub owner: CredentialId,
    pub model: String,
    /// A lane, or what else takes time or happens to a share.
    pub what: String,
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
pub struct Head {
    pub request: Request,
    /// None while it is open.
    pub outcome: Option<Outcome>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    pub request: Request,
    pub content: Content,
}

/// A request as it is told.
#[derive(Clone, Debug, PartialEq)]
pub struct Outline {
    pub request: Request,
    /// None while it is open.
    pub ending: Option<(Outcome, Kept)>,
}

/// A finished request's answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Kept {
    Short(Bytes),
    /// Its length in bytes.
    Long(u64),
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

/// A move, and the lane that is chosen from here on.
#[derive(Clone, Debug)]
pub struct Replan {
    pub relocation: Relocation,
    pub lane: Lane,
    pub reason: String,
}

#[derive(Clone)]
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

/// Which rows of the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerRows {
    /// None for those of all tenants.
    pub of: Option<TenantId>,
    /// Hours since the Unix epoch.
    pub hours: Range<u32>,
}

impl LedgerRows {
    /// All of a tenant's from the hour `since` on.
    pub fn of_tenant(tenant: TenantId, since: u32) -> LedgerRows {
        LedgerRows {
            of: Some(tenant),
            hours: since..u32::MAX,
        }
    }
}

/// A call whose request was erased while it was open: what its ledger row needs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Unbooked {
    pub entry: Entry,
    pub model: String,
    pub tag: Option<String>,
    pub attempt: Attempt,
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

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeliveryCounts {
    pub pending: usize,
    pub dead: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    pub due: Timestamp,
    pub key: RequestKey,
    /// Tries before this one.
    pub tries: u32,
    pub first_due: Timestamp,
    pub receiver: ReceiverId,
    /// When its request ended.
    pub ended: Timestamp,
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

impl DeliveryStatus {
    /// As callers see it.
    pub const fn as_str(&self) -> &'static str {
        match self {
            DeliveryStatus::Pending { .. } => "pending",
            DeliveryStatus::Delivered { .. } => "delivered",
            DeliveryStatus::Dead { .. } => "dead",
        }
    }
}

#[derive(Debug, Error)]
pub enum StoreError {
    /// Nothing was written.
    #[error("the disk is full")]
    Full,
    /// What was read or written failed. A change may have been made, and then the store
    /// has failed ([`Store::failed`]).
    #[error("the store failed: {0}")]
    Io(#[source] io::Error),
    #[error("the store is damaged: {0}")]
    Corrupt(String),
    #[error("the store is closed")]
    Closed,
}
