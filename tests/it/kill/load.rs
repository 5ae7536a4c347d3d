//! A load of deferred calls that goes on while the server comes and goes, and
//! what all its callers and readers have seen in the end.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use http::StatusCode;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::task::JoinSet;

use super::{
    caller::{Broken, Call, Client, Mode, Reply},
    process::Revived,
};

pub const KEYS: [&str; 2] = ["sk-north.one", "sk-south.two"];
const MODELS: [&str; 3] = ["gpt-4o-mini", "gpt-4.1", "gpt-5.4"];
/// From live at once to as late as the load can wait for.
const DEADLINES: [&str; 4] = ["3s", "5s", "8s", "12s"];
pub const MODES: [Mode; 10] = [
    Mode::Held,
    Mode::Async,
    Mode::Stream,
    Mode::Webhook,
    Mode::Keyed,
    Mode::Held,
    Mode::Wait,
    Mode::Embeddings,
    Mode::Background,
    Mode::Async,
];

/// One finished call.
#[derive(Debug)]
pub struct Done {
    pub call: Call,
    /// Every request that an answer to it named.
    pub requests: BTreeSet<String>,
    /// How often the connection broke before the whole answer or 202 was read.
    pub breaks: usize,
}

pub struct Load {
    pub server: Arc<Revived>,
    pub client: Client,
    hook: String,
    next: AtomicUsize,
    over: AtomicBool,
    pub done: Mutex<Vec<Done>>,
}

impl Load {
    pub fn new(server: Arc<Revived>, client: Client, hook: &str) -> Arc<Self> {
        Arc::new(Load {
            server,
            client,
            hook: hook.to_owned(),
            next: AtomicUsize::new(0),
            over: AtomicBool::new(false),
            done: Mutex::default(),
        })
    }

    /// Callers take no new call.
    pub fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    pub fn callers(self: &Arc<Self>, count: usize) -> JoinSet<()> {
        let mut callers = JoinSet::new();
        for _ in 0..count {
            callers.spawn(self.clone().calls());
        }
        callers
    }

    fn call(&self) -> Call {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mode = MODES[number % MODES.len()];
        let model = MODELS[number / 7 % MODELS.len()];
        let deadline = DEADLINES[number / 3 % DEADLINES.len()];
        let mut call = Call::new(number, KEYS[number / 5 % 2], model, mode, deadline);
        if mode == Mode::Webhook {
            call.headers.push(("offpeak-webhook", self.hook.clone()));
        }
        call
    }

    async fn calls(self: Arc<Self>) {
        while !self.over.load(Ordering::Relaxed) {
            let done = self.see_through(self.call()).await;
            self.done.lock().push(done);
        }
    }

    /// Sends the call until it is answered or accepted, and an accepted one's
    /// answer is polled.
    pub async fn see_through(&self, call: Call) -> Done {
        let mut done = Done {
            call,
            requests: BTreeSet::new(),
            breaks: 0,
        };
        let reply = self.send(&mut done).await;
        done.requests.extend(reply.request());
        let reply = match reply.status {
            StatusCode::ACCEPTED => self.poll(&done.call, &reply.request().unwrap()).await,
            _ => reply,
        };
        assert!(
            reply.status == StatusCode::OK && done.call.is_answered_by(&reply.body),
            "{:?}\nis answered {} by {} {:?}",
            done.call,
            reply.status,
            reply.body,
            reply.headers,
        );
        done
    }

    async fn send(&self, done: &mut Done) -> Reply {
        let mut up = self.server.up();
        for tries in 0.. {
            match self.client.send(&up, &done.call, tries).await {
                Ok(reply) if has_failed(&reply) => up = self.server.after(up.start).await,
                Ok(reply) => return reply,
                Err(Broken { request }) => {
                    done.breaks += 1;
                    done.requests.extend(request);
                    up = self.server.after(up.start).await;
                }
            }
        }
        unreachable!("it sends for ever")
    }

    async fn poll(&self, call: &Call, request: &str) -> Reply {
        let path = format!("{}/{request}", call.path());
        loop {
            let up = self.server.up();
            let reply = self.get(call.key, &path, 30).await;
            if has_failed(&reply) {
                self.server.after(up.start).await;
            } else if reply.status != StatusCode::ACCEPTED {
                return reply;
            }
        }
    }

    /// From this server or the next.
    pub async fn get(&self, key: &str, path: &str, wait: u32) -> Reply {
        let mut up = self.server.up();
        loop {
            match self.client.get(&up, key, path, wait).await {
                Ok(reply) => return reply,
                Err(_) => up = self.server.after(up.start).await,
            }
        }
    }

    pub async fn get_json(&self, key: &str, path: &str) -> Value {
        let reply = self.get(key, path, 0).await;
        assert_eq!(reply.status, StatusCode::OK, "{path}: {}", reply.body);
        serde_json::from_str(&reply.body).unwrap()
    }
}

/// Its store has: it ends, and the next one knows.
fn has_failed(reply: &Reply) -> bool {
    reply.status == StatusCode::SERVICE_UNAVAILABLE && reply.body.contains("storage_failed")
}

/// Reads a tenant's results feed, through all breaks.
pub struct Feed {
    key: &'static str,
    cursor: Option<String>,
    /// By request: its tag.
    pub seen: BTreeMap<String, String>,
}

impl Feed {
    pub fn new(key: &'static str) -> Self {
        Feed {
            key,
            cursor: None,
            seen: BTreeMap::new(),
        }
    }

    /// Reads what is there and waits at most `wait` seconds for something;
    /// returns the number of lines.
    pub async fn read(&mut self, load: &Load, wait: u32) -> usize {
        let after = self.cursor.as_ref();
        let after = after.map_or(String::new(), |cursor| format!("&after={cursor}"));
        let path = format!("/offpeak/v1/results?limit=100{after}");
        let reply = load.get(self.key, &path, wait).await;
        assert_eq!(reply.status, StatusCode::OK, "{}", reply.body);
        let lines = reply.body.lines();
        lines.map(|line| self.line(line)).count()
    }

    fn line(&mut self, line: &str) {
        let line: Value = serde_json::from_str(line).unwrap();
        let text = |name: &str| line[name].as_str().unwrap().to_owned();
        let cursor = text("cursor");
        self.cursor = Some(cursor);
        let (id, tag) = (text("id"), text("tag"));
        let twice = self.seen.insert(id, tag);
        assert_eq!(twice, None, "in the feed twice: {line}");
    }
}
