//! Waiting for a request's ending.

use std::sync::Arc;

use crate::{
    edge::{kept::KeptAnswer, memory::SMALL},
    engine::{Engine, Waiter},
    model::{
        id::RequestKey,
        request::{Outcome, State},
    },
    ports::StoreError,
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
    pub async fn look(engine: &Arc<Engine>, key: RequestKey) -> Result<Option<Ended>, StoreError> {
        let Some(outline) = engine.outline(key, SMALL).await? else {
            return Ok(Some(Ended::Gone));
        };
        Ok(outline.ending.map(|(outcome, kept)| Ended::Done {
            outcome,
            answer: Box::new(KeptAnswer::new(engine.clone(), key, kept)),
        }))
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
        answer: Box<KeptAnswer>,
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
