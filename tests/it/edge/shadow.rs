//! Shadow mode on real sockets: nothing of a call changes, and what it says of its
//! cost is counted.

use std::{io::Write, net::SocketAddr};

use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use super::{CHAT, chat};
use crate::app::TestApp;

const SIX_HOURS: (&str, &str) = ("OFFPEAK_SHADOW__DEADLINE", "6h");

/// What an upstream says to a call whose body names it, byte for byte.
fn said(name: &str) -> Vec<u8> {
    const USAGE: &str = r#""usage":{"prompt_tokens":1000,"completion_tokens":200}"#;
    let answer = |status: &str, headers: &str, body: &[u8]| {
        let head = format!(
            "HTTP/1.1 {status}\r\ndate: Sun, 22 Nov 2026 17:00:00 GMT\r\n{headers}\
             content-length: {}\r\n\r\n",
            body.len()
        );
        [head.as_bytes(), body].concat()
    };
    let json = |model: &str, more: &str| {
        let body = format!(r#"{{"model":"{model}","choices":[],{more}{USAGE}}}"#);
        answer(
            "200 OK",
            "content-type: application/json\r\n",
            body.as_bytes(),
        )
    };
    let stream = |last: &str| {
        let mut events = b"HTTP/1.1 200 OK\r\ndate: Sun, 22 Nov 2026 17:00:00 GMT\r\n\
            content-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
            .to_vec();
        let first = r#"{"model":"gpt-4o-mini-2024-07-18","choices":[{}],"usage":null}"#;
        for data in [first, last, "[DONE]"] {
            let event = format!("data: {data}\n\n");
            events.extend(format!("{:x}\r\n{event}\r\n", event.len()).into_bytes());
        }
        [&events[..], b"0\r\n\r\n"].concat()
    };
    match name {
        "json" => json("gpt-4o-mini-2024-07-18", r#""service_tier":"default","#),
        "flex" => json("o3-2025-04-16", r#""service_tier":"flex","#),
        "priority" => json("gpt-4o-mini", r#""service_tier":"priority","#),
        "nobody's" => json("mystery-1", ""),
        "stream" => stream(&format!(r#"{{"model":"gpt-4o-mini-2024-07-18",{USAGE}}}"#)),
        "no usage" => stream(r#"{"model":"gpt-4o-mini-2024-07-18","choices":[]}"#),
        "embeddings" => {
            let numbers = "0.0123,".repeat(150_000);
            let body = format!(
                r#"{{"data":[{{"embedding":[{numbers}0]}}],"model":"text-embedding-3-small","usage":{{"prompt_tokens":10000}}}}"#
            );
            answer(
                "200 OK",
                "content-type: application/json\r\n",
                body.as_bytes(),
            )
        }
        "zipped" => {
            let body = format!(r#"{{"model":"gpt-4o-mini","choices":[],{USAGE}}}"#);
            let mut zipped = GzEncoder::new(Vec::new(), Compression::default());
            zipped.write_all(body.as_bytes()).unwrap();
            let zipped = zipped.finish().unwrap();
            answer("200 OK", "content-encoding: gzip\r\n", &zipped)
        }
        "no gzip" => answer(
            "200 OK",
            "content-encoding: gzip\r\n",
            b"\x1f\x8b\x08\x00\x00",
        ),
        "noise" => answer("200 OK", "content-type: text/html\r\n", b"<html>\xff"),
        "broken" => {
            let mut broken = json("gpt-4o-mini", "");
            broken.truncate(broken.len() - 10);
            broken
        }
        "error" => {
            let body = format!(r#"{{"error":{{}},"model":"gpt-4o-mini",{USAGE}}}"#);
            answer("429 Slow Down", "", body.as_bytes())
        }
        other => panic!("{other}"),
    }
}

/// Answers every call, then closes.
async fn upstream(calls: &mut JoinSet<()>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    calls.spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (head, body) = request(&mut stream).await;
            let name = match head.starts_with("POST") {
                true => body,
                false => "json".into(),
            };
            let answer = said(&name);
            // In two pieces, the second of which begins anywhere.
            let (first, second) = answer.split_at(answer.len() / 2);
            for piece in [first, second] {
                stream.write_all(piece).await.unwrap();
                stream.flush().await.unwrap();
            }
        }
    });
    address
}

/// A request whose body is one word.
async fn request(stream: &mut TcpStream) -> (String, String) {
    let mut read = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&read).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|l| l.strip_prefix("content-length: "));
            if length.map_or(0, |length| length.parse().unwrap()) == body.len() {
                return (head.to_owned(), body.to_owned());
            }
        }
        assert!(stream.read_buf(&mut read).await.unwrap() > 0, "{text}");
    }
}

/// All that comes back: the head and the body.
async fn whole(app: &TestApp, line: &str, headers: &[&str], body: &str) -> (String, Vec<u8>) {
    let mut caller = app.caller().await;
    caller.send(line, headers, body).await;
    let head = caller.head().await;
    let body = caller.rest(&head).await.expect("the answer was cut");
    (format!("{head:?}"), body)
}

async fn shadow(app: &TestApp, key: &str) -> Value {
    let mut caller = app.caller().await;
    let key = format!("authorization: Bearer {key}");
    let answer = caller.call("GET /offpeak/v1/shadow", &[&key], "").await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    answer.json()
}

fn usd(sums: &Value, field: &str) -> f64 {
    sums[field].as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn every_byte_is_the_same_and_every_answer_is_counted() {
    let mut calls = JoinSet::new();
    let base = format!("http://{}/v1", upstream(&mut calls).await);
    let base = ("OFFPEAK_UPSTREAM__BASE_URL", base.as_str());
    let off = TestApp::with(&[base]).await;
    let on = TestApp::with(&[base, SIX_HOURS]).await;
    for name in [
        "json",
        "flex",
        "priority",
        "nobody's",
        "stream",
        "no usage",
        "embeddings",
        "zipped",
        "no gzip",
        "noise",
        "error",
    ] {
        let line = match name {
            "embeddings" => "POST /v1/embeddings",
            _ => CHAT,
        };
        let (plain, watched) = (
            whole(&off, line, &[], name).await,
            whole(&on, line, &[], name).await,
        );
        assert!(plain == watched, "{name}");
    }
    // What breaks off within its body.
    let mut caller = on.caller().await;
    caller.send(CHAT, &["connection: close"], "broken").await;
    caller.closed().await;
    // What cannot have a deadline.
    whole(&on, "GET /v1/models", &[], "").await;
    whole(&on, CHAT, &["openai-beta: x"], "json").await;
    whole(&on, "POST /v1/chat/completions?user=1", &[], "json").await;

    let told = shadow(&on, "sk-test").await;
    assert_eq!(told["deadline"], "6h");
    let total = &told["total"];
    let counts = ["calls", "streamed", "unread", "unpriced"].map(|name| total[name].clone());
    assert_eq!(counts, [11, 2, 4, 2].map(Value::from), "{told}");
    // 0.00027 each of two chats, half of 0.0036 the flex call, 0.0002 the embeddings.
    assert_eq!(total["standard_usd"], "0.00254", "{told}");
    let (cost, expected) = (usd(total, "standard_usd"), usd(total, "expected_usd"));
    assert!((cost - expected - usd(total, "saved_usd")).abs() < 1e-9);
    assert!((0.002_13..0.002_24).contains(&expected), "{told}");
    assert_eq!(total["streamed_standard_usd"], "0.00027");
    assert!((0.000_13..0.000_14).contains(&usd(total, "streamed_saved_usd")));
    let rescued = total["expected_rescued"].as_f64().unwrap();
    assert!((0.0..0.1).contains(&rescued), "{told}");
    let models = told["by_model"].as_array().unwrap().iter();
    let models: Vec<&Value> = models.map(|row| &row["model"]).collect();
    let expected = [
        json!(null),
        json!("gpt-4o-mini"),
        json!("mystery-1"),
        json!("o3"),
        json!("text-embedding-3-small"),
    ];
    assert_eq!(models, expected.each_ref());

    let told = shadow(&off, "sk-test").await;
    assert_eq!(
        (&told["deadline"], &told["total"]["calls"]),
        (&json!(null), &json!(0))
    );
    off.finish().await;
    on.finish().await;
}

#[tokio::test]
async fn a_tenant_sees_its_own_sums_and_they_survive_a_restart() {
    let mut app = TestApp::with(&[SIX_HOURS]).await;
    let mut caller = app.caller().await;
    for key in ["sk-one", "sk-one", "sk-two"] {
        let key = format!("authorization: Bearer {key}");
        let answer = caller.call(CHAT, &[&key], chat("passing", "")).await;
        assert_eq!(answer.status(), 200);
    }
    let one = shadow(&app, "sk-one").await;
    assert_eq!(
        (&one["total"]["calls"], &one["total"]["unread"]),
        (&json!(2), &json!(0))
    );
    app.restart().await;
    assert_eq!(shadow(&app, "sk-one").await, one);
    assert_eq!(shadow(&app, "sk-two").await["total"]["calls"], 1);
    assert_eq!(shadow(&app, "sk-three").await["total"]["calls"], 0);
    assert!(one.get("by_tenant").is_none());

    let mut caller = app.caller().await;
    let token = format!("authorization: Bearer {}", app.admin_token());
    let all = caller
        .call("GET /offpeak/admin/shadow", &[&token], "")
        .await;
    assert_eq!(all.json()["total"]["calls"], 3);
    assert_eq!(all.json()["by_tenant"].as_array().unwrap().len(), 2);
    let refused = caller.call("GET /offpeak/admin/shadow", &[], "").await;
    assert_eq!(refused.status(), 401);
    app.finish().await;
}
