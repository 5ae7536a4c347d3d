//! A request whose record or body cannot be read any more: it alone is given up, and
//! what stands beside it goes on.

use std::sync::Arc;

use crate::{
    model::{
        id::RequestKey,
        request::{Entry, Place, State},
    },
    ports::StoreError,
};

use super::{Engine, settling::error_body};

impl Engine {
    /// Ends it with `storage_damaged` where its record can be read; else it is taken
    /// out of its place, and whoever asks for it is told that the store is damaged.
    pub(super) async fn give_up_damaged(
        self: &Arc<Self>,
        entry: Entry,
        place: Place,
        damage: &StoreError,
    ) -> Result<(), StoreError> {
        let id = entry.key.id;
        tracing::error!(%id, %damage, "a request cannot be read; it is given up, and the others go on");
        match self.store.head(entry.key).await {
            Ok(Some(head)) if head.outcome.is_none() => {
                let answer = error_body(
                    "Part of this request was lost when the storage of this server was damaged. Send the call again.",
                    "server_error",
                    None,
                    Some("storage_damaged"),
                );
                let reason = "part of it was lost in a damaged database".to_owned();
                let places = vec![place];
                let ending =
                    self.own_ending(&head.request, places, State::Failed, 500, reason, answer);
                self.settle(vec![ending]).await.map(drop)
            }
            Ok(_) => Ok(()),
            Err(StoreError::Corrupt(_)) => self.set_aside(entry, place).await,
            Err(error) => Err(error),
        }
    }

    /// What failed so may be damaged elsewhere: it is given up where the request itself
    /// cannot be read.
    ///
    /// # Errors
    /// `error`, where it can.
    pub(super) async fn give_up_if_damaged(
        self: &Arc<Self>,
        entry: Entry,
        place: Place,
        error: StoreError,
    ) -> Result<(), StoreError> {
        match self.store.load(entry.key).await {
            Err(damage @ StoreError::Corrupt(_)) => {
                self.give_up_damaged(entry, place, &damage).await
            }
            _ => Err(error),
        }
    }

    async fn set_aside(&self, entry: Entry, place: Place) -> Result<(), StoreError> {
        if self.store.set_aside(entry, place).await? {
            self.summary.lock().exit(&place, &entry);
        }
        self.waiters.wake(entry.key);
        Ok(())
    }

    /// The lines that an upload could not read.
    pub(super) async fn give_up_lines(
        self: &Arc<Self>,
        place: Place,
        lines: &[Entry],
        spoiled: Vec<(RequestKey, String)>,
    ) -> Result<(), StoreError> {
        for (key, why) in spoiled {
            if let Some(entry) = lines.iter().find(|entry| entry.key == key) {
                let damage = StoreError::Corrupt(why);
                self.give_up_damaged(*entry, place, &damage).await?;
            }
        }
        Ok(())
    }
}
