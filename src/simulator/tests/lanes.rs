//! The lanes of WIRE.md §2: tiers, and background responses with a window.

use serde_json::Value;

use super::*;
use crate::simulator::{Fault, Kind, Lane, Operation};

#[tokio::test(start_paused = true)]
async fn a_background_response_is_queued_runs_and_is_billed_when_done() {
    let bench = Bench::new();
    let ask = |window: Value| {
        json!({
            "model": "gpt-6-luna", "input": "later", "background": true,
            "background_options": {"completion_window": window},
        })
    };
    let queued = bench.post("/v1/responses", ask(json!("2h"))).await.json();
    assert_eq!(queued["status"], "queued");
    assert_eq!(queued["output"], json!([]));
    let path = format!("/v1/responses/{}", queued["id"].as_str().unwrap());
    tokio::time::advance(Duration::from_secs(3 * 60)).await;
    assert_eq!(bench.get(&path).await.json()["status"], "in_progress");
    assert_eq!(bench.sim.bill().total_pico_usd, 0);
    tokio::time::advance(Duration::from_secs(5 * 60)).await;
    let done = bench.get(&path).await.json();
    assert_eq!(done["status"], "completed");
    assert_eq!(bench.sim.bill().calls(Lane::Background2h), 1);
    let cancel = format!("{path}/cancel");
    assert_eq!(
        bench.post(&cancel, json!({})).await.json()["status"],
        "completed"
    );

    let other = bench.post("/v1/responses", ask(Value::Null)).await.json();
    let cancel = format!("/v1/responses/{}/cancel", other["id"].as_str().unwrap());
    for _ in 0..2 {
        assert_eq!(
            bench.post(&cancel, json!({})).await.json()["status"],
            "cancelled"
        );
    }
    tokio::time::advance(Duration::from_secs(3600)).await;
    assert_eq!(bench.sim.bill().calls(Lane::Background), 0);
    assert_eq!(
        bench
            .post("/v1/responses", ask(json!("3h")))
            .await
            .error()
            .0,
        400
    );
    let mut unstored = ask(Value::Null);
    unstored["store"] = json!(false);
    assert_eq!(bench.post("/v1/responses", unstored).await.error().0, 400);
}

#[tokio::test(start_paused = true)]
async fn tiers_are_billed_as_served() {
    let bench = Bench::with(|settings| settings.limits.flex_shortage = 0.0);
    let ask = |model: &str, tier: &str| {
        let mut ask = question("x", "");
        ask["model"] = json!(model);
        ask["service_tier"] = json!(tier);
        ask
    };
    let flex = bench
        .post("/v1/chat/completions", ask("gpt-6-luna", "flex"))
        .await;
    assert_eq!(flex.json()["service_tier"], "flex");
    let none = bench
        .post("/v1/chat/completions", ask("gpt-4o-mini", "flex"))
        .await;
    assert_eq!(none.error().0, 400);
    assert_eq!(bench.sim.bill().calls(Lane::Flex), 1);

    let short = Bench::with(|settings| settings.limits.flex_shortage = 1.0);
    let refused = short
        .post("/v1/chat/completions", ask("gpt-6-luna", "flex"))
        .await;
    assert_eq!(refused.error().0, 429);
    assert_eq!(short.sim.bill().total_pico_usd, 0);
}

fn chat(model: &str, tier: &str) -> Value {
    let mut chat = question("x", "");
    chat["model"] = json!(model);
    chat["service_tier"] = json!(tier);
    chat
}

fn queued(window: Value, steer: &str) -> Value {
    json!({
        "model": "gpt-6-luna", "input": "later", "background": true, "store": true,
        "background_options": {"completion_window": window}, "metadata": {"sim": steer},
    })
}

impl Bench {
    async fn queue(&self, body: Value) -> String {
        let reply = self.post("/v1/responses", body).await;
        assert_eq!(reply.json()["status"], "queued", "{}", reply.text);
        format!("/v1/responses/{}", reply.json()["id"].as_str().unwrap())
    }

