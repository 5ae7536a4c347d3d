//! Creating and revoking keys: durable first, then in the map that calls are looked up
//! in, then told.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use thiserror::Error;

use super::{Key, Keys};
use crate::{
    engine::Engine,
    model::{id::KeyId, issued::IssuedKey, money::Usd, secret::Secret, time::Timestamp},
    ports::StoreError,
};

/// What an issued key begins with.
const PREFIX: &str = "ofp_";
/// Characters of a name.
const LONGEST_NAME: usize = 128;
const MOST_MODELS: usize = 100;
/// Ten years.
const LONGEST_LIFE: Duration = Duration::from_secs(3_653 * 86_400);
/// The name of the upstream that a key is for if it says nothing.
const DEFAULT: &str = "default";

/// A key that is asked for.
#[derive(Clone, Debug, Default)]
pub struct NewKey {
    pub name: String,
    /// None for a tenant of its own.
    pub tenant: Option<String>,
    /// None for the one that is called `default`, or the only one.
    pub upstream: Option<String>,
    pub expires: Option<Timestamp>,
    pub models: Vec<String>,
    pub monthly_budget: Option<Usd>,
    pub requests_per_minute: Option<u32>,
    /// None: unless there is a budget, in which calls that pass through do not count.
    pub passthrough: Option<bool>,
}

#[derive(Debug, Error)]
pub enum IssueError {
    #[error("callers present their own keys here: auth.mode is \"pass-through\"")]
    NotIssuing,
    /// The field at fault, and what is accepted.
    #[error("{message}")]
    Bad {
        field: &'static str,
        message: String,
    },
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Engine {
    /// Issues a key that was asked for at `now`. Its text is returned here and kept
    /// nowhere.
    pub async fn issue(
        self: &Arc<Self>,
        wanted: NewKey,
        now: Timestamp,
    ) -> Result<(Arc<Key>, Secret), IssueError> {
        let engine = self.clone();
        self.whole(async move { engine.issue_now(wanted, now).await })
            .await
    }

    async fn issue_now(
        &self,
        wanted: NewKey,
        now: Timestamp,
    ) -> Result<(Arc<Key>, Secret), IssueError> {
        let keys = self.keys.as_ref().ok_or(IssueError::NotIssuing)?;
        let id = KeyId::new(now, self.clock.random());
        let upstream = keys.upstream_for(wanted.upstream)?;
        let tenant = wanted.tenant.map(|tenant| name("tenant", tenant));
        let text = self.key_text();
        let issued = IssuedKey {
            id,
            print: self.print_of(text.expose()),
            name: name("name", wanted.name)?,
            tenant: tenant.unwrap_or_else(|| Ok(id.to_string()))?,
            upstream,
            created: now,
            expires: expiry(wanted.expires, now)?,
            revoked: None,
            models: patterns(wanted.models)?,
            monthly_budget: budget(wanted.monthly_budget)?,
            requests_per_minute: rate(wanted.requests_per_minute)?,
            passthrough: wanted
                .passthrough
                .unwrap_or(wanted.monthly_budget.is_none()),
        };
        let _one_at_a_time = keys.changes.lock().await;
        let key = Arc::new(self.key_of(issued));
        self.count_spending(keys, key.tenant).await?;
        if key.issued.monthly_budget.is_some() {
            self.reckon_guessed(key.tenant).await?;
        }
        self.store.put_issued(&key.issued).await?;
        keys.known.write().insert(key.issued.print, key.clone());
        tracing::info!(key = %id, name = key.issued.name, "issued a key");
        Ok((key, text))
    }

    /// Revokes a key: the next call with it is refused. None where there is no such key.
    pub async fn revoke(self: &Arc<Self>, id: KeyId) -> Result<Option<Arc<Key>>, StoreError> {
        let engine = self.clone();
        self.whole(async move { engine.revoke_now(id).await }).await
    }

    async fn revoke_now(&self, id: KeyId) -> Result<Option<Arc<Key>>, StoreError> {
        let Some(keys) = &self.keys else {
            return Ok(None);
        };
        let _one_at_a_time = keys.changes.lock().await;
        let known = keys.all().into_iter().find(|key| key.issued.id == id);
        let Some(key) = known else {
            return Ok(None);
        };
        if key.issued.revoked.is_some() {
            return Ok(Some(key));
        }
        let issued = IssuedKey {
            revoked: Some(self.now()),
            ..key.issued.clone()
        };
        self.store.put_issued(&issued).await?;
        let revoked = Arc::new(Key {
            issued,
            tenant: key.tenant,
            bucket: key.bucket.clone(),
        });
        keys.known
            .write()
            .insert(revoked.issued.print, revoked.clone());
        tracing::info!(key = %id, name = revoked.issued.name, "revoked a key");
        Ok(Some(revoked))
    }

    /// All keys that were issued, the oldest first.
    pub fn issued_keys(&self) -> Vec<Arc<Key>> {
        self.keys.as_ref().map(Keys::all).unwrap_or_default()
    }

    /// 256 random bits.
    fn key_text(&self) -> Secret {
        let mut bytes = [0; 32];
        bytes[..16].copy_from_slice(&self.clock.random().to_be_bytes());
        bytes[16..].copy_from_slice(&self.clock.random().to_be_bytes());
        Secret::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes)))
    }
}

