//! A caller's body, read whole and bounded: in bytes, in time, and in the memory of all
//! that are read.

use std::{pin::pin, time::Duration};

use axum::body::Body;
use bytes::Bytes;
use http::StatusCode;
use http_body::Body as _;
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout};

use super::{
    errors::ApiError,
    memory::{Busy, Portion},
    passthrough::Stalled,
};

/// How much of a body is taken.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub bytes: u64,
    /// From the head to the body's last byte.
    pub time: Duration,
}

/// Reads a body. It is counted for as long as the portion is held.
///
/// # Errors
/// 413 for one that is too large, 408 for one that takes too long or stops coming, 400
/// for one that breaks off, 503 where there is no memory for it.
pub async fn read(
    mut body: Body,
    bounds: Bounds,
    mut portion: Portion,
) -> Result<(Bytes, Portion), ApiError> {
    let begun = Instant::now();
    let refused = match timeout(bounds.time, gather(&mut body, bounds.bytes, &mut portion)).await {
        Ok(Ok(whole)) => return Ok((whole, portion)),
        Ok(Err(Unread::Broken(error))) => return Err(error),
        Ok(Err(Unread::TooLarge)) => too_large(bounds.bytes),
        Ok(Err(Unread::Busy(busy))) => busy.into(),
        Err(_) => {
            let most = humantime::format_duration(bounds.time);
            return Err(slow(format!(
                "The body of a call with a deadline must be there within {most}."
            )));
        }
    };
    drop(portion);
    let time = bounds.time.saturating_sub(begun.elapsed());
    discard(body, Bounds { time, ..bounds }).await;
    Err(refused)
}

/// Reads the rest of a body that is refused and forgets it: a caller who is
/// still sending hears no answer before it is done, and a connection closed on
/// unread bytes takes the answer with it. Bounded, for who sends for ever.
pub async fn discard(body: Body, bounds: Bounds) {
    // Out of time, the answer is written to a caller who may not hear it.
    let _ = timeout(bounds.time, forget(body, bounds.bytes)).await;
}

/// Why a body is not there.
enum Unread {
    Broken(ApiError),
    TooLarge,
    Busy(Busy),
}

impl From<Busy> for Unread {
    fn from(busy: Busy) -> Unread {
        Unread::Busy(busy)
    }
}

async fn gather(body: &mut Body, most: u64, portion: &mut Portion) -> Result<Bytes, Unread> {
    if body.size_hint().lower() > most {
        return Err(Unread::TooLarge);
    }
    let all = body.size_hint().exact().unwrap_or(most).min(most);
    let leave = portion.leave();
    let mut leave = pin!(leave.notified());
    let mut whole = Vec::new();
    loop {
        let frame = tokio::select! {
            biased;
            frame = body.frame() => frame,
            () = &mut leave => return Err(Unread::Busy(Busy)),
        };
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|error| {
            Unread::Broken(match Stalled::is_in(&error) {
                true => slow(format!("The request's body stopped coming: {error}.")),
                false => ApiError::bad(
                    "unreadable_body",
                    format!("The request's body broke off or is malformed: {error}."),
                ),
            })
        })?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        let needed = whole.len() + data.len();
        if needed as u64 > most {
            return Err(Unread::TooLarge);
        }
        if needed > whole.capacity() {
            // A length that is only claimed takes no memory: what is counted is the
            // buffer, and it doubles as bytes come, a dozen times at most.
            let doubled = (2 * whole.capacity()).max(AT_FIRST) as u64;
            let room = doubled.min(all).max(needed as u64);
            portion.grow(room)?;
            whole.reserve_exact(room as usize - whole.len());
        }
        whole.extend_from_slice(&data);
    }
    portion.whole()?;
    Ok(whole.into())
}

/// Room for a body of which anything has come, in bytes.
const AT_FIRST: usize = 8 * 1024;

/// How much of a refused body is read, in multiples of what would have been
/// taken.
const PATIENCE: u64 = 8;

async fn forget(mut body: Body, most: u64) {
    let mut left = most.saturating_mul(PATIENCE);
    if body.size_hint().lower() > left {
        return;
    }
    while let Some(Ok(frame)) = body.frame().await {
        let length = frame.data_ref().map_or(0, Bytes::len) as u64;
        left = left.saturating_sub(length);
        if left == 0 {
            return;
        }
    }
}

/// Nothing was taken in: the call may be sent again.
fn slow(message: String) -> ApiError {
    ApiError::invalid(StatusCode::REQUEST_TIMEOUT, "request_timeout", message)
        .retry_after(Duration::from_secs(1))
}

