//! What was said of which model to whom, as much as is remembered.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use tokio::sync::OnceCell;

use super::Answer;
use crate::model::{id::CredentialId, time::Timestamp};

/// How long "no" and "cannot say" are believed: a key may be mended any moment.
const DOUBT_TTL: Duration = Duration::from_secs(10);
/// Verdicts remembered. Anybody's key with any model makes one: over it the oldest is
/// forgotten, however fresh, which costs a check more.
const REMEMBERED: usize = 10_000;

/// Filled once by whoever asks first; the others wait for it.
pub type Verdict = Arc<OnceCell<Answer>>;

#[derive(Default)]
pub struct Verdicts {
    known: HashMap<CredentialId, HashMap<Arc<str>, Kept>>,
    /// Whose they are, in the order in which they were asked for.
    order: BTreeMap<u64, (CredentialId, Arc<str>)>,
    asked: u64,
}

struct Kept {
    number: u64,
    asked: Timestamp,
    verdict: Verdict,
}

impl Verdicts {
    /// The verdict that is still believed, or an empty one. "Yes" is believed for `ttl`.
    pub fn get(
        &mut self,
        credential: CredentialId,
        model: &str,
        now: Timestamp,
        ttl: Duration,
    ) -> Verdict {
        let kept = self
            .known
            .get(&credential)
            .and_then(|models| models.get(model));
        if let Some(kept) = kept {
            if kept.is_fresh(now, ttl) {
                return kept.verdict.clone();
            }
            self.order.remove(&kept.number);
        }
        let model: Arc<str> = model.into();
        self.asked += 1;
        let kept = Kept {
            number: self.asked,
            asked: now,
            verdict: Verdict::default(),
        };
        let verdict = kept.verdict.clone();
        self.order.insert(kept.number, (credential, model.clone()));
        self.known
            .entry(credential)
            .or_default()
            .insert(model, kept);
        if self.order.len() > REMEMBERED {
            self.forget_oldest();
        }
        verdict
    }

    fn forget_oldest(&mut self) {
        let Some((_, (credential, model))) = self.order.pop_first() else {
            return;
        };
        if let Some(models) = self.known.get_mut(&credential) {
            models.remove(&model);
            if models.is_empty() {
                self.known.remove(&credential);
            }
        }
    }
}

impl Kept {
    fn is_fresh(&self, now: Timestamp, ttl: Duration) -> bool {
        let ttl = match self.verdict.get() {
            Some(Answer::Fine) => ttl,
            _ => ttl.min(DOUBT_TTL),
        };
        self.asked + ttl > now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(600);

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_secs(1_000_000 + seconds)
    }

    fn credential(number: usize) -> CredentialId {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&number.to_be_bytes());
        CredentialId(id)
    }

    fn held(verdicts: &Verdicts) -> usize {
        verdicts.known.values().map(HashMap::len).sum()
    }

    #[test]
    fn the_oldest_is_forgotten_however_fresh_it_is() {
        let mut verdicts = Verdicts::default();
        let mine = |verdicts: &mut Verdicts| verdicts.get(credential(0), "m", at(0), TTL);
        let first = mine(&mut verdicts);
        first.set(Answer::Fine).unwrap();
        assert!(mine(&mut verdicts).initialized(), "it is known");
        for number in 1..2 * REMEMBERED {
            let fresh = verdicts.get(credential(number), "m", at(1), TTL);
            fresh.set(Answer::Fine).unwrap();
            assert!(held(&verdicts) <= REMEMBERED, "{number}");
        }
        assert_eq!(held(&verdicts), REMEMBERED);
        assert_eq!(verdicts.order.len(), REMEMBERED);
        let last = verdicts.get(credential(2 * REMEMBERED - 1), "m", at(2), TTL);
        assert!(last.initialized(), "the youngest is remembered");
        assert!(!mine(&mut verdicts).initialized(), "it is asked for anew");
    }

    #[test]
    fn who_is_asked_for_again_and_again_takes_one_place() {
        let mut verdicts = Verdicts::default();
        for seconds in 0..100 {
            for model in ["a", "b"] {
                let verdict = verdicts.get(credential(1), model, at(seconds * 11), TTL);
                assert!(!verdict.initialized(), "no longer believed");
                verdict.set(Answer::Unknown).unwrap();
            }
        }
        assert_eq!((held(&verdicts), verdicts.order.len()), (2, 2));
    }
}
