//! What operators are told of all tenants, what tenants are told of their own, and that
//! neither is told more.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicBool, Ordering},
};

use super::*;

const OTHER: &str = "sk-namespace-other";

/// Every route of operators that tells something, or does.
const ROUTES: &[(&str, &str)] = &[
    ("GET", "/offpeak/admin/status"),
    ("GET", "/offpeak/admin/events"),
    ("GET", "/offpeak/admin/savings"),
    ("GET", "/offpeak/admin/ledger"),
    ("GET", "/offpeak/admin/requests"),
    ("GET", "/offpeak/admin/requests/{id}"),
    ("POST", "/offpeak/admin/requests/{id}/cancel"),
    ("POST", "/offpeak/admin/requests/{id}/redeliver"),
    ("GET", "/offpeak/admin/batches"),
    ("GET", "/offpeak/admin/webhooks"),
];

impl Served {
    async fn operator(&self, path: &str) -> Response {
        self.ask(Method::GET, path, OPERATOR).await
    }

    async fn told(&self, path: &str) -> Value {
        let response = self.operator(path).await;
        assert_eq!(response.status(), 200, "{path}");
        assert_eq!(response.headers()["cache-control"], "no-store", "{path}");
        response.json().await.unwrap()
    }

    /// The rows of a listing, page by page.
    async fn all_of(&self, path: &str) -> Vec<Value> {
        let (mut rows, mut after) = (Vec::new(), String::new());
        loop {
            let page = self.told(&format!("{path}{after}")).await;
            rows.extend(page["data"].as_array().unwrap().iter().cloned());
            let Some(next) = page["next"].as_str() else {
                assert_eq!(page["has_more"], false);
                return rows;
            };
            after = format!("&after={next}");
        }
    }

    /// Waits until so many have ended, whoever's.
    async fn ended(&self, count: usize) -> Vec<Value> {
        let ended = async {
            loop {
                let path = "/offpeak/admin/requests?status=ended&limit=100";
                let data = self.told(path).await["data"].take();
                match data {
                    Value::Array(data) if data.len() == count => return data,
                    _ => tokio::task::yield_now().await,
                }
            }
        };
        timeout(HANG, ended).await.unwrap()
    }
}

/// Three requests of the one tenant, two of the other, all of them answered.
async fn two_tenants(served: &Served) -> Vec<Value> {
    for number in 0..5 {
        let (key, tag) = match number % 2 {
            0 => (KEY, "nightly"),
            _ => (OTHER, "=HYPERLINK(\"x\",\"y\")"),
        };
        let question = format!("Question {number}");
        served
            .defer_as(key, &question, &[("Offpeak-Tag", tag)])
            .await;
    }
    served.ended(5).await
}

fn ids(rows: &[Value]) -> Vec<&str> {
    rows.iter().map(|row| row["id"].as_str().unwrap()).collect()
}

/// Of amounts as they are shown, in billionths of a millionth of a cent: no rounding.
fn pico(shown: &str) -> i128 {
    let (whole, part) = shown.split_once('.').unwrap();
    format!("{whole}{part:0<12}").parse().unwrap()
}

#[tokio::test]
async fn only_the_admin_token_opens_what_operators_see() {
    let served = serve(&[]).await;
    let id = served.defer("mine", &[]).await;
    for (method, path) in ROUTES {
        let path = path.replace("{id}", &id);
        let method: Method = method.parse().unwrap();
        for token in [KEY, "adm_another", ""] {
            let refused = refusal(served.ask(method.clone(), &path, token).await).await;
            let expected = (StatusCode::UNAUTHORIZED, "invalid_api_key".to_owned());
            assert_eq!(refused, expected, "{method} {path}");
        }
    }
    // And the admin token is no key of a tenant's: it sees nobody's.
    let mine = served.operator("/offpeak/v1/requests").await;
    let mine: Value = mine.json().await.unwrap();
    assert_eq!(mine["data"], json!([]));
}

