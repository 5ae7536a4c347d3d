//! A store and a provider that die: from then on nothing is heard of them, as
//! if the process had been killed. What was done before stays done.

use std::{
    collections::BTreeSet,
    future::Future,
    ops::Bound,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use offpeak::{
    model::{
        attempt::{Attempt, AttemptId},
        batch::Batch,
        durations::Counted,
        endpoint::Endpoint,
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
    ports::*,
};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// One life of the process, and its diary.
pub struct Life {
    dead: CancellationToken,
    steps: Mutex<Steps>,
    clock: Arc<dyn Clock>,
}

#[derive(Default)]
struct Steps {
    /// Commits and effects until death; none: for ever.
    left: Option<u32>,
    taken: u32,
    diary: Vec<String>,
}

impl Life {
    pub fn new(clock: Arc<dyn Clock>, left: Option<u32>) -> Arc<Life> {
        let steps = Steps {
            left,
            ..Steps::default()
        };
        Arc::new(Life {
            dead: CancellationToken::new(),
            steps: Mutex::new(steps),
            clock,
        })
    }

    pub fn end(&self) {
        self.dead.cancel();
    }

    pub async fn ended(&self) {
        self.dead.cancelled().await;
    }

    /// What somebody outside hears; none where this life ends before.
    pub async fn unless_it_ends<T>(&self, what: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.ended() => None,
            done = what => Some(done),
        }
    }

    pub fn is_over(&self) -> bool {
        self.dead.is_cancelled()
    }

    pub fn diary(&self) -> Vec<String> {
        self.steps.lock().diary.clone()
    }

    /// The dead hear nothing.
    async fn hear<T>(&self, what: impl Future<Output = T>) -> T {
        match self.dead.run_until_cancelled(what).await {
            Some(heard) if !self.is_over() => heard,
            _ => std::future::pending().await,
        }
    }

    /// Something that the world remembers. The last one's reply is not heard.
    async fn step<T>(&self, name: String, what: impl Future<Output = T>) -> T {
        let done = self.hear(what).await;
        {
            let mut steps = self.steps.lock();
            steps.taken += 1;
            steps.diary.push(format!("{} {name}", self.clock.now()));
            if steps.left == Some(steps.taken) {
                self.dead.cancel();
            }
        }
        self.hear(async { done }).await
    }
}

/// What goes wrong in the store, by the name of its method. It outlives a life.
#[derive(Default)]
pub struct Trouble {
    script: Mutex<Vec<(&'static str, How, u32)>>,
    /// What is read of this cohort's queue is damaged.
    pub damaged: Mutex<Option<Cohort>>,
    /// Requests whose records cannot be read, and whose attempts cannot.
    spoilt: Mutex<(BTreeSet<RequestKey>, BTreeSet<RequestKey>)>,
    /// Of so many writes one finds no room; none where it is zero.
    refused: AtomicU64,
    writes: AtomicU64,
    /// Entries that were read of queues of live work.
    pub read_live: AtomicU64,
    /// Deliveries that were read where they were due or waited.
    pub read_deliveries: AtomicU64,
}

#[derive(Clone, Copy, Debug)]
pub enum How {
    /// Nothing is written.
    Refuse,
    /// It is written, and told as a failure.
    FailAfter,
    /// Something that it needs cannot be read.
    Corrupt,
    Panic,
    Slow(Duration),
    /// It is done at once, and told so late.
    LateReply(Duration),
}

impl Trouble {
    pub fn on(&self, method: &'static str, how: How, times: u32) {
        self.script.lock().push((method, how, times));
    }

    /// From here on, of so many writes one finds no room.
    pub fn refuse_one_in(&self, writes: u64) {
        self.refused.store(writes, Ordering::Relaxed);
    }

    pub fn spoil(&self, key: RequestKey) {
        self.spoilt.lock().0.insert(key);
    }

    pub fn spoil_attempts(&self, key: RequestKey) {
        self.spoilt.lock().1.insert(key);
    }

    fn record(&self, key: &RequestKey) -> Result<(), StoreError> {
        match self.spoilt.lock().0.contains(key) {
            true => Err(StoreError::Corrupt(format!("request {}", key.id))),
            false => Ok(()),
        }
    }

    fn room(&self) -> Result<(), StoreError> {
        let writes = self.writes.fetch_add(1, Ordering::Relaxed);
        match self.refused.load(Ordering::Relaxed) {
            0 => Ok(()),
            refused if !writes.is_multiple_of(refused) => Ok(()),
            _ => Err(StoreError::Full),
        }
    }

    /// Makes the changes that find room, and puts the others between.
    async fn each<I, T>(
        &self,
        items: Vec<I>,
        sound: impl Fn(&I) -> Result<(), StoreError>,
        make: impl AsyncFnOnce(Vec<I>) -> Vec<Result<T, StoreError>>,
    ) -> Vec<Result<T, StoreError>> {
        let room: Vec<Result<(), StoreError>> = items
            .iter()
            .map(|item| sound(item).and_then(|()| self.room()))
            .collect();
        let kept = items.into_iter().zip(&room);
        let kept = kept.filter_map(|(item, room)| room.is_ok().then_some(item));
        let mut made = make(kept.collect()).await.into_iter();
        let merged = room
            .into_iter()
            .map(|room| room.and_then(|()| made.next().unwrap()));
        merged.collect()
    }

    fn strike(&self, method: &str) -> Option<How> {
        let mut script = self.script.lock();
        let (_, how, times) = script.iter_mut().find(|(on, ..)| *on == method)?;
        let how = *how;
        *times -= 1;
        script.retain(|(.., times)| *times > 0);
        Some(how)
    }

    async fn befall<T>(
        &self,
        method: &str,
        what: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        match self.strike(method) {
            None => what.await,
            Some(How::Refuse) => Err(StoreError::Full),
            Some(How::Corrupt) => Err(StoreError::Corrupt("as the test wants it".into())),
            Some(How::FailAfter) => {
                what.await?;
                Err(StoreError::Io(std::io::Error::other("told as a failure")))
            }
            Some(How::Panic) => panic!("{method} panics, as the test wants it"),
            Some(How::Slow(by)) => {
                tokio::time::sleep(by).await;
                what.await
            }
            Some(How::LateReply(by)) => {
                let done = what.await;
                tokio::time::sleep(by).await;
                done
            }
        }
    }
}

/// A store or a provider with this life.
pub struct Mortal<T: ?Sized> {
    pub inner: Arc<T>,
    pub life: Arc<Life>,
    pub trouble: Arc<Trouble>,
}

/// Something that the provider does.
macro_rules! effect {
    ($self:ident, $name:expr, $call:expr) => {
        $self.life.step($name, $call).await
    };
}

macro_rules! commit {
    ($self:ident, $name:expr, $call:expr) => {
        $self
            .life
            .step($name, async {
                $self.trouble.room()?;
                $call.await
            })
            .await
    };
}

#[async_trait]
impl Store for Mortal<dyn Store> {
    async fn admit(&self, admission: Admission) -> Result<Admitted, StoreError> {
        let name = format!("admit {} {:?}", admission.request.key.id, admission.place);
        let admitted = self.trouble.befall("admit", self.inner.admit(admission));
        commit!(self, name, admitted)
    }
    async fn head(&self, key: RequestKey) -> Result<Option<Head>, StoreError> {
        let read = async {
            self.trouble.record(&key)?;
            self.inner.head(key).await
        };
        let head = self.trouble.befall("head", read);
        self.life.hear(head).await
    }
    async fn load(&self, key: RequestKey) -> Result<Option<Stored>, StoreError> {
        self.trouble.record(&key)?;
        self.life.hear(self.inner.load(key)).await
    }
    async fn outline(&self, key: RequestKey, short: u64) -> Result<Option<Outline>, StoreError> {
        self.life.hear(self.inner.outline(key, short)).await
    }
    async fn answer_part(
        &self,
        key: RequestKey,
        from: u64,
        most: usize,
    ) -> Result<Option<Bytes>, StoreError> {
        self.life
            .hear(self.inner.answer_part(key, from, most))
            .await
    }
    async fn place(&self, key: RequestKey, of: &[BatchId]) -> Result<Option<Place>, StoreError> {
        self.life.hear(self.inner.place(key, of)).await
    }
    async fn relocate(&self, moves: Vec<Relocation>) -> Vec<Result<bool, StoreError>> {
        let name = match moves.first() {
            Some(first) => format!("relocate {} {:?}→{:?}", moves.len(), first.from, first.to),
            None => "relocate nothing".into(),
        };
        let moved = self.trouble.each(
            moves,
            |_| Ok(()),
            async |moves| self.inner.relocate(moves).await,
        );
        self.life.step(name, moved).await
    }
    async fn replan(&self, replan: Replan) -> Result<bool, StoreError> {
        let to = replan.relocation.to;
        let name = format!("replan {} →{to:?}", replan.relocation.entry.key.id);
        let replanned = self.trouble.befall("replan", self.inner.replan(replan));
        commit!(self, name, replanned)
    }
    async fn settle(&self, endings: Vec<Ending>) -> Vec<Result<Settled, StoreError>> {
        let told = endings
            .iter()
            .map(|e| format!(" {}={}", e.key.id, e.outcome.status));
        let name = format!("settle{}", told.collect::<String>());
        let settle = async |endings| {
            let count = Vec::len(&endings);
            let settle = async { Ok(self.inner.settle(endings).await) };
            match self.trouble.befall("settle", settle).await {
                Ok(settled) => settled,
                Err(StoreError::Corrupt(what)) => (0..count)
                    .map(|_| Err(StoreError::Corrupt(what.clone())))
                    .collect(),
                Err(_) => (0..count).map(|_| Err(StoreError::Full)).collect(),
            }
        };
        let sound = |ending: &Ending| self.trouble.record(&ending.key);
        let settled = self.trouble.each(endings, sound, settle);
        self.life.step(name, settled).await
    }
    async fn list(
        &self,
        tenant: TenantId,
        before: Option<RequestId>,
        limit: usize,
    ) -> Result<Vec<Head>, StoreError> {
        self.life.hear(self.inner.list(tenant, before, limit)).await
    }
    async fn find(&self, id: RequestId) -> Result<Option<RequestKey>, StoreError> {
        self.life.hear(self.inner.find(id)).await
    }
    async fn newest(
        &self,
        before: Option<RequestId>,
        limit: usize,
    ) -> Result<Vec<Head>, StoreError> {
        self.life.hear(self.inner.newest(before, limit)).await
    }
    async fn erase(&self, key: RequestKey) -> Result<bool, StoreError> {
        commit!(self, format!("erase {}", key.id), self.inner.erase(key))
    }
    async fn by_idempotency(
        &self,
        tenant: TenantId,
        idempotency: CallDigest,
    ) -> Result<Option<Idempotent>, StoreError> {
        let found = self.inner.by_idempotency(tenant, idempotency);
        self.life.hear(found).await
    }
    async fn release(&self, key: RequestKey, digest: CallDigest) -> Result<(), StoreError> {
        let name = format!("release {}", key.id);
        commit!(self, name, self.inner.release(key, digest))
    }
    async fn unreleased(&self) -> Result<Vec<(CallDigest, RequestKey)>, StoreError> {
        self.life.hear(self.inner.unreleased()).await
    }
    async fn put_attempt(&self, key: RequestKey, attempt: Attempt) -> Result<bool, StoreError> {
        let name = format!("attempt {} {:?} {:?}", key.id, attempt.id, attempt.state);
        commit!(self, name, self.inner.put_attempt(key, attempt))
    }
    async fn account(
        &self,
        key: RequestKey,
        attempt: Attempt,
        ledger: LedgerEntry,
    ) -> Result<bool, StoreError> {
        let name = format!("account {} {:?} {:?}", key.id, attempt.id, attempt.state);
        commit!(self, name, self.inner.account(key, attempt, ledger))
    }
    async fn attempts(&self, key: RequestKey) -> Result<Vec<Attempt>, StoreError> {
        if self.trouble.spoilt.lock().1.contains(&key) {
            return Err(StoreError::Corrupt(format!("attempts of {}", key.id)));
        }
        self.life.hear(self.inner.attempts(key)).await
    }
    async fn open_attempts(&self) -> Result<Vec<(RequestKey, AttemptId)>, StoreError> {
        self.life.hear(self.inner.open_attempts()).await
    }
    async fn unbooked(&self, of: Option<RequestKey>) -> Result<Vec<Unbooked>, StoreError> {
        self.life.hear(self.inner.unbooked(of)).await
    }
    async fn scan_queue(
        &self,
        after: Option<(Cohort, RequestKey)>,
        limit: usize,
    ) -> Result<Vec<(Cohort, Entry)>, StoreError> {
        self.life.hear(self.inner.scan_queue(after, limit)).await
    }
    async fn queued(&self, cohort: Cohort, limit: usize) -> Result<Vec<Entry>, StoreError> {
        if *self.trouble.damaged.lock() == Some(cohort) {
            return Err(StoreError::Corrupt("a queue entry".into()));
        }
        let queued = self.inner.queued(cohort, limit);
        self.life.hear(self.trouble.befall("queued", queued)).await
    }
    async fn live(
        &self,
        queue: LiveQueue,
        from: Bound<(Timestamp, RequestKey)>,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        let live = self.inner.live(queue, from, limit);
        let live = self.life.hear(self.trouble.befall("live", live)).await?;
        let read = &self.trouble.read_live;
        read.fetch_add(live.len() as u64, Ordering::Relaxed);
        Ok(live)
    }
    async fn scan_live(
        &self,
        after: Option<Entry>,
        limit: usize,
    ) -> Result<Vec<(Entry, Option<BatchId>)>, StoreError> {
        self.life.hear(self.inner.scan_live(after, limit)).await
    }
    async fn taken_out_of(&self, entry: Entry) -> Result<Option<BatchId>, StoreError> {
        self.life.hear(self.inner.taken_out_of(entry)).await
    }
    async fn batches_with_lines(&self) -> Result<Vec<BatchId>, StoreError> {
        self.life.hear(self.inner.batches_with_lines()).await
    }
    async fn lines(
        &self,
        batch: BatchId,
        after: Option<RequestId>,
        limit: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        self.life.hear(self.inner.lines(batch, after, limit)).await
    }
    async fn put_batch(&self, batch: &Batch) -> Result<(), StoreError> {
        let name = format!("batch {} {:?}", batch.id, batch.state);
        let method = match batch.state.is_open() {
            true => "put_batch",
            false => "put_batch that ended",
        };
        let put = self.inner.put_batch(batch);
        commit!(self, name, self.trouble.befall(method, put))
    }
    async fn batch(&self, id: BatchId) -> Result<Option<Batch>, StoreError> {
        self.life.hear(self.inner.batch(id)).await
    }
    async fn batches(&self, since: Timestamp) -> Result<Vec<Batch>, StoreError> {
        self.life.hear(self.inner.batches(since)).await
    }
    async fn destinations(&self) -> Result<Vec<Destination>, StoreError> {
        self.life.hear(self.inner.destinations()).await
    }
    async fn credential(&self, id: CredentialId) -> Result<Option<Vec<u8>>, StoreError> {
        self.life.hear(self.inner.credential(id)).await
    }
    async fn drop_credential(&self, id: CredentialId) -> Result<(), StoreError> {
        let name = "drop credential".into();
        let dropped = self.inner.drop_credential(id);
        commit!(self, name, self.trouble.befall("drop_credential", dropped))
    }
    async fn vault_roots(&self) -> Result<Option<Vec<u8>>, StoreError> {
        self.life.hear(self.inner.vault_roots()).await
    }
    async fn put_vault_roots(&self, sealed: bytes::Bytes) -> Result<(), StoreError> {
        commit!(
            self,
            "vault roots".into(),
            self.inner.put_vault_roots(sealed)
        )
    }
    async fn move_tenant(&self, moving: TenantMove) -> Result<(), StoreError> {
        let moved = self.inner.move_tenant(moving);
        let moved = self.trouble.befall("move_tenant", moved);
        commit!(self, "move tenant".into(), moved)
    }
    async fn tenants(&self) -> Result<Vec<(TenantId, KeyOwner)>, StoreError> {
        self.life.hear(self.inner.tenants()).await
    }
    async fn put_issued(&self, key: &IssuedKey) -> Result<(), StoreError> {
        let put = self.inner.put_issued(key);
        let put = self.trouble.befall("put_issued", put);
        commit!(self, "issued key".into(), put)
    }
    async fn issued(&self) -> Result<Vec<IssuedKey>, StoreError> {
        self.life.hear(self.inner.issued()).await
    }
    async fn put_learned(&self, learned: Learned) -> Result<(), StoreError> {
        commit!(self, "learned".into(), self.inner.put_learned(learned))
    }
    async fn forget_learned(&self, key: LearnedKey) -> Result<(), StoreError> {
        commit!(
            self,
            "forget learned".into(),
            self.inner.forget_learned(key)
        )
    }
    async fn learned(&self) -> Result<Vec<Learned>, StoreError> {
        self.life.hear(self.inner.learned()).await
    }
    async fn put_shadow(
        &self,
        rows: Vec<(ShadowKey, Option<ShadowRow>)>,
    ) -> Vec<Result<(), StoreError>> {
        self.life
            .step("shadow".into(), self.inner.put_shadow(rows))
            .await
    }
    async fn shadow(&self) -> Result<Vec<(ShadowKey, ShadowRow)>, StoreError> {
        self.life.hear(self.inner.shadow()).await
    }
    async fn feed(&self, of: TenantId, after: u64, limit: usize) -> Result<FeedPage, StoreError> {
        self.life.hear(self.inner.feed(of, after, limit)).await
    }
    async fn recent(
        &self,
        of: Option<TenantId>,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<FeedEntry>, StoreError> {
        self.life.hear(self.inner.recent(of, before, limit)).await
    }
    async fn due_deliveries(
        &self,
        now: Timestamp,
        after: Option<(Timestamp, RequestKey)>,
        limit: usize,
    ) -> Result<Vec<Delivery>, StoreError> {
        let due = self.inner.due_deliveries(now, after, limit);
        let due = self.life.hear(due).await?;
        let read = &self.trouble.read_deliveries;
        read.fetch_add(due.len() as u64, Ordering::Relaxed);
        Ok(due)
    }
    async fn next_delivery(&self) -> Result<Option<Timestamp>, StoreError> {
        self.life.hear(self.inner.next_delivery()).await
    }
    async fn shelve_deliveries(&self, shelved: Vec<Delivery>) -> Result<(), StoreError> {
        let name = format!("shelve {}", shelved.len());
        let shelved = self.inner.shelve_deliveries(shelved);
        commit!(self, name, self.trouble.befall("shelve", shelved))
    }
    async fn backlog(
        &self,
        receiver: ReceiverId,
        after: Option<(Timestamp, RequestKey)>,
        limit: usize,
    ) -> Result<Vec<Delivery>, StoreError> {
        let backlog = self.inner.backlog(receiver, after, limit);
        let backlog = self.life.hear(backlog).await?;
        let read = &self.trouble.read_deliveries;
        read.fetch_add(backlog.len() as u64, Ordering::Relaxed);
        Ok(backlog)
    }
    async fn backlogs(
        &self,
        after: Option<ReceiverId>,
        limit: usize,
    ) -> Result<Vec<Delivery>, StoreError> {
        self.life.hear(self.inner.backlogs(after, limit)).await
    }
    async fn deliveries(
        &self,
        tenant: TenantId,
        before: Option<RequestId>,
        limit: usize,
    ) -> Result<Vec<(RequestId, DeliveryStatus)>, StoreError> {
        let deliveries = self.inner.deliveries(tenant, before, limit);
        self.life.hear(deliveries).await
    }
    async fn dead_letters(
        &self,
        tenant: TenantId,
        receiver: Option<ReceiverId>,
        after: Option<(ReceiverId, RequestId)>,
        limit: usize,
    ) -> Result<Vec<(ReceiverId, RequestId)>, StoreError> {
        let dead = self.inner.dead_letters(tenant, receiver, after, limit);
        self.life.hear(dead).await
    }
    async fn turn_off(&self, off: TurnedOff) -> Result<(), StoreError> {
        let name = format!("turn off {}", off.target);
        commit!(self, name, self.inner.turn_off(off))
    }
    async fn turn_on(&self, tenant: TenantId, receiver: ReceiverId) -> Result<(), StoreError> {
        commit!(self, "turn on".into(), self.inner.turn_on(tenant, receiver))
    }
    async fn turned_off(
        &self,
        tenant: TenantId,
        receiver: ReceiverId,
    ) -> Result<Option<TurnedOff>, StoreError> {
        self.life
            .hear(self.inner.turned_off(tenant, receiver))
            .await
    }
    async fn all_turned_off(
        &self,
        tenant: TenantId,
        limit: usize,
    ) -> Result<Vec<TurnedOff>, StoreError> {
        self.life
            .hear(self.inner.all_turned_off(tenant, limit))
            .await
    }
    async fn purge_turned_off(&self, horizon: Timestamp) -> Result<(), StoreError> {
        self.life.hear(self.inner.purge_turned_off(horizon)).await
    }
    async fn hook_secrets(&self, tenant: TenantId) -> Result<Secrets, StoreError> {
        self.life.hear(self.inner.hook_secrets(tenant)).await
    }
    async fn rotate_hook_secret(
        &self,
        tenant: TenantId,
        now: Timestamp,
        overlap: Duration,
    ) -> Result<Secrets, StoreError> {
        let rotated = self.inner.rotate_hook_secret(tenant, now, overlap);
        commit!(self, "rotate".into(), rotated)
    }
    async fn record_delivery(
        &self,
        delivery: Delivery,
        status: DeliveryStatus,
    ) -> Result<(), StoreError> {
        let name = format!("delivery {} {status:?}", delivery.key.id);
        let recorded = self.inner.record_delivery(delivery, status);
        commit!(self, name, self.trouble.befall("record_delivery", recorded))
    }
    async fn delivery_status(&self, key: RequestKey) -> Result<Option<DeliveryStatus>, StoreError> {
        let read = self.inner.delivery_status(key);
        let read = self.trouble.befall("delivery_status", read);
        self.life.hear(read).await
    }
    async fn ledger_page(
        &self,
        rows: &LedgerRows,
        after: Option<&LedgerKey>,
        limit: usize,
    ) -> Result<Vec<(LedgerKey, LedgerRow)>, StoreError> {
        let page = self.inner.ledger_page(rows, after, limit);
        self.life.hear(page).await
    }
    async fn all_dead_letters(
        &self,
        after: Option<(ReceiverId, RequestKey)>,
        limit: usize,
    ) -> Result<Vec<(ReceiverId, RequestKey)>, StoreError> {
        let dead = self.inner.all_dead_letters(after, limit);
        self.life.hear(dead).await
    }
    fn delivery_counts(&self) -> DeliveryCounts {
        self.inner.delivery_counts()
    }
    async fn newest_batches(&self, limit: usize) -> Result<Vec<Batch>, StoreError> {
        self.life.hear(self.inner.newest_batches(limit)).await
    }
    async fn purge(&self, horizon: Timestamp, limit: usize) -> Result<usize, StoreError> {
        let purged = self.inner.purge(horizon, limit);
        self.life.hear(self.trouble.befall("purge", purged)).await
    }
    async fn purge_batches(&self, horizon: Timestamp) -> Result<(), StoreError> {
        self.life.hear(self.inner.purge_batches(horizon)).await
    }
    async fn set_aside(&self, entry: Entry, place: Place) -> Result<bool, StoreError> {
        let aside = self.inner.set_aside(entry, place);
        commit!(self, format!("set aside {}", entry.key.id), aside)
    }
    async fn drop_destination(&self, id: DestinationId) -> Result<(), StoreError> {
        let dropped = self.inner.drop_destination(id);
        commit!(self, "drop destination".into(), dropped)
    }
    async fn purge_ledger(
        &self,
        hour: u32,
        from: Option<TenantId>,
    ) -> Result<Option<TenantId>, StoreError> {
        let purged = self.inner.purge_ledger(hour, from);
        commit!(self, "purge ledger".into(), purged)
    }
    async fn backup(&self, out: tokio::sync::mpsc::Sender<std::io::Result<bytes::Bytes>>) {
        self.inner.backup(out).await;
    }
    async fn failed(&self) -> StoreError {
        self.inner.failed().await
    }
    async fn disk_bytes(&self) -> Result<u64, StoreError> {
        self.life.hear(self.inner.disk_bytes()).await
    }
    async fn spare_bytes(&self) -> Result<u64, StoreError> {
        self.life.hear(self.inner.spare_bytes()).await
    }
    fn commits(&self) -> Counted {
        self.inner.commits()
    }
}

#[async_trait]
impl Provider for Mortal<dyn Provider> {
    async fn upload(&self, by: &Credential, upload: Upload) -> Result<String, ProviderError> {
        let name = format!("upload {}", upload.name);
        effect!(self, name, self.inner.upload(by, upload))
    }
    async fn create_batch(
        &self,
        by: &Credential,
        input_file: &str,
        endpoint: Endpoint,
        tag: BatchId,
    ) -> Result<RemoteBatch, ProviderError> {
        let name = format!("create {tag}");
        let created = self.inner.create_batch(by, input_file, endpoint, tag);
        effect!(self, name, created)
    }
    async fn batch(&self, by: &Credential, id: &str) -> Result<RemoteBatch, ProviderError> {
        self.life.hear(self.inner.batch(by, id)).await
    }
    async fn batches(
        &self,
        by: &Credential,
        after: Option<&str>,
    ) -> Result<RemotePage, ProviderError> {
        self.life.hear(self.inner.batches(by, after)).await
    }
    async fn cancel_batch(&self, by: &Credential, id: &str) -> Result<(), ProviderError> {
        let name = "cancel batch".into();
        effect!(self, name, self.inner.cancel_batch(by, id))
    }
    async fn results(
        &self,
        by: &Credential,
        file: &str,
    ) -> Result<BoxStream<'static, Result<ResultLine, ProviderError>>, ProviderError> {
        self.life.hear(self.inner.results(by, file)).await
    }
    async fn input_lines(
        &self,
        by: &Credential,
        file: &str,
    ) -> Result<BoxStream<'static, Result<String, ProviderError>>, ProviderError> {
        self.life.hear(self.inner.input_lines(by, file)).await
    }
    async fn files_named(
        &self,
        by: &Credential,
        name: &str,
        since: Since,
    ) -> Result<Vec<String>, ProviderError> {
        self.life
            .hear(self.inner.files_named(by, name, since))
            .await
    }
    async fn delete_file(&self, by: &Credential, file: &str) -> Result<(), ProviderError> {
        effect!(self, "delete file".into(), self.inner.delete_file(by, file))
    }
    async fn model(
        &self,
        by: &Credential,
        model: &str,
    ) -> Result<Option<Organization>, ProviderError> {
        self.life.hear(self.inner.model(by, model)).await
    }
    async fn run(&self, by: &Credential, call: LiveCall) -> Result<LiveReply, ProviderError> {
        effect!(self, "live call".into(), self.inner.run(by, call))
    }
    async fn create_response(
        &self,
        by: &Credential,
        call: BackgroundCall,
    ) -> Result<RemoteResponse, ProviderError> {
        let created = self.inner.create_response(by, call);
        effect!(self, "background call".into(), created)
    }
    async fn response(&self, by: &Credential, id: &str) -> Result<RemoteResponse, ProviderError> {
        self.life.hear(self.inner.response(by, id)).await
    }
    async fn cancel_response(
        &self,
        by: &Credential,
        id: &str,
    ) -> Result<RemoteResponse, ProviderError> {
        let name = "cancel response".into();
        effect!(self, name, self.inner.cancel_response(by, id))
    }
}
