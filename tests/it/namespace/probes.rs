//! Another tenant's ids, tags, cursors, keys and targets on every route that takes one:
//! answered as if they did not exist, to the byte.

use std::{collections::BTreeSet, fs, path::Path};

use http::{HeaderMap, Method, StatusCode};
use offpeak::model::id::RequestId;
use serde_json::{Value, json};

use super::{Served, serve};

const OTHER: &str = "sk-namespace-other";
const TAG: &str = "a-secret-project";

/// Every route that takes an id, by its spelling in the router; `{id}` is put in.
const BY_ID: &[(&str, &str)] = &[
    ("GET", "/offpeak/v1/requests/{id}"),
    ("POST", "/offpeak/v1/requests/{id}/cancel"),
    ("POST", "/offpeak/v1/requests/{id}/redeliver"),
    ("GET", "/offpeak/admin/requests/{id}"),
    ("POST", "/offpeak/admin/requests/{id}/cancel"),
    ("POST", "/offpeak/admin/requests/{id}/redeliver"),
    ("DELETE", "/offpeak/admin/keys/{id}"),
    ("GET", "/v1/chat/completions/{id}"),
    ("POST", "/v1/chat/completions/{id}"),
    ("POST", "/v1/chat/completions/{id}/cancel"),
    ("DELETE", "/v1/chat/completions/{id}"),
    ("GET", "/v1/chat/completions/{id}/messages"),
    ("GET", "/v1/responses/{id}"),
    ("POST", "/v1/responses/{id}/cancel"),
    ("DELETE", "/v1/responses/{id}"),
    ("GET", "/v1/responses/{id}/input_items"),
    ("GET", "/v1/embeddings/{id}"),
    ("GET", "/v1/completions/{id}"),
    ("GET", "/v1/moderations/{id}"),
    ("GET", "/within/6h/v1/chat/completions/{id}"),
    ("GET", "/v1/chat/completions?after={id}"),
    ("GET", "/v1/files/{id}"),
    ("GET", "/v1/batches/{id}"),
];

/// What a probe is told: status, headers that do not tell the time, and body, with the
/// id that was asked for taken out.
async fn told(
    served: &Served,
    method: Method,
    path: &str,
    id: &str,
    body: Option<Value>,
) -> (StatusCode, HeaderMap, String) {
    let url = format!("{}{}", served.base, path.replace("{id}", id));
    let mut call = served.http.request(method, url).bearer_auth(OTHER);
    if let Some(body) = body {
        let text = body.to_string().replace("{id}", id);
        call = call.header("content-type", "application/json").body(text);
    }
    let response = call.send().await.unwrap();
    let (status, mut headers) = (response.status(), response.headers().clone());
    for name in ["date", "x-request-id", "openai-processing-ms"] {
        headers.remove(name);
    }
    let body = response.text().await.unwrap().replace(id, "{id}");
    (status, headers, body)
}

fn made_up() -> String {
    let now = offpeak::model::time::Timestamp::from_secs(1_800_000_000);
    RequestId::new(now, 0x5eed << 64).to_string()
}

/// A finished request of the first tenant, and an open one.
async fn two_requests(served: &Served) -> [String; 2] {
    let done = served
        .defer("done", &[("OpenAI-Beta", "live=v1"), ("Offpeak-Tag", TAG)])
        .await;
    served.results(String::new(), 1).await;
    let open = served
        .defer(
            "open",
            &[("Offpeak-Tag", TAG), ("Idempotency-Key", "theirs")],
        )
        .await;
    [done, open]
}

async fn two_tenants() -> (Served, [String; 2]) {
    // What a batch can do stays open; the other goes live.
    let served = serve(&[("packing.linger", "1h")]).await;
    let theirs = two_requests(&served).await;
    let mine = json!({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "mine"}]});
    let call = served
        .http
        .post(format!("{}/v1/chat/completions", served.base))
        .bearer_auth(OTHER)
        .header("Offpeak-Deadline", "6h")
        .header("Prefer", "respond-async")
        .header("Idempotency-Key", "theirs")
        .json(&mine);
    // The same key as the other tenant's, with another body: no business of each other.
    assert_eq!(call.send().await.unwrap().status(), 202);
    (served, theirs)
}

