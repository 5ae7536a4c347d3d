//! Callers who hold, and callers who come back.

use std::time::Duration;

use http::StatusCode;
use offpeak::simulator::answer_mark;
use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::SEED;
use crate::app::TestApp;

pub const KEY: &str = "sk-workload";

/// Calls by their number: when they come, and how long after that their answer is
/// needed.
#[derive(Clone, Copy)]
pub struct Workload {
    pub calls: u32,
    pub model: &'static str,
    pub arrival: fn(u32) -> Duration,
    pub deadline: fn(u32) -> Duration,
}

/// Makes all calls, each over HTTP, and reads each answer; returns their requests.
pub async fn play(app: &TestApp, workload: &Workload) -> Vec<String> {
    let client = Client::new(app);
    let mut calls = JoinSet::new();
    for number in 0..workload.calls {
        let (client, workload) = (client.clone(), *workload);
        calls.spawn(async move {
            tokio::time::sleep((workload.arrival)(number)).await;
            client.call(&workload, number).await
        });
    }
    calls.join_all().await
}

#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
}

impl Client {
    pub fn new(app: &TestApp) -> Client {
        // reqwest wants a TLS provider to be there, for plain HTTP too.
        let _another_was_first = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Client {
            http,
            base: format!("http://{}", app.address),
        }
    }

    /// Every third call is held, the others are fetched.
    async fn call(&self, workload: &Workload, number: u32) -> String {
        let question = format!("Call {number} of the workload");
        let body = json!({
            "model": workload.model,
            "messages": [{"role": "user", "content": question}],
            "metadata": {"sim": "tokens=40"},
        })
        .to_string();
        let deadline = humantime::format_duration((workload.deadline)(number));
        let mut call = self
            .http
            .post(format!("{}/v1/chat/completions", self.base))
            .bearer_auth(KEY)
            .header("offpeak-deadline", deadline.to_string())
            .body(body.clone());
        let held = number.is_multiple_of(3);
        if !held {
            call = call.header("prefer", "respond-async");
        }
        let mut answer = call.send().await.unwrap();
        let id = header(&answer, "offpeak-request-id");
        assert_eq!(answer.status() == StatusCode::ACCEPTED, !held, "{id}");
        while answer.status() == StatusCode::ACCEPTED {
            let poll = self.get(&format!("/v1/chat/completions/{id}"));
            answer = poll.header("prefer", "wait=20").send().await.unwrap();
        }
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert_eq!(status, StatusCode::OK, "{id}: {text}");
        let mark = answer_mark(SEED, &body).unwrap();
        assert!(text.contains(&mark), "{question} is answered by {text}");
        id
    }

    fn get(&self, path: &str) -> RequestBuilder {
        let url = format!("{}{path}", self.base);
        self.http.get(url).bearer_auth(KEY)
    }

    pub async fn text(&self, path: &str) -> String {
        let answer = self.get(path).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        answer.text().await.unwrap()
    }

    pub async fn json(&self, path: &str) -> Value {
        serde_json::from_str(&self.text(path).await).unwrap()
    }
}

fn header(answer: &Response, name: &str) -> String {
    let value = answer.headers().get(name);
    let value = value.unwrap_or_else(|| panic!("no {name}: {}", answer.status()));
    value.to_str().unwrap().to_owned()
}
