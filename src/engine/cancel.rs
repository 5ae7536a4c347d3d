//! Ending a request because its caller wants so.

use std::sync::Arc;

use crate::{
    model::{
        id::RequestKey,
        request::{Outcome, State},
    },
    ports::{Settled, StoreError},
};

use super::{Engine, settling::error_body};

pub enum Cancelled {
    /// Cancelled, now or before.
    Yes,
    /// It had ended otherwise.
    TooLate(Outcome),
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Erased {
    Yes,
    Unknown,
}

impl Engine {
    /// A line that is at the provider may still be run and billed; its answer is
    /// then shown as paid for nothing.
    pub async fn cancel(self: &Arc<Self>, key: RequestKey) -> Result<Cancelled, StoreError> {
        self.cancel_because(key, "cancelled by the caller").await
    }

    /// The same where another than the caller wants it so.
    pub async fn cancel_because(
        self: &Arc<Self>,
        key: RequestKey,
        reason: &str,
    ) -> Result<Cancelled, StoreError> {
        let Some(head) = self.store.head(key).await? else {
            return Ok(Cancelled::Unknown);
        };
        if head.outcome.is_none() {
            let request = &head.request;
            let message = format!("The request {} was cancelled.", key.id);
            let body = error_body(
                &message,
                "invalid_request_error",
                None,
                Some("request_cancelled"),
            );
            let ending = self.own_ending(
                request,
                self.places_of(request),
                State::Cancelled,
                410,
                reason.into(),
                body,
            );
            let engine = self.clone();
            let settled = self
                .whole(async move { engine.settle(vec![ending]).await })
                .await?;
            if let Some((_, Settled::Unknown)) = settled.into_iter().next() {
                return Ok(Cancelled::Unknown);
            }
        }
        let Some(head) = self.store.head(key).await? else {
            return Ok(Cancelled::Unknown);
        };
        Ok(match head.outcome {
            Some(outcome) if outcome.state != State::Cancelled => Cancelled::TooLate(outcome),
            _ => Cancelled::Yes,
        })
    }

    /// Cancels if it is open, and removes it with its answer.
    pub async fn erase(self: &Arc<Self>, key: RequestKey) -> Result<Erased, StoreError> {
        let Some(head) = self.store.head(key).await? else {
            return Ok(Erased::Unknown);
        };
        if head.outcome.is_none() {
            self.cancel(key).await?;
        }
        self.holders.forget(key, head.request.digest);
        match self.store.erase(key).await? {
            true => Ok(Erased::Yes),
            false => Ok(Erased::Unknown),
        }
    }
}
