//! Keys that this server issues, on real sockets: what each opens, what it does not,
//! and that the provider never sees one.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    middleware::{self, Next},
    response::Response,
};
use http::{HeaderMap, Method};
use http_body_util::BodyExt;
use offpeak::simulator::{self, Simulator};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};

use super::{CHAT, SIX_HOURS, chat};
use crate::{app::TestApp, wire::Answer};

const UPSTREAM_KEY: &str = "sk-acme.secret-of-the-server";
const KEYS: [(&str, &str); 3] = [
    ("OFFPEAK_AUTH__MODE", "keys"),
    ("OFFPEAK_AUTH__UPSTREAM__DEFAULT__KEY_ENV", "UPSTREAM_KEY"),
    ("OFFPEAK_AUTH__UPSTREAM__DEFAULT__PROJECT", "proj_ours"),
];

/// What the provider heard.
struct Heard {
    line: String,
    headers: HeaderMap,
    body: Bytes,
}

impl Heard {
    fn has_passed(&self) -> bool {
        self.headers.contains_key("x-from-the-caller")
    }
}

/// Goes along with a call that passes, and with no other.
const PASSES: &str = "x-from-the-caller: yes";

type Hearing = Arc<Mutex<Vec<Heard>>>;

/// A server that issues keys, in front of a provider that writes down what it hears.
struct Site {
    app: TestApp,
    heard: Hearing,
    issued: AtomicUsize,
    _serving: JoinSet<()>,
}

async fn listen(State(heard): State<Hearing>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    heard.lock().push(Heard {
        line: format!("{} {}", parts.method, parts.uri),
        headers: parts.headers.clone(),
        body: body.clone(),
    });
    next.run(Request::from_parts(parts, Body::from(body))).await
}

async fn recording(serving: &mut JoinSet<()>) -> (SocketAddr, Hearing) {
    let mut quick = simulator::Settings::default();
    let latency = &mut quick.latency;
    for duration in [
        &mut latency.validation,
        &mut latency.finalizing,
        &mut latency.live_chunk,
        &mut latency.turnaround_median,
        &mut latency.live_median,
    ] {
        *duration = std::time::Duration::from_millis(2);
    }
    latency.turnaround_sigma = 0.0;
    latency.stalled_share = 0.0;
    let now = offpeak::app::SystemClock::new().now();
    let heard = Hearing::default();
    let router: Router = Simulator::new(quick, now)
        .router()
        .layer(middleware::from_fn_with_state(heard.clone(), listen));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    serving.spawn(async move { axum::serve(listener, router).await.unwrap() });
    (address, heard)
}

impl Site {
    async fn start(more: &[(&str, &str)]) -> Site {
        let mut serving = JoinSet::new();
        let (address, heard) = recording(&mut serving).await;
        let base = format!("http://{address}/v1");
        let mut settings = KEYS.to_vec();
        settings.push(("OFFPEAK_UPSTREAM__BASE_URL", &base));
        settings.extend(more);
        let app = TestApp::with_keys(&settings, &[("UPSTREAM_KEY", UPSTREAM_KEY)]).await;
        Site {
            app,
            heard,
            issued: AtomicUsize::new(0),
            _serving: serving,
        }
    }

    async fn admin(&self, line: &str, body: &Value) -> Answer {
        let token = format!("authorization: Bearer {}", self.app.admin_token());
        let body = match body {
            Value::Null => String::new(),
            body => body.to_string(),
        };
        self.app.caller().await.call(line, &[&token], body).await
    }

    /// Issues a key; its id and its text.
    async fn issue(&self, more: Value) -> (String, String) {
        let number = self.issued.fetch_add(1, Ordering::Relaxed);
        let mut wanted = json!({"name": format!("the laptop {number}")});
        for (field, value) in more.as_object().unwrap() {
            wanted[field] = value.clone();
        }
        let answer = self.admin("POST /offpeak/admin/keys", &wanted).await;
        assert_eq!(answer.status(), 201, "{}", answer.text());
        assert_eq!(answer.head.value("cache-control"), "no-store");
        let key = answer.json();
        let text = |field: &str| key[field].as_str().unwrap().to_owned();
        (text("id"), text("key"))
    }