fn too_large(most: u64) -> ApiError {
    ApiError::invalid(
        StatusCode::PAYLOAD_TOO_LARGE,
        "request_too_large",
        format!(
            "The body of a call with a deadline may have at most {most} bytes. \
             Send it without a deadline, or raise admission.max_body_bytes."
        ),
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        edge::memory::{Memory, PATIENCE},
        model::id::TenantId,
    };

    fn bounds(bytes: u64) -> Bounds {
        let time = Duration::from_secs(60);
        Bounds { bytes, time }
    }

    async fn alone(body: Body, bounds: Bounds) -> Result<Bytes, ApiError> {
        let portion = Memory::new(1 << 20).begin(TenantId([1; 16]));
        read(body, bounds, portion).await.map(|(bytes, _)| bytes)
    }

    #[tokio::test]
    async fn a_body_up_to_the_bound_and_no_further() {
        assert_eq!(
            alone(Body::from("12345"), bounds(5)).await.unwrap(),
            "12345"
        );
        let refused = alone(Body::from("123456"), bounds(5)).await;
        assert_eq!(refused.unwrap_err().status(), 413);
        let parts = || futures_util::stream::iter(["123", "456"].map(Ok::<_, std::io::Error>));
        assert_eq!(
            alone(Body::from_stream(parts()), bounds(6)).await.unwrap(),
            "123456"
        );
        let refused = alone(Body::from_stream(parts()), bounds(5)).await;
        assert_eq!(refused.unwrap_err().status(), 413);
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_the_callers_fault() {
        let parts = [Ok("12"), Err(std::io::Error::other("gone"))];
        let broken = Body::from_stream(futures_util::stream::iter(parts));
        assert_eq!(alone(broken, bounds(5)).await.unwrap_err().status(), 400);
    }

    fn trickle() -> Body {
        Body::from_stream(futures_util::stream::unfold((), async |()| {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Some((Ok::<_, std::io::Error>("x"), ()))
        }))
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_takes_too_long_is_not_waited_for() {
        let refused = alone(trickle(), bounds(1_000)).await;
        assert_eq!(refused.unwrap_err().status(), 408);
        discard(trickle(), bounds(1_000)).await;
    }

    /// A body of `size` bytes in pieces, of which nothing is claimed beforehand.
    fn pieces(size: usize) -> Body {
        let piece = Bytes::from(vec![b'x'; 1000]);
        let pieces = (0..size / 1000).map(move |_| Ok::<_, std::io::Error>(piece.clone()));
        Body::from_stream(futures_util::stream::iter(pieces))
    }

    #[tokio::test]
    async fn memory_is_counted_as_bytes_come_and_given_back() {
        let memory = Memory::new(1 << 20);
        let read = async |body, bytes| {
            let portion = memory.begin(TenantId([1; 16]));
            read(body, bounds(bytes), portion).await
        };
        let (bytes, portion) = read(pieces(100_000), 200_000).await.unwrap();
        assert_eq!(bytes.len(), 100_000);
        assert!((100_000..200_000).contains(&memory.used()), "the buffer");
        drop(portion);
        let known = read(Body::from(vec![b'x'; 100_000]), 200_000)
            .await
            .unwrap();
        assert_eq!(memory.used(), 100_000, "no more than the body is long");
        drop(known);
        // Within its own bound, but not within what a tenant may have.
        let busy = read(pieces(600_000), 1 << 20).await.map(|_| ());
        assert_eq!(busy.unwrap_err().status(), 503);
        let large = read(pieces(100_000), 50_000).await.map(|_| ());
        assert_eq!(large.unwrap_err().status(), 413);
        assert_eq!(memory.used(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn who_sends_slowly_gives_way_and_is_told() {
        let memory: Arc<Memory> = Memory::new(3_500);
        let of = |tenant| memory.begin(TenantId([tenant; 16]));
        let slow = read(trickle(), bounds(1_000), of(1));
        let also_slow = read(trickle(), bounds(1_000), of(2));
        let quick = async {
            tokio::time::sleep(PATIENCE / 2).await;
            let early = read(pieces(1_000), bounds(1_000), of(3)).await;
            assert_eq!(early.map(|_| ()).unwrap_err().status(), 503);
            tokio::time::sleep(PATIENCE / 2).await;
            let (bytes, _portion) = read(pieces(1_000), bounds(1_000), of(3)).await.unwrap();
            bytes.len()
        };
        let (slow, also_slow, quick) = tokio::join!(slow, also_slow, quick);
        assert_eq!(quick, 1_000);
        assert_eq!(slow.map(|_| ()).unwrap_err().status(), 503);
        assert_eq!(also_slow.map(|_| ()).unwrap_err().status(), 408);
        assert_eq!(memory.used(), 0);
    }
}
