use serde_json::Value;

use super::*;
use crate::simulator::{Lane, answer_mark, fingerprint};

#[tokio::test(start_paused = true)]
async fn a_batch_goes_through_its_states_and_is_billed_half() {
    let bench = Bench::new();
    let text = input(&["", "status=429", "tokens=1000"]);
    let batch = bench.create(&text).await;
    assert_eq!(batch["status"], "validating");
    assert_eq!(
        batch["request_counts"],
        json!({"total": 0, "completed": 0, "failed": 0})
    );
    assert_eq!(batch["expires_at"], START + 86_400);
    assert_eq!(batch["metadata"], json!({"offpeak": "b1"}));
    assert_eq!(batch["in_progress_at"], Value::Null);
    let batch = bench.later(&batch, 1).await;
    assert_eq!(batch["status"], "in_progress");
    assert_eq!(batch["request_counts"]["total"], 3);
    assert_eq!(batch["output_file_id"], Value::Null);
    tokio::time::advance(Duration::from_secs(6 * 60)).await;
    let mut seen = Vec::new();
    let batch = loop {
        let now = bench.now(&batch).await;
        seen.push(now["status"].as_str().unwrap().to_owned());
        if now["status"] == "completed" {
            break now;
        }
        tokio::time::advance(Duration::from_secs(1)).await;
    };
    seen.dedup();
    assert_eq!(seen, ["in_progress", "finalizing", "completed"]);
    assert_eq!(
        batch["request_counts"],
        json!({"total": 3, "completed": 2, "failed": 1})
    );
    let at = |name: &str| batch[name].as_u64().unwrap();
    assert!(at("created_at") <= at("in_progress_at"));
    assert!(at("in_progress_at") < at("finalizing_at"));
    assert!(at("finalizing_at") < at("completed_at"));

    let output = bench.content(&batch, "output_file_id").await;
    assert_eq!(output.len(), 2);
    let bodies: Vec<String> = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["body"].to_string())
        .collect();
    for line in &output {
        let index: usize = line["custom_id"].as_str().unwrap()[1..].parse().unwrap();
        assert_eq!(line["error"], Value::Null);
        assert_eq!(line["response"]["status_code"], 200);
        let body = &line["response"]["body"];
        assert_eq!(body["object"], "chat.completion");
        let content = body["choices"][0]["message"]["content"].as_str().unwrap();
        assert!(
            content.contains(&answer_mark(1, &bodies[index]).unwrap()),
            "{content}"
        );
        assert!(content.contains(&format!("question {index}")), "{content}");
    }
    let errors = bench.content(&batch, "error_file_id").await;
    assert_eq!(errors.len(), 1);
    assert_eq!(errors[0]["custom_id"], "r1");
    assert_eq!(errors[0]["error"], Value::Null);
    assert_eq!(errors[0]["response"]["status_code"], 429);
    assert_eq!(
        errors[0]["response"]["body"]["error"]["code"],
        "rate_limit_exceeded"
    );

    let bill = bench.sim.bill();
    assert_eq!(bill.rows.len(), 1);
    let row = &bill.rows[0];
    assert_eq!((row.lane, row.calls), (Lane::Batch, 2));
    assert_eq!(
        row.pico_usd,
        row.prompt_tokens * 75_000 + row.completion_tokens * 300_000
    );
    assert_eq!(batch["usage"]["output_tokens"], row.completion_tokens);
    let log = bench.sim.log();
    assert_eq!(log.runs_of("question 0"), 1);
    assert_eq!(log.runs_of("question 1"), 0);
    assert_eq!(log.batches[0].metadata["offpeak"], "b1");
    assert!(log.resubmitted().is_empty());
    let first = fingerprint(&bodies[0]).unwrap();
    assert!(
        log.requests
            .iter()
            .any(|request| request.fingerprint == first)
    );
}

#[tokio::test(start_paused = true)]
async fn every_line_failed_is_completed_without_an_output_file() {
    let bench = Bench::new();
    let batch = bench.create(&input(&["status=400", "status=500"])).await;
    let batch = bench.later(&batch, 10).await;
    assert_eq!(batch["status"], "completed");
    assert_eq!(batch["output_file_id"], Value::Null);
    assert_eq!(bench.content(&batch, "error_file_id").await.len(), 2);
    assert_eq!(bench.sim.bill().total_pico_usd, 0);
}

