//! Webhooks on real sockets: hostile targets, listings, test calls, rotation, and
//! the provider's own events.

use std::sync::Arc;

use axum::extract::Request;
use bytes::Bytes;
use http_body_util::BodyExt;
use offpeak::simulator::Hook;
use parking_lot::Mutex;
use standardwebhooks::Webhook;

use super::*;

/// What a receiver was sent, and what it answers.
pub(super) struct Receiver {
    pub(super) origin: String,
    seen: mpsc::Receiver<(HeaderMap, Bytes)>,
    pub(super) status: Arc<Mutex<StatusCode>>,
    _serving: JoinSet<io::Result<()>>,
}

impl Receiver {
    pub(super) async fn start() -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let (sender, seen) = mpsc::channel(64);
        let status = Arc::new(Mutex::new(StatusCode::NO_CONTENT));
        let answers = status.clone();
        let hear = move |request: Request| async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            sender.send((head.headers, body)).await.unwrap();
            *answers.lock()
        };
        let router = Router::new().fallback(hear);
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(listener, router).await });
        Receiver {
            origin,
            seen,
            status,
            _serving: serving,
        }
    }

    pub(super) async fn next(&mut self) -> (HeaderMap, Bytes) {
        timeout(HANG, self.seen.recv()).await.unwrap().unwrap()
    }
}

impl Served {
    async fn post(&self, path: &str, key: &str, body: Value) -> Response {
        let call = self.http.post(format!("{}{path}", self.base));
        call.bearer_auth(key).json(&body).send().await.unwrap()
    }

    async fn answer(&self, path: &str, key: &str, body: Value) -> Value {
        let response = self.post(path, key, body).await;
        assert!(response.status().is_success(), "{}", response.status());
        response.json().await.unwrap()
    }

    /// Waits until as many of its deliveries stand like this.
    pub(super) async fn stand(&self, status: &str, count: usize) -> Vec<Value> {
        let stand = async {
            loop {
                let path = format!("/offpeak/v1/webhooks?status={status}&limit=100");
                let data = self.object(&path).await["data"].take();
                match data {
                    Value::Array(data) if data.len() == count => return data,
                    _ => tokio::task::yield_now().await,
                }
            }
        };
        timeout(HANG, stand).await.unwrap()
    }
}

fn verifies(secret: &str, headers: &HeaderMap, body: &[u8]) -> bool {
    Webhook::new(secret).unwrap().verify(body, headers).is_ok()
}