    async fn call(&self, line: &str, key: &str, more: &[&str], body: &str) -> Answer {
        let key = format!("authorization: Bearer {key}");
        let own = [key.as_str(), PASSES];
        let headers: Vec<&str> = own.into_iter().chain(more.iter().copied()).collect();
        self.app.caller().await.call(line, &headers, body).await
    }

    async fn code(&self, line: &str, key: &str, more: &[&str], body: &str) -> (u16, String) {
        let answer = self.call(line, key, more, body).await;
        (answer.status(), answer.error_code())
    }

    /// Calls that passed through; the server makes others of its own meanwhile.
    fn passed(&self) -> usize {
        let heard = self.heard.lock();
        heard.iter().filter(|it| it.has_passed()).count()
    }

    fn last_passed(&self) -> Bytes {
        let heard = self.heard.lock();
        let mut passed = heard.iter().filter(|it| it.has_passed());
        passed.next_back().unwrap().body.clone()
    }

    /// How often the provider was asked for something.
    fn heard_of(&self, line: &str) -> usize {
        let heard = self.heard.lock();
        heard.iter().filter(|it| it.line == line).count()
    }

    /// Nothing that the provider heard is of any caller's, and all is of the server's.
    fn assert_only_the_server_s_key(&self, issued: &[&str]) {
        let heard = self.heard.lock();
        assert!(!heard.is_empty());
        for Heard {
            line,
            headers,
            body,
        } in &*heard
        {
            let wanted = format!("Bearer {UPSTREAM_KEY}");
            let values = |name: &str| {
                let values = headers.get_all(name).iter();
                values.map(|it| it.to_str().unwrap()).collect::<Vec<_>>()
            };
            assert_eq!(values("authorization"), [wanted.as_str()], "{line}");
            assert_eq!(values("openai-project"), ["proj_ours"], "{line}");
            for absent in ["api-key", "x-api-key", "openai-organization"] {
                assert!(values(absent).is_empty(), "{line}: {absent}");
            }
            for key in issued {
                let shown = format!("{headers:?} {line}");
                assert!(!shown.contains(key), "{shown}");
                assert!(!contains(body, key), "{line}");
            }
        }
    }
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes
        .windows(text.len())
        .any(|window| window == text.as_bytes())
}

/// Whether any file below holds the text.
fn is_kept(directory: &Path, text: &str) -> bool {
    fs::read_dir(directory).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => is_kept(&path, text),
            false => contains(&fs::read(path).unwrap(), text),
        }
    })
}

