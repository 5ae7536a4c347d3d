//! What one caller may have of the server's memory and of its connections.

use super::{CHAT, SIX_HOURS, chat};
use crate::{app::TestApp, wire::Caller};

const LATER: [&str; 2] = [SIX_HOURS, "prefer: respond-async"];
const OTHER: &str = "authorization: Bearer sk-other";
const THIRD: &str = "authorization: Bearer sk-third";

/// A call with a body of so many bytes, split before its end.
fn large(key: &str, bytes: usize) -> (String, String, String) {
    let body = chat(&"x".repeat(bytes), "");
    let (most, end) = body.split_at(body.len() - 10);
    let head = format!(
        "{CHAT} HTTP/1.1\r\nhost: offpeak\r\n{key}\r\n{SIX_HOURS}\r\nprefer: respond-async\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    (head, most.to_owned(), end.to_owned())
}

#[tokio::test]
async fn bodies_that_come_share_the_memory_and_nothing_is_lost() {
    let bounds = [
        ("OFFPEAK_SERVER__MAX_BODY_MEMORY", "2000000"),
        ("OFFPEAK_ADMISSION__MAX_BODY_BYTES", "1000000"),
    ];
    let app = TestApp::with(&bounds).await;
    let key = "authorization: Bearer sk-slow";
    let (head, most, end) = large(key, 700_000);
    let mut slow = app.caller().await;
    slow.write(head.as_bytes()).await;
    slow.write(most.as_bytes()).await;

    // Of a length that is only claimed nothing is counted.
    let mut claims = Vec::new();
    for _ in 0..10 {
        let mut caller = app.caller().await;
        caller.write(large(THIRD, 900_000).0.as_bytes()).await;
        claims.push(caller);
    }
    let mut small = app.caller().await;
    let taken = small
        .call(CHAT, &[&LATER[..], &[OTHER]].concat(), chat("small", ""))
        .await;
    assert_eq!(taken.status(), 202, "{}", taken.text());

    // As many bytes would not be left for others. It is looked for until the slow one's
    // bytes have arrived.
    let too_much = async |key: &str| {
        for _ in 0..100 {
            let (head, most, end) = large(key, 900_000);
            let mut caller = app.caller().await;
            caller.write((head + &most + &end).as_bytes()).await;
            let answer = caller.answer().await;
            match answer.status() {
                202 => tokio::task::yield_now().await,
                _ => return answer,
            }
        }
        panic!("all of them had room");
    };
    for key in [key, OTHER] {
        let refused = too_much(key).await;
        assert_eq!(refused.status(), 503, "{}", refused.text());
        assert_eq!(refused.error_code(), "busy");
        assert_eq!(refused.head.value("retry-after"), "1");
        assert_eq!(refused.head.get("x-should-retry"), None);
    }
    slow.write(end.as_bytes()).await;
    let taken = slow.answer().await;
    assert_eq!(taken.status(), 202, "{}", taken.text());

    // What was refused has its room once the others are durable.
    let (head, most, end) = large(OTHER, 900_000);
    let mut again = app.caller().await;
    again.write((head + &most + &end).as_bytes()).await;
    let taken = again.answer().await;
    assert_eq!(taken.status(), 202, "{}", taken.text());
    app.finish().await;
}

/// Sixteen million bytes, which are more than the sockets on the way hold.
fn question(name: &str) -> String {
    let mut call: serde_json::Value = serde_json::from_str(&chat(name, "tokens=1000000")).unwrap();
    call["n"] = 4.into();
    call.to_string()
}

const LARGE: usize = 16_000_000;

#[tokio::test]
async fn a_large_answer_is_read_from_the_store_as_it_is_taken() {
    let app = TestApp::with(&[("OFFPEAK_SERVER__MAX_BODY_MEMORY", "33554432")]).await;
    let mut caller = app.caller().await;
    let held = caller.call(CHAT, &[SIX_HOURS], question("large")).await;
    assert_eq!(held.status(), 200);
    assert!(held.body.len() > LARGE, "{}", held.body.len());
    assert_eq!(held.json()["choices"].as_array().unwrap().len(), 4);

    let path = format!("GET /v1/chat/completions/{}", held.head.id());
    // Nine callers who take nothing: four of them would fill the memory.
    let mut slow = Vec::new();
    for _ in 0..9 {
        let mut caller = app.caller().await;
        caller.send(&path, &[], "").await;
        slow.push(caller);
    }
    let again = caller.call(&path, &[], "").await;
    assert_eq!(again.status(), 200);
    assert_eq!(
        again.head.value("content-length"),
        held.body.len().to_string()
    );
    assert!(again.body == held.body, "it is the same, byte for byte");
    let fed = caller.call("GET /offpeak/v1/results", &[], "").await;
    let line: serde_json::Value = serde_json::from_slice(&fed.body).unwrap();
    assert_eq!(line["response"], held.json());

    let mut heads = Vec::new();
    for caller in &mut slow {
        heads.push(caller.head().await);
    }
    let whole = slow[0].rest(&heads[0]).await;
    assert!(
        whole.unwrap() == held.body,
        "who takes it late gets all of it"
    );
    let gone = path.replace("GET", "DELETE");
    assert_eq!(caller.call(&gone, &[], "").await.status(), 200);
    for (caller, head) in slow.iter_mut().zip(&heads).skip(1) {
        assert_eq!(caller.rest(head).await, None, "it never ends cleanly");
    }
    app.finish().await;
}

#[tokio::test]
async fn an_answer_that_has_to_be_made_needs_memory() {
    let bounds = [
        ("OFFPEAK_SERVER__MAX_BODY_MEMORY", "24000000"),
        ("OFFPEAK_ADMISSION__MAX_BODY_BYTES", "1000000"),
    ];
    let app = TestApp::with(&bounds).await;
    let mut caller = app.caller().await;
    let held = caller.call(CHAT, &[SIX_HOURS], question("fed")).await;
    assert!(held.body.len() > LARGE);
    // A line of the feed is made of a whole answer, which is held while it is taken.
    let mut slow = app.caller().await;
    slow.send("GET /offpeak/v1/results", &[], "").await;
    let head = slow.head().await;
    slow.begun().await;
    let refused = caller.call("GET /offpeak/v1/results", &[], "").await;
    assert_eq!(refused.status(), 503, "there is no room");
    assert_eq!(refused.error_code(), "busy");
    assert_eq!(refused.head.value("retry-after"), "1");
    let rest = slow.rest(&head).await.unwrap();
    let line: serde_json::Value = serde_json::from_slice(&rest).unwrap();
    assert_eq!(line["response"], held.json());
    let fed = caller.call("GET /offpeak/v1/results", &[], "").await;
    assert_eq!(fed.status(), 200, "there is room again");
    app.finish().await;
}

#[tokio::test]
async fn a_key_that_never_called_waits_for_nothing() {
    let app = TestApp::start().await;
    let mut stranger = app.caller().await;
    let answer = stranger
        .call("GET /offpeak/v1/results?wait=3600", &[OTHER], "")
        .await;
    assert_eq!((answer.status(), answer.body.len()), (200, 0));
    assert_eq!(answer.head.value("retry-after"), "5");
    assert!(!answer.head.value("offpeak-cursor").is_empty());
    let patient = ["prefer: wait=3600", OTHER];
    let answer = stranger.call("GET /offpeak/v1/results", &patient, "").await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.head.get("preference-applied"), None);

    // One that has called waits, also where all of its calls have ended.
    let mut caller = app.caller().await;
    let ended = caller.call(CHAT, &[SIX_HOURS, OTHER], chat("a", "")).await;
    assert_eq!(ended.status(), 200);
    let fed = stranger.call("GET /offpeak/v1/results", &[OTHER], "").await;
    let cursor = fed.head.value("offpeak-cursor").to_owned();
    let wait = format!("GET /offpeak/v1/results?wait=3600&after={cursor}");
    stranger.send(&wait, &[OTHER], "").await;
    caller.call(CHAT, &[SIX_HOURS, OTHER], chat("b", "")).await;
    let fed = stranger.answer().await;
    assert_eq!(fed.text().lines().count(), 1, "{}", fed.text());
    app.finish().await;
}

