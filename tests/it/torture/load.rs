//! Callers that go on while the server comes and goes. They assert nothing: what
//! they see goes into the register.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{Method, StatusCode};
use serde_json::Value;
use tokio::{sync::Semaphore, task::JoinSet};

use super::{
    plan::{BULK, Fate, Plan, Told},
    register::{Erasure, Register},
};
use crate::kill::{
    caller::{Broken, Client, Mode, Reply},
    process::{Revived, Up},
};

/// Before a call is sent again to a server that is there.
const PAUSE: Duration = Duration::from_millis(150);
/// Ended bulk requests that a caller deletes between two calls, at most.
const ERASED: usize = 40;

pub struct Load {
    pub server: Arc<Revived>,
    pub register: Register,
    /// A connection a call.
    client: Client,
    /// Connections that are used again.
    pub pooled: Client,
    next: AtomicUsize,
    next_bulk: AtomicUsize,
    /// Bulk calls that may be made.
    pub bulk: Semaphore,
    over: AtomicBool,
}

impl Load {
    pub fn new(
        server: Arc<Revived>,
        register: Register,
        client: Client,
        pooled: Client,
    ) -> Arc<Self> {
        Arc::new(Load {
            server,
            register,
            client,
            pooled,
            next: AtomicUsize::new(0),
            next_bulk: AtomicUsize::new(BULK),
            bulk: Semaphore::new(0),
            over: AtomicBool::new(false),
        })
    }

    /// Waits until no more than so many bulk calls are left, for a few seconds at most.
    pub async fn bulk_down_to(&self, left: usize) {
        let down = wait_until(|| self.bulk.available_permits() <= left);
        let _or_not = tokio::time::timeout(PAUSE * 40, down).await;
    }

    /// The same of requests that are open, and for longer.
    pub async fn open_down_to(&self, left: usize) {
        let down = wait_until(|| self.register.open() <= left);
        let _or_not = tokio::time::timeout(PAUSE * 200, down).await;
    }

    /// Callers take no new call.
    pub fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
        self.bulk.close();
    }

    pub fn callers(self: &Arc<Self>, mixed: usize, bulk: usize) -> JoinSet<()> {
        let mut callers = JoinSet::new();
        for _ in 0..mixed {
            callers.spawn(self.clone().mixed());
        }
        for _ in 0..bulk {
            callers.spawn(self.clone().bulk());
        }
        callers.spawn(self.clone().erase());
        callers
    }

    async fn mixed(self: Arc<Self>) {
        while !self.over.load(Ordering::Relaxed) {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let plan = self.register.plan(number);
            self.see_through(&plan).await;
        }
    }

    /// Idempotent calls that nobody polls: the feed tells their end.
    async fn bulk(self: Arc<Self>) {
        while let Ok(permit) = self.bulk.acquire().await {
            permit.forget();
            let number = self.next_bulk.fetch_add(1, Ordering::Relaxed);
            let plan = self.register.plan(number);
            let (reply, _) = self.send(&self.pooled, &plan).await;
            self.take(&plan, &reply);
            self.through(number);
        }
    }

    /// Deletes most of the bulk that has ended, so that a long run stays small.
    async fn erase(self: Arc<Self>) {
        loop {
            let ended = self.register.to_erase(ERASED);
            if ended.is_empty() && self.over.load(Ordering::Relaxed) {
                return;
            }
            for (number, id) in &ended {
                self.delete(&self.register.plan(*number), id).await;
            }
            if ended.is_empty() {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Sends the call until it is answered or accepted; an accepted one is polled,
    /// cancelled or deleted, as is its fate.
    async fn see_through(&self, plan: &Plan) {
        let (reply, _) = self.send(&self.client, plan).await;
        let id = self.take(plan, &reply);
        let number = plan.call.number;
        if let (StatusCode::ACCEPTED, Some(id)) = (reply.status, &id) {
            let path = format!("{}/{id}", plan.call.path());
            match plan.fate {
                Fate::Deleted => self.delete(plan, id).await,
                Fate::Cancelled => {
                    self.ask(plan.call.key, Method::POST, &format!("{path}/cancel"))
                        .await;
                    self.poll(plan, &path, id).await;
                }
                _ => self.poll(plan, &path, id).await,
            }
        } else {
            self.answered(plan, &reply, id.as_deref(), "the held answer");
        }
        self.through(number);
    }

    fn through(&self, number: usize) {
        self.register
            .books(|books| books.calls.entry(number).or_default().through = true);
    }

    /// Writes down which request a reply names.
    fn take(&self, plan: &Plan, reply: &Reply) -> Option<String> {
        let id = reply.request();
        match &id {
            Some(id) => self.register.acknowledged(plan.call.number, id),
            None => self.register.violation(
                None,
                format!("{plan:?} is answered without an id: {reply:?}"),
            ),
        }
        id
    }

    fn answered(&self, plan: &Plan, reply: &Reply, id: Option<&str>, by: &str) {
        let answer: Value = serde_json::from_str(&reply.body).unwrap_or_default();
        let mut told = told(reply.status.as_u16(), &answer);
        // The status of a stream that had begun is no status of its request.
        let is_streamed = plan.call.mode == Mode::Stream && reply.status == StatusCode::OK;
        if is_streamed && !answer["error"].is_null() {
            told.status = match told.code.as_str() {
                "deadline_exceeded" => 504,
                _ => 400,
            };
        }
        if let Some(id) = id {
            self.register.told(plan.call.number, id, told, &answer, by);
        }
    }

    async fn poll(&self, plan: &Plan, path: &str, id: &str) {
        loop {
            let mut up = self.server.up();
            let reply = loop {
                match self.client.get(&up, plan.call.key, path, 30).await {
                    Ok(reply) if !is_for_later(&reply) => break reply,
                    ended => up = self.another(up, ended.is_err()).await,
                }
            };
            if reply.status != StatusCode::ACCEPTED {
                return self.answered(plan, &reply, Some(id), "a poll");
            }
        }
    }

    async fn delete(&self, plan: &Plan, id: &str) {
        self.register.erasure(id, Erasure::Asked);
        let path = format!("{}/{id}", plan.call.path());
        let reply = self.ask(plan.call.key, Method::DELETE, &path).await;
        // 404: deleted by a try whose answer was lost.
        match reply.status {
            StatusCode::OK | StatusCode::NOT_FOUND => {
                self.register.erasure(id, Erasure::Done);
            }
            _ => self
                .register
                .violation(Some(id), format!("its deletion is answered {reply:?}")),
        }
    }

    /// The reply, and how often the connection broke.
    async fn send(&self, client: &Client, plan: &Plan) -> (Reply, usize) {
        let (mut up, number) = (self.server.up(), plan.call.number);
        let (mut breaks, mut hangs_up) = (0, plan.hangs_up);
        for tries in 0.. {
            let sent = client.send(&up, &plan.call, tries);
            let sent = match std::mem::take(&mut hangs_up) {
                true => tokio::time::timeout(PAUSE * 2, sent).await.ok(),
                false => Some(sent.await),
            };
            let is_broken = match sent {
                Some(Ok(reply)) if !is_for_later(&reply) => return (reply, breaks),
                Some(Ok(_)) => false,
                Some(Err(Broken { request })) => {
                    breaks += 1;
                    self.register
                        .books(|books| books.calls.entry(number).or_default().breaks = breaks);
                    if let Some(id) = request {
                        self.register.acknowledged(number, &id);
                    }
                    true
                }
                None => {
                    self.register
                        .books(|books| books.calls.entry(number).or_default().hang_ups += 1);
                    continue;
                }
            };
            up = self.another(up, is_broken).await;
        }
        unreachable!("it sends for ever")
    }

    /// The next server, or after a while the same one.
    async fn another(&self, up: Up, is_broken: bool) -> Up {
        let pause = match is_broken {
            true => PAUSE * 4,
            false => PAUSE,
        };
        let next = tokio::time::timeout(pause, self.server.after(up.start));
        next.await.unwrap_or_else(|_| self.server.up())
    }

    /// Asks until it is answered, by this server or the next.
    pub async fn ask(&self, key: &str, method: Method, path: &str) -> Reply {
        let mut up = self.server.up();
        loop {
            match self.pooled.ask(&up, key, method.clone(), path).await {
                Ok(reply) if !is_for_later(&reply) => return reply,
                ended => up = self.another(up, ended.is_err()).await,
            }
        }
    }

    /// The files that the provider has of a key.
    pub async fn files(&self, provider: &Up, key: &str) -> Vec<Value> {
        let reply = self
            .client
            .get(provider, key, "/v1/files?limit=10000", 0)
            .await;
        let list: Option<Value> = reply
            .ok()
            .and_then(|reply| serde_json::from_str(&reply.body).ok());
        let files = list.as_ref().and_then(|list| list["data"].as_array());
        files.cloned().unwrap_or_default()
    }

    pub async fn get_json(&self, key: &str, path: &str) -> Value {
        let reply = self.ask(key, Method::GET, path).await;
        if reply.status != StatusCode::OK {
            self.register.violation(None, format!("{path}: {reply:?}"));
        }
        serde_json::from_str(&reply.body).unwrap_or_default()
    }
}

async fn wait_until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::time::sleep(PAUSE).await;
    }
}

