//! The calls of the canary: each kind that Offpeak makes or answers, as small as it can be.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{
    line::{Line, Payload, Reply},
    made::Made,
};
use crate::cli::say::tell;

/// Tokens that an answer may have. The Responses API takes no fewer than 16.
pub const MOST_OUTPUT: u64 = 64;
const QUESTION: &str = "Say yes.";
/// No provider has it.
const UNKNOWN_MODEL: &str = "offpeak-canary-no-such-model";
/// When the provider drops what was not deleted: as soon as it may be told to, and for
/// the input once the batch must have ended.
const INPUT_EXPIRES: &str = "90000";
const OUTPUT_EXPIRES: u64 = 3_600;

pub struct Plan {
    pub model: String,
    pub embedding_model: String,
    pub patience: Patience,
    /// Between two looks at the batch, at first and at most.
    pub looks: (Duration, Duration),
    /// Tell on standard error how far it is.
    pub tells: bool,
}

/// When the batch is cancelled, if it has not ended.
pub enum Patience {
    For(Duration),
    /// As soon as it has this status.
    Until(String),
}

/// How the batch went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It ended by itself; with what was wrong then, in words.
    Ended(Option<String>),
    /// With the status that it then had.
    Cancelled(String),
    /// There was none to be had.
    NoBatch,
}

/// Why the calls broke off.
#[derive(Debug)]
pub enum Stop {
    Interrupted,
    /// A call that needs an answer got none, or the key is refused.
    Lost(String),
}

/// Makes them all. What it makes at the provider is in `made`, however it ends.
pub async fn run(
    line: &mut Line,
    plan: &Plan,
    made: &mut Made,
    stop: &CancellationToken,
) -> Result<Ending, Stop> {
    let models = format!("/models/{}", plan.model);
    let first = call(
        line,
        plan,
        stop,
        "model",
        Method::GET,
        &models,
        Payload::Nothing,
    )
    .await?;
    if first.status == 401 {
        let message = first.body["error"]["message"].as_str().unwrap_or_default();
        let message = line.masked(message);
        return Err(Stop::Lost(format!("the key is refused (401): {message}")));
    }
    for (name, path, body) in small(plan) {
        call(
            line,
            plan,
            stop,
            name,
            Method::POST,
            path,
            Payload::Json(body),
        )
        .await?;
    }
    batch(line, plan, made, stop).await
}

fn small(plan: &Plan) -> [(&'static str, &'static str, Value); 6] {
    let chat = chat(&plan.model);
    let with = |body: &Value, more: Value| {
        let mut body = body.clone();
        if let (Some(body), Value::Object(more)) = (body.as_object_mut(), more) {
            body.extend(more);
        }
        body
    };
    let response = json!({
        "model": plan.model, "input": QUESTION, "max_output_tokens": MOST_OUTPUT, "store": false,
    });
    let stream = json!({"stream": true, "stream_options": {"include_usage": true}});
    let embedding = json!({"model": plan.embedding_model, "input": "yes"});
    [
        ("chat", "/chat/completions", chat.clone()),
        ("chat stream", "/chat/completions", with(&chat, stream)),
        ("response", "/responses", response.clone()),
        (
            "response stream",
            "/responses",
            with(&response, json!({"stream": true})),
        ),
        ("embedding", "/embeddings", embedding),
        (
            "refused",
            "/chat/completions",
            with(&chat, json!({"model": UNKNOWN_MODEL})),
        ),
    ]
}

fn chat(model: &str) -> Value {
    json!({
        "model": model,
        "messages": [{"role": "user", "content": QUESTION}],
        "max_completion_tokens": MOST_OUTPUT,
    })
}

/// One that makes nothing, so that it may be broken off.
async fn call(
    line: &mut Line,
    plan: &Plan,
    stop: &CancellationToken,
    name: &'static str,
    method: Method,
    path: &str,
    payload: Payload<'_>,
) -> Result<Reply, Stop> {
    let called = tokio::select! {
        biased;
        () = stop.cancelled() => return Err(Stop::Interrupted),
        called = line.call(name, method, path, payload) => called,
    };
    told(plan, name, &called);
    called.map_err(|why| Stop::Lost(format!("{name}: {why}")))
}

fn told(plan: &Plan, name: &str, called: &Result<Reply, String>) {
    if plan.tells {
        match called {
            Ok(reply) => tell(format_args!("{name}: {}", reply.status)),
            Err(why) => tell(format_args!("{name}: {why}")),
        }
    }
}

