//! Calls that are written down as they are made.

use std::{collections::BTreeSet, time::Duration};

use http::{HeaderMap, Method, header};
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::{
    mask::{MASKED, Mask},
    transcript::{self, Exchange, Request, Response},
};
use crate::cli::remote;

/// A whole call; a model that thinks takes a while.
const PATIENCE: Duration = Duration::from_secs(60);

/// To a provider, or to what stands in for it.
pub struct Line {
    http: reqwest::Client,
    /// Without a slash at its end.
    base: String,
    headers: HeaderMap,
    mask: Mask,
    /// Ids of files and batches that were made here. Of lists only these are told.
    ours: BTreeSet<String>,
    pub exchanges: Vec<Exchange>,
}

/// What a call brings along.
pub enum Payload<'a> {
    Nothing,
    Json(Value),
    /// A form with a file behind its fields.
    File {
        fields: &'a [(&'static str, &'a str)],
        name: &'a str,
        text: &'a str,
    },
}

/// An answer as it came, secrets included.
pub struct Reply {
    pub status: u16,
    /// Null where it is no JSON.
    pub body: Value,
}

impl Reply {
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Text that is there and not empty.
    pub fn text(&self, field: &str) -> Option<&str> {
        self.body[field].as_str().filter(|text| !text.is_empty())
    }
}

impl Line {
    /// `secrets` are left out of what is written down.
    pub fn new(http: reqwest::Client, base: &str, headers: HeaderMap, secrets: &[String]) -> Self {
        Line {
            http,
            base: base.trim_end_matches('/').to_owned(),
            headers,
            mask: Mask::new(secrets),
            ours: BTreeSet::new(),
            exchanges: Vec::new(),
        }
    }

    /// What was made here.
    pub fn own(&mut self, id: &str) {
        self.ours.insert(id.to_owned());
    }

    pub fn masked(&self, text: &str) -> String {
        self.mask.text(text)
    }

    /// Makes a call and writes it down under `name`.
    ///
    /// # Errors
    /// Why there is no whole answer.
    pub async fn call(
        &mut self,
        name: &'static str,
        method: Method,
        path: &str,
        payload: Payload<'_>,
    ) -> Result<Reply, String> {
        let began = Instant::now();
        let body = told(&payload);
        let reply = self.send(method.clone(), path, payload).await?;
        let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let (status, headers) = (reply.status().as_u16(), reply.headers().clone());
        let text = reply
            .text()
            .await
            .map_err(|error| remote::root_cause(&error))?;
        transcript::identities(&headers).for_each(|name| self.mask.learn(name));
        let kind = headers.get(header::CONTENT_TYPE);
        let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let value: Value = serde_json::from_str(&text).unwrap_or_default();
        // What an upload answers names what is ours from here on.
        let shown = match value["object"] == "list" && value["data"].is_array() {
            true => without_others(&value, &self.ours).to_string(),
            false => text,
        };
        let (headers, other_headers) = transcript::headers(&headers, &self.mask);
        self.exchanges.push(Exchange {
            name,
            request: Request {
                method: method.to_string(),
                path: self.mask.text(path),
                body: self.mask.json(&body),
            },
            response: Response {
                status,
                body: transcript::body(kind, &shown, &self.mask),
                headers,
                other_headers,
                took_ms,
            },
        });
        Ok(Reply {
            status,
            body: value,
        })
    }

    /// Makes a call that nobody needs to read of.
    ///
    /// # Errors
    /// As [`Line::call`].
    pub async fn ask(&self, method: Method, path: &str) -> Result<Reply, String> {
        let reply = self.send(method, path, Payload::Nothing).await?;
        let status = reply.status().as_u16();
        let text = reply
            .text()
            .await
            .map_err(|error| remote::root_cause(&error))?;
        let body = serde_json::from_str(&text).unwrap_or_default();
        Ok(Reply { status, body })
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        payload: Payload<'_>,
    ) -> Result<reqwest::Response, String> {
        let call = self
            .http
            .request(method, format!("{}{path}", self.base))
            .headers(self.headers.clone())
            .timeout(PATIENCE);
        let call = match payload {
            Payload::Nothing => call,
            Payload::Json(body) => call.json(&body),
            Payload::File { fields, name, text } => {
                let form = reqwest::multipart::Form::new();
                let form = fields.iter().fold(form, |form, (name, value)| {
                    form.text(*name, (*value).to_owned())
                });
                let part = reqwest::multipart::Part::text(text.to_owned());
                call.multipart(form.part("file", part.file_name(name.to_owned())))
            }
        };
        call.send().await.map_err(|error| match error.is_timeout() {
            true => format!("nothing came within {} s", PATIENCE.as_secs()),
            false => remote::root_cause(&error),
        })
    }
}

/// A request's body as the transcript has it.
fn told(payload: &Payload<'_>) -> Value {
    match payload {
        Payload::Nothing => Value::Null,
        Payload::Json(body) => body.clone(),
        Payload::File { fields, name, text } => {
            let fields = fields.iter();
            let mut form: Map<String, Value> = fields
                .map(|(name, value)| ((*name).to_owned(), Value::from(*value)))
                .collect();
            form.insert("file".into(), Value::from(*text));
            form.insert("filename".into(), Value::from(*name));
            Value::Object(form)
        }
    }
}

/// A list with only what is ours: what else the key's owner has is nobody's business.
fn without_others(list: &Value, ours: &BTreeSet<String>) -> Value {
    let is_ours = |id: &Value| id.as_str().is_some_and(|id| ours.contains(id));
    let mut list = list.clone();
    // Of models, or of embeddings, there is nothing of anybody's in it.
    let is_of_ids = |item: &Value| item["object"] == "batch" || item["object"] == "file";
    if let Some(items) = list["data"].as_array_mut() {
        items.retain(|item| !is_of_ids(item) || is_ours(&item["id"]));
    }
    for name in ["first_id", "last_id"] {
        if let Some(id) = list[name].as_str()
            && !ours.contains(id)
        {
            let end = id.find(['-', '_']).map_or(0, |at| at + 1);
            list[name] = format!("{}{MASKED}", &id[..end]).into();
        }
    }
    list
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn of_a_list_only_ours_is_told() {
        let ours = BTreeSet::from(["batch_ours".to_owned()]);
        let batch = |id: &str| json!({"object": "batch", "id": id, "metadata": {"a": "b"}});
        let list = json!({"object": "list", "data": [batch("batch_x"), batch("batch_ours")],
            "first_id": "batch_x", "last_id": "batch_ours", "has_more": true});
        let told = json!({"object": "list", "data": [batch("batch_ours")],
            "first_id": "batch_[masked]", "last_id": "batch_ours", "has_more": true});
        assert_eq!(without_others(&list, &ours), told);
        let vectors = json!({"object": "list", "data": [{"object": "embedding"}]});
        assert_eq!(without_others(&vectors, &ours), vectors);
    }
}
