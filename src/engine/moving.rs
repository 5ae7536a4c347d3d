//! A tenant moves to another key: the new one sees all that the old one saw, and pays
//! for what is still to be done. What is kept under the tenant's name stays there; only
//! whose key is whose changes, and what is sealed of the old key.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use thiserror::Error;

use crate::{
    model::{
        batch::{Batch, BatchState},
        id::{CredentialId, TenantId},
        time::Timestamp,
    },
    policy::bucket::Bucket,
    ports::{Credential, KeyOwner, ProviderError, StoreError, TenantMove},
};

use super::{Caller, Engine, credentials::is_key, refusals::KeyState};

/// By the fingerprint of a key, whose it is. Keys that are not here are their own
/// fingerprint's.
#[derive(Default)]
pub(super) struct Tenants {
    moved: RwLock<HashMap<TenantId, KeyOwner>>,
    /// How often each tenant has moved since when.
    moves: Mutex<HashMap<TenantId, (Timestamp, u32)>>,
    /// What is left of its tries, and when it tried last.
    tries: Mutex<HashMap<TenantId, (Timestamp, Bucket)>>,
}

/// Moves of one tenant in a day: each leaves two small records for good.
const MOVES: u32 = 10;
const DAY: Duration = Duration::from_secs(24 * 3600);
/// Keys that one tenant may try to move to: each is asked about at the provider, whose
/// answer tells whether it is one. Few enough to search for none by it, and so many that
/// who mistypes, or has his old key abused, moves within a minute.
const TRIES_PER_MINUTE: u32 = 6;
const MINUTE: Duration = Duration::from_secs(60);

impl Tenants {
    pub fn of(&self, print: TenantId) -> Option<TenantId> {
        self.owner(print).map(|owner| owner.tenant)
    }

    fn owner(&self, print: TenantId) -> Option<KeyOwner> {
        self.moved.read().get(&print).copied()
    }

    pub fn know(&self, keys: impl IntoIterator<Item = (TenantId, KeyOwner)>) {
        self.moved.write().extend(keys);
    }

    /// Whether the tenant may move once more.
    fn may_move(&self, tenant: TenantId, now: Timestamp) -> bool {
        let mut moves = self.moves.lock();
        moves.retain(|_, (since, _)| *since + DAY > now);
        moves.get(&tenant).is_none_or(|(_, count)| *count < MOVES)
    }

    fn has_moved(&self, tenant: TenantId, now: Timestamp) {
        let mut moves = self.moves.lock();
        let (_, count) = moves.entry(tenant).or_insert((now, 0));
        *count += 1;
    }

    /// Counts a try, or says when there may be one.
    fn try_once(&self, tenant: TenantId, now: Timestamp) -> Result<(), Duration> {
        let mut tries = self.tries.lock();
        // Full again by then.
        tries.retain(|_, (last, _)| *last + MINUTE > now);
        let full = (now, Bucket::new(TRIES_PER_MINUTE, now));
        let (last, bucket) = tries.entry(tenant).or_insert(full);
        *last = now;
        bucket.take(now)
    }
}

/// How a tenant moves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Move {
    /// Both keys are the tenant's from then on. Only the new one may move it again.
    pub keep_previous: bool,
    pub force: bool,
}

/// What a move came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// Requests that the new key is to pay for.
    pub open_requests: u64,
}

