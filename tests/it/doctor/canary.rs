use std::{fs, fs::File, io::Write as _, path::Path, process::Command, time::Duration};

use axum::http::StatusCode;
use offpeak::simulator::{Fault, Kind, Operation};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::{
    Ended, ended, offpeak,
    provider::{Parts, Stub, brisk, nothing_is_left},
    start,
};
use crate::{
    cli::terminal::{on_terminal, terminal, until},
    kill::{apart, provider::Provider},
};

const KEY: &str = "sk-north.SECRETOFTHECALLER";

fn args<'a>(out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec!["doctor", "--canary", "--yes", "--json", "--out", out];
    args.extend(more);
    args
}

async fn canary(upstream: &str, dir: &Path, more: &[&str]) -> Ended {
    let out = dir.join("transcript.json");
    let environment = [
        ("OFFPEAK_UPSTREAM__BASE_URL", upstream),
        ("OPENAI_API_KEY", KEY),
        ("OPENAI_PROJECT_ID", "proj_SECRETPROJECT"),
    ];
    offpeak(&args(out.to_str().unwrap(), more), &environment).await
}

fn transcript(dir: &Path) -> (String, Value) {
    let text = fs::read_to_string(dir.join("transcript.json")).unwrap();
    let value = serde_json::from_str(&text).unwrap();
    (text, value)
}

fn names(transcript: &Value, side: &str) -> Vec<String> {
    let exchanges = transcript[side].as_array().unwrap().iter();
    let mut names: Vec<String> = exchanges
        .map(|it| it["name"].as_str().unwrap().to_owned())
        .collect();
    names.dedup();
    names
}

#[tokio::test]
async fn a_provider_like_the_simulator_differs_in_nothing_and_keeps_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let provider = Provider::start(brisk()).await;
    let ended = canary(&provider.upstream(), dir.path(), &[]).await;
    assert_eq!(ended.code, Some(0), "{ended}");
    assert_eq!(ended.json()["differences"], json!([]));
    assert_eq!(ended.json()["left"], json!([]));
    let (text, transcript) = transcript(dir.path());
    let expected = [
        "model",
        "chat",
        "chat stream",
        "response",
        "response stream",
        "embedding",
        "refused",
        "file upload",
        "file",
        "batch create",
        "batch list",
        "batch",
        "output file",
        "output",
        "file delete",
        "deleted file",
    ];
    assert_eq!(names(&transcript, "provider"), expected);
    assert_eq!(names(&transcript, "simulator"), expected);
    // The organization of a key is in its name.
    for secret in ["SECRETOFTHECALLER", "SECRETPROJECT", "org-north"] {
        assert!(
            !text.contains(secret) && !ended.said().contains(secret),
            "{secret}"
        );
    }
    assert!(
        text.contains("\"openai-organization\": \"[masked]\""),
        "{text}"
    );
    nothing_is_left(&provider, KEY).await;
}

/// As another version of the provider might answer.
fn another_version(call: &str, answer: &mut Parts) {
    match call {
        "POST /v1/chat/completions" if answer.text.starts_with('{') => answer.json(|body| {
            if body["error"].is_null() {
                let message = body["choices"][0]["message"].as_object_mut().unwrap();
                message.remove("refusal");
                message.insert("audio".into(), Value::Null);
                body["created"] = "yesterday".into();
                body["account"] = "a-b-c".into();
            } else {
                body["error"]["code"] = "no_such_model".into();
            }
        }),
        "POST /v1/chat/completions" => {
            // No chunk of its own for the role.
            let start = answer.text.find("\n\n").unwrap() + 2;
            answer.text = answer.text.split_off(start);
        }
        "POST /v1/embeddings" => {
            answer.status = StatusCode::BAD_REQUEST;
        }
        "GET /v1/models/gpt-4o-mini" => {
            answer.headers.remove("openai-version");
            answer
                .headers
                .insert("x-should-retry", "false".parse().unwrap());
            answer.headers.insert("cf-ray", "1".parse().unwrap());
        }
        call if call.starts_with("GET /v1/batches/") => answer.json(|body| {
            if body["status"] == "completed" {
                body["request_counts"]["failed"] = Value::Null;
            }
        }),
        _ => {}
    }
}