#[tokio::test]
async fn ids_of_others_are_like_ids_that_do_not_exist() {
    let (served, theirs) = two_tenants().await;
    for (method, path) in BY_ID {
        let method: Method = method.parse().unwrap();
        let fake = told(&served, method.clone(), path, &made_up(), None).await;
        for id in &theirs {
            let real = told(&served, method.clone(), path, id, None).await;
            assert_eq!(real, fake, "{method} {path}");
        }
        assert!(
            !fake.0.is_success() || path.contains("after="),
            "{method} {path}"
        );
    }
    // Nothing of it was touched.
    for id in &theirs {
        let path = format!("/offpeak/v1/requests/{id}");
        assert_ne!(served.object(&path).await["status"], "cancelled");
    }
}

#[tokio::test]
async fn ids_of_others_in_bodies_are_like_ids_that_do_not_exist() {
    let (served, theirs) = two_tenants().await;
    let body = json!({"model": "gpt-4o-mini", "input": "go on", "previous_response_id": "{id}"});
    let path = "/within/6h/v1/responses";
    let fake = told(&served, Method::POST, path, &made_up(), Some(body.clone())).await;
    assert_eq!(fake.0, 400);
    for id in &theirs {
        let real = told(&served, Method::POST, path, id, Some(body.clone())).await;
        assert_eq!(real, fake);
    }
}

#[tokio::test]
async fn tags_targets_and_cursors_of_others_tell_nothing() {
    let (served, _) = two_tenants().await;
    let get = async |path: &str, word: &str| told(&served, Method::GET, path, word, None).await;
    let by_tag = "/offpeak/v1/requests?tag={id}";
    assert_eq!(get(by_tag, TAG).await, get(by_tag, "no-such-tag").await);
    let (_, _, savings) = get("/offpeak/v1/savings", "{id}").await;
    assert!(!savings.contains(TAG), "{savings}");

    // The first tenant's own cursors are good for nobody else.
    let feed = served.get("/offpeak/v1/results").await;
    let cursor = feed.headers()["offpeak-cursor"]
        .to_str()
        .unwrap()
        .to_owned();
    let by_cursor = "/offpeak/v1/results?after={id}";
    let (status, ..) = get(by_cursor, &cursor).await;
    assert_eq!(status, 400);
    assert_eq!(
        get(by_cursor, &cursor).await,
        get(by_cursor, "Zm9vYmFy").await
    );
    let mine = served.ask(Method::GET, "/offpeak/v1/results", OTHER).await;
    let mine = mine.headers()["offpeak-cursor"]
        .to_str()
        .unwrap()
        .to_owned();
    assert_eq!(get(by_cursor, &mine).await.0, 200);
    // Nothing has ended for either: the place is counted over all, and not told.
    assert_ne!(mine, cursor);

    for path in [
        "/offpeak/v1/ledger",
        "/offpeak/v1/ledger?format=csv",
        "/offpeak/v1/webhooks",
        "/offpeak/v1/webhooks/endpoints",
        "/offpeak/v1/credential",
        "/offpeak/v1/shadow",
        "/offpeak/v1/turnaround",
    ] {
        let (status, _, body) = get(path, "{id}").await;
        assert_eq!(status, 200, "{path}");
        assert!(
            !body.contains(TAG) && !body.contains("op_"),
            "{path}: {body}"
        );
    }
}

/// The tables here are made by hand: what takes a name in its path is in one.
#[test]
fn no_route_that_takes_a_name_is_left_out() {
    let probed: BTreeSet<&str> = BY_ID.iter().map(|(_, path)| *path).collect();
    let mut files = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src/edge")];
    let mut found = 0;
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(
                fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let own = |it: &&str| {
            ["v1", "admin"]
                .iter()
                .any(|of| it.starts_with(&format!("/offpeak/{of}/")))
        };
        for literal in text.split('"').filter(own) {
            if literal.contains('{') && !literal.contains("{*") {
                found += 1;
                assert!(probed.contains(literal), "{literal} is not probed");
            }
        }
    }
    assert!(found >= 3, "the search finds nothing");
}
