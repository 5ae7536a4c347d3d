//! Keys that the provider refuses with 401. What such a key was to pay for waits: the
//! key may be mended, or its tenant move to another one ([`super::moving`]). What is
//! still waiting at its deadline ends with the provider's own answer.

use std::{collections::HashMap, time::Duration};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::{
    model::{
        id::{CredentialId, TenantId},
        request::Destination,
        time::Timestamp,
    },
    ports::ProviderError,
};

use super::{Engine, settling::error_code};

/// The first wait before a refused key is tried again; it doubles.
const FIRST_LOOK: Duration = Duration::from_secs(60);
const LONGEST_LOOK: Duration = Duration::from_secs(30 * 60);
/// A key that was not refused for so long begins anew.
const FORGIVEN_AFTER: Duration = Duration::from_secs(3600);

/// By credential; only those that work waits for.
#[derive(Default)]
pub(super) struct Refusals {
    known: Mutex<HashMap<CredentialId, Refusal>>,
}

/// What the provider said of a key.
#[derive(Clone, Debug)]
pub struct Refusal {
    pub since: Timestamp,
    /// The body of its 401.
    pub body: Bytes,
    /// When the key is tried again.
    pub look: Timestamp,
    looks: u32,
    /// It was let through again, and has not been refused since.
    doubtful: bool,
}

impl Refusals {
    /// True where that is news.
    fn refuse(&self, credential: CredentialId, body: Bytes, now: Timestamp) -> bool {
        let mut known = self.known.lock();
        known.retain(|_, refusal| !refusal.doubtful || refusal.look + FORGIVEN_AFTER > now);
        let refusal = known.entry(credential).or_insert(Refusal {
            since: now,
            body: Bytes::new(),
            look: now,
            looks: 0,
            doubtful: true,
        });
        let is_news = refusal.doubtful;
        if is_news {
            refusal.since = now;
            refusal.put_off(now);
        }
        refusal.body = body;
        refusal.doubtful = false;
        is_news
    }

    fn of(&self, credential: CredentialId) -> Option<Refusal> {
        let known = self.known.lock();
        let refusal = known.get(&credential)?;
        (!refusal.doubtful).then(|| refusal.clone())
    }

    fn all(&self) -> Vec<(CredentialId, Refusal)> {
        let known = self.known.lock();
        let refused = known.iter().filter(|(_, refusal)| !refusal.doubtful);
        refused
            .map(|(id, refusal)| (*id, refusal.clone()))
            .collect()
    }

    /// Keys that are to be tried, longest due first.
    pub fn due(&self, now: Timestamp) -> Vec<CredentialId> {
        let known = self.known.lock();
        let due = known
            .iter()
            .filter(|(_, refusal)| !refusal.doubtful && refusal.look <= now);
        let mut due: Vec<_> = due.map(|(id, refusal)| (refusal.look, *id)).collect();
        due.sort();
        due.into_iter().map(|(_, credential)| credential).collect()
    }

    fn put_off(&self, credential: CredentialId, now: Timestamp) {
        if let Some(refusal) = self.known.lock().get_mut(&credential) {
            refusal.put_off(now);
        }
    }

    /// Nothing has shown yet that it works: refused again, it waits longer.
    fn doubt(&self, credential: CredentialId) -> bool {
        let mut known = self.known.lock();
        let refusal = known.get_mut(&credential);
        refusal.is_some_and(|refusal| !std::mem::replace(&mut refusal.doubtful, true))
    }

    pub fn forget(&self, credential: CredentialId) -> bool {
        let refusal = self.known.lock().remove(&credential);
        refusal.is_some_and(|refusal| !refusal.doubtful)
    }
}

impl Refusal {
    fn put_off(&mut self, now: Timestamp) {
        let pause = FIRST_LOOK.saturating_mul(1 << self.looks.min(10));
        self.look = now + pause.min(LONGEST_LOOK);
        self.looks += 1;
    }
}

/// Why what it was to pay for waits.
pub(super) fn paused(refusal: &Refusal) -> String {
    format!(
        "paused: the provider refuses the key with 401 (since {})",
        refusal.since
    )
}

/// The provider refuses the key itself.
pub(super) fn is_of_the_key(error: &ProviderError) -> bool {
    matches!(error, ProviderError::Refused { status: 401, .. })
}

impl Engine {
    /// What the provider said of the key, where it refuses it.
    pub(super) fn refusal(&self, credential: CredentialId) -> Option<Refusal> {
        self.refusals.of(credential)
    }

    pub(super) fn is_refused(&self, credential: CredentialId) -> bool {
        let known = self.refusals.known.lock();
        known.get(&credential).is_some_and(|it| !it.doubtful)
    }

    /// What each of the tenant's keys that are refused was told, since when, and how
    /// much waits for it.
    pub fn refusals_of(&self, tenant: Option<TenantId>) -> Vec<(Destination, Refusal)> {
        let refusals = self.refusals.all();
        let summary = self.summary.lock();
        let told = refusals.into_iter().filter_map(|(credential, refusal)| {
            let is_asked = |it: &&Destination| tenant.is_none_or(|tenant| tenant == it.tenant);
            let destination = summary.destinations.of(credential).find(is_asked)?;
            Some((destination.clone(), refusal))
        });
        let mut told: Vec<_> = told.collect();
        told.sort_by_key(|(destination, refusal)| (refusal.since, destination.credential));
        told
    }

