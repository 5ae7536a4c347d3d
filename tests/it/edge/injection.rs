//! What callers name stays a value: it never becomes another header, another path or
//! another line of the log.

use std::collections::BTreeSet;

use serde_json::json;

use super::{
    CHAT,
    raw::{recorded, told},
};

/// Names of models, and the path at which the upstream is asked about each.
#[tokio::test]
async fn a_models_name_is_one_segment_of_a_path() {
    let (app, mut recorder) = recorded(&[]).await;
    let mut wrong = Vec::new();
    for (model, path) in [
        ("gpt-4o-mini", Some("/v1/models/gpt-4o-mini")),
        (
            "ft:gpt-4o:org::id",
            Some("/v1/models/ft%3Agpt-4o%3Aorg%3A%3Aid"),
        ),
        ("a/b", Some("/v1/models/a%2Fb")),
        ("../files?x=1#y", Some("/v1/models/..%2Ffiles%3Fx%3D1%23y")),
        ("a b", Some("/v1/models/a%20b")),
        ("%2e%2e", Some("/v1/models/%252e%252e")),
        ("\\..\\files", Some("/v1/models/%5C..%5Cfiles")),
        ("\u{e9}\u{202e}", Some("/v1/models/%C3%A9%E2%80%AE")),
        // A URL has no way to say these: they are asked about nowhere.
        ("..", None),
        (".", None),
    ] {
        let body = json!({"model": model, "messages": [{}]}).to_string();
        let sent = format!(
            "{CHAT} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer sk\r\noffpeak-deadline: 1s\r\n\
             connection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = told(app.address, sent.as_bytes()).await;
        let seen = recorder.take().await;
        let lines: Vec<String> = seen
            .iter()
            .map(|request| {
                String::from_utf8_lossy(request)
                    .split("\r\n")
                    .next()
                    .unwrap()
                    .to_owned()
            })
            .collect();
        let asked = path.map(|path| format!("GET {path} HTTP/1.1"));
        let expected: Vec<String> = asked
            .into_iter()
            .chain([format!("{CHAT} HTTP/1.1")])
            .collect();
        if lines != expected || !answer.starts_with(b"HTTP/1.1 200") {
            let answer = String::from_utf8_lossy(&answer).into_owned();
            wrong.push(format!("{model}: {lines:?}, not {expected:?}: {answer}"));
        }
    }
    assert_eq!(wrong, [""; 0]);
    app.finish().await;
}

#[tokio::test]
async fn what_a_call_names_comes_back_in_no_header_of_its_own() {
    let (app, mut recorder) = recorded(&[]).await;
    let usual: BTreeSet<&str> = BTreeSet::from([
        "cache-control",
        "connection",
        "content-length",
        "content-type",
        "date",
        "location",
        "offpeak-deadline",
        "offpeak-guarantee",
        "offpeak-lane",
        "offpeak-reason",
        "offpeak-request-id",
        "offpeak-status",
        "preference-applied",
        "retry-after",
        "transfer-encoding",
        "vary",
        "x-should-retry",
    ]);
    for named in [
        r"x\r\nx-evil: 1",
        "x%0d%0ax-evil:%201",
        "x\u{2028}x-evil: 1",
        "\"; x-evil=1",
        "x\tx-evil: 1",
        "é\u{85}x-evil: 1",
        "{{x}}",
        "${jndi:ldap://evil.example}",
        "=cmd()",
        "<script>",
        "../../etc/passwd",
    ] {
        for header in [
            "offpeak-tag",
            "idempotency-key",
            "offpeak-webhook",
            "openai-beta",
            "prefer",
        ] {
            let body = json!({"model": "m", "messages": [{}], "user": named}).to_string();
            let sent = format!(
                "{CHAT} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer sk\r\noffpeak-deadline: 6h\r\n\
                 prefer: respond-async\r\n{header}: {named}\r\nconnection: close\r\n\
                 content-length: {}\r\n\r\n{body}",
                body.len()
            );
            let answer = told(app.address, sent.as_bytes()).await;
            let answer = String::from_utf8_lossy(&answer).into_owned();
            let head = answer.split("\r\n\r\n").next().unwrap();
            let status = &head[..12];
            assert!(
                ["HTTP/1.1 202", "HTTP/1.1 400"].contains(&status),
                "{header}: {named}: {head}"
            );
            for line in head.split("\r\n").skip(1) {
                let name = line.split(':').next().unwrap();
                assert!(usual.contains(name), "{header}: {named}: {head}");
            }
        }
    }
    for request in recorder.take().await {
        let request = String::from_utf8_lossy(&request).into_owned();
        let head = request.split("\r\n\r\n").next().unwrap();
        assert!(!head.contains("\r\nx-evil"), "{head}");
    }
    app.finish().await;
}
