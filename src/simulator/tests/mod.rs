//! The facts of WIRE.md, each checked over the router in paused time.

mod batches;
mod faults;
mod files;
mod lanes;
mod live;
mod sockets;

use std::{sync::Arc, time::Duration};

use axum::{Router, body::Body};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::{Settings, Simulator};
use crate::model::time::Timestamp;

/// Unix seconds at which every test starts.
const START: u64 = 1_800_000_000;

struct Bench {
    sim: Arc<Simulator>,
    router: Router,
}

struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    fn error(&self) -> (u16, Value) {
        let error = self.json()["error"].clone();
        for key in ["message", "type", "param", "code"] {
            assert!(
                error.get(key).is_some(),
                "{key} is missing in {}",
                self.text
            );
        }
        (self.status.as_u16(), error["code"].clone())
    }

    fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }

    fn lines(&self) -> Vec<Value> {
        let lines = self.text.lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

impl Bench {
    fn new() -> Self {
        Self::with(|_| {})
    }

    /// Lines take exactly seven minutes, and background responses five or fifteen,
    /// unless the change says otherwise.
    fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings {
            seed: 1,
            ..Settings::default()
        };
        settings.latency.turnaround_sigma = 0.0;
        settings.latency.background_sigma = 0.0;
        settings.latency.stalled_share = 0.0;
        change(&mut settings);
        let sim = Simulator::new(settings, Timestamp::from_secs(START));
        let router = sim.router();
        Bench { sim, router }
    }

    async fn send(&self, request: Request<Body>) -> Reply {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = match body.collect().await {
            Ok(body) => body.to_bytes(),
            Err(_) => "cut".into(),
        };
        Reply {
            status: parts.status,
            headers: parts.headers,
            text: String::from_utf8(bytes.to_vec()).unwrap(),
        }
    }

    async fn call_as(&self, key: &str, method: &str, path: &str, body: &str) -> Reply {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", format!("Bearer {key}"))
            .header("content-type", "application/json")
            .body(Body::from(body.to_owned()))
            .unwrap();
        self.send(request).await
    }

    async fn get(&self, path: &str) -> Reply {
        self.call_as("sk-test", "GET", path, "").await
    }

    async fn post(&self, path: &str, body: Value) -> Reply {
        self.call_as("sk-test", "POST", path, &body.to_string())
            .await
    }

    /// Uploads with these form fields before the file.
    async fn upload_with(&self, fields: &[(&str, &str)], content: &str) -> Reply {
        let mut form = String::new();
        for (name, value) in fields {
            form += &format!(
                "--XX\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"
            );
        }
        form += "--XX\r\ncontent-disposition: form-data; name=\"file\"; filename=\"in.jsonl\"\r\n";
        form += &format!("content-type: application/jsonl\r\n\r\n{content}\r\n--XX--\r\n");
        let request = Request::post("/v1/files")
            .header("authorization", "Bearer sk-test")
            .header("content-type", "multipart/form-data; boundary=XX")
            .body(Body::from(form))
            .unwrap();
        self.send(request).await
    }

    async fn upload(&self, content: &str) -> String {
        let reply = self.upload_with(&[("purpose", "batch")], content).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        reply.json()["id"].as_str().unwrap().to_owned()
    }

    async fn create(&self, content: &str) -> Value {
        let file = self.upload(content).await;
        let wish = json!({
            "input_file_id": file, "endpoint": "/v1/chat/completions",
            "completion_window": "24h", "metadata": {"offpeak": "b1"},
        });
        let reply = self.post("/v1/batches", wish).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        reply.json()
    }

    /// The batch after `minutes` more.
    async fn later(&self, batch: &Value, minutes: u64) -> Value {
        tokio::time::advance(Duration::from_secs(minutes * 60)).await;
        self.now(batch).await
    }

    async fn now(&self, batch: &Value) -> Value {
        let path = format!("/v1/batches/{}", batch["id"].as_str().unwrap());
        self.get(&path).await.json()
    }

    /// The lines of a batch's output or error file.
    async fn content(&self, batch: &Value, which: &str) -> Vec<Value> {
        let id = batch[which].as_str().unwrap();
        self.get(&format!("/v1/files/{id}/content")).await.lines()
    }
}

fn question(text: &str, sim: &str) -> Value {
    json!({
        "model": "gpt-4o-mini",
        "messages": [{"role": "user", "content": text}],
        "metadata": {"sim": sim},
    })
}

/// A line for each of these instructions, `r0`, `r1`, …
fn input(steers: &[&str]) -> String {
    let lines = steers.iter().enumerate().map(|(index, sim)| {
        let line = json!({
            "custom_id": format!("r{index}"), "method": "POST", "url": "/v1/chat/completions",
            "body": question(&format!("question {index}"), sim),
        });
        format!("{line}\n")
    });
    lines.collect()
}