/// Full, failing for the moment or stopping: nothing was taken in.
fn is_for_later(reply: &Reply) -> bool {
    let busy = matches!(reply.status.as_u16(), 429 | 503 | 507);
    busy && reply.headers.contains_key("retry-after")
}

fn told(status: u16, answer: &Value) -> Told {
    let code = answer["error"]["code"].as_str().unwrap_or_default();
    Told {
        status,
        code: code.to_owned(),
    }
}

/// Reads a tenant's results feed, through all breaks, from the beginning.
pub struct Feed {
    key: &'static str,
    cursor: Option<String>,
}

impl Feed {
    pub fn new(key: &'static str) -> Self {
        Feed { key, cursor: None }
    }

    pub async fn read_on(mut self, load: Arc<Load>) {
        loop {
            self.read(&load, 5).await;
        }
    }

    /// Reads what is there and waits at most `wait` seconds for something.
    async fn read(&mut self, load: &Load, wait: u32) {
        let after = self.cursor.as_ref();
        let after = after.map_or(String::new(), |cursor| format!("&after={cursor}"));
        let path = format!("/offpeak/v1/results?limit=500&wait={wait}{after}");
        let reply = load.ask(self.key, Method::GET, &path).await;
        if reply.status != StatusCode::OK {
            load.register.violation(None, format!("{path}: {reply:?}"));
            return tokio::time::sleep(PAUSE).await;
        }
        for line in reply.body.lines() {
            self.line(&load.register, line);
        }
    }

    fn line(&mut self, register: &Register, text: &str) {
        let line: Value = serde_json::from_str(text).unwrap_or_default();
        let word = |name: &str| line[name].as_str().unwrap_or_default();
        let number = word("tag").strip_prefix("call-");
        let (Some(Ok(number)), Some(status)) =
            (number.map(str::parse), line["status_code"].as_u64())
        else {
            return register.violation(None, format!("a line of the feed: {text}"));
        };
        let (id, cursor) = (word("id"), word("cursor"));
        self.cursor = Some(cursor.to_owned());
        register.in_feed(number, id);
        let answer = &line["response"];
        register.told(number, id, told(status as u16, answer), answer, "the feed");
    }
}
