//! Callers who wait on the line (DESIGN.md §1, *Holding*).
//!
//! An ending within `drip_after` is answered as it is. After that a 200 goes
//! out, and white space until the answer comes, because idle connections die.
//! What failed then cannot be said any more: the connection is cut, the caller's
//! SDK sends the call again, and that call takes the request over and gets the
//! true status. With `Prefer: wait=N` nothing drips: the status stays open until
//! the answer or the 202.
//!
//! An [`Ending`] waits for the answer; a [`Delivery`] hands it out, and knows
//! whether it went.

mod delivery;
mod ending;

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, StatusCode, header};
use tokio::time::timeout;

pub use self::{
    delivery::{Cut, Delivery},
    ending::{Ended, Ending},
};
use super::{
    Edge,
    errors::{self, ApiError},
    kept::Rest,
    memory::Memory,
    outcome::Answer,
    prefer::Preference,
    stub::{self, Facts},
    waiting::Waits,
};
use crate::{
    engine::{Admitted, Engine, Hold, View},
    model::{id::RequestKey, request::Request},
    ports::StoreError,
};

#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Until then an outcome keeps its own status; then 200 and white space.
    #[serde(with = "crate::model::time::human")]
    pub drip_after: Duration,
    #[serde(with = "crate::model::time::human")]
    pub drip_interval: Duration,
    /// The same as `drip_after`, for `stream: true`.
    #[serde(with = "crate::model::time::human")]
    pub stream_silence: Duration,
    /// Between two comments of a stream that waits.
    #[serde(with = "crate::model::time::human")]
    pub heartbeat: Duration,
    /// The longest `Prefer: wait=N`.
    #[serde(with = "crate::model::time::human")]
    pub max_wait: Duration,
}

/// Answers a call whose caller waits, with JSON.
pub async fn hold(edge: Arc<Edge>, mut held: Held, prefer: Preference) -> Response {
    let patience = prefer.wait.unwrap_or(edge.settings.hold.drip_after);
    match waited(&edge, prefer, patience, held.ended()).await {
        Some(Ok(ended)) => Box::pin(held.answer(ended)).await,
        Some(Err(error)) => ApiError::from(error).into_response(),
        // Its caller may be there after all: a cut would be sent again, and bought.
        None if held.is_replaced() => replaced().into_response(),
        None if prefer.wait.is_some() => Box::pin(held.accepted(&edge, prefer)).await,
        None => drip(held, edge.settings.hold.drip_interval).await,
    }
}

/// What `waits` for, unless `patience` ends first. Who asked for a 202 after some
/// time gets it when the server stops, rather than a cut connection.
pub async fn waited<T>(
    edge: &Edge,
    prefer: Preference,
    patience: Duration,
    waits: impl Future<Output = T>,
) -> Option<T> {
    let stops = async {
        match prefer.wait {
            Some(_) => edge.stopping.cancelled().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        got = timeout(patience, waits) => got.ok(),
        () = stops => None,
    }
}

/// A caller on the line, with the request that it waits for.
pub struct Held {
    pub request: Arc<Request>,
    pub hold: Hold,
    pub memory: Arc<Memory>,
    ending: Ending,
    _waits: Option<Waits>,
}

/// How a request stands whose caller has waited long enough.
pub enum Stands {
    Ended(Ended),
    /// Without a view, the store could not tell.
    Open(Option<Box<View>>),
}

impl Held {
    /// `waits`: its place among the tenant's who wait, where it does.
    pub fn new(edge: &Edge, admitted: Admitted, waits: Option<Waits>) -> Self {
        let Admitted {
            request,
            mut hold,
            joined,
        } = admitted;
        let (engine, key) = (edge.engine.clone(), request.key);
        // A request that was there before this call may have ended.
        let (waiter, look) = match hold.waiter() {
            Some(waiter) => (waiter, joined),
            None => (engine.waiter(key), true),
        };
        Held {
            request,
            hold,
            memory: edge.memory.clone(),
            ending: Ending::new(engine, key, waiter, look),
            _waits: waits,
        }
    }

    pub async fn ended(&mut self) -> Result<Ended, StoreError> {
        self.ending.ended().await
    }

    /// Whether another call has taken the request over.
    pub fn is_replaced(&self) -> bool {
        !self.hold.is_current()
    }

    /// The answer with its own status; nothing has been sent yet.
    pub async fn answer(self, ended: Ended) -> Response {
        if !ended.is_withdrawn() && self.is_replaced() {
            return replaced().into_response();
        }
        match ended {
            Ended::Gone => Answer::gone().into_response(),
            Ended::Done { outcome, answer } => {
                match Answer::json(&self.request, &outcome, *answer, &self.memory).await {
                    Ok(answer) => answer.with_body(|rest| self.deliver(rest)),
                    Err(unread) => ApiError::from(unread).into_response(),
                }
            }
        }
    }

    /// 202: the caller waited as long as it wanted to. The answer, if it is there.
    pub async fn accepted(self, edge: &Edge, prefer: Preference) -> Response {
        match self.stands(edge).await {
            Stands::Ended(ended) => self.answer(ended).await,
            Stands::Open(view) => self.pending(edge, prefer, view.as_deref()),
        }
    }

    /// How the request stands now: it may have ended before this call joined it,
    /// or just as the wait was over.
    pub async fn stands(&self, edge: &Edge) -> Stands {
        let stands = stands(&edge.engine, self.request.key).await;
        stands.unwrap_or_else(|error| {
            tracing::warn!(id = %self.request.key.id, %error, "a request's state is told as it was at admission");
            Stands::Open(None)
        })
    }

    /// 202.
    pub fn pending(self, edge: &Edge, prefer: Preference, view: Option<&View>) -> Response {
        let facts = match view {
            Some(view) => Facts::open(view),
            None => Facts::admitted(&self.request),
        };
        let bytes = stub::body(&facts);
        let response = stub::accepted_with(edge, &facts, prefer, Body::empty());
        response.map(|_| self.deliver(bytes.into()))
    }

    /// 200 before the answer is there: a head that asks those on the way to hand
    /// the body on as it comes.
    pub fn begin(&self, content_type: HeaderValue) -> Response {
        let mut response = Response::new(Body::empty());
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, content_type);
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
        Facts::admitted(&self.request).describe(headers);
        response
    }

    /// A body that lets go of the request once it was handed out to its end.
    pub fn deliver(self, rest: Rest) -> Body {
        Body::new(self.into_delivery(rest))
    }

    pub fn into_delivery(self, rest: Rest) -> Delivery {
        Delivery::new(rest, self.ending.engine, self.hold)
    }
}

