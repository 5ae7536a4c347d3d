//! The durable truth: requests, places, batches, money and the feed, in one
//! ordered map of bytes.
//!
//! ```text
//! ports::Store ─► KvStore ─┬─► writer ─► changes ─► staging ─► Kv   one at a time,
//!                          │                                       synced in groups
//!                          └─► reads ─────────────────────► Kv     any number
//! ```
//!
//! `kv::Kv` is sled ([`SledStore`]) or a map in memory ([`MemoryStore`]); all
//! else is the same for both. What stands under which key is in `records`.

use std::{io, ops::Bound, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use thiserror::Error;
use tokio::{sync::mpsc, time::Instant};

mod across;
mod backup;
mod changes;
mod codec;
#[cfg(test)]
mod conformance;
mod counts;
mod damage;
mod fresh;
mod kv;
mod memory;
mod migrate;
mod open;
mod private;
mod reads;
pub(crate) mod records;
mod redo;
#[cfg(debug_assertions)]
pub mod rehearsal;
#[cfg(test)]
mod retention;
mod sled;
mod staging;
#[cfg(test)]
mod survival;
mod tally;
pub mod vault;
mod watermark;
mod writer;

pub use self::{
    backup::{BadBackup, Check, End as BackupEnd, RestoreError, restore},
    damage::{Gap, Repairs, Report, SalvageError, Salvaged, Unreadable, check, salvage},
    memory::MemoryKv,
    sled::SledKv,
};
use self::{
    changes::{admit, attempts, deliveries, places, purge, settle},
    kv::{Kv, again},
    records::{
        batch, credential, destination, issued, learned, meta, orphan, receiver, shadow, tenant,
    },
    redo::Redo,
    staging::{Change, Staging, Step, least_free},
    writer::{Horizon, Writer},
};
use crate::{
    model::{
        attempt::{Attempt, AttemptId},
        batch::Batch,
        durations::{Counted, Durations},
        hook::{Secrets, TurnedOff},
        id::{
            BatchId, CallDigest, CredentialId, DestinationId, ReceiverId, RequestId, RequestKey,
            TenantId,
        },
        issued::IssuedKey,
        ledger::{LedgerKey, LedgerRow},
        request::{Cohort, Destination, Entry, LiveQueue, Place},
        shadow::{ShadowKey, ShadowRow},
        time::Timestamp,
    },
    ports::{
        Admission, Admitted, Delivery, DeliveryCounts, DeliveryStatus, Ending, FeedEntry, FeedPage,
        Head, Idempotent, KeyOwner, Learned, LearnedKey, LedgerEntry, LedgerRows, Outline,
        Relocation, Replan, Settled, Store, StoreError, Stored, TenantMove, Unbooked,
    },
};

/// A store on disk.
pub type SledStore = KvStore<SledKv>;
/// A store that is gone with its process.
pub type MemoryStore = KvStore<MemoryKv>;

#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The database stands in `store` below it.
    pub data_dir: PathBuf,
    /// Bytes of pages that are kept in memory.
    pub cache_bytes: u64,
    /// Bytes of the disk that admissions leave free; 32 MiB at least.
    pub reserve_bytes: u64,
    /// Read everything at start, and compare it with what should be there.
    pub verify_at_start: bool,
}

