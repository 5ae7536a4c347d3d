//! Rate limits: rolling windows for uploads and batch creates, buckets for live calls.

use std::{collections::VecDeque, time::Duration};

use http::{HeaderMap, HeaderValue, StatusCode};

use crate::model::time::Timestamp;

use super::{
    clock::{Clock, go_duration},
    error::ApiError,
    settings::Limits,
};

/// At most so many in any such time.
#[derive(Debug, Default)]
pub(super) struct Window {
    taken: VecDeque<Timestamp>,
}

impl Window {
    /// Takes one, or says how long (simulated) until one is free.
    pub fn take(&mut self, now: Timestamp, limit: usize, per: Duration) -> Result<(), Duration> {
        while self.taken.front().is_some_and(|first| *first + per <= now) {
            self.taken.pop_front();
        }
        if self.taken.len() >= limit {
            let first = self.taken.front().map_or(now, |first| *first);
            return Err(now.until(first + per));
        }
        self.taken.push_back(now);
        Ok(())
    }
}

/// Requests and tokens left for one organization and model; both refill
/// continuously over a minute.
#[derive(Debug)]
pub(super) struct Bucket {
    requests: f64,
    tokens: f64,
    at: Timestamp,
}

impl Bucket {
    pub fn full(limits: &Limits, now: Timestamp) -> Self {
        Bucket {
            requests: limits.requests_per_minute as f64,
            tokens: limits.tokens_per_minute as f64,
            at: now,
        }
    }

    /// Takes a request with its tokens; the headers are what its answer carries,
    /// refused or not.
    pub fn take(
        &mut self,
        tokens: u64,
        limits: &Limits,
        clock: &Clock,
    ) -> (HeaderMap, Result<(), ApiError>) {
        let now = clock.now();
        let (per_minute, tokens_per_minute) = (
            limits.requests_per_minute as f64,
            limits.tokens_per_minute as f64,
        );
        let minutes = now.since(self.at).as_secs_f64() / 60.0;
        self.at = now;
        self.requests = (self.requests + minutes * per_minute).min(per_minute);
        self.tokens = (self.tokens + minutes * tokens_per_minute).min(tokens_per_minute);
        let short = if self.requests < 1.0 {
            Some(("requests", wait(1.0 - self.requests, per_minute)))
        } else if self.tokens < tokens as f64 {
            let missing = tokens as f64 - self.tokens;
            Some(("tokens", wait(missing, tokens_per_minute)))
        } else {
            self.requests -= 1.0;
            self.tokens -= tokens as f64;
            None
        };
        let refused = short.map(|(kind, wait)| {
            let message = format!("Rate limit reached on {kind} per min. Please try again later.");
            let code = Some("rate_limit_exceeded");
            let mut error = ApiError::new(StatusCode::TOO_MANY_REQUESTS, code, message);
            error.r#type = kind;
            error.after_ms(
                u64::try_from(clock.real(wait).as_millis())
                    .unwrap_or(u64::MAX)
                    .max(1),
            )
        });
        (self.headers(limits, clock), refused.map_or(Ok(()), Err))
    }

    fn headers(&self, limits: &Limits, clock: &Clock) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (kind, left, limit) in [
            ("requests", self.requests, limits.requests_per_minute),
            ("tokens", self.tokens, limits.tokens_per_minute),
        ] {
            let reset = go_duration(clock.real(wait(limit as f64 - left, limit as f64)));
            for (what, value) in [
                ("limit", limit.to_string()),
                ("remaining", (left.max(0.0) as u64).to_string()),
                ("reset", reset),
            ] {
                let name = format!("x-ratelimit-{what}-{kind}");
                if let (Ok(name), Ok(value)) = (
                    http::HeaderName::try_from(name),
                    HeaderValue::try_from(value),
                ) {
                    headers.insert(name, value);
                }
            }
        }
        headers
    }
}

fn wait(missing: f64, per_minute: f64) -> Duration {
    Duration::try_from_secs_f64(missing.max(0.0) * 60.0 / per_minute.max(1.0))
        .unwrap_or(Duration::from_secs(60))
}