    /// A stored response after `minutes` more.
    async fn response_in(&self, minutes: u64, path: &str) -> Value {
        tokio::time::advance(Duration::from_secs(minutes * 60)).await;
        self.get(path).await.json()
    }
}

#[tokio::test(start_paused = true)]
async fn every_answer_tells_its_tier() {
    let bench = Bench::new();
    for (path, tier, told) in [
        ("/v1/chat/completions", None, "default"),
        ("/v1/chat/completions", Some("auto"), "default"),
        ("/v1/chat/completions", Some("flex"), "flex"),
        ("/v1/responses", None, "default"),
        ("/v1/responses", Some("flex"), "flex"),
    ] {
        for stream in [false, true] {
            let mut ask = json!({
                "model": "o3", "stream": stream, "input": "x",
                "messages": [{"role": "user", "content": "x"}],
            });
            if let Some(tier) = tier {
                ask["service_tier"] = json!(tier);
            }
            let reply = bench.post(path, ask).await;
            let word = format!(r#""service_tier":"{told}""#);
            assert!(reply.text.contains(&word), "{path} {tier:?} {stream}");
        }
    }
    let bill = bench.sim.bill();
    assert_eq!((bill.calls(Lane::Flex), bill.calls(Lane::Standard)), (4, 6));
    let each = |lane| {
        let row = bill.rows.iter().find(|row| row.lane == lane).unwrap();
        row.pico_usd as f64 / row.calls as f64
    };
    assert!(each(Lane::Flex) < each(Lane::Standard) * 0.6);
}

#[tokio::test(start_paused = true)]
async fn flex_runs_short_as_often_as_it_is_told_to() {
    let bench = Bench::with(|settings| settings.limits.flex_shortage = 0.5);
    let mut short = 0;
    for _ in 0..100 {
        let reply = bench.post("/v1/chat/completions", chat("o3", "flex")).await;
        short += u32::from(reply.status == 429);
    }
    assert!((30..70).contains(&short), "{short}");
    assert_eq!(bench.sim.bill().calls(Lane::Flex), u64::from(100 - short));
}

#[tokio::test(start_paused = true)]
async fn the_next_flex_calls_are_refused_and_the_one_after_is_downgraded() {
    let bench = Bench::new();
    let fault = json!([
        {"on": "any", "kind": "flex_shortage", "times": 2},
        {"on": "chat", "kind": "flex_as_default"},
    ]);
    assert_eq!(bench.post("/sim/faults", fault).await.status, 200);
    let ask = |tier: &'static str| bench.post("/v1/chat/completions", chat("o3", tier));
    assert_eq!(ask("default").await.status, 200);
    for _ in 0..2 {
        let refused = ask("flex").await;
        assert_eq!(refused.error(), (429, json!("resource_unavailable")));
    }
    assert_eq!(bench.sim.bill().calls(Lane::Flex), 0);
    assert_eq!(ask("flex").await.json()["service_tier"], "default");
    assert_eq!(ask("flex").await.json()["service_tier"], "flex");
    let bill = bench.sim.bill();
    assert_eq!((bill.calls(Lane::Flex), bill.calls(Lane::Standard)), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn flex_has_its_own_latency() {
    let bench = Bench::with(|settings| {
        settings.latency.flex_sigma = 0.0;
        settings.latency.flex_median = Duration::from_secs(90);
    });
    let began = tokio::time::Instant::now();
    bench.post("/v1/chat/completions", chat("o3", "flex")).await;
    assert_eq!(began.elapsed().as_secs(), 90);
}

#[tokio::test(start_paused = true)]
async fn windows_have_their_own_turnaround_and_price() {
    let bench = Bench::new();
    let eight = bench.queue(queued(json!("8h"), "")).await;
    let two = bench.queue(queued(json!("2h"), "")).await;
    assert_eq!(bench.response_in(6, &two).await["status"], "completed");
    assert_eq!(bench.get(&eight).await.json()["status"], "in_progress");
    let done = bench.response_in(10, &eight).await;
    assert_eq!(done["status"], "completed");
    assert_eq!(done["service_tier"], "default");
    let ordinary = json!({"model": "gpt-6-luna", "input": "later", "metadata": {"sim": ""}});
    bench.post("/v1/responses", ordinary).await;
    let bill = bench.sim.bill();
    let paid = |lane| {
        bill.rows
            .iter()
            .find(|row| row.lane == lane)
            .unwrap()
            .pico_usd
    };
    let standard = paid(Lane::Standard);
    assert_eq!(paid(Lane::Background8h), standard * 6 / 10);
    assert_eq!(paid(Lane::Background2h), standard * 7 / 10);
}

#[tokio::test(start_paused = true)]
async fn a_window_is_met_unless_a_fault_says_otherwise() {
    let bench = Bench::with(|settings| {
        settings.latency.background_2h_median = Duration::from_secs(5 * 3600);
    });
    let by = Duration::from_secs(30 * 60);
    let overrun = Fault::once(Operation::Responses, Kind::Overrun { by });
    bench.sim.inject(overrun);
    // Not for it: it has no window.
    bench.queue(queued(Value::Null, "")).await;
    let late = bench.queue(queued(json!("2h"), "")).await;
    let on_time = bench.queue(queued(json!("2h"), "")).await;
    assert_eq!(
        bench.response_in(119, &on_time).await["status"],
        "in_progress"
    );
    assert_eq!(bench.response_in(1, &on_time).await["status"], "completed");
    assert_eq!(bench.response_in(29, &late).await["status"], "in_progress");
    assert_eq!(bench.response_in(1, &late).await["status"], "completed");
    assert_eq!(bench.sim.bill().calls(Lane::Background2h), 2);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_one_is_not_billed_and_a_done_one_stays_done() {
    let bench = Bench::new();
    let path = bench.queue(queued(json!("8h"), "")).await;
    assert_eq!(bench.response_in(10, &path).await["status"], "in_progress");
    let cancel = format!("{path}/cancel");
    for _ in 0..2 {
        let reply = bench.post(&cancel, json!({})).await;
        assert_eq!(reply.json()["status"], "cancelled");
    }
    assert_eq!(bench.response_in(600, &path).await["status"], "cancelled");
    assert_eq!(bench.sim.bill().total_pico_usd, 0);

    let path = bench.queue(queued(json!("2h"), "")).await;
    assert_eq!(bench.response_in(6, &path).await["status"], "completed");
    let cancel = format!("{path}/cancel");
    let reply = bench.post(&cancel, json!({})).await;
    assert_eq!(reply.json()["status"], "completed");
    assert_eq!(bench.sim.bill().calls(Lane::Background2h), 1);
    let gone = bench.post("/v1/responses/resp_0/cancel", json!({})).await;
    assert_eq!(gone.error().0, 404);
}

#[tokio::test(start_paused = true)]
async fn a_background_response_may_fail_and_be_cut_short() {
    let bench = Bench::new();
    let failing = bench.queue(queued(json!("2h"), "status=500")).await;
    let mut cut = queued(json!("2h"), "tokens=100");
    cut["max_output_tokens"] = json!(10);
    let cut = bench.queue(cut).await;
    let failed = bench.response_in(6, &failing).await;
    assert_eq!(failed["status"], "failed");
    assert_eq!(failed["error"]["code"], "server_error");
    assert_eq!(bench.get(&cut).await.json()["status"], "incomplete");
    assert_eq!(bench.sim.bill().calls(Lane::Background2h), 1);
    // What is wrong about the call itself is said at once.
    let refused = bench
        .post("/v1/responses", queued(json!("2h"), "status=400"))
        .await;
    assert_eq!(refused.error().0, 400);
    let mut flex = queued(json!("2h"), "");
    flex["service_tier"] = json!("flex");
    assert_eq!(bench.post("/v1/responses", flex).await.error().0, 400);
}
