//! The provider's batch and response objects, read tolerantly: what differs
//! between providers is listed in WIRE.md §5. Only `id` has to be there.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;

use crate::{
    model::{id::BatchId, time::Timestamp},
    ports::{
        Listed, Page, ProviderError, RemoteBatch, RemoteError, RemotePage, RemoteResponse,
        RemoteStatus, ResponseStatus,
    },
};

/// The key that carries our batch id in a batch's `metadata`.
pub(super) const TAG: &str = "offpeak_batch";

/// A batch object, or Together's `{"job":…}` around one.
pub(super) fn batch(body: &[u8]) -> Result<RemoteBatch, ProviderError> {
    let value = json(body)?;
    object(value.get("job").unwrap_or(&value))
}

/// A list object, or a bare array, which is all there is.
pub(super) fn page(body: &[u8]) -> Result<RemotePage, ProviderError> {
    let value = json(body)?;
    let items = items(&value)?;
    Ok(Page {
        items: items.iter().map(object).collect::<Result<_, _>>()?,
        has_more: value["has_more"].as_bool().unwrap_or(false),
        asked: None,
    })
}

/// The `id` of a file object.
pub(super) fn file_id(body: &[u8]) -> Result<String, ProviderError> {
    text(&json(body)?["id"]).ok_or_else(|| ProviderError::Malformed("a file without `id`".into()))
}

pub(super) struct File {
    pub id: String,
    pub name: Option<String>,
    pub created: Option<Timestamp>,
}

impl Listed for File {
    fn id(&self) -> &str {
        &self.id
    }

    fn created(&self) -> Option<Timestamp> {
        self.created
    }
}

/// A list of files; what has no id is passed over.
pub(super) fn files(body: &[u8]) -> Result<Page<File>, ProviderError> {
    let value = json(body)?;
    let items = items(&value)?;
    let file = |value: &Value| {
        Some(File {
            id: text(&value["id"])?,
            name: text(&value["filename"]),
            created: time(&value["created_at"]),
        })
    };
    Ok(Page {
        items: items.iter().filter_map(file).collect(),
        has_more: value["has_more"].as_bool().unwrap_or(false),
        asked: None,
    })
}

/// A response object. Of a large answer only these two fields are read.
pub(super) fn response(
    body: Bytes,
    request: Option<String>,
) -> Result<RemoteResponse, ProviderError> {
    #[derive(Deserialize)]
    struct Read {
        #[serde(default)]
        id: Value,
        #[serde(default)]
        status: Value,
    }
    let read: Read = serde_json::from_slice(&body)
        .map_err(|error| ProviderError::Malformed(error.to_string()))?;
    let id = text(&read.id)
        .ok_or_else(|| ProviderError::Malformed("a response without `id`".to_owned()))?;
    let status_text = text(&read.status).unwrap_or_default();
    let status = match status_text.as_str() {
        "completed" => ResponseStatus::Completed,
        "incomplete" => ResponseStatus::Incomplete,
        "failed" => ResponseStatus::Failed,
        "cancelled" | "canceled" => ResponseStatus::Cancelled,
        _ => ResponseStatus::Running,
    };
    Ok(RemoteResponse {
        id,
        status,
        status_text,
        request,
        body,
    })
}

fn items(value: &Value) -> Result<&Vec<Value>, ProviderError> {
    let items = value.as_array().or_else(|| value["data"].as_array());
    items.ok_or_else(|| ProviderError::Malformed("a list without `data`".to_owned()))
}

fn json(body: &[u8]) -> Result<Value, ProviderError> {
    serde_json::from_slice(body).map_err(|error| ProviderError::Malformed(error.to_string()))
}

fn object(value: &Value) -> Result<RemoteBatch, ProviderError> {
    let id = text(&value["id"])
        .ok_or_else(|| ProviderError::Malformed("a batch without `id`".to_owned()))?;
    let status_text = text(&value["status"]).unwrap_or_default();
    Ok(RemoteBatch {
        id,
        status: status(&status_text),
        status_text,
        tag: text(&value["metadata"][TAG]).and_then(|tag| tag.parse::<BatchId>().ok()),
        created: time(&value["created_at"]),
        input_file: text(&value["input_file_id"]),
        output_file: text(&value["output_file_id"]),
        error_file: text(&value["error_file_id"]),
        errors: errors(&value["errors"]),
        finished: finished(&value["request_counts"]),
    })
}

/// Azure capitalises, Together shouts.
fn status(text: &str) -> RemoteStatus {
    match text.to_ascii_lowercase().as_str() {
        "completed" => RemoteStatus::Completed,
        "failed" => RemoteStatus::Failed,
        "expired" => RemoteStatus::Expired,
        "cancelling" | "canceling" => RemoteStatus::Cancelling,
        "cancelled" | "canceled" => RemoteStatus::Cancelled,
        _ => RemoteStatus::Running,
    }
}

/// Azure and DeepInfra leave the counts out, or null, at times.
fn finished(counts: &Value) -> Option<u32> {
    let completed = counts["completed"].as_u64()?;
    let failed = counts["failed"].as_u64().unwrap_or(0);
    u32::try_from(completed + failed).ok()
}

/// `""` means absent, as in `error_file_id:""`.
fn text(value: &Value) -> Option<String> {
    value
        .as_str()
        .filter(|text| !text.is_empty())
        .map(str::to_owned)
}

/// Unix seconds, or an ISO time.
fn time(value: &Value) -> Option<Timestamp> {
    if let Some(seconds) = value.as_f64() {
        return (seconds > 0.0).then(|| Timestamp::from_millis((seconds * 1000.0) as u64));
    }
    let instant: jiff::Timestamp = value.as_str()?.parse().ok()?;
    u64::try_from(instant.as_millisecond())
        .ok()
        .map(Timestamp::from_millis)
}

