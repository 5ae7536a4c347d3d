//! Errors as OpenAI writes them: `{"error":{"message","type","param","code"}}`,
//! all four keys present (WIRE.md §3).

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

#[derive(Debug, Clone, Serialize)]
pub(super) struct ApiError {
    #[serde(skip)]
    pub status: StatusCode,
    pub message: String,
    pub r#type: &'static str,
    pub param: Option<String>,
    pub code: Option<String>,
    /// Real milliseconds to wait, told in `retry-after` and `retry-after-ms`.
    #[serde(skip)]
    pub retry_after_ms: Option<u64>,
}

impl ApiError {
    pub fn new(status: StatusCode, code: Option<&str>, message: impl Into<String>) -> Self {
        ApiError {
            status,
            message: message.into(),
            r#type: type_of(status),
            param: None,
            code: code.map(str::to_owned),
            retry_after_ms: None,
        }
    }

    pub fn invalid(param: &str, code: Option<&str>, message: impl Into<String>) -> Self {
        ApiError::new(StatusCode::BAD_REQUEST, code, message).about(param)
    }

    pub fn missing(param: &str) -> Self {
        let message = format!("Missing required parameter: '{param}'.");
        ApiError::invalid(param, Some("missing_required_parameter"), message)
    }

    pub fn model_not_found(model: &str) -> Self {
        let message =
            format!("The model `{model}` does not exist or you do not have access to it.");
        ApiError::new(StatusCode::NOT_FOUND, Some("model_not_found"), message)
    }

    pub fn not_found(what: &str, id: &str) -> Self {
        ApiError::new(
            StatusCode::NOT_FOUND,
            None,
            format!("No {what} found with id '{id}'."),
        )
        .about("id")
    }

    /// The error that a scripted status stands for, with the code it usually has.
    pub fn scripted(status: StatusCode) -> Self {
        let (code, message) = match status.as_u16() {
            400 => (
                Some("invalid_value"),
                "The simulator was told to refuse this.",
            ),
            401 => (Some("invalid_api_key"), "Incorrect API key provided."),
            404 => (None, "Not found."),
            429 => (
                Some("rate_limit_exceeded"),
                "Rate limit reached. Please try again later.",
            ),
            503 => (
                None,
                "The server is currently overloaded. Please try again later.",
            ),
            _ => (
                None,
                "The server had an error while processing your request.",
            ),
        };
        let mut error = ApiError::new(status, code, message);
        if status == StatusCode::TOO_MANY_REQUESTS {
            error.retry_after_ms = Some(1000);
        }
        error
    }

    pub fn about(mut self, param: &str) -> Self {
        self.param = Some(param.to_owned());
        self
    }

    pub fn after_ms(mut self, millis: u64) -> Self {
        self.retry_after_ms = Some(millis);
        self
    }

    /// The whole body.
    pub fn body(&self) -> serde_json::Value {
        serde_json::json!({ "error": self })
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, axum::Json(self.body())).into_response();
        if let Some(millis) = self.retry_after_ms {
            let headers = response.headers_mut();
            let seconds = HeaderValue::from(millis.div_ceil(1000));
            headers.insert(header::RETRY_AFTER, seconds);
            headers.insert("retry-after-ms", HeaderValue::from(millis));
        }
        response
    }
}

fn type_of(status: StatusCode) -> &'static str {
    match status.as_u16() {
        429 => "requests",
        500.. => "server_error",
        _ => "invalid_request_error",
    }
}
