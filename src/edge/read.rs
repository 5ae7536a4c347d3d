//! A caller's body, read whole and bounded: in bytes, and in time.

use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http_body::Body as _;
use http_body_util::BodyExt;
use tokio::time::timeout;

use super::{errors::ApiError, passthrough::Stalled};

/// How much of a body is taken.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub bytes: u64,
    /// From the head to the body's last byte.
    pub time: Duration,
}

/// Reads a body.
///
/// # Errors
/// 413 for one that is too large, 408 for one that takes too long or stops coming, 400
/// for one that breaks off.
pub async fn read(body: Body, bounds: Bounds) -> Result<Bytes, ApiError> {
    let read = timeout(bounds.time, read_whole(body, bounds.bytes)).await;
    read.unwrap_or_else(|_| {
        let most = humantime::format_duration(bounds.time);
        Err(slow(format!(
            "The body of a call with a deadline must be there within {most}."
        )))
    })
}

/// Reads the rest of a body that is refused and forgets it: a caller who is
/// still sending hears no answer before it is done, and a connection closed on
/// unread bytes takes the answer with it. Bounded, for who sends for ever.
pub async fn discard(body: Body, bounds: Bounds) {
    // Out of time, the answer is written to a caller who may not hear it.
    let _ = timeout(bounds.time, forget(body, bounds.bytes)).await;
}

async fn read_whole(mut body: Body, most: u64) -> Result<Bytes, ApiError> {
    if body.size_hint().lower() > most {
        forget(body, most).await;
        return Err(too_large(most));
    }
    // A length that is only claimed takes no memory.
    let claimed = usize::try_from(body.size_hint().lower()).unwrap_or(0);
    let mut whole = BytesMut::with_capacity(claimed.min(AT_FIRST));
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| match Stalled::is_in(&error) {
            true => slow(format!("The request's body stopped coming: {error}.")),
            false => ApiError::bad(
                "unreadable_body",
                format!("The request's body broke off or is malformed: {error}."),
            ),
        })?;
        if let Ok(data) = frame.into_data() {
            if (whole.len() + data.len()) as u64 > most {
                drop(whole);
                forget(body, most).await;
                return Err(too_large(most));
            }
            whole.extend_from_slice(&data);
        }
    }
    Ok(whole.freeze())
}

/// Room for a body before any of it is there, in bytes.
const AT_FIRST: usize = 64 * 1024;

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
    use super::*;

    fn bounds(bytes: u64) -> Bounds {
        let time = Duration::from_secs(60);
        Bounds { bytes, time }
    }

    #[tokio::test]
    async fn a_body_up_to_the_bound_and_no_further() {
        assert_eq!(read(Body::from("12345"), bounds(5)).await.unwrap(), "12345");
        assert_eq!(
            read(Body::from("123456"), bounds(5))
                .await
                .unwrap_err()
                .status(),
            413
        );
        let parts = || futures_util::stream::iter(["123", "456"].map(Ok::<_, std::io::Error>));
        assert_eq!(
            read(Body::from_stream(parts()), bounds(6)).await.unwrap(),
            "123456"
        );
        let refused = read(Body::from_stream(parts()), bounds(5)).await;
        assert_eq!(refused.unwrap_err().status(), 413);
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_the_callers_fault() {
        let parts = [Ok("12"), Err(std::io::Error::other("gone"))];
        let broken = Body::from_stream(futures_util::stream::iter(parts));
        assert_eq!(read(broken, bounds(5)).await.unwrap_err().status(), 400);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_takes_too_long_is_not_waited_for() {
        let trickle = || {
            futures_util::stream::unfold((), async |()| {
                tokio::time::sleep(Duration::from_secs(1)).await;
                Some((Ok::<_, std::io::Error>("x"), ()))
            })
        };
        let refused = read(Body::from_stream(trickle()), bounds(1_000)).await;
        assert_eq!(refused.unwrap_err().status(), 408);
        discard(Body::from_stream(trickle()), bounds(1_000)).await;
    }
}
