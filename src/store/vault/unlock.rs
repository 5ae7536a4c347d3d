//! The vault of a store: its roots are opened, or made; and where the master key was
//! changed, all that was sealed is sealed anew. Cut off anywhere, the next start does
//! the rest.

use std::collections::BTreeSet;

use bytes::Bytes;
use thiserror::Error;

use super::{BadMasterKey, MasterKey, Roots, Unopened, Vault, roots};
use crate::{
    model::{id::CredentialId, request::Destination},
    ports::{Store, StoreError, TenantMove},
};

/// Why the vault does not open.
#[derive(Debug, Error)]
pub enum Locked {
    #[error(
        "the data directory was sealed with another master key: give that one (OFFPEAK_MASTER_KEY, or master.key in the directory); to change it, give the new one there and the old one as OFFPEAK_PREVIOUS_MASTER_KEY or in a file master.key.previous"
    )]
    OtherKey,
    #[error(
        "the data directory was sealed with a master key, and none is given: bring back master.key, or set OFFPEAK_MASTER_KEY"
    )]
    NoKey,
    #[error(
        "the database has no roots of the vault, and none of its credentials opens with this master key. Where an earlier version wrote it: give the master key of that time. Where `offpeak store check` tells of damage: the roots were lost, and only a backup has them (`offpeak restore`). Nothing was written"
    )]
    NoRoots,
    #[error("the roots of the vault are damaged: {0}")]
    Damaged(Unopened),
    #[error(transparent)]
    MasterKey(#[from] BadMasterKey),
    #[error("the store cannot be read: {0}")]
    Store(#[from] StoreError),
}

/// Whether a master key has been used in this store: another is of no use to it.
pub async fn is_sealed(store: &dyn Store) -> Result<bool, StoreError> {
    Ok(store.vault_roots().await?.is_some() || !store.destinations().await?.is_empty())
}

/// Opens the vault with `master`. With `previous` that key is changed to `master`.
///
/// # Errors
/// [`Locked::OtherKey`] where neither key opens it; [`Locked::NoRoots`] where what would
/// tell that is gone.
pub async fn unlock(
    store: &dyn Store,
    master: &MasterKey,
    previous: Option<&MasterKey>,
) -> Result<Vault, Locked> {
    let mut roots = match store.vault_roots().await? {
        Some(sealed) => match open(&sealed, master)? {
            Some(roots) => roots,
            None => changed(store, &sealed, master, previous).await?,
        },
        None => first(store, master).await?,
    };
    if roots.has_older() {
        seal_anew(store, &Vault::new(&roots)).await?;
        roots.forget_older();
        keep(store, &roots, master).await?;
        tracing::warn!(
            "what was sealed is sealed with the new master key; the previous one is not needed any more"
        );
    }
    Ok(Vault::new(&roots))
}

/// None where another key sealed it.
fn open(sealed: &[u8], key: &MasterKey) -> Result<Option<Roots>, Locked> {
    match Roots::open(key, sealed) {
        Ok(roots) => Ok(Some(roots)),
        Err(Unopened::OtherKey) => Ok(None),
        Err(error) => Err(Locked::Damaged(error)),
    }
}

async fn changed(
    store: &dyn Store,
    sealed: &[u8],
    master: &MasterKey,
    previous: Option<&MasterKey>,
) -> Result<Roots, Locked> {
    let previous = previous.ok_or(Locked::OtherKey)?;
    let mut roots = open(sealed, previous)?.ok_or(Locked::OtherKey)?;
    roots.renew(roots::fresh()?);
    keep(store, &roots, master).await?;
    Ok(roots)
}

/// A store with work of a time when the master key itself was the root of all goes on
/// with that.
async fn first(store: &dyn Store, master: &MasterKey) -> Result<Roots, Locked> {
    let destinations = store.destinations().await?;
    let roots = match destinations.is_empty() {
        true => Roots::random()?,
        false => {
            let roots = Roots::from(*master.bytes());
            match opens_any(store, &destinations, &Vault::new(&roots)).await? {
                Some(false) => return Err(Locked::NoRoots),
                Some(true) | None => roots,
            }
        }
    };
    keep(store, &roots, master).await?;
    Ok(roots)
}

/// Whether one of the stored credentials opens; none where there is none.
async fn opens_any(
    store: &dyn Store,
    destinations: &[Destination],
    vault: &Vault,
) -> Result<Option<bool>, StoreError> {
    let mut found = None;
    for id in credentials(destinations) {
        if let Some(sealed) = store.credential(id).await? {
            if vault.open_bytes(&id.0, &sealed).is_ok() {
                return Ok(Some(true));
            }
            found = Some(false);
        }
    }
    Ok(found)
}

fn credentials(destinations: &[Destination]) -> BTreeSet<CredentialId> {
    destinations.iter().map(|it| it.credential).collect()
}

async fn keep(store: &dyn Store, roots: &Roots, master: &MasterKey) -> Result<(), StoreError> {
    store.put_vault_roots(roots.seal(master).into()).await
}

async fn seal_anew(store: &dyn Store, vault: &Vault) -> Result<(), StoreError> {
    for id in credentials(&store.destinations().await?) {
        let Some(sealed) = store.credential(id).await? else {
            continue;
        };
        if !vault.is_stale(&id.0, &sealed) {
            continue;
        }
        match vault.open_bytes(&id.0, &sealed) {
            Ok(clear) => {
                let sealed = Bytes::from(vault.seal_bytes(&id.0, &clear));
                let moving = TenantMove {
                    keys: Vec::new(),
                    credentials: vec![(id, sealed)],
                };
                store.move_tenant(moving).await?;
            }
            Err(error) => {
                tracing::error!(credential = %id, %error, "a stored credential does not open")
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use base64::{Engine as _, engine::general_purpose::STANDARD};

    use super::*;
    use crate::{
        model::secret::Secret,
        ports::{Credential, Vault as _},
        store::{MemoryStore, conformance},
    };

    fn key(byte: u8) -> MasterKey {
        MasterKey::parse(&Secret::new(STANDARD.encode([byte; 32]))).unwrap()
    }

    fn credential() -> Credential {
        Credential {
            headers: vec![("authorization".into(), "Bearer sk-1".into())],
            query: None,
        }
    }

    /// A store with a request whose credential is sealed by `vault`.
    async fn with_work(store: &MemoryStore, vault: &Vault) -> CredentialId {
        let asked = conformance::request(1, 1);
        let sealed = vault.seal(asked.credential, &credential());
        conformance::admit_with(store, &asked, b"body", sealed).await;
        asked.credential
    }

    async fn opens(store: &MemoryStore, vault: &Vault, id: CredentialId) -> bool {
        let sealed = store.credential(id).await.unwrap().unwrap();
        vault
            .open(id, &sealed)
            .is_ok_and(|opened| opened == credential())
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_key_opens_it_again_and_no_other() {
        let store = MemoryStore::new();
        let vault = unlock(&store, &key(1), None).await.unwrap();
        let id = with_work(&store, &vault).await;
        let again = unlock(&store, &key(1), None).await.unwrap();
        assert!(opens(&store, &again, id).await);
        for (master, previous) in [(2, None), (2, Some(3)), (3, Some(2))] {
            let previous = previous.map(key);
            let locked = unlock(&store, &key(master), previous.as_ref()).await;
            assert!(matches!(locked, Err(Locked::OtherKey)));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_master_key_is_changed() {
        let store = MemoryStore::new();
        let first = unlock(&store, &key(1), None).await.unwrap();
        let id = with_work(&store, &first).await;
        let second = unlock(&store, &key(2), Some(&key(1))).await.unwrap();
        assert!(opens(&store, &second, id).await);
        assert!(!opens(&store, &first, id).await, "sealed with a new root");
        let print = |vault: &Vault| vault.fingerprint("tenant", &[b"k"]);
        assert_eq!(print(&first), print(&second));
        // The old key is of no use any more, and harmless where it is still given.
        assert!(unlock(&store, &key(1), None).await.is_err());
        let third = unlock(&store, &key(2), Some(&key(1))).await.unwrap();
        assert!(opens(&store, &third, id).await);
    }

    /// Killed after the roots were written and before anything was sealed anew.
    #[tokio::test(start_paused = true)]
    async fn a_change_that_was_cut_off_is_finished() {
        let store = MemoryStore::new();
        let first = unlock(&store, &key(1), None).await.unwrap();
        let id = with_work(&store, &first).await;
        let sealed = store.vault_roots().await.unwrap().unwrap();
        changed(&store, &sealed, &key(2), Some(&key(1)))
            .await
            .unwrap();
        let second = unlock(&store, &key(2), None).await.unwrap();
        assert!(opens(&store, &second, id).await);
        assert!(!opens(&store, &first, id).await);
    }

    #[tokio::test(start_paused = true)]
    async fn work_of_an_earlier_version_opens() {
        let store = MemoryStore::new();
        let id = with_work(&store, &Vault::new(&Roots::from([1; 32]))).await;
        let vault = unlock(&store, &key(1), None).await.unwrap();
        assert!(opens(&store, &vault, id).await);
        let changed = unlock(&store, &key(2), Some(&key(1))).await.unwrap();
        assert!(opens(&store, &changed, id).await);
    }

    #[tokio::test(start_paused = true)]
    async fn roots_are_not_made_up_for_what_they_do_not_open() {
        let store = MemoryStore::new();
        assert!(!is_sealed(&store).await.unwrap());
        // Those that sealed it were random, and are lost.
        let id = with_work(&store, &Vault::new(&Roots::random().unwrap())).await;
        assert!(is_sealed(&store).await.unwrap());
        let locked = unlock(&store, &key(1), None).await;
        assert!(matches!(locked, Err(Locked::NoRoots)));
        assert_eq!(store.vault_roots().await.unwrap(), None);

        // Of an earlier version, with another key; then with its own.
        let store = MemoryStore::new();
        let earlier = Vault::new(&Roots::from([1; 32]));
        assert_eq!(with_work(&store, &earlier).await, id);
        let locked = unlock(&store, &key(2), None).await;
        assert!(matches!(locked, Err(Locked::NoRoots)));
        assert_eq!(store.vault_roots().await.unwrap(), None);
        let vault = unlock(&store, &key(1), None).await.unwrap();
        assert!(opens(&store, &vault, id).await);
    }

    #[tokio::test(start_paused = true)]
    async fn damage_is_not_taken_for_another_key() {
        let store = MemoryStore::new();
        unlock(&store, &key(1), None).await.unwrap();
        let mut sealed = store.vault_roots().await.unwrap().unwrap();
        *sealed.last_mut().unwrap() ^= 1;
        store.put_vault_roots(sealed.into()).await.unwrap();
        let locked = unlock(&store, &key(1), None).await;
        assert!(matches!(locked, Err(Locked::Damaged(Unopened::Forged))));
    }
}
