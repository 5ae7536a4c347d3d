//! Offpeak's own paths on real sockets: the whole server before the simulated
//! provider.

mod credential;
mod openapi;
mod operators;
mod probes;
mod webhooks;

use std::{io, sync::Arc, time::Duration};

use axum::{Router, extract::State, routing::post};
use http::{HeaderMap, StatusCode};
use offpeak::{
    app::{App, RunError, Secrets, Settings, SystemClock},
    config::Config,
    model::secret::Secret,
    simulator::{self, Operation, Simulator},
};
use reqwest::{Method, Response};
use serde_json::{Value, json, value::RawValue};
use tokio::{net::TcpListener, sync::mpsc, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

/// A hang is a failure: nothing in these tests takes long.
const HANG: Duration = Duration::from_secs(60);
const KEY: &str = "sk-namespace";
const OPERATOR: &str = "adm-namespace";
/// The provider's webhooks are signed with it.
const UPSTREAM: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

/// A running server; stopped when dropped.
struct Served {
    base: String,
    http: reqwest::Client,
    simulator: Arc<Simulator>,
    stop: CancellationToken,
    running: JoinSet<Result<(), RunError>>,
    _data: tempfile::TempDir,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Batches take moments: the provider's clock runs fast.
async fn serve(flags: &[(&str, &str)]) -> Served {
    let (data, stop) = (tempfile::tempdir().unwrap(), CancellationToken::new());
    let mut running = JoinSet::new();
    let provider = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = format!("http://{}/v1", provider.local_addr().unwrap());
    let mut quick = simulator::Settings {
        speed: 20_000.0,
        ..Default::default()
    };
    quick.latency.stalled_share = 0.0;
    let simulated = Simulator::new(quick, SystemClock::new().now());
    let (ended, serving) = (stop.clone(), simulated.clone());
    running.spawn(async move {
        simulator::serve(provider, serving, ended).await;
        Ok(())
    });
    let ours = [
        ("server.listen", "127.0.0.1:0"),
        ("server.workers", "1"),
        // Longer than any test: what a stop does not end by itself is a hang.
        ("server.shutdown_grace", "10m"),
        ("upstream.base_url", &upstream),
        ("store.data_dir", data.path().to_str().unwrap()),
        ("store.reserve_bytes", "0"),
        ("packing.linger", "20ms"),
        ("watch.poll_interval", "50ms"),
        ("watch.polls_per_second", "100"),
    ];
    let flags: Vec<(&str, String)> = ours
        .iter()
        .chain(flags)
        .map(|(key, value)| (*key, value.to_string()))
        .collect();
    let config = Config::load(None, [("", ""); 0], &flags).unwrap();
    let secrets = Secrets {
        master_key: None,
        admin_token: Some(Secret::new(OPERATOR)),
        upstream_webhooks: Some(Secret::new(UPSTREAM)),
        ..Secrets::default()
    };
    let app = App::start(Settings::read(&config).unwrap(), secrets, stop.clone());
    let app = app.await.unwrap();
    let base = format!("http://{}", app.address());
    running.spawn(app.run());
    // Plain HTTP on loopback, yet reqwest wants a TLS provider to be there.
    let _another_was_first = rustls::crypto::ring::default_provider().install_default();
    let http = reqwest::Client::builder().no_proxy().timeout(HANG);
    Served {
        base,
        http: http.build().unwrap(),
        simulator: simulated,
        stop,
        running,
        _data: data,
    }
}

impl Served {
    async fn ask(&self, method: Method, path: &str, key: &str) -> Response {
        let call = self.http.request(method, format!("{}{path}", self.base));
        call.bearer_auth(key).send().await.unwrap()
    }

    async fn get(&self, path: &str) -> Response {
        self.ask(Method::GET, path, KEY).await
    }

    async fn object(&self, path: &str) -> Value {
        let response = self.get(path).await;
        assert_eq!(response.status(), 200, "{path}");
        response.json().await.unwrap()
    }

    /// Takes a call in and returns its id.
    async fn defer(&self, question: &str, headers: &[(&str, &str)]) -> String {
        self.defer_as(KEY, question, headers).await
    }

    async fn defer_as(&self, key: &str, question: &str, headers: &[(&str, &str)]) -> String {
        let body = json!({
            "model": "gpt-4o-mini",
            "messages": [{"role": "user", "content": question}],
        });
        let mut call = self
            .http
            .post(format!("{}/v1/chat/completions", self.base))
            .bearer_auth(key)
            .header("Offpeak-Deadline", "6h")
            .header("Prefer", "respond-async")
            .json(&body);
        for (name, value) in headers {
            call = call.header(*name, *value);
        }
        let response = call.send().await.unwrap();
        assert_eq!(response.status(), 202);
        let id = response.headers()["offpeak-request-id"].to_str().unwrap();
        id.to_owned()
    }

    /// Everything behind the cursor, until there are `count` lines.
    async fn results(&self, mut after: String, count: usize) -> Vec<String> {
        let mut lines = Vec::new();
        while lines.len() < count {
            let path = format!("/offpeak/v1/results?wait=60&limit=2&after={after}");
            let path = path.trim_end_matches("&after=");
            let response = self.get(path).await;
            assert_eq!(response.status(), 200);
            assert_eq!(response.headers()["content-type"], "application/x-ndjson");
            let cursor = response.headers()["offpeak-cursor"].to_str().unwrap();
            after = cursor.to_owned();
            let text = response.text().await.unwrap();
            let page: Vec<String> = text.lines().map(str::to_owned).collect();
            assert!(!page.is_empty() && page.len() <= 2);
            assert_eq!(parsed(page.last().unwrap())["cursor"], after);
            lines.extend(page);
        }
        lines
    }
}

fn parsed(line: &str) -> Value {
    serde_json::from_str(line).unwrap()
}

/// The status, and the code of an error in OpenAI's shape that is not sent again.
async fn refusal(response: Response) -> (StatusCode, String) {
    let status = response.status();
    assert_eq!(response.headers()["x-should-retry"], "false");
    let body: Value = response.json().await.unwrap();
    let error = body["error"].as_object().unwrap();
    for name in ["message", "type", "param", "code"] {
        assert!(error.contains_key(name), "{body}");
    }
    (status, error["code"].as_str().unwrap_or_default().into())
}

#[tokio::test]
async fn results_come_in_order_and_a_cursor_goes_on_behind_them() {
    let served = serve(&[]).await;
    let mut ids = Vec::new();
    for number in 0..3 {
        ids.push(served.defer(&format!("Question {number}"), &[]).await);
    }
    let lines = served.results(String::new(), 3).await;
    let mut seen: Vec<String> = Vec::new();
    for line in &lines {
        let line = parsed(line);
        assert_eq!(line["status"], "succeeded");
        assert_eq!(line["status_code"], 200);
        assert_eq!(line["endpoint"], "/v1/chat/completions");
        assert_eq!(line["tag"], Value::Null);
        seen.push(line["id"].as_str().unwrap().into());
    }
    seen.sort();
    ids.sort();
    assert_eq!(seen, ids);

    // Byte for byte what a poll gives.
    #[derive(serde::Deserialize)]
    struct Line<'a> {
        id: &'a str,
        #[serde(borrow)]
        response: &'a RawValue,
    }
    let line: Line<'_> = serde_json::from_str(&lines[0]).unwrap();
    let path = format!("/v1/chat/completions/{}", line.id);
    assert_eq!(
        served.get(&path).await.text().await.unwrap(),
        line.response.get()
    );

    // From every line on, the rest; behind the last one, nothing, and at once.
    for (at, line) in lines.iter().enumerate() {
        let cursor = parsed(line)["cursor"].as_str().unwrap().to_owned();
        let path = format!("/offpeak/v1/results?after={cursor}");
        let rest = served.get(&path).await;
        assert_eq!(
            rest.headers()["offpeak-cursor"],
            parsed(&lines[2])["cursor"].as_str().unwrap()
        );
        let rest: Vec<String> = rest.text().await.unwrap().lines().map(Into::into).collect();
        assert_eq!(rest, &lines[at + 1..]);
    }
    // From the end on, what ends from then on.
    let end = served.get("/offpeak/v1/results?after=end").await;
    let cursor = end.headers()["offpeak-cursor"].to_str().unwrap().to_owned();
    assert_eq!(cursor, parsed(&lines[2])["cursor"].as_str().unwrap());
    assert_eq!(end.text().await.unwrap(), "");
    let next = served.defer("Question 4", &[]).await;
    let new = served.results(cursor, 1).await;
    let new = parsed(&new[0]);
    assert_eq!(new["id"], next);
    let request = served.object(&format!("/offpeak/v1/requests/{next}")).await;
    for field in ["cost_usd", "saved_usd", "provider_request_id"] {
        assert!(new[field].is_string(), "{new}");
        assert_eq!(new[field], request[field], "{field}");
    }
}

#[tokio::test]
async fn a_long_poll_wakes_with_the_next_ending_and_with_a_stop() {
    let mut served = serve(&[]).await;
    let waiting = |after: &str| {
        let path = format!("{}/offpeak/v1/results{after}", served.base);
        let call = served.http.get(path).bearer_auth(KEY);
        call.header("Prefer", "wait=3600").send()
    };
    // Only a key that has called is waited for.
    served.defer("First", &[]).await;
    let first = served.results(String::new(), 1).await;
    let after = format!("?after={}", parsed(&first[0])["cursor"].as_str().unwrap());
    let (id, woken) = tokio::join!(served.defer("Hello", &[]), waiting(&after));
    let woken = woken.unwrap();
    assert_eq!(woken.headers()["preference-applied"], "wait=3600");
    let cursor = woken.headers()["offpeak-cursor"].clone();
    assert_eq!(parsed(&woken.text().await.unwrap())["id"], id);

    let after = format!("?after={}", cursor.to_str().unwrap());
    let (answered, ()) = tokio::join!(waiting(&after), async {
        // The poll is a connection in use by the time a second call is served.
        assert_eq!(served.get("/healthz").await.status(), 200);
        served.stop.cancel();
    });
    // Cut before it was taken, or answered with nothing: held it is not.
    match answered {
        Ok(answered) => {
            assert_eq!(answered.headers()["offpeak-cursor"], cursor);
            assert_eq!(answered.text().await.unwrap(), "");
        }
        Err(error) => assert!(!error.is_timeout(), "{error}"),
    }
    while let Some(ended) = timeout(HANG, served.running.join_next()).await.unwrap() {
        ended.unwrap().unwrap();
    }
}

#[tokio::test]
async fn requests_are_listed_filtered_and_told_in_full() {
    let served = serve(&[]).await;
    let nightly = served.defer("Hello", &[("Offpeak-Tag", "nightly")]).await;
    let plain = served.defer("Hello", &[]).await;
    served.results(String::new(), 2).await;

    let told = served
        .object(&format!("/offpeak/v1/requests/{nightly}"))
        .await;
    for (name, expected) in [
        ("id", json!(nightly)),
        ("object", json!("offpeak.request")),
        ("status", json!("succeeded")),
        ("endpoint", json!("/v1/chat/completions")),
        ("model", json!("gpt-4o-mini")),
        ("tag", json!("nightly")),
        ("lane", json!("batch")),
        ("late", json!(false)),
        ("place", json!(null)),
        ("status_code", json!(200)),
        ("webhook", json!(null)),
    ] {
        assert_eq!(told[name], expected, "{name}: {told}");
    }
    assert_ne!(told["saved_usd"], "0.00");
    let answer = served
        .object(told["links"]["result"].as_str().unwrap())
        .await;
    assert_eq!(answer["object"], "chat.completion");

    let ids = async |query: &str| -> Vec<String> {
        let list = served.object(&format!("/offpeak/v1/requests{query}")).await;
        let data = list["data"].as_array().unwrap();
        let id = |item: &Value| item["id"].as_str().unwrap().to_owned();
        data.iter().map(id).collect()
    };
    assert_eq!(ids("").await, [plain.clone(), nightly.clone()]);
    let one = [nightly.clone()];
    assert_eq!(ids("?tag=nightly").await, one);
    assert_eq!(ids("?status=failed").await, [""; 0]);
    assert_eq!(ids("?endpoint=/v1/embeddings").await, [""; 0]);
    assert_eq!(ids("?model=gpt-4o-mini&status=succeeded").await.len(), 2);
    assert_eq!(ids("?created_after=2020-01-01T00:00:00Z").await.len(), 2);
    assert_eq!(ids("?created_before=2020-01-01T00:00:00Z").await, [""; 0]);

    let first = served.object("/offpeak/v1/requests?limit=1").await;
    assert_eq!(first["has_more"], true);
    let next = first["next"].as_str().unwrap();
    let path = format!("/offpeak/v1/requests?limit=1&after={next}");
    let second = served.object(&path).await;
    assert_eq!(second["data"][0]["id"], one[0]);
    assert_eq!(
        (&second["has_more"], &second["next"]),
        (&json!(false), &json!(null))
    );

    let savings = served.object("/offpeak/v1/savings").await;
    assert_eq!(savings["total"]["requests"], 2);
    assert_eq!(savings["by_tag"][1]["tag"], "nightly");
    assert_eq!(savings["by_lane"][0]["lane"], "batch");
    assert!(savings["total"]["usage"]["input_tokens"].as_u64().unwrap() > 0);
    let secret = served.object("/offpeak/v1/webhook-secret").await;
    assert!(secret["secret"].as_str().unwrap().starts_with("whsec_"));
}

#[tokio::test]
async fn another_tenant_sees_nothing() {
    let served = serve(&[]).await;
    let id = served.defer("Hello", &[]).await;
    served.results(String::new(), 1).await;
    let other = "sk-other";
    for (method, path) in [
        (Method::GET, format!("/offpeak/v1/requests/{id}")),
        (Method::POST, format!("/offpeak/v1/requests/{id}/cancel")),
        (Method::POST, format!("/offpeak/v1/requests/{id}/redeliver")),
    ] {
        let refused = refusal(served.ask(method, &path, other).await).await;
        assert_eq!(
            refused,
            (StatusCode::NOT_FOUND, "not_found".into()),
            "{path}"
        );
    }
    let list = served.ask(Method::GET, "/offpeak/v1/requests", other).await;
    let list: Value = list.json().await.unwrap();
    assert_eq!(list["data"], json!([]));
    let feed = served.ask(Method::GET, "/offpeak/v1/results", other).await;
    assert_eq!(feed.text().await.unwrap(), "");
    let savings = served.ask(Method::GET, "/offpeak/v1/savings", other).await;
    let savings: Value = savings.json().await.unwrap();
    assert_eq!(savings["total"]["requests"], 0);
}

/// An upstream that wants no key, and answers every call.
async fn keyless(serving: &mut JoinSet<()>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}/v1", listener.local_addr().unwrap());
    let answer = json!({"id": "chatcmpl-1", "object": "chat.completion", "created": 1,
        "model": "local", "choices": []});
    let router = Router::new().fallback(async move || axum::Json(answer.clone()));
    serving.spawn(async move { axum::serve(listener, router).await.unwrap() });
    base
}