#[tokio::test]
async fn what_another_version_says_is_told_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let provider = Provider::start(brisk()).await;
    let stub = Stub::altering(&provider.simulator, another_version).await;
    let ended = canary(&stub.base(), dir.path(), &[]).await;
    assert_eq!(ended.code, Some(1), "{ended}");
    let told = ended.json();
    let differences = told["differences"].as_array().unwrap();
    let says: Vec<&str> = differences
        .iter()
        .map(|it| it["says"].as_str().unwrap())
        .collect();
    let expected = [
        "a batch that is completed: `request_counts.failed` is null at the provider, a number in \
         the simulator",
        "chat: the provider has `account` (text), the simulator does not",
        "chat: the provider has `choices[].message.audio` (null), the simulator does not",
        "chat: the simulator has `choices[].message.refusal` (null), the provider does not",
        "chat: `created` is text at the provider, a number in the simulator",
        "chat stream: the provider's stream is delta(content) → delta() and the end → usage → \
         [DONE]; the simulator's is delta(content, refusal, role) → delta(content) → delta() and \
         the end → usage → [DONE]",
        "chat stream: `choices[].delta.content` is text at the provider, text or empty text in \
         the simulator",
        "chat stream: the simulator has `choices[].delta.refusal` (null), the provider does not",
        "chat stream: the simulator has `choices[].delta.role` (\"assistant\"), the provider does \
         not",
        "embedding: the provider answers 400, the simulator 200",
        "model: the provider sends the header x-should-retry, the simulator does not",
        "model: the simulator sends the header openai-version, the provider does not",
        "refused: `error.code` is \"no_such_model\" at the provider, \"model_not_found\" in the \
         simulator",
    ];
    assert_eq!(says, expected, "{says:#?}");
    let (text, transcript) = transcript(dir.path());
    assert_eq!(transcript["differences"], told["differences"]);
    // Whose account it is, is nobody's business.
    assert!(!text.contains("a-b-c"));
    nothing_is_left(&provider, KEY).await;
}

#[tokio::test]
async fn a_batch_that_fails_is_a_difference() {
    type Alter = fn(&mut Value);
    let ways: [(Alter, &str); 3] = [
        (
            |batch| {
                batch["status"] = "failed".into();
                batch["errors"] = json!({"object": "list", "data": [
                    {"message": "Not with sk-north.SECRETOFTHECALLER."}]});
            },
            "batch: it ended failed at the provider: Not with [masked].",
        ),
        (
            |batch| batch["status"] = "expired".into(),
            "batch: it ended expired at the provider",
        ),
        (
            |batch| batch["output_file_id"] = Value::Null,
            "batch: it is completed at the provider, and its line has no answer",
        ),
    ];
    for (alter, expected) in ways {
        let dir = tempfile::tempdir().unwrap();
        let provider = Provider::start(brisk()).await;
        let stub = Stub::altering(&provider.simulator, move |call, answer| {
            if call.starts_with("GET /v1/batches/") {
                answer.json(|batch| {
                    if batch["status"] == "completed" {
                        alter(batch);
                    }
                });
            }
        })
        .await;
        let ended = canary(&stub.base(), dir.path(), &[]).await;
        assert_eq!(ended.code, Some(1), "{ended}");
        let first = &ended.json()["differences"][0]["says"];
        assert_eq!(first, expected, "{ended}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_says_no_is_not_told_that_all_is_well() {
    let provider = Provider::start(brisk()).await;
    let mut command = Command::new(env!("CARGO_BIN_EXE_offpeak"));
    command
        .args(["doctor", "--canary"])
        .env_clear()
        .env("OFFPEAK_UPSTREAM__BASE_URL", provider.upstream())
        .env("OPENAI_API_KEY", KEY);
    let (ours, theirs) = terminal();
    let (mut child, read) = on_terminal(command, (&ours, &theirs));
    let ended = apart("its end", move || {
        until(&read, "Go on? [y/N]");
        File::from(ours).write_all(b"N\n").unwrap();
        until(&read, "Nothing was called.");
        child.0.wait().unwrap()
    });
    assert_eq!(ended.await.code(), Some(2));
    assert!(provider.simulator.log().operations.is_empty());
}

#[tokio::test]
async fn a_batch_that_is_not_waited_for_is_cancelled() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = brisk();
    settings.latency.turnaround_median = Duration::from_secs(3_600);
    let provider = Provider::start(settings).await;
    for more in [&["--no-wait"][..], &["--wait", "1s"]] {
        let ended = canary(&provider.upstream(), dir.path(), more).await;
        assert_eq!(ended.code, Some(0), "{ended}");
        let (_, transcript) = transcript(dir.path());
        for side in ["provider", "simulator"] {
            let names = names(&transcript, side);
            assert!(names.contains(&"batch cancel".to_owned()), "{names:?}");
        }
        nothing_is_left(&provider, KEY).await;
    }
    assert_eq!(provider.simulator.log().batches.len(), 2);
}

#[tokio::test]
async fn interrupted_it_takes_away_what_it_made() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = brisk();
    settings.latency.turnaround_median = Duration::from_secs(3_600);
    let provider = Provider::start(settings).await;
    let (upstream, out) = (provider.upstream(), dir.path().join("transcript.json"));
    let environment = [
        ("OFFPEAK_UPSTREAM__BASE_URL", upstream.as_str()),
        ("OPENAI_API_KEY", KEY),
    ];
    let child = start(&args(out.to_str().unwrap(), &[]), &environment);
    let pid = Pid::from_raw(child.id().unwrap().try_into().unwrap()).unwrap();
    let is_made = |log: offpeak::simulator::Log| log.operations.contains_key(&Operation::GetBatch);
    provider
        .until("a look at the batch", |it| is_made(it.log()))
        .await;
    kill_process(pid, Signal::INT).unwrap();
    let ended = ended(child).await;
    assert_eq!(ended.code, Some(130), "{ended}");
    let says = "Interrupted. Nothing is left at the provider.";
    assert!(ended.stderr.contains(says), "{ended}");
    assert_eq!(provider.simulator.log().batches.len(), 1);
    nothing_is_left(&provider, KEY).await;
}