#[tokio::test]
async fn a_key_calls_with_the_server_s_own_until_it_is_revoked() {
    let mut site = Site::start(&[]).await;
    let (id, key) = site.issue(json!({"expires": "90days"})).await;
    assert!(key.starts_with("ofp_") && key.len() == 47, "{key}");
    let foreign = [
        "openai-organization: org-theirs",
        "openai-project: proj_theirs",
        "api-key: their-own",
        "x-api-key: their-own",
    ];

    // Deferred, passed through, asked about.
    let more = [&foreign[..], &[SIX_HOURS]].concat();
    let answer = site.call(CHAT, &key, &more, &chat("deferred", "")).await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    assert_eq!(answer.head.value("offpeak-lane"), "batch");
    let op = answer.head.id();
    let passed = chat("passed", "");
    let answer = site.call(CHAT, &key, &foreign, &passed).await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    assert_eq!(site.last_passed(), passed, "byte for byte");
    let within = "GET /within/6h/v1/models/gpt-4o-mini";
    let answer = site.call(within, &key, &foreign, "").await;
    assert_eq!(
        (answer.status(), answer.head.value("offpeak-reason")),
        (200, "not-deferrable")
    );
    // As Azure's SDK presents it, and with a header that only this server knows.
    let mut caller = site.app.caller().await;
    let as_azure = format!("api-key: {key}");
    let previous = format!("offpeak-previous-authorization: Bearer {key}");
    let headers = ["authorization: Bearer", &as_azure, &previous];
    let answer = caller.call(CHAT, &headers, &passed).await;
    assert_eq!(answer.status(), 200, "{}", answer.text());

    let own = [
        "/offpeak/v1/requests",
        "/offpeak/v1/savings",
        "/offpeak/v1/credential",
    ];
    for path in own {
        let answer = site.call(&format!("GET {path}"), &key, &[], "").await;
        assert_eq!(answer.status(), 200, "{path}: {}", answer.text());
    }
    let poll = format!("GET /v1/chat/completions/{op}");
    assert_eq!(site.call(&poll, &key, &[], "").await.status(), 200);
    let moving = site
        .code("POST /offpeak/v1/credential", &key, &[], "")
        .await;
    assert_eq!(moving, (409, "keys_are_issued".into()));
    let listed = site
        .admin("GET /offpeak/admin/keys", &Value::Null)
        .await
        .json();
    assert_eq!(listed["data"][0]["id"], id.as_str());
    assert_eq!(listed["data"][0]["status"], "active");
    assert_eq!(listed["data"][0].get("key"), None);
    assert_ne!(listed["data"][0]["paid_usd_this_month"], "0.00");

    // It is good after a restart, and with another key behind it.
    site.app.restart().await;
    assert_eq!(site.call(&poll, &key, &[], "").await.status(), 200);
    assert_eq!(site.call(CHAT, &key, &[], &passed).await.status(), 200);

    // Revoked: for the next call, and after a restart.
    let (_, other) = site.issue(json!({})).await;
    let asked = site.passed();
    for restarts in [false, true] {
        if restarts {
            site.app.restart().await;
        }
        for _ in 0..2 {
            let line = format!("DELETE /offpeak/admin/keys/{id}");
            let revoked = site.admin(&line, &Value::Null).await;
            assert_eq!(
                (revoked.status(), &revoked.json()["status"]),
                (200, &json!("revoked"))
            );
        }
        for (line, more) in [(CHAT, &[][..]), (CHAT, &[SIX_HOURS]), (poll.as_str(), &[])] {
            let body = if line == CHAT { passed.as_str() } else { "" };
            let refused = site.call(line, &key, more, body).await;
            assert_eq!(
                (refused.status(), refused.error_code().as_str()),
                (401, "key_revoked")
            );
            assert_eq!(refused.head.value("x-should-retry"), "false");
        }
    }
    assert_eq!(site.passed(), asked, "the provider heard of it");
    assert_eq!(site.call(CHAT, &other, &[], &passed).await.status(), 200);

    let metrics = site.app.caller().await.call("GET /metrics", &[], "").await;
    let status = site.admin("GET /offpeak/admin/status", &Value::Null).await;
    let listed = site.admin("GET /offpeak/admin/keys", &Value::Null).await;
    for told in [metrics.text(), status.text(), listed.text()] {
        for key in [key.as_str(), other.as_str(), UPSTREAM_KEY] {
            assert!(!told.contains(key), "{told}");
        }
    }
    site.assert_only_the_server_s_key(&[&key, &other]);
    site.app.end().await;
    let kept = site.app.data_dir();
    assert!(is_kept(kept, "the laptop 0"), "what is kept can be found");
    for key in [key.as_str(), other.as_str(), &key[4..], UPSTREAM_KEY] {
        assert!(!is_kept(kept, key));
    }
    site.app.serve().await;
    site.app.finish().await;
}