impl Keys {
    fn upstream_for(&self, wanted: Option<String>) -> Result<String, IssueError> {
        let names = self.upstreams.keys();
        let names: Vec<String> = names.map(|name| format!("`{name}`")).collect();
        let accepted = names.join(", ");
        match (wanted, self.upstreams.len()) {
            (Some(wanted), _) if self.upstreams.contains_key(&wanted) => Ok(wanted),
            (Some(wanted), _) => Err(bad(
                "upstream",
                format!("[auth.upstream] names no `{wanted}`. Accepted: {accepted}."),
            )),
            (None, _) if self.upstreams.contains_key(DEFAULT) => Ok(DEFAULT.into()),
            (None, 1) => Ok(self.upstreams.keys().next().cloned().unwrap_or_default()),
            (None, _) => Err(bad(
                "upstream",
                format!("Several upstreams, and none is called `default`. Accepted: {accepted}."),
            )),
        }
    }
}

fn bad(field: &'static str, message: String) -> IssueError {
    IssueError::Bad { field, message }
}

fn name(field: &'static str, text: String) -> Result<String, IssueError> {
    let length = text.chars().count();
    let printable = !text.chars().any(char::is_control) && text.trim() == text;
    match printable && (1..=LONGEST_NAME).contains(&length) {
        true => Ok(text),
        false => Err(bad(
            field,
            format!(
                "`{field}` takes 1 to {LONGEST_NAME} printable characters, without spaces around \
                 them."
            ),
        )),
    }
}

fn expiry(at: Option<Timestamp>, now: Timestamp) -> Result<Option<Timestamp>, IssueError> {
    match at {
        Some(at) if at <= now => Err(bad("expires", "`expires` has passed.".into())),
        Some(at) if now.until(at) > LONGEST_LIFE => {
            let message = "`expires` is more than ten years away. Leave it out for a key that \
                           does not expire.";
            Err(bad("expires", message.into()))
        }
        at => Ok(at),
    }
}

fn patterns(models: Vec<String>) -> Result<Vec<String>, IssueError> {
    if models.len() > MOST_MODELS {
        let message = format!("`models` takes {MOST_MODELS} patterns at most.");
        return Err(bad("models", message));
    }
    for pattern in &models {
        let exact = pattern.strip_suffix('*').unwrap_or(pattern);
        let odd = |c: char| c == '*' || c.is_whitespace() || c.is_control();
        if pattern.is_empty() || pattern.len() > 256 || exact.contains(odd) {
            let message = format!(
                "`{pattern}` is no pattern of models. Accepted: a name (`o3`), or its beginning \
                 and `*` (`gpt-5*`)."
            );
            return Err(bad("models", message));
        }
    }
    Ok(models)
}

fn budget(amount: Option<Usd>) -> Result<Option<Usd>, IssueError> {
    match amount {
        Some(amount) if amount < Usd::ZERO => {
            let message = "A budget is an amount in dollars such as \"25\" or \"0.50\".";
            Err(bad("budget_usd_per_month", message.into()))
        }
        amount => Ok(amount),
    }
}

fn rate(per_minute: Option<u32>) -> Result<Option<u32>, IssueError> {
    match per_minute {
        Some(0) => {
            let message = "`requests_per_minute` is 1 or more. To stop a key, revoke it.";
            Err(bad("requests_per_minute", message.into()))
        }
        per_minute => Ok(per_minute),
    }
}
