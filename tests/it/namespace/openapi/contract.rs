//! Calls that are held against the document: what is sent, and what comes back.

use std::collections::BTreeSet;

use reqwest::{Method, Response};
use serde_json::Value;

use super::document::{Document, Operation, escaped};

/// A caller that reads the document before it believes a server.
pub struct Contract<'a> {
    document: &'a Document,
    http: reqwest::Client,
    /// What was answered with success,
    pub proven: BTreeSet<Operation>,
    /// and with which parameters in its query.
    pub queries: BTreeSet<(Operation, String)>,
}

/// A whole answer.
pub struct Told {
    pub body: Vec<u8>,
}

impl Told {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The code of an error.
    pub fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap().to_owned()
    }
}

/// One call to be made.
pub struct Call<'a> {
    pub url: String,
    pub key: Option<&'a str>,
    pub headers: Vec<(&'a str, String)>,
    pub body: Vec<u8>,
}

impl<'a> Call<'a> {
    /// A body that is null is none.
    pub fn new(url: String, key: Option<&'a str>, body: Value) -> Call<'a> {
        Call {
            url,
            key,
            headers: Vec::new(),
            body: match body {
                Value::Null => Vec::new(),
                body => body.to_string().into_bytes(),
            },
        }
    }
}

impl Contract<'_> {
    pub fn new(document: &Document, http: reqwest::Client) -> Contract<'_> {
        Contract {
            document,
            http,
            proven: BTreeSet::new(),
            queries: BTreeSet::new(),
        }
    }

    /// Makes a call that is as documented, and takes an answer that is.
    pub async fn ask(&mut self, method: Method, call: Call<'_>, expected: u16) -> Told {
        let url = reqwest::Url::parse(&call.url).unwrap();
        let path = self.document.path_of(url.path()).to_owned();
        let operation = (method.to_string(), path);
        self.check_call(&operation, &url, &call);
        let names = url.query_pairs().map(|(name, _)| name.into_owned());
        let names: Vec<String> = names.collect();
        let mut request = self.http.request(method, url).body(call.body);
        if let Some(key) = call.key {
            request = request.bearer_auth(key);
        }
        for (name, value) in call.headers {
            request = request.header(name, value);
        }
        let response = request.send().await.unwrap();
        let status = response.status();
        let told = self.check_answer(&operation, response).await;
        let text = String::from_utf8_lossy(&told.body);
        assert_eq!(status.as_u16(), expected, "{operation:?}: {text}");
        if status.is_success() {
            let asked = names.into_iter().map(|name| (operation.clone(), name));
            self.queries.extend(asked);
            self.proven.insert(operation);
        }
        told
    }

    fn check_call(&self, operation: &Operation, url: &reqwest::Url, call: &Call<'_>) {
        let parameters = self.document.parameters(operation);
        for (name, _) in url.query_pairs() {
            let is_it = |it: &&Value| it["in"] == "query" && it["name"] == *name;
            // A name that there is not is asked with to see it refused.
            let known = parameters.iter().any(is_it) || name == "no_such";
            assert!(known, "{operation:?} has no {name} in the document");
        }
        for (name, _) in &call.headers {
            let is_it = |it: &Value| it["in"] == "header" && it["name"] == *name;
            let signs = *name == "webhook-signature";
            let known = parameters.iter().any(|it| is_it(it)) || signs;
            assert!(known, "{operation:?} has no {name} in the document");
        }
        let body = format!("{}/requestBody", pointer(operation));
        let takes_body = self.document.json.pointer(&body).is_some();
        assert!(takes_body || call.body.is_empty(), "{operation:?}");
    }

    async fn check_answer(&self, operation: &Operation, response: Response) -> Told {
        let status = response.status();
        let responses = format!("{}/responses", pointer(operation));
        let explicit = format!("{responses}/{}", status.as_u16());
        let found = self.document.at(explicit);
        let (at, described) = found.unwrap_or_else(|| {
            assert!(!status.is_success(), "{operation:?} has no {status}");
            self.document.at(format!("{responses}/default")).unwrap()
        });
        let headers = response.headers().clone();
        for (name, header) in described["headers"].as_object().into_iter().flatten() {
            let required = header["required"] == true;
            assert!(!required || headers.contains_key(name), "{name} is missing");
        }
        let kind = headers["content-type"].to_str().unwrap();
        let kind = kind.split(';').next().unwrap();
        let media = described["content"].get(kind);
        assert!(media.is_some(), "{operation:?} {status} has no {kind}");
        if ["application/json", "application/x-ndjson"].contains(&kind) {
            assert_eq!(headers["cache-control"], "no-store", "{operation:?}");
        }
        let body = match kind {
            "text/event-stream" => first_event(response).await,
            _ => response.bytes().await.unwrap().to_vec(),
        };
        let schema = format!("{at}/content/{}/schema", escaped(kind));
        let text = String::from_utf8_lossy(&body);
        let values: Vec<Value> = match kind {
            "application/json" => vec![serde_json::from_slice(&body).unwrap()],
            "application/x-ndjson" => {
                let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
                lines.collect()
            }
            _ => Vec::new(),
        };
        for value in values {
            self.hold(&schema, &value);
        }
        Told { body }
    }

    /// Panics where the value is not as the schema at this pointer says.
    pub fn hold(&self, schema: &str, value: &Value) {
        let breaches = self.document.breaches(schema, value);
        assert!(breaches.is_empty(), "{schema}\n{breaches:#?}\n{value:#}");
    }
}

/// Of a stream that goes on.
async fn first_event(mut response: Response) -> Vec<u8> {
    let mut event = Vec::new();
    while !event.ends_with(b"\n\n") {
        event.extend(response.chunk().await.unwrap().unwrap());
    }
    event
}

fn pointer((method, path): &Operation) -> String {
    format!("/paths/{}/{}", escaped(path), method.to_lowercase())
}
