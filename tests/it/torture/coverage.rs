//! What a killed process has left on disk, read from a copy by the store's own code:
//! in which states it was struck, and whether it all fits together.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    path::Path,
};

use offpeak::{
    model::{
        attempt::{Attempt, AttemptState},
        batch::{Batch, BatchState},
        id::{RequestKey, TenantId},
        request::State,
        time::Timestamp,
    },
    ports::{Store, StoreError},
    store::{Settings, SledStore},
};

/// Every state of the three machines; a placed request's place tells them apart.
pub const STATES: [&str; 19] = [
    "request queued",
    "request placed in a batch",
    "request placed live",
    "request succeeded",
    "request failed",
    "request cancelled",
    "attempt open",
    "attempt answered",
    "attempt ended",
    "attempt late",
    "attempt unaccounted",
    "batch filling",
    "batch sealed",
    "batch uploaded",
    "batch lost",
    "batch submitted",
    "batch cancelling",
    "batch settled",
    "batch abandoned",
];

/// In how many kills there was something in a state.
#[derive(Default)]
pub struct Coverage(BTreeMap<&'static str, u64>);

impl Coverage {
    pub fn add(&mut self, states: &BTreeSet<&'static str>) {
        for state in states {
            *self.0.entry(state).or_default() += 1;
        }
    }

    pub fn of(&self, state: &str) -> u64 {
        self.0.get(state).copied().unwrap_or_default()
    }
}

pub struct Kept {
    /// By id: the status that it ended with.
    pub requests: HashMap<String, Option<u16>>,
    pub states: BTreeSet<&'static str>,
    pub batches: Vec<Batch>,
    /// By batch: the requests that are lines of it.
    pub lines: HashMap<String, Vec<String>>,
    /// By request: those of its attempts that the outcome does not tell.
    pub attempts: HashMap<String, Vec<Attempt>>,
    /// What does not fit together.
    pub breaches: Vec<String>,
}

/// Copies the data directory's database to `copy` and reads it there.
pub async fn read(data_dir: &Path, copy: &Path) -> Kept {
    if copy.exists() {
        fs::remove_dir_all(copy).unwrap();
    }
    copy_all(&data_dir.join("store"), &copy.join("store"));
    let settings = Settings {
        data_dir: copy.to_owned(),
        cache_bytes: 16 << 20,
        reserve_bytes: 0,
        // All of it is read, and held against what should be there.
        verify_at_start: true,
    };
    let runtime = tokio::runtime::Handle::current();
    let reading = tokio::task::spawn_blocking(move || {
        let store = SledStore::open(&settings).unwrap_or_else(|error| panic!("{error}"));
        runtime.block_on(all_of(&store)).unwrap()
    });
    reading.await.unwrap()
}

fn copy_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let to = to.join(path.file_name().unwrap());
        match path.is_dir() {
            true => copy_all(&path, &to),
            false => {
                fs::copy(&path, &to).unwrap();
            }
        }
    }
}

async fn all_of(store: &SledStore) -> Result<Kept, StoreError> {
    let mut kept = Kept {
        requests: HashMap::new(),
        states: BTreeSet::new(),
        batches: store.batches(Timestamp::from_millis(0)).await?,
        lines: HashMap::new(),
        attempts: HashMap::new(),
        breaches: Vec::new(),
    };
    let places = kept.places(store).await?;
    let destinations = store.destinations().await?;
    let tenants: BTreeSet<TenantId> = destinations.iter().map(|known| known.tenant).collect();
    let mut open = 0;
    for tenant in tenants {
        open += kept.tenant(store, tenant, &places).await?;
    }
    if open != places.len() {
        let what = format!(
            "{open} requests are open, and {} have a place",
            places.len()
        );
        kept.breaches.push(what);
    }
    for batch in &kept.batches {
        kept.states.insert(of_batch(batch.state));
    }
    Ok(kept)
}

impl Kept {
    /// Every request with a place, each of which has one only.
    async fn places(
        &mut self,
        store: &SledStore,
    ) -> Result<HashMap<RequestKey, &'static str>, StoreError> {
        let mut places = HashMap::new();
        let mut found = Vec::new();
        for (_, entry) in store.scan_queue(None, usize::MAX).await? {
            found.push((entry.key, "request queued"));
        }
        for (entry, _) in store.scan_live(None, usize::MAX).await? {
            found.push((entry.key, "request placed live"));
        }
        for batch in &self.batches {
            let lines = store.lines(batch.id, None, usize::MAX).await?;
            if !batch.state.is_open() && !lines.is_empty() {
                self.breaches
                    .push(format!("lines in an ended batch: {batch:?}"));
            }
            for entry in &lines {
                found.push((entry.key, "request placed in a batch"));
            }
            let ids = lines.iter().map(|entry| entry.key.id.to_string());
            self.lines.insert(batch.id.to_string(), ids.collect());
        }
        for (key, place) in found {
            self.states.insert(place);
            if let Some(other) = places.insert(key, place) {
                let what = format!("{}: {place} and {other}", key.id);
                self.breaches.push(what);
            }
        }
        Ok(places)
    }

    /// Returns the number of the tenant's open requests.
    async fn tenant(
        &mut self,
        store: &SledStore,
        tenant: TenantId,
        places: &HashMap<RequestKey, &'static str>,
    ) -> Result<usize, StoreError> {
        let mut open = 0;
        for head in store.list(tenant, None, usize::MAX).await? {
            let key = head.request.key;
            let status = head.outcome.as_ref().map(|outcome| outcome.status);
            self.requests.insert(key.id.to_string(), status);
            match head.outcome.map(|outcome| outcome.state) {
                Some(State::Succeeded) => self.states.insert("request succeeded"),
                Some(State::Failed) => self.states.insert("request failed"),
                Some(State::Cancelled) => self.states.insert("request cancelled"),
                _ => {
                    open += 1;
                    if !places.contains_key(&key) {
                        self.breaches
                            .push(format!("{} is open, and nowhere", key.id));
                    }
                    false
                }
            };
            let attempts = store.attempts(key).await?;
            let states = attempts.iter().map(|attempt| of_attempt(attempt.state));
            self.states.extend(states);
            if !attempts.is_empty() {
                self.attempts.insert(key.id.to_string(), attempts);
            }
        }
        Ok(open)
    }
}

fn of_attempt(state: AttemptState) -> &'static str {
    match state {
        AttemptState::Open => "attempt open",
        AttemptState::Answered => "attempt answered",
        AttemptState::Ended => "attempt ended",
        AttemptState::Late => "attempt late",
        AttemptState::Unaccounted => "attempt unaccounted",
    }
}

fn of_batch(state: BatchState) -> &'static str {
    match state {
        BatchState::Filling => "batch filling",
        BatchState::Sealed => "batch sealed",
        BatchState::Uploaded => "batch uploaded",
        BatchState::Lost => "batch lost",
        BatchState::Submitted => "batch submitted",
        BatchState::Cancelling => "batch cancelling",
        BatchState::Settled => "batch settled",
        BatchState::Abandoned => "batch abandoned",
    }
}
