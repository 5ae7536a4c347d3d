//! What everything in the vault is derived from.

use std::fmt;

use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};

use super::{BadMasterKey, MasterKey, Unopened, sealer::Sealer};

/// What the roots are sealed for: nothing else is sealed with the master key.
const PURPOSE: &[u8] = b"roots";

/// Random bytes. Kept in the store, sealed with the master key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roots {
    /// Of fingerprints and webhook secrets, which must not change.
    identity: [u8; 32],
    /// Of what is sealed, the newest first. There is more than one only while what was
    /// sealed with the older ones is sealed anew.
    sealing: Vec<[u8; 32]>,
}

impl Roots {
    pub fn random() -> Result<Roots, BadMasterKey> {
        Ok(Roots {
            identity: fresh()?,
            sealing: vec![fresh()?],
        })
    }

    pub(super) fn identity(&self) -> &[u8; 32] {
        &self.identity
    }

    pub(super) fn sealing(&self) -> &[[u8; 32]] {
        &self.sealing
    }

    pub(super) fn renew(&mut self, root: [u8; 32]) {
        self.sealing.insert(0, root);
    }

    /// Whether something may be sealed with a root that is to be given up.
    pub(super) fn has_older(&self) -> bool {
        self.sealing.len() > 1
    }

    pub(super) fn forget_older(&mut self) {
        self.sealing.truncate(1);
    }

    pub(super) fn seal(&self, master: &MasterKey) -> Vec<u8> {
        let clear = postcard::to_stdvec(self).expect("plain data serialises");
        Sealer::new(master.bytes()).seal(PURPOSE, &clear)
    }

    pub(super) fn open(master: &MasterKey, sealed: &[u8]) -> Result<Roots, Unopened> {
        let clear = Sealer::new(master.bytes()).open(PURPOSE, sealed)?;
        let roots: Roots = postcard::from_bytes(&clear).map_err(|_| Unopened::Forged)?;
        match roots.sealing.is_empty() {
            true => Err(Unopened::Forged),
            false => Ok(roots),
        }
    }
}

/// One root for all, as it was when the master key itself was that.
impl From<[u8; 32]> for Roots {
    fn from(root: [u8; 32]) -> Roots {
        Roots {
            identity: root,
            sealing: vec![root],
        }
    }
}

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Roots([redacted])")
    }
}

pub(super) fn fresh() -> Result<[u8; 32], BadMasterKey> {
    let mut bytes = [0; 32];
    match SystemRandom::new().fill(&mut bytes) {
        Ok(()) => Ok(bytes),
        Err(_) => Err(BadMasterKey::NoRandomness),
    }
}