#[tokio::test]
async fn what_was_made_and_not_answered_is_found() {
    for operation in [Operation::UploadFile, Operation::CreateBatch] {
        let dir = tempfile::tempdir().unwrap();
        let provider = Provider::start(brisk()).await;
        provider
            .simulator
            .inject(Fault::once(operation, Kind::ReplyLost));
        let ended = canary(&provider.upstream(), dir.path(), &[]).await;
        assert_eq!(ended.code, Some(2), "{ended}");
        assert!(ended.stderr.contains("Nothing is left"), "{ended}");
        let made = provider.simulator.log().batches.len();
        assert_eq!(made, usize::from(operation == Operation::CreateBatch));
        nothing_is_left(&provider, KEY).await;
    }
}

#[tokio::test]
async fn what_cannot_be_taken_away_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let provider = Provider::start(brisk()).await;
    let stub = Stub::altering(&provider.simulator, |call, answer| {
        if call.starts_with("DELETE ") {
            answer.status = StatusCode::SERVICE_UNAVAILABLE;
        }
    })
    .await;
    let ended = canary(&stub.base(), dir.path(), &[]).await;
    let left = ended.json()["left"].as_array().unwrap().len();
    assert_eq!(left, 2, "{ended}");
    assert!(
        ended
            .stderr
            .contains("Left at the provider: the file file-"),
        "{ended}"
    );
}

#[tokio::test]
async fn nothing_is_called_unasked_or_with_a_bad_key() {
    let provider = Provider::start(brisk()).await;
    let upstream = provider.upstream();
    let upstream = ("OFFPEAK_UPSTREAM__BASE_URL", upstream.as_str());
    let asks = offpeak(
        &["doctor", "--canary"],
        &[upstream, ("OPENAI_API_KEY", KEY)],
    )
    .await;
    assert_eq!(asks.code, Some(2), "{asks}");
    assert!(asks.stderr.contains("at most $0.0001867"), "{asks}");
    assert!(asks.stderr.contains("--yes"), "{asks}");
    let none = offpeak(&["doctor", "--canary", "--yes"], &[upstream]).await;
    assert!(none.stderr.contains("OPENAI_API_KEY is not set"), "{none}");
    assert!(provider.simulator.log().operations.is_empty());

    let bad = [upstream, ("OPENAI_API_KEY", "sk-bad-SECRET")];
    let ended = offpeak(&["doctor", "--canary", "--yes"], &bad).await;
    assert_eq!(ended.code, Some(2), "{ended}");
    assert!(ended.stderr.contains("the key is refused (401)"), "{ended}");
    assert!(!ended.said().contains("SECRET"), "{ended}");
    let called: Vec<_> = provider.simulator.log().operations.into_keys().collect();
    assert_eq!(called, [Operation::GetModel]);
}
