//! Moving a tenant to another key, over HTTP.

use std::time::Duration;

use http::{Method, StatusCode};
use offpeak::simulator::{Fault, Kind, Operation};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{KEY, Served, serve};

const NEW: &str = "sk-namespace-new";

async fn move_to(served: &Served, new: &str, old: &str, query: &str) -> (StatusCode, Value) {
    let url = format!("{}/offpeak/v1/credential{query}", served.base);
    let call = served.http.post(url).bearer_auth(new);
    let call = call.header("Offpeak-Previous-Authorization", format!("Bearer {old}"));
    let response = call.send().await.unwrap();
    (response.status(), response.json().await.unwrap())
}

async fn list(served: &Served, key: &str) -> Vec<String> {
    let listed = served.ask(Method::GET, "/offpeak/v1/requests", key).await;
    let listed: Value = listed.json().await.unwrap();
    let ids = listed["data"].as_array().unwrap().iter();
    ids.map(|row| row["id"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn the_new_key_has_all_that_the_old_one_had() {
    let served = serve(&[]).await;
    let id = served.defer("before", &[]).await;
    served.results(String::new(), 1).await;
    let secret = served.object("/offpeak/v1/webhook-secret").await;

    // Its batch may just be ending, and the new key is of another project.
    let (status, moved) = move_to(&served, NEW, KEY, "?force=true").await;
    assert_eq!(status, 200, "{moved}");
    assert_eq!(
        moved,
        json!({"object": "offpeak.credential", "moved": true, "open_requests": 0})
    );
    assert_eq!(list(&served, NEW).await, [id.as_str()]);
    let path = format!("/v1/chat/completions/{id}");
    assert_eq!(served.ask(Method::GET, &path, NEW).await.status(), 200);
    let savings = served.ask(Method::GET, "/offpeak/v1/savings", NEW).await;
    let savings: Value = savings.json().await.unwrap();
    assert_eq!(savings["total"]["requests"], 1, "{savings}");
    let secret_now = served
        .ask(Method::GET, "/offpeak/v1/webhook-secret", NEW)
        .await;
    assert_eq!(secret_now.json::<Value>().await.unwrap(), secret);

    assert_eq!(list(&served, KEY).await, [""; 0]);
    assert_eq!(served.ask(Method::GET, &path, KEY).await.status(), 404);
    let (status, error) = move_to(&served, "sk-third", KEY, "").await;
    assert_eq!(status, 404, "the old key has nothing any more");
    assert_eq!(error["error"]["code"], "unknown_previous_key");
}

/// A feed that the old key waits at when it moves tells nothing of what ends afterwards.
#[tokio::test]
async fn whoever_waits_with_the_old_key_hears_nothing_more() {
    let served = serve(&[]).await;
    let by = Duration::from_secs(60 * 24 * 3600);
    let slow = Fault::once(Operation::CreateBatch, Kind::Slow { by });
    served.simulator.inject(slow);
    served.defer("before", &[]).await;
    let waits = served
        .http
        .get(format!("{}/offpeak/v1/results?wait=20", served.base))
        .bearer_auth(KEY)
        .send();
    let mut waiting = JoinSet::new();
    waiting.spawn(waits);
    // Whatever was sent before it has come.
    let told = served.object("/offpeak/v1/credential").await;
    assert_eq!(told["open_requests"], 1);
    let (status, moved) = move_to(&served, NEW, KEY, "?force=true").await;
    assert_eq!(status, 200, "{moved}");
    let id = served.defer_as(NEW, "after", &[]).await;
    let path = "/offpeak/v1/results?wait=60";
    let ended = served.ask(Method::GET, path, NEW).await;
    assert!(ended.text().await.unwrap().contains(&id));
    let heard = waiting.join_next().await.unwrap().unwrap().unwrap();
    assert_eq!(heard.status(), 200);
    assert_eq!(heard.text().await.unwrap(), "");
}

#[tokio::test]
async fn what_cannot_move_says_so() {
    let served = serve(&[]).await;
    served.defer("mine", &[]).await;
    let (status, error) = move_to(&served, KEY, KEY, "").await;
    assert_eq!(
        (status, &error["error"]["code"]),
        (StatusCode::CONFLICT, &json!("same_key"))
    );
    let (status, error) = move_to(&served, NEW, "sk-nobody", "").await;
    assert_eq!(status, 404);
    assert_eq!(error["error"]["code"], "unknown_previous_key");
    let (status, error) = move_to(&served, "sk-bad-key", KEY, "").await;
    assert_eq!(status, 401, "the provider's own word");
    assert_eq!(error["error"]["code"], "invalid_api_key");
    let (status, error) = move_to(&served, NEW, KEY, "?keep=1").await;
    assert_eq!(
        (status, &error["error"]["code"]),
        (StatusCode::BAD_REQUEST, &json!("unknown_parameter"))
    );
    let response = served
        .ask(Method::POST, "/offpeak/v1/credential", NEW)
        .await;
    assert_eq!(response.status(), 400);
    assert_eq!(
        response.json::<Value>().await.unwrap()["error"]["code"],
        "missing_header"
    );
    // Nothing has moved.
    assert_eq!(list(&served, KEY).await.len(), 1);
    assert_eq!(list(&served, NEW).await.len(), 0);
}

#[tokio::test]
async fn a_key_tells_how_it_stands() {
    let served = serve(&[]).await;
    let told = served.object("/offpeak/v1/credential").await;
    assert_eq!(
        told,
        json!({"object": "offpeak.credential", "status": "ok", "open_requests": 0, "refusals": []})
    );
}
