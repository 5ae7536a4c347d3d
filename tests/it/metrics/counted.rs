//! What was done is what is told.

use super::{
    scrape::Scrape,
    work::{MADE_UP, worked},
};

#[tokio::test]
async fn what_was_done_is_counted() {
    let worked = worked().await;
    let scrape = &worked.scrape;
    let chat = r#"endpoint="/v1/chat/completions""#;
    for (series, value) in [
        (
            format!(r#"offpeak_requests_admitted_total{{lane="batch",guarantee="firm",{chat}}}"#),
            3.0,
        ),
        (
            format!(
                r#"offpeak_requests_admitted_total{{lane="standard",guarantee="firm",{chat}}}"#
            ),
            1.0,
        ),
        ("offpeak_requests_joined_total".into(), 1.0),
        (
            r#"offpeak_requests_refused_total{code="invalid_deadline"}"#.into(),
            1.0,
        ),
        (
            r#"offpeak_requests_ended_total{state="succeeded",lane="batch",late="false",on_late="rescue"}"#.into(),
            3.0,
        ),
        (
            r#"offpeak_requests_ended_total{state="succeeded",lane="standard",late="false",on_late="rescue"}"#
                .into(),
            1.0,
        ),
        (
            r#"offpeak_request_duration_seconds_count{lane="batch"}"#.into(),
            3.0,
        ),
        // Six hours, less the moments that it took.
        (
            r#"offpeak_request_slack_seconds_bucket{lane="batch",le="10800"}"#.into(),
            0.0,
        ),
        (
            r#"offpeak_request_slack_seconds_bucket{lane="batch",le="21600"}"#.into(),
            3.0,
        ),
        ("offpeak_batches_created_total".into(), 1.0),
        (
            r#"offpeak_batches_ended_total{status="completed"}"#.into(),
            1.0,
        ),
        ("offpeak_batch_lines_sum".into(), 3.0),
        ("offpeak_batch_turnaround_seconds_count".into(), 1.0),
        (
            r#"offpeak_webhooks_ended_total{outcome="delivered"}"#.into(),
            1.0,
        ),
        (
            r#"offpeak_webhooks_ended_total{outcome="dead"}"#.into(),
            1.0,
        ),
        (
            r#"offpeak_webhook_attempt_duration_seconds_count{outcome="gone"}"#.into(),
            1.0,
        ),
        (
            r#"offpeak_passthrough_duration_seconds_count{status="2xx"}"#.into(),
            1.0,
        ),
        (
            r#"offpeak_passthrough_time_to_first_byte_seconds_count{status="4xx"}"#.into(),
            1.0,
        ),
        ("offpeak_passthrough_in_flight".into(), 0.0),
        (
            r#"offpeak_live_calls_in_flight{model="gpt-4o-mini"}"#.into(),
            0.0,
        ),
        (r#"offpeak_open_requests{place="queue"}"#.into(), 0.0),
        ("offpeak_answers_unpriced_total".into(), 0.0),
    ] {
        assert_eq!(scrape.value(&series), value, "{series} in\n{}", scrape.text);
    }
    for (operation, count) in [("upload", 1.0), ("create_batch", 1.0), ("live", 1.0)] {
        let series = format!(
            r#"offpeak_provider_call_duration_seconds_count{{operation="{operation}",outcome="2xx"}}"#
        );
        assert_eq!(scrape.value(&series), count, "{series}");
    }
    for positive in [
        "offpeak_store_commit_duration_seconds_count",
        "offpeak_passthrough_sent_bytes_total",
        "offpeak_passthrough_received_bytes_total",
        "process_resident_memory_bytes",
        "process_cpu_seconds_total",
        "process_open_fds",
    ] {
        assert!(scrape.value(positive) > 0.0, "{positive}");
    }
    money_adds_up(scrape);
    assert!(!scrape.text.contains(MADE_UP));
    worked.app.finish().await;
}

/// Batch lines cost half of the standard price, and every token is counted twice: by lane
/// and by model.
fn money_adds_up(scrape: &Scrape) {
    let usd = |what: &str, lane: &str| {
        scrape.value(&format!(r#"offpeak_{what}_usd_total{{lane="{lane}"}}"#))
    };
    let (paid, standard) = (usd("paid", "batch"), usd("standard", "batch"));
    assert!(
        paid > 0.0 && (standard - 2.0 * paid).abs() < 1e-9,
        "{paid} of {standard}"
    );
    assert_eq!(usd("paid", "standard"), usd("standard", "standard"));
    for kind in ["input", "output"] {
        let by_lane: f64 = ["batch", "standard"]
            .map(|lane| {
                let series = format!(r#"offpeak_tokens_total{{lane="{lane}",type="{kind}"}}"#);
                scrape.value(&series)
            })
            .iter()
            .sum();
        let labels = format!(
            r#"gen_ai_operation_name="chat",gen_ai_provider_name="openai",gen_ai_request_model="gpt-4o-mini",gen_ai_token_type="{kind}""#
        );
        let by_model = scrape.value(&format!("gen_ai_client_token_usage_sum{{{labels}}}"));
        assert!(
            by_lane > 0.0 && by_lane == by_model,
            "{kind}: {by_lane}, {by_model}"
        );
    }
}

#[tokio::test]
async fn who_asks_for_openmetrics_gets_it() {
    let app = crate::app::TestApp::start().await;
    let mut caller = app.caller().await;
    let accept =
        "accept: application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";
    let answer = caller.call("GET /metrics", &[accept], "").await;
    let kind = answer.head.get("content-type").unwrap();
    assert_eq!(
        kind,
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    );
    let text = String::from_utf8(answer.body).unwrap();
    assert!(text.ends_with("# EOF\n") && text.matches("# EOF").count() == 1);
    assert!(
        text.contains("# TYPE offpeak_batches_created counter\n"),
        "{text}"
    );
    app.finish().await;
}