/// Why a store cannot be opened, and what to do.
#[derive(Debug, Error)]
pub enum OpenError {
    #[error(
        "the data directory {dir} is in use by another process: stop it, or choose another --data-dir"
    )]
    InUse { dir: PathBuf },
    #[error(
        "the database in {dir} is damaged: {what}. None of it was thrown away: `offpeak store check` tells what can be read, `offpeak store salvage` keeps that and goes on with it, `offpeak restore` brings back a backup"
    )]
    Damaged { dir: PathBuf, what: String },
    #[error(
        "there is no database in {dir}, and beside it are {}",
        damage::told(found)
    )]
    Leftovers { dir: PathBuf, found: Vec<String> },
    #[error(
        "the database in {dir} has format {found}, this version knows up to {known}: run the version that wrote it"
    )]
    Newer {
        dir: PathBuf,
        found: u32,
        known: u32,
    },
    #[error(
        "the database in {dir} has format {found}, this version writes {known} and reads no older one: let the version that wrote it finish its work, then move the directory away to begin with an empty one"
    )]
    Older {
        dir: PathBuf,
        found: u32,
        known: u32,
    },
    #[error(
        "the database in {dir} has format {found}, this version reads {known} and would have to change it: let the version that wrote it take the backup, or copy the data directory while no server runs on it"
    )]
    Unchanged {
        dir: PathBuf,
        found: u32,
        known: u32,
    },
    #[error("the database in {dir} cannot be opened: {error}")]
    Io {
        dir: PathBuf,
        #[source]
        error: std::io::Error,
    },
}

pub struct KvStore<K> {
    // First: dropping it ends the threads, which hold the map.
    writer: Writer<K>,
    kv: Arc<K>,
    horizon: Arc<Horizon>,
    redo: Redo,
    /// Where a backup may keep what it cannot have in memory.
    spill: PathBuf,
    /// Bytes of the disk that it leaves free.
    reserve: u64,
    commits: Durations,
}

/// Between two looks whether a full disk has room again.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// Requests whose moves are one change: two operations each make one commit.
const MOVES: usize = 100;
/// Requests that one change settles or purges, so that others get their turn.
const ENDINGS: usize = 50;
/// Ledger rows that one purge looks at.
const LEDGER: usize = 512;
/// Entries that a caller's own thread may read.
const SHORT: usize = 64;

/// What a commit takes: a tenth of a millisecond on a disk that answers from its cache,
/// seconds on one that fails.
const COMMITS: &[Duration] = &[
    Duration::from_micros(250),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2_500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2_500),
    Duration::from_secs(10),
];

impl<K: Kv> KvStore<K> {
    /// [`Writer::change_each`], and how long it took.
    async fn commit<T: Send + 'static>(
        &self,
        changes: impl FnOnce(&mut Staging<K>) -> Vec<Change<T>> + Send + 'static,
    ) -> Result<Vec<Result<T, StoreError>>, StoreError> {
        let began = Instant::now();
        let results = self.writer.change_each(changes).await;
        self.commits.add(began.elapsed());
        results
    }

    async fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Staging<K>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let one = |staging: &mut Staging<K>| vec![staging.spanning(change)];
        let mut results = self.commit(one).await?;
        results.pop().unwrap_or(Err(StoreError::Closed))
    }

    /// Reads of a few entries stay on the caller's thread.
    async fn read<T: Send + 'static>(
        &self,
        entries: usize,
        read: impl FnOnce(&K) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        if entries <= SHORT || matches!(self.writer, Writer::Inline(_)) {
            return read(&self.kv);
        }
        let kv = self.kv.clone();
        tokio::task::spawn_blocking(move || read(&kv))
            .await
            .map_err(|_| StoreError::Closed)?
    }

    /// A read whose result leaves the process: what it shows is synced.
    async fn read_synced<T: Send + 'static>(
        &self,
        entries: usize,
        read: impl FnOnce(&K) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let result = self.read(entries, read).await?;
        self.horizon.reached().await?;
        Ok(result)
    }

    /// Splits a long list of changes, so that others get their turn in between.
    /// Each has a result of its own.
    async fn in_turns<I: Send + 'static, T: Send + 'static>(
        &self,
        items: Vec<I>,
        at_once: usize,
        change: impl Fn(&mut Staging<K>, I) -> Result<T, StoreError> + Send + Copy + 'static,
    ) -> Vec<Result<T, StoreError>> {
        let mut items = items.into_iter();
        let mut turns = Vec::new();
        loop {
            let part: Vec<I> = items.by_ref().take(at_once).collect();
            if part.is_empty() {
                break;
            }
            turns.push(async move {
                let count = part.len();
                let each = move |staging: &mut Staging<K>| {
                    let part = part.into_iter();
                    part.map(|item| staging.spanning(|staging| change(staging, item)))
                        .collect()
                };
                match self.commit(each).await {
                    Ok(results) => results,
                    Err(error) => (0..count).map(|_| Err(again(&error))).collect(),
                }
            });
        }
        let done = futures_util::future::join_all(turns).await;
        done.into_iter().flatten().collect()
    }

    async fn put(&self, key: Vec<u8>, value: Option<bytes::Bytes>) -> Result<(), StoreError> {
        self.change(move |staging| {
            let mut step = Step::default();
            match value {
                Some(value) => step.put(key, value),
                None => step.delete(key),
            }
            staging.stage(step)
        })
        .await
    }
}

