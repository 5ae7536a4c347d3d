//! The demo's calls: what an application would send, and what came back.

use std::{collections::BTreeMap, time::Duration};

use reqwest::header::HeaderMap;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{cli::Failure, model::money::Usd};

const KEY: &str = "sk-demo";
/// Calls without a deadline use a key of their own, so that the provider's bill
/// tells them apart.
pub const DIRECT_KEY: &str = "sk-direct";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Evals,
    Summaries,
    Agents,
    Embeddings,
    Soon,
    Interactive,
}

impl Kind {
    pub const ALL: [Kind; 6] = [
        Kind::Evals,
        Kind::Summaries,
        Kind::Agents,
        Kind::Embeddings,
        Kind::Soon,
        Kind::Interactive,
    ];

    /// The mix: mostly work that can wait.
    pub fn of(number: usize) -> Kind {
        match number % 20 {
            0..8 => Kind::Evals,
            8..12 => Kind::Summaries,
            12..15 => Kind::Agents,
            15..18 => Kind::Embeddings,
            18 => Kind::Soon,
            _ => Kind::Interactive,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Kind::Evals => "evals, gpt-4o-mini",
            Kind::Summaries => "summaries, gpt-4.1",
            Kind::Agents => "agents, gpt-5.4",
            Kind::Embeddings => "embeddings",
            Kind::Soon => "needed soon, gpt-4o-mini",
            Kind::Interactive => "interactive, gpt-4o-mini",
        }
    }

    /// What the ledger tells its calls by.
    pub fn tag(self) -> &'static str {
        match self {
            Kind::Evals => "evals",
            Kind::Summaries => "summaries",
            Kind::Agents => "agents",
            Kind::Embeddings => "embeddings",
            Kind::Soon => "soon",
            Kind::Interactive => "interactive",
        }
    }

    pub fn deadline(self) -> Option<Duration> {
        match self {
            Kind::Evals | Kind::Embeddings => Some(Duration::from_secs(35)),
            Kind::Summaries => Some(Duration::from_secs(25)),
            Kind::Agents => Some(Duration::from_secs(30)),
            Kind::Soon => Some(Duration::from_secs(4)),
            Kind::Interactive => None,
        }
    }

    fn path(self) -> &'static str {
        match self {
            Kind::Agents => "/v1/responses",
            Kind::Embeddings => "/v1/embeddings",
            _ => "/v1/chat/completions",
        }
    }

    fn body(self, number: usize) -> Value {
        let chat = |model: &str, task: &str| {
            let text = format!(
                "{task} #{number}: {}",
                "The quick brown fox jumps. ".repeat(40)
            );
            json!({
                "model": model,
                "messages": [{"role": "user", "content": text}],
                "metadata": {"sim": "tokens=300"},
            })
        };
        match self {
            Kind::Evals => chat("gpt-4o-mini", "Grade this answer"),
            Kind::Summaries => chat("gpt-4.1", "Summarise this ticket"),
            Kind::Soon => chat("gpt-4o-mini", "Route this call"),
            Kind::Interactive => chat("gpt-4o-mini", "Chat"),
            Kind::Agents => json!({
                "model": "gpt-5.4",
                "input": format!("Step {number}: read the page and note what changed."),
                "metadata": {"sim": "tokens=200"},
            }),
            Kind::Embeddings => json!({
                "model": "text-embedding-3-small",
                "input": format!("Document {number}. {}", "It is about foxes. ".repeat(60)),
            }),
        }
    }
}

/// One call, as its caller saw it.
#[derive(Debug)]
pub struct Done {
    pub kind: Kind,
    pub status: Option<u16>,
    pub lane: Option<String>,
    pub on_time: bool,
    /// The answer belongs to this call.
    pub right: bool,
}

/// What the ledger says of the demo's tenant: all of it, and by kind of call.
#[derive(Debug, Default)]
pub struct Savings {
    pub total: Sum,
    pub by_kind: BTreeMap<Kind, Sum>,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Sum {
    pub rescued: u64,
    pub paid_twice: u64,
    pub paid: Usd,
    pub standard: Usd,
}

impl Sum {
    /// None where a field is missing.
    fn read(row: &Value) -> Option<Sum> {
        let amount = |name: &str| row[name].as_str()?.parse().ok();
        Some(Sum {
            rescued: row["rescued"].as_u64()?,
            paid_twice: row["paid_twice"].as_u64()?,
            paid: amount("paid_usd")?,
            standard: amount("standard_usd")?,
        })
    }
}

pub struct Client {
    http: reqwest::Client,
    base: String,
}

impl Client {
    pub fn new(base: &str) -> Result<Client, Failure> {
        // Plain HTTP on loopback, yet reqwest wants a TLS provider to be there.
        let _another_was_first = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .no_proxy()
            .build()
            .map_err(other)?;
        Ok(Client {
            http,
            base: base.to_owned(),
        })
    }

    pub async fn call(&self, kind: Kind, number: usize) -> Done {
        let started = Instant::now();
        let key = if kind.deadline().is_some() {
            KEY
        } else {
            DIRECT_KEY
        };
        let mut call = self
            .http
            .post(format!("{}{}", self.base, kind.path()))
            .bearer_auth(key)
            .json(&kind.body(number));
        if let Some(deadline) = kind.deadline() {
            let deadline = humantime::format_duration(deadline).to_string();
            call = call
                .header("Offpeak-Deadline", deadline)
                .header("Offpeak-Tag", kind.tag());
        }
        let mut done = Done {
            kind,
            status: None,
            lane: None,
            on_time: false,
            right: false,
        };
        let Ok(reply) = call.send().await else {
            return done;
        };
        let headers = reply.headers().clone();
        done.status = Some(reply.status().as_u16());
        let Ok(body) = reply.json::<Value>().await else {
            return done;
        };
        done.on_time = kind
            .deadline()
            .is_none_or(|deadline| started.elapsed() <= deadline);
        done.right = is_answer(kind, &body, number);
        done.lane = text(&headers, "offpeak-lane");
        done
    }

    pub async fn savings(&self) -> Result<Savings, Failure> {
        let call = self
            .http
            .get(format!("{}/offpeak/v1/savings", self.base))
            .bearer_auth(KEY);
        let reply = call.send().await.map_err(other)?;
        let body: Value = reply.json().await.map_err(other)?;
        let unread = || Failure::Other(format!("the savings lack something: {body}"));
        let mut by_kind = BTreeMap::new();
        for row in body["by_tag"].as_array().into_iter().flatten() {
            let kind = Kind::ALL
                .into_iter()
                .find(|kind| row["tag"].as_str() == Some(kind.tag()));
            if let Some(kind) = kind {
                by_kind.insert(kind, Sum::read(row).ok_or_else(unread)?);
            }
        }
        Ok(Savings {
            total: Sum::read(&body["total"]).ok_or_else(unread)?,
            by_kind,
        })
    }
}

/// The simulator's answers repeat the question.
fn is_answer(kind: Kind, body: &Value, number: usize) -> bool {
    match kind {
        Kind::Embeddings => body["data"][0]["embedding"]
            .as_array()
            .is_some_and(|v| !v.is_empty()),
        Kind::Agents => body["output"]
            .to_string()
            .contains(&format!("Step {number}:")),
        _ => body["choices"][0]["message"]["content"]
            .as_str()
            .is_some_and(|content| content.contains(&format!("#{number}:"))),
    }
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

fn other(error: reqwest::Error) -> Failure {
    Failure::Other(error.to_string())
}
