//! docs/openapi.json against the server: it is OpenAPI, it has every route and no
//! other, and every operation answers as it says, field for field.

mod contract;
mod document;
mod routes;

use std::path::Path;

use self::{
    contract::{Call, Contract, Told},
    document::{Document, escaped},
};
use super::{webhooks::Receiver, *};
use crate::app::TestApp;

/// "The description of OpenAPI v3.1.x documents", 2022-10-07, by the OpenAPI
/// Initiative, Apache-2.0: <https://spec.openapis.org/oas/3.1/schema/2022-10-07>.
const OPENAPI: &str = include_str!("openapi/oas-3.1.json");

#[test]
fn the_document_is_openapi_and_its_schemas_are_schemas() {
    let document = Document::read();
    let schema: Value = serde_json::from_str(OPENAPI).unwrap();
    let validator = jsonschema::draft202012::new(&schema).unwrap();
    let errors = validator.iter_errors(&document.json);
    let errors: Vec<String> = errors
        .map(|error| format!("at {}: {error}", error.instance_path()))
        .collect();
    assert_eq!(errors, [""; 0]);
    let version = document.json["info"]["version"].as_str().unwrap();
    assert_eq!(version, env!("CARGO_PKG_VERSION"));

    // Which that schema leaves to others.
    for (name, schema) in document.json["components"]["schemas"].as_object().unwrap() {
        let valid = jsonschema::draft202012::meta::validate(schema);
        assert!(valid.is_ok(), "{name}: {:?}", valid.err());
    }
    let mut references = Vec::new();
    gather(&document.json, "$ref", &mut references);
    assert!(references.len() > 50, "the search finds nothing");
    for reference in references {
        let target = reference.as_str().unwrap().strip_prefix('#').unwrap();
        assert!(document.json.pointer(target).is_some(), "{reference}");
    }
    let mut names = Vec::new();
    gather(&document.json, "operationId", &mut names);
    let mut once = names.clone();
    once.dedup_by_key(|name| name.to_string());
    assert_eq!(once.len(), names.len(), "an operation's name stands twice");
    for operation in document.operations() {
        let parameters = document.parameters(&operation);
        let declared = parameters.iter().filter(|it| it["in"] == "path").count();
        assert_eq!(declared, operation.1.matches('{').count(), "{operation:?}");
    }
}

fn gather<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a Value>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| gather(item, key, found)),
        Value::Object(object) => {
            found.extend(object.get(key));
            object.values().for_each(|item| gather(item, key, found));
        }
        _ => {}
    }
}

#[test]
fn every_route_is_in_the_document_and_nothing_else() {
    let namespace = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/edge/namespace");
    assert_eq!(routes::declared(&namespace), Document::read().operations());
}

#[test]
fn examples_are_what_they_are_examples_of_and_one_field_more_is_seen() {
    let document = Document::read();
    let mut examples = 0;
    for (path, item) in document.json["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let at = format!("/paths/{}/{method}", escaped(path));
            let responses = operation["responses"].as_object().into_iter().flatten();
            let responses = responses.map(|(status, it)| (format!("/responses/{status}"), it));
            let request = [("/requestBody".to_owned(), &operation["requestBody"])];
            for (below, has) in responses.chain(request) {
                let media = &has["content"]["application/json"];
                let Some(example) = media.get("example") else {
                    continue;
                };
                examples += 1;
                let schema = format!("{at}{below}/content/application~1json/schema");
                assert_eq!(document.breaches(&schema, example), [""; 0], "{schema}");
                let mut more = example.clone();
                more["no_such"] = 1.into();
                assert_ne!(document.breaches(&schema, &more), [""; 0], "{schema}");
            }
        }
    }
    assert!(examples > 5, "the search finds nothing");
    // What is put together is closed too.
    let mut row = sums();
    let row_of = "/components/schemas/Savings/properties/by_model/items";
    assert_ne!(document.breaches(row_of, &row), [""; 0]);
    row["model"] = "gpt-4o-mini".into();
    assert_eq!(document.breaches(row_of, &row), [""; 0]);
    row["no_such"] = 1.into();
    assert_ne!(document.breaches(row_of, &row), [""; 0]);
}

