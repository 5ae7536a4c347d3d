//! Waiting for a request's ending.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    engine::{Engine, Waiter},
    model::{
        id::RequestKey,
        request::{Outcome, State},
    },
    ports::{Content, StoreError},
};

/// Waits for a request's ending; reads the store only when woken.
pub struct Ending {
    pub engine: Arc<Engine>,
    key: RequestKey,
    waiter: Waiter,
    /// Something may have happened since the store was last read.
    look: bool,
}

impl Ending {
    /// `look`: it may have ended before the waiter was registered.
    pub fn new(engine: Arc<Engine>, key: RequestKey, waiter: Waiter, look: bool) -> Self {
        Ending {
            engine,
            key,
            waiter,
            look,
        }
    }

    /// None while it is open.
    pub async fn look(engine: &Engine, key: RequestKey) -> Result<Option<Ended>, StoreError> {
        Ok(match engine.load(key).await? {
            None => Some(Ended::Gone),
            Some(stored) => match stored.content {
                Content::Done { outcome, answer } => Some(Ended::Done { outcome, answer }),
                Content::Open { .. } => None,
            },
        })
    }

    /// Can be dropped and called again without missing anything.
    pub async fn ended(&mut self) -> Result<Ended, StoreError> {
        loop {
            if self.look {
                if let Some(ended) = Ending::look(&self.engine, self.key).await? {
                    return Ok(ended);
                }
                self.look = false;
            }
            self.waiter.woken().await;
            self.look = true;
        }
    }
}

/// How a request ended.
pub enum Ended {
    Done {
        outcome: Outcome,
        answer: Bytes,
    },
    /// Erased.
    Gone,
}

impl Ended {
    /// The caller's own doing: nobody else waits for an answer. A request that
    /// was erased has no holder any more, so these are told to whoever waits.
    pub fn is_withdrawn(&self) -> bool {
        match self {
            Ended::Gone => true,
            Ended::Done { outcome, .. } => outcome.state == State::Cancelled,
        }
    }
}
