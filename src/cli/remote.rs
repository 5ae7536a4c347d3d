//! Asking a running server.

use std::time::Duration;

use reqwest::Method;
use serde_json::Value;

use super::Failure;

const CONNECT: Duration = Duration::from_secs(10);
/// Of a whole answer.
const ANSWER: Duration = Duration::from_secs(30);

/// The JSON that `url` answers with.
///
/// # Errors
/// What is in the way, or the server's own word.
pub async fn ask(
    method: Method,
    url: &str,
    key: &str,
    body: Option<&Value>,
) -> Result<Value, Failure> {
    // reqwest wants a TLS provider to be there.
    let _another_was_first = rustls::crypto::ring::default_provider().install_default();
    let failed = |error: reqwest::Error| {
        let why = root_cause(&error);
        Failure::Other(format!("no answer from an Offpeak at {url}: {why}"))
    };
    let http = reqwest::Client::builder()
        .connect_timeout(CONNECT)
        .timeout(ANSWER)
        .build()
        .map_err(failed)?;
    let mut call = http.request(method, url).bearer_auth(key);
    if let Some(body) = body {
        call = call.json(body);
    }
    let reply = call.send().await.map_err(failed)?;
    let status = reply.status();
    let answer: Value = reply.json().await.map_err(failed)?;
    match status.is_success() {
        true => Ok(answer),
        false => {
            let why = answer["error"]["message"].as_str().unwrap_or_default();
            Err(Failure::Other(format!("{url}: {status}: {why}")))
        }
    }
}

/// reqwest's own words say neither "refused" nor "no URL".
pub fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