#[tokio::test]
async fn money_adds_up_over_tenants_and_each_sees_its_own() {
    let served = serve(&[]).await;
    two_tenants(&served).await;
    let all = served.told("/offpeak/admin/savings").await;
    assert_eq!(all["total"]["requests"], 5);
    let tenants = all["by_tenant"].as_array().unwrap();
    assert_eq!(tenants.len(), 2);
    let mut paid = 0;
    for (key, requests) in [(KEY, 3), (OTHER, 2)] {
        let own = served.ask(Method::GET, "/offpeak/v1/savings", key).await;
        let own: Value = own.json().await.unwrap();
        assert_eq!(own["total"]["requests"], requests);
        assert!(own.get("by_tenant").is_none());
        paid += pico(own["total"]["paid_usd"].as_str().unwrap());
        let row = tenants.iter().find(|row| row["requests"] == requests);
        let row = row.unwrap();
        assert_eq!(row["paid_usd"], own["total"]["paid_usd"]);
        assert_eq!(row["name"], Value::Null, "keys are not issued here");

        // The same of one tenant alone.
        let whose = row["tenant"].as_str().unwrap();
        let path = format!("/offpeak/admin/savings?tenant={whose}&by=hour");
        let one = served.told(&path).await;
        assert_eq!(one["total"], own["total"]);
        assert_eq!(one["by_hour"][0]["requests"], requests);

        let rows = served.ask(Method::GET, "/offpeak/v1/ledger", key).await;
        let rows: Value = rows.json().await.unwrap();
        let rows = rows["data"].as_array().unwrap().clone();
        let counted = rows.iter().map(|row| row["requests"].as_u64().unwrap());
        assert_eq!(counted.sum::<u64>(), requests);
        assert!(rows.iter().all(|row| row.get("tenant").is_none()));
        let tag = if key == KEY { "nightly" } else { "=HYPERLINK" };
        let named = |row: &Value| row["tag"].as_str().unwrap().starts_with(tag);
        assert!(rows.iter().all(named), "{rows:?}");
    }
    assert_eq!(pico(all["total"]["paid_usd"].as_str().unwrap()), paid);
    assert!(paid > 0);

    // Hours that have not come, and hours that are long gone.
    for period in ["since=2100-01-01T00:00:00Z", "since=1&until=3600"] {
        let none = served
            .told(&format!("/offpeak/admin/savings?{period}"))
            .await;
        assert_eq!(none["total"]["requests"], 0, "{period}");
        let none = served
            .told(&format!("/offpeak/admin/ledger?{period}"))
            .await;
        assert_eq!(none, json!({"object": "list", "data": []}), "{period}");
        let none = served
            .object(&format!("/offpeak/v1/savings?{period}"))
            .await;
        assert_eq!(none["total"]["requests"], 0, "{period}");
        let none = served.object(&format!("/offpeak/v1/ledger?{period}")).await;
        assert_eq!(none["data"], json!([]), "{period}");
    }
}

#[tokio::test]
async fn the_ledger_as_csv_says_what_the_savings_say() {
    let served = serve(&[]).await;
    two_tenants(&served).await;
    let savings = served.told("/offpeak/admin/savings").await;
    let response = served.operator("/offpeak/admin/ledger?format=csv").await;
    let kind = response.headers()["content-type"].to_str().unwrap();
    assert!(kind.starts_with("text/csv"), "{kind}");
    let named = response.headers()["content-disposition"].to_str().unwrap();
    assert!(named.starts_with("attachment;"), "{named}");
    let text = response.text().await.unwrap();
    assert_eq!(text.matches("\r\n").count(), text.matches('\n').count());
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let names = reader.headers().unwrap().clone();
    let rows: Vec<BTreeMap<String, String>> = reader
        .records()
        .map(|record| {
            let record = record.unwrap();
            let cells = names.iter().zip(record.iter());
            cells.map(|(n, c)| (n.to_owned(), c.to_owned())).collect()
        })
        .collect();
    let total = &savings["total"];
    let count = |name: &str| -> u64 {
        rows.iter()
            .map(|row| row[name].parse::<u64>().unwrap())
            .sum()
    };
    for name in ["requests", "succeeded", "late", "rescued", "unpriced"] {
        assert_eq!(count(name), total[name], "{name}");
    }
    for name in ["input_tokens", "cached_tokens", "output_tokens"] {
        assert_eq!(count(name), total["usage"][name], "{name}");
    }
    for name in ["paid_usd", "standard_usd", "saved_usd", "rescue_paid_usd"] {
        let sum: i128 = rows.iter().map(|row| pico(&row[name])).sum();
        assert_eq!(sum, pico(total[name].as_str().unwrap()), "{name}");
    }
    let slack = names.iter().filter(|name| name.starts_with("slack_"));
    let slack: Vec<u64> = slack.map(count).collect();
    assert_eq!(json!(slack), total["slack"]);
    let tenants: BTreeSet<&str> = rows.iter().map(|row| row["tenant"].as_str()).collect();
    assert_eq!(tenants.len(), 2);
    // A spreadsheet would run it.
    let tags: BTreeSet<&str> = rows.iter().map(|row| row["tag"].as_str()).collect();
    let expected = BTreeSet::from(["nightly", "'=HYPERLINK(\"x\",\"y\")"]);
    assert_eq!(tags, expected);

    let own = served.get("/offpeak/v1/ledger?format=csv").await;
    let own = own.text().await.unwrap();
    let head = own.lines().next().unwrap();
    assert!(head.starts_with("hour,lane,model,tag,requests,"), "{head}");
    assert!(!own.contains("HYPERLINK"), "{own}");
}