#[derive(Debug, Error)]
pub enum MoveError {
    #[error("both keys are the same")]
    SameKey,
    #[error("nothing is known of the previous key")]
    UnknownPrevious,
    #[error("the new key has requests of its own")]
    InUse,
    #[error("the provider refuses the new key with 401")]
    Refused { body: Bytes },
    /// What runs at the provider could not be followed with it.
    #[error("the new key does not see the batches that run")]
    OtherProject,
    #[error("the previous key is kept beside another one, which may move")]
    Kept,
    #[error("too many moves in a day")]
    TooMany,
    #[error("too many tries to move in a minute")]
    TooFast { wait: Duration },
    #[error("what was sealed of the previous key does not open")]
    Unopened,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Engine {
    /// Moves the tenant of `previous` to the key that `caller` presents. The previous
    /// key sees nothing of it from then on, unless it is kept. `force`: although the new
    /// key does not see what runs at the provider.
    pub async fn move_tenant(
        self: &Arc<Self>,
        caller: &Caller,
        previous: &Credential,
        how: Move,
    ) -> Result<Moved, MoveError> {
        let engine = self.clone();
        let (caller, previous) = (caller.clone(), previous.clone());
        self.whole(async move { engine.move_now(&caller, &previous, how).await })
            .await
    }

    async fn move_now(
        self: &Arc<Self>,
        caller: &Caller,
        previous: &Credential,
        Move {
            keep_previous,
            force,
        }: Move,
    ) -> Result<Moved, MoveError> {
        let (new, old) = (self.print(&caller.presented), self.print(previous));
        let tenant = self.may_move(new, old).await?;
        if !self.tenants.may_move(tenant, self.now()) {
            return Err(MoveError::TooMany);
        }
        let tried = self.tenants.try_once(tenant, self.now());
        tried.map_err(|wait| MoveError::TooFast { wait })?;
        self.try_new_key(caller, tenant, force).await?;

        // No work comes in for either key in between.
        let _gate = self.credentials.gate.write().await;
        if self.may_move(new, old).await? != tenant {
            return Err(MoveError::UnknownPrevious);
        }
        let old_is_now = match keep_previous {
            true => tenant,
            false => self.nobody(old),
        };
        let owner = |tenant, kept| KeyOwner { tenant, kept };
        let keys = vec![
            (new, owner(tenant, false)),
            (old, owner(old_is_now, keep_previous)),
        ];
        let mut credentials = Vec::new();
        for (id, with_new_key) in self.with_new_key(caller, tenant).await? {
            let sealed = self.vault.seal(id, &with_new_key);
            credentials.push((id, with_new_key, sealed));
        }
        let sealed = credentials.iter();
        let moving = TenantMove {
            keys: keys.clone(),
            credentials: sealed
                .map(|(id, _, sealed)| (*id, sealed.clone()))
                .collect(),
        };
        self.store.move_tenant(moving).await?;
        self.tenants.know(keys);
        self.tenants.has_moved(tenant, self.now());
        tracing::info!(%tenant, keep_previous, "a tenant moved to another key");
        for (id, credential, sealed) in credentials {
            self.credentials.replace(id, credential, sealed);
            self.refusals.forget(id);
            self.go_on_with(id);
        }
        let open_requests = self.summary.lock().open_of(tenant);
        Ok(Moved { open_requests })
    }

    /// The tenant that the old key may take to the new one.
    async fn may_move(&self, new: TenantId, old: TenantId) -> Result<TenantId, MoveError> {
        if new == old {
            return Err(MoveError::SameKey);
        }
        let owner = self.tenants.owner(old);
        if owner.is_some_and(|owner| owner.kept) {
            return Err(MoveError::Kept);
        }
        let tenant = owner.map_or(old, |owner| owner.tenant);
        if !self.is_known(tenant).await? {
            return Err(MoveError::UnknownPrevious);
        }
        let own = self.tenants.of(new).unwrap_or(new);
        if own != tenant && self.is_known(own).await? {
            return Err(MoveError::InUse);
        }
        Ok(tenant)
    }

    /// Whether the caller's key has moved since it was read.
    pub(super) fn has_moved(&self, caller: &Caller) -> bool {
        // Keys that we issued do not move.
        if caller.key.is_some() {
            return false;
        }
        let print = self.print(&caller.presented);
        self.tenants.of(print).unwrap_or(print) != caller.tenant
    }

    /// What is sealed of the tenant, with the new key in it.
    async fn with_new_key(
        &self,
        caller: &Caller,
        tenant: TenantId,
    ) -> Result<Vec<(CredentialId, Credential)>, MoveError> {
        let mut credentials = Vec::new();
        for id in self.credentials_of(tenant) {
            if self.store.credential(id).await?.is_none() {
                continue;
            }
            match self.credential(id).await {
                Ok(stored) => credentials.push((id, replace_key(&stored, &caller.presented))),
                // It was dropped meanwhile: its work is done.
                Err(_) if self.store.credential(id).await?.is_none() => {}
                Err(_) => return Err(MoveError::Unopened),
            }
        }
        Ok(credentials)
    }

    /// Open requests of the tenant.
    pub fn open_requests(&self, tenant: TenantId) -> u64 {
        self.summary.lock().open_of(tenant)
    }

    pub(super) async fn recall_tenants(&self) -> Result<(), StoreError> {
        self.tenants.know(self.store.tenants().await?);
        Ok(())
    }

    async fn is_known(&self, tenant: TenantId) -> Result<bool, StoreError> {
        Ok(self.summary.lock().has_work(tenant)
            || !self.store.list(tenant, None, 1).await?.is_empty()
            || self.has_ledger(tenant, 0).await?)
    }

    pub(super) fn credentials_of(&self, tenant: TenantId) -> BTreeSet<CredentialId> {
        let summary = self.summary.lock();
        let destinations = summary.destinations.values();
        let its = destinations.filter(|destination| destination.tenant == tenant);
        its.map(|destination| destination.credential).collect()
    }

    /// A key that the provider refuses would stop all that is still to be done, and one
    /// that does not see what runs would have it done a second time.
    async fn try_new_key(
        &self,
        caller: &Caller,
        tenant: TenantId,
        force: bool,
    ) -> Result<(), MoveError> {
        for (id, credential) in self.with_new_key(caller, tenant).await? {
            if let Some(model) = self.model_of(id)
                && let KeyState::Refused(body) =
                    KeyState::of(&self.provider.model(&credential, &model).await)
            {
                return Err(MoveError::Refused { body });
            }
            if let Some(running) = self.running_by(id)
                && !force
                && !self.sees(&credential, &running).await
            {
                return Err(MoveError::OtherProject);
            }
        }
        Ok(())
    }

    /// What runs by the credential.
    fn running_by(&self, id: CredentialId) -> Option<Running> {
        let summary = self.summary.lock();
        let batches = summary.batches.values().map(|tracked| &tracked.batch);
        let own = batches.filter(|batch| batch.credential == id);
        own.filter_map(Running::of).min()
    }

    /// Whether a key sees what runs, or nothing is known against that.
    async fn sees(&self, credential: &Credential, running: &Running) -> bool {
        let seen = match running {
            Running::Batch(id) => self.provider.batch(credential, id).await.map(drop),
            Running::Create { file } => {
                let content = self.provider.input_lines(credential, file).await;
                content.map(drop)
            }
        };
        !matches!(
            seen,
            Err(ProviderError::Refused {
                status: 401 | 403 | 404,
                ..
            })
        )
    }

    /// A tenant that has never asked for anything.
    fn nobody(&self, old: TenantId) -> TenantId {
        let chance = self.clock.random().to_be_bytes();
        TenantId(self.vault.fingerprint("moved away", &[&old.0, &chance]))
    }
}

/// What runs at the provider, or may, and what tells of it whose it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Running {
    Batch(String),
    /// A create whose reply has not come. Its input file is of the same project.
    Create {
        file: String,
    },
}

