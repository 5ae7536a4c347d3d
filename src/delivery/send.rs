//! Sends one attempt and says how it ended.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use reqwest::{dns::Resolve, redirect};
use url::Url;

use super::{
    guard::{BadAllowEntry, Guard, GuardedResolver, Refused, Route, SystemResolver},
    settings::{BadTarget, Settings, Target, resolve_target},
    sign::{self, BadSecret, SigningKey},
};
use crate::model::{money::Usd, request::Bill, secret::Secret, time::Timestamp};

/// What a receiver says in its body matters to nobody; this much is read so
/// that the connection can be used again.
const READ_AT_MOST: usize = 4096;

/// Idle connections kept for a target, and how long.
const IDLE_PER_HOST: usize = 2;
const IDLE_FOR: Duration = Duration::from_secs(30);

/// Sends webhook attempts. Cheap to share by reference; holds the connections.
#[derive(Debug)]
pub struct Sender {
    settings: Settings,
    guard: Guard,
    /// Connects only to addresses the guard admits.
    public: reqwest::Client,
    /// For targets that the operator listed by name, wherever they lead.
    listed: reqwest::Client,
}

/// One try at delivering one event.
#[derive(Debug)]
pub struct Attempt<'a> {
    pub url: &'a Url,
    /// The same at every attempt, so that receivers can tell a repeat.
    pub webhook_id: &'a str,
    /// JSON.
    pub body: Bytes,
    /// What the answer cost, where that is known.
    pub bill: Option<Bill>,
    /// `whsec_…`: the current one first, then those still valid.
    pub secrets: &'a [Secret],
    pub now: Timestamp,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// A 2xx.
    Delivered { status: u16 },
    /// It may work later; `retry_after` is what the receiver asked for.
    Retry {
        status: Option<u16>,
        reason: Failure,
        retry_after: Option<Duration>,
    },
    /// 410: the receiver wants no more of these.
    Gone,
    /// Nothing was sent: the target is not allowed.
    Refused { reason: Refused },
    /// Nothing was sent: no usable secret, or an id no header can hold.
    Unsignable { reason: Unsignable },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    #[error("the receiver answered with a status other than 2xx")]
    Status,
    #[error("the receiver answered with a redirect, which is not followed")]
    Redirect,
    #[error("the receiver did not answer in time")]
    Timeout,
    #[error("no connection to the receiver (name, network or TLS)")]
    Connect,
    #[error("the connection broke before the receiver answered")]
    Broken,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unsignable {
    #[error(transparent)]
    Secret(#[from] BadSecret),
    #[error("there is no secret to sign with, or the webhook id cannot be signed")]
    Headers,
}

/// Settings that cannot work, found at start.
#[derive(Debug, thiserror::Error)]
pub enum BadSender {
    #[error(transparent)]
    Allow(#[from] BadAllowEntry),
    #[error("webhook endpoint `{name}`: {reason}")]
    Endpoint { name: String, reason: BadTarget },
    #[error("webhook endpoint `{name}`: {reason}")]
    Secret { name: String, reason: BadSecret },
    #[error("no HTTP client for webhooks")]
    Client(#[source] reqwest::Error),
}

impl Sender {
    /// Checks the settings, every configured endpoint included.
    pub fn new(settings: Settings) -> Result<Self, BadSender> {
        Self::with_resolver(settings, Arc::new(SystemResolver))
    }

    /// As [`Sender::new`], asking `resolver` for addresses.
    pub fn with_resolver(
        settings: Settings,
        resolver: Arc<dyn Resolve>,
    ) -> Result<Self, BadSender> {
        let guard = Guard::new(&settings.allow)?;
        for (name, endpoint) in &settings.endpoints {
            resolve_target(&settings, &guard, name).map_err(|reason| BadSender::Endpoint {
                name: name.clone(),
                reason,
            })?;
            if let Some(secret) = &endpoint.secret {
                SigningKey::parse(secret).map_err(|reason| BadSender::Secret {
                    name: name.clone(),
                    reason,
                })?;
            }
        }
        // Fails only when a provider is installed already, which serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let guarded = GuardedResolver::new(guard.clone(), Arc::clone(&resolver));
        Ok(Sender {
            public: client(&settings, Arc::new(guarded)).map_err(BadSender::Client)?,
            listed: client(&settings, resolver).map_err(BadSender::Client)?,
            settings,
            guard,
        })
    }

    /// Reads an `Offpeak-Webhook` value: the name of a configured endpoint, or
    /// a URL that may be called.
    pub fn resolve_target(&self, value: &str) -> Result<Target, BadTarget> {
        resolve_target(&self.settings, &self.guard, value)
    }

    /// Sends one attempt. Takes at most the configured timeout.
    pub async fn deliver(&self, attempt: Attempt<'_>) -> Outcome {
        let client = match self.guard.check_url(attempt.url) {
            Ok(Route::Public) => &self.public,
            Ok(Route::Listed) => &self.listed,
            Err(reason) => return Outcome::Refused { reason },
        };
        let headers = match signed_headers(&attempt) {
            Ok(headers) => headers,
            Err(reason) => return Outcome::Unsignable { reason },
        };
        let sent = client
            .post(attempt.url.clone())
            .headers(headers)
            .body(attempt.body)
            .send()
            .await;
        match sent {
            Ok(response) => {
                let outcome = judge(response.status(), response.headers(), attempt.now);
                drain(response).await;
                outcome
            }
            Err(error) => failed(&error),
        }
    }
}

fn client(settings: &Settings, resolver: Arc<dyn Resolve>) -> reqwest::Result<reqwest::Client> {
    reqwest::Client::builder()
        .user_agent(concat!("offpeak/", env!("CARGO_PKG_VERSION")))
        .timeout(settings.timeout)
        .redirect(redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        // A proxy from the environment would connect where no guard looks.
        .no_proxy()
        .dns_resolver(resolver)
        .pool_max_idle_per_host(IDLE_PER_HOST)
        .pool_idle_timeout(IDLE_FOR)
        .build()
}

/// As the answer itself has them. They are not signed; the body says the same, and is.
const COST: HeaderName = HeaderName::from_static("offpeak-cost-usd");
const SAVED: HeaderName = HeaderName::from_static("offpeak-saved-usd");

fn decimal(amount: Usd) -> Result<HeaderValue, Unsignable> {
    HeaderValue::try_from(amount.to_string()).map_err(|_| Unsignable::Headers)
}

fn signed_headers(attempt: &Attempt<'_>) -> Result<HeaderMap, Unsignable> {
    let keys = attempt
        .secrets
        .iter()
        .map(SigningKey::parse)
        .collect::<Result<Vec<_>, _>>()?;
    let mut headers = sign::headers(attempt.webhook_id, attempt.now, &attempt.body, &keys)
        .ok_or(Unsignable::Headers)?;
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    let costs = attempt
        .bill
        .map(|bill| [(COST, bill.paid), (SAVED, bill.standard - bill.paid)]);
    for (name, amount) in costs.into_iter().flatten() {
        headers.insert(name, decimal(amount)?);
    }
    Ok(headers)
}

fn judge(status: StatusCode, headers: &HeaderMap, now: Timestamp) -> Outcome {
    if status.is_success() {
        return Outcome::Delivered {
            status: status.as_u16(),
        };
    }
    if status == StatusCode::GONE {
        return Outcome::Gone;
    }
    Outcome::Retry {
        status: Some(status.as_u16()),
        reason: match status.is_redirection() {
            true => Failure::Redirect,
            false => Failure::Status,
        },
        retry_after: retry_after(headers, now),
    }
}

/// `Retry-After` as RFC 9110 §10.2.3 has it: seconds or an HTTP date.
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::DateTimeParser::new()
        .parse_timestamp(text)
        .ok()?;
    let date = Timestamp::from_millis(u64::try_from(date.as_millisecond()).ok()?);
    Some(now.until(date))
}

/// Reads what little of the body is worth reading. The status has decided; a
/// body that breaks, stalls or never ends only costs its connection.
async fn drain(mut response: reqwest::Response) {
    let mut read = 0;
    while let Ok(Some(chunk)) = response.chunk().await {
        read += chunk.len();
        if read > READ_AT_MOST {
            return;
        }
    }
}

fn failed(error: &reqwest::Error) -> Outcome {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(reason) = error.downcast_ref::<Refused>() {
            return Outcome::Refused { reason: *reason };
        }
        cause = error.source();
    }
    let reason = if error.is_timeout() {
        Failure::Timeout
    } else if error.is_connect() {
        Failure::Connect
    } else {
        Failure::Broken
    };
    Outcome::Retry {
        status: None,
        reason,
        retry_after: None,
    }
}

#[cfg(test)]
#[path = "send_tests.rs"]
mod tests;