const OF_A_TENANT: [&str; 8] = [
    "/offpeak/v1/requests",
    "/offpeak/v1/results",
    "/offpeak/v1/savings",
    "/offpeak/v1/shadow",
    "/offpeak/v1/turnaround",
    "/offpeak/v1/webhook-secret",
    "/offpeak/v1/webhooks",
    "/offpeak/v1/webhooks/endpoints",
];

#[tokio::test]
async fn who_sends_no_key_is_asked_for_one_unless_they_call_without() {
    let mut serving = JoinSet::new();
    let upstream = keyless(&mut serving).await;
    let served = serve(&[("upstream.base_url", &upstream)]).await;
    served.defer("With a key", &[]).await;
    let get = |path: &str, unset: bool| {
        let call = served.http.get(format!("{}{path}", served.base));
        let call = match unset {
            // What a shell sends where the variable with the key is not set.
            true => call.header("Authorization", "Bearer "),
            false => call,
        };
        async move { call.send().await.unwrap() }
    };
    for path in OF_A_TENANT {
        for unset in [false, true] {
            let refused = refusal(get(path, unset).await).await;
            let expected = (StatusCode::UNAUTHORIZED, "invalid_api_key".to_owned());
            assert_eq!(refused, expected, "{path}");
        }
        assert_eq!(served.get(path).await.status(), 200, "{path}");
    }

    let call = served
        .http
        .post(format!("{}/v1/chat/completions", served.base))
        .header("Offpeak-Deadline", "1s")
        .json(&json!({"model": "local", "messages": [{"role": "user", "content": "Hello"}]}));
    assert_eq!(call.send().await.unwrap().status(), 200);
    for path in OF_A_TENANT {
        assert_eq!(get(path, false).await.status(), 200, "{path}");
        assert_eq!(get(path, true).await.status(), 401, "{path}");
    }
    let list = get("/offpeak/v1/requests", false).await;
    let list: Value = list.json().await.unwrap();
    assert_eq!(list["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_paused_server_takes_calls_in_and_cancels_them() {
    let served = serve(&[]).await;
    let operate = async |method, path: &str| -> Value {
        let path = format!("/offpeak/admin/{path}");
        let response = served.ask(method, &path, OPERATOR).await;
        assert_eq!(response.status(), 200);
        response.json().await.unwrap()
    };
    assert_eq!(operate(Method::POST, "pause").await["paused"], true);
    let (first, second) = (
        served.defer("One", &[]).await,
        served.defer("Two", &[]).await,
    );
    let status = operate(Method::GET, "status").await;
    assert_eq!(status["requests"]["queued"], 2);
    let told = served
        .object(&format!("/offpeak/v1/requests/{first}"))
        .await;
    assert_eq!(
        (&told["status"], &told["place"]["kind"]),
        (&json!("queued"), &json!("queue"))
    );
    let metrics = served.get("/metrics").await.text().await.unwrap();
    assert!(metrics.contains("offpeak_open_requests{place=\"queue\"} 2\n"));
    assert!(metrics.contains("offpeak_paused 1\n"));

    let path = format!("/offpeak/v1/requests/{first}/cancel");
    for _ in 0..2 {
        let cancelled = served.ask(Method::POST, &path, KEY).await;
        assert_eq!(cancelled.status(), 200);
        let cancelled: Value = cancelled.json().await.unwrap();
        assert_eq!(cancelled["status"], "cancelled");
    }
    let line = parsed(&served.results(String::new(), 1).await[0]);
    assert_eq!(
        (&line["id"], &line["status_code"]),
        (&json!(first), &json!(410))
    );
    assert_eq!(line["response"]["error"]["code"], "request_cancelled");

    assert_eq!(operate(Method::POST, "resume").await["paused"], false);
    operate(Method::POST, "flush").await;
    let cursor = line["cursor"].as_str().unwrap().to_owned();
    assert_eq!(parsed(&served.results(cursor, 1).await[0])["id"], second);
    let path = format!("/offpeak/v1/requests/{second}/cancel");
    let refused = refusal(served.ask(Method::POST, &path, KEY).await).await;
    assert_eq!(refused, (StatusCode::CONFLICT, "request_finished".into()));
}

#[tokio::test]
async fn a_webhook_is_sent_again_under_the_same_name() {
    let (heard, mut events) = mpsc::channel::<String>(8);
    let hear = async |State(heard): State<mpsc::Sender<String>>, headers: HeaderMap| {
        let name = headers["webhook-id"].to_str().unwrap().to_owned();
        heard.send(name).await.unwrap();
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = format!("http://{}", listener.local_addr().unwrap());
    let receiver = Router::new().route("/", post(hear)).with_state(heard);
    let mut receiving = JoinSet::new();
    receiving.spawn(async move { axum::serve(listener, receiver).await });

    let served = serve(&[("webhook.allow", &target)]).await;
    let hook = served.defer("Hello", &[("Offpeak-Webhook", &target)]).await;
    let first = timeout(HANG, events.recv()).await.unwrap().unwrap();
    // A redelivery asked for while the first is under way would be that one.
    let path = format!("/offpeak/v1/requests/{hook}");
    let recorded =
        async { while served.object(&path).await["webhook"]["status"] != "delivered" {} };
    timeout(HANG, recorded).await.unwrap();
    let path = format!("/offpeak/v1/requests/{hook}/redeliver");
    let again = served.ask(Method::POST, &path, KEY).await;
    assert_eq!(again.status(), 202);
    let told: Value = again.json().await.unwrap();
    assert_eq!(told["webhook"]["target"], target);
    assert_eq!(told["webhook"]["event_id"], first);
    let second = timeout(HANG, events.recv()).await.unwrap().unwrap();
    assert_eq!(second, first);

    served
        .ask(Method::POST, "/offpeak/admin/pause", OPERATOR)
        .await;
    for (headers, code) in [
        (&[][..], "no_webhook"),
        (&[("Offpeak-Webhook", target.as_str())][..], "request_open"),
    ] {
        let id = served.defer("Hello", headers).await;
        let path = format!("/offpeak/v1/requests/{id}/redeliver");
        let refused = refusal(served.ask(Method::POST, &path, KEY).await).await;
        assert_eq!(refused, (StatusCode::CONFLICT, code.into()));
    }
}

#[tokio::test]
async fn a_cursor_from_before_what_is_kept_is_told() {
    let retention = [
        ("retention.results", "1ms"),
        ("retention.sweep_interval", "10ms"),
    ];
    let served = serve(&retention).await;
    let empty = served.get("/offpeak/v1/results").await;
    let start = empty.headers()["offpeak-cursor"]
        .to_str()
        .unwrap()
        .to_owned();
    served.defer("Hello", &[]).await;
    let path = format!("/offpeak/v1/results?after={start}");
    let gone = async {
        loop {
            let response = served.get(&path).await;
            if response.status() != 200 {
                return refusal(response).await;
            }
        }
    };
    let gone = timeout(HANG, gone).await.unwrap();
    assert_eq!(gone, (StatusCode::GONE, "cursor_expired".into()));
    assert_eq!(served.get("/offpeak/v1/results").await.status(), 200);
}

#[tokio::test]
async fn a_cursor_of_another_data_directory_is_refused_rather_than_waited_on() {
    let served = serve(&[]).await;
    // Sequence 2^32, as the results of a server that ran for long name it.
    let path = "/offpeak/v1/results?after=ZgAAAAEAAAAA&wait=3600";
    for ended in [false, true] {
        let foreign = refusal(served.get(path).await).await;
        let expected = (StatusCode::BAD_REQUEST, "invalid_cursor".to_owned());
        assert_eq!(foreign, expected, "after an ending: {ended}");
        served.defer("Hello", &[]).await;
        served.results(String::new(), 1).await;
    }
}

#[tokio::test]
async fn what_cannot_be_answered_is_refused_in_the_shape_of_openai() {
    let served = serve(&[]).await;
    for (method, path, status, code) in [
        (Method::GET, "/offpeak/v1/requests/op_1", 404, "not_found"),
        (
            Method::GET,
            "/offpeak/v1/requests?limit=0",
            400,
            "invalid_parameter",
        ),
        (
            Method::GET,
            "/offpeak/v1/requests?state=failed",
            400,
            "unknown_parameter",
        ),
        (
            Method::GET,
            "/offpeak/v1/results?after=tomorrow",
            400,
            "invalid_cursor",
        ),
        (
            Method::GET,
            "/offpeak/v1/results?wait=long",
            400,
            "invalid_parameter",
        ),
        (
            Method::POST,
            "/offpeak/v1/results",
            405,
            "method_not_allowed",
        ),
        (
            Method::GET,
            "/offpeak/admin/pause",
            405,
            "method_not_allowed",
        ),
        (Method::POST, "/offpeak/admin/pause", 401, "invalid_api_key"),
        (Method::GET, "/offpeak/admin/status", 401, "invalid_api_key"),
        (Method::GET, "/offpeak/v1/", 404, "not_found"),
        (Method::GET, "/offpeak/v2/requests", 404, "not_found"),
        (Method::GET, "/offpeak/assets/none.js", 404, "not_found"),
        (Method::POST, "/offpeak/", 405, "method_not_allowed"),
    ] {
        let refused = refusal(served.ask(method, path, KEY).await).await;
        assert_eq!(
            refused,
            (StatusCode::from_u16(status).unwrap(), code.into()),
            "{path}"
        );
    }
    for path in ["/healthz", "/readyz", "/metrics"] {
        let response = served.http.get(format!("{}{path}", served.base)).send();
        assert_eq!(response.await.unwrap().status(), 200, "{path}");
    }
}
