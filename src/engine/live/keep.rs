//! What the scopes have learned, written down: limits hold for days, and after a
//! restart promises are given by them and not by what is believed of any provider.

use std::collections::HashMap;

use bytes::Bytes;
use parking_lot::Mutex;

use super::scopes::Scopes;
use crate::{
    engine::{Engine, scope::ScopeKey},
    policy::throttle::Known,
    ports::LearnedKey,
};

/// What rows of ordinary calls, and those of the flex tier, are called.
const ORDINARY: &str = "calls";
const FLEX: &str = "flex-calls";

/// Of ordinary and flex calls, what is written down.
#[derive(Default)]
pub struct Kept(Mutex<[HashMap<ScopeKey, Known>; 2]>);

impl Engine {
    fn kinds(&self) -> [(&'static str, &Scopes); 2] {
        [(ORDINARY, &self.scopes), (FLEX, &self.flex_scopes)]
    }

    /// What is to be written since the last time, and what is to be forgotten.
    pub(in crate::engine) fn changed_scopes(&self) -> Vec<(LearnedKey, Option<Bytes>)> {
        let mut changed = Vec::new();
        let mut kept = self.kept_scopes.0.lock();
        for ((what, scopes), kept) in self.kinds().into_iter().zip(&mut *kept) {
            let known: HashMap<ScopeKey, Known> = scopes.known().collect();
            for (key, news) in &known {
                if kept.get(key) != Some(news)
                    && let Ok(news) = postcard::to_stdvec(news)
                {
                    changed.push((self.row_of(key, what), Some(news.into())));
                }
            }
            let gone = kept.keys().filter(|key| !known.contains_key(key));
            changed.extend(gone.map(|key| (self.row_of(key, what), None)));
            *kept = known;
        }
        changed
    }

    /// Reads a row back. None where it is none of these, or cannot be read.
    pub(in crate::engine) fn recall_scope(
        &self,
        key: &ScopeKey,
        what: &str,
        row: &[u8],
    ) -> Option<()> {
        let mut kept = self.kept_scopes.0.lock();
        let kinds = self.kinds().into_iter().zip(&mut *kept);
        let ((_, scopes), kept) = kinds.into_iter().find(|((kind, _), _)| *kind == what)?;
        let known: Known = postcard::from_bytes(row).ok()?;
        known.is_sound().then_some(())?;
        scopes.recall(key.clone(), self.now(), &known);
        kept.insert(key.clone(), known);
        Some(())
    }
}