/// Callers of one key that wait, as many as may.
async fn waiting(app: &TestApp, count: usize, call: &(&str, &[&str], String)) -> Vec<Caller> {
    let mut waiting = Vec::new();
    for _ in 0..count {
        let mut caller = app.caller().await;
        caller.send(call.0, call.1, &call.2).await;
        waiting.push(caller);
    }
    waiting
}

#[tokio::test]
async fn one_keys_waiting_callers_leave_room_to_others() {
    let bounds = [
        ("OFFPEAK_SERVER__MAX_CONNECTIONS", "10"),
        ("OFFPEAK_HOLD__DRIP_AFTER", "20ms"),
    ];
    let app = TestApp::with(&bounds).await;
    // Held calls: their heads say that they wait.
    let mut held = waiting(&app, 8, &(CHAT, &[SIX_HOURS], chat("held", "slow=100s"))).await;
    for caller in &mut held {
        assert_eq!(caller.head().await.status, 200);
    }
    let mut ninth = app.caller().await;
    let refused = ninth.call(CHAT, &[SIX_HOURS], chat("held", "")).await;
    assert_eq!(refused.status(), 429, "{}", refused.text());
    assert_eq!(refused.error_code(), "too_many_waiting");
    assert_eq!(refused.head.value("retry-after"), "5");
    // It need not wait, and others may.
    let taken = ninth.call(CHAT, &LATER, chat("async", "slow=100s")).await;
    assert_eq!(taken.status(), 202);
    let stub = format!("GET /v1/chat/completions/{}", taken.head.id());
    let polled = ninth.call(&stub, &["prefer: wait=3600"], "").await;
    assert_eq!(polled.status(), 202);
    assert_eq!(polled.head.get("preference-applied"), None);
    let fed = ninth
        .call("GET /offpeak/v1/results?wait=3600", &[], "")
        .await;
    assert_eq!((fed.status(), fed.body.len()), (200, 0));
    assert_eq!(fed.head.value("retry-after"), "5");
    let mut other = app.caller().await;
    let answer = other
        .call(CHAT, &[SIX_HOURS, OTHER], chat("other", ""))
        .await;
    assert_eq!(answer.status(), 200);
    assert_eq!(other.call("GET /healthz", &[], "").await.status(), 200);

    // Who leaves gives its place back.
    drop(held.pop());
    loop {
        ninth
            .send(CHAT, &[SIX_HOURS], chat("next", "slow=100s"))
            .await;
        let head = ninth.head().await;
        if head.status == 200 {
            break;
        }
        assert_eq!(head.status, 429);
        ninth.rest(&head).await.unwrap();
    }
    app.finish().await;
}
