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
use http::{HeaderName, header};
use serde_json::Value;
use tokio::{
    sync::{Mutex, OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep_until},
};

use super::{Operator, status::status};
use crate::{
    edge::{Edge, errors::ApiError},
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
        told: Told {
            number: None,
            last: now,
        },
        look: now,
        _place: place,
    };
    let events = stream::unfold(following, |mut following| async move {
        let text = following.next().await?;
        Some((Ok::<_, StoreError>(text), following))
    });
    let fixed = [
        (header::CONTENT_TYPE, "text/event-stream; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        // Nginx and its like keep bytes back without it.
        (HeaderName::from_static("x-accel-buffering"), "no"),
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

    async fn newest(&self, edge: &Edge) -> Result<(u64, Bytes), StoreError> {
        let mut newest = self.newest.lock().await;
        if let Some(fresh) = &*newest
            && fresh.made.elapsed() < EVERY
        {
            return Ok((fresh.number, fresh.text.clone()));
        }
        let made = Instant::now();
        let status = serde_json::to_value(status(edge).await?);
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

/// Without what is another from one moment to the next although nothing happened: ages,
/// and what was seen of calls, which counts for less with time.
fn timeless(mut status: Value) -> Value {
    let fading: [(&str, &[&str]); 2] = [
        ("batches", &["age_seconds"]),
        ("live", &["latency_seconds", "calls_per_second"]),
    ];
    if let Some(status) = status.as_object_mut() {
        status.remove("now");
        for (list, fields) in fading {
            let rows = status.get_mut(list).and_then(Value::as_array_mut);
            for row in rows.into_iter().flatten().filter_map(Value::as_object_mut) {
                row.retain(|field, _| !fields.contains(&field.as_str()));
            }
        }
    }
    status
}

/// One stream.
struct Following {
    edge: Arc<Edge>,
    told: Told,
    /// When it looks next.
    look: Instant,
    _place: OwnedSemaphorePermit,
}

impl Following {
    /// None where the process stops, and where nothing can be told: a stream that keeps
    /// open says that all is well.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            tokio::select! {
                biased;
                () = self.edge.stopping.cancelled() => return None,
                () = sleep_until(self.look) => {}
            }
            let newest = self.edge.bulletins.newest(&self.edge).await;
            let now = Instant::now();
            self.look = now + EVERY;
            match self.told.next(newest, now) {
                Next::Say(text) => return Some(text),
                Next::Silence => {}
                Next::End => return None,
            }
        }
    }
}

/// What a stream was told, and when.
struct Told {
    /// The number of its last bulletin.
    number: Option<u64>,
    /// When it was sent something.
    last: Instant,
}

#[derive(Debug, PartialEq, Eq)]
enum Next {
    Say(Bytes),
    Silence,
    End,
}

impl Told {
    fn next(&mut self, newest: Result<(u64, Bytes), StoreError>, now: Instant) -> Next {
        match newest {
            Ok((number, text)) if self.number != Some(number) => {
                (self.number, self.last) = (Some(number), now);
                Next::Say(text)
            }
            Ok(_) if now - self.last >= HEARTBEAT => {
                self.last = now;
                Next::Say(Bytes::from_static(b":\n\n"))
            }
            Ok(_) => Next::Silence,
            Err(error) => {
                tracing::error!(%error, "the status cannot be told");
                Next::End
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use serde_json::json;

    use super::*;

    #[test]
    fn what_fades_by_itself_is_no_change() {
        let status = |second: u64, seconds: f64, in_flight: u64| {
            json!({
                "object": "offpeak.status",
                "now": format!("2026-11-22T17:25:{second:02}.000Z"),
                "live": [{
                    "organization": "org-acme", "model": "gpt-4o-mini", "limit": 64,
                    "in_flight": in_flight, "paused_until": null,
                    "latency_seconds": seconds, "calls_per_second": 64.0 / seconds,
                }],
                "batches": [{"id": "ob_1", "state": "submitted", "age_seconds": second}],
            })
        };
        let before = timeless(status(1, 2.31, 3));
        assert_eq!(before, timeless(status(59, 2.28, 3)));
        assert_ne!(before, timeless(status(1, 2.31, 4)));
        assert_eq!(before["batches"][0]["state"], "submitted");
    }

    #[test]
    fn a_stream_that_has_nothing_to_tell_ends() {
        let start = Instant::now();
        let mut told = Told {
            number: None,
            last: start,
        };
        let text = Bytes::from_static(b"event: status");
        let bulletin = || Ok((7, text.clone()));
        assert_eq!(told.next(bulletin(), start), Next::Say(text.clone()));
        assert_eq!(told.next(bulletin(), start + EVERY), Next::Silence);
        let heartbeat = Next::Say(Bytes::from_static(b":\n\n"));
        assert_eq!(told.next(bulletin(), start + HEARTBEAT), heartbeat);
        let broken = || Err(StoreError::Io(io::Error::other("the disk is gone")));
        assert_eq!(told.next(broken(), start + HEARTBEAT), Next::End);
    }
}