#[tokio::test]
async fn the_requests_of_all_tenants_are_listed_and_found() {
    let served = serve(&[]).await;
    let ended = two_tenants(&served).await;
    // In the order in which they were committed, as a tenant's feed has its own.
    let fed = served.results(String::new(), 3).await;
    let fed: Vec<Value> = fed.iter().rev().map(|line| parsed(line)).collect();
    let nightly = ended.iter().filter(|row| row["tag"] == "nightly");
    let nightly: Vec<Value> = nightly.cloned().collect();
    assert_eq!(ids(&nightly), ids(&fed));

    // The same two at a time, with any filter that all of them pass.
    for filter in ["status=ended", "status=succeeded&model=gpt-4o-mini"] {
        let path = format!("/offpeak/admin/requests?limit=2&{filter}");
        let rows = served.all_of(&path).await;
        assert_eq!(ids(&rows), ids(&ended), "{filter}");
    }
    let newest = served.all_of("/offpeak/admin/requests?limit=2").await;
    let mut sorted = ids(&ended);
    sorted.sort();
    sorted.reverse();
    assert_eq!(ids(&newest), sorted);
    assert_eq!(
        served.all_of("/offpeak/admin/requests?status=failed").await,
        Vec::<Value>::new()
    );

    let nightly = served.all_of("/offpeak/admin/requests?tag=nightly").await;
    assert_eq!(nightly.len(), 3);
    let whose = nightly[0]["tenant"].as_str().unwrap();
    for order in ["", "&status=ended"] {
        let path = format!("/offpeak/admin/requests?limit=1&tenant={whose}{order}");
        let rows = served.all_of(&path).await;
        assert_eq!(rows.len(), 3, "{path}");
        assert!(rows.iter().all(|row| row["tenant"] == whose));
    }

    // What was admitted before an instant, in both orders.
    let mut instants: Vec<&str> = ended
        .iter()
        .map(|row| row["admitted_at"].as_str().unwrap())
        .collect();
    instants.sort();
    let bound = instants[3];
    let older = instants.iter().filter(|at| **at < bound).count();
    for order in ["", "&status=ended"] {
        let path = format!("/offpeak/admin/requests?created_before={bound}{order}&limit=2");
        let rows = served.all_of(&path).await;
        assert_eq!(rows.len(), older, "{path}");
        assert!(
            rows.iter()
                .all(|row| row["admitted_at"].as_str().unwrap() < bound)
        );
    }

    // A request is found without its tenant, and shown as its tenant sees it.
    let (id, theirs) = (ids(&nightly)[0], ids(&ended));
    let mut told = served.told(&format!("/offpeak/admin/requests/{id}")).await;
    assert_eq!(told["tenant"], whose);
    let own = served.object(&format!("/offpeak/v1/requests/{id}")).await;
    let shown = told.as_object_mut().unwrap();
    shown.remove("tenant");
    shown.remove("tenant_name");
    assert_eq!(told, own);
    let path = format!("/offpeak/admin/requests/{id}?tenant={whose}");
    assert_eq!(served.told(&path).await["id"], id);
    let other = ended.iter().find(|row| row["tenant"] != whose).unwrap();
    let other = other["tenant"].as_str().unwrap();
    let nobodys = theirs[0].replace("op_", "op_7");
    for path in [
        format!("/offpeak/admin/requests/{id}?tenant={other}"),
        format!("/offpeak/admin/requests/{}", &nobodys[..nobodys.len() - 1]),
        "/offpeak/admin/requests/op_x".to_owned(),
    ] {
        let refused = refusal(served.operator(&path).await).await;
        assert_eq!(refused.0, StatusCode::NOT_FOUND, "{path}");
    }
    for (path, code) in [
        ("/offpeak/admin/requests?tenant=nobody", "invalid_parameter"),
        ("/offpeak/admin/requests?stauts=failed", "unknown_parameter"),
        ("/offpeak/admin/requests?after=x", "invalid_cursor"),
        ("/offpeak/admin/savings?by=day", "invalid_parameter"),
        ("/offpeak/admin/ledger?format=xml", "invalid_parameter"),
        ("/offpeak/admin/batches?limit=0", "invalid_parameter"),
        (
            "/offpeak/admin/webhooks?status=pending",
            "invalid_parameter",
        ),
        ("/offpeak/v1/savings?tenant=a", "unknown_parameter"),
        ("/offpeak/v1/ledger?tenant=a", "unknown_parameter"),
    ] {
        let token = if path.contains("admin") {
            OPERATOR
        } else {
            KEY
        };
        let refused = refusal(served.ask(Method::GET, path, token).await).await;
        assert_eq!(refused, (StatusCode::BAD_REQUEST, code.into()), "{path}");
    }

    let batches = served.told("/offpeak/admin/batches").await;
    let batches = batches["data"].as_array().unwrap();
    assert!(!batches.is_empty());
    let settled = batches.iter().filter(|it| it["state"] == "settled");
    let answered = settled.map(|it| it["answered_lines"].as_u64().unwrap());
    assert_eq!(answered.sum::<u64>(), 5);
    assert!(batches[0]["ended_at"].is_string(), "{}", batches[0]);
}

