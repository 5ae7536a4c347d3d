use serde_json::Value;

use super::*;
use crate::simulator::{Fault, Kind, Lane, Operation};

async fn arm(bench: &Bench, fault: Value) {
    let reply = bench.post("/sim/faults", fault).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
}

#[tokio::test(start_paused = true)]
async fn statuses_before_and_after_the_effect() {
    let bench = Bench::new();
    let ask = || bench.post("/v1/chat/completions", question("x", ""));
    arm(
        &bench,
        json!([
            {"on": "chat", "kind": "status", "status": 503},
            {"on": "chat", "kind": "status", "status": 429, "retry_after_seconds": 7},
            {"on": "chat", "kind": "status_after", "status": 500},
            {"on": "chat", "kind": "reset"},
            {"on": "chat", "kind": "reply_lost"},
        ]),
    )
    .await;
    assert_eq!(ask().await.status, 503);
    assert_eq!(ask().await.header("retry-after"), "7");
    assert_eq!(bench.sim.bill().calls(Lane::Standard), 0);
    assert_eq!(ask().await.status, 500);
    assert_eq!(bench.sim.bill().calls(Lane::Standard), 1);
    assert_eq!(ask().await.text, "cut");
    assert_eq!(bench.sim.bill().calls(Lane::Standard), 1);
    assert_eq!(ask().await.text, "cut");
    assert_eq!(bench.sim.bill().calls(Lane::Standard), 2);
    assert_eq!(ask().await.status, 200);
    assert_eq!(bench.sim.log().operations[&Operation::Chat], 6);
    let wrong = bench
        .post("/sim/faults", json!({"on": "chat", "kind": "earthquake"}))
        .await;
    assert_eq!(wrong.status, 400);
}