#[tokio::test]
async fn a_key_that_opens_nothing_is_told_no_more() {
    let site = Site::start(&[]).await;
    let (_, expired) = site.issue(json!({"expires": "1ms"})).await;
    let (_, good) = site.issue(json!({})).await;
    let mut answers = Vec::new();
    let one_more = format!("{good}x");
    for key in ["", "ofp_", "sk-test", UPSTREAM_KEY, &good[..46], &one_more] {
        for (line, more) in [
            (CHAT, &[][..]),
            (CHAT, &[SIX_HOURS]),
            ("GET /v1/models", &[]),
            ("GET /v1/files", &[]),
            ("GET /v1/models", &["offpeak-deadline: 1h"]),
            ("GET /offpeak/v1/requests", &[]),
            (
                "GET /v1/chat/completions/op_01kap9kdcg0000040000000000",
                &[],
            ),
            ("POST /offpeak/v1/credential", &[]),
        ] {
            let body = if line == CHAT { "not even JSON" } else { "" };
            let refused = site.call(line, key, more, body).await;
            assert_eq!(refused.status(), 401, "{line} {key}: {}", refused.text());
            assert_eq!(refused.head.value("x-should-retry"), "false");
            answers.push(refused.text());
        }
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "one answer for all: {answers:?}");
    assert!(answers[0].contains("invalid_api_key") && answers[0].contains("ofp_"));
    for more in [&[][..], &[SIX_HOURS]] {
        let refused = site.code(CHAT, &expired, more, &chat("late", "")).await;
        assert_eq!(refused, (401, "key_expired".into()));
    }
    // Two keys are one too many.
    let two = site
        .code("GET /v1/models", &good, &["authorization: Bearer x"], "")
        .await;
    assert_eq!(two, (400, "duplicate_header".into()));
    assert_eq!(site.heard.lock().len(), 0);
    site.app.finish().await;
}