#[tokio::test]
async fn an_operator_cancels_what_waits() {
    let served = serve(&[("packing.linger", "1h")]).await;
    let id = served.defer_as(OTHER, "waits", &[]).await;
    let status = served.told("/offpeak/admin/status").await;
    let told = served.told(&format!("/offpeak/admin/requests/{id}")).await;
    assert_eq!(status["oldest_queued_at"], told["admitted_at"]);
    let (first, deadline) = (&status["earliest_deadline"], &told["deadline"]);
    assert!(
        first.as_str().unwrap() <= deadline.as_str().unwrap(),
        "{status}"
    );

    let path = format!("/offpeak/admin/requests/{id}/cancel");
    for _twice in 0..2 {
        let done = served.ask(Method::POST, &path, OPERATOR).await;
        assert_eq!(done.status(), 200);
        let told: Value = done.json().await.unwrap();
        assert_eq!(told["status"], "cancelled");
        let last = told["timeline"].as_array().unwrap().last().unwrap();
        assert_eq!(last["event"], "cancelled");
        assert_eq!(last["reason"], "cancelled by the operator");
    }
    let again = path.replace("cancel", "redeliver");
    let refused = refusal(served.ask(Method::POST, &again, OPERATOR).await).await;
    assert_eq!(refused, (StatusCode::CONFLICT, "no_webhook".into()));
    let status = served.told("/offpeak/admin/status").await;
    for name in ["oldest_queued_at", "earliest_deadline"] {
        assert_eq!(status[name], Value::Null);
    }
    assert_eq!(status["ended_since_start"], 1);
}

#[tokio::test]
async fn callers_addresses_are_told_where_they_are_known() {
    let public = ("server.public_url", "https://offpeak.example.com/llm/");
    let apart = ("server.admin_listen", "127.0.0.1:0");
    for (flags, base_url) in [
        (&[][..], Value::Null),
        (&[public], "https://offpeak.example.com/llm".into()),
    ] {
        let status = serve(flags).await.told("/offpeak/admin/status").await;
        assert_eq!(status["base_url"], base_url);
        assert_eq!(status["operators_apart"], false);
    }
    let settings = |flags: &[(&str, &str)]| {
        let flags = flags.iter().map(|(key, value)| (*key, value.to_string()));
        let flags: Vec<(&str, String)> = flags.collect();
        let config = Config::load(None, [("", ""); 0], &flags).unwrap();
        Settings::read(&config).unwrap().edge
    };
    assert!(settings(&[apart]).operators_apart);
    assert!(!settings(&[public]).operators_apart);
}

