//! Bad input is refused with a clear error in OpenAI's shape, and never bought.

use serde_json::json;

use super::{CHAT, SIX_HOURS, chat};
use crate::app::TestApp;

struct Case {
    name: &'static str,
    line: &'static str,
    headers: Vec<&'static str>,
    body: String,
    status: u16,
    code: &'static str,
    /// What the message must say.
    says: &'static str,
}

fn case(
    name: &'static str,
    headers: &[&'static str],
    body: impl Into<String>,
    expected: (u16, &'static str, &'static str),
) -> Case {
    let (status, code, says) = expected;
    Case {
        name,
        line: CHAT,
        headers: headers.to_vec(),
        body: body.into(),
        status,
        code,
        says,
    }
}

fn deadlines() -> Vec<Case> {
    const ACCEPTED: &str = "Accepted: a duration counted from receipt, such as `90s`";
    let bad = [
        ("rubbish", "offpeak-deadline: soon"),
        ("empty", "offpeak-deadline: "),
        ("no unit", "offpeak-deadline: 90"),
        ("negative", "offpeak-deadline: -6h"),
        ("zero", "offpeak-deadline: 0s"),
        ("the past", "offpeak-deadline: 2001-01-01T00:00:00Z"),
        ("no zone", "offpeak-deadline: 2099-01-01T00:00:00"),
        ("months", "offpeak-deadline: 15M"),
        ("years", "offpeak-deadline: 1y"),
        ("too far", "offpeak-deadline: 8days"),
        (
            "too far, as an instant",
            "offpeak-deadline: 2999-01-01T00:00:00Z",
        ),
        ("the alias", "x-deadline: tomorrow"),
    ];
    let body = chat("bad deadline", "");
    let expected = (400, "invalid_deadline", ACCEPTED);
    let mut cases: Vec<_> = bad
        .into_iter()
        .map(|(name, header)| case(name, &[header], body.clone(), expected))
        .collect();
    let both = &["offpeak-deadline: 6h", "x-deadline: 7h"];
    cases.push(case(
        "header and alias disagree",
        both,
        body.clone(),
        expected,
    ));
    for (name, line) in [
        ("in the path", "POST /within/soon/v1/chat/completions"),
        (
            "in the path, of a call that is not deferrable",
            "GET /within/0s/v1/models",
        ),
    ] {
        cases.push(Case {
            line,
            ..case(name, &[], body.clone(), expected)
        });
    }
    for (name, header, says) in [
        (
            "negative, and why",
            "offpeak-deadline: -5m",
            "It must not be negative",
        ),
        (
            "no unit, and which there are",
            "offpeak-deadline: 6",
            "It has no unit: write `6h`",
        ),
    ] {
        let expected = (400, "invalid_deadline", says);
        cases.push(case(name, &[header], body.clone(), expected));
    }
    cases.push(Case {
        line: "POST /within/6h/chat/completions",
        ..case(
            "no /v1 in the path",
            &[],
            body,
            (404, "not_found", "Accepted below /within/"),
        )
    });
    cases
}

fn bodies() -> Vec<Case> {
    let deadline: &[&'static str] = &[SIX_HOURS];
    let of = |name, body: &str, expected| case(name, deadline, body, expected);
    let messages = r#""messages":[{"role":"user","content":"x"}]"#;
    vec![
        of("not JSON", "hello", (400, "", "parse the JSON body")),
        of(
            "cut JSON",
            r#"{"model":"gpt-4o-mini","#,
            (400, "", "parse the JSON body"),
        ),
        of("no body", "", (400, "", "parse the JSON body")),
        of(
            "no object",
            "[]",
            (400, "invalid_type", "must be an object"),
        ),
        of(
            "no model",
            &format!("{{{messages}}}"),
            (400, "missing_required_parameter", "'model'"),
        ),
        of(
            "a number for a model",
            &format!(r#"{{"model":4,{messages}}}"#),
            (400, "invalid_type", "expected a string"),
        ),
        of(
            "no messages",
            r#"{"model":"gpt-4o-mini"}"#,
            (400, "missing_required_parameter", "'messages'"),
        ),
        of(
            "a routing key twice",
            &format!(r#"{{"model":"gpt-4o-mini","model":"gpt-4o-mini",{messages}}}"#),
            (400, "duplicate_parameter", "Give it once"),
        ),
        of(
            "a routing key twice, once escaped",
            &format!(r#"{{"model":"gpt-4o-mini","mod\u0065l":"gpt-4o-mini",{messages}}}"#),
            (400, "duplicate_parameter", "Give it once"),
        ),
        of(
            "the dearest tier",
            &format!(r#"{{"model":"gpt-4o-mini","service_tier":"priority",{messages}}}"#),
            (
                400,
                "unsupported_value",
                "Drop the deadline or the service tier",
            ),
        ),
        of(
            "a tier that is paid for ahead",
            &format!(r#"{{"model":"gpt-4o-mini","service_tier":"scale",{messages}}}"#),
            (400, "unsupported_value", "paid for ahead"),
        ),
        of(
            "a tier that there is not",
            &format!(r#"{{"model":"gpt-4o-mini","service_tier":"bogus",{messages}}}"#),
            (400, "invalid_value", "`auto`, `default` and `flex`"),
        ),
        of(
            "an unknown model",
            &format!(r#"{{"model":"gpt-none",{messages}}}"#),
            (404, "model_not_found", "gpt-none"),
        ),
        of(
            "too large",
            &chat(&"x".repeat(70_000), ""),
            (413, "request_too_large", "at most 65536 bytes"),
        ),
    ]
}

fn headers() -> Vec<Case> {
    let stream = {
        let mut body: serde_json::Value = serde_json::from_str(&chat("stream", "")).unwrap();
        body["stream"] = json!(true);
        body.to_string()
    };
    let body = chat("bad header", "");
    let with =
        |name, header, body: &str, expected| case(name, &[SIX_HOURS, header], body, expected);
    const NAMES: &str = "Accepted: the name of a configured endpoint, or an https URL";
    vec![
        with(
            "stream with respond-async",
            "prefer: respond-async",
            &stream,
            (400, "stream_not_held", "Accepted: "),
        ),
        with(
            "stream with a webhook and no wait",
            "offpeak-webhook: https://example.com/",
            &stream,
            (400, "stream_not_held", "Accepted: "),
        ),
        with(
            "an unknown webhook name",
            "offpeak-webhook: nightly",
            &body,
            (400, "invalid_header", NAMES),
        ),
        with(
            "a webhook without TLS",
            "offpeak-webhook: http://example.com/",
            &body,
            (400, "invalid_header", NAMES),
        ),
        with(
            "a webhook to ourselves",
            "offpeak-webhook: https://127.0.0.1/",
            &body,
            (400, "invalid_header", NAMES),
        ),
        with(
            "a way to be late that there is not",
            "offpeak-on-late: panic",
            &body,
            (400, "invalid_header", "`rescue`"),
        ),
        with(
            "a misspelt header",
            "Offpeak-Onlate: wait",
            &body,
            (400, "unknown_header", "Did you mean Offpeak-On-Late?"),
        ),
        with(
            "an empty tag",
            "offpeak-tag: ",
            &body,
            (400, "invalid_header", "1 to 128"),
        ),
        with(
            "a key that is no text",
            "idempotency-key: \u{e9}",
            &body,
            (400, "invalid_header", "1 to 255"),
        ),
        with(
            "a compressed body",
            "content-encoding: gzip",
            &body,
            (415, "unsupported_content_encoding", "Accepted: plain JSON"),
        ),
        with(
            "a wrong key",
            "authorization: Bearer sk-bad",
            &body,
            (401, "invalid_api_key", "API key"),
        ),
    ]
}

#[tokio::test]
async fn each_is_refused_and_says_what_is_accepted() {
    let app = TestApp::with(&[("OFFPEAK_ADMISSION__MAX_BODY_BYTES", "65536")]).await;
    for case in deadlines().into_iter().chain(bodies()).chain(headers()) {
        let mut caller = app.caller().await;
        let answer = caller.call(case.line, &case.headers, &case.body).await;
        let (name, text) = (case.name, answer.text());
        assert_eq!(answer.status(), case.status, "{name}: {text}");
        assert_eq!(answer.error_code(), case.code, "{name}: {text}");
        let message = answer.json()["error"]["message"].to_string();
        assert!(message.contains(case.says), "{name}: {message}");
        assert_eq!(answer.head.value("x-should-retry"), "false", "{name}");
    }
    let log = app.simulator.log();
    assert!(log.requests.is_empty() && log.batches.is_empty(), "{log:?}");
    app.finish().await;
}

#[tokio::test]
async fn an_idempotency_key_goes_with_one_body() {
    let app = TestApp::start().await;
    let mut caller = app.caller().await;
    let headers = &[SIX_HOURS, "prefer: respond-async", "idempotency-key: k1"];
    let first = caller.call(CHAT, headers, chat("one", "")).await;
    let again = caller.call(CHAT, headers, chat("one", "")).await;
    assert_eq!((first.status(), again.status()), (202, 202));
    assert_eq!(first.head.id(), again.head.id(), "the same key joins");
    let other = caller.call(CHAT, headers, chat("two", "")).await;
    assert_eq!(other.status(), 422);
    assert_eq!(other.error_code(), "idempotency_key_reused");
    assert_eq!(other.head.value("x-should-retry"), "false");
    let stranger = [headers, &["authorization: Bearer sk-other"][..]].concat();
    let theirs = caller.call(CHAT, &stranger, chat("two", "")).await;
    assert_eq!(theirs.status(), 202, "keys are a tenant's own");
    app.finish().await;
}

#[tokio::test]
async fn a_cut_body_is_refused_and_an_expected_continue_is_given() {
    let app = TestApp::start().await;
    let mut caller = app.caller().await;
    let body = chat("continued", "");
    let head = format!(
        "{CHAT} HTTP/1.1\r\nhost: x\r\n{}\r\n{SIX_HOURS}\r\nprefer: respond-async\r\n\
         expect: 100-continue\r\ncontent-length: {}\r\n\r\n",
        crate::wire::KEY,
        body.len()
    );
    caller.write(head.as_bytes()).await;
    assert_eq!(caller.head().await.status, 100);
    caller.write(body.as_bytes()).await;
    assert_eq!(caller.answer().await.status(), 202);

    let mut cut = app.caller().await;
    let head = head.replace("expect: 100-continue", "transfer-encoding: chunked");
    let head = head.replace(&format!("content-length: {}\r\n", body.len()), "");
    cut.write(head.as_bytes()).await;
    cut.write(b"5\r\n{\"mod\r\nzz\r\n").await;
    assert_eq!(cut.answer().await.status(), 400);
    app.finish().await;
}

#[tokio::test]
async fn what_is_to_be_answered_later_and_cannot_be_is_not_bought() {
    let listed = ("OFFPEAK_ADMISSION__ENDPOINTS", "/v1/embeddings");
    let app = TestApp::with(&[listed]).await;
    let mut caller = app.caller().await;
    let later = [SIX_HOURS, "prefer: respond-async"];
    for path in [
        CHAT,
        "POST /v1/chat/completions?beta=1",
        "POST /within/6h/v1/responses",
    ] {
        let answer = caller.call(path, &later, chat("later", "")).await;
        assert_eq!(
            (answer.status(), answer.error_code().as_str()),
            (400, "not_deferrable"),
            "{path}"
        );
        assert!(answer.text().contains("POST to /v1/embeddings"), "{path}");
    }
    assert_eq!(app.simulator.bill().rows.len(), 0);
    // Held, it is bought; and on other calls these are an SDK's default headers.
    let held = caller.call(CHAT, &[SIX_HOURS], chat("held", "")).await;
    let models = caller.call("GET /v1/models", &later, "").await;
    for answer in [held, models] {
        assert_eq!(answer.status(), 200, "{}", answer.text());
        assert_eq!(answer.head.value("offpeak-reason"), "not-deferrable");
    }
    app.finish().await;
}

#[tokio::test]
async fn strictness_refuses_what_could_only_pass_through() {
    let app = TestApp::with(&[("OFFPEAK_DEADLINE__STRICT", "true")]).await;
    let mut caller = app.caller().await;
    let answer = caller.call("GET /v1/models", &[SIX_HOURS], "").await;
    assert_eq!(
        (answer.status(), answer.error_code().as_str()),
        (400, "not_deferrable")
    );
    let answer = caller.call(CHAT, &[SIX_HOURS], chat("strict", "")).await;
    assert_eq!(answer.status(), 200);
    app.finish().await;

    let settings = [
        ("OFFPEAK_DEADLINE__STRICT", "true"),
        // Six hours are time for a few.
        ("OFFPEAK_LIVE__EXPECTED", "1h"),
        ("OFFPEAK_LIVE__MAX_CONCURRENT", "1"),
        ("OFFPEAK_LIVE__START_CONCURRENT", "1"),
    ];
    let app = TestApp::with(&settings).await;
    let mut caller = app.caller().await;
    let mut taken = 0;
    let refused = loop {
        let head = &[SIX_HOURS, "prefer: respond-async"];
        let body = chat(&format!("q{taken}"), "never");
        let answer = caller.call(CHAT, head, body).await;
        match answer.status() {
            202 => taken += 1,
            _ => break answer,
        }
    };
    assert!((2..9).contains(&taken), "{taken} calls");
    assert_eq!(
        (refused.status(), refused.error_code().as_str()),
        (429, "deadline_not_firm")
    );
    assert!(refused.text().contains("So many calls are waiting"));
    app.finish().await;
}

/// Nobody waits: the same call would be refused again.
#[tokio::test]
async fn strictness_refuses_what_is_too_short_for_one_call_for_good() {
    let settings = [
        ("OFFPEAK_DEADLINE__STRICT", "true"),
        ("OFFPEAK_RESCUE__RESERVE", "12m"),
    ];
    let app = TestApp::with(&settings).await;
    let mut caller = app.caller().await;
    let soon = "offpeak-deadline: 100s";
    let answer = caller.call(CHAT, &[soon], chat("soon", "")).await;
    assert_eq!(
        (answer.status(), answer.error_code().as_str()),
        (400, "deadline_too_short")
    );
    assert_eq!(answer.head.value("x-should-retry"), "false");
    let kept = "shorter than the 2m 1s that are kept for one ordinary call";
    assert!(answer.text().contains(kept), "{}", answer.text());
    let patient = &[soon, "prefer: respond-async", "offpeak-on-late: wait"];
    let answer = caller.call(CHAT, patient, chat("patient", "")).await;
    assert_eq!(answer.status(), 202);
    let later = caller.call(CHAT, &["offpeak-deadline: 3m"], chat("later", ""));
    assert_eq!(later.await.status(), 200);
    app.finish().await;
}
