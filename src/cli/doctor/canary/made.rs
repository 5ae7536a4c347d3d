//! What the canary has made at the provider, and how it is taken away again.

use std::time::Duration;

use http::Method;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::line::{Line, Payload, Reply};

/// How long to wait for a batch that is being cancelled: some take ten minutes.
const CANCELLING: Duration = Duration::from_secs(30);

/// The states that a batch does not leave.
const ENDED: [&str; 4] = ["completed", "failed", "expired", "cancelled"];

pub struct Made {
    /// In the name of the input file, and in the batch's metadata.
    pub tag: String,
    pub input: Option<String>,
    files: Vec<String>,
    batch: Option<String>,
    /// The batch's, as last seen.
    status: String,
    has_ended: bool,
    /// Calls whose replies were lost: whether they made something, the provider's list
    /// tells.
    lost_upload: bool,
    lost_create: bool,
}

impl Made {
    pub fn new(tag: String) -> Self {
        Made {
            tag,
            input: None,
            files: Vec::new(),
            batch: None,
            status: String::new(),
            has_ended: false,
            lost_upload: false,
            lost_create: false,
        }
    }

    pub fn file_name(&self) -> String {
        format!("{}.jsonl", self.tag)
    }

    /// What came of an upload; the file's id if there is one.
    pub fn uploaded(&mut self, line: &mut Line, reply: &Result<Reply, String>) -> Option<String> {
        self.lost_upload = reply.is_err();
        let id = reply
            .as_ref()
            .ok()
            .filter(|it| it.is_success())?
            .text("id")?;
        self.input = Some(id.to_owned());
        self.file(line, id);
        Some(id.to_owned())
    }

    /// What came of a create; the batch's id if there is one.
    pub fn created(&mut self, line: &mut Line, reply: &Result<Reply, String>) -> Option<String> {
        self.lost_create = reply.is_err();
        let reply = reply.as_ref().ok().filter(|it| it.is_success())?;
        let id = reply.text("id")?.to_owned();
        self.batch = Some(id.clone());
        line.own(&id);
        self.seen(line, reply);
        Some(id)
    }

    /// What a look at the batch says: files that it made, and whether it has ended. True
    /// where its status is another than before.
    pub fn seen(&mut self, line: &mut Line, reply: &Reply) -> bool {
        let files = ["output_file_id", "error_file_id"];
        let files = files.iter().filter_map(|field| reply.text(field));
        files.for_each(|id| self.file(line, id));
        let status = reply.text("status").unwrap_or("without a status");
        self.has_ended |= ENDED.contains(&status);
        let is_new = self.status != status;
        status.clone_into(&mut self.status);
        is_new
    }

    pub fn status(&self) -> &str {
        &self.status
    }

    pub fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Looks at the batch, and forgets the look where it tells nothing new.
    ///
    /// # Errors
    /// As [`Line::call`].
    pub async fn look(&mut self, line: &mut Line, id: &str) -> Result<Option<Reply>, String> {
        let path = format!("/batches/{id}");
        let reply = line
            .call("batch", Method::GET, &path, Payload::Nothing)
            .await?;
        match self.seen(line, &reply) {
            true => Ok(Some(reply)),
            false => {
                line.exchanges.pop();
                Ok(None)
            }
        }
    }

    fn file(&mut self, line: &mut Line, id: &str) {
        line.own(id);
        if !self.files.iter().any(|known| known == id) {
            self.files.push(id.to_owned());
        }
    }

    /// Cancels the batch, and looks at it until it has ended, or for long enough.
    pub async fn cancel(&mut self, line: &mut Line, interval: Duration) {
        let Some(id) = self.batch.clone().filter(|_| !self.has_ended) else {
            return;
        };
        let path = format!("/batches/{id}/cancel");
        // Whatever becomes of it, the looks tell.
        if let Ok(reply) = line
            .call("batch cancel", Method::POST, &path, Payload::Nothing)
            .await
        {
            self.seen(line, &reply);
        }
        let until = Instant::now() + CANCELLING;
        while !self.has_ended && Instant::now() < until {
            // One that is lost is made again.
            let _ = self.look(line, &id).await;
            if !self.has_ended {
                sleep(interval).await;
            }
        }
    }

    /// Takes away all that was made; returns what could not be.
    pub async fn clean(&mut self, line: &mut Line, interval: Duration) -> Vec<String> {
        let mut left = Vec::new();
        left.extend(self.find_lost(line).await);
        self.cancel(line, interval).await;
        if let Some(id) = self.batch.as_ref().filter(|_| !self.has_ended) {
            left.push(format!(
                "the batch {id}, which is being cancelled, and perhaps its result files (they \
                 expire)"
            ));
        }
        for id in &self.files {
            let path = format!("/files/{id}");
            let deleted = line
                .call("file delete", Method::DELETE, &path, Payload::Nothing)
                .await;
            match deleted {
                Ok(reply) if reply.is_success() || reply.status == 404 => {}
                Ok(reply) => left.push(format!("the file {id} ({})", reply.status)),
                Err(why) => left.push(format!("the file {id} ({why})")),
            }
        }
        left
    }

    /// Looks for what was made although no reply came.
    async fn find_lost(&mut self, line: &mut Line) -> Vec<String> {
        let mut left = Vec::new();
        if self.lost_upload {
            let name = self.file_name();
            let list = line
                .ask(Method::GET, "/files?purpose=batch&limit=100")
                .await;
            match found(list, |file| file["filename"] == name.as_str()) {
                Some(id) => self.file(line, &id),
                None => left.push(format!("perhaps a file named {name}, which is not listed")),
            }
        }
        if self.lost_create {
            let tag = self.tag.clone();
            let list = line.ask(Method::GET, "/batches?limit=100").await;
            match found(list, |batch| {
                batch["metadata"]["offpeak_canary"] == tag.as_str()
            }) {
                Some(id) => {
                    line.own(&id);
                    self.batch = Some(id);
                }
                None => left.push(format!(
                    "perhaps a batch with `{tag}` in its metadata, which is not listed and fails \
                     for want of its file"
                )),
            }
        }
        left
    }
}

/// The id of what fits in a list.
fn found(list: Result<Reply, String>, fits: impl Fn(&Value) -> bool) -> Option<String> {
    let list = list.ok().filter(Reply::is_success)?;
    let items = list.body["data"].as_array()?;
    let id = &items.iter().find(|item| fits(item))?["id"];
    id.as_str().map(str::to_owned)
}