#[tokio::test]
async fn tenants_see_their_own_and_their_tenant_s_other_keys() {
    let site = Site::start(&[]).await;
    let (_, one) = site.issue(json!({"tenant": "acme"})).await;
    let (_, two) = site.issue(json!({"tenant": "acme"})).await;
    let (_, other) = site.issue(json!({"tenant": "zeta"})).await;
    let answer = site.call(CHAT, &one, &[SIX_HOURS], &chat("mine", "")).await;
    let op = answer.head.id();
    let ids = async |key: &str| {
        let listed = site
            .call("GET /offpeak/v1/requests", key, &[], "")
            .await
            .json();
        let rows = listed["data"].as_array().unwrap().clone();
        rows.into_iter()
            .map(|row| row["id"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(ids(&one).await, [op.as_str()]);
    assert_eq!(ids(&two).await, [op.as_str()]);
    assert_eq!(ids(&other).await, [""; 0]);
    for (key, status) in [(&one, 200), (&two, 200), (&other, 404)] {
        let poll = format!("GET /v1/chat/completions/{op}");
        assert_eq!(site.call(&poll, key, &[], "").await.status(), status);
    }
    let secret = async |key: &str| {
        let path = "GET /offpeak/v1/webhook-secret";
        site.call(path, key, &[], "").await.json()["secret"].clone()
    };
    assert_eq!(secret(&one).await, secret(&two).await);
    assert_ne!(secret(&one).await, secret(&other).await);
    // The provider holds the files of all tenants under one key.
    for (line, body) in [
        ("GET /v1/files", ""),
        ("GET /v1/batches", ""),
        ("GET /v1/files/file-1/content", ""),
        ("GET /v1/responses/../files", ""),
        ("GET /v1/responses/%2e%2e/files", ""),
        ("DELETE /v1/files/file-1", ""),
        ("POST /v1/batches", "{}"),
        ("GET /v1/files?after=op_01kap9kdcg0000040000000000", ""),
        ("GET /within/6h/v1/files", ""),
    ] {
        let before = site.passed();
        let refused = site.call(line, &other, &[], body).await;
        assert!(
            [403, 404].contains(&refused.status()),
            "{line}: {}",
            refused.text()
        );
        assert_eq!(site.passed(), before, "{line}");
    }
    site.assert_only_the_server_s_key(&[&one, &two, &other]);
    site.app.finish().await;
}

#[tokio::test]
async fn a_key_with_a_list_calls_what_is_on_it() {
    let site = Site::start(&[("OFFPEAK_ADMISSION__MAX_BODY_BYTES", "4096")]).await;
    let (_, listed) = site.issue(json!({"models": ["gpt-4o*", "o3"]})).await;
    let (_, free) = site.issue(json!({})).await;
    // With odd spaces, which are the provider's to see.
    let body = |model: &str| {
        format!(
            "{{ \"messages\":[{{\"role\":\"user\",\"content\":\"x\"}}],\n \"model\" : \"{model}\" }}"
        )
    };
    let twice = body("gpt-4o-mini").replace("{ ", "{ \"Model\":\"gpt-4.1\",");
    let large = body("gpt-4o-mini").replace("\"x\"", &format!("\"{}\"", "x".repeat(5_000)));
    let json = "content-type: application/json; charset=utf-8";
    let form = "content-type: multipart/form-data; boundary=b";
    let gzip = "content-encoding: gzip";
    let model = "model_not_allowed";
    let unseen = "model_not_checked";
    for (more, body, status, code) in [
        (&[json][..], body("gpt-4o-mini"), 200, ""),
        (&[], body("o3"), 200, ""),
        (
            &[json, "transfer-encoding: chunked"],
            "chunked".into(),
            200,
            "",
        ),
        (&[json, SIX_HOURS], body("gpt-4o-mini"), 200, ""),
        (&[json], body("gpt-4.1"), 403, model),
        (&[json, SIX_HOURS], body("gpt-4.1"), 403, model),
        (&[json], body("o3-mini"), 403, model),
        (&[json], twice.clone(), 403, unseen),
        (&[json, SIX_HOURS], twice.clone(), 403, unseen),
        (&[json], "{\"messages\":[]}".into(), 403, unseen),
        (&[json], "no JSON".into(), 403, unseen),
        (&[form], body("gpt-4o-mini"), 403, unseen),
        (&[json, gzip], body("gpt-4o-mini"), 403, unseen),
        (&[json], large.clone(), 413, "request_too_large"),
    ] {
        let before = site.heard_of("POST /v1/chat/completions");
        let answer = match body.as_str() {
            "chunked" => {
                let mut caller = site.app.caller().await;
                let whole = self::body_of("gpt-4o-mini");
                let head = format!(
                    "{CHAT} HTTP/1.1\r\nhost: o\r\nauthorization: Bearer {listed}\r\n{json}\r\n\
                     transfer-encoding: chunked\r\n\r\n{:x}\r\n{whole}\r\n0\r\n\r\n",
                    whole.len()
                );
                caller.write(head.as_bytes()).await;
                caller.answer().await
            }
            body => site.call(CHAT, &listed, more, body).await,
        };
        assert_eq!(
            answer.status(),
            status,
            "{more:?} {body}: {}",
            answer.text()
        );
        let passes = usize::from(status == 200 && !more.contains(&SIX_HOURS));
        let heard = site.heard_of("POST /v1/chat/completions") - before;
        assert_eq!(heard, passes, "{more:?} {body}");
        if status != 200 {
            assert_eq!(answer.error_code(), code, "{more:?} {body}");
            assert_eq!(answer.head.value("x-should-retry"), "false");
        } else if passes == 1 && body != "chunked" {
            assert_eq!(site.last_passed(), body, "byte for byte");
        }
    }
    // What names no model passes, and of a key without a list nothing is read.
    for line in ["GET /v1/models", "GET /v1/models/gpt-4.1"] {
        assert_eq!(
            site.call(line, &listed, &[], "").await.status(),
            200,
            "{line}"
        );
    }
    assert_eq!(site.call(CHAT, &free, &[], &large).await.status(), 200);
    let (status, _) = site.code(CHAT, &free, &[form], "no JSON").await;
    assert_eq!(status, 400, "the provider's own word");
    site.app.finish().await;
}

fn body_of(model: &str) -> String {
    json!({"model": model, "messages": [{"role": "user", "content": "x"}]}).to_string()
}

#[tokio::test]
async fn what_a_key_may_not_is_refused_before_the_provider_hears_of_it() {
    let site = Site::start(&[]).await;
    let (_, no_pass) = site.issue(json!({"passthrough": false})).await;
    let (_, slow) = site.issue(json!({"requests_per_minute": 2})).await;
    let (_, poor) = site
        .issue(json!({"budget_usd_per_month": "0.000001"}))
        .await;
    let (_, allowed) = site
        .issue(json!({"budget_usd_per_month": "0.000001", "passthrough": true}))
        .await;
    let body = chat("once", "");
    let before = site.passed();
    for key in [&no_pass, &poor] {
        for (line, more, body) in [
            (CHAT, &[][..], body.as_str()),
            ("GET /v1/models", &[], ""),
            ("GET /v1/models", &[SIX_HOURS], ""),
        ] {
            let refused = site.code(line, key, more, body).await;
            assert_eq!(refused, (403, "passthrough_not_allowed".into()), "{line}");
        }
    }
    let refused = site.call(CHAT, &poor, &[SIX_HOURS], &body).await;
    assert_eq!(
        (refused.status(), refused.error_code().as_str()),
        (429, "budget_exceeded")
    );
    assert_eq!(refused.head.value("x-should-retry"), "false");
    assert!(
        refused.text().contains("renewed at 20"),
        "{}",
        refused.text()
    );
    assert_eq!(site.passed(), before);
    assert_eq!(
        site.call(CHAT, &no_pass, &[SIX_HOURS], &body)
            .await
            .status(),
        200
    );
    assert_eq!(site.call(CHAT, &allowed, &[], &body).await.status(), 200);

    // One of each kind is two; the third is told when to come, and SDKs do.
    assert_eq!(
        site.call(CHAT, &slow, &[SIX_HOURS], &body).await.status(),
        200
    );
    assert_eq!(site.call(CHAT, &slow, &[], &body).await.status(), 200);
    for more in [&[][..], &[SIX_HOURS]] {
        let refused = site.call(CHAT, &slow, more, &body).await;
        assert_eq!(
            (refused.status(), refused.error_code().as_str()),
            (429, "rate_limit_exceeded")
        );
        let seconds: u64 = refused.head.value("retry-after").parse().unwrap();
        assert!((1..=30).contains(&seconds), "{seconds}");
        assert_eq!(refused.head.get("x-should-retry"), None);
    }
    // What was asked for can be asked about.
    let listed = site.call("GET /offpeak/v1/requests", &slow, &[], "").await;
    assert_eq!(listed.status(), 200);
    site.app.finish().await;
}

#[tokio::test]
async fn operators_are_told_what_is_wrong_with_a_key() {
    let site = Site::start(&[]).await;
    for (wanted, param) in [
        (json!({}), Value::Null),
        (json!({"name": "a", "colour": "red"}), Value::Null),
        (json!({"name": "a", "requests_per_minute": -1}), Value::Null),
        (json!({"name": ""}), json!("name")),
        (json!({"name": "a", "expires": "soon"}), json!("expires")),
        (
            json!({"name": "a", "expires": "2020-01-01T00:00:00Z"}),
            json!("expires"),
        ),
        (json!({"name": "a", "upstream": "eu"}), json!("upstream")),
        (json!({"name": "a", "models": ["*o"]}), json!("models")),
        (
            json!({"name": "a", "budget_usd_per_month": "$5"}),
            json!("budget_usd_per_month"),
        ),
        (
            json!({"name": "a", "requests_per_minute": 0}),
            json!("requests_per_minute"),
        ),
    ] {
        let refused = site.admin("POST /offpeak/admin/keys", &wanted).await;
        assert_eq!(refused.status(), 400, "{wanted}");
        assert_eq!(refused.error_code(), "invalid_key", "{wanted}");
        assert_eq!(refused.json()["error"]["param"], param, "{wanted}");
    }
    let (id, key) = site.issue(json!({})).await;
    let (head, last) = id.split_at(id.len() - 1);
    let other = if last == "x" { "y" } else { "x" };
    let unknown = [
        format!("DELETE /offpeak/admin/keys/{head}{other}"),
        "DELETE /offpeak/admin/keys/op_01kap9kdcg0000040000000000".into(),
    ];
    for line in unknown {
        assert_eq!(
            site.admin(&line, &Value::Null).await.status(),
            404,
            "{line}"
        );
    }
    // Operators' paths are not for callers.
    for (method, path) in [
        (Method::GET, "/offpeak/admin/keys".to_owned()),
        (Method::POST, "/offpeak/admin/keys".to_owned()),
        (Method::DELETE, format!("/offpeak/admin/keys/{id}")),
    ] {
        let (status, _) = site.code(&format!("{method} {path}"), &key, &[], "").await;
        assert_eq!(status, 401, "{method}");
    }
    site.app.finish().await;

    let app = TestApp::start().await;
    let token = format!("authorization: Bearer {}", app.admin_token());
    let mut caller = app.caller().await;
    for line in ["GET /offpeak/admin/keys", "DELETE /offpeak/admin/keys/ok_1"] {
        let refused = caller.call(line, &[&token], "").await;
        assert_eq!(
            (refused.status(), refused.error_code().as_str()),
            (409, "keys_not_issued")
        );
    }
    let wanted = json!({"name": "a"}).to_string();
    let refused = caller
        .call("POST /offpeak/admin/keys", &[&token], wanted)
        .await;
    assert_eq!(refused.error_code(), "keys_not_issued");
    app.finish().await;
}

/// A full queue that lets calls pass at full price lets none of these.
#[tokio::test]
async fn a_full_queue_passes_nothing_for_a_key_that_may_not() {
    let full = [
        ("OFFPEAK_ADMISSION__MAX_OPEN", "0"),
        ("OFFPEAK_ADMISSION__ON_FULL", "live"),
    ];
    let site = Site::start(&full).await;
    let (_, no_pass) = site.issue(json!({"passthrough": false})).await;
    let (_, passes) = site.issue(json!({})).await;
    let body = chat("full", "");
    let refused = site.code(CHAT, &no_pass, &[SIX_HOURS], &body).await;
    assert_eq!(refused, (429, "queue_full".into()));
    let answer = site.call(CHAT, &passes, &[SIX_HOURS], &body).await;
    assert_eq!(
        (answer.status(), answer.head.value("offpeak-reason")),
        (200, "queue-full")
    );
    site.assert_only_the_server_s_key(&[&no_pass, &passes]);
    site.app.finish().await;
}

/// Shadow mode counts what passed for the tenant, by whichever of its keys.
#[tokio::test]
async fn shadow_mode_counts_by_tenant() {
    let site = Site::start(&[("OFFPEAK_SHADOW__DEADLINE", "6h")]).await;
    let (_, one) = site.issue(json!({"tenant": "acme"})).await;
    let (_, two) = site.issue(json!({"tenant": "acme"})).await;
    let (_, other) = site.issue(json!({})).await;
    for key in [&one, &two, &other] {
        assert_eq!(
            site.call(CHAT, key, &[], &chat("x", "")).await.status(),
            200
        );
    }
    for (key, calls) in [(&one, 2), (&two, 2), (&other, 1)] {
        let told = site
            .call("GET /offpeak/v1/shadow", key, &[], "")
            .await
            .json();
        assert_eq!(told["total"]["calls"], calls);
    }
    site.app.finish().await;
}

#[tokio::test]
async fn what_is_learned_of_all_keys_is_the_operator_s() {
    let site = Site::start(&[]).await;
    let (_, key) = site.issue(json!({})).await;
    let told = site.code("GET /offpeak/v1/turnaround", &key, &[], "").await;
    assert_eq!(told, (403, "operators_only".to_owned()));
    let all = site
        .admin("GET /offpeak/admin/turnaround", &Value::Null)
        .await;
    assert_eq!(all.status(), 200);
    site.app.finish().await;
}