impl Running {
    /// A create that was given up has no file any more: of a batch that comes of it all
    /// the same nobody can tell before it is found.
    fn of(batch: &Batch) -> Option<Running> {
        if !batch.state.is_open() || batch.state == BatchState::Lost {
            return None;
        }
        let running = batch.provider_id.clone().map(Running::Batch);
        running.or_else(|| {
            batch.create_sent?;
            let file = batch.input_file.clone()?;
            Some(Running::Create { file })
        })
    }
}

/// What names the key is the new one's; what changes where work runs stays.
fn replace_key(stored: &Credential, new: &Credential) -> Credential {
    let rest = stored.headers.iter().filter(|(name, _)| !is_key(name));
    let key = new.headers.iter().filter(|(name, _)| is_key(name));
    Credential {
        headers: key.chain(rest).cloned().collect(),
        query: stored.query.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_key_changes() {
        let credential = |headers: &[(&str, &str)]| Credential {
            headers: headers
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            query: Some("api-version=v1".into()),
        };
        let old = credential(&[("authorization", "Bearer old"), ("openai-project", "p")]);
        let new = credential(&[("api-key", "new"), ("openai-organization", "o")]);
        let expected = credential(&[("api-key", "new"), ("openai-project", "p")]);
        assert_eq!(replace_key(&old, &new), expected);
    }
}