#[async_trait]
impl<K: Kv> Store for KvStore<K> {
    async fn admit(&self, admission: Admission) -> Result<Admitted, StoreError> {
        self.change(move |staging| admit::admit(staging, admission))
            .await
    }

    async fn head(&self, key: RequestKey) -> Result<Option<Head>, StoreError> {
        self.read_synced(1, move |kv| reads::head(kv, key)).await
    }

    async fn load(&self, key: RequestKey) -> Result<Option<Stored>, StoreError> {
        self.read_synced(1, move |kv| reads::load(kv, key)).await
    }

    async fn outline(&self, key: RequestKey, short: u64) -> Result<Option<Outline>, StoreError> {
        self.read_synced(1, move |kv| reads::outline(kv, key, short))
            .await
    }

    async fn answer_part(
        &self,
        key: RequestKey,
        from: u64,
        most: usize,
    ) -> Result<Option<Bytes>, StoreError> {
        let most = most.min(SHORT * records::chunk::BYTES);
        self.read_synced(1, move |kv| reads::answer_part(kv, key, from, most))
            .await
    }

    async fn place(
        &self,
        key: RequestKey,
        batches: &[BatchId],
    ) -> Result<Option<Place>, StoreError> {
        reads::place(&*self.kv, key, batches)
    }

    async fn relocate(&self, moves: Vec<Relocation>) -> Vec<Result<bool, StoreError>> {
        self.in_turns(moves, MOVES, places::relocate).await
    }

    async fn replan(&self, replan: Replan) -> Result<bool, StoreError> {
        self.change(move |staging| places::replan(staging, replan))
            .await
    }

    async fn set_aside(&self, entry: Entry, place: Place) -> Result<bool, StoreError> {
        self.change(move |staging| places::set_aside(staging, &entry, &place))
            .await
    }

    async fn settle(&self, endings: Vec<Ending>) -> Vec<Result<Settled, StoreError>> {
        self.in_turns(endings, ENDINGS, settle::settle).await
    }

    async fn list(
        &self,
        tenant: TenantId,
        before: Option<RequestId>,
        limit: usize,
    ) -> Result<Vec<Head>, StoreError> {
        self.read_synced(limit, move |kv| reads::list(kv, tenant, before, limit))
            .await
    }

    async fn find(&self, id: RequestId) -> Result<Option<RequestKey>, StoreError> {
        self.read_synced(usize::MAX, move |kv| across::find(kv, id))
            .await
    }

    async fn newest(
        &self,
        before: Option<RequestId>,
        limit: usize,
    ) -> Result<Vec<Head>, StoreError> {
        self.read_synced(usize::MAX, move |kv| across::newest(kv, before, limit))
            .await
    }

    async fn erase(&self, key: RequestKey) -> Result<bool, StoreError> {
        self.change(move |staging| purge::erase(staging, key)).await
    }