async fn batch(
    line: &mut Line,
    plan: &Plan,
    made: &mut Made,
    stop: &CancellationToken,
) -> Result<Ending, Stop> {
    // Not broken off: what it makes would not be known.
    let name = made.file_name();
    let text = json!({
        "custom_id": "canary-1", "method": "POST", "url": "/v1/chat/completions",
        "body": chat(&plan.model),
    });
    let upload = Payload::File {
        fields: &[
            ("purpose", "batch"),
            ("expires_after[anchor]", "created_at"),
            ("expires_after[seconds]", INPUT_EXPIRES),
        ],
        name: &name,
        text: &format!("{text}\n"),
    };
    let uploaded = line
        .call("file upload", Method::POST, "/files", upload)
        .await;
    told(plan, "file upload", &uploaded);
    let Some(input) = made.uploaded(line, &uploaded) else {
        uploaded.map_err(|why| Stop::Lost(format!("file upload: {why}")))?;
        return Ok(Ending::NoBatch);
    };
    let path = format!("/files/{input}");
    call(
        line,
        plan,
        stop,
        "file",
        Method::GET,
        &path,
        Payload::Nothing,
    )
    .await?;

    let create = json!({
        "input_file_id": input, "endpoint": "/v1/chat/completions", "completion_window": "24h",
        "metadata": {"offpeak_canary": made.tag},
        "output_expires_after": {"anchor": "created_at", "seconds": OUTPUT_EXPIRES},
    });
    let created = line
        .call(
            "batch create",
            Method::POST,
            "/batches",
            Payload::Json(create),
        )
        .await;
    told(plan, "batch create", &created);
    let Some(id) = made.created(line, &created) else {
        created.map_err(|why| Stop::Lost(format!("batch create: {why}")))?;
        return Ok(Ending::NoBatch);
    };
    let list = "/batches?limit=3";
    call(
        line,
        plan,
        stop,
        "batch list",
        Method::GET,
        list,
        Payload::Nothing,
    )
    .await?;
    let Some(ended) = ended(line, plan, made, stop, &id).await? else {
        let status = made.status().to_owned();
        made.cancel(line, plan.looks.0).await;
        return Ok(Ending::Cancelled(status));
    };
    for (field, object, content) in [
        ("output_file_id", "output file", "output"),
        ("error_file_id", "error file", "errors"),
    ] {
        if let Some(file) = ended.text(field) {
            let path = format!("/files/{file}");
            call(
                line,
                plan,
                stop,
                object,
                Method::GET,
                &path,
                Payload::Nothing,
            )
            .await?;
            let path = format!("/files/{file}/content");
            call(
                line,
                plan,
                stop,
                content,
                Method::GET,
                &path,
                Payload::Nothing,
            )
            .await?;
        }
    }
    Ok(Ending::Ended(wrong(line, &ended)))
}

/// Why the batch's line was not answered.
fn wrong(line: &Line, ended: &Reply) -> Option<String> {
    let status = ended.text("status").unwrap_or("without a status");
    if status != "completed" {
        let message = ended.body["errors"]["data"][0]["message"].as_str();
        let message = message.map_or(String::new(), |it| format!(": {}", line.masked(it)));
        return Some(format!("it ended {status} at the provider{message}"));
    }
    match ended.text("output_file_id") {
        Some(_) => None,
        None => Some("it is completed at the provider, and its line has no answer".into()),
    }
}

/// Looks at the batch until it has ended by itself; None when that takes too long.
async fn ended(
    line: &mut Line,
    plan: &Plan,
    made: &mut Made,
    stop: &CancellationToken,
    id: &str,
) -> Result<Option<Reply>, Stop> {
    let began = Instant::now();
    let (mut interval, longest) = plan.looks;
    loop {
        let look = tokio::select! {
            biased;
            () = stop.cancelled() => return Err(Stop::Interrupted),
            look = made.look(line, id) => look,
        };
        // One that is lost is made again.
        if let Ok(Some(reply)) = look {
            if plan.tells {
                tell(format_args!("batch: {}", made.status()));
            }
            if made.has_ended() {
                return Ok(Some(reply));
            }
        }
        let left = match &plan.patience {
            Patience::For(longest) => longest.saturating_sub(began.elapsed()),
            Patience::Until(status) if made.status() == status => Duration::ZERO,
            Patience::Until(_) => interval,
        };
        if left.is_zero() {
            return Ok(None);
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return Err(Stop::Interrupted),
            () = sleep(interval.min(left)) => {}
        }
        interval = (interval * 3 / 2).min(longest);
    }
}
