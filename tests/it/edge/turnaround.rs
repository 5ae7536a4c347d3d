//! What was learned of turnaround, as its owner and an operator see it.

use serde_json::{Value, json};
use tokio::time::timeout;

use super::{CHAT, SIX_HOURS, chat};
use crate::app::{HANG, TestApp};

async fn told(app: &TestApp, path: &str, key: &str) -> Vec<Value> {
    let mut caller = app.caller().await;
    let key = format!("authorization: Bearer {key}");
    let answer = caller.call(&format!("GET {path}"), &[&key], "").await;
    let told = answer.json();
    assert_eq!(told["object"], "offpeak.turnaround", "{told}");
    told["data"].as_array().unwrap().clone()
}

/// The table of the batch lane, once it knows so many batches: their answers are out before.
async fn seen(app: &TestApp, batches: usize) -> Value {
    loop {
        let known = told(app, "/offpeak/v1/turnaround", "sk-test").await;
        // Lines, and whole batches.
        assert!(known.len() <= 2, "{} tables", known.len());
        let lines = known.into_iter().find(|table| table["what"] == "batch");
        let last = lines.unwrap_or_default();
        if last["seen"]
            .as_f64()
            .is_some_and(|seen| seen > batches as f64 - 0.1)
        {
            return last;
        }
    }
}

#[tokio::test]
async fn what_was_seen_moves_the_median_and_only_its_owner_sees_it() {
    let app = TestApp::start().await;
    assert_eq!(
        told(&app, "/offpeak/v1/turnaround", "sk-test").await,
        [0; 0]
    );
    let mut caller = app.caller().await;
    let mut medians = Vec::new();
    for question in ["one", "two", "three"] {
        let answer = caller.call(CHAT, &[SIX_HOURS], chat(question, "")).await;
        assert_eq!(answer.head.value("offpeak-lane"), "batch");
        let seen = seen(&app, medians.len() + 1);
        let known = timeout(HANG, seen).await.expect("a hang");
        let what = ["model", "what"].map(|field| known[field].as_str().unwrap());
        assert_eq!(what, ["gpt-4o-mini", "batch"]);
        let (prior, learned) = (&known["prior"], &known["learned"]);
        let median = learned["p50"].as_f64().unwrap();
        assert!(median < prior["p50"].as_f64().unwrap(), "{known}");
        assert_eq!(
            (&prior["p99"], &prior["never"]),
            (&json!(null), &json!(0.02))
        );
        assert!(learned["never"].as_f64().unwrap() < 0.02);

        let quantiles = known["quantiles"].as_array().unwrap();
        assert!(quantiles.iter().any(|pair| pair == &json!([0.5, median])));
        let seconds = quantiles.iter().map(|pair| pair[1].as_f64().unwrap());
        assert!(quantiles.len() > 90 && seconds.is_sorted());
        medians.push(median);
        // The model check has named it.
        let name = known["organization"].as_str().unwrap();
        assert!(name.starts_with("org-"), "{known}");
        assert_eq!(known["credential"], json!(null));
    }
    assert!(
        medians.is_sorted_by(|before, after| before > after),
        "{medians:?}"
    );

    assert_eq!(
        told(&app, "/offpeak/v1/turnaround", "sk-other").await,
        [0; 0]
    );
    let all = told(&app, "/offpeak/admin/turnaround", &app.admin_token()).await;
    assert_eq!(all.len(), 2, "lines, and whole batches");
    let refused = caller.call("GET /offpeak/admin/turnaround", &[], "").await;
    assert_eq!(refused.status(), 401);
    app.finish().await;
}