/// Every spelling of a target inside: 400 with a code, at admission and at a test
/// call, and nothing is kept or called.
#[tokio::test]
async fn hostile_targets_are_refused_when_they_are_named() {
    let served = serve(&[]).await;
    served.defer("a caller", &[]).await;
    let own = served.base.clone();
    let body = json!({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "x"}]});
    let long = format!("https://example.com/{}", "x".repeat(2048));
    for target in [
        "http://example.com/",
        "ftp://example.com/",
        "file:///etc/passwd",
        "gopher://example.com/",
        "//example.com/",
        "example.com/hook",
        "no-such-name",
        own.as_str(),
        &own.replace("http", "https"),
        "https://127.0.0.1/",
        "https://127.1/",
        "https://2130706433/",
        "https://0x7f000001/",
        "https://0177.0.0.1/",
        "https://127.0.0.1./",
        "https://0/",
        "https://10.0.0.1/",
        "https://172.16.0.1/",
        "https://192.168.1.1/",
        "https://100.64.0.1/",
        "https://169.254.169.254/latest/meta-data/",
        "https://192.0.2.1/",
        "https://198.18.0.1/",
        "https://224.0.0.1/",
        "https://255.255.255.255/",
        "https://[::1]/",
        "https://[::]/",
        "https://[::ffff:127.0.0.1]/",
        "https://[::127.0.0.1]/",
        "https://[64:ff9b::7f00:1]/",
        "https://[2002:7f00:1::]/",
        "https://[2001:0:7f00:1::]/",
        "https://[fc00::1]/",
        "https://[fe80::1]/",
        "https://[fe80::1%25eth0]/",
        "https://[ff02::1]/",
        "https://[fd00:ec2::254]/",
        "https://localhost/",
        "https://localhost./",
        "https://a.localhost/",
        "https://metadata.google.internal/",
        "https://good.example@127.0.0.1/",
        "https://user:pass@example.com/",
        "https://example.com\\@127.0.0.1/",
        "https://exa\tmple.com/",
        "https://example.com:99999/",
        &long,
    ] {
        let call = served
            .http
            .post(format!("{}/v1/chat/completions", served.base))
            .bearer_auth(KEY)
            .header("Offpeak-Deadline", "6h")
            .header("Offpeak-Webhook", target)
            .json(&body);
        let refused = refusal(call.send().await.unwrap()).await;
        let expected = (StatusCode::BAD_REQUEST, "invalid_header".to_owned());
        assert_eq!(refused, expected, "{target}");
        let test = json!({"target": target});
        let tested = served.post("/offpeak/v1/webhooks/test", KEY, test).await;
        let expected = (StatusCode::BAD_REQUEST, "invalid_webhook".to_owned());
        assert_eq!(refusal(tested).await, expected, "{target}");
    }
    let list = served.object("/offpeak/v1/requests").await;
    assert_eq!(list["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn deliveries_are_listed_sent_again_and_a_receiver_tried() {
    let mut receiver = Receiver::start().await;
    let target = format!("{}/hook?job=1", receiver.origin);
    let bare = format!("{}/hook", receiver.origin);
    let served = serve(&[("webhook.allow", &receiver.origin)]).await;
    let hook = [("Offpeak-Webhook", target.as_str())];
    let fine = served.defer("fine", &hook).await;
    served.stand("delivered", 1).await;

    *receiver.status.lock() = StatusCode::GONE;
    let mut ids = Vec::new();
    for number in 0..3 {
        ids.push(served.defer(&format!("gone {number}"), &hook).await);
    }
    let dead = served.stand("dead", 3).await;
    let error = dead[0]["last_error"].as_str().unwrap();
    assert!(error.contains("410"), "{error}");
    assert_eq!(dead[0]["object"], "offpeak.webhook");
    assert_eq!(dead[0]["target"], target);
    let delivered = served.stand("delivered", 1).await;
    assert_eq!(delivered[0]["request_id"], fine);
    let off = served.object("/offpeak/v1/webhooks/endpoints").await;
    assert_eq!(off["data"][0]["target"], bare);
    assert_eq!(off["data"][0]["status"], "off");

    // Pages, newest first, and of the dead.
    for status in ["", "&status=dead"] {
        let mut after = String::new();
        let mut seen = Vec::new();
        loop {
            let path = format!("/offpeak/v1/webhooks?limit=1{status}{after}");
            let page = served.object(&path).await;
            seen.extend(page["data"].as_array().unwrap().clone());
            match page["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => break,
            }
            // Nobody else's, and of no other list.
            let path = format!("/offpeak/v1/webhooks?limit=1{status}{after}");
            let foreign = served.ask(Method::GET, &path, "sk-other").await;
            let expected = (StatusCode::BAD_REQUEST, "invalid_cursor".to_owned());
            assert_eq!(refusal(foreign).await, expected);
            let path = format!("/offpeak/v1/requests?limit=1{after}");
            assert_eq!(refusal(served.get(&path).await).await, expected);
            let other = match status {
                "" => "&status=dead",
                _ => "&status=pending",
            };
            let path = format!("/offpeak/v1/webhooks?limit=1{other}{after}");
            assert_eq!(refusal(served.get(&path).await).await, expected);
        }
        let expected = if status.is_empty() { 4 } else { 3 };
        assert_eq!(seen.len(), expected, "{status}");
    }

    // Another tenant has none of it.
    for path in ["/offpeak/v1/webhooks", "/offpeak/v1/webhooks/endpoints"] {
        let list = served.ask(Method::GET, path, "sk-other").await;
        let list: Value = list.json().await.unwrap();
        assert_eq!(list["data"], json!([]), "{path}");
    }
    let named = json!({"target": target});
    // Whoever has called nobody yet makes nobody else be called.
    let none = (StatusCode::FORBIDDEN, "no_calls_yet".to_owned());
    for path in [
        "webhooks/redeliver",
        "webhooks/test",
        "webhook-secret/rotate",
    ] {
        let path = format!("/offpeak/v1/{path}");
        let refused = served.post(&path, "sk-other", named.clone()).await;
        assert_eq!(refusal(refused).await, none, "{path}");
    }
    served.defer_as("sk-other", "another", &[]).await;
    let again = served
        .answer("/offpeak/v1/webhooks/redeliver", "sk-other", named.clone())
        .await;
    assert_eq!(again["redelivered"], 0);
    served.stand("dead", 3).await;

    // A test call that is refused tells so, and one that is taken turns it on.
    while receiver.seen.try_recv().is_ok() {}
    let test = "/offpeak/v1/webhooks/test";
    let told = served.answer(test, KEY, named.clone()).await;
    assert_eq!(
        (&told["delivered"], &told["status_code"]),
        (&json!(false), &json!(410))
    );
    *receiver.status.lock() = StatusCode::ACCEPTED;
    receiver.next().await;
    let told = served.answer(test, KEY, named.clone()).await;
    assert_eq!(
        told,
        json!({"object": "offpeak.webhook_test", "delivered": true, "status_code": 202,
            "error": null})
    );
    let (headers, body) = receiver.next().await;
    let secret = served.object("/offpeak/v1/webhook-secret").await;
    assert!(verifies(
        secret["secret"].as_str().unwrap(),
        &headers,
        &body
    ));
    let event: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(event["type"], "offpeak.webhook.test");
    assert_eq!(event["id"], headers["webhook-id"].to_str().unwrap());
    let off = served.object("/offpeak/v1/webhooks/endpoints").await;
    assert_eq!(off["data"], json!([]));

    let again = served
        .post("/offpeak/v1/webhooks/redeliver", KEY, named)
        .await;
    assert_eq!(again.status(), 202);
    let again: Value = again.json().await.unwrap();
    assert_eq!(
        (&again["redelivered"], &again["has_more"]),
        (&json!(3), &json!(false))
    );
    served.stand("delivered", 4).await;
    served.stand("dead", 0).await;
}

#[tokio::test]
async fn what_cannot_be_read_is_refused() {
    let served = serve(&[]).await;
    served.defer("a caller", &[]).await;
    let bad = |code: &str| (StatusCode::BAD_REQUEST, code.to_owned());
    for path in [
        "/offpeak/v1/webhooks?status=late",
        "/offpeak/v1/webhooks?limit=0",
        "/offpeak/v1/webhooks?limit=101",
    ] {
        assert_eq!(
            refusal(served.get(path).await).await,
            bad("invalid_parameter")
        );
    }
    for path in [
        "/offpeak/v1/webhooks?after=x",
        "/offpeak/v1/webhooks?after=",
    ] {
        assert_eq!(refusal(served.get(path).await).await, bad("invalid_cursor"));
    }
    for (path, body, code) in [
        ("webhooks/test", json!({}), "invalid_body"),
        ("webhooks/test", json!({"target": 1}), "invalid_body"),
        (
            "webhooks/test",
            json!({"target": "a", "x": 1}),
            "invalid_body",
        ),
        (
            "webhooks/test",
            json!({"target": "x".repeat(20_000)}),
            "unreadable_body",
        ),
        ("webhooks/redeliver", json!([]), "invalid_body"),
        (
            "webhook-secret/rotate",
            json!({"expire": true}),
            "invalid_body",
        ),
        (
            "webhook-secret/rotate",
            json!({"expire_previous": "yes"}),
            "invalid_body",
        ),
    ] {
        let path = format!("/offpeak/v1/{path}");
        let refused = served.post(&path, KEY, body).await;
        assert_eq!(refusal(refused).await, bad(code), "{path}");
    }
    let wrong = served.get("/offpeak/v1/webhooks/test").await;
    assert_eq!(wrong.status(), 405);
    let secret = served.object("/offpeak/v1/webhook-secret").await;
    assert_eq!(secret["previous_until"], json!(null), "nothing was rotated");
}

/// Both secrets sign for a day, or the new one alone.
#[tokio::test]
async fn a_rotated_secret_signs_beside_the_one_before() {
    let mut receiver = Receiver::start().await;
    let origin = receiver.origin.clone();
    let served = serve(&[("webhook.allow", &origin)]).await;
    let hook = [("Offpeak-Webhook", origin.as_str())];
    let old = served.object("/offpeak/v1/webhook-secret").await;
    let old = old["secret"].as_str().unwrap().to_owned();
    let rotate = "/offpeak/v1/webhook-secret/rotate";
    served.defer("a caller", &[]).await;
    let rotated = served.ask(Method::POST, rotate, KEY).await;
    let rotated: Value = rotated.json().await.unwrap();
    let new = rotated["secret"].as_str().unwrap().to_owned();
    assert_ne!(new, old);
    assert!(rotated["previous_until"].is_string());
    assert_eq!(served.object("/offpeak/v1/webhook-secret").await, rotated);

    served.defer("both", &hook).await;
    let (headers, body) = receiver.next().await;
    assert!(verifies(&old, &headers, &body) && verifies(&new, &headers, &body));

    let last = served
        .answer(rotate, KEY, json!({"expire_previous": true}))
        .await;
    assert_eq!(last["previous_until"], json!(null));
    let last = last["secret"].as_str().unwrap();
    served.defer("one", &hook).await;
    let (headers, body) = receiver.next().await;
    assert!(verifies(last, &headers, &body));
    assert!(!verifies(&old, &headers, &body) && !verifies(&new, &headers, &body));
    // Another tenant's is untouched by it.
    let other = served.ask(Method::GET, "/offpeak/v1/webhook-secret", "sk-other");
    let other: Value = other.await.json().await.unwrap();
    assert_eq!(other["previous_until"], json!(null));
}

/// No poll is due for an hour: the answer is there because the provider said so.
#[tokio::test]
async fn the_providers_event_is_the_moment_of_the_harvest() {
    let rare = [("watch.poll_interval", "1h"), ("watch.poll_max", "1h")];
    let served = serve(&rare).await;
    let hook = Hook::new(
        &format!("{}/offpeak/webhooks/openai", served.base),
        UPSTREAM,
    );
    let telling = served.simulator.clone();
    let telling = telling.tell(hook.unwrap(), served.stop.clone());
    let asking = async {
        let id = served.defer("Hello", &[]).await;
        let lines = served.results(String::new(), 1).await;
        assert_eq!(parsed(&lines[0])["id"], id);
        let polls = &served.simulator.log().operations;
        assert_eq!(polls.get(&Operation::GetBatch), Some(&1));
    };
    tokio::select! {
        () = telling => panic!("it tells until the end"),
        () = asking => {}
    }
}

#[tokio::test]
async fn what_is_no_event_of_the_provider_is_refused() {
    let served = serve(&[]).await;
    let now = SystemClock::new().now().as_secs() as i64;
    let body = r#"{"type":"batch.completed","data":{"id":"batch_of_nobody"}}"#;
    let sent = async |secret: &str, at: i64, body: &str| {
        let signature = Webhook::new(secret).unwrap();
        let signature = signature.sign("wh_1", at, body.as_bytes()).unwrap();
        let call = served
            .http
            .post(format!("{}/offpeak/webhooks/openai", served.base));
        let call = call
            .header("webhook-id", "wh_1")
            .header("webhook-timestamp", at)
            .header("webhook-signature", signature);
        call.body(body.to_owned()).send().await.unwrap()
    };
    let unsigned = (StatusCode::UNAUTHORIZED, "invalid_signature".to_owned());
    let other = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    assert_eq!(refusal(sent(other, now, body).await).await, unsigned);
    assert_eq!(
        refusal(sent(UPSTREAM, now - 400, body).await).await,
        unsigned
    );
    let bare = served
        .ask(Method::POST, "/offpeak/webhooks/openai", KEY)
        .await;
    assert_eq!(refusal(bare).await, unsigned);
    let large = "x".repeat(65 * 1024);
    let refused = refusal(sent(UPSTREAM, now, &large).await).await;
    assert_eq!(
        refused,
        (StatusCode::BAD_REQUEST, "unreadable_body".to_owned())
    );
    // Signed is taken, known or not, understood or not.
    for body in [body, body, "[]", "no JSON"] {
        assert_eq!(sent(UPSTREAM, now, body).await.status(), 200);
    }
    let polls = &served.simulator.log().operations;
    assert_eq!(polls.get(&Operation::GetBatch), None);
}