    async fn by_idempotency(
        &self,
        tenant: TenantId,
        idempotency: CallDigest,
    ) -> Result<Option<Idempotent>, StoreError> {
        self.read_synced(1, move |kv| reads::by_idempotency(kv, tenant, idempotency))
            .await
    }

    async fn release(&self, key: RequestKey, digest: CallDigest) -> Result<(), StoreError> {
        self.put(orphan::key(digest, key), None).await
    }

    async fn unreleased(&self) -> Result<Vec<(CallDigest, RequestKey)>, StoreError> {
        self.read(usize::MAX, |kv| reads::unreleased(kv)).await
    }

    async fn put_attempt(&self, key: RequestKey, attempt: Attempt) -> Result<bool, StoreError> {
        self.change(move |staging| attempts::record(staging, key, &attempt))
            .await
    }

    async fn account(
        &self,
        key: RequestKey,
        attempt: Attempt,
        ledger: LedgerEntry,
    ) -> Result<bool, StoreError> {
        self.change(move |staging| attempts::account(staging, key, &attempt, &ledger))
            .await
    }

    async fn attempts(&self, key: RequestKey) -> Result<Vec<Attempt>, StoreError> {
        self.read_synced(1, move |kv| reads::attempts(kv, key))
            .await
    }

    async fn open_attempts(&self) -> Result<Vec<(RequestKey, AttemptId)>, StoreError> {
        self.read(usize::MAX, |kv| reads::open_attempts(kv)).await
    }

    async fn unbooked(&self, of: Option<RequestKey>) -> Result<Vec<Unbooked>, StoreError> {
        let entries = of.map_or(usize::MAX, |_| 1);
        self.read(entries, move |kv| reads::unbooked(kv, of)).await
    }

    async fn scan_queue(
        &self,
        after: Option<(Cohort, RequestKey)>,
        limit: usize,
    ) -> Result<Vec<(Cohort, Entry)>, StoreError> {
        self.read(limit, move |kv| reads::scan_queue(kv, after, limit))
            .await
    }

    async fn queued(&self, cohort: Cohort, limit: usize) -> Result<Vec<Entry>, StoreError> {
        self.read(limit, move |kv| reads::queued(kv, cohort, limit))
            .await
    }

    async fn live(
        &self,
        queue: LiveQueue,
        from: Bound<(Timestamp, RequestKey)>,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        self.read(limit, move |kv| reads::live(kv, queue, from, limit))
            .await
    }

    async fn scan_live(
        &self,
        after: Option<Entry>,
        limit: usize,
    ) -> Result<Vec<(Entry, Option<BatchId>)>, StoreError> {
        self.read(limit, move |kv| reads::scan_live(kv, after, limit))
            .await
    }

    async fn taken_out_of(&self, entry: Entry) -> Result<Option<BatchId>, StoreError> {
        self.read(1, move |kv| reads::taken_out_of(kv, &entry))
            .await
    }

    async fn lines(
        &self,
        batch: BatchId,
        after: Option<RequestId>,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        self.read(limit, move |kv| reads::lines(kv, batch, after, limit))
            .await
    }

    async fn put_batch(&self, batch: &Batch) -> Result<(), StoreError> {
        self.put(batch::key(batch.id), Some(batch::encode(batch)))
            .await
    }

    async fn batch(&self, id: BatchId) -> Result<Option<Batch>, StoreError> {
        self.read(1, move |kv| reads::batch(kv, id)).await
    }

    async fn batches_with_lines(&self) -> Result<Vec<BatchId>, StoreError> {
        self.read(usize::MAX, |kv| reads::batches_with_lines(kv))
            .await
    }

    async fn batches(&self, since: Timestamp) -> Result<Vec<Batch>, StoreError> {
        self.read(usize::MAX, move |kv| reads::batches(kv, since))
            .await
    }

    async fn newest_batches(&self, limit: usize) -> Result<Vec<Batch>, StoreError> {
        self.read_synced(limit, move |kv| reads::newest_batches(kv, limit))
            .await
    }