#[tokio::test(start_paused = true)]
async fn a_lost_create_made_its_batch_and_a_lagging_list_shows_it_later() {
    let bench = Bench::new();
    let file = bench.upload(&input(&[""])).await;
    let wish = json!({
        "input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h",
    });
    bench
        .sim
        .inject(Fault::once(Operation::CreateBatch, Kind::ReplyLost));
    let by = Duration::from_secs(60);
    bench
        .sim
        .inject(Fault::once(Operation::ListBatches, Kind::Lag { by }));
    assert_eq!(bench.post("/v1/batches", wish).await.text, "cut");
    let listed = || async {
        bench.get("/v1/batches").await.json()["data"]
            .as_array()
            .unwrap()
            .len()
    };
    assert_eq!(listed().await, 0);
    assert_eq!(listed().await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_vanished_batch_comes_back_and_an_unlisted_one_can_be_had() {
    let bench = Bench::new();
    let lasting = Duration::from_secs(60);
    bench.sim.inject(Fault::once(
        Operation::CreateBatch,
        Kind::Vanish { lasting },
    ));
    bench.sim.inject(Fault::once(
        Operation::CreateBatch,
        Kind::Unlisted { lasting },
    ));
    let vanished = bench.create(&input(&[""])).await;
    let unlisted = bench.create(&input(&[""])).await;
    let path = format!("/v1/batches/{}", vanished["id"].as_str().unwrap());
    assert_eq!(bench.get(&path).await.status, 404);
    assert_eq!(bench.now(&unlisted).await["status"], "validating");
    assert_eq!(bench.get("/v1/batches").await.json()["data"], json!([]));
    tokio::time::advance(lasting).await;
    assert_eq!(bench.get(&path).await.status, 200);
    let list = bench.get("/v1/batches").await.json();
    assert_eq!(list["data"].as_array().unwrap().len(), 2);
}

/// What a batch of four lines, one of them failing, ends as under each fault.
#[tokio::test(start_paused = true)]
async fn faults_of_a_batch() {
    for (fault, status, counts, answered, errors) in [
        (
            json!({"kind": "missing_lines", "lines": 2}),
            "completed",
            [4, 3, 1],
            None,
            None,
        ),
        (
            json!({"kind": "zero_status", "lines": 4}),
            "completed",
            [4, 3, 1],
            Some(4),
            None,
        ),
        (
            json!({"kind": "wrong_counts"}),
            "completed",
            [4, 4, 0],
            Some(3),
            Some(1),
        ),
        (
            json!({"kind": "expire", "within": "10m"}),
            "expired",
            [4, 1, 1],
            Some(1),
            Some(3),
        ),
        (
            json!({"kind": "fail", "code": "token_limit_exceeded"}),
            "failed",
            [0, 0, 0],
            None,
            None,
        ),
        (
            json!({"kind": "slow", "by": "5m"}),
            "completed",
            [4, 3, 1],
            Some(3),
            Some(1),
        ),
        (
            json!({"kind": "slow", "by": "2h"}),
            "in_progress",
            [4, 0, 0],
            None,
            None,
        ),
        (
            json!({"kind": "slow_finalizing", "by": "2h"}),
            "finalizing",
            [4, 3, 1],
            None,
            None,
        ),
    ] {
        let bench = Bench::new();
        let mut armed = fault.clone();
        armed["on"] = json!("create_batch");
        arm(&bench, armed).await;
        let batch = bench.create(&input(&["", "status=500", "", ""])).await;
        let batch = bench.later(&batch, 15).await;
        assert_eq!(batch["status"], status, "{fault}");
        let [total, completed, failed] = counts;
        let counts = json!({"total": total, "completed": completed, "failed": failed});
        assert_eq!(batch["request_counts"], counts, "{fault}");
        for (which, lines) in [("output_file_id", answered), ("error_file_id", errors)] {
            if let Some(lines) = lines {
                assert_eq!(
                    bench.content(&batch, which).await.len(),
                    lines,
                    "{fault} {which}"
                );
            }
        }
        let kind = fault["kind"].as_str().unwrap();
        if kind == "missing_lines" {
            let mut found = 0;
            for which in ["output_file_id", "error_file_id"] {
                if batch[which].is_string() {
                    found += bench.content(&batch, which).await.len();
                }
            }
            assert_eq!(found, 2);
        }
        if kind == "zero_status" {
            let lines = bench.content(&batch, "output_file_id").await;
            assert!(
                lines
                    .iter()
                    .all(|line| line["response"]["status_code"] == 0)
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_empty_error_file_id_and_a_slow_cancel() {
    let bench = Bench::new();
    arm(
        &bench,
        json!({"on": "create_batch", "kind": "empty_error_file_id"}),
    )
    .await;
    arm(
        &bench,
        json!({"on": "cancel_batch", "kind": "slow_cancel", "by": "25m"}),
    )
    .await;
    let batch = bench.create(&input(&[""])).await;
    assert_eq!(bench.later(&batch, 10).await["error_file_id"], "");
    let batch = bench.create(&input(&["slow=3h"])).await;
    bench.later(&batch, 1).await;
    let path = format!("/v1/batches/{}/cancel", batch["id"].as_str().unwrap());
    bench.post(&path, json!({})).await;
    assert_eq!(bench.later(&batch, 20).await["status"], "cancelling");
    assert_eq!(bench.later(&batch, 10).await["status"], "cancelled");
}

#[tokio::test(start_paused = true)]
async fn content_can_be_bad_slow_or_cut_short() {
    let bench = Bench::new();
    let batch = bench.create(&input(&["", ""])).await;
    let batch = bench.later(&batch, 10).await;
    let path = format!(
        "/v1/files/{}/content",
        batch["output_file_id"].as_str().unwrap()
    );
    let whole = bench.get(&path).await.text;
    arm(
        &bench,
        json!([
            {"on": "file_content", "kind": "status", "status": 502},
            {"on": "file_content", "kind": "slow_body", "over": "40s"},
            {"on": "file_content", "kind": "truncated"},
        ]),
    )
    .await;
    let bad = bench.get(&path).await;
    assert_eq!(bad.status, 502);
    assert!(bad.text.starts_with("<html>"));
    let began = tokio::time::Instant::now();
    assert_eq!(bench.get(&path).await.text, whole);
    assert!(began.elapsed() >= Duration::from_secs(39));
    assert_eq!(bench.get(&path).await.text, "cut");
    assert_eq!(bench.get(&path).await.text, whole);
}

#[tokio::test(start_paused = true)]
async fn a_hanging_call_never_answers() {
    let bench = Bench::new();
    arm(&bench, json!({"on": "any", "kind": "hang"})).await;
    let day = Duration::from_secs(86_400);
    assert!(
        tokio::time::timeout(day, bench.get("/v1/models"))
            .await
            .is_err()
    );
    assert_eq!(bench.get("/v1/models").await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn reset_forgets_everything_and_gives_no_id_twice() {
    let bench = Bench::new();
    let old = bench.create(&input(&[""])).await;
    tokio::time::advance(Duration::from_secs(1)).await;
    arm(&bench, json!({"on": "any", "kind": "reset", "times": 9})).await;
    assert_eq!(bench.get("/sim/faults").await.json()[0]["times"], 9);
    assert_eq!(bench.post("/sim/reset", json!({})).await.status, 204);
    assert_eq!(bench.get("/v1/batches").await.json()["data"], json!([]));
    assert_eq!(bench.get("/sim/bill").await.json()["total_pico_usd"], 0);
    assert_eq!(bench.get("/sim/log").await.json()["batches"], json!([]));
    assert_ne!(bench.create(&input(&[""])).await["id"], old["id"]);
}
