//! The reply to one live call, read to its end.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;

use crate::{
    engine::{TapEvent, settling::error_code, taps::Spout},
    ledger::{self, Metered},
    metrics,
    model::request::Framing,
    policy::{retry, throttle::Ended},
    ports::{LiveReply, ProviderError},
};

/// The most that an answer may hold.
const MAX_ANSWER: usize = 256 << 20;

/// What came of one live call.
pub enum Reply {
    Answered(Answer),
    Failed(ProviderError),
}

pub struct Answer {
    pub status: u16,
    /// The provider's name for the call.
    pub request: Option<String>,
    pub framing: Framing,
    /// When to come back, in the provider's word.
    pub asked: Option<Duration>,
    /// The provider's own word that another try would not help.
    pub last_word: bool,
    /// A 429 that no waiting cures.
    pub spent: bool,
    pub metered: Metered,
    pub body: Bytes,
}

impl Reply {
    /// What kind of error it is, if it is one.
    pub fn error(&self) -> Option<&'static str> {
        match self {
            Reply::Answered(answer) if answer.status < 400 => None,
            Reply::Answered(answer) => Some(metrics::class(answer.status)),
            Reply::Failed(error) => Some(metrics::failure(error)),
        }
    }

    /// What it says of the provider's health.
    pub fn ended(&self) -> Ended {
        match self {
            Reply::Answered(answer) => answer.ended(),
            Reply::Failed(ProviderError::Lost(_)) => Ended::Overloaded { pause: None },
            Reply::Failed(_) => Ended::Failed,
        }
    }
}

impl Answer {
    fn ended(&self) -> Ended {
        match self.status {
            429 if self.spent => Ended::Failed,
            429 => Ended::Overloaded { pause: self.asked },
            status if retry::is_overload(status) => Ended::Overloaded { pause: None },
            status if retry::is_retryable(status) => Ended::Failed,
            _ => Ended::Served {
                usage: self.metered.usage,
            },
        }
    }
}

/// Reads the whole reply, passing a success on to a caller who streams.
pub async fn read_reply(mut reply: LiveReply, tap: Option<&Spout>) -> Reply {
    let header = |name: &str| {
        reply
            .headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned)
    };
    let request = header("x-request-id");
    let asked = retry::asked(&reply.headers);
    let last_word = header("x-should-retry").is_some_and(|word| word.trim() == "false");
    let is_stream =
        header("content-type").is_some_and(|kind| kind.starts_with("text/event-stream"));
    let framing = if is_stream {
        Framing::EventStream
    } else {
        Framing::Json
    };
    let mut tap = tap.filter(|_| is_stream && reply.status < 400);
    if let Some(tap) = tap {
        tap.send(TapEvent::Begin {
            headers: reply.headers.clone(),
        })
        .await;
    }
    let mut body = BytesMut::new();
    while let Some(chunk) = reply.body.next().await {
        let chunk = match chunk {
            Ok(chunk) => chunk,
            Err(error) => return Reply::Failed(error),
        };
        if body.len() + chunk.len() > MAX_ANSWER {
            return Reply::Failed(ProviderError::Malformed("the answer is too large".into()));
        }
        body.extend_from_slice(&chunk);
        if let Some(spout) = tap
            && !spout.send(TapEvent::Chunk(chunk)).await
        {
            tap = None;
        }
    }
    Reply::Answered(Answer {
        status: reply.status,
        request,
        framing,
        asked,
        last_word,
        spent: reply.status >= 400 && error_code(&body).is_some_and(|code| retry::is_spent(&code)),
        metered: ledger::meter_framed(framing, &body),
        body: body.freeze(),
    })
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    #[tokio::test]
    async fn the_provider_says_whether_another_try_helps() {
        for (word, last) in [(None, false), (Some("true"), false), (Some("false"), true)] {
            let mut headers = http::HeaderMap::new();
            if let Some(word) = word {
                headers.insert("x-should-retry", http::HeaderValue::from_static(word));
            }
            let reply = LiveReply {
                status: 503,
                headers,
                body: stream::empty().boxed(),
            };
            let Reply::Answered(answer) = read_reply(reply, None).await else {
                panic!("it was answered");
            };
            assert_eq!(answer.last_word, last, "{word:?}");
        }
    }
}
