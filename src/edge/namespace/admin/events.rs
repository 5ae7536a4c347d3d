//! `GET /offpeak/admin/events`: the status as it changes, as server-sent events.
//!
//! Each stream asks once a second, and takes the newest there is: who reads slowly misses
//! what came between, and nothing queues up. However many ask, the status is made once a
//! second, and not at all where nobody does.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use axum::{
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::stream;
use http::header;
use serde_json::Value;
use tokio::{
    sync::{Mutex, OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep_until},
};

use super::{Operator, status::status};
use crate::{
    edge::{Edge, errors::ApiError},
    engine::Engine,
    ports::StoreError,
};

/// Streams at the same time: some pages of a few operators. Each keeps a connection.
const MAX_STREAMS: usize = 16;
/// Between two looks at how things stand.
const EVERY: Duration = Duration::from_secs(1);
/// Silence after which a comment keeps the connection alive.
const HEARTBEAT: Duration = Duration::from_secs(15);

pub async fn follow(State(edge): State<Arc<Edge>>, _: Operator) -> Result<Response, ApiError> {
    if edge.stopping.is_cancelled() {
        return Err(ApiError::shutting_down());
    }
    let streams = edge.bulletins.streams().clone();
    let place = streams.try_acquire_owned().map_err(|_| {
        let message = format!("{MAX_STREAMS} streams of events are open. Close one first.");
        ApiError::limited("too_many_streams", message).retry_after(HEARTBEAT)
    })?;
    let now = Instant::now();
    let following = Following {
        edge,
        told: None,
        look: now,
        last: now,
        _place: place,
    };
    let events = stream::unfold(following, |mut following| async move {
        let text = following.next().await?;
        Some((Ok::<_, StoreError>(text), following))
    });
    let fixed = [
        (header::CONTENT_TYPE, "text/event-stream; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    Ok((fixed, Body::from_stream(events)).into_response())
}

/// What is told to all streams.
#[derive(Default)]
pub struct Bulletins {
    streams: OnceLock<Arc<Semaphore>>,
    newest: Mutex<Option<Bulletin>>,
}

#[derive(Clone)]
struct Bulletin {
    made: Instant,
    /// Counts up where something changed.
    number: u64,
    /// Less what changes by itself.
    compared: Arc<Value>,
    text: Bytes,
}

impl Bulletins {
    fn streams(&self) -> &Arc<Semaphore> {
        self.streams
            .get_or_init(|| Arc::new(Semaphore::new(MAX_STREAMS)))
    }

    async fn newest(&self, engine: &Engine) -> Result<(u64, Bytes), StoreError> {
        let mut newest = self.newest.lock().await;
        if let Some(fresh) = &*newest
            && fresh.made.elapsed() < EVERY
        {
            return Ok((fresh.number, fresh.text.clone()));
        }
        let made = Instant::now();
        let status = serde_json::to_value(status(engine).await?);
        let status = status.map_err(|error| StoreError::Io(error.into()))?;
        let text = Bytes::from(format!("event: status\ndata: {status}\n\n"));
        let compared = Arc::new(timeless(status));
        let number = match &*newest {
            Some(before) if before.compared == compared => before.number,
            Some(before) => before.number + 1,
            None => 0,
        };
        let bulletin = Bulletin {
            made,
            number,
            compared,
            text,
        };
        let told = (number, bulletin.text.clone());
        *newest = Some(bulletin);
        Ok(told)
    }
}

/// Without what is another from one moment to the next although nothing happened.
fn timeless(mut status: Value) -> Value {
    if let Some(status) = status.as_object_mut() {
        status.remove("now");
        let batches = status.get_mut("batches").and_then(Value::as_array_mut);
        for batch in batches.into_iter().flatten() {
            batch
                .as_object_mut()
                .map(|batch| batch.remove("age_seconds"));
        }
    }
    status
}

/// One stream.
struct Following {
    edge: Arc<Edge>,
    /// The number of the bulletin that it was told last.
    told: Option<u64>,
    /// When it looks next.
    look: Instant,
    /// When it was sent something.
    last: Instant,
    _place: OwnedSemaphorePermit,
}

impl Following {
    /// None where the process stops.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            tokio::select! {
                biased;
                () = self.edge.stopping.cancelled() => return None,
                () = sleep_until(self.look) => {}
            }
            let newest = self.edge.bulletins.newest(&self.edge.engine).await;
            let now = Instant::now();
            self.look = now + EVERY;
            match newest {
                Ok((number, text)) if self.told != Some(number) => {
                    (self.told, self.last) = (Some(number), now);
                    return Some(text);
                }
                Ok(_) => {}
                Err(error) => tracing::error!(%error, "the status cannot be told"),
            }
            if now - self.last >= HEARTBEAT {
                self.last = now;
                return Some(Bytes::from_static(b":\n\n"));
            }
        }
    }
}