    async fn destinations(&self) -> Result<Vec<Destination>, StoreError> {
        self.read(usize::MAX, |kv| reads::destinations(kv)).await
    }

    async fn drop_destination(&self, id: DestinationId) -> Result<(), StoreError> {
        self.put(destination::key(id), None).await
    }

    async fn credential(&self, id: CredentialId) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(1, move |kv| reads::credential(kv, id)).await
    }

    async fn drop_credential(&self, id: CredentialId) -> Result<(), StoreError> {
        self.put(credential::key(id), None).await
    }

    async fn vault_roots(&self) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(1, |kv| reads::vault_roots(kv)).await
    }

    async fn put_vault_roots(&self, sealed: bytes::Bytes) -> Result<(), StoreError> {
        let value = meta::encode(&sealed.to_vec());
        self.put(meta::roots_key(), Some(value)).await
    }

    async fn move_tenant(&self, moving: TenantMove) -> Result<(), StoreError> {
        self.change(move |staging| {
            let mut step = Step::default();
            for (print, owner) in moving.keys {
                step.put(tenant::key(print), tenant::encode(&owner));
            }
            for (id, sealed) in moving.credentials {
                let name = credential::key(id);
                if staging.get(&name)?.is_some() {
                    step.put(name, credential::encode(&sealed));
                }
            }
            staging.stage(step)
        })
        .await
    }

    async fn tenants(&self) -> Result<Vec<(TenantId, KeyOwner)>, StoreError> {
        self.read(usize::MAX, |kv| reads::tenants(kv)).await
    }

    async fn put_issued(&self, key: &IssuedKey) -> Result<(), StoreError> {
        self.put(issued::key(key.id), Some(issued::encode(key)))
            .await
    }

    async fn issued(&self) -> Result<Vec<IssuedKey>, StoreError> {
        self.read(usize::MAX, |kv| reads::issued_keys(kv)).await
    }

    async fn put_learned(&self, learned: Learned) -> Result<(), StoreError> {
        self.put(learned::key(&learned.key), Some(learned::encode(&learned)))
            .await
    }

    async fn forget_learned(&self, key: LearnedKey) -> Result<(), StoreError> {
        self.put(learned::key(&key), None).await
    }

    async fn learned(&self) -> Result<Vec<Learned>, StoreError> {
        self.read(usize::MAX, |kv| reads::learned(kv)).await
    }

    async fn put_shadow(
        &self,
        rows: Vec<(ShadowKey, Option<ShadowRow>)>,
    ) -> Vec<Result<(), StoreError>> {
        let put = |staging: &mut Staging<K>, (key, row): (ShadowKey, Option<ShadowRow>)| {
            let mut step = Step::default();
            match row {
                Some(row) => step.put(shadow::key(&key), shadow::encode(&key, &row)),
                None => step.delete(shadow::key(&key)),
            }
            staging.stage(step)
        };
        self.in_turns(rows, MOVES, put).await
    }

    async fn shadow(&self) -> Result<Vec<(ShadowKey, ShadowRow)>, StoreError> {
        self.read(usize::MAX, |kv| reads::shadow(kv)).await
    }

    async fn feed(
        &self,
        tenant: TenantId,
        after: u64,
        limit: usize,
    ) -> Result<FeedPage, StoreError> {
        self.read_synced(limit, move |kv| reads::feed(kv, tenant, after, limit))
            .await
    }

    async fn recent(
        &self,
        of: Option<TenantId>,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<FeedEntry>, StoreError> {
        self.read_synced(usize::MAX, move |kv| across::recent(kv, of, before, limit))
            .await
    }

    async fn due_deliveries(
        &self,
        now: Timestamp,
        after: Option<(Timestamp, RequestKey)>,
        limit: usize,
    ) -> Result<Vec<Delivery>, StoreError> {
        self.read_synced(limit, move |kv| {
            reads::due_deliveries(kv, now, after, limit)
        })
        .await
    }

    async fn next_delivery(&self) -> Result<Option<Timestamp>, StoreError> {
        self.read(1, |kv| reads::next_delivery(kv)).await
    }

    async fn shelve_deliveries(&self, shelved: Vec<Delivery>) -> Result<(), StoreError> {
        let shelved = self.in_turns(shelved, MOVES, deliveries::shelve).await;
        shelved.into_iter().collect()
    }

    async fn backlog(
        &self,
        receiver: ReceiverId,
        after: Option<(Timestamp, RequestKey)>,
        limit: usize,
    ) -> Result<Vec<Delivery>, StoreError> {
        self.read_synced(limit, move |kv| reads::backlog(kv, receiver, after, limit))
            .await
    }

    async fn backlogs(
        &self,
        after: Option<ReceiverId>,
        limit: usize,
    ) -> Result<Vec<Delivery>, StoreError> {
        self.read(limit, move |kv| reads::backlogs(kv, after, limit))
            .await
    }

    async fn record_delivery(
        &self,
        delivery: Delivery,
        status: DeliveryStatus,
    ) -> Result<(), StoreError> {
        self.change(move |staging| deliveries::record(staging, &delivery, &status))
            .await
    }

    async fn delivery_status(&self, key: RequestKey) -> Result<Option<DeliveryStatus>, StoreError> {
        self.read_synced(1, move |kv| reads::delivery_status(kv, key))
            .await
    }

    async fn deliveries(
        &self,
        tenant: TenantId,
        before: Option<RequestId>,
        limit: usize,
    ) -> Result<Vec<(RequestId, DeliveryStatus)>, StoreError> {
        self.read_synced(limit, move |kv| {
            reads::deliveries(kv, tenant, before, limit)
        })
        .await
    }

    async fn dead_letters(
        &self,
        tenant: TenantId,
        receiver: Option<ReceiverId>,
        after: Option<(ReceiverId, RequestId)>,
        limit: usize,
    ) -> Result<Vec<(ReceiverId, RequestId)>, StoreError> {
        self.read_synced(limit, move |kv| {
            reads::dead_letters(kv, tenant, receiver, after, limit)
        })
        .await
    }

    async fn all_dead_letters(
        &self,
        after: Option<(ReceiverId, RequestKey)>,
        limit: usize,
    ) -> Result<Vec<(ReceiverId, RequestKey)>, StoreError> {
        self.read_synced(limit, move |kv| across::dead_letters(kv, after, limit))
            .await
    }

    fn delivery_counts(&self) -> DeliveryCounts {
        across::delivery_counts(&*self.kv)
    }

    async fn turn_off(&self, off: TurnedOff) -> Result<(), StoreError> {
        let key = receiver::key(off.tenant, off.receiver);
        self.put(key, Some(receiver::encode(&off))).await
    }

    async fn turn_on(&self, tenant: TenantId, receiver: ReceiverId) -> Result<(), StoreError> {
        self.put(receiver::key(tenant, receiver), None).await
    }

    async fn turned_off(
        &self,
        tenant: TenantId,
        receiver: ReceiverId,
    ) -> Result<Option<TurnedOff>, StoreError> {
        self.read(1, move |kv| reads::turned_off(kv, tenant, receiver))
            .await
    }

    async fn all_turned_off(
        &self,
        tenant: TenantId,
        limit: usize,
    ) -> Result<Vec<TurnedOff>, StoreError> {
        self.read_synced(limit, move |kv| reads::all_turned_off(kv, tenant, limit))
            .await
    }

    async fn purge_turned_off(&self, horizon: Timestamp) -> Result<(), StoreError> {
        let read = move |kv: &K| reads::turned_off_before(kv, horizon);
        let off = self.read(usize::MAX, read).await?;
        let forget = move |staging: &mut Staging<K>, name: Bytes| {
            deliveries::forget_turned_off(staging, &name, horizon)
        };
        let done = self.in_turns(off, MOVES, forget).await;
        done.into_iter().collect()
    }

    async fn hook_secrets(&self, tenant: TenantId) -> Result<Secrets, StoreError> {
        self.read_synced(1, move |kv| reads::hook_secrets(kv, tenant))
            .await
    }

    async fn rotate_hook_secret(
        &self,
        tenant: TenantId,
        now: Timestamp,
        overlap: Duration,
    ) -> Result<Secrets, StoreError> {
        self.change(move |staging| deliveries::rotate(staging, tenant, now, overlap))
            .await
    }

    async fn ledger_page(
        &self,
        rows: &LedgerRows,
        after: Option<&LedgerKey>,
        limit: usize,
    ) -> Result<Vec<(LedgerKey, LedgerRow)>, StoreError> {
        let (rows, after) = (rows.clone(), after.cloned());
        self.read_synced(usize::MAX, move |kv| {
            across::ledger(kv, &rows, after.as_ref(), limit)
        })
        .await
    }

    async fn purge(&self, horizon: Timestamp, limit: usize) -> Result<usize, StoreError> {
        let mut removed = 0;
        let mut from = None;
        while removed < limit {
            let part = (limit - removed).min(ENDINGS);
            let (count, next) = self
                .change(move |staging| purge::purge(staging, horizon, from, part))
                .await?;
            removed += count;
            from = next;
            if from.is_none() {
                break;
            }
        }
        Ok(removed)
    }

    async fn purge_batches(&self, horizon: Timestamp) -> Result<(), StoreError> {
        self.change(move |staging| purge::purge_batches(staging, horizon))
            .await
    }

    async fn purge_ledger(
        &self,
        hour: u32,
        from: Option<TenantId>,
    ) -> Result<Option<TenantId>, StoreError> {
        let read = move |kv: &K| reads::old_ledger(kv, hour, from, LEDGER);
        let (old, next) = self.read(LEDGER, read).await?;
        let remove = |staging: &mut Staging<K>, name: Bytes| {
            let mut step = Step::default();
            step.delete(name.to_vec());
            staging.stage(step)
        };
        let done = self.in_turns(old, MOVES, remove).await;
        done.into_iter().collect::<Result<(), _>>()?;
        Ok(next)
    }

    async fn backup(&self, out: mpsc::Sender<io::Result<Bytes>>) {
        let (kv, redo, spill) = (self.kv.clone(), self.redo.clone(), self.spill.clone());
        let (reserve, told) = (self.reserve, out.clone());
        let take = move || backup::take(&kv, &redo, &spill, reserve, out);
        let taken = tokio::task::spawn_blocking(take).await;
        let failed = match taken {
            Ok(Ok(())) => return,
            Ok(Err(StoreError::Io(error))) => error,
            Ok(Err(error)) => io::Error::other(error.to_string()),
            Err(died) => io::Error::other(died),
        };
        tracing::error!(error = %failed, "a backup broke off");
        // Who has gone away needs no answer.
        let _ = told.send(Err(failed)).await;
    }

    async fn failed(&self) -> StoreError {
        let error = self.horizon.failed().await;
        let roomy = |free| free >= least_free(self.reserve);
        // Where the disk cannot be asked, the next start will tell.
        while !self.kv.free_bytes().map_or(true, roomy) {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        error
    }

    async fn disk_bytes(&self) -> Result<u64, StoreError> {
        self.read(usize::MAX, |kv| kv.disk_bytes()).await
    }

    async fn spare_bytes(&self) -> Result<u64, StoreError> {
        let free = self.read(1, |kv| kv.free_bytes()).await?;
        Ok(free.saturating_sub(self.reserve))
    }

    fn commits(&self) -> Counted {
        self.commits.counted()
    }
}
