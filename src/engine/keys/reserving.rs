//! What a call of an issued key may cost at most, as reckoned: when it comes in, again
//! when we start, and where its price is never known. A budget errs to the safe side, and
//! the ledger guesses nothing.

use std::collections::HashMap;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::{
    engine::{Engine, reserves::Calling},
    ledger,
    model::{
        endpoint::Endpoint,
        id::{CredentialId, RequestKey, TenantId},
        money::Usd,
        request::{Entry, Outcome, Request, State, Usage},
    },
    ports::{Content, StoreError},
};

/// Bodies read at the same time.
const LOADS: usize = 16;

impl Engine {
    /// At the ordinary price, of which a batch's is a part: any call may be rescued.
    pub(in crate::engine) fn most_of(
        &self,
        credential: CredentialId,
        endpoint: Endpoint,
        model: &str,
        body: &[u8],
    ) -> Usd {
        let output = self.mean_output(credential, model);
        let usage = ledger::expected_of(endpoint, body, output);
        self.ordinary_price(model, &usage)
    }

    /// Of lines of a batch together. None where no budget counts them.
    pub(in crate::engine) fn most_of_lines(&self, lines: &[Entry]) -> Option<Usd> {
        let kept = lines
            .iter()
            .filter_map(|line| self.reserves.amount(&line.key));
        kept.reduce(|sum, amount| sum + amount)
    }

    /// What may have been paid for an answer whose price is not known, by its tokens or,
    /// where it does not tell them, `most`.
    pub(in crate::engine) fn reckoned(
        &self,
        model: &str,
        (outcome, answer): (&Outcome, &[u8]),
        most: Option<Usd>,
    ) -> Usd {
        if outcome.state != State::Succeeded || outcome.bill.is_some() {
            // Errors are not billed.
            return Usd::ZERO;
        }
        let metered = ledger::meter_framed(outcome.framing, answer);
        match outcome.source.lane() {
            Some(lane) if metered.usage != Usage::default() => {
                self.prices.at_most(model, lane, &metered)
            }
            _ => most.unwrap_or_default(),
        }
    }

    /// Keeps a live call's money until it has ended, whatever becomes of its request.
    pub(in crate::engine) fn calling(&self, request: &Request, body: &Bytes) -> Option<Calling> {
        let key = request.key;
        let keys = self.keys.as_ref()?;
        if !keys.spending.knows(key.tenant) {
            return None;
        }
        let most = self.reserves.amount(&key).unwrap_or_else(|| {
            // It has just ended, and is called all the same.
            let Request {
                credential,
                endpoint,
                model,
                ..
            } = request;
            self.most_of(*credential, *endpoint, model, body)
        });
        Some(self.reserves.call(key, most))
    }

    /// Keeps money again for what was open when we stopped; returns how much. Of a tenant
    /// without any budget no body is read: it is guessed by its length until one is set.
    pub(in crate::engine) async fn reserve_open(
        &self,
        entries: &[Entry],
    ) -> Result<Usd, StoreError> {
        let budgeted = self.budgeted();
        let known = entries.iter().filter_map(|entry| {
            let budgeted = *budgeted.get(&entry.key.tenant)?;
            Some((entry, budgeted))
        });
        let kept = stream::iter(known).map(|(entry, budgeted)| async move {
            let most = match budgeted {
                true => self.most_of_open(entry.key).await?,
                false => None,
            };
            Ok(match most {
                Some(most) => {
                    self.reserves.open(entry.key, most);
                    most
                }
                None => {
                    let guess = self.price_of_entry(entry);
                    self.reserves.open_guessed(entry.key, guess);
                    guess
                }
            })
        });
        let sum = |sum: Usd, most| async move { Ok(sum + most) };
        kept.buffer_unordered(LOADS).try_fold(Usd::ZERO, sum).await
    }

    /// Reckons those of a tenant that were guessed, before a budget counts them.
    pub(super) async fn reckon_guessed(&self, tenant: TenantId) -> Result<(), StoreError> {
        for key in self.reserves.guessed(tenant) {
            if let Some(most) = self.most_of_open(key).await? {
                self.reserves.correct(key, most);
            }
        }
        Ok(())
    }

    /// None where it is not open any more, or cannot be read.
    async fn most_of_open(&self, key: RequestKey) -> Result<Option<Usd>, StoreError> {
        let stored = match self.store.load(key).await {
            Ok(Some(stored)) => stored,
            Ok(None) | Err(StoreError::Corrupt(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        let Content::Open { body } = stored.content else {
            return Ok(None);
        };
        let asked = stored.request;
        let most = self.most_of(asked.credential, asked.endpoint, &asked.model, &body);
        Ok(Some(most))
    }

    /// The tenants of issued keys, and whether one of their keys has a budget.
    fn budgeted(&self) -> HashMap<TenantId, bool> {
        let mut tenants = HashMap::new();
        for key in self.issued_keys() {
            let budgeted = tenants.entry(key.tenant).or_default();
            *budgeted |= key.issued.monthly_budget.is_some();
        }
        tenants
    }
}
