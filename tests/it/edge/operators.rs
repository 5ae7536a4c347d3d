//! Who may speak to Offpeak's own paths, and where.

use super::{
    CHAT, SIX_HOURS, chat,
    raw::{recorded, statuses, told},
};
use crate::{
    app::TestApp,
    wire::{Answer, Caller},
};

/// Nothing on the web may read what is answered.
fn no_cors(answer: &Answer) {
    for name in [
        "access-control-allow-origin",
        "access-control-allow-headers",
    ] {
        assert_eq!(answer.head.get(name), None);
    }
}

#[tokio::test]
async fn operators_may_have_a_listener_of_their_own() {
    let apart = ("OFFPEAK_SERVER__ADMIN_LISTEN", "127.0.0.1:0");
    let app = TestApp::with(&[apart]).await;
    let token = format!("authorization: Bearer {}", app.admin_token());
    let mut callers = app.caller().await;
    for line in [
        "GET /offpeak/admin/status",
        "POST /offpeak/admin/pause",
        "GET /metrics",
        "GET /offpeak/",
        "GET /offpeak",
        "GET /offpeak/assets/main.js",
    ] {
        let answer = callers.call(line, &[&token], "").await;
        assert_eq!(answer.error_code(), "not_found", "{line}");
    }
    for line in ["GET /healthz", "GET /offpeak/v1/requests", "GET /v1/models"] {
        let answer = callers.call(line, &[], "").await;
        assert_eq!(answer.status(), 200, "{line}");
    }

    let mut operators = Caller::connect(app.admin_address.unwrap()).await;
    for line in [
        "GET /offpeak/admin/status",
        "GET /metrics",
        "GET /healthz",
        "GET /offpeak/",
        "GET /offpeak/assets/main.js",
    ] {
        let answer = operators.call(line, &[&token], "").await;
        assert_eq!(answer.status(), 200, "{line}");
    }
    let answer = operators.call("GET /offpeak/admin/status", &[], "").await;
    assert_eq!(answer.status(), 401);
    for (line, headers) in [
        ("GET /v1/models", &[][..]),
        ("GET /offpeak/v1/requests", &[]),
        (CHAT, &[SIX_HOURS]),
    ] {
        let answer = operators.call(line, headers, chat("through", "")).await;
        assert_eq!(answer.error_code(), "not_found", "{line}");
    }
    assert_eq!(app.runs_of("through"), 0);
    app.finish().await;
}

#[tokio::test]
async fn a_web_page_can_neither_change_nor_read_anything() {
    let app = TestApp::start().await;
    let mut browser = app.caller().await;
    let token = format!("authorization: Bearer {}", app.admin_token());
    for page in [
        "origin: https://evil.example",
        "origin: null",
        "sec-fetch-site: cross-site",
    ] {
        for line in [
            "POST /offpeak/admin/pause",
            "GET /offpeak/admin/status",
            "GET /offpeak/v1/requests",
            "GET /metrics",
            "POST /offpeak/v1/requests/op_01kap9kdcg0000040000000000/cancel",
        ] {
            let answer = browser.call(line, &[page, &token], "").await;
            assert_eq!(answer.error_code(), "cross_site", "{page} {line}");
            no_cors(&answer);
        }
        // A link may lead to the dashboard, which is the same for everybody.
        let answer = browser.call("GET /offpeak/", &[page], "").await;
        assert_eq!(answer.status(), 200, "{page}");
        no_cors(&answer);
    }
    // What a page may send unasked changes nothing, whatever it is called.
    for line in ["GET", "HEAD", "OPTIONS"] {
        for path in ["pause", "resume", "flush"] {
            browser
                .send(&format!("{line} /offpeak/admin/{path}"), &[&token], "")
                .await;
            let head = browser.head().await;
            assert_eq!(head.status, 405, "{line} {path}");
            if line != "HEAD" {
                browser.rest(&head).await.unwrap();
            }
        }
    }
    let status = browser
        .call("GET /offpeak/admin/status", &[&token], "")
        .await;
    assert_eq!(status.json()["paused"], false);
    no_cors(&status);
    app.finish().await;
}

#[tokio::test]
async fn who_has_no_key_is_told_nothing_under_a_foreign_name() {
    let public = ("OFFPEAK_SERVER__PUBLIC_URL", "https://offpeak.example");
    // An upstream that wants no key.
    let (app, _upstream) = recorded(&[public]).await;
    let raw = |line: &str, fields: &str, body: &str| {
        let length = body.len();
        format!(
            "{line} HTTP/1.1\r\n{fields}connection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        )
    };
    // A tenant without a key.
    let body = chat("keyless", "never");
    let call = raw(
        CHAT,
        "host: 127.0.0.1\r\noffpeak-deadline: 6h\r\nprefer: respond-async\r\n",
        &body,
    );
    let answer = told(app.address, call.as_bytes()).await;
    assert!(answer.starts_with(b"HTTP/1.1 202"));
    let id = String::from_utf8(answer).unwrap();
    let id = id.split("offpeak-request-id: ").nth(1).unwrap();
    let id = id.split("\r\n").next().unwrap();
    for (fields, status) in [
        ("host: 127.0.0.1:8080\r\n", 200),
        ("host: localhost:8080\r\n", 200),
        ("host: offpeak.example\r\n", 200),
        ("host: evil.example:8080\r\n", 403),
        ("host: 127.0.0.1\r\nhost: evil.example\r\n", 403),
        ("", 403),
        // Neither these nor `Host` decide anything for who has a key.
        ("host: evil.example\r\nauthorization: Bearer sk\r\n", 404),
        (
            "host: evil.example\r\nx-forwarded-host: 127.0.0.1\r\nforwarded: host=localhost\r\n",
            403,
        ),
    ] {
        let ask = raw(&format!("GET /offpeak/v1/requests/{id}"), fields, "");
        let answer = told(app.address, ask.as_bytes()).await;
        assert_eq!(statuses(&answer), [status], "{fields}");
    }
    app.finish().await;
}

#[tokio::test]
async fn forwarded_headers_decide_nothing() {
    let app = TestApp::start().await;
    let mut caller = app.caller().await;
    let forged = &[
        SIX_HOURS,
        "prefer: respond-async",
        "x-forwarded-host: evil.example",
        "x-forwarded-proto: https",
        "x-forwarded-prefix: /evil",
        "x-forwarded-for: 127.0.0.1",
        "x-original-url: /offpeak/admin/status",
        "x-rewrite-url: /offpeak/admin/status",
        "x-http-method-override: DELETE",
        "forwarded: host=evil.example;proto=https",
    ];
    let answer = caller.call(CHAT, forged, chat("forged", "never")).await;
    assert_eq!(answer.status(), 202);
    let id = answer.head.id();
    let location = answer.head.value("location");
    assert_eq!(location, format!("/v1/chat/completions/{id}"));
    assert!(!answer.text().contains("evil"));
    let line = "GET /offpeak/admin/status";
    let answer = caller.call(line, &["x-forwarded-for: 127.0.0.1"], "").await;
    assert_eq!(answer.error_code(), "invalid_api_key");
    app.finish().await;
}