fn sums() -> Value {
    json!({"requests": 1, "succeeded": 1, "late": 0, "rescued": 0, "paid_twice": 0,
        "unaccounted": 0, "unpriced": 0, "paid_usd": "0.00", "standard_usd": "0.00",
        "saved_usd": "-0.01", "rescue_paid_usd": "0.00",
        "slack": [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
        "usage": {"input_tokens": 1, "cached_tokens": 0, "cache_write_tokens": 0,
            "output_tokens": 1}})
}

#[tokio::test]
async fn every_operation_answers_as_the_document_says() {
    let document = Document::read();
    let receiver = Receiver::start().await;
    let served = serve(&[
        ("webhook.allow", &receiver.origin),
        ("shadow.deadline", "6h"),
        ("rescue.budget_usd_per_day", "25"),
    ])
    .await;
    let mut contract = Contract::new(&document, served.http.clone());
    Day {
        contract: &mut contract,
        served: &served,
        receiver,
    }
    .play()
    .await;
    issued_keys(&mut contract).await;
    assert_eq!(contract.proven, document.operations());
    assert_eq!(contract.queries, document.queries());
}

/// A server that is asked everything.
struct Day<'a, 'd> {
    contract: &'a mut Contract<'d>,
    served: &'a Served,
    receiver: Receiver,
}

impl Day<'_, '_> {
    async fn play(mut self) {
        self.before_the_first_call().await;
        let fine = self.answered().await;
        let open = self.open().await;
        self.requests(&fine, &open).await;
        self.webhooks().await;
        self.money().await;
        self.operators().await;
        self.everybodys(&fine, &open).await;
        self.upstream_events().await;
        self.key().await;
    }

    async fn ask(&mut self, method: Method, path: &str, expected: u16) -> Told {
        self.with(method, path, Some(KEY), json!(null), expected)
            .await
    }

    async fn get(&mut self, path: &str) -> Told {
        self.ask(Method::GET, path, 200).await
    }

    async fn post(&mut self, path: &str, body: Value, expected: u16) -> Told {
        self.with(Method::POST, path, Some(KEY), body, expected)
            .await
    }

    async fn operate(&mut self, method: Method, path: &str, expected: u16) -> Told {
        let path = format!("/offpeak/admin/{path}");
        self.with(method, &path, Some(OPERATOR), json!(null), expected)
            .await
    }

    async fn with(
        &mut self,
        method: Method,
        path: &str,
        key: Option<&str>,
        body: Value,
        expected: u16,
    ) -> Told {
        let call = Call::new(format!("{}{path}", self.served.base), key, body);
        self.contract.ask(method, call, expected).await
    }

    async fn before_the_first_call(&mut self) {
        for path in ["/healthz", "/readyz", "/metrics"] {
            self.with(Method::GET, path, None, json!(null), 200).await;
        }
        let unasked = "/offpeak/v1/savings";
        self.with(Method::GET, unasked, None, json!(null), 401)
            .await;
        self.ask(Method::GET, "/offpeak/admin/status", 401).await;
        let target = json!({"target": "https://example.com/"});
        let told = self.post("/offpeak/v1/webhooks/test", target, 403).await;
        assert_eq!(told.code(), "no_calls_yet");
        self.get("/offpeak/v1/results").await;
    }

    /// A request that has ended, and whose webhook was delivered.
    async fn answered(&mut self) -> String {
        let target = format!("{}/hook", self.receiver.origin);
        let headers = [
            ("Offpeak-Webhook", target.as_str()),
            ("Offpeak-Tag", "nightly"),
        ];
        let id = self.served.defer("fine", &headers).await;
        let told = self.get("/offpeak/v1/results?wait=60&limit=1").await;
        let line: Value = serde_json::from_slice(&told.body).unwrap();
        assert_eq!(line["id"], id);
        let cursor = line["cursor"].as_str().unwrap();
        self.get(&format!("/offpeak/v1/results?after={cursor}"))
            .await;
        self.delivery("requestEnded").await;
        self.served.stand("delivered", 1).await;
        id
    }

    /// What came is as documented among the document's own webhooks.
    async fn delivery(&mut self, which: &str) {
        let (headers, body) = self.receiver.next().await;
        let at = format!("/webhooks/{which}/post");
        let body: Value = serde_json::from_slice(&body).unwrap();
        let schema = format!("{at}/requestBody/content/application~1json/schema");
        self.contract.hold(&schema, &body);
        for header in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
            assert!(headers.contains_key(header));
        }
        assert_eq!(headers["webhook-id"], body["id"].as_str().unwrap());
    }

    /// A request whose batch never ends, at the provider.
    async fn open(&mut self) -> String {
        let body = json!({"model": "gpt-4o-mini", "metadata": {"sim": "never"},
            "messages": [{"role": "user", "content": "never"}]});
        let call = self
            .served
            .http
            .post(format!("{}/v1/chat/completions", self.served.base));
        let call = call.bearer_auth(KEY).header("Offpeak-Deadline", "7days");
        let call = call.header("Prefer", "respond-async").json(&body);
        let response = call.send().await.unwrap();
        assert_eq!(response.status(), 202);
        let id = response.headers()["offpeak-request-id"]
            .to_str()
            .unwrap()
            .to_owned();
        let submitted = async {
            loop {
                let status = self.operate(Method::GET, "status", 200).await.json();
                if status["batches"][0]["state"] == "submitted" {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        timeout(HANG, submitted).await.unwrap();
        id
    }

    async fn requests(&mut self, fine: &str, open: &str) {
        let list = "/offpeak/v1/requests";
        let all = self.get(list).await.json();
        assert_eq!(all["data"].as_array().unwrap().len(), 2);
        let filters = "status=succeeded&tag=nightly&model=gpt-4o-mini\
                       &endpoint=/v1/chat/completions&created_after=1&limit=1\
                       &created_before=2100-01-01T00:00:00Z";
        let found = self.get(&format!("{list}?{filters}")).await.json();
        assert_eq!(found["data"][0]["id"], fine);
        let page = self.get(&format!("{list}?limit=1")).await.json();
        let next = page["next"].as_str().unwrap();
        self.get(&format!("{list}?limit=1&after={next}")).await;
        self.ask(Method::GET, &format!("{list}?no_such=1"), 400)
            .await;

        let none = format!("{list}/op_00000000000000000000000000");
        self.ask(Method::GET, &none, 404).await;
        let ended = self.get(&format!("{list}/{fine}")).await.json();
        assert_eq!(ended["webhook"]["status"], "delivered");
        let placed = self.get(&format!("{list}/{open}")).await.json();
        assert_eq!(placed["place"]["kind"], "batch");

        let again = format!("{list}/{fine}/redeliver");
        self.ask(Method::POST, &again, 202).await;
        self.delivery("requestEnded").await;
        self.ask(Method::POST, &format!("{list}/{open}/redeliver"), 409)
            .await;
        self.ask(Method::POST, &format!("{list}/{fine}/cancel"), 409)
            .await;
        self.ask(Method::POST, &format!("{list}/{open}/cancel"), 200)
            .await;
        // Its line in the feed is an error of ours.
        self.get("/offpeak/v1/results?limit=2").await;
    }

    async fn webhooks(&mut self) {
        let own = "/offpeak/v1/webhooks";
        let target = json!({"target": format!("{}/hook", self.receiver.origin)});
        self.get("/offpeak/v1/webhook-secret").await;
        let rotate = "/offpeak/v1/webhook-secret/rotate";
        let told = self.post(rotate, json!(null), 200).await.json();
        assert_ne!(told["previous_until"], Value::Null);
        self.post(rotate, json!({"expire_previous": true}), 200)
            .await;
        self.post(rotate, json!({"no_such": true}), 400).await;

        let told = self.post(&format!("{own}/test"), target.clone(), 200).await;
        assert_eq!(told.json()["delivered"], true);
        self.delivery("test").await;
        *self.receiver.status.lock() = StatusCode::GONE;
        let told = self.post(&format!("{own}/test"), target.clone(), 200).await;
        assert_eq!(told.json()["status_code"], 410);
        self.delivery("test").await;
        let inside = json!({"target": "https://10.0.0.1/"});
        self.post(&format!("{own}/test"), inside, 400).await;

        let hook = target["target"].as_str().unwrap().to_owned();
        let headers = [("Offpeak-Webhook", hook.as_str())];
        for number in 0..2 {
            self.served.defer(&format!("gone {number}"), &headers).await;
        }
        self.served.stand("dead", 2).await;
        let dead = self.get(&format!("{own}?status=dead&limit=1")).await.json();
        assert_eq!(dead["data"][0]["status"], "dead");
        let page = self.get(&format!("{own}?limit=1")).await.json();
        let next = page["next"].as_str().unwrap();
        self.get(&format!("{own}?after={next}")).await;
        self.ask(Method::GET, &format!("{own}?after=nothing"), 400)
            .await;
        let off = self.get(&format!("{own}/endpoints")).await.json();
        assert_eq!(off["data"][0]["status"], "off");
        let again = self.post(&format!("{own}/redeliver"), target, 202).await;
        assert_eq!(again.json()["redelivered"], 2);
        // The receiver says so again.
        self.served.stand("dead", 2).await;
    }

    async fn money(&mut self) {
        let savings = self.get("/offpeak/v1/savings?by=hour").await.json();
        for rows in [
            "by_model",
            "by_tag",
            "by_lane",
            "by_day",
            "by_hour",
            "rescue_budget",
        ] {
            assert_ne!(savings[rows], json!([]), "{rows}");
        }
        self.get("/offpeak/v1/savings?since=1&until=2100-01-01T00:00:00Z")
            .await;
        self.ask(Method::GET, "/offpeak/v1/savings?by=moon", 400)
            .await;
        for of in ["v1", "admin"] {
            let rows = format!("/offpeak/{of}/ledger?since=1&until=2100-01-01T00:00:00Z");
            let key = if of == "v1" { KEY } else { OPERATOR };
            for format in ["json", "csv"] {
                let path = format!("{rows}&format={format}");
                let told = self
                    .with(Method::GET, &path, Some(key), json!(null), 200)
                    .await;
                assert!(
                    String::from_utf8_lossy(&told.body).contains("nightly"),
                    "{path}"
                );
            }
        }
        let body = json!({"model": "gpt-4o-mini",
            "messages": [{"role": "user", "content": "passes"}]});
        let url = format!("{}/v1/chat/completions", self.served.base);
        let passed = self.served.http.post(url).bearer_auth(KEY).json(&body);
        let passed = passed.send().await.unwrap();
        assert_eq!(passed.status(), 200);
        passed.bytes().await.unwrap();
        let counted = async {
            loop {
                let shadow = self.get("/offpeak/v1/shadow").await.json();
                if shadow["total"]["calls"] == 1 {
                    return;
                }
            }
        };
        timeout(HANG, counted).await.unwrap();
        let all = self.operate(Method::GET, "shadow", 200).await.json();
        assert_ne!(all["by_tenant"], json!([]));
        let known = self.get("/offpeak/v1/turnaround").await.json();
        let kinds: Vec<&str> = known["data"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|item| item["what"].as_str())
            .collect();
        assert!(kinds.contains(&"batch"), "{kinds:?}");
        self.operate(Method::GET, "turnaround", 200).await;
    }

    async fn operators(&mut self) {
        for what in ["pause", "resume", "flush"] {
            self.operate(Method::POST, what, 200).await;
        }
        let told = self.operate(Method::GET, "events", 200).await;
        let event = String::from_utf8(told.body).unwrap();
        let data = event.strip_prefix("event: status\ndata: ").unwrap();
        let status: Value = serde_json::from_str(data).unwrap();
        self.contract.hold("/components/schemas/Status", &status);
        let ended = self
            .operate(Method::GET, "batches?limit=500", 200)
            .await
            .json();
        let is_ended = |batch: &Value| !batch["ended_at"].is_null();
        assert!(ended["data"].as_array().unwrap().iter().any(is_ended));
        self.operate(Method::GET, "backup", 200).await;
        let refused = self.operate(Method::GET, "keys", 409).await;
        assert_eq!(refused.code(), "keys_not_issued");
    }

    /// Of all tenants, which here are one.
    async fn everybodys(&mut self, fine: &str, open: &str) {
        let ended = self.operate(Method::GET, "requests?status=ended&limit=1", 200);
        let ended = ended.await.json();
        let tenant = ended["data"][0]["tenant"].as_str().unwrap().to_owned();
        let next = ended["next"].as_str().unwrap();
        for query in [
            format!("requests?status=ended&after={next}"),
            format!("requests?tenant={tenant}&tag=nightly&model=gpt-4o-mini"),
            "requests?status=queued&created_before=2100-01-01T00:00:00Z".to_owned(),
            format!("savings?by=hour&since=1&until=2100-01-01T00:00:00Z&tenant={tenant}"),
            format!("ledger?tenant={tenant}"),
            format!("requests/{fine}?tenant={tenant}"),
        ] {
            self.operate(Method::GET, &query, 200).await;
        }
        let all = self.operate(Method::GET, "savings", 200).await.json();
        assert_eq!(all["by_tenant"][0]["tenant"], tenant);
        let dead = self.operate(Method::GET, "webhooks?status=dead&limit=1", 200);
        let dead = dead.await.json();
        let next = dead["next"].as_str().unwrap();
        let rest = format!("webhooks?tenant={tenant}&after={next}");
        self.operate(Method::GET, &rest, 200).await;
        self.operate(Method::GET, "webhooks?status=pending", 400)
            .await;
        for (id, what, expected) in [
            (fine, "cancel", 409),
            (open, "cancel", 200),
            (open, "redeliver", 409),
            (fine, "redeliver", 202),
        ] {
            let path = format!("requests/{id}/{what}?tenant={tenant}");
            self.operate(Method::POST, &path, expected).await;
        }
        self.operate(Method::GET, "requests/op_none", 404).await;
    }

    async fn upstream_events(&mut self) {
        let event = json!({"type": "batch.completed", "data": {"id": "batch_none"}});
        let body = event.to_string().into_bytes();
        let at = now().as_secs() as i64;
        let signer = standardwebhooks::Webhook::new(UPSTREAM).unwrap();
        let signed = signer.sign("wh_1", at, &body).unwrap();
        for (signature, expected) in [(signed.as_str(), 200), ("v1,AAAA", 401)] {
            let call = Call {
                url: format!("{}/offpeak/webhooks/openai", self.served.base),
                key: None,
                headers: vec![
                    ("webhook-id", "wh_1".into()),
                    ("webhook-timestamp", at.to_string()),
                    ("webhook-signature", signature.into()),
                ],
                body: body.clone(),
            };
            self.contract.ask(Method::POST, call, expected).await;
        }
    }

    /// Last: the tenant moves away.
    async fn key(&mut self) {
        let path = "/offpeak/v1/credential";
        self.get(path).await;
        let told = self.post(path, json!(null), 400).await;
        assert_eq!(told.code(), "missing_header");
        let moving = |served: &Served, from: &str| Call {
            url: format!("{}{path}?keep_previous=true&force=true", served.base),
            key: Some("sk-another"),
            headers: vec![("Offpeak-Previous-Authorization", format!("Bearer {from}"))],
            body: Vec::new(),
        };
        for (from, expected) in [("sk-nobody", 404), ("sk-another", 409), (KEY, 200)] {
            let call = moving(self.served, from);
            self.contract.ask(Method::POST, call, expected).await;
        }
    }
}

/// What only a server that issues keys has to say.
async fn issued_keys(contract: &mut Contract<'_>) {
    let keys = [
        ("OFFPEAK_AUTH__MODE", "keys"),
        ("OFFPEAK_AUTH__UPSTREAM__DEFAULT__KEY_ENV", "UPSTREAM_KEY"),
    ];
    let app = TestApp::with_keys(&keys, &[("UPSTREAM_KEY", "sk-of-the-server")]).await;
    let token = app.admin_token();
    let base = format!("http://{}/offpeak", app.address);
    let wanted = json!({"name": "nightly evals", "tenant": "evals", "models": ["gpt-4o*"],
        "expires": "90days", "requests_per_minute": 600, "budget_usd_per_month": "25",
        "passthrough": true});
    let created = Call::new(format!("{base}/admin/keys"), Some(&token), wanted);
    let created = contract.ask(Method::POST, created, 201).await.json();
    let key = created["key"].as_str().unwrap().to_owned();
    let bad = Call::new(
        format!("{base}/admin/keys"),
        Some(&token),
        json!({"name": 7}),
    );
    let bad = contract.ask(Method::POST, bad, 400).await;
    assert_eq!(bad.code(), "invalid_key");
    for (method, path, key, expected) in [
        (Method::GET, "admin/keys", &token, 200),
        (Method::GET, "v1/turnaround", &key, 403),
        (Method::POST, "v1/credential", &key, 409),
        (Method::DELETE, "admin/keys/ok_nothing", &token, 404),
    ] {
        let asked = Call::new(format!("{base}/{path}"), Some(key), Value::Null);
        contract.ask(method, asked, expected).await;
    }
    let id = created["id"].as_str().unwrap();
    let path = format!("admin/keys/{id}");
    let revoked = Call::new(format!("{base}/{path}"), Some(&token), Value::Null);
    let revoked = contract.ask(Method::DELETE, revoked, 200).await.json();
    assert_eq!(revoked["status"], "revoked");
    let refused = Call::new(format!("{base}/v1/savings"), Some(&key), Value::Null);
    let refused = contract.ask(Method::GET, refused, 401).await;
    assert_eq!(refused.code(), "key_revoked");
    app.finish().await;
}

fn now() -> offpeak::model::time::Timestamp {
    SystemClock::new().now()
}