    /// A call was answered 401. Keys of narrow permissions get that too, for what they
    /// may not do: only a key that may not even look up its model is refused itself, and
    /// its work waits. True where it is.
    pub(super) async fn blame_key(&self, credential: CredentialId, body: &Bytes) -> bool {
        if self.is_refused(credential) {
            return true;
        }
        match self.try_key(credential).await {
            Some(KeyState::Works) => false,
            Some(KeyState::Refused(body)) => {
                self.key_refused(credential, body);
                self.is_refused(credential)
            }
            // Some upstreams have no such path.
            Some(KeyState::Unknown) | None => {
                self.key_refused(credential, body.clone());
                self.is_refused(credential)
            }
        }
    }

    /// As [`Engine::blame_key`], of a control call that failed.
    pub(super) async fn heard(&self, credential: CredentialId, error: &ProviderError) -> bool {
        match error {
            ProviderError::Refused {
                status: 401, body, ..
            } => self.blame_key(credential, body).await,
            _ => false,
        }
    }

    pub(super) fn key_refused(&self, credential: CredentialId, body: Bytes) {
        // Anybody may present keys that do not exist.
        let has_work = self.credentials.knows(credential);
        if has_work && self.refusals.refuse(credential, body, self.now()) {
            tracing::warn!(%credential, "the provider refuses a key with 401: the work that it was to pay for waits, until the key works again or its tenant moves to another (POST /offpeak/v1/credential)");
            self.signals.rescuer.notify_one();
            self.signals.live.notify_one();
        }
    }

    pub(super) fn key_works(&self, credential: CredentialId) {
        if self.refusals.forget(credential) {
            tracing::info!(%credential, "the provider takes the key again; its work goes on");
            self.go_on_with(credential);
        }
    }

    /// The credential's work goes on.
    pub(super) fn go_on_with(&self, credential: CredentialId) {
        let now = self.now();
        self.summary.lock().due_now(credential, now);
        for signal in [
            &self.signals.packer,
            &self.signals.submitter,
            &self.signals.watcher,
            &self.signals.rescuer,
            &self.signals.live,
        ] {
            signal.notify_one();
        }
    }

    pub(super) async fn try_refused_key(&self, id: CredentialId) {
        match self.try_key(id).await {
            // Dropped with its work.
            None => {
                self.refusals.forget(id);
            }
            Some(KeyState::Works) => self.key_works(id),
            Some(KeyState::Refused(_)) => self.refusals.put_off(id, self.now()),
            // Whether the key works is not told.
            Some(KeyState::Unknown) => {
                if self.refusals.doubt(id) {
                    self.go_on_with(id);
                }
            }
        }
    }

    /// Looks up a model that the key is to pay for; none where nothing is stored of it.
    async fn try_key(&self, id: CredentialId) -> Option<KeyState> {
        let model = self.model_of(id)?;
        let credential = self.credential(id).await.ok()?;
        Some(KeyState::of(
            &self.provider.model(&credential, &model).await,
        ))
    }

    /// A model that the credential is to pay for.
    pub(super) fn model_of(&self, id: CredentialId) -> Option<String> {
        let summary = self.summary.lock();
        let mut destinations = summary.destinations.of(id);
        Some(destinations.next()?.model.clone())
    }
}

/// What the look-up of a model tells of a key.
pub(super) enum KeyState {
    Works,
    /// With the body of the 401.
    Refused(Bytes),
    Unknown,
}

impl KeyState {
    pub fn of<T>(looked_up: &Result<T, ProviderError>) -> KeyState {
        match looked_up {
            Ok(_) => KeyState::Works,
            Err(ProviderError::Refused {
                status: 401, body, ..
            }) => KeyState::Refused(body.clone()),
            Err(ProviderError::Refused {
                status: 404, body, ..
            }) if error_code(body).as_deref() == Some("model_not_found") => KeyState::Works,
            Err(_) => KeyState::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: CredentialId = CredentialId([1; 16]);

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_secs(1_000_000 + seconds)
    }

    #[test]
    fn looks_come_less_and_less_often() {
        let refusals = Refusals::default();
        assert!(refusals.refuse(KEY, Bytes::new(), at(0)));
        assert!(!refusals.refuse(KEY, Bytes::new(), at(1)), "known");
        let mut now = at(0);
        let mut pauses = Vec::new();
        for _ in 0..7 {
            let look = refusals.of(KEY).unwrap().look;
            assert_eq!(refusals.due(look), [KEY]);
            pauses.push(now.until(look).as_secs() / 60);
            now = look;
            refusals.put_off(KEY, now);
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
    }

    #[test]
    fn let_through_in_doubt_and_refused_again_it_waits_longer() {
        let refusals = Refusals::default();
        refusals.refuse(KEY, Bytes::new(), at(0));
        assert!(refusals.doubt(KEY));
        assert!(!refusals.doubt(KEY), "once");
        assert!(refusals.of(KEY).is_none());
        assert!(refusals.refuse(KEY, Bytes::new(), at(100)));
        let refusal = refusals.of(KEY).unwrap();
        assert_eq!((refusal.since, refusal.look), (at(100), at(220)));
        // After a quiet hour it begins anew.
        refusals.doubt(KEY);
        refusals.refuse(KEY, Bytes::new(), at(5_000));
        assert_eq!(refusals.of(KEY).unwrap().look, at(5_060));
    }
}
