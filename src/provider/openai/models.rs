//! Whether the provider has a model, and what a 404 to that question says about
//! the base URL.

use bytes::Bytes;
use serde::Deserialize;

use super::{OpenAi, get, segment};
use crate::{
    ports::{Credential, Organization, ProviderError},
    provider::connect::Dial,
};

/// OpenAI's own words for a path that it does not have: this code, or none and a
/// message that begins so.
const UNKNOWN_URL: &str = "unknown_url";
const INVALID_URL: &str = "Invalid URL (";

impl<D: Dial> OpenAi<D> {
    /// Asks for the model. Where the answer shows that the base URL is wrong, the
    /// refusal's body says so, with the code `unknown_upstream_url`: it is for the
    /// caller to read.
    pub(super) async fn look_up(
        &self,
        by: &Credential,
        model: &str,
    ) -> Result<Option<Organization>, ProviderError> {
        let path = format!("/models/{}", segment(model)?);
        let refusal = match self.transport.control(by, get(path.clone())).await {
            Ok(response) => {
                let organization = Organization::read(response.headers());
                self.transport.drain(response).await;
                return Ok(organization);
            }
            Err(refusal) => refusal,
        };
        let ProviderError::Refused {
            status: 404, body, ..
        } = &refusal
        else {
            return Err(refusal);
        };
        let base = self.transport.base();
        // Many compatible servers do not have the path, and work: below the usual
        // /v1 its absence shows nothing.
        let misplaced = match missing(body) {
            _ if base.ends_with("/v1") => false,
            Missing::Model => false,
            Missing::Path => true,
            Missing::Unclear => self.is_below_v1(by).await,
        };
        Err(match misplaced {
            true => ProviderError::Refused {
                status: 404,
                body: wrong_base(base, &path),
                retry_after: None,
                should_retry: Some(false),
            },
            false => refusal,
        })
    }

    /// Models are listed below `/v1` of the base URL, and not below the base URL.
    async fn is_below_v1(&self, by: &Credential) -> bool {
        let at_base = self.transport.control(by, get("/models".to_owned())).await;
        if !matches!(at_base, Err(ProviderError::Refused { status: 404, .. })) {
            return false;
        }
        let below = get("/v1/models".to_owned());
        match self.transport.control(by, below).await {
            Ok(response) => {
                self.transport.drain(response).await;
                true
            }
            // It asks for another key there: it is there.
            Err(ProviderError::Refused { status, .. }) => matches!(status, 401 | 403),
            Err(_) => false,
        }
    }
}

/// What a 404 says is not there.
#[derive(Debug, PartialEq, Eq)]
enum Missing {
    Model,
    Path,
    Unclear,
}

fn missing(body: &[u8]) -> Missing {
    #[derive(Deserialize)]
    struct Body {
        error: Error,
    }
    #[derive(Deserialize)]
    struct Error {
        code: Option<String>,
        message: Option<String>,
    }
    let Ok(Body { error }) = serde_json::from_slice(body) else {
        return Missing::Unclear;
    };
    let says_so = |message: &str| message.starts_with(INVALID_URL);
    match error.code.as_deref() {
        Some("model_not_found") => Missing::Model,
        Some(UNKNOWN_URL) => Missing::Path,
        _ if error.message.as_deref().is_some_and(says_so) => Missing::Path,
        _ => Missing::Unclear,
    }
}

fn wrong_base(base: &str, path: &str) -> Bytes {
    let likely = likely(base);
    let message = format!(
        "The upstream {base} has no {path} (404), so Offpeak's `upstream.base_url` is \
         probably wrong: try {likely}. An upstream that does without this path is used \
         with `admission.model_check = false`."
    );
    let error = serde_json::json!({"error": {
        "message": message,
        "type": "invalid_request_error",
        "param": null,
        "code": "unknown_upstream_url",
    }});
    error.to_string().into()
}

/// The base URL that was meant: up to the `/v1` in it, or with one behind it.
fn likely(base: &str) -> String {
    match base.split_once("/v1/") {
        Some((before, _)) => format!("{before}/v1"),
        None => format!("{base}/v1"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_404_says() {
        for (body, expected) in [
            (
                r#"{"error":{"message":"The model `x` does not exist","type":"invalid_request_error","param":null,"code":"model_not_found"}}"#,
                Missing::Model,
            ),
            (
                r#"{"error":{"type":"invalid_request_error","code":"unknown_url","message":"Unknown request URL: GET /models/x.","param":null}}"#,
                Missing::Path,
            ),
            (
                r#"{"error":{"message":"Invalid URL (GET /models/x)","type":"invalid_request_error","param":null,"code":null}}"#,
                Missing::Path,
            ),
            (r#"{"detail":"Not Found"}"#, Missing::Unclear),
            (
                r#"{"error":{"message":"The model `x` does not exist.","type":"NotFoundError","code":404}}"#,
                Missing::Unclear,
            ),
            ("404 page not found", Missing::Unclear),
            ("", Missing::Unclear),
        ] {
            assert_eq!(missing(body.as_bytes()), expected, "{body}");
        }
    }

    #[test]
    fn what_was_meant() {
        for (base, expected) in [
            ("http://127.0.0.1:8090", "http://127.0.0.1:8090/v1"),
            (
                "https://api.openai.com/v1/chat/completions",
                "https://api.openai.com/v1",
            ),
            ("https://host/openai", "https://host/openai/v1"),
        ] {
            assert_eq!(likely(base), expected);
        }
    }
}