/// `{"data":[…]}`, a bare array, or null.
fn errors(value: &Value) -> Vec<RemoteError> {
    value
        .as_array()
        .or_else(|| value["data"].as_array())
        .into_iter()
        .flatten()
        .map(|error| RemoteError {
            code: text(&error["code"]),
            line: error["line"]
                .as_u64()
                .and_then(|line| u32::try_from(line).ok()),
            message: text(&error["message"]).unwrap_or_default(),
            param: text(&error["param"]),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openai_s_own() {
        let tag = BatchId::new(Timestamp::from_secs(1), 7);
        let body = format!(
            r#"{{"id":"batch_1","object":"batch","endpoint":"/v1/chat/completions","errors":{{"object":"list","data":[
                {{"code":"invalid_json_line","line":3,"message":"m","param":null}},
                {{"code":"token_limit_exceeded","line":null,"message":"t","param":"p"}}]}},
            "input_file_id":"file-1","status":"failed","output_file_id":null,"error_file_id":"file-2",
            "created_at":1711471533,"metadata":{{"{TAG}":"{tag}","other":"x"}},"usage":{{"new":1}}}}"#
        );
        let batch = batch(body.as_bytes()).unwrap();
        assert_eq!(
            batch,
            RemoteBatch {
                id: "batch_1".to_owned(),
                status: RemoteStatus::Failed,
                status_text: "failed".to_owned(),
                tag: Some(tag),
                created: Some(Timestamp::from_secs(1_711_471_533)),
                input_file: Some("file-1".to_owned()),
                output_file: None,
                error_file: Some("file-2".to_owned()),
                finished: None,
                errors: vec![
                    RemoteError {
                        code: Some("invalid_json_line".to_owned()),
                        line: Some(3),
                        message: "m".to_owned(),
                        param: None,
                    },
                    RemoteError {
                        code: Some("token_limit_exceeded".to_owned()),
                        line: None,
                        message: "t".to_owned(),
                        param: Some("p".to_owned()),
                    },
                ],
            }
        );
    }

    #[test]
    fn other_providers_ways() {
        for (body, status, created) in [
            (
                r#"{"id":"b","status":"Completed","request_counts":null}"#,
                RemoteStatus::Completed,
                None,
            ),
            (
                r#"{"job":{"id":"b","status":"IN_PROGRESS","created_at":"2025-11-22T17:25:46.120Z"}}"#,
                RemoteStatus::Running,
                Some(1_763_832_346_120),
            ),
            (
                r#"{"id":"b","status":"CANCELLED","created_at":1763832346,"metadata":null,"errors":null}"#,
                RemoteStatus::Cancelled,
                Some(1_763_832_346_000),
            ),
            (
                r#"{"id":"b","status":"canceling","error_file_id":""}"#,
                RemoteStatus::Cancelling,
                None,
            ),
            (
                r#"{"id":"b","status":"EXPIRED","metadata":{"offpeak_batch":"x"}}"#,
                RemoteStatus::Expired,
                None,
            ),
            (
                r#"{"id":"b","status":"paused","errors":{"data":null}}"#,
                RemoteStatus::Running,
                None,
            ),
            (r#"{"id":"b"}"#, RemoteStatus::Running, None),
        ] {
            let read = batch(body.as_bytes()).unwrap();
            assert_eq!(read.status, status, "{body}");
            assert_eq!(read.created, created.map(Timestamp::from_millis), "{body}");
            assert_eq!(read.error_file, None, "{body}");
            assert_eq!(read.tag, None, "{body}");
        }
    }

    #[test]
    fn a_response_is_kept_byte_for_byte() {
        use ResponseStatus as S;
        for (word, status) in [
            ("\"queued\"", S::Running),
            ("\"in_progress\"", S::Running),
            ("\"new\"", S::Running),
            ("null", S::Running),
            ("\"completed\"", S::Completed),
            ("\"incomplete\"", S::Incomplete),
            ("\"failed\"", S::Failed),
            ("\"cancelled\"", S::Cancelled),
        ] {
            let body = format!(r#"{{ "n":1.0, "id":"resp_1" ,"status":{word}, "x":"\ud800" }}"#);
            let read = response(Bytes::from(body.clone()), Some("req_1".into())).unwrap();
            assert_eq!(
                (read.id.as_str(), read.status),
                ("resp_1", status),
                "{word}"
            );
            assert_eq!(read.status.is_terminal(), status != S::Running);
            assert_eq!(read.body, body);
            assert_eq!(read.request.as_deref(), Some("req_1"));
        }
        for body in ["", "[]", "{}", r#"{"id":""}"#, r#"{"id":1}"#, "<html>"] {
            let read = response(Bytes::from_static(body.as_bytes()), None);
            assert!(matches!(read, Err(ProviderError::Malformed(_))), "{body}");
        }
    }

    #[test]
    fn without_an_id_it_is_no_batch() {
        for body in [
            "",
            "null",
            "[]",
            "{}",
            r#"{"id":""}"#,
            r#"{"error":{"code":"x"}}"#,
            "<html>",
        ] {
            let read = batch(body.as_bytes());
            assert!(matches!(read, Err(ProviderError::Malformed(_))), "{body}");
        }
    }

    #[test]
    fn lists() {
        let list = page(br#"{"object":"list","data":[{"id":"a"},{"id":"b"}],"has_more":true}"#);
        let list = list.unwrap();
        assert_eq!(list.items.len(), 2);
        assert!(list.has_more);
        let bare = page(br#"[{"id":"a"}]"#).unwrap();
        assert_eq!(bare.items[0].id, "a");
        assert!(!bare.has_more);
        assert!(page(b"{}").is_err());
    }
}
