//! `stream: true` with a deadline, answered as server-sent events.
//!
//! Silence first, so that an early failure keeps its status; then comments until
//! the answer is there and told as events. A call that runs live at once is
//! passed on as it streams in. What fails once the stream has begun is told by
//! an error event; a live stream that breaks off is cut, as the provider's was.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use tokio::time::timeout;

use super::{
    Edge,
    errors::ApiError,
    hold::{Cut, Delivery, Ended, Held, Stands, waited},
    kept::{KeptAnswer, Rest, Unread},
    outcome::{self, Answer},
    prefer::Preference,
    replay::HEARTBEAT,
    stub::Facts,
};
use crate::{
    engine::{Tap, TapEvent},
    model::request::Outcome,
    ports::StoreError,
};

/// Answers a call whose caller waits, with events.
pub async fn hold(
    edge: Arc<Edge>,
    mut held: Held,
    prefer: Preference,
    include_usage: bool,
) -> Response {
    let tap = held.hold.tap();
    let mut waiting = Waiting {
        held,
        tap,
        include_usage,
    };
    let settings = &edge.settings.hold;
    let patience = prefer.wait.unwrap_or(settings.stream_silence);
    match waited(&edge, prefer, patience, waiting.heard()).await {
        Some(Ok(Heard::Ended(ended))) => Box::pin(waiting.answer(ended)).await,
        Some(Ok(Heard::Begin(headers, tap))) => {
            let mut response = waiting.begin();
            pass_on(&headers, response.headers_mut());
            with_body(
                response,
                Events::Live(Box::new(waiting), tap),
                settings.heartbeat,
            )
        }
        Some(Err(error)) => ApiError::from(error).into_response(),
        None if prefer.wait.is_some() => Box::pin(waiting.accepted(&edge, prefer)).await,
        None => {
            let response = waiting.begin();
            with_body(
                response,
                Events::Begun(Box::new(waiting)),
                settings.heartbeat,
            )
        }
    }
}

struct Waiting {
    held: Held,
    tap: Option<Tap>,
    include_usage: bool,
}

enum Heard {
    /// The provider's stream begins.
    Begin(HeaderMap, Tap),
    Ended(Ended),
}

impl Waiting {
    /// Can be dropped and called again without missing anything.
    async fn heard(&mut self) -> Result<Heard, StoreError> {
        if let Some(tap) = &mut self.tap {
            tokio::select! {
                // A stream that has begun goes first: its bytes are the answer.
                biased;
                // Another event: it was not streamed, or broke before it began,
                // and the ending will tell.
                event = tap.next() => {
                    if let (Some(TapEvent::Begin { headers }), Some(tap)) = (event, self.tap.take()) {
                        return Ok(Heard::Begin(headers, tap));
                    }
                }
                ended = self.held.ended() => return ended.map(Heard::Ended),
            }
        }
        self.held.ended().await.map(Heard::Ended)
    }

    /// The answer where nothing has been sent yet.
    async fn answer(self, ended: Ended) -> Response {
        match ended {
            Ended::Done { outcome, answer } if outcome.status < 300 && !self.held.is_replaced() => {
                let mut response = self.begin();
                let request = &self.held.request;
                Facts::ended(request, &outcome).describe(response.headers_mut());
                match self.events(&outcome, *answer).await {
                    Ok(events) => response.map(|_| self.held.deliver(events)),
                    Err(unread) => ApiError::from(unread).into_response(),
                }
            }
            ended => self.held.answer(ended).await,
        }
    }

    /// [`Held::accepted`]; an answer that is there is told as events.
    async fn accepted(self, edge: &Edge, prefer: Preference) -> Response {
        match self.held.stands(edge).await {
            Stands::Ended(ended) => self.answer(ended).await,
            Stands::Open(view) => self.held.pending(edge, prefer, view.as_deref()),
        }
    }

    async fn events(&self, outcome: &Outcome, kept: KeptAnswer) -> Result<Rest, Unread> {
        let (request, usage) = (&self.held.request, self.include_usage);
        outcome::events(request, outcome, kept, usage, &self.held.memory).await
    }

    fn begin(&self) -> Response {
        let events = HeaderValue::from_static("text/event-stream; charset=utf-8");
        self.held.begin(events)
    }

    async fn tell(self, ended: Ended) -> Result<Delivery, Unread> {
        let events = match ended {
            Ended::Gone => outcome::failure(&Answer::gone().body()).into(),
            Ended::Done { outcome, answer } => self.events(&outcome, *answer).await?,
        };
        Ok(self.held.into_delivery(events))
    }
}

/// What the provider says of the call itself: its request id, its rate limits
/// (WIRE.md §3). Framing and connection are ours.
fn pass_on(from: &HeaderMap, to: &mut HeaderMap) {
    let ours = |name: &HeaderName| {
        [
            header::CONTENT_LENGTH,
            header::TRANSFER_ENCODING,
            header::CONNECTION,
            header::DATE,
            header::CACHE_CONTROL,
            header::SET_COOKIE,
        ]
        .contains(name)
            || name.as_str() == "keep-alive"
            || name.as_str().starts_with("offpeak-")
    };
    for (name, value) in from.iter().filter(|(name, _)| !ours(name)) {
        to.insert(name.clone(), value.clone());
    }
}

fn with_body(response: Response, events: Events, heartbeat: Duration) -> Response {
    let stream = stream::unfold(events, move |events| events.next(heartbeat));
    response.map(|_| Body::from_stream(stream))
}

enum Events {
    /// The head is out, and nothing else.
    Begun(Box<Waiting>),
    Waiting(Box<Waiting>),
    Live(Box<Waiting>, Tap),
    Sending(Box<Delivery>),
    Over,
}

impl Events {
    async fn next(self, heartbeat: Duration) -> Option<(Result<Bytes, Cut>, Events)> {
        let mut events = self;
        loop {
            events = match events {
                Events::Begun(waiting) => {
                    return Some((Ok(Bytes::from_static(HEARTBEAT)), Events::Waiting(waiting)));
                }
                Events::Waiting(mut waiting) => match timeout(heartbeat, waiting.heard()).await {
                    Err(_) if !waiting.held.is_replaced() => Events::Begun(waiting),
                    Ok(Ok(Heard::Begin(_, tap))) => Events::Live(waiting, tap),
                    Ok(Ok(Heard::Ended(ended)))
                        if !waiting.held.is_replaced() || ended.is_withdrawn() =>
                    {
                        match Box::pin(waiting.tell(ended)).await {
                            Ok(delivery) => Events::Sending(Box::new(delivery)),
                            Err(_) => return Some((Err(Cut), Events::Over)),
                        }
                    }
                    _ => return Some((Err(Cut), Events::Over)),
                },
                Events::Live(waiting, mut tap) => match tap.next().await {
                    Some(TapEvent::Chunk(bytes)) => {
                        return Some((Ok(bytes), Events::Live(waiting, tap)));
                    }
                    Some(TapEvent::Begin { .. }) => Events::Live(waiting, tap),
                    Some(TapEvent::End) => {
                        Events::Sending(Box::new(waiting.held.into_delivery(Bytes::new().into())))
                    }
                    Some(TapEvent::Broken) | None => return Some((Err(Cut), Events::Over)),
                },
                Events::Sending(mut delivery) => {
                    let piece = delivery.next().await?;
                    return Some((piece, Events::Sending(delivery)));
                }
                Events::Over => return None,
            };
        }
    }
}