/// The next event of a stream, less its heartbeats.
async fn event(stream: &mut Response, read: &mut String) -> Option<Value> {
    loop {
        if let Some((event, rest)) = read.split_once("\n\n") {
            let (event, rest) = (event.to_owned(), rest.to_owned());
            *read = rest;
            if let Some(data) = event.strip_prefix("event: status\ndata: ") {
                return Some(parsed(data));
            }
            assert_eq!(event, ":");
            continue;
        }
        let chunk = timeout(HANG, stream.chunk()).await.unwrap().unwrap()?;
        read.push_str(std::str::from_utf8(&chunk).unwrap());
    }
}

#[tokio::test]
async fn a_stream_of_events_tells_of_changes_and_ends_with_the_process() {
    let mut served = serve(&[]).await;
    let mut stream = served.operator("/offpeak/admin/events").await;
    assert_eq!(
        stream.headers()["content-type"],
        "text/event-stream; charset=utf-8"
    );
    assert_eq!(stream.headers()["x-accel-buffering"], "no");
    let mut read = String::new();
    let first = event(&mut stream, &mut read).await.unwrap();
    assert_eq!(first["object"], "offpeak.status");
    assert_eq!(first["ended_since_start"], 0);

    served.defer("Hello", &[]).await;
    loop {
        let next = event(&mut stream, &mut read).await.unwrap();
        if next["ended_since_start"] == 1 {
            break;
        }
    }
    served
        .ask(Method::POST, "/offpeak/admin/pause", OPERATOR)
        .await;
    while event(&mut stream, &mut read).await.unwrap()["paused"] == false {}

    served.stop.cancel();
    while event(&mut stream, &mut read).await.is_some() {}
    while let Some(ended) = timeout(HANG, served.running.join_next()).await.unwrap() {
        ended.unwrap().unwrap();
    }
}

#[tokio::test]
async fn so_many_streams_are_open_at_a_time() {
    let served = serve(&[]).await;
    let mut streams = Vec::new();
    for _one in 0..16 {
        let mut stream = served.operator("/offpeak/admin/events").await;
        assert!(event(&mut stream, &mut String::new()).await.is_some());
        streams.push(stream);
    }
    let refused = served.operator("/offpeak/admin/events").await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.headers()["retry-after"], "15");
    let body: Value = refused.json().await.unwrap();
    assert_eq!(body["error"]["code"], "too_many_streams");
    // One that is closed makes room for another.
    streams.pop();
    let again = async { while served.operator("/offpeak/admin/events").await.status() != 200 {} };
    timeout(HANG, again).await.unwrap();
}

/// The whole of it: a batch that hangs, the way out of it, and the webhook.
#[tokio::test]
async fn a_timeline_tells_a_rescue_and_its_webhook_in_order() {
    let (heard, mut events) = mpsc::channel::<()>(8);
    let hear = async |State(heard): State<mpsc::Sender<()>>| heard.send(()).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = format!("http://{}", listener.local_addr().unwrap());
    let receiver = Router::new().route("/", post(hear)).with_state(heard);
    let mut receiving = JoinSet::new();
    receiving.spawn(async move { axum::serve(listener, receiver).await });
    let served = serve(&[
        ("webhook.allow", &target),
        ("rescue.reserve", "2s"),
        ("live.expected", "100ms"),
        ("ladder.batch.median", "100ms"),
        ("ladder.batch.p90", "300ms"),
        ("watch.poll_max", "100ms"),
    ])
    .await;
    let body = json!({
        "model": "gpt-4o-mini",
        "messages": [{"role": "user", "content": "never in a batch"}],
        "metadata": {"sim": "never"},
    });
    let call = served
        .http
        .post(format!("{}/v1/chat/completions", served.base));
    let call = call.bearer_auth(KEY).header("Offpeak-Deadline", "8s");
    let taken = call.header("Offpeak-Webhook", &target).json(&body).send();
    let taken = taken.await.unwrap();
    assert_eq!(taken.status(), 202);
    let id = taken.headers()["offpeak-request-id"].to_str().unwrap();
    timeout(HANG, events.recv()).await.unwrap().unwrap();

    let path = format!("/offpeak/v1/requests/{id}");
    let delivered = async {
        loop {
            let told = served.object(&path).await;
            if told["webhook"]["status"] == "delivered" {
                return told;
            }
        }
    };
    let told = timeout(HANG, delivered).await.unwrap();
    let timeline = told["timeline"].as_array().unwrap();
    let names: Vec<&str> = timeline
        .iter()
        .map(|event| event["event"].as_str().unwrap())
        .collect();
    let expected = [
        "admitted",
        "packed",
        "submitted",
        "rescued",
        "attempt_started",
        "answered",
        "delivered",
    ];
    assert_eq!(names, expected, "{told:#}");
    let times: Vec<&str> = timeline
        .iter()
        .map(|event| event["at"].as_str().unwrap())
        .collect();
    assert!(times.is_sorted(), "{times:?}");
    let reason = |at: usize| timeline[at]["reason"].as_str().unwrap();
    assert!(reason(0).contains("left"), "{}", reason(0));
    assert!(reason(1).contains("line"), "{}", reason(1));
    assert!(reason(5).starts_with("rescued: "), "{}", reason(5));
    assert_eq!(reason(6), "at the first try");
    for batched in [1, 2, 3] {
        assert_eq!(timeline[batched]["batch_id"], timeline[1]["batch_id"]);
    }
    assert!(
        timeline[2]["provider_id"]
            .as_str()
            .unwrap()
            .starts_with("batch_")
    );
    assert_eq!(timeline[4]["lane"], "standard");
    assert_eq!(timeline[5]["cost_usd"], told["cost_usd"]);
    for event in timeline {
        for name in ["lane", "batch_id", "provider_id", "reason", "cost_usd"] {
            assert!(event.get(name).is_some(), "{name}: {event}");
        }
    }
}