#[tokio::test(start_paused = true)]
async fn a_bad_line_fails_the_batch() {
    let bench = Bench::new();
    let text = input(&["", ""]).replace("r1", "r0");
    let batch = bench.create(&text).await;
    let batch = bench.later(&batch, 1).await;
    assert_eq!(batch["status"], "failed");
    assert_eq!(batch["errors"]["object"], "list");
    let error = &batch["errors"]["data"][0];
    assert_eq!(error["code"], "duplicate_custom_id");
    assert_eq!(error["line"], 2);
    assert!(batch["failed_at"].as_u64() > batch["created_at"].as_u64());
}

#[tokio::test(start_paused = true)]
async fn a_missing_input_file_fails_after_a_200() {
    let bench = Bench::new();
    let wish = json!({
        "input_file_id": "file-nope", "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
    });
    let batch = bench.post("/v1/batches", wish).await;
    assert_eq!(batch.status, 200);
    let batch = bench.later(&batch.json(), 1).await;
    assert_eq!(batch["status"], "failed");
    assert_eq!(batch["errors"]["data"][0]["code"], "invalid_request");
    assert_eq!(batch["errors"]["data"][0]["param"], "file_id");
}

#[tokio::test(start_paused = true)]
async fn what_a_create_refuses() {
    let bench = Bench::new();
    let file = bench.upload(&input(&[""])).await;
    let good = json!({
        "input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h",
    });
    let many: Value = (0..17).map(|n| (n.to_string(), json!(""))).collect();
    for (field, value) in [
        ("completion_window", json!("1h")),
        ("completion_window", Value::Null),
        ("endpoint", json!("/v1/files")),
        ("input_file_id", Value::Null),
        ("input_file_id", json!(7)),
        ("metadata", many),
        ("metadata", json!({"k".repeat(65): ""})),
        ("metadata", json!({"k": "v".repeat(513)})),
        ("metadata", json!({"k": 1})),
        (
            "output_expires_after",
            json!({"anchor": "created_at", "seconds": 1}),
        ),
        (
            "output_expires_after",
            json!({"anchor": "now", "seconds": 3600}),
        ),
    ] {
        let mut wish = good.clone();
        wish[field] = value;
        let reply = bench.post("/v1/batches", wish).await;
        assert_eq!(reply.error().0, 400, "{field}");
        assert!(
            reply.json()["error"]["param"]
                .as_str()
                .unwrap()
                .starts_with(field)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn cancel_by_the_book() {
    let bench = Bench::with(|settings| settings.latency.line_correlation = 0.0);
    let cancel = async |batch: &Value| {
        let path = format!(
            "/v1/batches/{}/cancel",
            batch["id"].as_str().unwrap_or("batch_no")
        );
        bench.post(&path, json!({})).await
    };
    assert_eq!(cancel(&json!({})).await.status, 404);

    let batch = bench.create(&input(&["", "slow=1h"])).await;
    bench.later(&batch, 8).await;
    let cancelling = cancel(&batch).await;
    assert_eq!(
        (cancelling.status.as_u16(), &cancelling.json()["status"]),
        (200, &json!("cancelling"))
    );
    assert_eq!(cancel(&batch).await.status, 200);
    let batch = bench.later(&batch, 2).await;
    assert_eq!(batch["status"], "cancelled");
    assert!(batch["cancelled_at"].as_u64() > batch["cancelling_at"].as_u64());
    assert_eq!(cancel(&batch).await.status, 200);
    assert_eq!(bench.content(&batch, "output_file_id").await.len(), 1);
    let errors = bench.content(&batch, "error_file_id").await;
    assert_eq!(errors[0]["custom_id"], "r1");
    assert_eq!(errors[0]["response"], Value::Null);
    assert_eq!(errors[0]["error"]["code"], "batch_cancelled");
    assert_eq!(
        batch["request_counts"],
        json!({"total": 2, "completed": 1, "failed": 0})
    );
    assert_eq!(bench.sim.bill().calls(Lane::Batch), 1);

    let unbegun = bench.create(&input(&[""])).await;
    assert_eq!(cancel(&unbegun).await.status, 200);
    let unbegun = bench.later(&unbegun, 2).await;
    assert_eq!(unbegun["status"], "cancelled");
    assert_eq!(unbegun["error_file_id"], Value::Null);

    let done = bench.create(&input(&[""])).await;
    bench.later(&done, 10).await;
    assert_eq!(cancel(&done).await.status, 409);
}

#[tokio::test(start_paused = true)]
async fn an_unfinished_batch_expires_with_both_files() {
    let bench = Bench::new();
    let batch = bench.create(&input(&["", "never", "missing"])).await;
    let batch = bench.later(&batch, 24 * 60 - 1).await;
    assert_eq!(batch["status"], "in_progress");
    let batch = bench.later(&batch, 1).await;
    assert_eq!(batch["status"], "expired");
    assert_eq!(batch["expired_at"], START + 86_400);
    assert_eq!(bench.content(&batch, "output_file_id").await.len(), 1);
    let errors = bench.content(&batch, "error_file_id").await;
    assert_eq!(errors.len(), 1);
    assert_eq!(errors[0]["error"]["code"], "batch_expired");
    assert_eq!(bench.sim.bill().calls(Lane::Batch), 1);
}

#[tokio::test(start_paused = true)]
async fn a_stalled_batch_expires() {
    let bench = Bench::with(|settings| settings.latency.stalled_share = 1.0);
    let batch = bench.create(&input(&[""])).await;
    assert_eq!(bench.later(&batch, 24 * 60).await["status"], "expired");
}

#[tokio::test(start_paused = true)]
async fn at_a_speed_of_a_thousand_a_day_takes_86_seconds() {
    let bench = Bench::with(|settings| settings.speed = 1000.0);
    let batch = bench.create(&input(&["never"])).await;
    assert_eq!(batch["expires_at"], START + 86_400);
    tokio::time::advance(Duration::from_millis(86_000)).await;
    assert_eq!(bench.now(&batch).await["status"], "in_progress");
    tokio::time::advance(Duration::from_millis(400)).await;
    assert_eq!(bench.now(&batch).await["status"], "expired");
}

#[tokio::test(start_paused = true)]
async fn lists_page_from_the_newest() {
    let bench = Bench::new();
    let mut ids = Vec::new();
    for _ in 0..25 {
        ids.push(bench.create(&input(&[""])).await["id"].clone());
    }
    ids.reverse();
    let page = bench.get("/v1/batches").await.json();
    let of = |page: &Value| -> Vec<Value> {
        let data = page["data"].as_array().unwrap();
        data.iter().map(|batch| batch["id"].clone()).collect()
    };
    assert_eq!(page["object"], "list");
    assert_eq!(of(&page), ids[..20]);
    assert_eq!((&page["first_id"], &page["last_id"]), (&ids[0], &ids[19]));
    assert_eq!(page["has_more"], true);
    let after = format!("/v1/batches?limit=5&after={}", ids[19].as_str().unwrap());
    let page = bench.get(&after).await.json();
    assert_eq!(of(&page), ids[20..]);
    assert_eq!(page["has_more"], false);
    for limit in ["0", "101"] {
        assert_eq!(
            bench
                .get(&format!("/v1/batches?limit={limit}"))
                .await
                .error()
                .0,
            400
        );
    }
    let other = bench
        .call_as("sk-other", "GET", "/v1/batches", "")
        .await
        .json();
    assert_eq!(other["data"], json!([]));
    assert_eq!(other["first_id"], Value::Null);
    let path = format!("/v1/batches/{}", ids[0].as_str().unwrap());
    assert_eq!(
        bench.call_as("sk-other", "GET", &path, "").await.status,
        404
    );
}

#[tokio::test(start_paused = true)]
async fn enqueued_tokens_are_held_until_terminal() {
    let bench = Bench::with(|settings| settings.limits.enqueued_tokens = 15);
    let first = bench.create(&input(&[""])).await;
    let second = bench.create(&input(&[""])).await;
    let second = bench.later(&second, 1).await;
    assert_eq!(second["status"], "failed");
    assert_eq!(second["errors"]["data"][0]["code"], "token_limit_exceeded");
    assert_eq!(second["errors"]["data"][0]["line"], Value::Null);
    assert_eq!(bench.later(&first, 9).await["status"], "completed");
    let third = bench.create(&input(&[""])).await;
    assert_eq!(bench.later(&third, 10).await["status"], "completed");
}

#[tokio::test(start_paused = true)]
async fn creates_are_limited_an_hour() {
    let bench = Bench::with(|settings| settings.limits.batch_creates_per_hour = 2);
    let file = bench.upload(&input(&[""])).await;
    let wish = json!({
        "input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h",
    });
    for status in [200, 200, 429] {
        let reply = bench.post("/v1/batches", wish.clone()).await;
        assert_eq!(reply.status.as_u16(), status);
        if status == 429 {
            assert_eq!(reply.header("retry-after"), "3600");
            assert_eq!(reply.error().1, "rate_limit_exceeded");
        }
    }
    tokio::time::advance(Duration::from_secs(3600)).await;
    assert_eq!(bench.post("/v1/batches", wish).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn output_comes_shuffled_and_the_same_every_time() {
    let steers = vec![""; 200];
    let bench = Bench::with(|settings| settings.latency.turnaround_sigma = 1.0);
    let batch = bench.create(&input(&steers)).await;
    let batch = bench.later(&batch, 24 * 60).await;
    let order = |lines: &[Value]| -> Vec<String> {
        lines
            .iter()
            .map(|line| line["custom_id"].to_string())
            .collect()
    };
    let lines = bench.content(&batch, "output_file_id").await;
    assert_eq!(lines, bench.content(&batch, "output_file_id").await);
    let mut sorted = order(&lines);
    sorted.sort_by_key(|id| id[2..id.len() - 1].parse::<u32>().unwrap());
    assert_eq!(sorted.len(), 200);
    assert_ne!(order(&lines), sorted);
    let id = batch["output_file_id"].as_str().unwrap();
    let file = bench.get(&format!("/v1/files/{id}")).await.json();
    let content = bench.get(&format!("/v1/files/{id}/content")).await.text;
    assert_eq!(file["bytes"], content.len());
    assert_eq!(file["purpose"], "batch_output");
}

#[tokio::test(start_paused = true)]
async fn a_flaky_line_works_in_the_third_batch() {
    let bench = Bench::new();
    for good in [0, 0, 1] {
        let batch = bench.create(&input(&["flaky=2"])).await;
        let batch = bench.later(&batch, 10).await;
        assert_eq!(batch["request_counts"]["completed"], good);
    }
    assert_eq!(bench.sim.log().resubmitted(), ["r0"]);
}

#[tokio::test(start_paused = true)]
async fn nasty_bodies_are_answered() {
    let bench = Bench::new();
    let line = r#"{"custom_id":"\u0041-1","method":"POST","url":"/v1/chat/completions","body":{"x":1e400,"model":"gpt-4o-mini","messages":[{"role":"user","content":"\ud800 \u0000"}]}}"#;
    let batch = bench.create(line).await;
    let batch = bench.later(&batch, 10).await;
    let lines = bench.content(&batch, "output_file_id").await;
    assert_eq!(lines[0]["custom_id"], "A-1");
}

#[tokio::test(start_paused = true)]
async fn a_batch_of_fifty_thousand_lines() {
    let bench = Bench::with(|settings| settings.latency.turnaround_sigma = 1.0);
    let line = |index: usize| {
        let body = r#"{"model":"gpt-4o-mini","messages":[{"role":"user","content":"hello"}]}"#;
        format!(
            "{{\"custom_id\":\"{index}\",\"method\":\"POST\",\"url\":\"/v1/chat/completions\",\"body\":{body}}}\n"
        )
    };
    let mut text: String = (0..50_000).map(line).collect();
    let batch = bench.create(&text).await;
    let batch = bench.later(&batch, 24 * 60).await;
    assert_eq!(batch["request_counts"]["completed"], 50_000);
    text.push_str(&line(50_000));
    let batch = bench.create(&text).await;
    assert_eq!(bench.later(&batch, 1).await["status"], "failed");
}