async fn stands(engine: &Arc<Engine>, key: RequestKey) -> Result<Stands, StoreError> {
    Ok(match engine.view(key).await? {
        None => Stands::Ended(Ended::Gone),
        Some(view) if view.outcome.is_none() => Stands::Open(Some(Box::new(view))),
        Some(_) => {
            let ended = Ending::look(engine, key).await?;
            ended.map_or(Stands::Open(None), Stands::Ended)
        }
    })
}

/// Said to a call that another one, which it says replaces it, took over from.
pub fn replaced() -> ApiError {
    ApiError::invalid(
        StatusCode::CONFLICT,
        "request_taken_over",
        "The same call was sent again, and that call gets the answer.",
    )
}

/// 200 at once, white space, then the answer.
async fn drip(held: Held, interval: Duration) -> Response {
    let response = held.begin(errors::JSON);
    let dripping = stream::unfold(Drip::Waiting(Box::new(held)), move |drip| {
        drip.next(interval)
    });
    response.map(|_| Body::from_stream(dripping))
}

enum Drip {
    Waiting(Box<Held>),
    Sending(Box<Delivery>),
    Over,
}

type Step<S> = Option<(Result<Bytes, Cut>, S)>;

impl Drip {
    async fn next(self, interval: Duration) -> Step<Drip> {
        match self {
            Drip::Waiting(mut held) => match timeout(interval, held.ended()).await {
                Err(_) if held.is_replaced() => Some((Err(Cut), Drip::Over)),
                Err(_) => Some((Ok(Bytes::from_static(b" ")), Drip::Waiting(held))),
                Ok(Ok(Ended::Done { outcome, answer })) if !held.is_replaced() => {
                    let json = Answer::json(&held.request, &outcome, *answer, &held.memory);
                    match Box::pin(json).await {
                        Ok(answer) if answer.status.is_success() => {
                            send(Box::new(held.into_delivery(answer.body))).await
                        }
                        _ => Some((Err(Cut), Drip::Over)),
                    }
                }
                Ok(_) => Some((Err(Cut), Drip::Over)),
            },
            Drip::Sending(delivery) => send(delivery).await,
            Drip::Over => None,
        }
    }
}

async fn send(mut delivery: Box<Delivery>) -> Step<Drip> {
    let piece = delivery.next().await?;
    Some((piece, Drip::Sending(delivery)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::{calls, stream};

    fn size3<A, B, C, F>(_: fn(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    fn size4<A, B, C, D, F>(_: fn(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }

    fn size2<A, B, F>(_: fn(A, B) -> F) -> usize {
        size_of::<F>()
    }

    /// Ten thousand callers may wait: each costs what these hold.
    #[test]
    fn who_waits_is_small() {
        let sizes = [
            ("a call", size2(calls::handle)),
            ("a held call", size3(hold)),
            ("a held stream", size4(stream::hold)),
            ("a holder", size_of::<Held>()),
            ("a dripping body", size2(Drip::next)),
        ];
        let large: Vec<_> = sizes.iter().filter(|(_, size)| *size > 4096).collect();
        assert!(large.is_empty(), "{sizes:?}");
    }
}
