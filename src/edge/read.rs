//! A caller's body, read whole and bounded.

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http_body::Body as _;
use http_body_util::BodyExt;

use super::errors::ApiError;

/// Reads a body of at most `most` bytes.
///
/// # Errors
/// 413 for a larger one, 400 for one that breaks off.
pub async fn read(mut body: Body, most: u64) -> Result<Bytes, ApiError> {
    if body.size_hint().lower() > most {
        discard(body, most).await;
        return Err(too_large(most));
    }
    let mut whole = BytesMut::with_capacity(usize::try_from(body.size_hint().lower()).unwrap_or(0));
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            ApiError::bad(
                "unreadable_body",
                format!("The request's body broke off or is malformed: {error}."),
            )
        })?;
        if let Ok(data) = frame.into_data() {
            if (whole.len() + data.len()) as u64 > most {
                drop(whole);
                discard(body, most).await;
                return Err(too_large(most));
            }
            whole.extend_from_slice(&data);
        }
    }
    Ok(whole.freeze())
}

/// How much of a refused body is read, in multiples of what would have been
/// taken.
const PATIENCE: u64 = 8;

/// Reads the rest of a body that is refused and forgets it: a caller who is
/// still sending hears no answer before it is done, and a connection closed on
/// unread bytes takes the answer with it. Bounded, for who sends for ever.
pub async fn discard(mut body: Body, most: u64) {
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

    #[tokio::test]
    async fn a_body_up_to_the_bound_and_no_further() {
        assert_eq!(read(Body::from("12345"), 5).await.unwrap(), "12345");
        assert_eq!(
            read(Body::from("123456"), 5).await.unwrap_err().status(),
            413
        );
        let parts = || futures_util::stream::iter(["123", "456"].map(Ok::<_, std::io::Error>));
        assert_eq!(read(Body::from_stream(parts()), 6).await.unwrap(), "123456");
        let refused = read(Body::from_stream(parts()), 5).await;
        assert_eq!(refused.unwrap_err().status(), 413);
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_the_callers_fault() {
        let parts = [Ok("12"), Err(std::io::Error::other("gone"))];
        let broken = Body::from_stream(futures_util::stream::iter(parts));
        assert_eq!(read(broken, 5).await.unwrap_err().status(), 400);
    }
}