#[tokio::test]
async fn dead_letters_of_all_tenants_are_listed_and_sent_again() {
    let takes = Arc::new(AtomicBool::new(false));
    let hear = async |State(takes): State<Arc<AtomicBool>>| match takes.load(Ordering::Relaxed) {
        true => StatusCode::OK,
        false => StatusCode::GONE,
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = format!("http://{}", listener.local_addr().unwrap());
    let receiver = Router::new()
        .route("/{*any}", post(hear))
        .with_state(takes.clone());
    let mut receiving = JoinSet::new();
    receiving.spawn(async move { axum::serve(listener, receiver).await });
    let served = serve(&[("webhook.allow", &target)]).await;
    let mut asked = BTreeSet::new();
    for (number, key) in [KEY, OTHER, OTHER].into_iter().enumerate() {
        let target = format!("{target}/{number}");
        let hook = [("Offpeak-Webhook", target.as_str())];
        asked.insert(
            served
                .defer_as(key, &format!("Hello {number}"), &hook)
                .await,
        );
    }
    let all_dead =
        async { while served.all_of("/offpeak/admin/webhooks?limit=2").await.len() < 3 {} };
    timeout(HANG, all_dead).await.unwrap();
    let dead = served
        .all_of("/offpeak/admin/webhooks?limit=1&status=dead")
        .await;
    let found: BTreeSet<String> = dead
        .iter()
        .map(|row| row["request_id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(found, asked);
    assert!(dead.iter().all(|row| row["status"] == "dead"));
    let tenants: Vec<&str> = dead
        .iter()
        .map(|row| row["tenant"].as_str().unwrap())
        .collect();
    let mut twice = tenants
        .iter()
        .filter(|it| tenants.iter().filter(|one| one == it).count() == 2);
    let whose = twice.next().unwrap();
    let theirs = format!("/offpeak/admin/webhooks?limit=1&tenant={whose}");
    assert_eq!(served.all_of(&theirs).await.len(), 2);
    let status = served.told("/offpeak/admin/status").await;
    assert_eq!(status["delivery"], json!({"pending": 0, "dead": 3}));

    takes.store(true, Ordering::Relaxed);
    let id = dead[0]["request_id"].as_str().unwrap();
    let path = format!("/offpeak/admin/requests/{id}/redeliver");
    let again = served.ask(Method::POST, &path, OPERATOR).await;
    assert_eq!(again.status(), 202);
    let path = format!("/offpeak/admin/requests/{id}");
    let taken = async {
        loop {
            let told = served.told(&path).await;
            if told["webhook"]["status"] == "delivered" {
                return told;
            }
        }
    };
    let told = timeout(HANG, taken).await.unwrap();
    let last = told["timeline"].as_array().unwrap().last().unwrap();
    assert_eq!(last["event"], "delivered");
    assert_eq!(
        served.all_of("/offpeak/admin/webhooks?limit=2").await.len(),
        2
    );
}
